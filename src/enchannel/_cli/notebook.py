"""Notebooks: read, run cell by cell, and written back with what came of it.

* The file is written once, however the run ends.
* The cells that are to be run lose their old outputs at the beginning: what is there in the end is of this run.
* What a notebook's tags say of its cells is what nbclient and papermill make of them: ``raises-exception``,
  ``skip-execution``, ``parameters``, ``injected-parameters``.

Source: "The Notebook file format", nbformat.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import keyword
import math
import os
import re
import shlex
import warnings
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from .command import Failure
from .files import check_writable, free_name, write_file
from .output import without_odd_numbers
from .run import Cell, Work
from .widgets import WidgetStates

if TYPE_CHECKING:
    from .. import Execution, KernelChannels, KernelSpec, Message

__all__ = ["Notebook", "Options", "Value", "value_of"]

Value: TypeAlias = "bool | int | float | str | None"

ALLOWED, SKIPPED = "raises-exception", "skip-execution"
PARAMETERS, INJECTED = "parameters", "injected-parameters"

DEEPEST = 200
"""Levels of an output; what reads and writes notebooks fails at twice as many."""

TOO_DEEP: dict[str, Any] = {
    "output_type": "display_data",
    "data": {"text/plain": "<an output that is too deep for a notebook>"},
    "metadata": {},
}

LONGEST = 200
"""Characters of what is said of a file that is no notebook."""

IDS_SINCE = 5
"""The minor version of the format from which on cells have ids."""


@attrs.frozen
class Options:
    """How a notebook is run."""

    output: Path | None = None
    """Where it is written in the end."""
    allow_errors: bool = False
    cell_timeout: float = math.inf
    parameters: Mapping[str, Value] = attrs.field(factory=dict)


class Notebook(Work):
    """A notebook that is run.

    Args:
        path: Where it is.
        options: How.
        language: That of the kernel which runs it, where that is known.

    Raises:
        Failure: It is none, or cannot be run like that.
        OSError: It cannot be read, or what comes of it not be written.
    """

    def __init__(self, path: Path, options: Options, language: str = "") -> None:
        self.path = path
        data = path.read_bytes()
        self._read_as = _digest(data)
        self._content = _parsed(path, data)
        self._options = options
        self._widgets = WidgetStates()
        self._results: list[tuple[Any, list[dict[str, Any]]]] = []
        if options.output is not None:
            check_writable(options.output)
        if options.parameters:
            self._inject(options.parameters, language or self.language)
        super().__init__(self._cells())

    @property
    def kernel(self) -> str | None:
        """The kernelspec that it names."""
        name = _mapping(self._metadata, "kernelspec").get("name")
        return name if isinstance(name, str) and name else None

    def arguments(self, spec: KernelSpec) -> Sequence[str]:
        """What the kernel is started with besides."""
        is_ipykernel = any(re.match(r"ipykernel(_launcher)?\b", each) for each in spec.argv)
        # A notebook that is run is nobody's history, and several at a time need not wait for its file.
        return ("--HistoryManager.hist_file=:memory:",) if is_ipykernel else ()

    @property
    def language(self) -> str:
        """The language of its code, as far as it says."""
        said = (
            _mapping(self._metadata, "kernelspec").get("language"),
            _mapping(self._metadata, "language_info").get("name"),
        )
        return next((each for each in said if isinstance(each, str) and each), "")

    @property
    def _metadata(self) -> Any:
        return self._content.metadata

    def _cells(self) -> list[Cell]:
        wanted = [cell for cell in self._content.cells if _is_run(cell)]
        count = len(wanted)
        cells = []
        for number, cell in enumerate(wanted, 1):
            cell.outputs, cell.execution_count = [], None
            cells.append(
                Cell(
                    f"cell {number} of {count}",
                    _source(cell),
                    may_fail=self._options.allow_errors or ALLOWED in _tags(cell),
                    timeout=self._options.cell_timeout,
                    record=self._recorder(cell),
                    keep_outputs=True,
                    is_named=True,
                )
            )
        return cells

    def _recorder(self, cell: Any) -> Callable[[Execution], None]:
        def record(execution: Execution) -> None:
            # The list itself: a later cell may change a display of this one.
            self._results.append((cell, execution.outputs))
            cell.execution_count = execution.execution_count
            cell.metadata["execution"] = execution.timings.to_metadata()

        return record

    @asynccontextmanager
    async def at_work(self, ch: KernelChannels) -> AsyncIterator[None]:
        """Takes note of the language that the kernel speaks, and looks after widgets that show outputs."""
        language: object = (await ch.kernel_info()).get("language_info")
        if isinstance(language, dict) and language:
            self._metadata["language_info"] = language
        async with ch.open_output_widgets():
            yield

    def hear(self, message: Message) -> None:
        """Keeps what there is to see of widgets."""
        self._widgets.hear(message)

    async def save(self) -> None:
        """Writes it, where it is to be written."""
        from nbformat import from_dict

        output = self._options.output
        if output is None:
            return
        for cell, outputs in self._results:
            kept = [output if _is_flat(output) else TOO_DEEP for output in outputs]
            cell.outputs = from_dict(copy.deepcopy(kept))
        widgets = self._widgets.to_metadata()
        if widgets:
            self._metadata["widgets"] = from_dict(widgets)
        # As JSON has it, for half a surrogate pair that a kernel has sent.
        data = _text(self._content).encode("utf-8", "backslashreplace")
        beside = free_name(output) if self._is_changed(output) else None
        await write_file(beside or output, data)
        if beside is not None:
            raise OSError(f"{output} was changed while it ran; what came of it is in {beside}")

    def _is_changed(self, output: Path) -> bool:
        """Whether `output` is this notebook, and is not any more what was read."""
        if not output.is_file() or not os.path.samefile(output, self.path):
            return False
        return _digest(self.path.read_bytes()) != self._read_as

    # Parameters.

    def _inject(self, parameters: Mapping[str, Value], language: str) -> None:
        from nbformat.v4 import new_code_cell

        language = language or "Python"
        write = _ASSIGNMENTS.get(language.lower())
        if write is None:
            known = ", ".join(_ASSIGNMENTS)
            raise Failure(
                f"{self.path}: how {language} sets parameters is not known here; of {known} it is"
            )
        for name in parameters:
            if not _is_name(name, language.lower()):
                raise Failure(f"-p sets a name, and {name!r} is none in {language}")
        lines = ["# Parameters", *(write(name, value) for name, value in parameters.items())]
        cell = new_code_cell("\n".join(lines), metadata={"tags": [INJECTED]})
        minor = self._content.get("nbformat_minor")
        if not isinstance(minor, int) or minor < IDS_SINCE:
            del cell["id"]
        cells = self._content.cells
        for at, there in enumerate(cells):
            if INJECTED in _tags(there):
                cells[at] = cell
                return
        tagged = [at for at, there in enumerate(cells) if PARAMETERS in _tags(there)]
        cells.insert(tagged[0] + 1 if tagged else 0, cell)


def _is_flat(value: object, left: int = DEEPEST) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return True
    return left > 0 and all(_is_flat(each, left - 1) for each in value)


def _is_run(cell: Any) -> bool:
    return (
        cell.get("cell_type") == "code"
        and bool(_source(cell).strip())
        and SKIPPED not in _tags(cell)
    )


def _source(cell: Any) -> str:
    source = cell.get("source")
    if isinstance(source, list):
        return "".join(map(str, source))
    return source if isinstance(source, str) else ""


def _tags(cell: Any) -> Sequence[str]:
    tags = _mapping(cell, "metadata").get("tags")
    return tags if isinstance(tags, list) else ()


def _mapping(value: Any, name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return found if isinstance(found, Mapping) else {}


# Files.


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _parsed(path: Path, data: bytes) -> Any:
    try:
        import nbformat
    except ImportError:
        raise Failure('notebooks need nbformat: pip install "enchannel[cli]"') from None
    try:
        with warnings.catch_warnings():
            # What is missing in it, and is made up for, is nothing that its user has to do about.
            warnings.simplefilter("ignore")
            content = nbformat.reads(data.decode("utf-8-sig"), as_version=4)
    except UnicodeDecodeError as error:
        said = f"byte {data[error.start]:#04x} at {error.start} is no UTF-8"
        raise Failure(f"{path} is no notebook: {said}") from error
    except RecursionError:
        raise Failure(f"{path} is no notebook: it is nested too deeply") from None
    except nbformat.reader.NotJSONError as error:
        raise Failure(f"{path} is no notebook: {error}") from error
    except Exception as error:
        # Of many kinds, by where it is none.
        said = next(_faults(json.loads(data)), f"nbformat cannot read it: {error}")
        raise Failure(f"{path} is no notebook: {said[:LONGEST].splitlines()[0]}") from error
    if not isinstance(content.cells, list) or not all(isinstance(c, dict) for c in content.cells):
        # What has nothing that could be read is read all the same.
        raise Failure(f"{path} is no notebook: {next(_faults(content), 'its cells are none')}")
    return content


def _faults(value: Any) -> Iterator[str]:
    """What is wrong with what is to be a notebook, as far as the schema of its version says it."""
    from nbformat.validator import iter_validate

    if not isinstance(value, dict):
        yield "it is no object of JSON"
        return
    version, minor = (
        each if type(each) is int else None
        for each in (value.get("nbformat"), value.get("nbformat_minor"))
    )
    # Some of it makes nbformat itself fail, and of some versions there is no schema.
    with contextlib.suppress(Exception):
        for error in iter_validate(value, version=version or 4, version_minor=minor):
            where = ".".join(map(str, error.relative_path))
            yield f"{where}: {error.message}" if where else error.message


def _text(content: Any) -> str:
    import nbformat

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            text: str = nbformat.writes(content, allow_nan=False)
        except ValueError:
            # Written anew, where the library takes its words for it.
            content = nbformat.from_dict(without_odd_numbers(content))
            text = nbformat.writes(content)
    return text if text.endswith("\n") else f"{text}\n"


# What a parameter says.


def value_of(text: str) -> Value:
    """What is meant by `text` on a command line."""
    known: dict[str, Value] = {"True": True, "False": False, "None": None}
    if text in known:
        return known[text]
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            # What Python allows in numbers for the eye, nobody means on a command line.
            if "_" not in text:
                return kind(text)
    return text


_NAMES = {
    "r": r"[^\W\d_][\w.]*",
    "julia": r"[^\W\d]\w*",
    "bash": r"[A-Za-z_][A-Za-z0-9_]*",
}
"""What can be set in a language, as far as it is told by its characters."""


def _is_name(text: str, language: str) -> bool:
    if language == "python":
        return text.isidentifier() and not keyword.iskeyword(text)
    return re.fullmatch(_NAMES[language], text) is not None


def _python(name: str, value: Value) -> str:
    odd = isinstance(value, float) and not math.isfinite(value)
    return f"{name} = float({str(value)!r})" if odd else f"{name} = {value!r}"


def _r(name: str, value: Value) -> str:
    return f"{name} = {_literal(value, 'TRUE', 'FALSE', 'NULL', ('Inf', '-Inf', 'NaN'))}"


def _julia(name: str, value: Value) -> str:
    literal = _literal(value, "true", "false", "nothing", ("Inf", "-Inf", "NaN"))
    return f"{name} = {literal.replace('$', chr(92) + '$')}"


def _bash(name: str, value: Value) -> str:
    said = {True: "true", False: "false", None: ""}
    text = said[value] if value is None or isinstance(value, bool) else str(value)
    return f"{name}={shlex.quote(text)}"


def _literal(value: Value, true: str, false: str, none: str, odd: tuple[str, str, str]) -> str:
    if value is None or isinstance(value, bool):
        return {True: true, False: false, None: none}[value]
    if isinstance(value, float) and not math.isfinite(value):
        return odd[2] if math.isnan(value) else odd[0] if value > 0 else odd[1]
    return json.dumps(value, ensure_ascii=False)


_ASSIGNMENTS: dict[str, Callable[[str, Value], str]] = {
    "python": _python,
    "r": _r,
    "julia": _julia,
    "bash": _bash,
}
"""How a language sets a name, by what it calls itself."""
