"""A kernel's channels over the websocket of a Jupyter Server, a Kernel Gateway or an Enterprise Gateway.

The rules:

* All four channels come over one connection. One task, the *pump*, reads it and sorts what arrives; it stops reading
  while much waits here, which the server then keeps.
* The server keeps what a kernel says while its last websocket is away, for the session that had it. So the pump comes
  back with the same session, again and again, and the connection is not lost with its websocket. What may be lost all
  the same is told: where the connection was silent before it ended, and where somebody else was connected.
* A websocket that is open proves nothing. The server is pinged, and behind a silence the pump closes the connection
  hard and comes back. The kernel is asked for over REST where something is due and nothing comes, and now and then while
  it is silent: a server leaves the websocket of a kernel that is gone open.
* Behind each restart the server's own sockets may lead nowhere. So the websocket is made anew then, with a session of
  its own, and what the server had kept for the one before is dropped. What we send bears the first session throughout.
* When the connection is let go, what lies unread in the system's buffer is read by who reads the last words, piece by piece.
* What the server says in the kernel's name (that it restarts it, that it is dead, that it keeps back output) bears the
  session of a websocket of ours. It is the transport's to understand, and no output.

Source: Jupyter Server's websocket handlers, and JupyterLab's services, which they were made for.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from .._bell import Bell
from .._groups import shielded
from .._log import logger
from .._protocol.connection_info import ChannelName
from .._protocol.errors import LocalProtocolError, MalformedMessage
from .._protocol.message import Message
from .._protocol.server_wire import pack, unpack
from .._protocol.wire import Frame, Wire
from .arrivals import Arrivals
from .base import ConnectionEvent, FrameTransport, Start, Tell
from .reach import Reach, open_first
from .server_words import Word, Words, is_farewell, is_heard
from .vigil import Vigil
from .way_back import NoWayBack, WayBack

if TYPE_CHECKING:
    from .websocket import WebSocket

__all__ = ["ServerTransport"]

UNSENT = 1 << 20
"""Bytes that may wait to go out before no more is taken over."""

ASKED: tuple[ChannelName, ...] = ("shell", "control", "stdin")
"""Where what we sent may be lost with a websocket, however it ended."""


class ServerTransport(FrameTransport):
    """The channels of a kernel behind a server; made by ``connect()`` of a server.

    Args:
        channels: Those that are carried.
        wire: Reads and writes the parts of a message.
        reach: How its server is reached.
        session: The session of all that is sent, and the first websocket's.
        max_sent_size: Bytes that a message may have which is sent.
    """

    buffered = True

    def __init__(
        self,
        channels: Sequence[ChannelName],
        wire: Wire,
        reach: Reach,
        session: str,
        max_sent_size: float,
    ) -> None:
        super().__init__(channels, wire)
        self.session: str | None = session
        self.followed: Sequence[ChannelName] = tuple(channels)
        self.rate_limited: int = 0
        self._reach = reach
        self._max_sent_size = max_sent_size
        self._socket: WebSocket | None = None
        self._leaving: WebSocket | None = None
        self._seen = "not connected yet"
        self._gone, self._how_gone = "", ConnectionEvent.GONE
        self._abandoned = False
        self._scopes: set[anyio.CancelScope] = set()
        self._arrivals = Arrivals(channels)
        self._news = Bell()
        self._writing = False
        self._tell: Tell | None = None
        self._start: Start | None = None
        self._vigil = Vigil(self, reach.look)
        self._doubtful: Sequence[ChannelName] = ()
        self._way_back = WayBack(reach, session)
        self._words = Words(session)
        self._spoke = False

    # Receiving.

    def take(self, channel: ChannelName, most: float, size: float) -> list[Sequence[Frame]]:
        try:
            return self._arrivals.take(channel, most, size)
        except anyio.WouldBlock:
            if not self._abandoned:
                raise
        self._read_rest()
        return []

    def _read_rest(self) -> None:
        """Reads some more of what the system has of a connection that was let go, and closes that behind it.

        Raises:
            anyio.WouldBlock: It was all.
        """
        socket = self.socket
        if socket is not None:
            with contextlib.suppress(anyio.WouldBlock):
                self._sort(socket.receive_nowait())
                return
        self.close()
        raise anyio.WouldBlock

    def receive_nowait(
        self, channel: ChannelName, most: float = math.inf, size: float = math.inf
    ) -> list[Message]:
        if channel != "iopub":
            return super().receive_nowait(channel, most, size)
        words = self._words
        if not words.waiting:
            messages = super().receive_nowait(channel, most, size)
            if self._vigil.due and is_heard(messages, self.session):
                self._vigil.answered("shell")
            if not words.may_be_among(messages):
                return messages
            words.waiting.extend(messages)
        # What stands before a word of the server's is delivered before that is heeded.
        messages = words.take_up_to_word()
        if any(map(is_farewell, messages)):
            self._vigil.leaves()
        if not messages:
            self._heed(words.waiting.popleft())
        return messages

    def has_arrived(self, channel: ChannelName) -> bool:
        return self._arrivals.has(channel) or (channel == "iopub" and bool(self._words.waiting))

    async def wait_readable(self, channel: ChannelName) -> None:
        if self._abandoned or self.has_arrived(channel):
            await checkpoint()
        else:
            await self._arrivals.wait(channel)

    def _heed(self, message: Message) -> None:
        """Does what the server says with `message`."""
        if (word := self._words.word(message)) is Word.RESTARTS:
            said = "the kernel died, and the server starts it again"
            self._way_back.want_anew()
            self._lose(said)
            self._say(ConnectionEvent.RESTARTED, said)
        elif word is Word.DEAD:
            self._end("the server says that it is dead, and restarts it no more")
        else:
            self.rate_limited += 1
            if self.rate_limited == 1:
                logger().warning(
                    "the server drops output of the kernel (%s); further times are only counted",
                    message.content["text"].splitlines()[0],
                )

    # Sending.

    def give(self, channel: ChannelName, frames: Sequence[Frame]) -> None:
        socket = self._socket
        if socket is None or socket.cut_off or socket.unsent > UNSENT:
            raise anyio.WouldBlock
        data, text = pack(channel, frames, socket.subprotocol)
        if len(data) > self._max_sent_size:
            raise LocalProtocolError(
                f"{len(data)} bytes are more than a server takes in one message, which is {self._max_sent_size:.0f}; for one "
                "that is configured to take more, say so with max_sent_size"
            )
        socket.send_nowait(data, text=text)
        self._vigil.sent(channel, len(data))
        self._write_on()

    def _write_on(self) -> None:
        """Sees to what the system has not taken of what was said just now."""
        if (socket := self._socket) is None:
            return
        if socket.cut_off:
            # It is read to its end, whatever waits here.
            self._arrivals.ring_all()
        elif socket.unsent and not self._writing and self._start:
            self._writing = True
            self._start(self._run, self._write)

    async def _write(self) -> None:
        try:
            while (socket := self.socket) is not None and socket.unsent:
                # It may be closed meanwhile, and another one in its place.
                await socket.wait_writable()
                socket.flush_nowait()
                self._news.ring()
            self._write_on()
        finally:
            self._writing = False
            self._news.ring()

    async def wait_writable(self, channel: ChannelName) -> None:
        await self._news.wait()

    # The connection.

    async def connect(self) -> None:
        """Opens the first websocket.

        Raises:
            ServerError: The server refuses it, or the kernel is gone.
            OSError: It cannot be reached.
        """
        self._take_over(await open_first(self._reach, self._way_back.session))

    def _take_over(self, socket: WebSocket) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = socket
        self._words.connected(self._way_back.session)
        self._spoke = False
        self._vigil.connected()

    def begin(self) -> None:
        if self._abandoned and self._socket is not None:
            self._leaving, self._socket = self._socket, None
        # No task of the block before is left.
        self._abandoned, self._writing, self._tell, self._start = False, False, None, None

    def follow(self, tell: Tell, start: Start) -> None:
        self._tell, self._start = tell, start
        for task in (self._pump, self._vigil.ping, self._vigil.look_after):
            start(self._run, task)

    async def _run(self, task: Callable[[], Awaitable[None]]) -> None:
        """Runs `task` until the connection is abandoned."""
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                if not self._abandoned:
                    await task()
            finally:
                self._scopes.discard(scope)

    def unconnected(self) -> Mapping[str, str]:
        if self._socket is not None and not (self._socket.ended or self._gone):
            return {}
        return dict.fromkeys(self.channels, f"{self._reach.endpoint} ({self._gone or self._seen})")

    def doubtful(self, lost: Collection[ChannelName]) -> Collection[ChannelName]:
        return self._doubtful

    def reconnect(self, channels: Sequence[ChannelName]) -> None:
        self._way_back.want_anew()
        self._lose("connected anew")

    def _lose(
        self, how: str, doubtful: Sequence[ChannelName] = ASKED, *, hard: bool = False
    ) -> None:
        """The websocket is lost, or given up; on those that are `doubtful` something may be lost with it."""
        socket, self._socket = self._socket, None
        if socket is None:
            return
        socket.close(hard=hard)
        self._seen = how
        # One may follow the other before anything has come.
        before = () if self._spoke else self._doubtful
        self._doubtful = [name for name in self.channels if name in (*before, *doubtful)]
        self._say(ConnectionEvent.DISCONNECTED, how)

    def _end(self, said: str, event: ConnectionEvent = ConnectionEvent.EXITED) -> None:
        if not self._gone:
            self._gone, self._how_gone = said, event
            self._say(event, said)

    def _say(self, event: ConnectionEvent, said: str) -> None:
        if self._tell is not None and not self._abandoned:
            self._tell(event, self.channels, said)
        self._news.ring()

    def forget(self, channel: ChannelName) -> None:
        self._arrivals.forget(channel)
        if channel == "iopub":
            self._words.waiting.clear()
        # All come over one connection.
        self.close()

    def abandon(self) -> None:
        self._abandoned = True
        for scope in tuple(self._scopes):
            scope.cancel()
        self._arrivals.ring_all()
        self._news.ring()
        if self._socket is not None:
            if self._socket.ended:
                self._socket.close()
            else:
                # What the system has of it is there for who reads the last words.
                self._socket.say_goodbye()

    def close(self) -> None:
        """Lets go of the connection then and there, without a word."""
        for socket in (self._leaving, self._socket):
            if socket is not None:
                socket.close()

    async def aclose(self) -> None:
        self.abandon()
        await self._take_leave()
        if self._socket is not None:
            await self._socket.aclose()

    async def _take_leave(self) -> None:
        """Of the websocket of the block before: what was sent there goes out, before a server sees two of one session."""
        if self._leaving is not None:
            with shielded():
                await self._leaving.aclose()
            self._leaving = None

    # What the vigil finds out.

    @property
    def socket(self) -> WebSocket | None:
        """The websocket, where there is one that has not ended."""
        return None if self._socket is None or self._socket.ended else self._socket

    @property
    def jammed(self) -> bool:
        # Of a connection that is cut off there is no more to come than the system has of it, and the end behind that.
        return self._arrivals.full and not (self._socket is not None and self._socket.cut_off)

    def ping(self) -> int:
        """Pings the other end of the socket; the number of that ping."""
        number = 0
        if self._socket is not None:
            number = self._socket.ping()
            self._write_on()
        return number

    def silent(self) -> None:
        """Nothing came behind a ping."""
        self._lose("nothing came behind a ping", self.channels, hard=True)

    def deaf(self, *, anew: bool) -> None:
        """The server has lost the way to the kernel."""
        if anew:
            self._way_back.want_anew()
        self._lose("an answer of the kernel is due, and does not come", self.channels)

    def mute(self) -> None:
        """The kernel says nothing, however it is reached."""
        self._end(
            "its server calls it idle, and it answers nothing, anew as well", ConnectionEvent.GONE
        )

    def gone(self, said: str) -> None:
        """The kernel is gone."""
        self._end(said)

    # The pump.

    async def _pump(self) -> None:
        """Reads one websocket after the other."""
        if self._gone:
            # It was told in a block before this one.
            self._say(self._how_gone, self._gone)
        await self._take_leave()
        while not self._gone:
            if self._socket is None:
                await self._come_back()
            else:
                await self._read(self._socket)

    async def _read(self, socket: WebSocket) -> None:
        """Reads `socket` to its end."""
        self._sort(socket.take_messages())
        self._look_for_end(socket)
        while self._socket is socket and not self._gone:
            if self.jammed:
                self._say(ConnectionEvent.JAMMED, "too much waits to be taken")
                await self._arrivals.wait_room()
            else:
                await socket.wait_readable()
                self._read_some(socket)

    def _look_for_end(self, socket: WebSocket) -> None:
        if socket.ended:
            in_order = ASKED if socket.closed_in_order else (*ASKED, "iopub")
            self._lose(socket.ended, in_order)

    def _read_some(self, socket: WebSocket) -> None:
        if self._socket is not socket:
            return
        before, pong = socket.received, socket.pong
        try:
            messages = socket.receive_nowait()
        except anyio.WouldBlock:
            return
        if messages:
            self._spoke = True
            self._way_back.spoke()
        self._vigil.heard(socket.received - before, messages=bool(messages))
        if socket.pong > pong:
            self._vigil.ponged()
        self._sort(messages)
        self._write_on()
        self._look_for_end(socket)

    def _sort(self, messages: Iterable[tuple[bytes | bytearray, bool]]) -> None:
        rung: set[ChannelName] = set()
        put = self._arrivals.put
        for data, text in messages:
            try:
                channel, frames = unpack(data, text=text)
            except MalformedMessage as error:
                self.refuse(self.channels[-1], [], error)
                continue
            put(channel, frames, len(data))
            rung.add(channel)
        for channel in rung:
            if channel != "iopub":
                self._vigil.answered(channel)
        self._arrivals.ring(rung)

    async def _come_back(self) -> None:
        """Connects again, whatever it takes."""
        try:
            socket, alone = await self._way_back.connect(self._saw, lambda: self._vigil.leaving)
        except NoWayBack as error:
            self._end(str(error), ConnectionEvent.EXITED if error.exited else ConnectionEvent.GONE)
            return
        if not alone:
            self._doubtful = self.channels
        self._take_over(socket)
        self._say(ConnectionEvent.CONNECTED, "connected again")

    def _saw(self, seen: str) -> None:
        self._seen = seen
