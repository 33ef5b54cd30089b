"""What nobody listened for and no conversation took: it waits for the first stream that listens.

The backlog is bounded in messages and in bytes, over all channels. Where it is full the oldest go, counted and logged,
of the channel that holds the most: a flood on iopub must not take a reply on shell away.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Collection, Iterable, Mapping

from .._log import logger
from .._protocol.connection_info import ChannelName
from .._protocol.message import Message
from .bound import Limits

__all__ = ["Backlog"]


class Backlog:
    """The backlog of one connection.

    Args:
        limits: How much it may hold.

    Attributes:
        dropped: How many messages it had no room for.
    """

    def __init__(self, limits: Limits) -> None:
        self.dropped: int = 0
        # What a stream has no room for it need not wait for.
        self._messages = min(limits.backlog_messages, limits.messages)
        self._bytes = min(limits.backlog_size, limits.size)
        # One for each channel that anything waits on: an empty one takes 600 bytes.
        self._waiting: dict[ChannelName, _Waiting] = {}
        self._arrivals = itertools.count()

    def keep(self, channel: ChannelName, messages: Iterable[Message]) -> None:
        """Keeps `messages`, and gives up what there is no room for."""
        waiting = self._waiting.setdefault(channel, _Waiting())
        for message in messages:
            waiting.append((next(self._arrivals), channel, message))
            waiting.size += message.size
        while sum(map(len, self._waiting.values())) > self._messages:
            self._drop(max(self._waiting.values(), key=len))
        while sum(each.size for each in self._waiting.values()) > self._bytes:
            self._drop(max(self._waiting.values(), key=lambda each: each.size))

    def _drop(self, waiting: _Waiting) -> None:
        _, channel, message = waiting.popleft()
        waiting.size -= message.size
        if not self.dropped and self._messages:
            logger().warning(
                "nobody listens on %s: dropped the oldest of the messages that wait, which may be %g, and %g bytes; "
                "further ones are only counted",
                channel,
                self._messages,
                self._bytes,
            )
        self.dropped += 1

    def take(self, channels: Collection[ChannelName]) -> list[tuple[ChannelName, Message]]:
        """What waits on `channels`, in the order of arrival; it waits no more."""
        waiting = [self._waiting.pop(channel, ()) for channel in channels]
        # No two arrivals are equal, so that nothing else is compared.
        return [each[1:] for each in sorted(itertools.chain.from_iterable(waiting))]

    def counts(self) -> Mapping[ChannelName, int]:
        """How many messages wait, by channel."""
        return {channel: len(waiting) for channel, waiting in self._waiting.items()}


class _Waiting(deque[tuple[int, ChannelName, Message]]):
    """What waits on one channel.

    Attributes:
        size: How many bytes that are.
    """

    size: int = 0
