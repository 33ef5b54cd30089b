"""One websocket, on a socket of our own: what is read and written is the sans-IO protocol's, of websockets.

* Pieces of a message are put together, and control frames are answered, while bytes are taken.
* No extension is offered: servers refuse compression by default, and it costs more than it saves on one machine.
* How it ended is kept, and does not raise: what had arrived before is worth as much as ever. It is what reading says; where
  nothing can be sent any more, it is read to the end.
* The token stands in one header of the handshake. The protocol would log it, so it has a logger that says nothing.

Source: RFC 6455.
"""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING

import anyio
from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from .._groups import unwrapping_task_group
from .._log import silent_logger
from .._protocol.server_url import ServerUrl
from .._protocol.server_wire import V1
from .byte_stream import QUICKACK, ByteStream, connect_bytes

if TYPE_CHECKING:
    from websockets.http11 import Response

__all__ = ["Refused", "WebSocket", "open_websocket"]

LINGER = 1.0
"""Seconds for what was sent to go out, and for the server to take leave."""

OWED = 1 << 20
"""Bytes of answers to pings that may wait for a server to read them."""


class Refused(Exception):
    """The server answers the handshake with something else than a websocket.

    Attributes:
        status: Of HTTP; 0 where the answer is none.
        said: What stands in the answer.
        location: Where it points to, if anywhere.
    """

    def __init__(self, status: int, said: str, location: str = "") -> None:
        super().__init__(status, said, location)
        self.status = status
        self.said = said
        self.location = location


