"""A stand-in for a kernel, in a process of its own: ``python -m benchmarks.kernel``.

Prints its connection file's content on one line and serves until its standard input ends. What it sends
are real messages: signed, distinct, with busy and idle around each request. The code of an
``execute_request`` commands it:

* ``flood 1000`` publishes a thousand stream messages, encoded beforehand and then sent at once;
* ``buffer 1000`` publishes one message with a buffer of a thousand bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import zmq

from enchannel import Message
from enchannel._protocol.wire import Wire

KEY = "the key of the benchmarks"


def message(msg_type: str, parent: Message, content: dict[str, Any], *buffers: bytes) -> Message:
    header = {
        "msg_id": str(uuid.uuid4()),
        "msg_type": msg_type,
        "session": "the stand-in",
        "username": "kernel",
        "date": "2026-01-01T00:00:00.000000Z",
        "version": "5.4",
    }
    return Message(header, parent.header, {}, content, buffers)


class StandIn:
    """The bound sockets, and the answers to what comes."""

    def __init__(self) -> None:
        self.wire = Wire(KEY)
        self.context = zmq.Context()
        self.config = {"transport": "tcp", "ip": "127.0.0.1", "key": KEY, "hb_port": 1}
        self.config["signature_scheme"] = "hmac-sha256"
        self.sockets: dict[str, zmq.Socket[bytes]] = {}
        for name in ("shell", "control", "stdin", "iopub"):
            socket = self.context.socket(zmq.XPUB if name == "iopub" else zmq.ROUTER)
            socket.set(zmq.SNDHWM, 0)
            socket.set(zmq.LINGER, 0)
            self.config[f"{name}_port"] = socket.bind_to_random_port("tcp://127.0.0.1")
            self.sockets[name] = socket
        self.sockets["iopub"].set(zmq.XPUB_VERBOSE, 1)

    def serve(self) -> None:
        poller = zmq.Poller()
        poller.register(sys.stdin.fileno(), zmq.POLLIN)
        for socket in self.sockets.values():
            poller.register(socket, zmq.POLLIN)
        while True:
            ready = dict(poller.poll())
            if sys.stdin.fileno() in ready:
                self.context.destroy(linger=0)
                return
            for name, socket in self.sockets.items():
                if socket in ready and name == "iopub":
                    if socket.recv()[:1] == b"\1":
                        welcome = message("iopub_welcome", Message({}), {"subscription": ""})
                        self.publish(welcome)
                elif socket in ready:
                    identity, *frames = socket.recv_multipart()
                    self.answer(socket, identity, self.wire.decode(frames))

    def publish(self, message: Message) -> None:
        frames = self.wire.encode(message, [b"kernel.topic"])
        self.sockets["iopub"].send_multipart(frames, copy=len(frames) == 7)

    def answer(self, socket: zmq.Socket[bytes], identity: bytes, request: Message) -> None:
        command, _, number = request.content.get("code", "").partition(" ")
        self.publish(message("status", request, {"execution_state": "busy"}))
        if command == "flood":
            self.flood(request, int(number))
        elif command == "buffer":
            self.publish(message("display_data", request, {"data": {}}, bytes(int(number))))
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


class Driver:
    """Commands the stand-in from beside the client that is measured; blocks."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.wire = Wire(KEY)
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.connect(f"tcp://127.0.0.1:{config['control_port']}")

    def command(self, code: str) -> Message:
        header = {"msg_id": str(uuid.uuid4()), "msg_type": "execute_request", "session": "driver"}
        request = Message(header, {}, {}, {"code": code})
        self.socket.send_multipart(self.wire.encode(request))
        return request

    def wait(self) -> None:
        """Until all that the command makes has been sent."""
        self.wire.decode(self.socket.recv_multipart())


@contextmanager
def stand_in() -> Iterator[tuple[dict[str, Any], Driver]]:
    """A running stand-in: its connection file's content, and who commands it."""
    command = [sys.executable, "-m", "benchmarks.kernel"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        config = json.loads(process.stdout.readline())
        driver = Driver(config)
        try:
            yield config, driver
        finally:
            driver.context.destroy(linger=0)
            process.stdin.close()


if __name__ == "__main__":
    kernel = StandIn()
    print(json.dumps(kernel.config), flush=True)
    kernel.serve()
