"""The examples in the docstrings of what is public do what they show, name by name.

An example is a snippet: it runs in the middle of an async function, with a fresh kernel, its channels, AnyIO, and what is
public in the package and in the module that has the name. Where it says behind a ``print`` what that prints, it does.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import anyio
import pytest

from documentation import MODULES, PUBLIC, Block, Public
from enchannel import open_kernel
from test_documentation import run_snippet

EXAMPLES = {
    public: [block for block in public.blocks() if block.kind == "snippet" and not block.not_run]
    for public in PUBLIC
}


def names_of(*modules: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"anyio": anyio}
    for module in map(importlib.import_module, modules):
        namespace |= {name: getattr(module, name) for name in module.__all__}
    return namespace


def promised(block: Block) -> list[str]:
    """What the block says that it prints, some of all perhaps."""
    return re.findall(r"^ *print\(.*\)(?:  |\n *)# (.+)$", block.code, re.MULTILINE)


@pytest.mark.anyio
@pytest.mark.parametrize("public", [each for each in EXAMPLES if EXAMPLES[each]], ids=str)
async def test_the_examples_of(
    public: Public, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    modules = ("enchannel", public.module, str(public))
    imported = names_of(*(each for each in modules if each in MODULES))
    async with open_kernel("python3") as kernel, kernel.open_channels() as ch:
        for block in EXAMPLES[public]:
            namespace = {**imported, "kernel": kernel, "ch": ch}
            printed = (await run_snippet(block, namespace)).splitlines()
            lines = iter([line.rstrip() for line in printed])
            missing = [line for line in promised(block) if line not in lines]
            assert not missing, (printed, block)
