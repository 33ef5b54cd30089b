"""Channels in memory: no sockets, no threads, no time but the event loop's.

:func:`memory_transport_pair` makes the two ends. A message crosses as the frames of the wire protocol,
so that what arrives is a copy, and signatures, bad frames and refused content are those of a real kernel.

Each direction of each channel is a :class:`Pipe`, which misbehaves on command: it can delay, drop,
duplicate or stall what passes. Delays are measured by the event loop's clock, so that Trio's
``autojump_clock`` jumps over them.
"""

from __future__ import annotations

import math
import uuid
from collections import deque
from collections.abc import Iterable, Mapping, Sequence

import anyio
from anyio.lowlevel import checkpoint

from .._bell import Bell
from .._protocol.connection_info import CHANNELS, ChannelName
from .._protocol.errors import LocalProtocolError
from .._protocol.wire import Frame, Wire
from .._transports.base import ConnectionEvent, FrameTransport, Start, Tell
from ._ends import KernelEnd

__all__ = ["MemoryKernelEnd", "MemoryTransport", "Pipe", "memory_transport_pair"]


BATCH = 64
"""Messages that are taken at a time."""


def _counted(count: object) -> int:
    if type(count) is not int or count < 0:
        raise LocalProtocolError(f"count is a number of messages, 0 or more, not {count!r}")
    return count


class Pipe:
    """One direction of one channel, in order, with faults on command.

    Those of a client are its :attr:`MemoryTransport.inbound` and :attr:`MemoryTransport.outbound`.
    Nobody is told of a fault.

    Attributes:
        delay: Seconds that each message put in from now on spends on the way, by the event loop's
            clock; one behind it overtakes nothing.

    Example:
        .. code-block:: python

            async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
                pipe = kernel.clients[0].inbound["shell"]
                pipe.drop()
                try:
                    await ch.request("kernel_info_request")
                except NoReply as lost:
                    print(lost.reason)  # unknown
    """

    def __init__(self, bell: Bell | None = None) -> None:
        self.delay: float = 0.0
        self._bell = bell or Bell()
        self._queue: deque[tuple[float, list[bytes]]] = deque()
        self._stalled = False
        self._to_drop = 0
        self._to_duplicate = 0

    def drop(self, count: int = 1) -> None:
        """Loses the next `count` messages.

        Raises:
            LocalProtocolError: `count` is no number of messages.
        """
        self._to_drop += _counted(count)

    def duplicate(self, count: int = 1) -> None:
        """Delivers each of the next `count` messages twice.

        Raises:
            LocalProtocolError: `count` is no number of messages.
        """
        self._to_duplicate += _counted(count)

    def stall(self) -> None:
        """Holds back what is under way and what comes, until :meth:`resume`."""
        self._stalled = True

    def resume(self) -> None:
        """Lets everything pass that :meth:`stall` held back."""
        self._stalled = False
        self._bell.ring()

    def clear(self) -> None:
        """Loses everything that is under way."""
        self._queue.clear()

    def put(self, frames: list[bytes]) -> None:
        """Sends `frames` on their way."""
        if self._to_drop:
            self._to_drop -= 1
            return
        due = anyio.current_time() + self.delay if self.delay else -math.inf
        if self._queue:
            due = max(due, self._queue[-1][0])  # a shorter delay overtakes nothing
        for _ in range(2 if self._to_duplicate else 1):
            self._queue.append((due, frames))
        self._to_duplicate = max(0, self._to_duplicate - 1)
        self._bell.ring()

    def take(self, most: float = math.inf, size: float = math.inf) -> list[list[bytes]]:
        """What has arrived, a batch at the most; see :meth:`enchannel.Transport.receive_nowait`."""
        arrived: list[list[bytes]] = []
        while self.arrived and len(arrived) < min(most, BATCH) and size > 0:
            arrived.append(self._queue.popleft()[1])
            size -= sum(map(len, arrived[-1]))
        return arrived

    @property
    def arrived(self) -> bool:
        """Whether :meth:`take` would give anything."""
        return bool(self._queue) and not self._stalled and self.due <= _now(self.due)

    async def wait(self) -> None:
        """Waits until something may have arrived."""
        with anyio.CancelScope(deadline=self.due):
            await self._bell.wait()

    def wake(self) -> None:
        """Wakes who waits."""
        self._bell.ring()

    @property
    def due(self) -> float:
        """When the next message arrives, by the event loop's clock; ``inf`` where none is under way."""
        return self._queue[0][0] if self._queue and not self._stalled else math.inf


