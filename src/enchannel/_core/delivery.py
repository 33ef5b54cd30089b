"""Who gets a message: the one rule of delivery.

1. Every *listening* stream that covers the channel gets every message on it, in order. A stream listens
   from its first receive (a subscription from its entry) until it is closed.
2. A message that belongs to a request in flight goes to it as well (:mod:`~enchannel._core.requests`), and before
   any bound of a stream is looked at: who reads a stream may be waiting for that very reply. For the same reason a
   full stream from which nobody takes anything holds up a reader for a second at most while anything is asked.
3. A message that nobody listened for and no request took waits for the first stream that listens. This
   backlog holds :data:`BACKLOG` messages a channel; the oldest go first, counted and logged. The statuses for other
   clients' ``kernel_info_request`` are not kept: each client that opens channels asks some, and they say nothing.

What answers questions of our own reaches no stream, and neither does ``iopub_welcome`` (:mod:`~enchannel._core.core`).

There is no input or output here, and no task: the reader tasks call :meth:`Delivery.deliver`.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Sequence
from typing import Any, TypeVar

import anyio

from .._bell import Bell
from .._exceptions import KernelDied, LocalProtocolError
from .._log import logger
from .._protocol.connection_info import ChannelName
from .._protocol.message import Message
from .._trio import uncut
from .requests import Requests
from .stream import Stream

__all__ = ["Delivery", "Listener"]

BACKLOG = 100_000
"""Messages a channel that wait for somebody to listen."""

STALLED = 1.0
"""Seconds without anybody taking anything, behind which a full stream holds up nobody who waits for an answer."""

T = TypeVar("T")


class Listener(Stream[T]):
    """A stream of everything on some channels; made by :class:`~enchannel.KernelChannels`."""

    def __init__(
        self, delivery: Delivery, channels: Sequence[ChannelName], *, tagged: bool
    ) -> None:
        super().__init__(delivery.room_made if delivery.limited else None)
        self.channels: tuple[ChannelName, ...] = tuple(channels)
        self.tagged = tagged
        self._delivery = delivery
        self._listening = False

    def listen(self) -> None:
        """Begins to listen, and takes over what waits in the backlog of its channels."""
        if self._closed:
            raise anyio.ClosedResourceError("the stream is closed")
        if not self._listening:
            self._delivery.add(self)
            self._listening = True

    def _begin(self) -> None:
        if not self._listening:
            self.listen()

    def close(self) -> None:
        """Like :meth:`aclose`, without being a checkpoint."""
        super().close()
        self._delivery.remove(self)

    def _state(self) -> str:
        if self._closed or self._delivery.left:
            return "closed"
        return f"listening, {self.buffered} waiting" if self._listening else "not listening yet"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {' '.join(self.channels)} {self._state()}>"


class Delivery:
    """Hands what the reader tasks bring to whoever gets it.

    Args:
        channels: The channels that are carried.
        max_buffer_size: How many messages a listening stream may hold before the reader tasks wait.
        requests: The requests in flight.

    Attributes:
        limited: Whether the listening streams have a bound.
        backlog_dropped: How many messages nobody listened for until the backlog was full.
        left: Whether the block was left.
    """

    def __init__(
        self, channels: Sequence[ChannelName], max_buffer_size: float, requests: Requests
    ) -> None:
        self.backlog_dropped: int = 0
        self.limited: bool = max_buffer_size < math.inf
        self._bounded = self.limited
        self._max_buffer_size = max_buffer_size
        self._requests = requests
        self._listeners: dict[ChannelName, list[Listener[Any]]] = {name: [] for name in channels}
        # One for each channel that anything waits on: an empty one takes 600 bytes.
        self._backlog: dict[ChannelName, deque[tuple[int, ChannelName, Message]]] = {}
        self._arrivals = itertools.count()
        self._room_made = Bell()
        self._stalled = False
        self._ended = False
        self._failure: KernelDied | None = None
        self.left: bool = False

    # What the streams call.

    @uncut
    def add(self, listener: Listener[Any]) -> None:
        """Registers `listener` and hands it the backlog of its channels, in the order of arrival."""
        if self.left:
            raise anyio.ClosedResourceError("the block of the channels was left")
        for channel in listener.channels:
            if channel not in self._listeners:
                raise LocalProtocolError(
                    f"there is no {channel} channel here; there are {', '.join(self._listeners)}"
                )
        backlogs = [self._backlog.pop(channel, ()) for channel in listener.channels]
        # No two arrivals are equal, so that nothing else is compared.
        waiting = sorted(itertools.chain.from_iterable(backlogs))
        listener.put([each[1:] if listener.tagged else each[2] for each in waiting])
        if self._ended:
            listener.end(self._failure)
        for channel in listener.channels:
            self._listeners[channel].append(listener)

    @uncut
    def remove(self, listener: Listener[Any]) -> None:
        """Takes :meth:`add` back; no error where it is back already."""
        for channel in listener.channels:
            if listener in self._listeners.get(channel, ()):
                self._listeners[channel].remove(listener)
        self.room_made()

    def room_made(self) -> None:
        """A reader task that waits for room looks again."""
        self._stalled = False
        self._room_made.ring()

    # What the reader tasks call.

    async def deliver(self, channel: ChannelName, messages: Sequence[Message]) -> None:
        """Hands on `messages`, waiting for the slowest listener where the buffers are bounded."""
        messages = self._requests.route(channel, messages)
        while messages:
            listeners = self._listeners[channel]
            if not self._bounded or not listeners or self._is_awaited(channel):
                self._hand_over(channel, messages)
                return
            room = int(self._max_buffer_size - max(listener.buffered for listener in listeners))
            if room >= 1:
                self._hand_over(channel, messages[:room])
                messages = messages[room:]
            elif self._stalled and self._requests.asking:
                # Who is to read it may be waiting for what comes behind.
                self._hand_over(channel, messages)
                return
            else:
                self._stalled = not await self._room()

    async def _room(self) -> bool:
        """Waits until something was taken; false where nothing was for a while."""
        with anyio.move_on_after(STALLED):
            await self._room_made.wait()
            return True
        return False

    def _is_awaited(self, channel: ChannelName) -> bool:
        """Whether the next reply may be what the slowest listener waits for; these are never a flood."""
        return channel != "iopub" and self._requests.asking

    def lift_bound(self) -> None:
        """From here on the streams take whatever comes, until :meth:`restore_bound`."""
        self._bounded = False
        self.room_made()

    def restore_bound(self) -> None:
        """The streams are bounded again, where the user wants them to be."""
        self._bounded = self.limited

    def _hand_over(self, channel: ChannelName, messages: Sequence[Message]) -> None:
        listeners = self._listeners[channel]
        if not listeners:
            self._keep(channel, messages)
            return
        tagged: Sequence[tuple[ChannelName, Message]] | None = None
        for listener in listeners:
            if listener.tagged:
                tagged = tagged or [(channel, message) for message in messages]
                listener.put(tagged)
            else:
                listener.put(messages)

    def _keep(self, channel: ChannelName, messages: Sequence[Message]) -> None:
        kept = [each for each in self._requests.untaken(messages) if not _says_nothing(each)]
        if not kept:
            return
        backlog = self._backlog.setdefault(channel, deque())
        for message in kept:
            if len(backlog) >= BACKLOG:
                backlog.popleft()
                if not self.backlog_dropped:
                    logger().warning(
                        "nobody listens on %s: dropped the oldest of %d waiting messages; "
                        "further ones are only counted",
                        channel,
                        BACKLOG,
                    )
                self.backlog_dropped += 1
            backlog.append((next(self._arrivals), channel, message))

    # How it ends.

    def end(self, failure: KernelDied | None = None, *, left: bool = False) -> None:
        """Ends every stream: because of `failure`, or because the block was left."""
        if not self._ended:
            self._ended, self._failure = True, failure
        self.left |= left
        for listeners in self._listeners.values():
            for listener in listeners:
                listener.end(failure, left=left)
        self.room_made()

    def statistics(self) -> tuple[dict[ChannelName, int], int]:
        """How many messages wait in the backlog of each channel, and how many streams listen."""
        listening = {id(one) for listeners in self._listeners.values() for one in listeners}
        waiting: dict[ChannelName, int] = {
            name: len(self._backlog.get(name, ())) for name in self._listeners
        }
        return waiting, len(listening)


def _says_nothing(message: Message) -> bool:
    return (
        message.header.get("msg_type") == "status"
        and message.parent_header.get("msg_type") == "kernel_info_request"
    )
