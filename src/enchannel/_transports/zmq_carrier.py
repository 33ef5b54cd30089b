"""One ZeroMQ socket that frames are received and sent over.

The facts it stands on:

* Any call on a socket may consume the edge that its reader waits for. So whoever calls one while the reader may be
  waiting has it look again.
* ZeroMQ takes what is sent while nobody is connected, and gives it to whoever comes. So a send waits for a connection.
* With a connection that is taken back ZeroMQ drops what has arrived over it. Of a SUB socket that was asked whether
  anything has, it has the first frame of a message in its hand then, and aborts the process where the others are gone
  (libzmq 4.3.5, an assertion in ``fq.cpp``). So all of it is taken out before.
"""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import anyio
import zmq
from anyio.lowlevel import checkpoint

from .._bell import Bell
from .._exceptions import KernelDied
from .._protocol.wire import Frame
from .._trio import uncut
from .readiness import Readiness, stay_ready
from .zmq_frames import Reader, send_frame
from .zmq_monitor import descriptor, is_readable
from .zmq_outgoing import Outgoing

__all__ = ["BATCH", "Carrier"]

BATCH = 64
"""How many messages are taken from a socket before others run: large enough that the scheduler costs
little per message, small enough that a flood on one channel delays the others by a millisecond."""

PAUSE, LONGEST_PAUSE = 0.001, 0.05
"""Seconds before it is looked again whether something may be sent: at first, and at the longest."""

TAKEN_OUT = 1_000
"""Messages that are kept of a connection that is taken back: 5 ms of work, and more than its readers leave."""

# Plain integers: arithmetic with zmq's flags takes 1 to 2 µs.
_NOBLOCK = int(zmq.NOBLOCK)
_SNDMORE = int(zmq.SNDMORE)
_POLLOUT = int(zmq.POLLOUT)
_EVENTS = int(zmq.EVENTS)


