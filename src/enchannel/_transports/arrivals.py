"""What has arrived for several channels over one connection, until the reader of each takes it."""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Collection, Iterable, Sequence

import anyio

from .._bell import Bell
from .._protocol.connection_info import ChannelName
from .._protocol.wire import Frame

__all__ = ["Arrivals"]

BATCH = 64
"""Messages that are taken at a time."""

WAITING, WAITING_BYTES = 2_000, 16 << 20
"""What may wait here until nothing more is read."""


class Arrivals:
    """A queue for each channel, and who waits for it.

    Args:
        channels: Those that there are.
    """

    def __init__(self, channels: Sequence[ChannelName]) -> None:
        self._queues: dict[ChannelName, deque[tuple[Sequence[Frame], int]]] = {
            name: deque() for name in channels
        }
        self._bells: dict[ChannelName, Bell] = {name: Bell() for name in channels}
        self._count, self._bytes = 0, 0
        self._room = Bell()

    def put(self, channel: ChannelName, frames: Sequence[Frame], size: int) -> None:
        """A message of `size` bytes has arrived; where its channel is not carried it goes nowhere."""
        queue = self._queues.get(channel)
        if queue is not None:
            queue.append((frames, size))
            self._count += 1
            self._bytes += size

    def ring(self, channels: Collection[ChannelName]) -> None:
        """Wakes who waits for something on `channels`."""
        for channel in channels:
            if channel in self._bells:
                self._bells[channel].ring()

    def ring_all(self) -> None:
        """Wakes whoever waits."""
        self.ring(self._bells.keys())
        self._room.ring()

    def take(self, channel: ChannelName, most: float, size: float) -> list[Sequence[Frame]]:
        """What has arrived on `channel`, a batch at the most; see :meth:`enchannel.Transport.receive_nowait`."""
        queue = self._queues[channel]
        if not queue:
            raise anyio.WouldBlock
        count = int(min(most, BATCH, len(queue)))
        if size < math.inf:
            count = self._within(queue, count, size)
        taken = [queue.popleft() for _ in range(count)]
        self._count -= count
        self._bytes -= sum([weight for _, weight in taken])
        self._room.ring()
        return [frames for frames, _ in taken]

    @staticmethod
    def _within(queue: Iterable[tuple[object, int]], count: int, size: float) -> int:
        """How many of the first `count` are taken, the one among them with which they have `size` bytes."""
        for number, (_, weight) in enumerate(itertools.islice(queue, count), 1):
            size -= weight
            if size <= 0:
                return number
        return count

    def has(self, channel: ChannelName) -> bool:
        """Whether something has arrived on `channel`."""
        return bool(self._queues[channel])

    async def wait(self, channel: ChannelName) -> None:
        """Waits until something arrives on `channel`; may return too early."""
        await self._bells[channel].wait()

    def forget(self, channel: ChannelName) -> None:
        """Nobody wants what has arrived on `channel`."""
        queue = self._queues[channel]
        self._count -= len(queue)
        self._bytes -= sum(size for _, size in queue)
        queue.clear()
        self._room.ring()

    @property
    def full(self) -> bool:
        """Whether so much waits that nothing more is to be read."""
        return self._count >= WAITING or self._bytes >= WAITING_BYTES

    async def wait_room(self) -> None:
        """Waits until somebody takes something."""
        await self._room.wait()
