"""The server's side of a kernel's websocket: a client of a kernel in memory, spoken for over a socket."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
from anyio.lowlevel import checkpoint

from .._exceptions import LocalProtocolError
from .._groups import unwrapping_task_group
from .._log import silent_logger
from .._protocol.connection_info import CHANNELS, ChannelName
from .._protocol.message import Message, new_id, prepare
from .._protocol.server_wire import V1, pack, unpack
from .._protocol.wire import DELIMITER, Wire
from .._transports.addresses import reset_when_closed
from ._memory import MemoryTransport

if TYPE_CHECKING:
    from websockets.exceptions import InvalidHandshake
    from websockets.frames import Frame, Opcode
    from websockets.protocol import State
    from websockets.server import ServerProtocol
    from websockets.typing import Subprotocol
else:
    # The class is there without; who opens a fake server is told.
    with contextlib.suppress(ImportError):
        from websockets.exceptions import InvalidHandshake
        from websockets.frames import Frame, Opcode
        from websockets.protocol import State
        from websockets.server import ServerProtocol
        from websockets.typing import Subprotocol

__all__ = ["FakeWebSocket"]

NOTICED = 10
"""Turns of the event loop behind which a client in it has noticed the end: what it sends then is not lost with it."""

_UNSIGNED = Wire(b"")


class FakeWebSocket:
    """One websocket that a client of a :class:`FakeServer` has opened.

    Told to do something behind its end, it raises :class:`~enchannel.LocalProtocolError`.

    Attributes:
        session: What it was opened with.
        ended: Set when it has.

    Example:
        .. code-block:: python

            async with (
                open_fake_server() as fake,
                open_server(fake.url) as server,
                server.open_kernel() as kernel,
                kernel.open_channels() as ch,
            ):
                (websocket,) = await fake.wait_websockets(1)
                await websocket.reset()
                await ch.run("6 * 7")
                print(ch.statistics().outages)  # 1
    """

    def __init__(
        self, stream: anyio.abc.ByteStream, transport: MemoryTransport, session: str, *, v1: bool
    ) -> None:
        self.session = session
        self.ended: anyio.Event = anyio.Event()
        self._stream = stream
        self._transport = transport
        self._frozen = False
        self._under_way = 0
        self._scope = anyio.CancelScope()
        self._sending = anyio.Lock()
        self._protocol = ServerProtocol(
            subprotocols=[Subprotocol(V1)] if v1 else None,
            max_size=10 << 20,
            logger=silent_logger(),
        )

    def __repr__(self) -> str:
        return f"<FakeWebSocket {self.session}{' ended' if self.ended.is_set() else ''}>"

    def _check_open(self) -> None:
        if self.ended.is_set():
            raise LocalProtocolError(
                "this websocket has ended, and nothing more happens to it. A kernel that is opened has one of its own first, to "
                "see that it is ready; FakeServer.websockets() are those that are open"
            )

    # Faults.

    def freeze(self) -> None:
        """From now on nothing goes through, in either direction, and nobody is told."""
        self._check_open()
        self._frozen = True

    async def reset(self) -> None:
        """Ends it with a reset."""
        self._check_open()
        raw = self._stream.extra(anyio.abc.SocketAttribute.raw_socket)  # noqa: S610
        with contextlib.suppress(OSError):
            reset_when_closed(raw)
        await self._end()

    async def cut(self) -> None:
        """Ends it without a word, behind what the kernel has said."""
        self._check_open()
        while not self._frozen and self._has_more_to_say():
            await checkpoint()
        await self._end()

    def _has_more_to_say(self) -> bool:
        return self._under_way > 0 or any(map(self._transport.has_arrived, CHANNELS))

    async def close(self, code: int = 1001, reason: str = "") -> None:
        """Closes it as the specification says."""
        with contextlib.suppress(*_GONE):
            if self._protocol.state is State.OPEN:
                self._protocol.send_close(code, reason)
            await self._flush()
        await self._end()

    async def send_raw(self, data: bytes, *, text: bool = False) -> None:
        """Sends `data` as one message, whatever it is."""
        self._check_open()
        (self._protocol.send_text if text else self._protocol.send_binary)(data)
        await self._flush()

    async def send_bytes(self, data: bytes) -> None:
        """Sends `data` as it is, which need be no websocket's."""
        async with self._sending:
            await self._stream.send(data)

    async def say(
        self,
        msg_type: str,
        content: Mapping[str, Any],
        parent_header: Mapping[str, Any] | None = None,
    ) -> None:
        """Says something on iopub in the kernel's name, as servers do it: with the client's own session."""
        body = {
            "msg_type": msg_type,
            "content": dict(content),
            "parent_header": parent_header or {},
        }
        await self._send("iopub", prepare(body, session=self.session, username="server"))

    async def say_status(self, state: str) -> None:
        """Says what becomes of the kernel: ``"restarting"``, ``"dead"``."""
        await self.say("status", {"execution_state": state})

    async def say_rate_limit(self, parent_header: Mapping[str, Any] | None = None) -> None:
        """Says that output is dropped, as a server does that is sent too much at a time."""
        text = "IOPub message rate exceeded.\nThe Jupyter server will temporarily stop sending output\n"
        await self.say("stream", {"name": "stderr", "text": text}, parent_header)

    # Its life.

    async def run(self, head: bytes, *, ends: bool = False) -> None:
        """Shakes hands, and carries messages until it ends; `head` is what was read already.

        Where it `ends` at once, that is said in one breath with the handshake.
        """
        try:
            with self._scope, contextlib.suppress(*_GONE):
                self._protocol.receive_data(head)
                self._answer_handshake()
                if ends:
                    self._protocol.send_close(1001)
                await self._flush()
                if ends:
                    return
                async with unwrapping_task_group() as tasks:
                    for channel in CHANNELS:
                        tasks.start_soon(self._forward, channel)
                    with contextlib.suppress(*_GONE):
                        await self._read()
                    tasks.cancel_scope.cancel()
        finally:
            self.ended.set()

    def _answer_handshake(self) -> None:
        for request in self._protocol.events_received():
            with contextlib.suppress(InvalidHandshake):
                self._protocol.send_response(self._protocol.accept(request))  # type: ignore[arg-type]

    async def _read(self) -> None:
        pieces = b""
        while self._protocol.state is State.OPEN:
            data = await self._stream.receive()
            if self._frozen:
                await anyio.sleep_forever()
            self._protocol.receive_data(data)
            for event in self._protocol.events_received():
                if isinstance(event, Frame) and event.opcode in (
                    Opcode.TEXT,
                    Opcode.BINARY,
                    Opcode.CONT,
                ):
                    pieces += event.data
                    if event.fin:
                        self._take(pieces, text=event.opcode is Opcode.TEXT)
                        pieces = b""
            await self._flush()
        await self._flush()

    def _take(self, data: bytes, *, text: bool) -> None:
        # What a real server cannot read ends the connection; here it is an error of the library's.
        channel, frames = unpack(data, text=text)
        if channel != "iopub":
            self._transport.give(channel, frames)

    async def _forward(self, channel: ChannelName) -> None:
        with contextlib.suppress(*_GONE):
            await self._forward_all(channel)

    async def _forward_all(self, channel: ChannelName) -> None:
        # What the kernel says once this closes is for the next one.
        while self._protocol.state is State.OPEN:
            with contextlib.suppress(anyio.WouldBlock):
                (frames,) = self._transport.take(channel, 1, 1)
                self._under_way += 1
                if DELIMITER in frames:
                    await self._send_frames(channel, frames[frames.index(DELIMITER) :])
                else:
                    await self.send_raw(b"".join(frames))
                self._under_way -= 1
                continue
            await self._transport.wait_readable(channel)

    async def _send(self, channel: ChannelName, message: Message) -> None:
        message.header.setdefault("msg_id", new_id())
        await self._send_frames(channel, [bytes(frame) for frame in _UNSIGNED.encode(message)])

    async def _send_frames(self, channel: ChannelName, frames: list[bytes]) -> None:
        data, text = pack(channel, frames, self._protocol.subprotocol)
        if self._frozen:
            # A real server writes into the dead connection, and what it wrote is lost.
            return
        if self._protocol.state is State.OPEN:
            await self.send_raw(data, text=text)

    async def _flush(self) -> None:
        async with self._sending:
            for data in self._protocol.data_to_send():
                if data:
                    await self._stream.send(data)

    async def _end(self) -> None:
        await self._stream.aclose()
        self._scope.cancel()
        await self.ended.wait()
        for _ in range(NOTICED):
            await checkpoint()


_GONE = (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)
"""What the end of the connection raises."""
