"""The seam between the core and whatever carries its messages.

A transport carries whole :class:`Message` values between this process and one kernel, on some of the
four channels. It owns sockets (or queues); it knows nothing of streams, listeners or requests, and
everything above it knows nothing of sockets.

The rules a transport keeps, and its users rely on:

* Taking and giving is synchronous: a message is taken whole or not at all, so no cancellation can split
  or lose one. Only waiting is asynchronous, and a cancelled wait has changed nothing.
* Whatever a call has done to the readiness of a channel is put right within that call, whoever made it.
* One task waits for each channel to become readable; any task may send.
* What arrives and is no message is dropped and counted here, and never raises.
* The connection tells its story as events (:class:`ConnectionEvent`); what an event means is decided
  elsewhere: a transport has no policy.
* An abandoned transport is let go then and there: nothing more comes, nobody waits for it, and what had arrived
  can still be read.
"""

from __future__ import annotations

import math
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from enum import Enum, auto
from typing import TypeAlias

from .._log import logger
from .._protocol.connection_info import ChannelName
from .._protocol.errors import LocalProtocolError, RemoteProtocolError
from .._protocol.message import Message
from .._protocol.wire import CONTENT, Frame, Wire

__all__ = ["ConnectionEvent", "FrameTransport", "Start", "Tell", "Transport"]


class ConnectionEvent(Enum):
    """What a transport tells of its connection."""

    CONNECTED = auto()
    """The channels are connected to the kernel."""
    DISCONNECTED = auto()
    """They are not any more, be it that they are connected again already."""
    GIVEN_UP = auto()
    """They are not, and do not try any more; see :meth:`enchannel.Transport.reconnect`."""
    GONE = auto()
    """The connection is lost, and can never come back."""
    RESTARTED = auto()
    """Whoever runs the kernel says that another one takes its place."""
    EXITED = auto()
    """Whoever runs the kernel says that it has exited."""
    JAMMED = auto()
    """So much waits to be taken that nothing more is read; see :attr:`enchannel.Transport.jammed`."""


Tell: TypeAlias = "Callable[[ConnectionEvent, Sequence[ChannelName], str], None]"
"""Called with what happened, the channels that it concerns, and what was seen of it."""

Start: TypeAlias = "Callable[..., object]"
"""Starts a task that runs the given coroutine function with the arguments behind it."""


