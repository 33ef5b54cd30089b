"""One channel over ZeroMQ: its socket, and what the socket's monitor says of the connection.

The facts it stands on:

* ``connect()`` says nothing of the peer. The monitor does: a channel is connected from ``HANDSHAKE_SUCCEEDED`` to
  ``DISCONNECTED``, which comes milliseconds after a kernel's death. From then on ZeroMQ tries to reconnect by itself.
  A peer that speaks ZMTP 2.0 never shakes hands for the monitor: what arrives from it says that it is connected.
* What is no ZMTP, or larger than a caller's context allows, ends a connection for good: ZeroMQ does not connect
  again by itself, and says so by saying nothing.
* Where nobody listens, the system may give our own end the very port that it connects to: the connection
  then is one with itself (TCP's simultaneous open), holds a port that the kernel wants, and is ended.
* ZeroMQ tries one address at a time, and resolves names on its I/O thread: it is given addresses, one after another.
  What the monitor still says of one that was left concerns nobody.
* What a connection has not carried when it ends waits in ZeroMQ for the next one, which may be another kernel's. So it is
  dropped, behind what has arrived, by connecting anew.
* Any call on a socket may consume the edge that its reader waits for. So whoever calls one while the reader may be
  waiting has it look again.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Sequence
from functools import partial

import anyio
import zmq
from anyio.lowlevel import checkpoint

from .._bell import Bell
from .._exceptions import KernelDied
from .._protocol.wire import Frame
from .addresses import is_its_own_peer
from .base import ConnectionEvent
from .readiness import Readiness, stay_ready
from .zmq_frames import read_by_shape, read_exactly, send_frame
from .zmq_monitor import ENDED, SEEN, Monitor, descriptor, is_readable

__all__ = ["BATCH", "RETRY_INTERVAL", "Link"]

BATCH = 64
"""How many messages are taken from a socket before others run: large enough that the scheduler costs
little per message, small enough that a flood on one channel delays the others by a millisecond."""

RETRY_INTERVAL = 20
"""Milliseconds between attempts to connect. ZeroMQ's own 100 to 200 would be most of the time that it
takes to join a kernel which has just been started."""

GIVEN_UP = 0.25
"""Seconds after which a connection that ended, and of which the monitor has said nothing more, is one that
ZeroMQ has given up. Where it has not, it says within a millisecond that it tries again."""

UNDOUBTED = 0.1
"""Seconds of silence after which a channel that is watched anew is one that was connected all the time: where it
was not, ZeroMQ tries again and again."""

ATTEMPT = 1.0
"""Seconds for one of several addresses to answer before the next one is tried."""

# Plain integers: arithmetic with zmq's flags takes 1 to 2 µs.
_NOBLOCK = int(zmq.NOBLOCK)
_SNDMORE = int(zmq.SNDMORE)
_POLLOUT = int(zmq.POLLOUT)
_EVENTS = int(zmq.EVENTS)

_MAPPED = re.compile(r"\[::ffff:([\d.]+)\]")

TellLink = Callable[["Link", ConnectionEvent], None]


class Link:
    """One channel's socket and its monitor.

    Args:
        context: The socket's.
        socket: It, connected by :meth:`connect` or by its owner.
        endpoints: Where it connects to: the first, or another one where that does not answer.
        monitored: Whether there is a connection to watch.
        owned: Whether it is closed here.
        give_back: Called when the event loop watches it no more.

    Attributes:
        connected: Whether it is.
        seen: What was last seen of it.
        by_shape: Whether the batch at hand was read by shape.
        trusted: Whether the next one may be.
    """

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        socket: zmq.Socket[bytes],
        endpoints: Sequence[str],
        *,
        monitored: bool = True,
        owned: bool = True,
        lend: bool = False,
        give_back: Callable[[], object] | None = None,
    ) -> None:
        self.socket: zmq.Socket[bytes] = socket
        self._readable = partial(is_readable, socket)
        self.monitored: bool = monitored
        self.connected: bool = not (monitored and owned)
        self.seen: str = "nothing answered"
        self.trusted: bool = False
        self.by_shape: bool = False
        self._context = context
        self._endpoints = tuple(endpoints)
        self._at = 0
        self._owned = owned
        self._sends = owned and socket.get(zmq.TYPE) == zmq.DEALER
        self._lend = lend
        self._give_back = give_back
        self._monitor: Monitor | None = None
        self._tell: TellLink | None = None
        self.shakes_no_hands: bool = False
        """Whether its peer speaks ZMTP 2.0, of which the monitor says only that it has accepted."""
        self.accepted: bool = False
        """Whether the peer is there, and has not been seen to shake hands."""
        self._in_doubt = False
        self._ended = False
        self._unsent = False
        self._to_itself = False
        self._closed = False
        self._abandoned = False
        self._followed = False
        # Made by the task that waits first: a transport may be made before any event loop runs.
        self._readiness: Readiness | None = None
        self._limit = BATCH
        self._writable = Bell()

    @property
    def endpoint(self) -> str:
        """Where it connects to now."""
        return self._endpoints[self._at]

    def connect(self) -> None:
        """Begins to connect, watched from the start.

        Raises:
            zmq.ZMQError: ZeroMQ refuses the endpoint.
        """
        if self.monitored:
            self._monitor = Monitor(self._context, self.socket)
        self.socket.connect(self.endpoint)

    # Receiving and sending.

    def receive(self) -> list[list[Frame]]:
        """The frames of what has arrived, a batch at most; empty where nothing has.

        The first message behind a wait comes alone: most often there is no other, and whoever waits for
        it need not wait until that is known (a vain read takes 8 µs).
        """
        if self._closed:
            return []
        self.by_shape = self.trusted
        read = read_by_shape if self.by_shape else read_exactly
        batch: list[list[Frame]] = []
        limit, self._limit = self._limit, BATCH
        try:
            while len(batch) < limit:
                batch.append(read(self.socket))
        except zmq.Again:
            pass
        if self._abandoned and not batch:
            self.forget()
        elif self._readiness is not None and self._readiness.waiting:
            self._readiness.recheck()
        return batch

    def has_arrived(self) -> bool:
        """Whether something can be received now."""
        if self._closed:
            return False
        arrived = self._readable()
        self.recheck()
        return arrived

    async def wait_readable(self) -> None:
        """Waits until something may have arrived, or nothing more will."""
        if self._abandoned:
            await checkpoint()
            return
        readiness = self._readiness
        if readiness is None:
            readiness = stay_ready(descriptor(self.socket), self._readable, self._give_back)
            self._readiness = readiness
        # A call since the last look may have eaten the edge.
        if self._readable():
            await checkpoint()
            return
        readiness.waiting = True
        try:
            await readiness.wait()
        finally:
            readiness.waiting = False
        self._limit = 1
        self._writable.ring()

    def send(self, frames: Sequence[Frame]) -> None:
        """Sends all of `frames` as one message, or none of them.

        Raises:
            anyio.WouldBlock: It cannot be sent now.
            KernelDied: The socket cannot be used any more.
        """
        if self._abandoned or not (self.connected or self.accepted):
            raise anyio.WouldBlock
        try:
            try:
                # Again can only come of the first frame; once it is taken, so are the others.
                for frame in frames[:-1]:
                    send_frame(self.socket, frame, _NOBLOCK | _SNDMORE, lend=self._lend)
                send_frame(self.socket, frames[-1], _NOBLOCK, lend=self._lend)
            finally:
                self.recheck()
        except zmq.Again:
            raise anyio.WouldBlock from None
        except zmq.ZMQError as error:
            raise KernelDied(f"{self.endpoint} can no longer be sent to: {error}") from error

    def recheck(self) -> None:
        """Wakes the reader where the call just made has eaten the edge that it waits for."""
        if self._readiness is not None:
            self._readiness.recheck()

    def _takes_messages(self) -> bool:
        # A queue without a bound takes them for as long as ZeroMQ is connected or tries to be.
        takes = bool(int(self.socket.get(_EVENTS)) & _POLLOUT)
        self.recheck()
        return takes

    async def wait_writable(self) -> None:
        """Waits until something may be sent; may return too early."""
        # The reader owns the descriptor and wakes us. It may itself be waiting for a slow listener, so
        # look again now and then; this happens only while there is no connection.
        with anyio.move_on_after(0.05):
            await self._writable.wait()

    # The connection.

    def begin(self) -> None:
        """It is used, perhaps once more."""
        self._abandoned = self._followed = False
        if not self._owned:
            # What it went through meanwhile nobody has seen; where it is away, its next monitor says so.
            self.connected, self._in_doubt, self._ended, self.accepted = True, False, False, False

    async def follow(self, tell: TellLink) -> None:
        """Tells what the monitor says, until :meth:`unwatch` or :meth:`abandon`. Cancellation loses no event."""
        self._tell = tell
        self._followed = True
        if self.monitored and self._monitor is None and not self._abandoned:
            self._monitor = Monitor(self._context, self.socket)
        try:
            while (monitor := self._monitor) is not None:
                if self.take_events():
                    await self._drop_unsent()
                    continue
                if await monitor.wait(self._patience()) or self._monitor is not monitor:
                    continue
                if not self.take_events():
                    self._nothing_said()
        finally:
            self._followed = False

    async def _drop_unsent(self) -> None:
        while self._holds_unsent() and self.has_arrived():
            await checkpoint()
        self.take_events()
        if self.accepted or not self._holds_unsent():
            return  # it has gone out meanwhile
        self._disconnect()
        # As ZeroMQ waits itself. A kernel whose ROUTER hands no identity over must be rid of the old connection.
        await anyio.sleep(RETRY_INTERVAL / 1000)
        if self._holds_unsent():
            self._connect()

    def _holds_unsent(self) -> bool:
        return self._unsent and not self._abandoned

    def watch(self, *, doubted: bool) -> bool:
        """Has it watched, where it is not; whether it is to be followed for that.

        Args:
            doubted: Whether it counts as connected only when its monitor says so, or says nothing.
        """
        if not self.monitored or self._monitor is not None or self._abandoned:
            return False
        if doubted:
            self._in_doubt = True
            self.connected = False
        self._monitor = Monitor(self._context, self.socket)
        if self._sends and not self._takes_messages():
            # ZeroMQ has given up, and nobody has seen it.
            self.reconnect()
        # Who followed it before may not have noticed yet that he was not to.
        followed, self._followed = self._followed, True
        return not followed

    def _patience(self) -> float:
        """How long the monitor's silence means nothing."""
        if self._in_doubt:
            return UNDOUBTED
        if self.connected:
            return math.inf
        if self._ended and self._owned:
            return GIVEN_UP
        return ATTEMPT if len(self._endpoints) > 1 else math.inf

    def _nothing_said(self) -> None:
        if self._in_doubt:
            self._note(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        elif self._ended and self._tell is not None:
            self._tell(self, ConnectionEvent.GIVEN_UP)
        elif len(self._endpoints) > 1:
            self._try_next()

    def take_events(self) -> bool:
        """Takes over all that the monitor has said, if anything."""
        said = with_itself = refused = False
        for event, value, address in self._monitor.take() if self._monitor is not None else ():
            said = True
            if self._is_left(address):
                continue
            if event == zmq.EVENT_CONNECTED:
                self._to_itself = self._owned and is_its_own_peer(value)
            with_itself = event == zmq.EVENT_HANDSHAKE_SUCCEEDED and self._to_itself
            refused = event == zmq.EVENT_CONNECT_RETRIED
            if not with_itself:
                self._note(event)
        if with_itself:
            self.reconnect()
            self.seen = SEEN[zmq.EVENT_CONNECT_RETRIED]
        elif refused and len(self._endpoints) > 1:
            self._try_next()
        return said

    def _is_left(self, address: str) -> bool:
        # It calls an IPv4 address by that name or by the one that it has among those of IPv6.
        named = _MAPPED.sub(r"\1", address)
        return named != self.endpoint and named in self._endpoints

    def _note(self, event: int) -> None:
        was_connected, doubted = self.connected, self._in_doubt
        self._ended = event in ENDED
        self._in_doubt = False
        self.accepted = event == zmq.EVENT_CONNECTED
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.connected, self._unsent = True, False
            self._writable.ring()
            if not was_connected and self._tell is not None:
                self._tell(self, ConnectionEvent.CONNECTED)
            return
        # The end of what never was a connection says less than what was seen of it before.
        if was_connected or event != zmq.EVENT_DISCONNECTED:
            self.seen = SEEN[zmq.Event(event)]
        # A caller's socket counts as connected, and its monitor may say so only later.
        if doubted or (was_connected and event != zmq.EVENT_CONNECTED):
            self.connected, self._unsent = False, self._sends
            if self._tell is not None:
                self._tell(self, ConnectionEvent.DISCONNECTED)

    def assume_connected(self) -> None:
        """A message has arrived: where no hands were shaken before it, none will be (ZMTP 2.0), and it is connected."""
        self.take_events()
        if self.accepted:
            self.shakes_no_hands = True
            self._note(zmq.EVENT_HANDSHAKE_SUCCEEDED)

    def assume_connected_like(self, other: Link) -> None:
        """The same, for another channel of such a peer: it has accepted, and will say no more."""
        if other.shakes_no_hands and self.accepted and not self.connected:
            self.assume_connected()

    def reconnect(self) -> None:
        """Connects anew, whatever is connected now, and drops what has not gone out."""
        if self._owned and not self._abandoned:
            self._disconnect()
            self._connect()

    def _disconnect(self) -> None:
        # Lingering, what was sent would wait for whoever comes.
        linger = self.socket.get(zmq.LINGER)
        self.socket.set(zmq.LINGER, 0)
        # Where ZeroMQ has given up, there is nothing to disconnect from.
        with contextlib.suppress(zmq.ZMQError):
            self.socket.disconnect(self.endpoint)
        self.socket.set(zmq.LINGER, linger)
        self._note(zmq.EVENT_DISCONNECTED)

    def _connect(self) -> None:
        self._ended = self._unsent = False
        self.socket.connect(self.endpoint)
        self.recheck()

    def _try_next(self) -> None:
        with contextlib.suppress(zmq.ZMQError):
            self.socket.disconnect(self.endpoint)
        self._at = (self._at + 1) % len(self._endpoints)
        self.socket.connect(self.endpoint)
        self.recheck()

    def unwatch(self) -> None:
        """Ends the monitor, and whoever follows it."""
        monitor, self._monitor = self._monitor, None
        if monitor is not None:
            monitor.close()

    # Its end.

    def abandon(self) -> None:
        """Lets go of the connection; what has arrived can be received, and then the socket is closed."""
        self._abandoned = True
        self.unwatch()
        self._writable.ring()
        if self._readiness is not None:
            readiness, self._readiness = self._readiness, None
            readiness.wake()
            readiness.close()

    def forget(self) -> None:
        """The last word is read, and nobody is there who could read ours."""
        if self._owned:
            self._closed = True
            self.socket.close(linger=0)

    def close(self) -> None:
        """Closes what was opened here; again, or behind a caller who closed his own, it does no harm."""
        self.abandon()
        if self._owned:
            self._closed = True
            # Where nobody is connected nothing can go out, and the program's end would wait for it.
            self.socket.close(linger=None if self.connected else 0)
