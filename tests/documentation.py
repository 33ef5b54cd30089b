"""The blocks of code of the documentation, as a reader sees them.

A block of Python is one of three kinds: a *program*, which ends in a call of ``run``; *tests*, which pytest is to find; or a
*snippet*, a part of an async function that has ``ch`` and ``kernel``, and what the snippets before it on the page have
defined. A block of ``console`` is commands behind ``$``, and what they print. A block of ``text`` with ``:class: output`` is
what the block before it prints. A comment ``.. not run: REASON`` right above a block says why it is not run.

The blocks in a docstring are found in the same way, and so are the docstrings of what is public.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import io
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import anyio
import attrs

from enchannel import open_kernel

__all__ = [
    "MODULES",
    "PAGES",
    "PUBLIC",
    "ROOT",
    "Block",
    "Public",
    "blocks",
    "blocks_in",
    "finished",
    "kernel_for",
    "name_of",
    "run_snippet",
]

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

    def is_run(self, *kinds: Kind) -> bool:
        """Whether it is of one of these kinds, and run."""
        return self.kind in kinds and not self.not_run

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


# Docstrings.


@attrs.frozen
class Public:
    """A public name.

    Attributes:
        module: The public module that has it.
        name: It.
        is_documented: Whether it has a docstring of its own, as classes, functions and modules have, and type aliases and
            constants have not: what stands behind these is for readers of the source alone.
        docstrings: Where in which file it is described and, of a class, what is public in it; and what is said there.
    """

    module: str
    name: str
    is_documented: bool = attrs.field(eq=False)
    docstrings: list[tuple[Path, int, str]] = attrs.field(eq=False, repr=False)

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"

    def blocks(self) -> Iterator[Block]:
        """The blocks of code in its docstrings."""
        for page, line, text in self.docstrings:
            yield from blocks_in(text, page, line)


@cache
def _docstrings(page: Path) -> dict[str, tuple[Path, int, str]]:
    """What stands in a module's file behind each class, function and assignment, by qualified name; of the module, ``""``."""
    found = {}

    def look(name: str, body: Sequence[ast.stmt], inside: str) -> None:
        first = body[0] if body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
            found[name] = (page, first.lineno, str(first.value.value))
        for at, each in enumerate(body):
            if isinstance(each, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                look(f"{inside}{each.name}", each.body, f"{inside}{each.name}.")
            elif isinstance(each, ast.AnnAssign):
                look(f"{inside}{ast.unparse(each.target)}", body[at + 1 : at + 2], "")

    look("", ast.parse(page.read_text(encoding="utf-8")).body, "")
    return found


def _public(module: str, name: str) -> Public:
    thing = getattr(importlib.import_module(module), name)
    is_documented = inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing)
    if is_documented:
        pages = [Path(inspect.getfile(thing))]
        wanted = "" if inspect.ismodule(thing) else re.escape(thing.__qualname__)
        wanted += r"(\.[a-z]\w*)?" if inspect.isclass(thing) else ""
    else:
        pages = sorted((ROOT / "src").rglob("*.py"))
        wanted = re.escape(name)
    docstrings = [
        docstring
        for page in pages
        for key, docstring in _docstrings(page).items()
        if re.fullmatch(wanted, key)
    ]
    return Public(module, name, is_documented, docstrings)


MODULES = (
    "enchannel",
    "enchannel.messages",
    "enchannel.operators",
    "enchannel.outputs",
    "enchannel.testing",
)

PUBLIC = [
    _public(module, name) for module in MODULES for name in importlib.import_module(module).__all__
]
"""What may be imported."""


# Running them.

AT_MOST = 120
"""Seconds for one block."""


def environment() -> dict[str, str]:
    programs = str(Path(sys.executable).parent)
    path = os.pathsep.join([programs, os.environ.get("PATH", "")])
    return {**os.environ, "PATH": path, "NO_COLOR": "1", "COLUMNS": "200"}


def finished(command: list[str], there: Path) -> str:
    """What `command` prints."""
    done = subprocess.run(
        command,
        cwd=there,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=AT_MOST,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


OF_A_KERNEL = {"kernel", "ch", "list_running_kernels"}
"""The names that are nothing without a kernel."""


def names_needed(block: Block) -> set[str]:
    """The names that `block` uses and does not make, as far as is seen without running it."""
    tree = ast.parse(block.code)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    used = {name.id for name in names if isinstance(name.ctx, ast.Load)}
    made = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    made |= {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return used - made


def needs_kernel(blocks: Sequence[Block]) -> bool:
    return any(OF_A_KERNEL & names_needed(block) for block in blocks)


@contextlib.asynccontextmanager
async def kernel_for(blocks: Sequence[Block]) -> AsyncIterator[dict[str, Any]]:
    """The names ``kernel`` and ``ch`` of a fresh kernel, where one of `blocks` needs it."""
    if not needs_kernel(blocks):
        yield {}
        return
    async with open_kernel("python3") as kernel, kernel.open_channels() as ch:
        yield {"kernel": kernel, "ch": ch}


async def run_snippet(block: Block, namespace: dict[str, Any]) -> str:
    """Runs `block` in the middle of an async function; what it prints."""
    compiled = compile(
        block.padded(), str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    )
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), anyio.fail_after(AT_MOST):
        result = eval(compiled, namespace)
        if inspect.iscoroutine(result):
            await result
    return printed.getvalue()
