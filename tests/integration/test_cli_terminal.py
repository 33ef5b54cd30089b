"""The command line where its output goes slowly, or nowhere, and where it is stopped and sent on."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from terminal import DEADLINE, HEEDING, Terminal, enchannel, is_gone, wait_for

MUCH = 300_001

PRINTS_MUCH = f"import sys; _ = sys.stdout.write('x' * {MUCH})"

ENDLESS = (
    "import os, sys\nprint(os.getpid(), flush=True)\nwhile True: print('x' * 10_000, flush=True)"
)


@contextlib.contextmanager
def started(*arguments: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The command, whose output nobody reads yet."""
    given: dict[str, Any] = {
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        **options,
    }
    process = subprocess.Popen([*HEEDING, "-m", "enchannel", *arguments], **given)
    with process:
        try:
            yield process
        finally:
            process.kill()


def stalled(process: subprocess.Popen[bytes]) -> str:
    """Waits until it can write no more; the first line that it has written."""
    assert process.stdout is not None
    line = process.stdout.readline().decode().strip()
    deadline = time.monotonic() + DEADLINE
    full = 0
    while full < 5:
        # Nothing more fits into the pipe, several times in a row.
        size = int.from_bytes(fcntl.ioctl(process.stdout, FIONREAD, b"\0" * 4), sys.byteorder)
        full = full + 1 if size >= CAPACITY else 0
        assert time.monotonic() < deadline, f"{size} bytes are in the pipe"
        time.sleep(0.05)
    return line


FIONREAD = 0x541B
CAPACITY = 60_000
"""Bytes in a pipe of 64 KiB that is as good as full."""


# How much comes out.


@pytest.mark.parametrize("unbuffered", [True, False])
def test_what_does_not_block_loses_nothing(unbuffered: bool) -> None:
    env = {**os.environ, **({"PYTHONUNBUFFERED": "1"} if unbuffered else {})}
    with started("run", PRINTS_MUCH, env=env) as process:
        assert process.stdout is not None
        # Of the open file, which both ends of the command's standard output share with us.
        theirs = os.open(f"/proc/{process.pid}/fd/1", os.O_WRONLY)
        os.close(theirs)
        fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, 4096)
        read = b""
        while chunk := os.read(process.stdout.fileno(), 1000):
            read += chunk
            if process.poll() is None:
                process.send_signal(signal.SIGWINCH)
        assert (len(read), process.wait(DEADLINE)) == (MUCH, 0)


def test_an_output_that_was_told_not_to_block_loses_nothing() -> None:
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    with started("run", PRINTS_MUCH, stdout=writes) as process:
        os.close(writes)
        with open(reads, "rb") as file:
            assert len(file.read()) == MUCH
        assert process.wait(DEADLINE) == 0


def test_a_socket_is_an_output() -> None:
    import socket

    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    with started("run", PRINTS_MUCH, stdout=theirs) as process, ours:
        theirs.close()
        with ours.makefile("rb") as file:
            assert len(file.read()) == MUCH
        assert process.wait(DEADLINE) == 0


def test_whether_a_pipe_blocks_is_left_as_it_was() -> None:
    reads, writes = os.pipe()
    with started("run", "print(1)", stdout=writes) as process:
        assert process.wait(DEADLINE) == 0
        assert os.get_blocking(writes)
        assert os.read(reads, 100) == b"1\n"
    os.close(reads)
    os.close(writes)


def test_much_output_takes_little_memory() -> None:
    code = "import sys\nfor _ in range(300): _ = sys.stdout.write('x' * 10**6); sys.stdout.flush()"
    with started("run", code) as process:
        assert process.stdout is not None
        count, most = 0, 0
        while chunk := os.read(process.stdout.fileno(), 1 << 20):
            count += len(chunk)
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{process.pid}/status").read_text()
                most = max(most, int((re.search(r"VmHWM:\s+(\d+)", text) or [0, 0])[1]))
        assert (count, process.wait(DEADLINE)) == (300 * 10**6, 0)
    # What waits is bounded; all of it would be 300 MB.
    assert 0 < most < 250_000


# A reader that does not read.


