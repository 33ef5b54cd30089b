"""The one kind of stream: what listeners, executions, comms and debug sessions are read from.

It has two ends: the core fills a :class:`Feed`, and its user empties the :class:`Stream` over it. The rules:

* The reader tasks push each *batch* of messages as one item into an AnyIO memory object stream, and the stream
  unrolls it. So queueing and waking are paid for once a batch.
* A batch is never handed to a waiting task directly, as the memory stream's own ``receive()`` would have it:
  where asyncio cancels that task natively (``asyncio.timeout``, ``Task.cancel``) in the same turn, AnyIO 4.16
  drops the item. Whoever waits is woken, and takes for himself; so a cancelled receive loses nothing.
* Every receive is a checkpoint. The scheduler gets its turn at every wait, and at least once in :data:`TURN`.
* One task receives at a time; another one gets ``BusyResourceError``.
* How much it may hold says :mod:`~enchannel._core.bound`.
* How a stream ends: what it holds can still be received. Then it raises what it was ended with, as often as it
  is asked; where nothing went wrong that is ``EndOfStream``, and where its block was left that comes once, and
  ``ClosedResourceError`` from then on.
"""

from __future__ import annotations

import copy
import math
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import anyio
import anyio.abc
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from .._exceptions import EnchannelError
from .._trio import in_trio, uncut

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from .bound import Held

__all__ = ["TURN", "Feed", "Stream", "fresh", "native_checkpoint_if_cancelled"]

TURN = 64
"""Messages that a stream hands out before it lets other tasks run. Every one of them is a cancellation
point; the scheduler, at some 4 µs a turn, is paid for once in so many."""

# An empty deque takes 600 bytes, and most streams of most kernels hold nothing. It is never added to.
_NOTHING: deque[Any] = deque(maxlen=0)

_UNBOUNDED = nullcontext()

T = TypeVar("T")
E = TypeVar("E", bound=EnchannelError)


def native_checkpoint_if_cancelled() -> Callable[[], Awaitable[None]]:
    """AnyIO's looks the backend up at each call: 0.9 µs a message, where Trio's own takes 0.2."""
    if in_trio():
        return cast(
            "Callable[[], Awaitable[None]]", sys.modules["trio"].lowlevel.checkpoint_if_cancelled
        )
    return checkpoint_if_cancelled


def fresh(error: E) -> E:
    """The same error once more: one for each waiter, so that the tracebacks of several do not mix."""
    another = copy.copy(error)
    another.__cause__ = error.__cause__
    return another


