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
import json
import keyword
import math
import re
import shlex
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from .command import Failure
from .files import check_writable, free_name, write_file
from .json_values import is_flat
from .notebook_file import NotebookFile, mapping
from .run import Cell, Work
from .widgets import WidgetStates

if TYPE_CHECKING:
    from .. import Execution, KernelChannels, KernelSpec, Message

__all__ = ["Notebook", "Options", "Value", "arguments_of", "value_of"]

Value: TypeAlias = "bool | int | float | str | None"

ALLOWED, SKIPPED = "raises-exception", "skip-execution"
PARAMETERS, INJECTED = "parameters", "injected-parameters"

TOO_DEEP: dict[str, Any] = {
    "output_type": "display_data",
    "data": {"text/plain": "<an output that is too deep for a notebook>"},
    "metadata": {},
}

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


def arguments_of(spec: KernelSpec) -> Sequence[str]:
    """What a kernel that runs a notebook is started with besides."""
    is_ipykernel = any(re.match(r"ipykernel(_launcher)?\b", each) for each in spec.argv)
    # A notebook that is run is nobody's history, and several at a time need not wait for its file.
    return ("--HistoryManager.hist_file=:memory:",) if is_ipykernel else ()


class Notebook(Work):
    """A notebook that is run.

    Args:
        file: It, as it was read.
        options: How.
        language: That of the kernel which runs it, where that is known.

    Raises:
        Failure: It cannot be run like that, or not be written.
        OSError: What comes of it cannot be written.
    """

    def __init__(self, file: NotebookFile, options: Options, language: str = "") -> None:
        self._file = file
        self._content = file.content
        self._options = options
        self._widgets = WidgetStates()
        self._results: list[tuple[Any, list[dict[str, Any]]]] = []
        output = options.output
        # Told now: it may be moved while it runs.
        self._is_inplace = output is not None and file.is_at(output)
        if options.parameters:
            self._inject(options.parameters, language or file.language)
        super().__init__(self._cells())
        if output is not None:
            check_writable(output)
            file.check_text()

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

    async def prepare(self, ch: KernelChannels) -> None:
        """Takes note of the language that the kernel speaks."""
        language: object = (await ch.kernel_info()).get("language_info")
        if isinstance(language, dict) and language and is_flat(language):
            self._file.metadata["language_info"] = language

    @asynccontextmanager
    async def at_work(self, ch: KernelChannels) -> AsyncIterator[None]:
        """Looks after widgets that show outputs."""
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
            kept = [output if is_flat(output) else TOO_DEEP for output in outputs]
            cell.outputs = from_dict(copy.deepcopy(kept))
        widgets = self._widgets.to_metadata()
        if widgets:
            self._file.metadata["widgets"] = from_dict(widgets)
        # As JSON has it, for half a surrogate pair that a kernel has sent.
        data = self._file.text().encode("utf-8", "backslashreplace")
        is_changed = self._is_inplace and self._file.is_changed(output)
        beside = free_name(output) if is_changed else None
        await write_file(beside or output, data)
        if beside is not None:
            raise OSError(f"{output} was changed while it ran; what came of it is in {beside}")

    # Parameters.

    def _inject(self, parameters: Mapping[str, Value], language: str) -> None:
        from nbformat.v4 import new_code_cell

        language = language or "Python"
        write = _ASSIGNMENTS.get(language.lower())
        if write is None:
            known = ", ".join(_ASSIGNMENTS)
            raise Failure(
                f"{self._file.path}: how {language} sets parameters is not known here; of {known} it is"
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
    tags = mapping(cell, "metadata").get("tags")
    return tags if isinstance(tags, list) else ()


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
