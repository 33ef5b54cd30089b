"""A kernel as a process of its own that is up in a tenth of a second, and does what its arguments say.

Run as ``python scripted_kernel.py CONNECTION_FILE [OPTION...]``. Its code is a word: ``echo TEXT``, ``pid``, ``env NAME``,
``write TEXT`` (to the process's own output), ``cwd``, ``fail TEXT``, ``exit STATUS``, ``spawn`` and ``daemon`` (start a process that stays, in its session
or out of it), ``fork`` (a daemon of the old school, which holds what the kernel has open, its connections too), ``run`` (until it is
interrupted).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import zmq

from enchannel import Message
from enchannel._protocol.connection_info import ConnectionInfo
from enchannel._protocol.wire import Wire

SESSION = str(uuid.uuid4())


class ScriptedKernel:
    def __init__(self, info: ConnectionInfo, options: argparse.Namespace) -> None:
        self.options = options
        self.wire = Wire(info.key)
        self.count = 0
        self.running = False
        context = zmq.Context.instance()
        kinds = {"shell": zmq.ROUTER, "control": zmq.ROUTER, "stdin": zmq.ROUTER, "iopub": zmq.XPUB}
        self.sockets = {}
        for name, kind in {**kinds, "hb": zmq.ROUTER}.items():
            socket = self.sockets[name] = context.socket(kind)
            socket.set(zmq.LINGER, 1000)
            if kind == zmq.XPUB:
                socket.set(zmq.XPUB_VERBOSE, 1)
            socket.bind(info.endpoint(name))

    def publish(self, msg_type: str, parent: Message | None, **content: Any) -> None:
        self.send("iopub", b"", msg_type, parent, **content)

    def send(
        self, channel: str, to: bytes, msg_type: str, parent: Message | None, **content: Any
    ) -> None:
        header = {
            "msg_id": str(uuid.uuid4()),
            "msg_type": msg_type,
            "session": SESSION,
            "username": "scripted",
            "version": "5.4",
        }
        message = Message(header, dict(parent.header) if parent else {}, {}, content)
        self.sockets[channel].send_multipart(self.wire.encode(message, [to]))

    def serve(self) -> None:
        poller = zmq.Poller()
        for socket in self.sockets.values():
            poller.register(socket, zmq.POLLIN)
        while True:
            for socket, _ in poller.poll():
                self.take(next(name for name, one in self.sockets.items() if one is socket))

    def interrupt(self, *_: object) -> None:
        """Ends what runs; between cells there is nothing to end, and no message to lose."""
        if self.running:
            self.running = False
            raise KeyboardInterrupt

    def take(self, channel: str) -> None:
        frames = self.sockets[channel].recv_multipart()
        if channel == "hb":
            self.sockets["hb"].send_multipart(frames)
        elif channel == "iopub":
            if frames[0][:1] == b"\1":
                self.publish("iopub_welcome", None, subscription="")
        elif channel != "stdin" and not self.options.mute:
            self.handle(channel, frames[0], self.wire.decode(frames[1:]))

    def handle(self, channel: str, client: bytes, request: Message) -> None:
        self.publish("status", request, execution_state="busy")
        reply = self.answer(request)
        if reply is not None:
            name = request.msg_type.replace("_request", "_reply")
            self.send(channel, client, name, request, **{"status": "ok", **reply})
        self.publish("status", request, execution_state="idle")
        if request.msg_type == "shutdown_request" and "shutdown" not in self.options.ignore:
            for socket in self.sockets.values():
                socket.close()
            zmq.Context.instance().term()
            if self.options.leaves_for:
                # As Python has it while it ends.
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                print("saving", flush=True)
                time.sleep(self.options.leaves_for)
            sys.exit(0)

    def answer(self, request: Message) -> dict[str, Any] | None:
        if request.msg_type == "kernel_info_request":
            return {"protocol_version": "5.4", "language_info": {"name": "words"}}
        if request.msg_type == "shutdown_request":
            return {"restart": request.content["restart"]}
        if request.msg_type != "execute_request":
            return {} if request.msg_type == "interrupt_request" else None
        self.count += 1
        try:
            self.running = True
            text = self.run(*request.content["code"].strip().split(maxsplit=1), request=request)
            self.running = False
        except (KeyboardInterrupt, RuntimeError) as error:
            self.running = False
            failure = {"ename": type(error).__name__, "evalue": str(error), "traceback": []}
            self.publish("error", request, **failure)
            return {"status": "error", "execution_count": self.count, **failure}
        self.publish("stream", request, name="stdout", text=text)
        return {"execution_count": self.count}

    def run(self, word: str, argument: str = "", *, request: Message) -> str:
        if word == "run":
            self.publish("stream", request, name="stdout", text="begun")
            time.sleep(600)
        if word == "fail":
            raise RuntimeError(argument)
        if word == "exit":
            os._exit(int(argument))
        if word == "spawn":
            return str(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid)
        if word == "daemon":
            code = "import time; time.sleep(600)"
            return str(subprocess.Popen([sys.executable, "-c", code], start_new_session=True).pid)
        if word == "fork":
            child = os.fork()
            if not child:
                os.setsid()
                null = os.open(os.devnull, os.O_RDWR)
                for stream in (0, 1, 2):
                    os.dup2(null, stream)
                time.sleep(600)
                os._exit(0)
            return str(child)
        if word == "write":
            print(argument, flush=True)
        values = {"pid": os.getpid(), "cwd": Path.cwd(), "env": os.environ.get(argument)}
        return str(values.get(word, argument))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("connection_file", type=Path)
    parser.add_argument("--says", default="")
    parser.add_argument("--exits", type=int)
    parser.add_argument("--mute", action="store_true", help="binds, and answers nothing")
    parser.add_argument("--ignore", action="append", default=[])
    parser.add_argument(
        "--leaves-for", type=float, help="seconds that it takes to exit when it is asked to"
    )
    parser.add_argument("--note", type=Path, help="where to append the process id of each start")
    options = parser.parse_args()
    # Whatever we inherit: who starts us may have been started in the background by a shell, and be deaf to SIGINT.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if "SIGTERM" in options.ignore:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.note is not None:
        with options.note.open("a") as note:
            note.write(f"{os.getpid()}\n")
    print(options.says, flush=True)
    if options.exits is not None:
        sys.exit(options.exits)
    config = json.loads(options.connection_file.read_text())
    kernel = ScriptedKernel(ConnectionInfo.parse(config), options)
    if "SIGINT" not in options.ignore:
        signal.signal(signal.SIGINT, kernel.interrupt)
    kernel.serve()


if __name__ == "__main__":
    main()
