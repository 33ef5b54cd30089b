"""What has arrived for several channels over one connection, until the reader of each takes it."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

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
        self._queues: dict[ChannelName, deque[Sequence[Frame]]] = {
            name: deque() for name in channels
        }
        self._bells: dict[ChannelName, Bell] = {name: Bell() for name in channels}
        self._count, self._bytes = 0, 0
        self._room = Bell()

    def put(self, channel: ChannelName, frames: Sequence[Frame]) -> None:
        """A message has arrived; where its channel is not carried it goes nowhere."""
        queue = self._queues.get(channel)
        if queue is not None:
            queue.append(frames)
            self._count += 1
            self._bytes += _size(frames)

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
        taken: list[Sequence[Frame]] = []
        while queue and len(taken) < min(most, BATCH) and size > 0:
            frames = queue.popleft()
            taken.append(frames)
            weight = _size(frames)
            self._bytes -= weight
            size -= weight
        self._count -= len(taken)
        self._room.ring()
        return taken

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
        self._bytes -= sum(map(_size, queue))
        queue.clear()
        self._room.ring()

    @property
    def full(self) -> bool:
        """Whether so much waits that nothing more is to be read."""
        return self._count >= WAITING or self._bytes >= WAITING_BYTES

    async def wait_room(self) -> None:
        """Waits until somebody takes something."""
        await self._room.wait()


def _size(frames: Sequence[Frame]) -> int:
    return sum(map(len, frames))
