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
from collections.abc import Mapping, Sequence

import anyio

from ._connection_info import ChannelName
from .messages import Message

__all__ = ["Transport"]


class Transport(ABC):
    """Carries messages to and from one kernel."""

    channels: Sequence[ChannelName]
    """The channels that this transport carries."""

    iopub_needs_proof: bool = False
    """Whether a subscription may still be on its way when :meth:`connect` returns."""

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

        Cancellation loses nothing.
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
        """Called once, when every channel is connected and iopub is proven.

        From here on a narrower subscription counts, and a connection that goes and does not come back
        is a lost kernel.
        """

    async def watch(self, channel: ChannelName) -> None:
        """Follows the connection of `channel` for as long as the transport is used.

        Raises:
            KernelDied: The connection is lost for good.
        """
        await anyio.sleep_forever()

    async def wait_disconnected(self) -> None:
        """Waits until no channel is connected; by then all that was sent to us can be received."""

    def dropped(self) -> Mapping[str, int]:
        """How many arrivals were dropped, by reason (``"MalformedMessage"``, ...)."""
        return {}

    async def aclose(self) -> None:
        """Lets go of everything the transport opened; what was sent still goes out for a bounded time."""
