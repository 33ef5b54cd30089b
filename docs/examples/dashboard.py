"""Shows what goes on in the kernels that run on this machine, whoever started them: a line for each change.

python dashboard.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import trio

from enchannel import EnchannelError, list_running_kernels, open_kernel_channels
from enchannel.operators import of_type

LOOK = 2.0
"""Seconds between two looks for new kernels."""

Show = Callable[[str], None]


async def watch_all(show: Show) -> None:
    """Watches every kernel that is found, until cancelled."""
    watched: set[Path] = set()

    async def watch_one(file: Path) -> None:
        try:
            await watch(file, show)
        except* EnchannelError as group:
            show(f"{file.stem}: {group.exceptions[0]}")
        finally:
            watched.discard(file)

    async with anyio.create_task_group() as tasks:
        while True:
            for found in await list_running_kernels():
                if found.alive and found.connection_file not in watched:
                    watched.add(found.connection_file)
                    tasks.start_soon(watch_one, found.connection_file)
            await anyio.sleep(LOOK)


async def watch(file: Path, show: Show) -> None:
    """Says what the kernel of a connection file does, until it is lost.

    Raises:
        KernelConnectError: It does not answer.
        KernelDied: It is gone.
    """
    async with open_kernel_channels(None, file) as ch, anyio.create_task_group() as tasks:

        async def statuses() -> None:
            async for status in ch.statuses():
                restarts = ch.statistics().restarts
                show(f"{file.stem}: {status}" + (f", restarts: {restarts}" if restarts else ""))

        tasks.start_soon(statuses)
        try:
            async for msg in of_type(ch.iopub, "execute_input", "error"):
                if msg.msg_type == "error":
                    show(f"{file.stem}: ! {msg.content['ename']}: {msg.content['evalue']}")
                else:
                    lines = str(msg.content["code"]).splitlines()
                    show(f"{file.stem}: > {lines[0] if lines else ''}")
        finally:
            tasks.cancel_scope.cancel()


if __name__ == "__main__":
    try:
        trio.run(watch_all, print)
    except* KeyboardInterrupt:
        pass
