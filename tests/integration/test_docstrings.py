"""The examples in the docstrings of what is public do what they show, name by name.

An example is a snippet: it runs in the middle of an async function, with a kernel, its channels, AnyIO, and what is
public in the package and in the module that has the name. Each kernel is real, and fresh. Where an example says behind
a ``print`` what that prints, it does.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import anyio
import pytest

import enchannel
from documentation import PUBLIC, Block, Public
from enchannel import open_kernel
from test_documentation import run_snippet

SHOWN = [public for public in PUBLIC if any(map(Block.is_run, public.blocks()))]


def names_of(module: str) -> dict[str, Any]:
    public = importlib.import_module(module)
    return {name: getattr(public, name) for name in public.__all__}


def promised(block: Block) -> list[str]:
    """What the block says that it prints, some of all perhaps."""
    return re.findall(r"^ *print\(.*\)  # (.+)$", block.code, re.MULTILINE)


@pytest.mark.anyio
@pytest.mark.parametrize("public", SHOWN, ids=str)
async def test_the_examples_of(
    public: Public, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    imported = {"anyio": anyio, **names_of("enchannel"), **names_of(public.module)}
    async with open_kernel("python3") as kernel, kernel.open_channels() as ch:
        for block in public.blocks():
            namespace = {**imported, "ch": ch, "kernel": kernel}
            printed = iter((await run_snippet(block, namespace)).splitlines())
            for line in promised(block):
                assert line in printed, block
