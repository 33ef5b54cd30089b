"""What the documentation shows is what happens, block by block."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from documentation import PAGES, Block, blocks, finished, kernel_for, name_of, run_snippet
from real_servers import JUPYTER_SERVER, TOKEN, running


def having(*kinds: str) -> Any:
    """The pages that have blocks of these kinds."""
    pages = [page for page in PAGES if any(block.is_run(*kinds) for block in blocks(page))]
    return pytest.mark.parametrize("page", pages, ids=name_of)


def cases(*kinds: str) -> Any:
    """Each block of these kinds, with what it is to print."""
    found = []
    for page in PAGES:
        on_page = list(blocks(page))
        for block, behind in zip(on_page, [*on_page, None][1:], strict=True):
            if block.is_run(*kinds):
                shown = behind.code if behind is not None and behind.is_output else None
                found.append(pytest.param(block, shown, id=f"{name_of(page)}:{block.line}"))
    return pytest.mark.parametrize(("block", "shown"), found)


@pytest.fixture
async def served(page: Path) -> AsyncIterator[dict[str, Any]]:
    """A Jupyter Server, for the page about them."""
    if page.stem != "servers":
        yield {}
        return
    with running(*JUPYTER_SERVER) as server:
        await server.wait_ready()
        yield {"url": server.url, "token": TOKEN}


@pytest.mark.anyio
@having("snippet")
async def test_the_snippets_of(
    page: Path, served: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    snippets = [block for block in blocks(page) if block.is_run("snippet")]
    async with kernel_for(snippets) as given:
        namespace: dict[str, Any] = {**given, **served}
        printed = None
        for block in blocks(page):
            if block.is_output:
                assert printed is None or printed.rstrip() == block.code.rstrip(), block
            printed = None
            if block in snippets:
                printed = await run_snippet(block, namespace)


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
@cases("program")
def test_the_program(backend: str, block: Block, shown: str | None, tmp_path: Path) -> None:
    """On asyncio the last line is another one, as the README says, and everything else is the same."""
    code = block.padded()
    if backend == "asyncio":
        if "trio." in block.code.replace("trio.run(main)", ""):
            pytest.skip("it uses more of Trio than that")
        code = code.replace("trio.run(main)", "import asyncio; asyncio.run(main())")
    program = tmp_path / "program.py"
    program.write_text(code, encoding="utf-8")
    printed = finished([sys.executable, str(program)], tmp_path)
    assert shown is None or printed.rstrip() == shown.rstrip()


@cases("tests")
def test_the_tests(block: Block, shown: str | None, tmp_path: Path) -> None:
    """As AnyIO's plugin runs them; the README says what else does."""
    (tmp_path / "test_shown.py").write_text(block.padded(), encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nanyio_mode = auto\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
    finished(command, tmp_path)


@cases("commands")
def test_the_commands(block: Block, shown: str | None, tmp_path: Path) -> None:
    """One after the other in one directory; what is shown behind one is what it prints, where anything is."""
    commands: list[tuple[str, list[str]]] = []
    for line in block.code.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], []))
        elif line:
            commands[-1][1].append(line)
    for command, expected in commands:
        printed = finished(["sh", "-c", command], tmp_path)
        assert not expected or printed.splitlines() == expected, command
