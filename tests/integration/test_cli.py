"""The command line as a person or a script meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from enchannel import open_kernel

pytestmark = pytest.mark.anyio


def enchannel(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "enchannel", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_output_goes_where_it_belongs() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); display('shown'); 6 * 7"
    result = enchannel("run", code)
    assert (result.stdout, result.stderr, result.returncode) == ("out\n'shown'\n42\n", "err\n", 0)


def test_an_error_prints_its_traceback_and_fails() -> None:
    result = enchannel("run", "print('before'); 1/0")
    assert result.stdout == "before\n"
    assert "ZeroDivisionError: division by zero" in result.stderr
    assert "\x1b" not in result.stderr
    assert result.stderr.count("Traceback") == 1
    assert result.returncode == 1


def test_code_from_standard_input() -> None:
    assert enchannel("run", "-", stdin="x = 2\nx + 1").stdout == "3\n"


def test_code_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "cell.py").write_text("print('from a file')")
    assert enchannel("run", str(tmp_path / "cell.py")).stdout == "from a file\n"


def test_a_line_of_json_for_each_message() -> None:
    result = enchannel("run", "--json", "print('woo')")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {(line["channel"], line["msg_type"]) for line in lines} == {
        ("iopub", "status"),
        ("iopub", "execute_input"),
        ("iopub", "stream"),
        ("shell", "execute_reply"),
    }
    assert lines[0]["content"] == {"execution_state": "busy"}
    assert result.returncode == 0


async def test_a_running_kernel(anyio_backend: str) -> None:
    async with open_kernel() as kernel:
        existing = ("run", "--existing", str(kernel.connection_file))
        await anyio.to_thread.run_sync(enchannel, *existing, "x = 5")
        result = await anyio.to_thread.run_sync(enchannel, *existing, "x")
        assert (result.stdout, result.returncode) == ("5\n", 0)
        assert kernel.returncode is None


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--kernel", "cobol", "1"), "no kernelspec 'cobol'"),
        (("--existing", "nowhere.json", "1"), "connection file nowhere.json: No such file"),
        (("missing.py",), "missing.py: no such file"),
        ((), "Missing argument 'CODE'"),
    ],
)
def test_what_cannot_be_run_is_said(arguments: tuple[str, ...], complaint: str) -> None:
    result = enchannel("run", *arguments)
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
    assert (result.stdout, result.returncode) == ("", 2)


def test_a_kernel_that_dies_is_said() -> None:
    result = enchannel("run", "import os; print('bye', flush=True); os._exit(3)")
    assert "process exited with status 3" in result.stderr
    assert result.returncode == 2


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m enchannel run 'for i in range(100000): print(i)' | head -n 1"
    result = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.stdout, result.stderr) == ("0\n", "")


def test_a_terminal_without_unicode_is_shown_what_it_can_show() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "enchannel", "run", "print('\\u2713')"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert (result.stdout, result.returncode) == ("\\u2713\n", 0)


def test_help_and_version() -> None:
    assert "Run CODE in a kernel" in enchannel("run", "--help").stdout
    assert enchannel("--version").stdout.startswith("enchannel, version ")
