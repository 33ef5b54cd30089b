"""A day in a quarter of an hour, on each backend: ``python -m benchmarks day``.

What is left of it must be what was there at the start.

The rules:

* One connection to a real ipykernel, for all of it: 20,000 executions, 500 restarts, 2,000 comms, 200 outages and 2,000
  cancelled requests, in 200 rounds that are alike.
* An outage is the end of every connection to the kernel, by the system's own ``shutdown`` at our side.
* What is compared is what is there behind the first rounds and behind the last, at rest, behind a full collection: resident
  memory, descriptors, tasks, and the sizes of the connection's tables.
"""

from __future__ import annotations

import contextlib
import gc
import os
import socket
from collections.abc import Mapping
from pathlib import Path

import anyio

from enchannel import EnchannelError, Kernel, KernelChannels, open_kernel

ROUNDS = 200
EXECUTIONS, COMMS, CANCELLED = 100, 10, 10
"""In each round, beside an outage, and two or three restarts."""

WARM = 10
"""Rounds before the first look: what is cached is cached by then."""

CODE = (
    "print('woo')",
    "1/0",
    "from IPython.display import display; handle = display(1, display_id=True); handle.update(2)",
    "for number in range(100): print(number, flush=True)",
)


def day(rounds: int = ROUNDS, backend: str = "trio") -> None:
    """Lives it, and prints what was there at first and what is there at last."""
    first, last = anyio.run(_live, rounds, backend=backend)
    print(
        f"\nA connection behind {min(WARM, rounds // 2)} and behind {rounds} rounds, on {backend}"
    )
    for name, value in first.items():
        print(f"  {name:<24} {value:>10,} {last[name]:>10,}")


async def _live(rounds: int) -> tuple[Mapping[str, int], Mapping[str, int]]:
    first: Mapping[str, int] = {}
    async with (
        open_kernel("python3") as kernel,
        kernel.open_channels() as ch,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(_read, ch)
        for number in range(rounds):
            await _round(kernel, ch, number)
            if number + 1 == min(WARM, rounds // 2):
                first = await _look(ch)
        last = await _look(ch)
        tasks.cancel_scope.cancel()
    return first, last


async def _read(ch: KernelChannels) -> None:
    async for _ in ch.main:
        pass


async def _round(kernel: Kernel, ch: KernelChannels, number: int) -> None:
    for each in range(EXECUTIONS):
        async with ch.execute(CODE[each % len(CODE)], stop_on_error=False) as execution:
            await execution.wait()
    for each in range(COMMS):
        # The first is lent to ZeroMQ, for which pyzmq has a thread, once in the process.
        buffers = [bytes(1 << 20)] if not each else []
        # ipykernel closes it at once, for it knows no such target.
        async with ch.open_comm("nobody's", buffers=buffers) as comm:
            async for _ in comm:
                pass
    for each in range(CANCELLED):
        with anyio.move_on_after(each / 10_000):
            await ch.request("kernel_info_request")
    for _ in range(2 + number % 2):
        await kernel.restart()
    _cut(kernel)
    with contextlib.suppress(EnchannelError):
        await ch.request("kernel_info_request")
    await ch.wait_idle()


def _cut(kernel: Kernel) -> None:
    info = kernel.connection_info
    ports = {info.shell_port, info.control_port, info.stdin_port, info.iopub_port}
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), os.fdopen(os.dup(int(descriptor)), "rb") as ours:
            connection = socket.socket(fileno=ours.fileno())
            try:
                # A pair of address and port, or the path of an ipc socket, which ends in the port.
                peer = connection.getpeername()
                if (peer[1] if isinstance(peer, tuple) else int(peer.rpartition("-")[2])) in ports:
                    connection.shutdown(socket.SHUT_RDWR)
            except ValueError:
                pass
            finally:
                connection.detach()


async def _look(ch: KernelChannels) -> Mapping[str, int]:
    await ch.wait_idle()
    await anyio.sleep(2)
    gc.collect()
    core, statistics = ch._core, ch.statistics()
    return {
        "resident KiB": _resident(),
        "descriptors": _count("fd"),
        "threads": _count("task"),
        "objects": len(gc.get_objects()),
        "requests filed": len(core.requests._filed),
        "questions": len(core.requests.questions._asked),
        "left requests": len(core.requests.left._missing),
        "tied": len(core.requests._tied),
        "observers": len(core.observers),
        "busy": len(core.status.busy),
        "sessions known": len(core.status._earlier),
        "backlog": sum(statistics.backlog.values()),
        "listeners": statistics.listeners,
        "executions of the day": statistics.sent["shell"],
        "restarts of the day": statistics.restarts,
        "outages of the day": statistics.outages,
    }


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4


def _count(what: str) -> int:
    return len(os.listdir(f"/proc/self/{what}"))