class Transport(ABC):
    """Carries messages to and from one kernel; what :func:`open_channels` takes.

    :func:`wrap_sockets`, :meth:`Server.connect` and :func:`enchannel.testing.memory_transport_pair`
    make such; a subclass of one's own is checked by :func:`enchannel.testing.check_transport`.
    Taking and giving is synchronous, and a message is taken whole or not at all; only waiting is
    asynchronous, and a cancelled wait has changed nothing. What arrives and is no message is
    dropped and counted, and never raised.

    Example:
        .. code-block:: python

            from enchannel.testing import memory_transport_pair

            transport, kernel_end = memory_transport_pair()
            print(isinstance(transport, Transport))  # True
            async with open_channels(transport, owned=True) as ch:
                await ch.shell.send(messages.execute_request("6 * 7"))
                identity, request = await kernel_end.receive("shell")
                print(request.content["code"])  # 6 * 7
    """

    channels: Sequence[ChannelName]
    """The channels that this transport carries."""

    followed: Sequence[ChannelName] = ()
    """Those whose disconnection is told at any time. That of the others is when one of these goes; see :meth:`watch`."""

    iopub_needs_proof: bool = False
    """Whether a subscription may still be on its way when every channel is connected."""

    sees_everything: bool = True
    """Whether all that the kernel publishes arrives, and not a narrower subscription alone."""

    refused: int = 0
    """How many arrivals were dropped, for whatever reason."""

    held_back: int = 0
    """How many genuine messages arrived that the subscription does not cover; they are proof all the same."""

    in_use: bool = False
    """Whether a block of channels is open over it."""

    buffered: bool = False
    """Whether somebody in between keeps what the kernel says while the connection is away. When it is back it leads to the
    same kernel then, and nothing in flight need be told before it is given up."""

    session: str | None = None
    """The session that the header of all that is sent must have, where not any will do."""

    rate_limited: int = 0
    """How often somebody in between said that he drops what the kernel publishes."""

    has_heartbeat: bool = False
    """Whether :meth:`beat` does anything."""

    @abstractmethod
    def receive_nowait(
        self, channel: ChannelName, most: float = math.inf, size: float = math.inf
    ) -> list[Message]:
        """The messages that have arrived on `channel`, in order, some tens at the most.

        Empty where all that arrived was dropped.

        Args:
            channel: Where.
            most: How many are wanted, 1 or more.
            size: No more are taken once they have this many bytes.

        Raises:
            anyio.WouldBlock: Nothing has arrived.
        """

    @abstractmethod
    def has_arrived(self, channel: ChannelName) -> bool:
        """Whether something can be taken from `channel` now."""

    @abstractmethod
    def wait_readable(self, channel: ChannelName) -> Awaitable[None]:
        """Waits until something may have arrived on `channel`; may return too early, and does when abandoned.

        Always a checkpoint, also where something is there already. Cancellation loses nothing.
        """

    @abstractmethod
    def send_nowait(self, channel: ChannelName, message: Message) -> None:
        """Takes over `message` whole, or not at all.

        Raises:
            anyio.WouldBlock: It cannot be taken now.
            LocalProtocolError: It cannot be encoded.
        """

    async def wait_writable(self, channel: ChannelName) -> None:
        """Waits until `channel` may take a message; may return too early. Cancellation changes nothing."""

    def session_for(self, wanted: str | None) -> str:
        """The session for the header of all that is sent.

        Raises:
            LocalProtocolError: The one that is wanted does not do.
        """
        if wanted is not None and self.session not in (None, wanted):
            raise LocalProtocolError(
                f"all that is sent here is of the session {self.session!r}, which it was connected with, and not {wanted!r}"
            )
        given = self.session if wanted is None else wanted
        return str(uuid.uuid4()) if given is None else given

    def begin(self) -> None:
        """Called before anything else; after :meth:`abandon` the transport is used once more."""

    def follow(self, tell: Tell, start: Start) -> None:
        """From now on tells each change of the connection.

        Args:
            tell: Takes what is told.
            start: Starts the tasks that it takes, now or later. They end when the transport is abandoned.
        """

    def watch(self, channel: ChannelName) -> None:
        """Something is expected on `channel`, if it is carried: from now on it is one of those that are followed."""

    def forget(self, channel: ChannelName) -> None:
        """What an abandoned transport has still to give on `channel` is dropped, and nothing more is taken."""

    def unconnected(self) -> Mapping[str, str]:
        """For each channel that is not connected, or not known to be: its endpoint, and what was seen of it."""
        return {}

    def doubtful(self, lost: Collection[ChannelName]) -> Collection[ChannelName]:
        """Those of the channels that were `lost` in an outage where something may be lost that was on its way."""
        return lost

    def reconnect(self, channels: Sequence[ChannelName]) -> None:
        """Connects `channels` anew, whatever they are connected to now; what has not gone out yet is dropped."""

    def widen(self) -> None:
        """Until :meth:`narrow`, everything that the kernel publishes is subscribed to: proof may have any topic."""

    def narrow(self) -> None:
        """The caller's subscription counts again."""

    def mute(self) -> None:
        """From now on nothing that the kernel publishes is subscribed to."""

    def dropped_by_channel(self) -> Mapping[ChannelName, Mapping[str, int]]:
        """How many arrivals were dropped, by channel and reason (``"MalformedMessage"``, ...)."""
        return {}

    def dropped(self) -> Mapping[str, int]:
        """How many arrivals were dropped, by reason."""
        return dict(sum(map(Counter, self.dropped_by_channel().values()), Counter[str]()))

    def received_bytes(self) -> Mapping[ChannelName, int]:
        """Bytes of content and buffers that arrived, by channel."""
        return {}

    def sent_bytes(self) -> Mapping[ChannelName, int]:
        """Bytes of content and buffers that were taken over, by channel."""
        return {}

    @property
    def repaired(self) -> int:
        """How many messages held bytes that are no UTF-8."""
        return 0

    @property
    def jammed(self) -> bool:
        """Whether nothing more is read on any channel until something is taken from one that is full."""
        return False

    def beat(self) -> bool:
        """Sends a heartbeat; whether the one before was echoed."""
        return False

    @abstractmethod
    def abandon(self) -> None:
        """Lets go of the connection: it is watched and made anew no more, and whoever waits is woken."""

    async def aclose(self) -> None:
        """Lets go of everything the transport opened; what was sent still goes out for a bounded time."""


