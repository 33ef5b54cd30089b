"""What the arguments of ``enchannel run`` stand for: code, files, standard input, or a notebook."""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from .. import KernelSpec
from .command import Failure
from .notebook import Notebook, Options, arguments_of, value_of
from .notebook_file import NotebookFile
from .run import Cell, Work
from .target import Target

__all__ = ["STANDARD_INPUT", "Code", "work_of"]

STANDARD_INPUT = "-"

NOTEBOOK = ".ipynb"


class Code(str):
    """What is code, whatever file is called like that."""

    __slots__ = ()


def work_of(
    code: Sequence[str],
    target: Target,
    *,
    output: Path | None,
    inplace: bool,
    allow_errors: bool,
    cell_timeout: float | None,
    parameters: Sequence[tuple[str, str]],
) -> Work:
    """What is run; where it is a notebook, `target` is told of its kernel."""
    path = _notebook_path(code)
    if path is None:
        given = (output, inplace, allow_errors, cell_timeout, parameters)
        if any(given):
            raise click.UsageError(
                "-o, --inplace, --allow-errors, --cell-timeout and -p are for a notebook, as in: enchannel run NAME.ipynb"
            )
        return Work(_cells(code))
    if inplace and output is not None:
        raise click.UsageError("--inplace writes to the notebook, -o elsewhere: not both.")
    if output == Path(STANDARD_INPUT):
        raise click.UsageError("-o wants a file: standard output is for what the cells print.")
    options = Options(
        output=path if inplace else output,
        allow_errors=allow_errors,
        cell_timeout=math.inf if cell_timeout is None else cell_timeout,
        parameters={
            name: value_of(_checked(value, f"the value of {name}")) for name, value in parameters
        },
    )
    file = NotebookFile(path)
    target.kernel = target.kernel or file.kernel
    target.cwd = str(path.absolute().parent)
    language = ""
    if target.server is None and target.existing is None:
        spec = KernelSpec.find(target.kernel or "python3")
        target.extra_arguments = arguments_of(spec)
        language = spec.language
    return Notebook(file, options, language)


def _notebook_path(code: Sequence[str]) -> Path | None:
    """That of the notebook, where it is one that is to be run."""
    paths = [
        each
        for each in code
        if not isinstance(each, Code) and re.fullmatch(rf".*\{NOTEBOOK}", each, re.IGNORECASE)
    ]
    if not paths:
        return None
    if len(code) > 1:
        other = next(each for each in code if each is not paths[0])
        raise click.UsageError(
            f"a notebook is run alone, and beside {paths[0]} there is {other!r}; what came of it is written with -o FILE."
        )
    path = _existing_path(paths[0])
    if path is None:
        raise Failure(f"{paths[0]}: no such file")
    return path


def _cells(arguments: Sequence[str]) -> list[Cell]:
    if arguments.count(STANDARD_INPUT) > 1:
        raise click.UsageError("- is standard input, which can be read once only.")
    return [_cell(argument) for argument in arguments]


def _cell(argument: str) -> Cell:
    if isinstance(argument, Code):
        return Cell("the code", _checked(argument))
    if argument == STANDARD_INPUT:
        if sys.stdin is None:
            raise Failure("standard input is closed, and no code can be read from it")
        return Cell("standard input", _text(sys.stdin.buffer.read(), "standard input"))
    path = _existing_path(argument)
    if path is not None:
        text = _read(path)
        if path.suffix == ".json" and '"shell_port"' in text:
            # By a pattern that the shell has expanded, and its key would be shown.
            raise Failure(
                f"{path} is a connection file, and no code; is it that of --existing, unquoted?"
            )
        return Cell(path.name, text)
    if re.fullmatch(r"\S+\.(py|ipy|r|sh|jl|cpp|js|txt)", argument, re.IGNORECASE):
        raise Failure(f"{argument}: no such file; where it is code: -c {argument}")
    return Cell("the code", _checked(argument))


def _checked(argument: str, what: str = "CODE") -> str:
    """`argument` as the text in UTF-8 that it is, whatever the locale has made of it."""
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError:
        shown = argument.encode(errors="backslashreplace").decode()
        raise Failure(f"{what} {shown!r} is no UTF-8; code is text in UTF-8") from None


def _existing_path(argument: str) -> Path | None:
    # A line of code may be no valid path at all (too long, a zero byte), and an empty one is no directory.
    try:
        return Path(argument) if argument and Path(argument).exists() else None
    except (OSError, ValueError):
        return None


def _read(path: Path) -> str:
    try:
        return _text(path.read_bytes(), str(path))
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}; CODE is a file, code, or -") from error


def _text(data: bytes, source: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Failure(
            f"{source}: byte {data[error.start]:#04x} at {error.start} is no UTF-8; "
            "code is text in UTF-8"
        ) from error
    return text.replace("\r\n", "\n")
