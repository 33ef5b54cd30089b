"""Who gets a message: the one rule of delivery.

1. Every *listening* stream that covers the channel gets every message on it, in order. A stream listens
   from its first receive (a subscription from its entry) until it is closed.
2. A message that belongs to a request in flight goes to it as well (:mod:`~enchannel._core.requests`), and one for
   an open comm or debug session to that.
3. A message that nobody listened for and no conversation took waits for the first stream that listens
   (:mod:`~enchannel._core.backlog`). The statuses for other clients' ``kernel_info_request`` do not: each client that
   opens channels asks some, and they say nothing.

What answers questions of our own reaches no stream, and neither does ``iopub_welcome`` (:mod:`~enchannel._core.core`).
How much may be held says :mod:`~enchannel._core.bound`.

There is no input or output here, and no task: the reader tasks call :meth:`Delivery.deliver`.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, TypeVar

import anyio

from .._exceptions import KernelDied, LocalProtocolError
from .._protocol.connection_info import ChannelName
from .._protocol.message import Message
from .._trio import uncut
from .backlog import Backlog
from .bound import Bound
from .requests import Requests
from .stream import Feed, Stream

__all__ = ["Delivery", "Listener", "ListenerFeed"]

T = TypeVar("T")


class ListenerFeed(Feed[T]):
    """The end of a listener that the core has.

    Args:
        channels: What it hears.
        tagged: Whether it is told on which of them.
    """

    def __init__(self, channels: Sequence[ChannelName], *, tagged: bool) -> None:
        super().__init__()
        self.channels: tuple[ChannelName, ...] = tuple(channels)
        self.tagged: bool = tagged


class Listener(Stream[T]):
    """A stream of everything on some channels; those of :class:`~enchannel.KernelChannels` are
    such.

    It listens from its first :meth:`receive` or iteration (a :class:`~enchannel.Subscription` from
    its entry) until it is closed, and gets every message of its channels, in order, as every other
    listener there does. It begins with the backlog: what came before, and neither a listener nor a
    conversation took. One task receives at a time. ``async with`` closes it at the end.

    Example:
        .. code-block:: python

            await ch.shell.send(messages.execute_request("print('woo')"))
            async with ch.iopub as published:
                async for msg in published:
                    if msg.msg_type == "stream":
                        print(msg.content["text"])  # woo
                        break
    """

    def __init__(
        self, delivery: Delivery, channels: Sequence[ChannelName], *, tagged: bool
    ) -> None:
        self._own: ListenerFeed[T] = ListenerFeed(channels, tagged=tagged)
        super().__init__(self._own)
        self._delivery = delivery
        self._listening = False

    @property
    def channels(self) -> tuple[ChannelName, ...]:
        """What it listens to."""
        return self._own.channels

    def listen(self) -> None:
        """Begins to listen, and takes over what waits in the backlog of its channels.

        Only where that is to be before the first receive; otherwise nothing.

        Raises:
            anyio.ClosedResourceError: It is closed, or the block of the channels was left.
            LocalProtocolError: One of its channels is not open.
        """
        if self.closed:
            raise anyio.ClosedResourceError("the stream is closed")
        if not self._listening:
            self._delivery.add(self._own)
            self._listening = True

    def _begin(self) -> None:
        if not self._listening:
            self.listen()

    def close(self) -> None:
        """Like :meth:`aclose`, without being a checkpoint."""
        super().close()
        self._delivery.remove(self._own)

    def _state(self) -> str:
        if self.closed or self._delivery.left:
            return "closed"
        return f"listening, {self.buffered} waiting" if self._listening else "not listening yet"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {' '.join(self.channels)} {self._state()}>"


class Delivery:
    """Hands what the reader tasks bring to whoever gets it.

    Args:
        channels: The channels that are carried.
        bound: How much each stream may hold.
        backlog: What waits for somebody to listen.
        requests: The requests in flight.

    Attributes:
        bound: How much each stream may hold.
        backlog: What waits for somebody to listen.
        left: Whether the block was left.
    """

    def __init__(
        self, channels: Sequence[ChannelName], bound: Bound, backlog: Backlog, requests: Requests
    ) -> None:
        self.bound = bound
        self.backlog = backlog
        self.left: bool = False
        self._requests = requests
        self._feeds: dict[ChannelName, list[ListenerFeed[Any]]] = {name: [] for name in channels}
        self._ended = False
        self._failure: KernelDied | None = None

    # What the streams call.

    @uncut
    def add(self, feed: ListenerFeed[Any]) -> None:
        """Registers `feed` and hands it the backlog of its channels, in the order of arrival."""
        if self.left:
            raise anyio.ClosedResourceError("the block of the channels was left")
        for channel in feed.channels:
            if channel not in self._feeds:
                raise LocalProtocolError(
                    f"there is no {channel} channel here; there are {', '.join(self._feeds)}"
                )
        feed.held = self.bound.hold(feed.channels)
        waiting = self.backlog.take(feed.channels)
        feed.put(waiting if feed.tagged else [message for _, message in waiting])
        if self._ended:
            feed.end(self._failure)
        for channel in feed.channels:
            self._feeds[channel].append(feed)

    @uncut
    def remove(self, feed: ListenerFeed[Any]) -> None:
        """Takes :meth:`add` back; no error where it is back already."""
        for channel in feed.channels:
            if feed in self._feeds.get(channel, ()):
                self._feeds[channel].remove(feed)

    # What the reader tasks call.

    def deliver(
        self, channel: ChannelName, messages: Sequence[Message], taken: Collection[Message] = ()
    ) -> None:
        """Hands on `messages`, of which conversations have `taken` some."""
        messages = self._requests.route(channel, messages)
        if messages:
            self._hand_over(channel, messages, taken)

    def _hand_over(
        self, channel: ChannelName, messages: Sequence[Message], taken: Collection[Message]
    ) -> None:
        feeds = self._feeds[channel]
        if not feeds:
            self._keep(channel, messages, taken)
            return
        tagged: Sequence[tuple[ChannelName, Message]] | None = None
        for feed in feeds:
            if feed.tagged:
                tagged = tagged or [(channel, message) for message in messages]
                feed.put(tagged)
            else:
                feed.put(messages)

    def _keep(
        self, channel: ChannelName, messages: Sequence[Message], taken: Collection[Message]
    ) -> None:
        known = set(map(id, taken))
        kept = [
            each
            for each in self._requests.untaken(channel, messages)
            if id(each) not in known and not _says_nothing(each)
        ]
        if kept:
            self.backlog.keep(channel, kept)

    # How it ends.

    def end(self, failure: KernelDied | None = None, *, left: bool = False) -> None:
        """Ends every stream: because of `failure`, or because the block was left."""
        if not self._ended:
            self._ended, self._failure = True, failure
        self.left |= left
        for feeds in self._feeds.values():
            for feed in feeds:
                feed.end(failure, left=left)

    def listening(self) -> int:
        """How many streams listen."""
        return len({id(one) for feeds in self._feeds.values() for one in feeds})


def _says_nothing(message: Message) -> bool:
    return (
        message.header.get("msg_type") == "status"
        and message.parent_header.get("msg_type") == "kernel_info_request"
    )
