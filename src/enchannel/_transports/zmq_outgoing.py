"""How much a ZeroMQ socket may have taken and not sent yet.

ZeroMQ bounds that in messages alone, and does not say what it has sent. But it lets go of memory that was lent to it
when it has, in the order of sending. So every now and then the last frame of a message is lent, whatever its size, and
tracked (:class:`zmq.MessageTracker`): once ZeroMQ has let go of it, all that was sent before is out.
"""

from __future__ import annotations

from collections import deque

import zmq

from .._protocol.wire import Frame

__all__ = ["Outgoing"]

MESSAGES, BYTES = 100_000, 64 << 20
"""What may wait at most, however much the user allows."""

MILESTONES = 8
"""Tracked messages among as many as may wait: each costs pyzmq's own thread some 20 µs."""


class Outgoing:
    """What one socket has taken and is not known to have sent.

    Args:
        messages: How many messages that may be.
        size: How many bytes; one message more is taken, of whatever size.
    """

    __slots__ = ("_count", "_messages", "_milestones", "_most", "_new", "_new_size", "_size")

    def __init__(self, messages: float, size: float) -> None:
        self._messages = min(messages, MESSAGES)
        self._most = min(size, BYTES)
        self._count = 0
        self._size = 0
        # What came since the last milestone.
        self._new = 0
        self._new_size = 0
        self._milestones: deque[tuple[zmq.MessageTracker, int, int]] | None = None

    @property
    def full(self) -> bool:
        """Whether nothing more may be sent now."""
        if self._count < self._messages and self._size < self._most:
            return False
        while self._milestones and self._milestones[0][0].done:
            _, count, size = self._milestones.popleft()
            self._count -= count
            self._size -= size
        return self._count >= self._messages or self._size >= self._most

    def tracked(self, frame: Frame, size: int) -> zmq.Frame | None:
        """What to send in place of `frame`, the last of a message of `size` bytes, where that is a milestone."""
        is_next = MILESTONES * (self._new + 1) >= self._messages
        if not is_next and MILESTONES * (self._new_size + size) < self._most:
            return None
        return zmq.Frame(bytes(frame), copy=False, track=True)

    def add(self, size: int, tracker: zmq.MessageTracker | None) -> None:
        """A message of `size` bytes was sent; `tracker` is its last frame's, where that is a milestone."""
        self._count += 1
        self._size += size
        self._new += 1
        self._new_size += size
        if tracker is not None:
            if self._milestones is None:
                # Most kernels are never sent as much.
                self._milestones = deque()
            self._milestones.append((tracker, self._new, self._new_size))
            self._new = self._new_size = 0