class FrameTransport(Transport):
    """A transport that carries frames, as the wire protocol has them.

    What arrives is verified and decoded here; what is no message is dropped, counted by the name of its
    error, and logged once of each kind.

    Args:
        channels: The channels that are carried.
        wire: Signs and encodes, verifies and decodes.
    """

    def __init__(self, channels: Sequence[ChannelName], wire: Wire) -> None:
        self.channels: Sequence[ChannelName] = tuple(channels)
        self.wire = wire
        self.refused: int = 0
        self._dropped: dict[ChannelName, Counter[str]] = {name: Counter() for name in channels}
        self._received_bytes: dict[ChannelName, int] = dict.fromkeys(channels, 0)
        self._sent_bytes: dict[ChannelName, int] = dict.fromkeys(channels, 0)

    @abstractmethod
    def take(self, channel: ChannelName, most: float, size: float) -> Sequence[Sequence[Frame]]:
        """The frames of each message that has arrived, some tens at the most; see :meth:`receive_nowait`.

        Raises:
            anyio.WouldBlock: Nothing has arrived.
        """

    @abstractmethod
    def give(self, channel: ChannelName, frames: Sequence[Frame]) -> None:
        """Takes over all of `frames` as one message, or none of them.

        Raises:
            anyio.WouldBlock: They cannot be taken now.
        """

    def receive_nowait(
        self, channel: ChannelName, most: float = math.inf, size: float = math.inf
    ) -> list[Message]:
        return self.decode_all(channel, self.take(channel, most, size))

    def decode_all(self, channel: ChannelName, arrived: Iterable[Sequence[Frame]]) -> list[Message]:
        """The messages among `arrived`, the others refused."""
        decode = self.wire.decode
        messages: list[Message] = []
        for frames in arrived:
            try:
                messages.append(decode(frames))
            except RemoteProtocolError as error:
                messages += self.refuse(channel, frames, error)
        self._received_bytes[channel] += sum([message.size for message in messages])
        return messages

    def refuse(
        self, channel: ChannelName, frames: Sequence[Frame], error: RemoteProtocolError
    ) -> list[Message]:
        """Counts `frames`, which are no message because of `error`; returns what is saved from them."""
        kind = type(error).__name__
        is_first = not any(kind in reasons for reasons in self._dropped.values())
        self._dropped[channel][kind] += 1
        self.refused += 1
        if is_first:
            logger().warning(
                "dropped a message on %s: %s; further ones of this kind are only counted",
                channel,
                error,
            )
        return []

    def send_nowait(self, channel: ChannelName, message: Message) -> None:
        frames = self.wire.encode(message)
        self.give(channel, frames)
        self._sent_bytes[channel] += sum(map(len, frames[CONTENT:]))

    def dropped_by_channel(self) -> Mapping[ChannelName, Mapping[str, int]]:
        return {name: dict(reasons) for name, reasons in self._dropped.items() if reasons}

    def received_bytes(self) -> Mapping[ChannelName, int]:
        return dict(self._received_bytes)

    def sent_bytes(self) -> Mapping[ChannelName, int]:
        return dict(self._sent_bytes)

    @property
    def repaired(self) -> int:
        return self.wire.repaired
