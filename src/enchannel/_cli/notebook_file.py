"""A notebook as a file has it: read, and made text again.

* What cannot be run, or not be written again, is refused with what the schema of its version says about it.
* What a cell of code lacks, and can only be empty, is made up for.

Source: "The Notebook file format", nbformat.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .command import Failure
from .json_values import DEEPEST, is_flat, without_odd_numbers

__all__ = ["NotebookFile", "mapping"]

AROUND = 10
"""Levels of a notebook around what is put into it."""

LONGEST = 200
"""Characters of what is said of a file that is no notebook."""


class NotebookFile:
    """A notebook, as it was read.

    Args:
        path: Where it is.

    Attributes:
        content: nbformat's node, for who runs it to change.

    Raises:
        Failure: It is none.
        OSError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path: Path = path
        data = path.read_bytes()
        self._read_as = _digest(data)
        self.content: Any = _parsed(path, data)

    @property
    def metadata(self) -> Any:
        """What it says of itself."""
        return self.content.metadata

    @property
    def kernel(self) -> str | None:
        """The kernelspec that it names."""
        name = mapping(self.metadata, "kernelspec").get("name")
        return name if isinstance(name, str) and name else None

    @property
    def language(self) -> str:
        """The language of its code, as far as it says."""
        said = (
            mapping(self.metadata, "kernelspec").get("language"),
            mapping(self.metadata, "language_info").get("name"),
        )
        return next((each for each in said if isinstance(each, str) and each), "")

    def is_at(self, path: Path) -> bool:
        """Whether `path` is this very file, however it is called."""
        return path.is_file() and path.samefile(self.path)

    def is_changed(self, path: Path) -> bool:
        """Whether somebody has something else by now at `path`, where this file was."""
        if not path.is_file():
            return False
        try:
            return _digest(path.read_bytes()) != self._read_as
        except FileNotFoundError:
            return False
        except OSError:
            # Nobody can tell what would be lost.
            return True

    def check_text(self) -> None:
        """Raises ``Failure`` where it could not be written as it is."""
        try:
            self.text()
        except Exception as error:
            raise _failure(
                self.path, self.content, f"it cannot be written again: {error!r}"
            ) from error

    def text(self) -> str:
        """What is written of it."""
        import nbformat

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                text: str = nbformat.writes(self.content, allow_nan=False)
            except ValueError:
                # Written anew, where the library takes its words for it.
                content = nbformat.from_dict(without_odd_numbers(self.content))
                text = nbformat.writes(content)
        return text if text.endswith("\n") else f"{text}\n"


def mapping(value: Any, name: str) -> Mapping[str, Any]:
    """What is called `name` there, where it is an object of JSON."""
    found = value.get(name)
    return found if isinstance(found, Mapping) else {}


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
        raise _too_deep(path) from None
    except nbformat.reader.NotJSONError as error:
        raise Failure(f"{path} is no notebook: {error}") from error
    except Exception as error:
        # Of many kinds, by where it is none.
        raise _failure(path, json.loads(data), f"nbformat cannot read it: {error}") from error
    if not isinstance(content.cells, list) or not all(isinstance(c, dict) for c in content.cells):
        # What has nothing that could be read is read all the same.
        raise _failure(path, content, "its cells are none")
    if not is_flat(content, DEEPEST + AROUND):
        raise _too_deep(path)
    for cell in content.cells:
        if cell.get("cell_type") == "code":
            cell.setdefault("outputs", [])
            cell.setdefault("execution_count", None)
    return content


def _too_deep(path: Path) -> Failure:
    return Failure(f"{path} is no notebook: it is nested too deeply")


def _failure(path: Path, value: Any, otherwise: str) -> Failure:
    said = next(_faults(value), otherwise)
    return Failure(f"{path} is no notebook: {said[:LONGEST].splitlines()[0]}")


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
