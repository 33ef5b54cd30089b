"""Stand-ins for kernels, in a process of their own: ``python -m benchmarks.kernel 1`` for one of them.

Prints their connection files' contents as a list on one line and serves until its standard input ends.
What they send are real messages: signed, distinct, with busy and idle around each request. The code of an
``execute_request`` commands them:

* ``flood 1000`` publishes a thousand stream messages, encoded beforehand and then sent at once;
* ``hold`` is answered behind the next flood, whose messages are its own: so an execution's can be made
  to wait in the socket;
* ``buffer 1000`` publishes one message with a buffer of a thousand bytes;
* ``ignore`` is not answered.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import zmq

from enchannel import Message
from enchannel._protocol.wire import Wire

KEY = "the key of the benchmarks"
SESSION = str(uuid.uuid4())


def message(msg_type: str, parent: Message, content: dict[str, Any], *buffers: bytes) -> Message:
    header = {
        "msg_id": str(uuid.uuid4()),
        "msg_type": msg_type,
        "session": SESSION,
        "username": "kernel",
        "date": "2026-01-01T00:00:00.000000Z",
        "version": "5.4",
    }
    return Message(header, parent.header, {}, content, buffers)


class StandIn:
    """The bound sockets, and the answers to what comes."""

    def __init__(self, context: zmq.Context[Any]) -> None:
        self.wire = Wire(KEY)
        self.config: dict[str, Any] = {"transport": "tcp", "ip": "127.0.0.1", "key": KEY}
        self.config["signature_scheme"] = "hmac-sha256"
        self.sockets: dict[str, zmq.Socket[bytes]] = {}
        self.held: tuple[zmq.Socket[bytes], bytes, Message] | None = None
        for name in ("shell", "control", "stdin", "iopub", "hb"):
            socket = context.socket(zmq.XPUB if name == "iopub" else zmq.ROUTER)
            socket.set(zmq.SNDHWM, 0)
            socket.set(zmq.LINGER, 0)
            self.config[f"{name}_port"] = socket.bind_to_random_port("tcp://127.0.0.1")
            self.sockets[name] = socket
        self.sockets["iopub"].set(zmq.XPUB_VERBOSE, 1)

    def take(self, name: str) -> None:
        """Answers what has come to one of the sockets."""
        socket = self.sockets[name]
        if name == "hb":
            socket.send_multipart(socket.recv_multipart())
        elif name != "iopub":
            identity, *frames = socket.recv_multipart()
            self.answer(socket, identity, self.wire.decode(frames))
        elif socket.recv()[:1] == b"\1":
            self.publish(message("iopub_welcome", Message({}), {"subscription": ""}))

    def publish(self, message: Message) -> None:
        frames = self.wire.encode(message, [b"kernel.topic"])
        self.sockets["iopub"].send_multipart(frames, copy=len(frames) == 7)

    def answer(self, socket: zmq.Socket[bytes], identity: bytes, request: Message) -> None:
        command, _, number = request.content.get("code", "").partition(" ")
        if command == "ignore":
            return
        self.publish(message("status", request, {"execution_state": "busy"}))
        if command == "hold":
            self.held = (socket, identity, request)
            return
        if command == "flood" and self.held:
            self.flood(self.held[2], int(number))
            self.conclude(*self.held)
            self.held = None
        elif command == "flood":
            self.flood(request, int(number))
        elif command == "buffer":
            self.publish(message("display_data", request, {"data": {}}, bytes(int(number))))
        self.conclude(socket, identity, request)

    def conclude(self, socket: zmq.Socket[bytes], identity: bytes, request: Message) -> None:
        msg_type = request.msg_type.replace("request", "reply")
        reply = message(msg_type, request, {"status": "ok", "protocol_version": "5.4"})
        socket.send_multipart(self.wire.encode(reply, [identity]))
        self.publish(message("status", request, {"execution_state": "idle"}))

    def flood(self, request: Message, count: int) -> None:
        content = {"name": "stdout", "text": ""}
        encoded = []
        for number in range(count):
            content["text"] = f"line {number} of the output\n"
            encoded.append(self.wire.encode(message("stream", request, content), [b"stream"]))
        # Frame by frame, which is faster than send_multipart: the reader is what is measured.
        send = self.sockets["iopub"].send
        for frames in encoded:
            for frame in frames[:-1]:
                send(frame, zmq.SNDMORE)
            send(frames[-1])


def serve(count: int) -> None:
    with zmq.Context() as context:
        kernels = [StandIn(context) for _ in range(count)]
        poller = zmq.Poller()
        poller.register(sys.stdin.fileno(), zmq.POLLIN)
        takers: dict[Any, Callable[[], None]] = {}
        for kernel in kernels:
            for name, socket in kernel.sockets.items():
                poller.register(socket, zmq.POLLIN)
                takers[socket] = partial(kernel.take, name)
        print(json.dumps([kernel.config for kernel in kernels]), flush=True)
        while True:
            ready = [who for who, _ in poller.poll()]
            if sys.stdin.fileno() in ready:
                context.destroy(linger=0)
                return
            for socket in ready:
                takers[socket]()


class Driver:
    """Commands the stand-in from beside the client that is measured; blocks."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.wire = Wire(KEY)
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.connect(f"tcp://127.0.0.1:{config['control_port']}")

    def command(self, code: str) -> None:
        # With all that a client's header has: it comes back as the parent of each message.
        request = message("execute_request", Message({}), {"code": code})
        self.socket.send_multipart(self.wire.encode(request))

    def wait(self) -> None:
        """Until all that the command makes has been sent."""
        self.wire.decode(self.socket.recv_multipart())


@contextmanager
def stand_ins(count: int) -> Iterator[list[dict[str, Any]]]:
    """Running stand-ins, all in one process: their connection files' contents."""
    command = [sys.executable, "-m", "benchmarks.kernel", str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.stdin.close()


@contextmanager
def stand_in() -> Iterator[tuple[dict[str, Any], Driver]]:
    """A running stand-in: its connection file's content, and who commands it."""
    with stand_ins(1) as [config]:
        driver = Driver(config)
        try:
            yield config, driver
        finally:
            driver.context.destroy(linger=0)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