def _now(due: float) -> float:
    return due if due == -math.inf else anyio.current_time()


class MemoryTransport(FrameTransport):
    """The client's end of channels in memory; made by :func:`memory_transport_pair`.

    Those of a :class:`FakeKernel` in memory are its ``clients``. It is a transport for
    :func:`enchannel.open_channels`, and fails on command: :meth:`cut` and :meth:`mend` take the
    connection away and bring it back, the pipes lose and delay what passes.

    Attributes:
        identity: What the kernel knows this client by.
        inbound: For each channel the :class:`Pipe` from the kernel.
        outbound: For each channel the :class:`Pipe` to the kernel.

    Example:
        .. code-block:: python

            async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
                await ch.run("6 * 7")
                (client,) = kernel.clients
                client.cut()
                client.mend()
                await ch.run("6 * 7")
                print(ch.statistics().outages)  # 1
    """

    def __init__(
        self, end: MemoryKernelEnd, identity: bytes, topics: tuple[bytes, ...], wire: Wire
    ) -> None:
        super().__init__(CHANNELS, wire)
        self.identity = identity
        self.followed: Sequence[ChannelName] = CHANNELS
        self.sees_everything: bool = topics == (b"",)
        self.inbound: dict[ChannelName, Pipe] = {name: Pipe() for name in CHANNELS}
        self.outbound: dict[ChannelName, Pipe] = {name: Pipe(end.bells[name]) for name in CHANNELS}
        self._end = end
        self._topics = topics
        self._gone = ""
        self._away: set[ChannelName] = set()
        self._abandoned = False
        self._tell: Tell | None = None
        self._news = Bell()

    def take(self, channel: ChannelName, most: float, size: float) -> list[list[bytes]]:
        arrived = self.inbound[channel].take(most, size)
        if not arrived:
            raise anyio.WouldBlock
        return arrived

    def has_arrived(self, channel: ChannelName) -> bool:
        return self.inbound[channel].arrived

    def give(self, channel: ChannelName, frames: Sequence[Frame]) -> None:
        if channel in self._away:
            raise anyio.WouldBlock
        self.outbound[channel].put([self.identity, *map(bytes, frames)])

    async def wait_writable(self, channel: ChannelName) -> None:
        await self._news.wait()

    async def wait_readable(self, channel: ChannelName) -> None:
        if self._abandoned or self.has_arrived(channel):
            await checkpoint()
        else:
            await self.inbound[channel].wait()

    def begin(self) -> None:
        self._abandoned = False

    def follow(self, tell: Tell, start: Start) -> None:
        self._tell = tell
        start(self._tell_the_end)

    async def _tell_the_end(self) -> None:
        while not (self._abandoned or self._gone):
            await self._news.wait()
        if self._gone:
            self._say(ConnectionEvent.GONE, self.channels, self._gone)

    def unconnected(self) -> Mapping[str, str]:
        if self._gone:
            return dict.fromkeys(self.channels, self._gone)
        return {name: "cut in memory" for name in self.channels if name in self._away}

    def cut(self, *channels: ChannelName) -> None:
        """Loses the connection of `channels`, by default of all: what is under way is lost, and what is sent."""
        lost = channels or self.channels
        self._away.update(lost)
        for channel in lost:
            self.outbound[channel].clear()
            self.inbound[channel].clear()
        self._say(ConnectionEvent.DISCONNECTED, lost, "the connection in memory was cut")

    def mend(self, *channels: ChannelName) -> None:
        """Brings back what :meth:`cut` took away."""
        back = channels or self.channels
        self._away.difference_update(back)
        self._say(ConnectionEvent.CONNECTED, back, "the connection in memory is back")

    def _say(self, event: ConnectionEvent, channels: Sequence[ChannelName], said: str) -> None:
        if self._tell is not None and not self._abandoned:
            self._tell(event, channels, said)
        self._news.ring()

    def forget(self, channel: ChannelName) -> None:
        self.inbound[channel].clear()

    def abandon(self) -> None:
        self._abandoned = True
        self._news.ring()
        for pipe in self.inbound.values():
            pipe.wake()

    async def aclose(self) -> None:
        self.abandon()
        self._end.disconnect(self)

    def arrive(self, channel: ChannelName, frames: list[bytes]) -> None:
        """What the kernel sends."""
        if channel in self._away:
            return
        if channel != "iopub" or frames[0].startswith(self._topics):
            self.inbound[channel].put(frames)

    def lose(self, reason: str) -> None:
        """The kernel is gone."""
        self._gone = reason
        self._news.ring()

    def blink(self) -> None:
        """The kernel was gone for a moment."""
        self.cut()
        self.mend()