class Feed(Generic[T]):
    """The end of a stream that the core has.

    Args:
        held: How much of it is held, where that is bounded.

    Attributes:
        held: That.
        at_hand: What can be taken at once.
        closed: Whether its user has closed it, or has received its end.
    """

    def __init__(self, held: Held | None = None) -> None:
        self.held: Held | None = held
        self.at_hand: deque[T] = _NOTHING
        self.closed: bool = False
        # Made when the first batch comes: most streams of most kernels never get one.
        self._gives: MemoryObjectSendStream[Sequence[T]] | None = None
        self._batches: MemoryObjectReceiveStream[Sequence[T]] | None = None
        self._behind = 0
        self._wakeup: anyio.Event | None = None
        self._ended = False
        self._failure: EnchannelError | None = None
        self._left = False

    # What the core calls.

    @uncut
    def put(self, batch: Sequence[T]) -> None:
        """Adds `batch`, which must not change any more; nothing where this has ended."""
        if self._ended or self.closed or not batch:
            return
        if self._gives is None:
            self._gives, self._batches = anyio.create_memory_object_stream[Sequence[T]](math.inf)
        self._behind += len(batch)
        self._gives.send_nowait(batch)
        if self.held is not None:
            self.held.put(batch)
            while self.held.too_much and self.more():
                self.drop(self.at_hand.popleft())
        self.wake()

    def drop(self, item: T) -> None:
        """It gives way: nobody gets `item`."""
        assert self.held is not None
        self.held.drop(item)

    def end(self, failure: EnchannelError | None = None, *, left: bool = False) -> None:
        """Nothing more will come: because of `failure`, or because the block was `left`."""
        self._left |= left
        if not self._ended:
            self._ended, self._failure = True, failure
        self._stop()

    def wake(self) -> None:
        """Has whoever waits look again."""
        if self._wakeup is not None:
            self._wakeup.set()

    # What the stream calls.

    @property
    def waiting(self) -> int:
        """How many can be taken."""
        return len(self.at_hand) + self._behind

    def done(self) -> bool:
        """Whether a wait is over although nothing is there."""
        return self._ended or self.closed

    @uncut
    def more(self) -> bool:
        """Whether something is at hand, or could be fetched."""
        if not self.at_hand and self._behind:
            assert self._batches is not None
            self.at_hand = deque(self._batches.receive_nowait())
            self._behind -= len(self.at_hand)
        return bool(self.at_hand)

    @uncut
    def take(self) -> T:
        """The next one; or raises what this has ended with."""
        if self.at_hand or self.more():
            item = self.at_hand.popleft()
            if self.held is not None:
                self.held.took(item)
            return item
        if self.closed:
            raise anyio.ClosedResourceError("the stream is closed, or its block was left")
        self.closed = self._left
        if self._failure is not None:
            raise fresh(self._failure)
        raise anyio.EndOfStream("nothing more comes")

    async def wait(self) -> bool:
        """Waits until something is there, or nothing more comes; whether that took any time."""
        waited = False
        with self.held.reading() if self.held is not None else _UNBOUNDED:
            while not self.more() and not self.done():
                waited = True
                self._wakeup = anyio.Event()
                try:
                    await self._wakeup.wait()
                finally:
                    self._wakeup = None
        return waited

    def close(self) -> None:
        """Drops what was not taken; nothing more comes."""
        self.closed = True
        self._stop()
        self.at_hand = _NOTHING

    @uncut
    def _stop(self) -> None:
        """Closes the memory stream; what is in it stays at hand."""
        if self._batches is not None and self._behind:
            self.at_hand = deque(self.at_hand)
            while self._behind:
                batch = self._batches.receive_nowait()
                self._behind -= len(batch)
                self.at_hand.extend(batch)
        if self._gives is not None and self._batches is not None:
            self._gives.close()
            self._batches.close()
        if self.held is not None:
            self.held.release()
        self.wake()


class Stream(anyio.abc.ObjectReceiveStream[T]):
    """A stream that reader tasks fill and one task at a time empties; iterate it, or call :meth:`receive`.

    Args:
        feed: Its other end.
    """

    def __init__(self, feed: Feed[T]) -> None:
        self._feed = feed
        self._receiving = False
        self._turn = TURN
        self._checkpoint_if_cancelled = native_checkpoint_if_cancelled()

    async def __anext__(self) -> T:
        # Like AnyIO's, but for the coroutine that it saves on a busy stream: 0.4 µs a message.
        feed = self._feed
        if feed.at_hand and self._turn and not self._receiving:
            self._turn -= 1
            await self._checkpoint_if_cancelled()
            return feed.take()
        return await super().__anext__()

    async def receive(self) -> T:
        """The next one; waits until there is one.

        A checkpoint; a cancelled receive has taken nothing, and the next one gets it.

        Raises:
            anyio.EndOfStream: Nothing more will come: the block was left, or the other side ended
                it.
            anyio.ClosedResourceError: This stream is closed, or its end was received.
            anyio.BusyResourceError: Another task is receiving from this stream.
            KernelDied: The kernel is lost, and all it sent has been received.
        """
        if self._turn and not self._receiving and self._feed.more():
            self._turn -= 1
            await self._checkpoint_if_cancelled()
        else:
            await self._wait()
        return self._feed.take()

    async def aclose(self) -> None:
        """Drops what was not received; whoever receives gets ``ClosedResourceError``.

        Closing is never cancelled: it must not replace the exception that a block is left with.
        """
        self.close()
        await cancel_shielded_checkpoint()

    @uncut
    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def close(self) -> None:
        """Like :meth:`aclose`, without being a checkpoint."""
        self._feed.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed here, or its block was left and that was received."""
        return self._feed.closed

    @property
    def buffered(self) -> int:
        """How many wait to be received."""
        return self._feed.waiting

    def _begin(self) -> None:
        """Called before the first wait."""

    async def _wait(self) -> None:
        if self._receiving:
            raise anyio.BusyResourceError("receiving from")
        self._begin()
        self._receiving = True
        self._turn = TURN - 1
        try:
            if self._feed.more():
                await checkpoint()
                return
            await self._checkpoint_if_cancelled()
            if not await self._feed.wait():
                await checkpoint()
        finally:
            self._receiving = False
