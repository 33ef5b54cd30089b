"""The one kind of stream: what listeners, executions, comms and debug sessions are read from.

The rules:

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
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import anyio.abc
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from .._exceptions import EnchannelError
from .._trio import in_trio, uncut

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

    from .bound import Held

__all__ = ["TURN", "Stream", "fresh", "native_checkpoint_if_cancelled"]

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


class Stream(anyio.abc.ObjectReceiveStream[T]):
    """A stream that reader tasks fill and one task at a time empties; iterate it, or call :meth:`receive`.

    Args:
        held: How much of it is held, where that is bounded.
    """

    def __init__(self, held: Held | None = None) -> None:
        self._held = held
        # Made when the first batch comes: most streams of most kernels never get one.
        self._gives: MemoryObjectSendStream[Sequence[T]] | None = None
        self._batches: MemoryObjectReceiveStream[Sequence[T]] | None = None
        self._at_hand: deque[T] = _NOTHING
        self._behind = 0
        self._wakeup: anyio.Event | None = None
        self._receiving = False
        self._turn = TURN
        self._ended = False
        self._failure: EnchannelError | None = None
        self._left = False
        self._closed = False
        self._checkpoint_if_cancelled = native_checkpoint_if_cancelled()

    # What the user calls.

    async def __anext__(self) -> T:
        # Like AnyIO's, but for the coroutine that it saves on a busy stream: 0.4 µs a message.
        if self._at_hand and self._turn and not self._receiving:
            self._turn -= 1
            await self._checkpoint_if_cancelled()
            return self._take()
        return await super().__anext__()

    async def receive(self) -> T:
        """The next one.

        A checkpoint; a cancelled receive has taken nothing, and the next one gets it.

        Raises:
            anyio.EndOfStream: Nothing more will come: the block was left, or the other side ended it.
            anyio.ClosedResourceError: This stream is closed, or its end was received.
            anyio.BusyResourceError: Another task is receiving from this stream.
            KernelDied: The kernel is lost, and all it sent has been received.
        """
        if self._turn and not self._receiving and self._more():
            self._turn -= 1
            await self._checkpoint_if_cancelled()
        else:
            await self._wait()
        return self._take()

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
        self._closed = True
        self._stop()
        self._at_hand = _NOTHING

    @property
    def closed(self) -> bool:
        """Whether it was closed, or its end was received."""
        return self._closed

    @property
    def buffered(self) -> int:
        """How many wait to be received."""
        return len(self._at_hand) + self._behind

    # What the core calls.

    @uncut
    def put(self, batch: Sequence[T]) -> None:
        """Adds `batch`, which must not change any more; nothing where this has ended."""
        if self._ended or self._closed or not batch:
            return
        if self._gives is None:
            self._gives, self._batches = anyio.create_memory_object_stream[Sequence[T]](math.inf)
        self._behind += len(batch)
        self._gives.send_nowait(batch)
        if self._held is not None:
            self._held.put(batch)
            while self._held.too_much and self._more():
                self._held.drop(self._at_hand.popleft())
        self.wake()

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

    # What both come to.

    def _begin(self) -> None:
        """Called before the first wait."""

    def _done(self) -> bool:
        """Whether a wait is over although nothing is there."""
        return self._ended or self._closed

    @uncut
    def _more(self) -> bool:
        """Whether something is at hand, or could be fetched."""
        if not self._at_hand and self._behind:
            assert self._batches is not None
            self._at_hand = deque(self._batches.receive_nowait())
            self._behind -= len(self._at_hand)
        return bool(self._at_hand)

    async def _wait(self) -> None:
        if self._receiving:
            raise anyio.BusyResourceError("receiving from")
        self._begin()
        self._receiving = True
        self._turn = TURN - 1
        try:
            if self._more():
                await checkpoint()
                return
            await self._checkpoint_if_cancelled()
            waited = False
            with self._waiting():
                while not self._more() and not self._done():
                    waited = True
                    self._wakeup = anyio.Event()
                    try:
                        await self._wakeup.wait()
                    finally:
                        self._wakeup = None
            if not waited:
                await checkpoint()
        finally:
            self._receiving = False

    def _waiting(self) -> AbstractContextManager[None]:
        return self._held.waiting() if self._held is not None else _UNBOUNDED

    @uncut
    def _take(self) -> T:
        if self._at_hand or self._more():
            item = self._at_hand.popleft()
            if self._held is not None:
                self._held.took(item)
            return item
        if self._closed:
            raise anyio.ClosedResourceError("the stream is closed, or its block was left")
        self._closed = self._left
        if self._failure is not None:
            raise fresh(self._failure)
        raise anyio.EndOfStream("nothing more comes")

    @uncut
    def _stop(self) -> None:
        """Closes the memory stream; what is in it stays at hand."""
        if self._batches is not None and self._behind:
            self._at_hand = deque(self._at_hand)
            while self._behind:
                batch = self._batches.receive_nowait()
                self._behind -= len(batch)
                self._at_hand.extend(batch)
        if self._gives is not None and self._batches is not None:
            self._gives.close()
            self._batches.close()
        if self._held is not None:
            self._held.release()
        self.wake()
