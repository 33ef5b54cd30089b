"""How much the streams of one connection may hold, and who gives way where that is full.

The rules, where the user has set a bound:

* It holds for each stream: listeners, executions, comms, incoming comms and debug events. A reader takes no more from
  its channel than every stream there has room for, so what is not read waits in the network's buffers and not here.
* Bytes are those that a message's content and buffers had on the wire. Where they are bounded a stream holds one
  message more, of whatever size: how large the next one is shows when it is taken.
* Who is to read a full stream may be waiting for what comes behind. It gives way then, and loses its oldest messages,
  counted: at once where the task that reads it waits for something on that very channel (or on any, where all come over
  one connection and nothing more is read from that), and where anything is asked and nobody took anything from it for
  :data:`STALLED` seconds.
* While the connection is away nothing is held back, and once it is lost: streams take whatever the kernel managed to
  send. And for a moment where it matters whether something is over, whose end may be among what is held back.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

import anyio
import attrs

from .._bell import Bell
from .._log import logger
from .._protocol.connection_info import ChannelName
from .._protocol.message import Message
from .._trio import current_task

__all__ = ["Bound", "Held", "Limits"]

STALLED = 5.0
"""Seconds without anybody taking anything, behind which a full stream holds up nobody who waits for an answer."""


@attrs.frozen
class Limits:
    """How much may be held: by each stream, and of what nobody listens for."""

    messages: float
    size: float
    backlog_messages: float
    backlog_size: float


class Bound:
    """The bound of all streams of one connection.

    Args:
        limits: How much each may hold.
        asking: Whether anybody waits for an answer.
        jammed: Whether nothing more comes on any channel until a full stream is read or gives way.

    Attributes:
        limited: Whether there is any.
        dropped: How many messages were lost by giving way.
    """

    def __init__(
        self, limits: Limits, asking: Callable[[], bool], jammed: Callable[[], bool]
    ) -> None:
        self.messages: float = limits.messages
        self.size: float = limits.size
        self.limited: bool = self.messages < math.inf or self.size < math.inf
        self.dropped: int = 0
        self._lifted = False
        self._looking = 0
        self._asking = asking
        self._jammed = jammed
        self._held: dict[Held, None] = {}
        self._waiting: dict[object, _Wait] = {}
        self._room = Bell()

    def hold(self, channels: Sequence[ChannelName], *, told: bool = True) -> Held | None:
        """For a stream of what comes on `channels`, which the calling task is to read; none without a bound.

        What it loses is told here, or it says so itself.
        """
        return Held(self, channels, told=told) if self.limited else None

    @property
    def lifted(self) -> bool:
        """Whether streams take whatever comes."""
        return self._lifted or self._looking > 0

    @lifted.setter
    def lifted(self, value: bool) -> None:
        self._lifted = value
        self._room.ring()

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        """Lifts it for a moment in which all that has arrived is to be seen."""
        self._looking += 1
        self._room.ring()
        try:
            yield
        finally:
            self._looking -= 1

    def add(self, held: Held) -> None:
        """From now on readers wait for it."""
        self._held[held] = None

    def discard(self, held: Held) -> None:
        """They do not any more; no error where they do not already."""
        self._held.pop(held, None)
        self._room.ring()

    def look_again(self) -> None:
        """Readers that wait for room do."""
        self._room.ring()

    def drop(self) -> None:
        """A stream has given up a message."""
        if not self.dropped:
            logger().warning(
                "a full stream is not read by who waits for more: dropped its oldest messages, so as not to wait "
                "without end; further ones are only counted"
            )
        self.dropped += 1

    @contextlib.contextmanager
    def waiting(
        self, channels: Collection[ChannelName], over: Callable[[], bool], held: Held | None = None
    ) -> Iterator[None]:
        """The calling task waits for something that comes on `channels`.

        Args:
            channels: Where.
            over: Whether it is here, and the task has not been resumed yet.
            held: What the stream holds that it waits for, where it does for one.
        """
        task = current_task()
        before = self._waiting.get(task)
        self._waiting[task] = channels, over, held
        self._room.ring()
        try:
            yield
        finally:
            if before is None:
                self._waiting.pop(task, None)
            else:
                self._waiting[task] = before

    async def room(self, channel: ChannelName) -> tuple[float, float]:
        """Waits until every stream of `channel` may take something; how many messages, and how many bytes."""
        deadlines: dict[Held, tuple[int, float]] = {}
        while True:
            concerned = [held for held in self._held if channel in held.channels]
            full = [held for held in concerned if held.full and self._holds_up(held, channel)]
            if not full:
                return self._least(held for held in concerned if not held.full)
            now = anyio.current_time()
            for held in full:
                if deadlines.get(held, (-1, 0))[0] != held.taken:
                    deadlines[held] = held.taken, now + STALLED
            overdue = [held for held in full if deadlines[held][1] <= now]
            if overdue and self._asking():
                for held in overdue:
                    held.stalled = True
                continue
            first = now + STALLED if overdue else min(deadlines[held][1] for held in full)
            with anyio.CancelScope(deadline=first):
                await self._room.wait()

    def _least(self, streams: Iterable[Held]) -> tuple[float, float]:
        messages, size = math.inf, math.inf
        if self.lifted:
            return messages, size
        for held in streams:
            messages = min(messages, self.messages - held.count)
            size = min(size, self.size - held.size)
        return messages, size

    def _holds_up(self, held: Held, channel: ChannelName) -> bool:
        if self.lifted or held.stalled:
            return False
        wait = self._waiting.get(held.reader)
        if wait is None:
            return True
        channels, over, read = wait
        waits_behind_it = channel in channels or self._jammed()
        return read is held or over() or not waits_behind_it


_Wait: TypeAlias = "tuple[Collection[ChannelName], Callable[[], bool], Held | None]"


class Held:
    """How much one stream holds.

    Attributes:
        channels: Where what it holds comes from.
        reader: The task that is to read it: the last that did.
        count: How many messages it holds.
        size: How many bytes.
        taken: How many were taken from it so far.
        dropped: How many it lost by giving way.
        stalled: Whether it gives way until something is taken.
    """

    __slots__ = (
        "_bound",
        "_last",
        "_told",
        "channels",
        "count",
        "dropped",
        "reader",
        "size",
        "stalled",
        "taken",
    )

    def __init__(self, bound: Bound, channels: Sequence[ChannelName], *, told: bool) -> None:
        self._bound = bound
        self._told = told
        self._last = 0
        self.channels: Sequence[ChannelName] = channels
        self.reader: object = current_task()
        self.count: int = 0
        self.size: int = 0
        self.taken: int = 0
        self.dropped: int = 0
        self.stalled: bool = False
        bound.add(self)

    @property
    def full(self) -> bool:
        """Whether it may take nothing more."""
        return self.count >= self._bound.messages or self.size >= self._bound.size

    @property
    def too_much(self) -> bool:
        """Whether it holds more than it may, the newest aside where that is large."""
        bound = self._bound
        if bound.lifted:
            return False
        return self.count > bound.messages or self.size - self._last >= bound.size

    def put(self, batch: Sequence[Any]) -> None:
        """It was given `batch`."""
        self.count += len(batch)
        self.size += sum(map(_size_of, batch))
        self._last = _size_of(batch[-1])

    def took(self, item: Any) -> None:
        """`item` was taken from it."""
        self._forget(item)
        self.reader = current_task()
        self.taken += 1
        self.stalled = False
        self._bound.look_again()

    def drop(self, item: Any) -> None:
        """It gave up `item`."""
        self._forget(item)
        self.dropped += 1
        if self._told:
            self._bound.drop()

    def _forget(self, item: Any) -> None:
        self.count -= 1
        self.size -= _size_of(item)

    def like(self) -> Held:
        """For another stream of the same channels, and of the same reader."""
        held = Held(self._bound, self.channels, told=self._told)
        held.reader = self.reader
        return held

    def reading(self) -> contextlib.AbstractContextManager[None]:
        """The calling task is the one that reads it, and waits for more."""
        self.reader = current_task()
        return self._bound.waiting(self.channels, lambda: self.count > 0, self)

    def release(self) -> None:
        """Nothing more is given to it."""
        self._bound.discard(self)


def _size_of(item: Any) -> int:
    # A tagged message; or a comm, of which its opening is held.
    message = item[1] if type(item) is tuple else getattr(item, "opening", item)
    return message.size if type(message) is Message else 0
