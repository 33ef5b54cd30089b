"""A program that is told to end leaves its blocks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

from enchannel import LocalProtocolError, exit_on_signals

SCRIPT = Path(__file__).with_name("scripted_kernel.py")
PROGRAM = """
import signal, sys, anyio
from enchannel import KernelSpec, exit_on_signals, open_kernel
backend, script, transport = sys.argv[1:]
# Who runs the tests may have it ignored, as nohup does.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
async def main():
    spec = KernelSpec("scripted", (sys.executable, script, "{connection_file}"), None)
    async with exit_on_signals(), open_kernel(spec, transport=transport) as kernel:
        async with kernel.open_channels():
            info = kernel.connection_info
            print(kernel.pid, kernel.connection_file, info.ip, flush=True)
            await anyio.sleep_forever()
    print("never")
anyio.run(main, backend=backend)
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("transport", ["ipc", "tcp"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_nothing_stays(backend: str, transport: str, number: signal.Signals) -> None:
    command = [sys.executable, "-c", PROGRAM, backend, str(SCRIPT), transport]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        pid, file, ip = program.stdout.readline().split()
        assert Path(file).exists()
        program.send_signal(number)
        rest, _ = program.communicate(timeout=60)
    assert (program.returncode, rest) == (128 + number, "")
    assert not Path(file).exists()
    assert transport == "tcp" or not Path(ip).parent.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


@pytest.mark.anyio
async def test_the_block_ends_as_any_other_where_none_comes() -> None:
    before = signal.getsignal(signal.SIGTERM)
    async with exit_on_signals():
        pass
    with pytest.raises(KeyError):
        async with exit_on_signals(signal.SIGUSR1):
            raise KeyError
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.anyio
async def test_who_ignores_a_signal_goes_on() -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        async with exit_on_signals(signal.SIGUSR1):
            os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.anyio
@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="there are no signals without a name")
async def test_a_signal_without_a_name_is_one() -> None:
    number = signal.SIGRTMIN + 3  # a service manager's word for halt
    with pytest.raises(SystemExit) as caught:
        async with exit_on_signals(number):
            os.kill(os.getpid(), number)
            await anyio.sleep_forever()
    assert caught.value.code == 128 + number


@pytest.mark.anyio
async def test_a_number_of_none_is_told() -> None:
    wrong: Any
    for wrong, said in (
        (12345, "there is no signal 12345"),
        ("TERM", "signal.SIGTERM and the like, not 'TERM'"),
        (True, "and the like, not True"),
        (signal.SIGKILL, "no program is told of SIGKILL"),
    ):
        with pytest.raises(LocalProtocolError, match=said):
            async with exit_on_signals(wrong):
                pytest.fail("the block was entered")


def test_they_come_to_the_main_thread() -> None:
    async def main() -> None:
        async with exit_on_signals():
            pytest.fail("the block was entered")

    with start_blocking_portal() as portal, pytest.raises(LocalProtocolError, match="main thread"):
        portal.call(main)