class Carrier:
    """One socket, and whoever waits for it.

    Args:
        socket: It.
        owned: Whether it was made, and is closed, here.
        outgoing: What may wait in it to go out; without it ZeroMQ must not read buffers of ours where they are.
        give_back: Called when the event loop watches it no more.
        shared: Whether the event loop watches it for somebody else.

    Attributes:
        connected: Whether it is.
        accepted: Whether the peer is there, and has not been seen to shake hands.
        stale: Whether what can be received may have come over the connection before.
        trusted: Whether the next batch may be read by shape.
    """

    # A class whose instances have thirty attributes keeps a table of their names for each: 1.6 kB.
    __slots__ = (
        "_abandoned",
        "_closed",
        "_give_back",
        "_kept",
        "_limit",
        "_outgoing",
        "_pause",
        "_readable",
        "_reader",
        "_readiness",
        "_shared",
        "_writable",
        "accepted",
        "connected",
        "owned",
        "socket",
        "stale",
        "trusted",
    )

    def __init__(
        self,
        socket: zmq.Socket[bytes],
        *,
        owned: bool,
        outgoing: Outgoing | None,
        give_back: Callable[[], object] | None,
        shared: bool,
    ) -> None:
        self.socket: zmq.Socket[bytes] = socket
        self.owned: bool = owned
        self.connected: bool = True
        self.accepted: bool = False
        self.stale: bool = False
        self.trusted: bool = False
        self._readable = partial(is_readable, socket)
        self._outgoing = outgoing
        self._pause = PAUSE
        self._give_back = give_back
        self._shared = shared
        self._closed = False
        self._abandoned = False
        # Made by the task that waits first: a transport may be made before any event loop runs.
        self._readiness: Readiness | None = None
        self._limit = BATCH
        # Taken out of the socket before its connection was taken back.
        self._kept: deque[list[Frame]] | None = None
        self._reader = Reader(socket)
        self._writable = Bell()

    @uncut
    def receive(self, most: float = math.inf, size: float = math.inf) -> list[list[Frame]]:
        """The frames of what has arrived, a batch at most; empty where nothing has.

        `most` is how many messages are wanted; behind the one with which they have `size` bytes none is taken.

        The first message behind a wait comes alone: most often there is no other, and whoever waits for
        it need not wait until that is known (a vain read takes 8 µs).
        """
        if self._closed or self._kept:
            return self._take_kept(most, size)
        read = self._reader.read_by_shape if self.trusted else self._reader.read_exactly
        batch: list[list[Frame]] = []
        limit, self._limit = min(self._limit, most), BATCH
        bounded = size < math.inf
        try:
            while len(batch) < limit:
                read(batch)
                if bounded:
                    size -= sum(map(len, batch[-1]))
                    if size <= 0:
                        break
        except zmq.Again:
            pass
        except zmq.ZMQError:
            # The next look meets it again; what was read is not its fault.
            if not batch:
                raise
        if self._abandoned and not batch:
            self.forget()
        elif self._readiness is not None and self._readiness.waiting:
            self._readiness.recheck()
        return batch

    def _take_kept(self, most: float, size: float) -> list[list[Frame]]:
        batch: list[list[Frame]] = []
        while self._kept and len(batch) < min(most, BATCH) and size > 0:
            batch.append(self._kept.popleft())
            size -= sum(map(len, batch[-1]))
        return batch

    @uncut
    def take_out(self) -> None:
        """Takes out what has arrived, up to :data:`TAKEN_OUT` messages, to be received later; before a connection is taken back."""
        kept = self._kept or deque()
        read = self._reader.read_by_shape if self.trusted else self._reader.read_exactly
        batch: list[list[Frame]] = []
        with contextlib.suppress(zmq.ZMQError):
            # Whole messages, and no look at the socket behind them.
            while len(batch) < TAKEN_OUT:
                read(batch)
        kept.extend(batch)
        if kept:
            self._kept = kept
            if self._readiness is not None:
                self._readiness.wake()

    def has_arrived(self) -> bool:
        """Whether something can be received now."""
        if self._kept:
            return True
        if self._closed:
            return False
        arrived = self._readable()
        self.recheck()
        return arrived

    async def wait_readable(self) -> None:
        """Waits until something may have arrived, or nothing more will."""
        if self._abandoned or self._kept:
            await checkpoint()
            return
        readiness = self._readiness
        if readiness is None:
            readiness = stay_ready(
                descriptor(self.socket), self._readable, self._give_back, shared=self._shared
            )
            self._readiness = readiness
        # A call since the last look may have eaten the edge.
        if self._readable():
            await checkpoint()
            return
        self.stale = False
        readiness.waiting = True
        try:
            await readiness.wait()
        finally:
            readiness.waiting = False
        self._limit = 1
        self._writable.ring()

    @uncut
    def send(self, frames: Sequence[Frame]) -> None:
        """Sends all of `frames` as one message, or none of them.

        Raises:
            anyio.WouldBlock: It cannot be sent now.
            KernelDied: The socket cannot be used any more.
        """
        outgoing = self._outgoing
        full = outgoing is not None and outgoing.full
        if full or self._abandoned or not (self.connected or self.accepted):
            raise anyio.WouldBlock
        size = sum(map(len, frames))
        tracked = outgoing.tracked(frames[-1], size) if outgoing is not None else None
        last = frames[-1] if tracked is None else tracked
        lend = outgoing is not None
        try:
            try:
                # Again can only come of the first frame; once it is taken, so are the others.
                for frame in frames[:-1]:
                    send_frame(self.socket, frame, _NOBLOCK | _SNDMORE, lend=lend)
                send_frame(self.socket, last, _NOBLOCK, lend=lend)
            finally:
                self.recheck()
        except zmq.Again:
            raise anyio.WouldBlock from None
        except zmq.ZMQError as error:
            raise KernelDied(f"the kernel can no longer be sent to: {error}") from error
        self._pause = PAUSE
        if outgoing is not None:
            outgoing.add(size, tracked.tracker if tracked is not None else None)

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
        # The reader owns the descriptor and wakes us where there was no connection. It may itself be waiting for a slow
        # listener, and nobody says that what was sent is out.
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        with anyio.move_on_after(pause):
            await self._writable.wait()

    def abandon(self) -> None:
        """Lets go of the connection; what has arrived can be received, and then the socket is closed."""
        self._abandoned = True
        self._writable.ring()
        if self._readiness is not None:
            readiness, self._readiness = self._readiness, None
            readiness.wake()
            readiness.close()

    def forget(self) -> None:
        """The last word is read, and nobody is there who could read ours."""
        self._kept = None
        if self.owned:
            self._closed = True
            self.socket.close(linger=0)

    def close(self) -> None:
        """Closes what was opened here; again, or behind a caller who closed his own, it does no harm."""
        self.abandon()
        if self.owned:
            self._closed = True
            # Where nobody is connected nothing can go out, and the program's end would wait for it.
            self.socket.close(linger=None if self.connected else 0)
