"""The kernel's end over ZeroMQ: bound sockets, so that any client can be pointed at a fake kernel."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Sequence
from typing import Any

import anyio
import zmq

from .._protocol.connection_info import ChannelName, ConnectionInfo
from .._protocol.message import Message
from .._protocol.wire import Frame, Wire
from .._transports.zmq import ZmqTransport, shared_context
from .._transports.zmq_link import Link
from .._transports.zmq_open import connect_endpoints
from ._ends import KernelEnd
from ._request import kernel_header

__all__ = ["ZmqKernelEnd"]

BIND_DEADLINE = 5.0
"""Seconds that an address may stay taken."""

_KINDS = {
    "shell": zmq.ROUTER,
    "control": zmq.ROUTER,
    "stdin": zmq.ROUTER,
    "iopub": zmq.XPUB,
    # Not REP, which takes one at a time; echoed whole, the frames of a REQ socket come back right.
    "hb": zmq.ROUTER,
}


class ZmqKernelEnd(KernelEnd):
    """Sockets bound on loopback (``"tcp"``), in a temporary directory (``"ipc"``) or in this process.

    Args:
        transport: ``"tcp"``, ``"ipc"`` or ``"inproc"``.
        key: What messages are signed with.
    """

    def __init__(self, transport: str, key: bytes) -> None:
        super().__init__(Wire(key))
        self.transport = transport
        self._key = key
        self._session = str(uuid.uuid4())
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._links: dict[str, Link] = {}
        self._unwatched: list[ZmqTransport] = []
        self._subscribed = anyio.Event()
        prefix = f"inproc://enchannel-{uuid.uuid4()}-"
        if transport == "ipc":
            # Not below a long TMPDIR: the path of a socket has 107 characters at the most.
            self._directory = tempfile.TemporaryDirectory(prefix="enchannel-", dir="/tmp")
            prefix = f"ipc://{self._directory.name}/kernel-"
        self.endpoints = {
            name: "tcp://127.0.0.1:*" if transport == "tcp" else f"{prefix}{number}"
            for number, name in enumerate(_KINDS, 1)
        }

    async def appear(self) -> None:
        await super().appear()
        self._subscribed = anyio.Event()
        context = shared_context()
        for name, kind in _KINDS.items():
            socket = context.socket(kind)
            socket.set(zmq.LINGER, 1000)
            socket.set(zmq.SNDHWM, 0)
            socket.set(zmq.RCVHWM, 0)
            if kind == zmq.XPUB:
                # Or only the first of several subscribers of a topic would be welcomed.
                socket.set(zmq.XPUB_VERBOSE, 1)
            self._links[name] = Link(context, socket, [self.endpoints[name]], monitored=False)
            with anyio.fail_after(BIND_DEADLINE):
                await self._bind(name, socket)

    async def _bind(self, name: str, socket: zmq.Socket[bytes]) -> None:
        while True:
            try:
                socket.bind(self.endpoints[name])
            except zmq.ZMQError as error:
                # A thread of ZeroMQ's may still be closing the socket that was bound here before.
                if error.errno != zmq.EADDRINUSE:
                    raise
                await anyio.sleep(0.001)
            else:
                self.endpoints[name] = socket.get_string(zmq.LAST_ENDPOINT)
                return

    @property
    def connection_info(self) -> ConnectionInfo:
        """What a client needs to connect; not for ``"inproc"``, which has no connection file."""
        config: dict[str, Any] = {"transport": self.transport, "key": self._key}
        for name, endpoint in self.endpoints.items():
            # tcp://127.0.0.1:1234, ipc:///tmp/enchannel-x/kernel-1
            config["ip"], port = endpoint.partition("://")[2].rsplit(
                ":" if self.transport == "tcp" else "-", 1
            )
            config[f"{name}_port"] = port
        return ConnectionInfo.parse(config)

    def connect(self, identity: bytes, topics: tuple[bytes, ...]) -> ZmqTransport:
        """A client's transport, for what :func:`enchannel.open_kernel_channels` cannot name."""
        endpoints = {name: [endpoint] for name, endpoint in self.endpoints.items()}
        transport = connect_endpoints(endpoints, Wire(self._key), identity, topics)
        if self.transport == "inproc":
            self._unwatched.append(transport)
        return transport

    def take(self, channel: ChannelName) -> list[list[Frame]]:
        arrived = self._links[channel].receive()
        if not arrived:
            raise anyio.WouldBlock
        return arrived

    async def wait_readable(self, channel: ChannelName) -> None:
        await self._links[channel].wait_readable()

    def give(self, channel: ChannelName, frames: Sequence[Frame]) -> None:
        self._links[channel].send(frames)

    async def wait_client(self) -> None:
        await self._subscribed.wait()

    def vanish(self, reason: str = "") -> None:
        for link in self._links.values():
            link.close()
        # There is no connection whose end a client could notice.
        for transport in self._unwatched:
            transport.lose(reason)
        self._unwatched.clear()

    async def aclose(self) -> None:
        self.vanish()
        if self._directory is not None:
            self._directory.cleanup()

    async def serve(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._welcome_subscribers)
            tasks.start_soon(self._echo_heartbeats)

    async def _welcome_subscribers(self) -> None:
        link = self._links["iopub"]
        while True:
            for frame in (bytes(frames[0]) for frames in link.receive()):
                if frame[:1] == b"\1":
                    topic = frame[1:]
                    header = kernel_header("iopub_welcome", str(uuid.uuid4()), self._session)
                    content = {"subscription": topic.decode(errors="replace")}
                    self.publish(Message(header, {}, {}, content), topic)
                    self._subscribed.set()
            await link.wait_readable()

    async def _echo_heartbeats(self) -> None:
        link = self._links["hb"]
        while True:
            await self.wait_awake()
            for frames in link.receive():
                link.send(frames)
            await link.wait_readable()
