"""The kernel's side of the sockets, bare: what a test says is what goes over the wire."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import uuid
from contextlib import AbstractAsyncContextManager
from socket import create_connection
from typing import Any

import anyio
import zmq

from enchannel import KernelChannels, Message, open_kernel_channels
from enchannel._protocol.connection_info import ConnectionInfo
from enchannel._protocol.wire import Wire

KEY = "a secret of the tests"

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])

PORTS = range(61000 + 500 * (_WORKER % 9), 61500 + 500 * (_WORKER % 9))
"""None that Linux gives away by itself, and for each process of a parallel run its own: nobody else may
listen on a kernel's port while the kernel is away."""


def message(msg_type: str, parent: Message | None = None, **content: Any) -> Message:
    """A message as a kernel makes it."""
    header = {"msg_id": str(uuid.uuid4()), "msg_type": msg_type, "session": "kernel"}
    return Message(header, parent.header if parent else {}, {}, content)


def request(msg_type: str = "execute_request", **content: Any) -> dict[str, Any]:
    """A body as a user writes it."""
    return {"header": {"msg_type": msg_type}, "content": content}


class RawKernel:
    """Sockets bound on loopback or ipc, and no behaviour but what the test asks for."""

    def __init__(self, transport: str = "tcp", key: str = KEY) -> None:
        self._context = zmq.Context()
        self._directory = tempfile.TemporaryDirectory()
        self.wire = Wire(key)
        self.config: dict[str, Any] = {"transport": transport, "key": key, "hb_port": 9}
        self.config["ip"] = "127.0.0.1" if transport == "tcp" else f"{self._directory.name}/kernel"
        self.sockets = {name: self._socket(name) for name in ("shell", "control", "stdin", "iopub")}
        for number, (name, socket) in enumerate(self.sockets.items(), 1):
            if transport == "tcp":
                port = socket.bind_to_random_port("tcp://127.0.0.1", PORTS.start, PORTS.stop)
                self.config[f"{name}_port"] = port
            else:
                self.config[f"{name}_port"] = number
                socket.bind(f"ipc://{self.config['ip']}-{number}")
        self.greeting = True
        self.topics: list[bytes] = []

    def _socket(self, channel: str) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.XPUB if channel == "iopub" else zmq.ROUTER)
        socket.set(zmq.LINGER, 0)
        socket.set(zmq.SNDHWM, 0)
        if channel == "iopub":
            # Or only the first of several subscribers to a topic would be greeted.
            socket.set(zmq.XPUB_VERBOSE, 1)
        return socket

    def __enter__(self) -> RawKernel:
        return self

    def __exit__(self, *_: object) -> None:
        # Not at once: libzmq aborts the process where a socket is closed with half a message sent, to a peer that goes in
        # the same moment (its issue 3442).
        self._context.destroy(linger=200)
        self._directory.cleanup()

    @property
    def info(self) -> ConnectionInfo:
        return ConnectionInfo.parse(self.config)

    def vanish(self) -> None:
        """Closes every socket, as the death of a kernel does."""
        for channel in self.sockets:
            self.close(channel)

    def close(self, channel: str, linger: int = 0) -> None:
        """Closes a socket; what it sent goes out for `linger` milliseconds."""
        # Who waits for its descriptor must know: the number may soon be somebody else's.
        socket = self.sockets[channel]
        if not socket.closed:
            anyio.notify_closing(socket.get(zmq.FD))
            socket.close(linger=linger)

    def unbind(self, channel: str) -> None:
        """Closes one tcp socket, and returns when nobody listens on its port any more."""
        self.close(channel)
        address = ("127.0.0.1", self.config[f"{channel}_port"])
        with contextlib.suppress(ConnectionError):  # refused, or reset on the way
            while True:
                # ZeroMQ stops listening on a thread of its own, and accepts until then.
                create_connection(address).close()

    def rebind(self, channel: str, endpoint: str, most_waiting: int = 1000) -> None:
        """Opens a fresh socket where a closed one was, as a restarted kernel does."""
        socket = self.sockets[channel] = self._socket(channel)
        socket.set(zmq.RCVHWM, most_waiting)
        while True:
            try:
                return socket.bind(endpoint)
            except zmq.ZMQError:  # the reaper thread has not closed the old one yet
                time.sleep(0.001)

    def open(
        self, identity: Any = None, **options: Any
    ) -> AbstractAsyncContextManager[KernelChannels]:
        return open_kernel_channels(identity, self.config, **options)

    async def receive_frames(self, channel: str) -> list[bytes]:
        socket = self.sockets[channel]
        while True:
            try:
                return socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                # Sending on the socket may eat the edge, so look again now and then.
                with anyio.move_on_after(0.02), contextlib.suppress(anyio.ClosedResourceError):
                    await anyio.wait_readable(socket.get(zmq.FD))

    async def receive(self, channel: str) -> tuple[bytes, Message]:
        """The sender's identity and the next message on `channel`, the probes left out."""
        while True:
            identity, *frames = await self.receive_frames(channel)
            received = self.wire.decode(frames)
            if received.msg_type != "kernel_info_request":
                return identity, received

    def send(self, channel: str, identity: bytes, *messages: Message) -> None:
        for each in messages:
            self.sockets[channel].send_multipart(self.wire.encode(each, [identity]))

    def publish(self, *messages: Message, topic: bytes | None = b"topic") -> None:
        prefix = [] if topic is None else [topic]
        for each in messages:
            self.publish_frames(self.wire.encode(each, prefix))

    def publish_frames(self, frames: list[Any]) -> None:
        self.sockets["iopub"].send_multipart(frames)

    async def greet(self) -> None:
        """Greets every subscriber as JEP 65 has it, which proves its iopub live."""
        while not self.sockets["iopub"].closed:
            try:
                (frame,) = await self.receive_frames("iopub")
            except zmq.ZMQError:  # closed meanwhile, by the test
                return
            topic = frame[1:]
            if frame[:1] != b"\1":
                self.topics.remove(topic)
                continue
            self.topics.append(topic)
            if self.greeting:
                self.publish(message("iopub_welcome", subscription=""), topic=topic)
