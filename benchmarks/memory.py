"""Memory and descriptors of an open client: ``python -m benchmarks memory``.

The rules:

* Each figure is what a process of its own holds with 120 clients open, less what it held with 20 of them,
  divided by 100: what the interpreter, the imports and the event loop take falls out.
* Memory is what the system counts as resident, in KiB, with what libzmq and the stacks of threads take. It
  is looked at behind a full collection, when nothing is on its way any more.
* A client has shell, control, stdin, iopub and the heartbeat open, and one answer of its kernel.
* The kernels are stand-ins in one other process. Where all clients share one of them, each is sent what it
  publishes for all the others. Either all of it is read, as a user would, or nothing is: then it piles
  up, with us as messages that wait for a listener, with others in the socket.
* jupyter_client makes a ZeroMQ context for each client, or uses one that it is given.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio
import anyio.abc
import zmq.asyncio

from enchannel import open_kernel_channels

from .clients import Config
from .kernel import KEY, stand_ins

FEW, MANY = 20, 120
"""Clients that are open at the first and at the second look."""

REST = 0.5
"""Seconds for which a process does next to nothing when all that was published has arrived."""


def memory() -> None:
    """A table of all clients, for kernels of their own and for one that they share."""
    import resource  # not on Windows

    # For this process and, inherited, for those that need them.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"\nAn open client, of {MANY} in one process")
    for layout, kernels, read in (
        ("a kernel for each", MANY, "read"),
        ("one kernel for all, everything read", 1, "read"),
        ("one kernel for all, nothing read", 1, "unread"),
    ):
        print(f" {layout}")
        for name in SUBJECTS:
            if name.startswith("jupyter_client") and not importlib.util.find_spec("jupyter_client"):
                continue
            with stand_ins(kernels) as configs:
                command = [sys.executable, "-m", "benchmarks.memory", name, read]
                given = json.dumps(configs * (MANY // kernels)).encode()
                output = subprocess.run(command, input=given, stdout=subprocess.PIPE, check=True)
            kib, descriptors, threads = json.loads(output.stdout)
            print(
                f"  {name:27} {kib:6.0f} KiB, {descriptors:.1f} descriptors, {threads:.1f} threads",
                flush=True,
            )


async def grow(configs: list[Config], hold: Callable[..., Awaitable[None]]) -> list[float]:
    """Has a task hold a client for each of `configs`; what each of those behind the first few took."""
    looks = []
    async with anyio.create_task_group() as tasks:
        for some in (configs[:FEW], configs[FEW:]):
            for config in some:
                await tasks.start(hold, config)
            await rest()
            looks.append(look())
        tasks.cancel_scope.cancel()
    return [(many - few) / (MANY - FEW) for few, many in zip(*looks, strict=True)]


async def rest() -> None:
    used = REST
    while used > REST / 10:
        before = time.process_time()
        await anyio.sleep(REST)
        used = time.process_time() - before


def look() -> list[float]:
    """Resident KiB, descriptors and threads of this process."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    kib = pages * os.sysconf("SC_PAGE_SIZE") / 1024
    return [kib, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))]


async def enchannel(configs: list[Config], *, read: bool) -> list[float]:
    async def hold(config: Config, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        # The answer has been there when the block is entered.
        async with open_kernel_channels(None, config) as ch:
            task_status.started()
            if read:
                async for _ in ch.main:
                    pass
            await anyio.sleep_forever()

    return await grow(configs, hold)


async def jupyter_client(configs: list[Config], *, read: bool, shares: bool) -> list[float]:
    from jupyter_client.asynchronous import AsyncKernelClient

    given = {"context": zmq.asyncio.Context()} if shares else {}

    async def hold(config: Config, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        client = AsyncKernelClient(**given)
        client.load_connection_info({**config, "key": KEY.encode()})
        client.start_channels()
        await client.kernel_info(reply=True, timeout=10)
        task_status.started()
        try:
            while read:
                await client.get_iopub_msg()
            await anyio.sleep_forever()
        finally:
            client.stop_channels()

    return await grow(configs, hold)


SUBJECTS: dict[str, tuple[Callable[..., Awaitable[list[float]]], str]] = {
    "enchannel on trio": (enchannel, "trio"),
    "enchannel on asyncio": (enchannel, "asyncio"),
    "jupyter_client": (partial(jupyter_client, shares=False), "asyncio"),
    "jupyter_client, one context": (partial(jupyter_client, shares=True), "asyncio"),
}


def main() -> None:
    """The child: one subject, once."""
    name, read = sys.argv[1:]
    subject, backend = SUBJECTS[name]
    run = partial(subject, json.load(sys.stdin), read=read == "read")
    print(json.dumps(anyio.run(run, backend=backend)))


if __name__ == "__main__":
    main()
