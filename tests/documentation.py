"""The blocks of code of the documentation, as a reader sees them.

A block of Python is one of three kinds: a *program*, which ends in a call of ``run``; *tests*, which pytest is to find; or a
*snippet*, a part of an async function that has ``ch`` and ``kernel``, and what the snippets before it on the page have
defined. A block of ``console`` is commands behind ``$``, and what they print. A block of ``text`` with ``:class: output`` is
what the block before it prints. A comment ``.. not run: REASON`` right above a block says why it is not run.

The blocks in a docstring are found in the same way, and so are the docstrings of what is public.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal

import attrs

import enchannel

__all__ = ["PAGES", "PUBLIC", "ROOT", "Block", "Docstring", "Public", "blocks", "name_of"]

ROOT = Path(__file__).parent.parent

PAGES = [ROOT / "README.rst", *sorted((ROOT / "docs").rglob("*.rst"))]

_DIRECTIVE = re.compile(r"(?P<indent> *)\.\. code-block::(?: +(?P<language>\w+))?\s*$")
_NOT_RUN = re.compile(r" *\.\. not run: *(?P<reason>.+)$")

Kind = Literal["program", "tests", "snippet", "commands", "other"]


@attrs.frozen
class Block:
    """One block of code.

    Attributes:
        page: Where it stands.
        line: Its first line there, from 1.
        language: As the directive names it.
        code: What it says.
        is_output: Whether it is what the block before it prints.
        not_run: Why it is not run; empty where it is.
    """

    page: Path
    line: int
    language: str
    code: str
    is_output: bool
    not_run: str

    @property
    def kind(self) -> Kind:
        if self.language == "console":
            return "commands"
        if self.language != "python":
            return "other"
        if re.search(r"^(async )?def test_|^test_\w+ = ", self.code, re.MULTILINE):
            return "tests"
        if re.search(r"^ *(trio|anyio|asyncio)\.run\(", self.code, re.MULTILINE):
            return "program"
        return "snippet"

    def padded(self) -> str:
        """The code, so that the line numbers of a traceback are those of the page."""
        return "\n" * (self.line - 1) + self.code


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT).with_suffix(""))


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of code on `page`."""
    return blocks_in(page.read_text(encoding="utf-8"), page)


def blocks_in(text: str, page: Path, first_line: int = 1) -> Iterator[Block]:
    """The blocks of code in `text`, which begins at that line of `page`."""
    lines = text.splitlines()
    above = ""
    for number, line in enumerate(lines):
        match = _DIRECTIVE.match(line)
        if match is None:
            above = line or above
            continue
        depth = len(match["indent"])
        inside: list[str] = []
        for each in lines[number + 1 :]:
            if each.strip() and len(each) - len(each.lstrip()) <= depth:
                break
            inside.append(each)
        options = [each for each in inside if re.match(r" +:\w+:", each)]
        first = next(
            (at for at, each in enumerate(inside) if each.strip() and each not in options), 0
        )
        reason = _NOT_RUN.match(above)
        yield Block(
            page,
            first_line + number + 1 + first,
            match["language"] or "",
            textwrap.dedent("\n".join(inside[first:])).strip("\n") + "\n",
            any("output" in option for option in options),
            reason["reason"] if reason else "",
        )
        above = ""


@attrs.frozen
class Docstring:
    """What stands in the source about one name.

    Attributes:
        page: The module's file.
        line: Where it begins there, from 1.
        text: What it says.
    """

    page: Path
    line: int
    text: str

    def blocks(self) -> Iterator[Block]:
        """The blocks of code in it."""
        return blocks_in(self.text, self.page, self.line)


@attrs.frozen
class Public:
    """A public name.

    Attributes:
        module: The public module that has it.
        name: It.
        documents_itself: Whether it is a class, a function or a module, which has a docstring of its own; the others are
            type aliases and constants.
        docstrings: Those of it and, of a class, of its public members.
    """

    module: str
    name: str
    documents_itself: bool = attrs.field(eq=False)
    docstrings: list[Docstring] = attrs.field(eq=False)

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@cache
def _docstrings(page: Path) -> dict[str, Docstring]:
    """The docstrings in a module's file by qualified name, those behind assignments among them; its own is that of ``""``."""
    found: dict[str, Docstring] = {}

    def keep(name: str, statement: ast.stmt | None) -> None:
        value = statement.value if isinstance(statement, ast.Expr) else None
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            found[name] = Docstring(page, value.lineno, value.value)

    def look(node: ast.Module | ast.ClassDef, prefix: str) -> None:
        for statement, behind in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(statement, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                keep(prefix + statement.name, statement.body[0])
            if isinstance(statement, ast.ClassDef):
                look(statement, f"{prefix}{statement.name}.")
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                keep(prefix + statement.target.id, behind)

    tree = ast.parse(page.read_text(encoding="utf-8"))
    keep("", tree.body[0])
    look(tree, "")
    return found


def _public(module: str, name: str) -> Public:
    thing = getattr(importlib.import_module(module), name)
    documents_itself = inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing)
    if not documents_itself:
        pages = sorted(Path(enchannel.__path__[0]).rglob("*.py"))
        known = [_docstrings(page)[name] for page in pages if name in _docstrings(page)]
        return Public(module, name, documents_itself=False, docstrings=known)
    page = Path(inspect.getfile(thing))
    whole = "" if inspect.ismodule(thing) else thing.__qualname__
    of_members = re.compile(rf"{re.escape(whole)}\.[a-z]\w*$" if inspect.isclass(thing) else "$.")
    known = [
        docstring
        for key, docstring in _docstrings(page).items()
        if key == whole or of_members.match(key)
    ]
    return Public(module, name, documents_itself=True, docstrings=known)


MODULES = ("", ".messages", ".operators", ".outputs", ".testing")

PUBLIC = [
    _public(f"enchannel{module}", name)
    for module in MODULES
    for name in importlib.import_module(f"enchannel{module}").__all__
]
"""What may be imported from the package."""