def test_a_timeout_is_heard_while_nobody_reads() -> None:
    with started("run", "--timeout", "1", ENDLESS) as process:
        assert process.wait(DEADLINE) == 124
        assert process.stderr is not None
        assert process.stderr.read() == b"Error: timed out after 1 s\n"
        assert process.stdout is not None
        assert is_gone(process.stdout.readline().decode().strip())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_heard_while_nobody_reads(number: signal.Signals) -> None:
    with started("run", ENDLESS) as process:
        pid = stalled(process)
        process.send_signal(number)
        assert process.wait(DEADLINE) == 128 + number
        assert is_gone(pid)


def test_ctrl_c_is_heard_while_nobody_reads(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    code = STUBBORN.replace("pass", "print('x' * 10_000, flush=True)").replace(
        "print('goes on', flush=True)", f"open({str(heard)!r}, 'w').write('heard')"
    )
    with started("run", code) as process:
        pid = stalled(process)
        process.send_signal(signal.SIGINT)
        # Two at once are one.
        assert wait_for(heard) == "heard"
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 130
        assert is_gone(pid)


# Being stopped.

STUBBORN = """
import os
pid = os.getpid()
while True:
    try:
        if pid:
            said, pid = pid, 0
            print(said, flush=True)
        while True: pass
    except KeyboardInterrupt:
        print('goes on', flush=True)
"""

TELLS = """
import pathlib, signal
def told(*_):
    pathlib.Path({!r}).write_text("told")
signal.signal(signal.SIGTERM, told)
"""


def test_a_second_ctrl_c_asks_nobody(tmp_path: Path) -> None:
    told = tmp_path / "told"
    with Terminal("run", TELLS.format(str(told)), STUBBORN) as terminal:
        pid = terminal.expect(r"(\d+)\r\n")[1]
        terminal.type("\x03")
        terminal.expect("goes on")
        terminal.type("\x03")
        assert terminal.wait() == 130
        assert is_gone(pid)
    assert not told.exists()


def test_what_is_waited_for_is_said_and_need_not_be(tmp_path: Path) -> None:
    told = tmp_path / "told"
    code = (
        "import atexit, os, time; atexit.register(time.sleep, 600); print(os.getpid(), flush=True)"
    )
    with Terminal("run", TELLS.format(str(told)) + code) as terminal:
        pid = terminal.expect(r"(\d+)\r\n")[1]
        terminal.expect(r"stopping the kernel, \d s \(Ctrl-C kills it\)")
        terminal.type("\x03")
        assert terminal.wait() == 0
        assert is_gone(pid)
    assert not told.exists()


def test_the_terminal_is_given_back_and_taken_again() -> None:
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("there is no shell with job control")
    program = [shell, "--norc", "--noprofile", "-i"]
    command = f"{sys.executable} -m enchannel run"
    with Terminal(program=program, env={"PS1": "$ "}) as terminal:
        terminal.expect(r"\$ ")
        terminal.type(f"{command} 'import time; time.sleep(4); print(6 * 7)'\n")
        terminal.expect(r"running the code")
        terminal.type("\x1a")
        # The cursor is there, and the shell.
        terminal.expect(r"\x1b\[\?25h(?s:.*)Stopped(?s:.*)\$ ")
        terminal.type("fg\n")
        terminal.expect("42\r\n")
        terminal.expect(r"\$ ")
        terminal.type("exit\n")
        terminal.wait()


def test_a_password_is_not_shown_behind_a_stop_either() -> None:
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("there is no shell with job control")
    program = [shell, "--norc", "--noprofile", "--noediting", "-i"]
    command = f"{sys.executable} -m enchannel run"
    code = "import getpass; print(len(getpass.getpass()))"
    with Terminal(program=program, env={"PS1": "$ "}) as terminal:
        terminal.expect(r"\$ ")
        terminal.type(
            f"{command} '{code.replace('()', chr(40) + chr(34) + 'word? ' + chr(34) + ')')}'\n"
        )
        terminal.expect(r"\r\n(?s:.*)word\? $")
        assert not terminal.echoes()
        terminal.type("\x1a")
        terminal.expect(r"Stopped(?s:.*)\$ ")
        assert terminal.echoes()
        terminal.type("fg\n")
        terminal.expect(r"word\? $")
        assert not terminal.echoes()
        terminal.type("secret\n")
        terminal.expect("6\r\n")
        terminal.expect(r"\$ ")
        terminal.type("exit\n")
        terminal.wait()
        assert "secret" not in terminal.shown


def test_the_progress_line_fits(tmp_path: Path) -> None:
    path = tmp_path / f"{'long_' * 20}.py"
    path.write_text("import time; time.sleep(600)")
    with Terminal("run", str(path), env={"COLUMNS": ""}) as terminal:
        terminal.resize(60)
        shown = terminal.expect(r"\x1b\[2K(\S running long_\S+)\r")[1]
        assert len(shown) <= 59
        terminal.resize(20)
        shown = terminal.expect(r"\x1b\[2K(\S running \S{1,10})\r")[1]
        assert len(shown) <= 19
        terminal.type("\x03")
        assert terminal.wait() == 130


# What is shown.


def test_help_is_shown() -> None:
    result = enchannel("run", "len?")
    assert "Return the number of items in a container." in result.stdout
    assert "\x1b" not in result.stdout
    assert result.returncode == 0


def test_output_is_cleared_at_a_terminal() -> None:
    code = (
        "from IPython.display import clear_output\n"
        "print('one', end='', flush=True); clear_output(wait=True); print('two')"
    )
    with Terminal("run", code) as terminal:
        terminal.expect("one\r\x1b\\[2Ktwo\r\n")
        assert terminal.wait() == 0
    assert enchannel("run", code).stdout == "onetwo\n"


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_are_not_for_everybody(env: dict[str, str]) -> None:
    with Terminal("run", "1/0", env=env) as terminal:
        terminal.expect("ZeroDivisionError")
        assert terminal.wait() == 1
        assert "\x1b[3" not in terminal.shown
    with Terminal("run", "1/0") as terminal:
        terminal.expect("ZeroDivisionError")
        terminal.wait()
        assert "\x1b[3" in terminal.shown


# What is asked for.


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("import sys; sys.exit(0)", 0, ""),
        ("import sys; sys.exit()", 0, ""),
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('why')", 1, "why\n"),
        ("exit", 0, ""),
    ],
)
def test_the_end_of_a_program_is_no_failure(code: str, status: int, said: str) -> None:
    result = enchannel("run", code, "print('never')")
    assert (result.stdout, result.returncode) == ("", status)
    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr
    assert said in result.stderr


