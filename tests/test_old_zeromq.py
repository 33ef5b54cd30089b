"""A kernel that speaks ZMTP 2.0, as JeroMQ did of old: ZeroMQ's monitor says of it that it has accepted, and no more."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import anyio
import anyio.abc
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from enchannel import open_kernel_channels
from enchannel._protocol.wire import Wire
from raw_kernel import message

pytestmark = pytest.mark.anyio

SIGNATURE = b"\xff" + struct.pack(">Q", 1) + b"\x7f"
REVISION = b"\x01"
PUB, REP, ROUTER = b"\x01", b"\x04", b"\x06"


def framed(frames: list[bytes]) -> bytes:
    """A message as ZMTP 2.0 has it on the wire."""
    out = b""
    for number, frame in enumerate(frames, 1):
        more = int(number < len(frames))
        if len(frame) < 256:
            out += bytes((more, len(frame)))
        else:
            out += bytes((more | 2,)) + struct.pack(">Q", len(frame))
        out += frame
    return out


class OldKernel:
    """Answers every request on shell and control, and publishes its statuses."""

    def __init__(self) -> None:
        self.wire = Wire(b"key")
        self.subscribers: list[anyio.abc.ByteStream] = []
        self._publishing = anyio.Lock()

    async def serve(self, kind: bytes, client: anyio.abc.SocketStream) -> None:
        received = BufferedByteReceiveStream(client)
        async with client:
            await client.send(SIGNATURE + REVISION + kind + framed([b""]))
            # The client's: the same, and its revision, which is a newer one.
            await received.receive_exactly(len(SIGNATURE) + 2)
            await self._message(received)
            if kind == PUB:
                self.subscribers.append(client)
            while True:
                frames = await self._message(received)
                if kind == ROUTER:
                    await self._answer(client, frames)

    async def _message(self, received: BufferedByteReceiveStream) -> list[bytes]:
        frames: list[bytes] = []
        more = 1
        while more:
            (flags,) = await received.receive_exactly(1)
            more = flags & 1
            size = await received.receive_exactly(8 if flags & 2 else 1)
            length = int.from_bytes(size, "big")
            frames.append(await received.receive_exactly(length) if length else b"")
        return frames

    async def _answer(self, client: anyio.abc.ByteStream, frames: list[bytes]) -> None:
        asked = self.wire.decode(frames)
        kind = asked.msg_type.replace("request", "reply")
        await self._publish(message("status", asked, execution_state="busy"))
        await client.send(framed(self._encoded(message(kind, asked, status="ok"))))
        await self._publish(message("status", asked, execution_state="idle"))

    async def _publish(self, said: Any) -> None:
        async with self._publishing:
            for subscriber in self.subscribers:
                await subscriber.send(framed([b"topic", *self._encoded(said)]))

    def _encoded(self, said: Any) -> list[bytes]:
        return [bytes(frame) for frame in self.wire.encode(said)]


@asynccontextmanager
async def old_kernel() -> AsyncIterator[dict[str, Any]]:
    kernel = OldKernel()
    config: dict[str, Any] = {"key": "key"}
    async with AsyncExitStack() as listeners, anyio.create_task_group() as tasks:
        for channel in ("shell", "control", "stdin", "iopub", "hb"):
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
            listeners.push_async_callback(listener.aclose)
            kind = {"iopub": PUB, "hb": REP}.get(channel, ROUTER)
            config[f"{channel}_port"] = listener.extra(anyio.abc.SocketAttribute.local_port)

            async def serve(client: anyio.abc.SocketStream, kind: bytes = kind) -> None:
                with suppress(anyio.IncompleteRead, anyio.BrokenResourceError):
                    await kernel.serve(kind, client)

            tasks.start_soon(listener.serve, serve)
        yield config
        tasks.cancel_scope.cancel()


async def test_it_is_opened_and_answers() -> None:
    async with old_kernel() as config:
        with anyio.fail_after(30):
            async with open_kernel_channels(None, config) as ch:
                assert ch.statistics().iopub_proven
                reply = await ch.request("inspect_request", {"code": "", "cursor_pos": 0})
                assert reply.msg_type == "inspect_reply"
                async with ch.execute("1") as execution:
                    await execution.wait()
                assert execution._run.idle
                await ch.main.send("stdin", {"header": {"msg_type": "input_reply"}})
