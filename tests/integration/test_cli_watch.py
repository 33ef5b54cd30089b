"""``enchannel watch``: what somebody sees of a kernel that others use."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from enchannel import Kernel, open_kernel
from terminal import DEADLINE, HEEDING, Terminal

pytestmark = pytest.mark.anyio


@pytest.fixture
async def kernel(anyio_backend: str) -> AsyncIterator[Kernel]:
    async with open_kernel() as kernel:
        yield kernel


class Watched:
    """The command, and what it has said so far."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [*HEEDING, "-m", "enchannel", "watch", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said += line

    def close(self) -> None:
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    async def expect(self, pattern: str) -> None:
        with anyio.fail_after(DEADLINE):
            while re.search(pattern, self.said, re.MULTILINE) is None:
                await anyio.sleep(0.02)

    async def wait(self) -> int:
        with anyio.fail_after(DEADLINE):
            while self.process.poll() is None or self._reader.is_alive():
                await anyio.sleep(0.02)
        return self.process.wait()


@contextlib.contextmanager
def watching(kernel: Kernel, *arguments: str) -> Iterator[Watched]:
    watched = Watched("--existing", str(kernel.connection_file), *arguments)
    try:
        yield watched
    finally:
        watched.process.kill()
        watched.close()


async def test_what_goes_on_is_told_until_the_kernel_ends(kernel: Kernel) -> None:
    with watching(kernel) as watched:
        await watched.expect(r"watching \S+: the kernel is idle$")
        async with kernel.open_channels() as ch:
            await ch.run("print('out')\nprint('\\x1b[2Jmoved')\n6 * 7")
            await ch.run("1/0")
            await ch.request("complete_request", {"code": "x", "cursor_pos": 1})
        who = r"^\d\d:\d\d:\d\d  \S+ [0-9a-f]{6}  "
        await watched.expect(rf"{who}\[1\] print\('out'\)$")
        await watched.expect(r"^\d\d:\d\d:\d\d +print\('\\x1b\[2Jmoved'\)$")
        await watched.expect(rf"{who}\[1\] out\| out$")
        await watched.expect(rf"{who}\[1\] = 42$")
        await watched.expect(rf"{who}\[1\] done after \d+\.\d s$")
        await watched.expect(rf"{who}\[2\] raised ZeroDivisionError: division by zero$")
        await watched.expect(rf"{who}asks: complete_request$")
        assert "\x1b" not in watched.said
        await kernel.restart()
        await watched.expect(r"  the kernel was restarted$")
        async with kernel.open_channels() as ch:
            await ch.run("'again'")
        await watched.expect(r"= 'again'$")
        await kernel.kill()
        assert await watched.wait() == 0
        assert watched.said.splitlines()[-1].endswith("did not come back within 10 s")


async def test_a_busy_kernel_is_joined(kernel: Kernel) -> None:
    async with (
        kernel.open_channels() as ch,
        ch.execute("print(1, flush=True); import time; time.sleep(600)") as execution,
    ):
        async for message in execution:
            if message.msg_type == "stream":
                break
        with watching(kernel) as watched:
            await watched.expect(r"watching \S+: the kernel is busy$")
            await kernel.interrupt()
            await watched.expect("raised KeyboardInterrupt")
            watched.process.send_signal(signal.SIGINT)
            assert await watched.wait() == 130
        await execution.wait()


async def test_messages_as_json_and_recorded(kernel: Kernel, tmp_path: Path) -> None:
    record = tmp_path / "session"
    with watching(kernel, "--json", "--record", str(record)) as watched:
        async with kernel.open_channels() as ch:
            # It has joined when it hears something.
            with anyio.fail_after(DEADLINE):
                while not watched.said:
                    await ch.run("1")
                    await anyio.sleep(0.1)
            await ch.run("print('woo')")
        await watched.expect("woo")
        await kernel.kill()
        assert await watched.wait() == 0
    lines = [json.loads(line) for line in watched.said.splitlines()]
    assert "stream" in [line.get("msg_type") for line in lines]
    assert lines[-1]["event"] == "lost"
    assert "woo" in record.read_text()


def test_now_is_shown_at_a_terminal(tmp_path: Path) -> None:
    async def main() -> None:
        async with open_kernel() as kernel:
            await anyio.to_thread.run_sync(watch, kernel)

    def watch(kernel: Kernel) -> None:
        existing = ("--existing", str(kernel.connection_file))
        with Terminal("watch", *existing) as terminal:
            terminal.expect(r"watching \S+: the kernel is idle\r\n")
            with Terminal(
                "run", *existing, "print(1, flush=True); import time; time.sleep(600)"
            ) as other:
                terminal.expect(r"busy for \d s: \[1\] print\(1")
                other.type("\x03")
                terminal.expect("raised KeyboardInterrupt:\r\n")
                terminal.expect(r"\x1b\[2Kidle$")
                other.wait()
            terminal.type("\x03")
            assert terminal.wait() == 130
            assert terminal.shown.endswith("\x1b[?25h")

    anyio.run(main, backend="trio")


def test_the_terminal_is_given_back() -> None:
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("there is no shell with job control")

    async def main() -> None:
        async with open_kernel() as kernel:
            await anyio.to_thread.run_sync(watch, kernel)

    def watch(kernel: Kernel) -> None:
        program = [shell or "", "--norc", "--noprofile", "-i"]
        with Terminal(program=program, env={"PS1": "$ "}) as terminal:
            terminal.expect(r"\$ ")
            terminal.type(
                f"{sys.executable} -m enchannel watch --existing {kernel.connection_file}\n"
            )
            terminal.expect(r"\x1b\[2Kidle")
            terminal.type("\x1a")
            terminal.expect(r"\x1b\[\?25h(?s:.*)Stopped(?s:.*)\$ ")
            terminal.type("fg\n")
            terminal.expect(r"\x1b\[2Kidle")
            terminal.type("\x03")
            terminal.expect(r"\x1b\[\?25h(?s:.*)\$ ")
            terminal.type("exit\n")
            terminal.wait()

    anyio.run(main, backend="trio")


def test_a_dumb_terminal_is_told_in_lines() -> None:
    async def main() -> None:
        async with open_kernel() as kernel:
            await anyio.to_thread.run_sync(watch, kernel)

    def watch(kernel: Kernel) -> None:
        with Terminal(
            "watch", "--existing", str(kernel.connection_file), env={"TERM": "dumb"}
        ) as terminal:
            terminal.expect("the kernel is idle\r\n")
            terminal.type("\x03")
            assert terminal.wait() == 130
            assert "\x1b" not in terminal.shown

    anyio.run(main, backend="trio")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--existing", "nowhere.json"), "nowhere.json"),
        (("--server", "http://127.0.0.1:1"), "--existing is missing"),
        (("--server", "http://127.0.0.1:1", "--existing", "x"), "127.0.0.1:1"),
    ],
)
def test_what_cannot_be_watched_is_said(arguments: tuple[str, ...], complaint: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "enchannel", "watch", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        env={k: v for k, v in os.environ.items() if k != "JUPYTER_SERVER_URL"},
    )
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
    assert (result.stdout, result.returncode) == ("", 2)