class WebSocket:
    """An open websocket; made by :func:`open_websocket`.

    Attributes:
        subprotocol: What the server has agreed to.
        ended: How it ended, in words, and nothing while it has not.
        received: Bytes that have arrived.
        pong: The number of the newest ping of ours that was answered.
    """

    def __init__(self, stream: ByteStream, protocol: ClientProtocol) -> None:
        self.subprotocol: str | None = protocol.subprotocol
        self.ended: str = ""
        self._stream = stream
        self._protocol = protocol
        self.received: int = 0
        self.pong: int = 0
        self._pings = 0
        # Bytes of answers to pings that wait to go out, at the most.
        self._owed = 0
        self._pieces: list[bytes | bytearray | memoryview] = []
        self._text = False
        # Whether nothing more can come or go.
        self._over = False
        if protocol.state is not State.OPEN:
            # It came with the end of the handshake.
            self._end(_how_closed(protocol))
            self._say()

    # Receiving.

    def receive_nowait(self) -> list[tuple[bytes | bytearray, bool]]:
        """The messages that have arrived, each with whether it is text; none where the end has.

        Raises:
            anyio.WouldBlock: Nothing has arrived.
        """
        try:
            data = self._stream.receive_nowait()
            self.received += len(data)
            self._feed(data)
            before = self._stream.unsent
            self._say()
            self._owed = self._owed + self._stream.unsent - before if self._stream.unsent else 0
            if self._owed > OWED:
                raise OSError("the server pings, and does not read what answers")
        except OSError as error:
            self._break(error)
        return self.take_messages()

    def _feed(self, data: bytes) -> None:
        protocol = self._protocol
        if not data:
            self._over = True
            protocol.receive_eof()
        elif not self.ended:
            protocol.receive_data(data)
            if QUICKACK is None and protocol.state is State.OPEN:
                # It carries the acknowledgement that a server under Nagle's algorithm waits for.
                protocol.send_pong(b"")
        if protocol.close_rcvd is not None or protocol.parser_exc is not None:
            self._end(_how_closed(protocol))

    def take_messages(self) -> list[tuple[bytes | bytearray, bool]]:
        """The messages that were read already."""
        messages: list[tuple[bytes | bytearray, bool]] = []
        for event in self._protocol.events_received():
            if not isinstance(event, Frame):
                continue
            opcode, data = event.opcode, event.data
            if opcode is _BINARY and event.fin:
                # Most of them.
                messages.append((data if isinstance(data, bytearray) else bytes(data), False))
            elif opcode in _DATA:
                self._take_piece(opcode, data, messages, whole=event.fin)
            elif opcode is Opcode.PONG and bytes(data).isdigit():
                self.pong = max(self.pong, int(data))
        return messages

    def _take_piece(
        self,
        opcode: Opcode,
        data: bytes | bytearray | memoryview,
        into: list[tuple[bytes | bytearray, bool]],
        *,
        whole: bool,
    ) -> None:
        if opcode is not Opcode.CONT:
            self._text = opcode is Opcode.TEXT
        self._pieces.append(data)
        if whole:
            into.append((b"".join(self._pieces), self._text))
            self._pieces = []

    # Sending.

    @property
    def unsent(self) -> int:
        """Bytes that the system has not taken yet."""
        return self._stream.unsent

    @property
    def cut_off(self) -> bool:
        """Whether nothing that is sent goes out any more; what has arrived is still to be read, and the end with it."""
        return bool(self.ended) or self._stream.cut_off is not None

    def send_nowait(self, data: bytes, *, text: bool) -> None:
        """Takes over `data` as one message; what is sent through one that is cut off goes nowhere."""
        if self._protocol.state is State.OPEN:
            if text:
                self._protocol.send_text(data)
            else:
                self._protocol.send_binary(data)
            self._say()

    def ping(self) -> int:
        """Asks the other end whether it is there; the number that :attr:`pong` has when that is answered."""
        self._pings += 1
        if self._protocol.state is State.OPEN:
            self._protocol.send_ping(b"%d" % self._pings)
            self._say()
        return self._pings

    def flush_nowait(self) -> None:
        """Gives the system what it takes of what waits to go out."""
        self._stream.flush_nowait()

    def _say(self) -> None:
        for data in self._protocol.data_to_send():
            self._stream.send_nowait(data)

    # Waiting, and the end.

    async def wait_readable(self) -> None:
        """Waits until something may have arrived."""
        await self._stream.wait_readable()

    async def wait_writable(self) -> None:
        """Waits until the system takes something of what waits to go out."""
        await self._stream.wait_writable()

    @property
    def closed_in_order(self) -> bool:
        """Whether the server has said that it closes: then all that it sent before has arrived."""
        return self._protocol.close_rcvd is not None

    def _end(self, how: str) -> None:
        self.ended = self.ended or how

    def _break(self, error: OSError) -> None:
        self._over = True
        self._end(error.strerror or str(error))

    def close(self, *, hard: bool = False) -> None:
        """Closes it then and there.

        Args:
            hard: Whether the other end is told by a reset.
        """
        self._over = True
        self._end("closed here")
        self._stream.close(hard=hard)

    def say_goodbye(self) -> None:
        """From now on nothing is sent."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._say()

    async def aclose(self) -> None:
        """Takes leave: what was sent goes out, and the server closes; bounded."""
        self.say_goodbye()
        try:
            with anyio.move_on_after(LINGER):
                # Both at once: a server may read no more before what it writes is read.
                async with unwrapping_task_group() as tasks:
                    tasks.start_soon(self._write_rest)
                    # To close while something has arrived would be a reset, which destroys what is under way.
                    while not self._over:
                        await self.wait_readable()
                        with contextlib.suppress(anyio.WouldBlock):
                            self.receive_nowait()
                    tasks.cancel_scope.cancel()
        finally:
            self.close()

    async def _write_rest(self) -> None:
        while self.unsent:
            await self.wait_writable()
            self.flush_nowait()


# Looked up once: an enumeration's class is asked for each of its members.
_BINARY = Opcode.BINARY
_DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)


def _how_closed(protocol: ClientProtocol) -> str:
    """How the websocket ended, for the end of a sentence."""
    received = protocol.close_rcvd
    if protocol.parser_exc is not None and not isinstance(protocol.parser_exc, EOFError):
        return f"what came is no websocket's: {protocol.parser_exc}"
    if received is None:
        return "it ended without a word"
    return f"the server closed it: {received}"


async def open_websocket(
    url: ServerUrl,
    path: str,
    *,
    token: str | None,
    tls: ssl.SSLContext | None,
    max_size: int | None = None,
) -> WebSocket:
    """Opens a websocket. Cancelled, it leaves nothing open.

    Args:
        url: Of the server.
        path: Of the websocket, with its query.
        token: That the server wants.
        tls: For https.
        max_size: Bytes that a message may have; a larger one ends it.

    Raises:
        Refused: The server answers with something else.
        OSError: It cannot be reached, or ends the connection.
    """
    resource, _, query = path.partition("?")
    uri = WebSocketURI(url.secure, url.host, url.port, resource, query)
    protocol = ClientProtocol(
        uri, subprotocols=[Subprotocol(V1)], max_size=max_size, logger=silent_logger()
    )
    request = protocol.connect()
    if token is not None:
        request.headers["Authorization"] = f"token {token}"
    protocol.send_request(request)
    stream = await connect_bytes(url.host, url.port, tls if url.secure else None)
    try:
        for data in protocol.data_to_send():
            stream.send_nowait(data)
        while protocol.state is State.CONNECTING and protocol.handshake_exc is None:
            await stream.wait_readable()
            with contextlib.suppress(anyio.WouldBlock):
                data = stream.receive_nowait()
                if data:
                    protocol.receive_data(data)
                else:
                    protocol.receive_eof()
        if protocol.handshake_exc is not None:
            raise _refusal(protocol.handshake_exc)
    except BaseException:
        stream.close()
        raise
    return WebSocket(stream, protocol)


def _refusal(error: Exception) -> Exception:
    if isinstance(error, InvalidStatus):
        response: Response = error.response
        body = bytes(response.body or b"").decode(errors="replace")
        location = response.headers.get("Location", "")
        return Refused(response.status_code, body, location)
    if isinstance(error, InvalidHandshake) and not isinstance(error.__cause__, EOFError):
        return Refused(0, f"{error}{f': {error.__cause__}' if error.__cause__ else ''}")
    return ConnectionResetError("the server closed the connection without an answer")
