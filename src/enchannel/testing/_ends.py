"""The kernel's end of the channels: what a fake kernel stands on.

A :class:`KernelEnd` is the mirror image of a transport. It carries frames, the first of which is the
client's identity (on iopub the topic), for any number of clients. Like a transport it takes and gives
synchronously and only waits asynchronously.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence

import anyio
import attrs
from anyio.lowlevel import checkpoint

from .._protocol.connection_info import CHANNELS, ChannelName
from .._protocol.message import Message, new_id, prepare
from .._protocol.wire import Frame, Wire

__all__ = ["KernelEnd"]


class KernelEnd(ABC):
    """The kernel's end of the channels, for who writes a kernel by hand, or a transport.

    It carries what any number of clients send and get; each is called by its identity. Like a
    transport it takes and gives synchronously, and only waits asynchronously.
    :func:`memory_transport_pair` makes one.

    Args:
        wire: Signs and encodes, verifies and decodes.

    Attributes:
        wait_awake: Waits while the kernel is silent.
        session: In the header of messages that leave it out.

    Example:
        .. code-block:: python

            transport, end = memory_transport_pair()
            async with open_channels(transport) as ch, ch.execute("1") as execution:
                identity, request = await end.receive("shell")
                reply = messages.execute_reply(1, parent=request)
                end.send("shell", identity, reply)
                end.publish(messages.status("idle", parent=request))
                print((await execution.wait()).msg_type)  # execute_reply
    """

    channels: Sequence[ChannelName] = CHANNELS

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.session: str = new_id()
        self.wait_awake: Callable[[], Awaitable[None]] = checkpoint
        self._taken: dict[ChannelName, list[Sequence[Frame]]] = {}

    @abstractmethod
    def take(self, channel: ChannelName) -> Sequence[Sequence[Frame]]:
        """The frames of what has arrived, each led by its sender's identity.

        Raises:
            anyio.WouldBlock: Nothing has arrived.
        """

    @abstractmethod
    async def wait_readable(self, channel: ChannelName) -> None:
        """Waits until something may have arrived on `channel`; may return too early."""

    @abstractmethod
    def give(self, channel: ChannelName, frames: Sequence[Frame]) -> None:
        """Sends `frames` to the client that the first of them names; on iopub to all its subscribers."""

    @abstractmethod
    async def wait_client(self) -> None:
        """Waits until there is a client who gets what is published. Cancellation changes nothing."""

    @abstractmethod
    def vanish(self, reason: str = "") -> None:
        """Cuts every connection, as the death of a kernel does."""

    @abstractmethod
    async def appear(self) -> None:
        """Listens; after :meth:`vanish` again where it did before, and what was under way is gone."""
        self._taken.clear()

    async def serve(self) -> None:
        """What a kernel does besides answering messages, for as long as it lives."""

    async def aclose(self) -> None:
        """Lets go of everything."""
        self.vanish()

    # In terms of messages.

    async def receive(self, channel: ChannelName) -> tuple[bytes, Message]:
        """The sender's identity and the next message on `channel`.

        A cancelled receive has taken nothing.

        Raises:
            RemoteProtocolError: What came is no message.
        """
        while True:
            try:
                return self.receive_nowait(channel)
            except anyio.WouldBlock:
                await self.wait_readable(channel)

    def receive_nowait(self, channel: ChannelName) -> tuple[bytes, Message]:
        """The sender's identity and the next message on `channel`.

        Raises:
            anyio.WouldBlock: Nothing has arrived.
            RemoteProtocolError: What came is no message.
        """
        identity, *frames = self.take_one(channel)
        return bytes(identity), self.wire.decode(frames)

    def take_one(self, channel: ChannelName) -> Sequence[Frame]:
        """The frames of the next message, led by its sender's identity.

        Raises:
            anyio.WouldBlock: Nothing has arrived.
        """
        waiting = self._taken.setdefault(channel, [])
        if not waiting:
            waiting += self.take(channel)
        return waiting.pop(0)

    def send(self, channel: ChannelName, identity: bytes, message: Message) -> None:
        """Sends `message`, completed, to the client called `identity`."""
        self.give(channel, self.wire.encode(self._completed(message), [identity]))

    def publish(self, message: Message, topic: bytes = b"") -> None:
        """Publishes `message`, completed, on iopub."""
        self.give("iopub", self.wire.encode(self._completed(message), [topic]))

    def _completed(self, message: Message) -> Message:
        if "msg_id" in message.header:
            return message
        said = prepare(message, session=self.session, username="kernel")
        return attrs.evolve(said, header={**said.header, **message.header})
