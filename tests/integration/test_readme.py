"""The README keeps what it says."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import docutils.core
import docutils.nodes
import pytest

from enchannel import Kernel

README = Path(__file__).parents[2] / "README.rst"


def python_blocks() -> list[str]:
    settings = {"report_level": 2, "halt_level": 2, "syntax_highlight": "none"}
    document = docutils.core.publish_doctree(README.read_text(), settings_overrides=settings)
    blocks = document.findall(docutils.nodes.literal_block)
    return [block.astext() for block in blocks if "python" in block["classes"]]


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_the_example_runs_on_a_real_kernel(backend: str, tmp_path: Path) -> None:
    example, _, _, _ = python_blocks()
    assert example.endswith("\ntrio.run(main)")
    if backend == "asyncio":
        last = "import asyncio; asyncio.run(main())"
        assert "``asyncio.run(main())``" in README.read_text()
        example = example.removesuffix("trio.run(main)") + last
    (tmp_path / "example.py").write_text(example)
    result = subprocess.run(
        [sys.executable, "-W", "error", str(tmp_path / "example.py")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.stderr, result.returncode) == ("", 0)
    lines = result.stdout.splitlines()
    iopub = [line for line in lines if line.startswith("iopub")]
    assert iopub[:2] + iopub[-1:] == ["iopub status", "iopub execute_input", "iopub status"]
    assert set(iopub[2:-1]) == {"iopub stream"}
    assert [line for line in lines if line not in iopub] == ["shell execute_reply"]


@pytest.mark.anyio
async def test_the_example_of_an_execution_runs(
    kernel: Kernel, capsys: pytest.CaptureFixture[str]
) -> None:
    _, example, _, _ = python_blocks()
    names: dict[str, Any] = {}
    exec(f"async def run(ch):\n{textwrap.indent(example, '    ')}", names)
    async with kernel.open_channels() as ch:
        await names["run"](ch)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["status", "execute_input"]
    assert lines[-1].startswith(
        "[{'output_type': 'execute_result', 'data': {'text/plain': \"'me'\"}"
    )
    assert lines[-1].endswith("] ok")


def test_the_example_of_a_test_runs(tmp_path: Path) -> None:
    _, _, example, _ = python_blocks()
    run = 'await kernel_channels.shell.send({"msg_type": "execute_request", "content": CODE})'
    wait = 'await fake_kernel.transcript.wait_for("< iopub status idle")'
    example = example.replace('...  # run "1/0" over kernel_channels', f"{run}; {wait}")
    (tmp_path / "test_example.py").write_text(
        f"import pytest\npytestmark = pytest.mark.anyio\nCODE = {{'code': '1/0'}}\n{example}\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:trio", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert " passed" in result.stdout, result.stdout
    assert result.returncode == 0


def test_the_example_of_a_check_runs(tmp_path: Path) -> None:
    *_, example = python_blocks()
    assert example.count('"my_kernel"') == 2
    # For a kernel whose language is not known here, so that nothing but the samples is left of the example.
    code = example.replace('"my_kernel"', "open_fake_kernel")
    (tmp_path / "test_example.py").write_text(
        f"from enchannel.testing import open_fake_kernel\n{code}\nimport trio\ntrio.run(main)\n"
    )
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-s", "-k", "kernel-info", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=tmp_path,
    )
    assert "ok   kernel-info: " in result.stdout
    assert "2 passed" in result.stdout
