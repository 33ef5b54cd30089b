"""The clients that are compared, each as a function that consumes one flood.

Every one of them is given the connection file's content, the stand-in's driver, the number of messages,
and whether these have arrived before the first is read. It returns messages per second, of the ``stream``
messages alone, from the moment it may begin (waiting) or from the first one (live).
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import zmq
import zmq.asyncio

from enchannel import KernelChannels, Message, open_kernel_channels
from enchannel._protocol.wire import Wire

from .kernel import KEY, Driver

Config = dict[str, Any]
Client = Callable[[Config, Driver, int, bool], float]

REST = 0.3
"""Seconds for which a process does next to nothing when all of a flood is in its socket."""


class Clock:
    """Counts stream messages, and says how fast they came."""

    def __init__(self, driver: Driver, count: int, waiting: bool) -> None:
        self.left = count
        self.count = count
        self.waiting = waiting
        self.driver = driver
        self.start = self.end = 0.0

    def begin(self) -> None:
        """Has the flood sent, and returns when the first message may be read."""
        self.driver.command(f"flood {self.count}")
        if self.waiting:
            self.driver.wait()
            # The event loop, where there is one, stands still as well: nothing is read meanwhile.
            rest()
            self.start = time.perf_counter()

    def saw(self, msg_type: str) -> bool:
        """Whether this was the last one."""
        if msg_type == "stream":
            if not self.start:
                self.start = time.perf_counter()
            self.left -= 1
            if not self.left:
                self.end = time.perf_counter()
        return not self.left

    def rate(self) -> float:
        if not self.waiting:
            self.driver.wait()
        return self.count / (self.end - self.start)


def rest() -> None:
    """Blocks until ZeroMQ's own thread, which may be slow, has put all that was sent into the socket."""
    used = REST
    while used > REST / 20:
        before = time.process_time()
        time.sleep(REST)
        used = time.process_time() - before


def bare(config: Config, driver: Driver, count: int, waiting: bool) -> float:
    """A blocking loop of recv_multipart, verify and decode."""
    decode = Wire(KEY).decode
    with zmq.Context() as context, subscriber(context, config) as socket:
        decode(socket.recv_multipart())  # the welcome
        clock = Clock(driver, count, waiting)
        clock.begin()
        while not clock.saw(decode(socket.recv_multipart()).header["msg_type"]):
            pass
        return clock.rate()


def subscriber(context: zmq.Context[Any], config: Config) -> zmq.Socket[Any]:
    socket = context.socket(zmq.SUB)
    socket.set(zmq.RCVHWM, 0)
    socket.set(zmq.LINGER, 0)
    socket.subscribe(b"")
    socket.connect(f"tcp://127.0.0.1:{config['iopub_port']}")
    return socket


def send_bare(wire: Wire, socket: zmq.Socket[Any]) -> str:
    """Sends a kernel_info_request as a loop without a library does; its id."""
    header = {"msg_id": str(uuid.uuid4()), "session": "bare", "username": "bench"}
    header["msg_type"] = "kernel_info_request"
    header["date"] = datetime.now(UTC).isoformat()
    socket.send_multipart(wire.encode(Message(header)))
    return header["msg_id"]


def enchannel(consume: Callable[[KernelChannels, Clock], Any], backend: str) -> Client:
    """Ours: `consume` begins, and iterates a stream until the clock says that it was the last message."""

    def client(config: Config, driver: Driver, count: int, waiting: bool) -> float:
        async def main() -> float:
            async with open_kernel_channels(None, config) as ch:
                clock = Clock(driver, count, waiting)
                await consume(ch, clock)
                return clock.rate()

        return anyio.run(main, backend=backend)

    return client


async def iopub(ch: KernelChannels, clock: Clock) -> None:
    clock.begin()
    async for msg in ch.iopub:
        if clock.saw(msg.header["msg_type"]):
            break


async def main(ch: KernelChannels, clock: Clock) -> None:
    clock.begin()
    async for _, msg in ch.main:
        if clock.saw(msg.header["msg_type"]):
            break


async def execution(ch: KernelChannels, clock: Clock) -> None:
    """The messages of an execution, which begins with the kernel's being busy."""
    async with ch.execute("hold") as execution:
        async for msg in execution:
            if msg.header["msg_type"] == "status":
                clock.begin()
            elif clock.saw(msg.header["msg_type"]):
                break


async def with_requests_in_flight(ch: KernelChannels, clock: Clock) -> None:
    """As :func:`iopub`, while a thousand others wait for replies."""

    async def wait(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with ch.execute("ignore") as execution:
            task_status.started()
            await execution.wait()

    async with anyio.create_task_group() as tasks:
        for _ in range(1000):
            await tasks.start(wait)
        await iopub(ch, clock)
        tasks.cancel_scope.cancel()


def jupyter_client(config: Config, driver: Driver, count: int, waiting: bool) -> float:
    """Its asynchronous client, with the high-water mark lifted so that all of the flood arrives."""
    from jupyter_client.asynchronous import AsyncKernelClient

    async def main() -> float:
        context = zmq.asyncio.Context()
        context.setsockopt(zmq.RCVHWM, 0)
        client = AsyncKernelClient(context=context)
        client.load_connection_info({**config, "key": KEY.encode()})
        client.start_channels(stdin=False, hb=False)
        await client.get_iopub_msg()
        clock = Clock(driver, count, waiting)
        clock.begin()
        while not clock.saw((await client.get_iopub_msg())["msg_type"]):
            pass
        client.stop_channels()
        context.destroy(linger=0)
        return clock.rate()

    return asyncio.run(main())


def zmq_anyio(config: Config, driver: Driver, count: int, waiting: bool) -> float:
    """zmq-anyio on Trio, with the same verify and decode."""
    import zmq_anyio as peer

    decode = Wire(KEY).decode

    async def main() -> float:
        with zmq.Context() as context, subscriber(context, config) as plain:
            async with peer.Socket(plain) as socket:
                decode(await socket.arecv_multipart())
                clock = Clock(driver, count, waiting)
                clock.begin()
                while True:
                    frames = await socket.arecv_multipart()
                    if clock.saw(decode(frames).header["msg_type"]):
                        return clock.rate()

    return anyio.run(main, backend="trio")


def node_command() -> list[str] | None:
    """How to run enchannel-zmq-backend; none where node or the package is missing."""
    node = shutil.which("node")
    script = Path(__file__).parent / "peer.js"
    if node is None:
        return None
    probe = [node, "-e", "require.resolve('enchannel-zmq-backend')"]
    found = subprocess.run(probe, cwd=script.parent, capture_output=True, check=False)
    return None if found.returncode else [node, str(script)]


def enchannel_zmq_backend(config: Config, driver: Driver, count: int, waiting: bool) -> float:
    """The seed, on Node; live only, for nobody can hold its event loop."""
    assert not waiting
    command = [*(node_command() or ()), json.dumps(config), str(count)]
    cwd = Path(__file__).parent
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=cwd, env=os.environ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        driver.command(f"flood {count}")
        rate = float(process.stdout.readline())
        driver.wait()
    return rate
