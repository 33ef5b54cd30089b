"""Nothing piles up: descriptors, threads, tasks and memory return to where they were."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import subprocess
import sys
import threading
import tracemalloc

import anyio
import pytest

from enchannel import Kernel, LocalProtocolError, open_kernel_channels
from raw_kernel import request

pytestmark = pytest.mark.anyio

CYCLES = 500


class Mine(Exception):
    pass


async def cycle(kernel: Kernel, number: int) -> None:
    """Opens and closes once, in one of five ways."""
    way = number % 5
    # The cancelled ones at a moment that nobody chose.
    deadline = random.uniform(0, 0.01) if way == 0 else 10
    with anyio.move_on_after(deadline), contextlib.suppress(Mine, LocalProtocolError):
        async with open_kernel_channels(None, kernel.connection_file) as ch:
            if way == 1:
                raise Mine
            if way == 2:
                await ch.shell.send({"no": "header"})
            if way == 3:
                await ch.shell.send(request("kernel_info_request"))
            if way == 4:
                await ch.request("kernel_info_request")


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_five_hundred_cycles(running_kernel: Kernel) -> None:
    for number in range(20):
        await cycle(running_kernel, number)
    files, threads = open_files(), threading.active_count()
    tasks = len(anyio.get_running_tasks())
    tracemalloc.start()
    try:
        for number in range(CYCLES):
            await cycle(running_kernel, number)
            if number == CYCLES // 5:
                gc.collect()
                before, _ = tracemalloc.get_traced_memory()
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(anyio.get_running_tasks()) == tasks
    # Fewer where a thread that waits for work of others has gone home meanwhile.
    assert threading.active_count() <= threads
    # A cycle that left its channels behind would keep a hundred times as much.
    assert after - before < (CYCLES * 4 // 5) * 1000
    with anyio.fail_after(10):
        # ZeroMQ closes sockets on a thread of its own.
        while open_files() > files:
            await anyio.sleep(0.01)


@pytest.mark.parametrize(
    "ending",
    [
        "sys.exit(0)",
        "raise KeyboardInterrupt",
        "ch.shell  # entered by hand, and never left\n    os._keep = opening",
    ],
)
async def test_a_process_that_ends_with_channels_open_ends(
    running_kernel: Kernel, ending: str, anyio_backend: str
) -> None:
    by_hand = "os._keep" in ending
    enter = "ch = await opening.__aenter__()" if by_hand else "async with opening as ch:"
    script = f"""
import os, sys, anyio
from enchannel import open_kernel_channels
async def main():
    opening = open_kernel_channels(None, {str(running_kernel.connection_file)!r})
    {enter}
    {"    " * (not by_hand)}await ch.shell.send({{"header": {{"msg_type": "kernel_info_request"}}}})
    {"    " * (not by_hand)}print("open", flush=True)
    {"    " * (not by_hand)}{ending}
anyio.run(main, backend={anyio_backend!r})
"""
    with anyio.fail_after(30):
        result = await anyio.run_process(
            [sys.executable, "-c", script], check=False, stderr=subprocess.STDOUT
        )
    assert result.stdout.startswith(b"open")