class MemoryKernelEnd(KernelEnd):
    """The kernel's end of channels in memory, for any number of clients.

    Args:
        key: What messages are signed with; empty for unsigned messages.

    Attributes:
        clients: The ends of those that are connected.

    Example:
        .. code-block:: python

            end = MemoryKernelEnd()
            async with open_channels(end.connect(b"ada")) as ch:
                async with ch.subscribe("iopub") as listener:
                    end.publish(messages.status("busy"))
                    channel, msg = await listener.receive()
                    print(msg.msg_type)  # status
    """

    def __init__(self, key: bytes = b"") -> None:
        super().__init__(Wire(key))
        self.bells: dict[ChannelName, Bell] = {name: Bell() for name in CHANNELS}
        self.clients: list[MemoryTransport] = []
        self._key = key
        self._gone = ""
        self._more = Bell()

    def connect(
        self, identity: bytes | None = None, topics: tuple[bytes, ...] = (b"",)
    ) -> MemoryTransport:
        """One more client, as a transport for :func:`enchannel.open_channels`.

        Args:
            identity: What the kernel is to know it by; by default a fresh one.
            topics: What it gets of iopub, by the prefixes of the topics; by default all.
        """
        name = identity or str(uuid.uuid4()).encode()
        transport = MemoryTransport(self, name, topics, Wire(self._key))
        self.clients.append(transport)
        self._more.ring()
        if self._gone:
            transport.lose(self._gone)
        return transport

    def disconnect(self, transport: MemoryTransport) -> None:
        """One client fewer; no error where it is gone already."""
        if transport in self.clients:
            self.clients.remove(transport)

    def take(self, channel: ChannelName) -> list[list[bytes]]:
        arrived = [frames for pipe in self._pipes(channel) for frames in pipe.take()]
        if not arrived:
            raise anyio.WouldBlock
        return arrived

    async def wait_readable(self, channel: ChannelName) -> None:
        due = min((pipe.due for pipe in self._pipes(channel)), default=math.inf)
        if due > -math.inf:
            with anyio.CancelScope(deadline=due):
                await self.bells[channel].wait()

    def give(self, channel: ChannelName, frames: Sequence[Frame]) -> None:
        if self._gone:
            return
        copied = [bytes(frame) for frame in frames]
        for client in self.clients:
            if channel == "iopub":
                client.arrive(channel, copied)
            elif client.identity == copied[0]:
                client.arrive(channel, copied[1:])

    async def wait_client(self) -> None:
        await checkpoint()
        while not self.clients:
            await self._more.wait()

    def vanish(self, reason: str = "the connection in memory was cut") -> None:
        self._gone = reason
        for client in self.clients:
            client.lose(reason)

    async def appear(self) -> None:
        await super().appear()
        self._gone = ""
        for channel in CHANNELS:
            for pipe in self._pipes(channel):
                pipe.clear()
        for client in self.clients:
            client.blink()
        await checkpoint()

    def _pipes(self, channel: ChannelName) -> Iterable[Pipe]:
        return (client.outbound[channel] for client in self.clients)


def memory_transport_pair(key: str | bytes = b"") -> tuple[MemoryTransport, MemoryKernelEnd]:
    """Two ends of the same channels, in memory.

    A message crosses as frames, so that signatures and bad messages are those of a real kernel.
    Nobody answers at the kernel's end by itself: :func:`open_fake_kernel` is a kernel.

    Args:
        key: What messages are signed with; empty for unsigned messages.

    Returns:
        The client's end, a transport for :func:`enchannel.open_channels`, and the kernel's.

    Example:
        .. code-block:: python

            transport, end = memory_transport_pair()
            async with open_channels(transport) as ch:
                sent = await ch.shell.send(messages.kernel_info_request())
                identity, request = await end.receive("shell")
                print(request.msg_type)  # kernel_info_request
    """
    end = MemoryKernelEnd(key.encode() if isinstance(key, str) else key)
    return end.connect(), end