def test_code_that_is_called_like_a_file() -> None:
    code = "class circle: r = 5"
    result = enchannel("run", code, "-c", "circle.r", "--code=circle.r + 1", "print('x')")
    assert (result.stdout, result.returncode) == ("5\n6\nx\n", 0)
    refused = enchannel("run", "circle.r")
    assert refused.stderr == "Error: circle.r: no such file; where it is code: -c circle.r\n"
    assert refused.returncode == 2


def test_code_that_is_no_text_is_not_run() -> None:
    command = [sys.executable.encode(), b"-m", b"enchannel", b"run", b"print('\xe9')"]
    result = subprocess.run(command, capture_output=True, timeout=DEADLINE, check=False)
    assert b"is no UTF-8" in result.stderr
    assert (result.stdout, result.returncode) == (b"", 2)


def test_code_in_utf_8_is_that_in_every_locale() -> None:
    env = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [
        sys.executable.encode(),
        b"-m",
        b"enchannel",
        b"run",
        "print(len('\u00e9'))".encode(),
    ]
    result = subprocess.run(command, capture_output=True, timeout=DEADLINE, check=False, env=env)
    assert (result.stdout, result.returncode) == (b"1\n", 0)


@pytest.mark.parametrize("option", ["--kernel", "--existing"])
def test_an_empty_name_is_none(option: str) -> None:
    result = enchannel("run", option, "", "1")
    assert "an empty text names no" in result.stderr
    assert result.returncode == 2


def test_a_pattern_that_nothing_matches(tmp_path: Path) -> None:
    result = enchannel(
        "run",
        "--existing",
        "kernel-12*",
        "1",
        env={**os.environ, "JUPYTER_RUNTIME_DIR": str(tmp_path)},
    )
    assert result.stderr.startswith("Error: no connection file 'kernel-12*' in ")
    assert result.returncode == 2


