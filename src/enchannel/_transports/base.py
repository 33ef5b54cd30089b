"""The seam between the channels and whatever carries their messages.

A transport carries whole :class:`Message` values between this process and one kernel, on some of the
four channels. It owns sockets (or queues); it knows nothing of streams, listeners or requests, and
everything above it knows nothing of sockets.

The rules a transport keeps, and its users rely on:

* Taking and giving is synchronous: a message is taken whole or not at all, so no cancellation can split
  or lose one. Only waiting is asynchronous, and a cancelled wait has changed nothing.
* One task waits for each channel to become readable; any task may send.
* What arrives and is no message is dropped and counted there, and never raises.
* Messages that arrived before the connection was lost stay readable after it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

import anyio

from .._exceptions import RemoteProtocolError
from .._log import logger
from .._protocol.connection_info import ChannelName
from .._protocol.message import Message
from .._protocol.wire import Frame, Wire

__all__ = ["FrameTransport", "Transport"]


class Transport(ABC):
    """Carries messages to and from one kernel."""

    channels: Sequence[ChannelName]
    """The channels that this transport carries."""

    iopub_needs_proof: bool = False
    """Whether a subscription may still be on its way when :meth:`connect` returns."""

    has_heartbeat: bool = False
    """Whether :meth:`beat` does anything."""

    @abstractmethod
    def receive_nowait(self, channel: ChannelName) -> list[Message]:
        """The messages that have arrived on `channel`, in order, some tens at the most.

        Empty where all that arrived was dropped.

        Raises:
            anyio.WouldBlock: Nothing has arrived.
        """

    @abstractmethod
    async def wait_readable(self, channel: ChannelName) -> None:
        """Waits until something may have arrived on `channel`; may return too early.

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

    async def connect(self) -> None:
        """Waits until every channel is connected, for as long as that takes. Cancellation changes nothing."""

    def unconnected(self) -> Mapping[str, str]:
        """For each channel that is not connected: its endpoint, and what was seen of it."""
        return {}

    def settle(self) -> None:
        """Called when every channel is connected and iopub is proven: at first, and after each outage.

        From here on a narrower subscription counts.
        """

    def unsettle(self) -> None:
        """Called when every channel is connected again after an outage, and iopub is yet to be proven."""

    async def watch(self, channel: ChannelName) -> None:
        """Follows the connection of `channel` for as long as the transport is used.

        Raises:
            KernelDied: The connection is lost, and can never come back.
        """
        await anyio.sleep_forever()

    async def wait_lost(self) -> None:
        """Waits until the connection of a channel was lost since :meth:`settle`, be it back or not."""
        await anyio.sleep_forever()

    def take_lost(self) -> Collection[ChannelName] | None:
        """The channels whose connection was lost, be it back or not, since this or :meth:`settle` was called.

        ``None`` where that cannot be told: all of them count as lost then.
        """
        return None

    def reconnect(self) -> None:
        """Connects anew what is still connected to a kernel that has exited: somebody holds its sockets."""

    async def wait_disconnected(self) -> None:
        """Waits until no channel is connected; by then all that was sent to us can be received."""

    def dropped(self) -> Mapping[str, int]:
        """How many arrivals were dropped, by reason (``"MalformedMessage"``, ...)."""
        return {}

    async def beat(self) -> None:
        """Sends a heartbeat and waits for its echo. Cancellation gives up on that echo."""
        await anyio.sleep_forever()

    def rest(self) -> None:
        """Called when the channels were left and the transport is the caller's: nobody waits for it now."""

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
        self._wire = wire
        self._dropped: Counter[str] = Counter()

    @abstractmethod
    def take(self, channel: ChannelName) -> Sequence[Sequence[Frame]]:
        """The frames of each message that has arrived, some tens at the most.

        Raises:
            anyio.WouldBlock: Nothing has arrived.
        """

    @abstractmethod
    def give(self, channel: ChannelName, frames: Sequence[Frame]) -> None:
        """Takes over all of `frames` as one message, or none of them.

        Raises:
            anyio.WouldBlock: They cannot be taken now.
        """

    def receive_nowait(self, channel: ChannelName) -> list[Message]:
        return self.decode_all(channel, self.take(channel))

    def decode_all(self, channel: ChannelName, arrived: Iterable[Sequence[Frame]]) -> list[Message]:
        """The messages among `arrived`, the others refused."""
        decode = self._wire.decode
        messages: list[Message] = []
        for frames in arrived:
            try:
                messages.append(decode(frames))
            except RemoteProtocolError as error:
                messages += self.refuse(channel, frames, error)
        return messages

    def refuse(
        self, channel: ChannelName, frames: Sequence[Frame], error: RemoteProtocolError
    ) -> list[Message]:
        """Counts `frames`, which are no message because of `error`; returns what is saved from them."""
        kind = type(error).__name__
        self._dropped[kind] += 1
        if self._dropped[kind] == 1:
            logger().warning(
                "dropped a message on %s: %s; further ones of this kind are only counted",
                channel,
                error,
            )
        return []

    def send_nowait(self, channel: ChannelName, message: Message) -> None:
        self.give(channel, self._wire.encode(message))

    def dropped(self) -> Mapping[str, int]:
        return dict(self._dropped)
