"""Code to check a kernel with: no protocol can say what prints, fails or asks in a language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs

from ..._exceptions import LocalProtocolError

if TYPE_CHECKING:
    from typing import Self

__all__ = ["KernelSamples"]


@attrs.frozen(kw_only=True)
class KernelSamples:
    """Code in the language of a kernel; what is left empty is not checked.

    No protocol says what prints, fails or asks in a language. Those of some languages are known:
    :meth:`of_language`.

    Raises:
        LocalProtocolError: A sample is of the wrong type.

    Example:
        .. code-block:: python

            samples = KernelSamples(stdout="print('hello, world')", result={"1 + 2": "3"})
            report = await check_kernel(
                "python3", samples=samples, only=["stdout", "execute-result"]
            )
            print(len(report.passed))  # 2
    """

    language: str = ""
    """The ``language_info.name`` that the kernel should have."""
    file_extension: str = ""
    """The ``language_info.file_extension`` that it should have, with its dot."""
    stdout: str = ""
    """Writes ``hello, world`` to standard output."""
    stderr: str = ""
    """Writes something to standard error."""
    result: Mapping[str, str] = attrs.field(factory=dict)
    """Code, and the ``text/plain`` of its value."""
    error: str = ""
    """Fails."""
    late_error: str = ""
    """Fails behind half a second or more."""
    display: Mapping[str, str] = attrs.field(factory=dict)
    """Code that displays something, and the MIME type of it."""
    update_display: str = ""
    """Displays something with a ``display_id``, and updates it."""
    clear_output: str = ""
    """Clears the output."""
    page: str = ""
    """Shows something in a pager."""
    ask: str = ""
    """Asks for a line, and writes it to standard output."""
    password: str = ""
    """Asks for a password."""
    long: str = ""
    """Writes ``begun`` to standard output at once, and runs for a minute or more unless it is interrupted."""
    expression: str = ""
    """Something to evaluate as a user expression."""
    bad_expression: str = ""
    """The same, which fails."""
    completion: Mapping[str, Sequence[str]] = attrs.field(factory=dict)
    """The beginning of a name, and what it is to be completed to, among other things."""
    complete: Sequence[str] = ()
    """Each is ready to run."""
    incomplete: Sequence[str] = ()
    """To each something is missing."""
    invalid: Sequence[str] = ()
    """From none of these anything can become."""
    inspect: str = ""
    """A name that the kernel has something to say about."""

    def __attrs_post_init__(self) -> None:
        for field in attrs.fields(type(self)):
            kind, value = str(field.type), getattr(self, field.name)
            wanted = str if kind == "str" else Mapping if kind.startswith("Mapping") else Sequence
            if not isinstance(value, wanted) or (isinstance(value, str) and wanted is not str):
                raise LocalProtocolError(f"the sample {field.name!r} is a {kind}, not {value!r}")

    def with_those_of(self, others: KernelSamples | None) -> KernelSamples:
        """These, and those of `others` in their place where there are some."""
        given = attrs.asdict(others, recurse=False) if others is not None else {}
        return attrs.evolve(self, **{name: value for name, value in given.items() if value})

    @classmethod
    def of_language(cls, name: str) -> Self:
        """Those for the language called `name` in a ``kernel_info_reply``; empty where it is not known here."""
        return cls(**_LANGUAGES.get(name.lower(), {}))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Those that `data` holds by the names of the attributes, as a TOML file does.

        Raises:
            LocalProtocolError: A name that is none, or something of the wrong type.
        """
        from msgspec import ValidationError, convert

        known = attrs.fields_dict(cls)
        for name in data:
            if name not in known:
                raise LocalProtocolError(
                    f"{name!r} is no kind of sample; there are {', '.join(known)}"
                )
        try:
            return convert(dict(data), cls)
        except ValidationError as error:
            raise LocalProtocolError(f"samples: {error}") from error


_PYTHON = {
    "language": "python",
    "file_extension": ".py",
    "stdout": "print('hello, world')",
    "stderr": "import sys; print('oh', file=sys.stderr)",
    "result": {"1 + 2": "3", "[n * n for n in range(3)]": "[0, 1, 4]"},
    "error": "1 / 0",
    "late_error": "import time; time.sleep(0.5); 1 / 0",
    "display": {
        "from IPython.display import HTML, display; display(HTML('<b>x</b>'))": "text/html"
    },
    "update_display": "from IPython.display import display; h = display('x', display_id=True); h.update('y')",
    "clear_output": "from IPython.display import clear_output; clear_output()",
    "page": "zip?",
    "ask": "print(input('name? '))",
    "password": "import getpass; p = getpass.getpass('secret? ')",
    "long": "import time\nprint('begun', flush=True)\ntime.sleep(60)",
    "expression": "1 + 1",
    "bad_expression": "no_such_name",
    "completion": {"zi": ["zip"]},
    "complete": ["1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n"],
    "incomplete": ["print('''hello", "def f(x):\n  x*2"],
    "invalid": ["import = 7q"],
    "inspect": "zip",
}

_BASH = {
    "language": "bash",
    "file_extension": ".sh",
    "stdout": "echo hello, world",
    "stderr": "echo oh >&2",
    "error": "no-such-command",
    "late_error": "sleep 0.5; no-such-command",
    "long": "echo begun; sleep 60",
    "completion": {"ech": ["echo"]},
}

_R = {
    "language": "R",
    "file_extension": ".r",
    "stdout": "cat('hello, world\\n')",
    "stderr": "message('oh')",
    "result": {"1 + 2": "[1] 3"},
    "error": "stop('x')",
    "late_error": "Sys.sleep(0.5); stop('x')",
    "display": {"plot(1)": "image/png"},
    "ask": "cat(readline('name? '))",
    "long": "cat('begun\\n'); flush.console(); Sys.sleep(60)",
    "expression": "1 + 1",
    "bad_expression": "no_such_name",
    "completion": {"lappl": ["lapply"]},
    "complete": ["1", "f <- function(x) {x*2}"],
    "incomplete": ["print('hello", "f <- function(x) {x"],
    "invalid": ["x = = 1"],
    "inspect": "lapply",
}

_JAVASCRIPT = {
    "stdout": "console.log('hello, world')",
    "stderr": "console.error('oh')",
    "result": {"1 + 2": "3"},
    "error": "throw new Error('x')",
    "completion": {"parseIn": ["parseInt"]},
    "complete": ["1 + 2"],
    "incomplete": ["function f() {"],
    "inspect": "parseInt",
}

_LANGUAGES: Mapping[str, Mapping[str, Any]] = {
    "python": _PYTHON,
    "ipython": {**_PYTHON, "language": "ipython"},
    "bash": _BASH,
    "r": _R,
    "javascript": {**_JAVASCRIPT, "language": "javascript", "file_extension": ".js"},
    "typescript": {**_JAVASCRIPT, "language": "typescript", "file_extension": ".ts"},
}
