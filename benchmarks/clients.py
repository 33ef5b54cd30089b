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
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import zmq
import zmq.asyncio

from enchannel import Execution, KernelChannels, open_kernel_channels
from enchannel._protocol.wire import Wire

from .kernel import KEY, Driver

Config = dict[str, Any]
Client = Callable[[Config, Driver, int, bool], float]

ARRIVAL = 0.3
"""Seconds that the last messages of a flood may take from the kernel's socket to ours."""


class Clock:
    """Counts stream messages, and says how fast they came."""

    def __init__(self, driver: Driver, count: int, waiting: bool) -> None:
        self.left = count
        self.count = count
        self.request = driver.command(f"flood {count}")
        if waiting:
            driver.wait()
            # The event loop, where there is one, stands still as well: nothing is read meanwhile.
            time.sleep(ARRIVAL)
        self.start = time.perf_counter() if waiting else 0.0
        self.driver = None if waiting else driver

    def saw(self, msg_type: str) -> bool:
        """Whether this was the last one."""
        if msg_type == "stream":
            if not self.start:
                self.start = time.perf_counter()
            self.left -= 1
        return not self.left

    def rate(self) -> float:
        rate = self.count / (time.perf_counter() - self.start)
        if self.driver is not None:
            self.driver.wait()
        return rate


def bare(config: Config, driver: Driver, count: int, waiting: bool) -> float:
    """A blocking loop of recv_multipart, verify and decode."""
    decode = Wire(KEY).decode
    with zmq.Context() as context, subscriber(context, config) as socket:
        decode(socket.recv_multipart())  # the welcome
        clock = Clock(driver, count, waiting)
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


def enchannel(consume: Callable[[KernelChannels, Clock], Any], backend: str) -> Client:
    """Ours: `consume` iterates a stream until the clock says that it was the last message."""

    def client(config: Config, driver: Driver, count: int, waiting: bool) -> float:
        async def main() -> float:
            async with open_kernel_channels(None, config) as ch:
                clock = Clock(driver, count, waiting)
                await consume(ch, clock)
                return clock.rate()

        return anyio.run(main, backend=backend)

    return client


async def iopub(ch: KernelChannels, clock: Clock) -> None:
    async for msg in ch.iopub:
        if clock.saw(msg.header["msg_type"]):
            break


async def main(ch: KernelChannels, clock: Clock) -> None:
    async for _, msg in ch.main:
        if clock.saw(msg.header["msg_type"]):
            break


async def execution(ch: KernelChannels, clock: Clock) -> None:
    """As ``ch.execute`` routes its messages, for a request that the driver sent."""
    with Execution(ch, "shell", clock.request, None) as execution:
        async for msg in execution:
            if clock.saw(msg.header["msg_type"]):
                break


async def with_requests_in_flight(ch: KernelChannels, clock: Clock) -> None:
    """As :func:`iopub`, while a thousand others wait for replies."""
    for number in range(1000):
        ch._delivery.expect(f"request {number}", print)  # never called
    await iopub(ch, clock)


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
