"""The connection of one channel over ZeroMQ: what the socket's monitor says of it.

The facts it stands on:

* ``connect()`` says nothing of the peer. The monitor does: a channel is connected from ``HANDSHAKE_SUCCEEDED`` to
  ``DISCONNECTED``, which comes milliseconds after a kernel's death. From then on ZeroMQ tries to reconnect by itself.
  A peer that speaks ZMTP 2.0 never shakes hands for the monitor: what arrives from it says that it is connected. What had
  arrived before it accepted says nothing.
* A connection is recognised by what the system calls it: where that is still there, it is connected and was all the time.
  So it need not be watched for as long as nothing is expected of it.
* What is no ZMTP, or larger than a caller's context allows, ends a connection for good: ZeroMQ does not connect
  again by itself, and says so by saying nothing.
* Where nobody listens, the system may give our own end the very port that it connects to: the connection
  then is one with itself (TCP's simultaneous open), holds a port that the kernel wants, and is ended.
* ZeroMQ tries one address at a time, and resolves names on its I/O thread: it is given addresses, one after another.
  Where somebody listens who shakes no hands, it tries again or gives up, and the next address comes in either case.
  What the monitor still says of one that was left concerns nobody.
* What a connection has not carried when it ends waits in ZeroMQ for the next one, which may be another kernel's. So it is
  dropped, behind what has arrived, by connecting anew.
* A ROUTER that hands no identity over ignores a second connection of the same one for good, and shakes hands with it all
  the same. Were ZeroMQ to reconnect while we do, there would be two. So it is told to wait for seconds where something
  is sent, and each attempt is ours: none is under way when the next begins.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Sequence

import anyio
import zmq
from anyio.lowlevel import checkpoint

from .._trio import uncut
from .addresses import connection_id, is_its_own_peer
from .base import ConnectionEvent
from .zmq_carrier import Carrier
from .zmq_monitor import ENDED, SEEN, Monitor
from .zmq_outgoing import Outgoing

__all__ = ["LEFT_TO_US", "RETRY_INTERVAL", "Link"]

RETRY_INTERVAL = 20
"""Milliseconds between attempts to connect. ZeroMQ's own 100 to 200 would be most of the time that it
takes to join a kernel which has just been started."""

SHARE, LAST_RETRY = 20, 0.5
"""What part of the time that a connection has been away passes between two attempts, and the seconds that do at the most:
one in 20 ms on three channels is a twentieth of a processor, for each kernel that is away."""

LEFT_TO_US = 3000
"""Milliseconds that ZeroMQ itself waits before it reconnects a channel that sends: longer than an event loop should be
held. Where it is held for longer, what had not gone out goes to whoever is there then."""

GIVEN_UP = 0.25
"""Seconds after which a connection that ended, and of which the monitor has said nothing more, is one that
ZeroMQ has given up. Where it has not, it says within a millisecond that it tries again."""

UNDOUBTED = 0.1
"""Seconds of silence after which a channel that went unseen, and is watched anew, is one that is connected again: where
it is not, ZeroMQ tries again and again. And seconds for the kernel to be rid of a connection that went unseen, and may
have been made again since."""

ATTEMPT = 1.0
"""Seconds for one of several addresses to answer before the next one is tried."""

_MAPPED = re.compile(r"\[::ffff:([\d.]+)\]")

TellLink = Callable[["Link", ConnectionEvent], None]


class Link(Carrier):
    """One channel's socket and its monitor.

    Args:
        context: The socket's.
        socket: It, connected by :meth:`connect` or by its owner.
        endpoints: Where it connects to: the first, or another one where that does not answer.
        monitored: Whether there is a connection to watch.
        owned: Whether it was made, and is closed, here.
        give_back: Called when the event loop watches it no more.
        shared: Whether the event loop watches it for somebody else.

    Attributes:
        seen: What was last seen of the connection.
    """

    connected: bool
    accepted: bool

    __slots__ = (
        "_at",
        "_away_since",
        "_connection",
        "_context",
        "_descriptor",
        "_ended",
        "_endpoints",
        "_followed",
        "_in_doubt",
        "_monitor",
        "_refused",
        "_retried",
        "_sends",
        "_tell",
        "_to_itself",
        "_unsent",
        "monitored",
        "seen",
        "shakes_no_hands",
    )

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        socket: zmq.Socket[bytes],
        endpoints: Sequence[str],
        *,
        monitored: bool = True,
        owned: bool = True,
        outgoing: Outgoing | None = None,
        give_back: Callable[[], object] | None = None,
        shared: bool = False,
    ) -> None:
        super().__init__(socket, owned=owned, outgoing=outgoing, give_back=give_back, shared=shared)
        self.monitored: bool = monitored
        self.connected: bool = not (monitored and owned)
        self.seen: str = "nothing answered"
        self._context = context
        self._endpoints = tuple(endpoints)
        self._at = 0
        self._sends = owned and socket.get(zmq.TYPE) == zmq.DEALER
        self._monitor: Monitor | None = None
        self._tell: TellLink | None = None
        self.shakes_no_hands: bool = False
        """Whether its peer speaks ZMTP 2.0, of which the monitor says only that it has accepted."""
        self._descriptor = -1
        self._connection: object = None
        self._in_doubt = False
        self._ended = False
        self._unsent = False
        self._retried = False
        # Whether who accepted last has shaken no hands.
        self._refused = False
        self._away_since = math.inf
        self._to_itself = False
        self._followed = False

    @property
    def endpoint(self) -> str:
        """Where it connects to now."""
        return self._endpoints[self._at]

    def connect(self) -> None:
        """Begins to connect, watched from the start.

        Raises:
            zmq.ZMQError: ZeroMQ refuses the endpoint.
            OSError: There is no descriptor left to watch it.
        """
        if self.monitored:
            self._monitor = Monitor(self._context, self.socket)
        self.socket.connect(self.endpoint)

    # The connection.

    def begin(self) -> None:
        """It is used, perhaps once more."""
        self._abandoned = self._followed = False
        if not self.owned:
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
                if self.take_events() or self._is_unsure():
                    await self._drop_unsent()
                    continue
                if await monitor.wait(self._patience()) or self._monitor is not monitor:
                    continue
                if not self.take_events():
                    self._nothing_said()
        finally:
            self._followed = False

    def _is_unsure(self) -> bool:
        """Whether its loss went unseen, and it may be connected again: it is told apart by connecting anew."""
        return self._in_doubt and self._holds_unsent()

    async def _drop_unsent(self) -> None:
        # ZeroMQ may have connected again by itself, where the loss was seconds ago.
        pause = UNDOUBTED if self._in_doubt else RETRY_INTERVAL / 1000
        while self._holds_unsent() and self.has_arrived():
            await checkpoint()
        self.take_events()
        if self.accepted or not self._holds_unsent():
            return  # it has gone out meanwhile
        self._disconnect()
        # As ZeroMQ waits itself. A kernel whose ROUTER hands no identity over must be rid of the old connection.
        await anyio.sleep(pause)
        if self._holds_unsent():
            self._connect()

    def _holds_unsent(self) -> bool:
        return self._unsent and not self._abandoned

    @uncut
    def watch(self) -> bool:
        """Has it watched, where it is not; whether it is to be followed for that. Tells what went unseen."""
        if not self.monitored or self._monitor is not None or self._abandoned:
            return False
        # Before the look: what ends behind it is seen.
        self._monitor = Monitor(self._context, self.socket)
        if not self._is_still_there():
            self._note(zmq.EVENT_DISCONNECTED)
            # It may be back, of which this monitor says nothing.
            self._in_doubt = True
        if self._sends and not self._takes_messages():
            # ZeroMQ has given up, and nobody has seen it.
            self.reconnect()
        # Who followed it before may not have noticed yet that he was not to.
        followed, self._followed = self._followed, True
        return not followed

    def _is_still_there(self) -> bool:
        return self._connection is not None and connection_id(self._descriptor) == self._connection

    def _patience(self) -> float:
        """How long the monitor's silence means nothing."""
        if self._in_doubt:
            return UNDOUBTED
        if self.connected:
            return math.inf
        if self._ended and self.owned:
            return GIVEN_UP
        if self._retried and self.owned and (self._sends or len(self._endpoints) > 1):
            away = anyio.current_time() - self._away_since
            return max(RETRY_INTERVAL / 1000, min(away / SHARE, LAST_RETRY))
        return ATTEMPT if len(self._endpoints) > 1 else math.inf

    def _nothing_said(self) -> None:
        if self._in_doubt:
            self._note(zmq.EVENT_HANDSHAKE_SUCCEEDED)
        elif self._ended and self._tell is not None:
            self._tell(self, ConnectionEvent.GIVEN_UP)
        elif self._retried or len(self._endpoints) > 1:
            self._try_next()

    def take_events(self) -> bool:
        """Takes over all that the monitor has said, if anything."""
        said = with_itself = False
        for event, value, address in self._monitor.take() if self._monitor is not None else ():
            said = True
            if self._is_left(address):
                continue
            if event == zmq.EVENT_CONNECTED:
                self._descriptor, self._connection = value, connection_id(value)
                self._to_itself = self.owned and is_its_own_peer(value)
            with_itself = event == zmq.EVENT_HANDSHAKE_SUCCEEDED and self._to_itself
            if not with_itself:
                self._note(event)
        if with_itself:
            self.reconnect()
            self.seen = SEEN[zmq.EVENT_CONNECT_RETRIED]
        return said

    def _is_left(self, address: str) -> bool:
        # It calls an IPv4 address by that name or by the one that it has among those of IPv6.
        named = _MAPPED.sub(r"\1", address)
        return named != self.endpoint and named in self._endpoints

    def _note(self, event: int) -> None:
        was_connected = self.connected
        self._ended = event in ENDED
        self._in_doubt = False
        self._retried = event == zmq.EVENT_CONNECT_RETRIED
        self.accepted = event == zmq.EVENT_CONNECTED
        # Until the reader meets an empty socket.
        self.stale: bool = self.accepted and self._away_since < math.inf and self.has_arrived()
        if event in (zmq.EVENT_CONNECTED, zmq.EVENT_HANDSHAKE_SUCCEEDED):
            self._refused = self.accepted
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
        if was_connected and event != zmq.EVENT_CONNECTED:
            self.connected, self._unsent = False, self._sends
            self._away_since = anyio.current_time()
            if self._tell is not None:
                self._tell(self, ConnectionEvent.DISCONNECTED)

    def assume_connected(self) -> None:
        """A message has arrived: where no hands were shaken before it, none will be (ZMTP 2.0), and it is connected."""
        # Of what is said only now the message need not be the consequence.
        if not self.stale and not self.take_events():
            self._assume()

    def assume_connected_like(self, other: Link) -> None:
        """The same, for another channel of such a peer: it has accepted, and will say no more."""
        if other.shakes_no_hands:
            self.take_events()
            if self.accepted and not self.connected:
                self._assume()

    def _assume(self) -> None:
        self.shakes_no_hands = True
        self._note(zmq.EVENT_HANDSHAKE_SUCCEEDED)

    def reconnect(self) -> None:
        """Connects anew, whatever is connected now, and drops what has not gone out."""
        if self.owned and not self._abandoned:
            self._disconnect()
            if self._refused:
                self._turn_to_next()
            self._connect()

    def _disconnect(self) -> None:
        self.take_out()
        # Lingering, what was sent would wait for whoever comes.
        linger = self.socket.get(zmq.LINGER)
        self.socket.set(zmq.LINGER, 0)
        # Where ZeroMQ has given up, there is nothing to disconnect from.
        with contextlib.suppress(zmq.ZMQError):
            self.socket.disconnect(self.endpoint)
        self.socket.set(zmq.LINGER, linger)
        self._note(zmq.EVENT_DISCONNECTED)

    def _connect(self) -> None:
        self._ended = self._unsent = self._retried = False
        self.socket.connect(self.endpoint)
        self.recheck()

    def _try_next(self) -> None:
        self.take_out()
        with contextlib.suppress(zmq.ZMQError):
            self.socket.disconnect(self.endpoint)
        self._turn_to_next()
        self._retried = False
        self.socket.connect(self.endpoint)
        self.recheck()

    def _turn_to_next(self) -> None:
        self._at = (self._at + 1) % len(self._endpoints)
        self._refused = False

    def rest(self) -> None:
        """Nothing is expected of it: it need not be watched, where its connection can be recognised."""
        if self._connection is not None:
            self.unwatch()

    def unwatch(self) -> None:
        """Ends the monitor, and whoever follows it."""
        monitor, self._monitor = self._monitor, None
        if monitor is not None:
            monitor.close()

    def abandon(self) -> None:
        self.unwatch()
        super().abandon()
