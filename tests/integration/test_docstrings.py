"""The examples in the docstrings of what is public do what they show, name by name.

An example is a snippet: it runs in the middle of an async function, with a fresh kernel and its channels where it needs one,
AnyIO, and what is public in the package and in the module that has the name. Where it says behind a ``print`` what that
prints, it does.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import anyio
import pytest

from documentation import (
    MODULES,
    PUBLIC,
    ROOT,
    Block,
    Public,
    blocks_in,
    finished,
    kernel_for,
    needs_kernel,
    run_snippet,
)

EXAMPLES = {
    public: [block for block in public.blocks() if block.is_run("snippet")] for public in PUBLIC
}


def names_of(*modules: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"anyio": anyio}
    for module in map(importlib.import_module, modules):
        namespace |= {name: getattr(module, name) for name in module.__all__}
    return namespace


def promised(block: Block) -> list[str]:
    """What the block says that it prints, some of all perhaps."""
    return re.findall(r"^ *print\(.*\)(?:  |\n *)# (.+)$", block.code, re.MULTILINE)


def cases() -> Iterator[Any]:
    """Each name that has examples and a backend; where they need a kernel, of its own each, one of the two in turn.

    The pages of the guide, which show the same with more around it, run on both.
    """
    backends = ("trio", "asyncio")
    turns = cycle(backends)
    for public, examples in EXAMPLES.items():
        if examples:
            for backend in [next(turns)] if needs_kernel(examples) else backends:
                yield pytest.param(public, backend, id=f"{backend}-{public}")


@pytest.mark.anyio
@pytest.mark.parametrize(("public", "anyio_backend"), list(cases()))
async def test_the_examples_of(
    public: Public, anyio_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    modules = ("enchannel", public.module, str(public))
    imported = names_of(*(each for each in modules if each in MODULES))
    async with kernel_for(EXAMPLES[public]) as given:
        for block in EXAMPLES[public]:
            namespace = {**imported, **given}
            printed = (await run_snippet(block, namespace)).splitlines()
            lines = iter([line.rstrip() for line in printed])
            missing = [line for line in promised(block) if line not in lines]
            assert not missing, (printed, block)


def pytest_blocks(name: str) -> list[Any]:
    """The blocks of tests in a module's file, each with the names that stand in for imports."""
    path = ROOT / "src" / name
    found = []
    for docstring in re.finditer(r'"""(.*?)"""', path.read_text(encoding="utf-8"), re.DOTALL):
        line = docstring.string.count("\n", 0, docstring.start()) + 1
        found += [block for block in blocks_in(docstring[1], path, line) if block.kind == "tests"]
    return [pytest.param(block, id=f"{path.name}:{block.line}") for block in found]


@pytest.mark.parametrize(
    "block",
    [
        *pytest_blocks("pytest_enchannel.py"),
        *pytest_blocks("enchannel/testing/__init__.py"),
        *pytest_blocks("enchannel/testing/_checks/cases.py"),
    ],
)
def test_the_examples_that_are_tests(block: Block, tmp_path: Path) -> None:
    imports = (
        "import anyio\nimport pytest\nfrom enchannel import *\nfrom enchannel.testing import *\n"
    )
    (tmp_path / "test_shown.py").write_text(imports + block.code, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nanyio_mode = auto\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
    finished(command, tmp_path)