def test_ctrl_c_ends_a_listing(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        port = silent.getsockname()[1]
        ports = {f"{n}_port": port for n in ("shell", "control", "stdin", "iopub", "hb")}
        info = {"ip": "127.0.0.1", "transport": "tcp", "key": "k", **ports}
        info["signature_scheme"] = "hmac-sha256"
        import json

        (tmp_path / "kernel-1.json").write_text(json.dumps(info))
        env = {**os.environ, "JUPYTER_RUNTIME_DIR": str(tmp_path)}
        with started("kernels", env=env) as process:
            select.select([silent], [], [], DEADLINE)
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 130
            assert process.stderr is not None
            assert process.stderr.read() == b""


# Ctrl-C before a command listens, and behind its end.

INTERRUPTED_AT = """
import atexit, os, runpy, signal, sys
moment = sys.argv.pop(1)
class Finder:
    def find_spec(self, name, *_):
        if name == moment:
            os.kill(os.getpid(), signal.SIGINT)
if moment == "end":
    atexit.register(os.kill, os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
runpy.run_module("enchannel", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("moment", "command", "status"),
    [
        ("rich", "kernels", 130),
        ("enchannel._cli.commands", "kernels", 130),
        ("enchannel._cli.target", "--version", 130),
        ("enchannel._cli.kernels", "kernels", 130),
        ("enchannel._cli.check", "check python3", 130),
        ("enchannel._cli.watch", "watch", 130),
        ("end", "--version", 0),
    ],
)
def test_ctrl_c_is_a_status_at_every_moment(moment: str, command: str, status: int) -> None:
    result = subprocess.run(
        [*HEEDING, "-c", INTERRUPTED_AT, moment, *command.split()],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert (result.stderr, result.returncode) == ("", status)


# What is kept goes where nobody reads it, or where the output goes as well.


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    path = tmp_path / "notebook.ipynb"
    path.write_text(json.dumps(new_notebook(cells=[new_code_cell("print('woo')")])))
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_heard_while_nobody_reads_the_notebook(
    notebook: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    os.mkfifo(out)
    with Terminal("run", str(notebook), "-o", str(out)) as terminal:
        terminal.expect(r"writing what came of it, \d s \(Ctrl-C stops\)")
        terminal.process.send_signal(number)
        terminal.expect("Error: what came of it is not written: nobody has read it in time\r\n")
        assert terminal.wait() == 128 + number


def test_a_timeout_is_heard_while_nobody_reads_the_notebook(notebook: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    os.mkfifo(out)
    with started("run", "--timeout", "2", str(notebook), "-o", str(out)) as process:
        assert process.wait(DEADLINE) == 124
        assert process.stderr is not None
        assert process.stderr.read() == (
            b"Error: what came of it is not written: nobody has read it in time\n"
        )


def test_a_pipe_by_name_is_written_once_somebody_reads(notebook: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    os.mkfifo(out)
    with started("run", str(notebook), "-o", str(out)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"woo\n"
        # Opened when the cell has run; to its end, which there is when it is written.
        cells = json.loads(out.read_text())["cells"]
        assert cells[0]["outputs"][0]["text"] == ["woo\n"]
        assert process.wait(DEADLINE) == 0


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "{log}"])
@pytest.mark.parametrize("how", [">", ">>"])
def test_a_notebook_stands_behind_what_was_printed(
    notebook: Path, tmp_path: Path, name: str, how: str
) -> None:
    log = tmp_path / "log"
    log.write_text("precious\n")
    out = name.format(log=log)
    command = (
        f"{sys.executable} -m enchannel run {notebook} -o {out} {how} {log}; echo behind >> {log}"
    )
    subprocess.run(["/bin/sh", "-c", command], timeout=DEADLINE, check=True)
    before = "precious\n" if how == ">>" else ""
    written = log.read_text()
    assert written.startswith(f"{before}woo\n{{")
    cells = json.loads(written.removeprefix(f"{before}woo\n").removesuffix("behind\n"))["cells"]
    assert cells[0]["outputs"][0]["text"] == ["woo\n"]
