"""ZeroMQ sockets as a transport; made in :mod:`~enchannel._transports.zmq_open`.

The facts it stands on:

* A monitor costs 17 kB and two descriptors. While the connection is made all channels have one; then iopub has, and
  the others from their first use on, or while one that has is away. A caller's own sockets have theirs all the time.
* One context serves the whole process (each costs two threads), with room for the sockets of many
  kernels. It ends with the program, when what was sent is out: memory that was lent to ZeroMQ is freed at a
  program's end. A context that the caller gave is never terminated, and nothing is lent to it.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import math
import os
import threading
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import anyio
import zmq

from .._exceptions import KernelDied
from .._protocol.errors import MalformedMessage, RemoteProtocolError
from .._protocol.message import ChannelName, Message
from .._protocol.wire import Frame, Wire
from .base import ConnectionEvent, FrameTransport, Start, Tell
from .zmq_link import Link

__all__ = ["LINGER", "ZmqTransport", "shared_context"]

LINGER = 1000
"""Milliseconds for which what was sent before closing may still go out."""

MAX_SOCKETS = 16_384
"""Sockets of the shared context. A kernel takes nine to thirteen, by how many monitors it has; the
default of 1,023 would end at 78 kernels."""

_shared: tuple[int, zmq.Context[zmq.Socket[bytes]]] | None = None
_sharing = threading.Lock()


def shared_context() -> zmq.Context[zmq.Socket[bytes]]:
    """The process's context for kernels, of all its threads; a forked child gets one of its own."""
    with _sharing:
        return _shared_context()


def _shared_context() -> zmq.Context[zmq.Socket[bytes]]:
    global _shared  # noqa: PLW0603
    if _shared is None or _shared[0] != os.getpid() or _shared[1].closed:
        # pyzmq's own end frees what was lent. Registered before ours, it comes behind it.
        import zmq.utils.garbage

        context = zmq.Context()
        context.set(zmq.MAX_SOCKETS, min(MAX_SOCKETS, context.get(zmq.SOCKET_LIMIT)))
        if _shared is None:
            atexit.register(_end_shared_context)
        _shared = (os.getpid(), context)
    return _shared[1]


def _end_shared_context() -> None:
    """Waits, for as long as sockets linger, until what was sent is out."""
    if _shared is not None and _shared[0] == os.getpid():
        _shared[1].destroy(linger=LINGER)


class ZmqTransport(FrameTransport):
    """The channels of a kernel over ZeroMQ sockets, a :class:`enchannel.Transport`."""

    def __init__(
        self,
        links: Mapping[ChannelName, Link],
        wire: Wire,
        topics: tuple[bytes, ...] | None,
        heart: Link | None = None,
        *,
        bounded: bool = False,
    ) -> None:
        super().__init__(tuple(links), wire)
        self._links = links
        own = all(link.owned for link in links.values())
        self.followed: Sequence[ChannelName] = tuple(links)
        if own and "iopub" in links:
            # While iopub's reader waits for room ZeroMQ reads no more of its socket, and does not see its end.
            another = tuple(links)[:1] if bounded else ()
            self.followed = tuple(dict.fromkeys((*another, "iopub")))
        self.iopub_needs_proof: bool = topics is not None and "iopub" in links
        # Until iopub is proven it is subscribed to everything, for the proof may have any topic. What the
        # caller did not subscribe to is held back here, then and later: it may be on its way still.
        self._topics = topics or (b"",)
        self._narrow = self._topics != (b"",)
        self._wide = self._narrow
        self.sees_everything: bool = not self._narrow
        # What it proves depends on the kernel's status, which a narrower subscription does not show.
        self.has_heartbeat: bool = heart is not None and not self._narrow
        self.held_back: int = 0
        self._heart = heart
        self._beats = itertools.count(1)
        self._beat = b""
        self._start: Start | None = None
        self._tell: Tell | None = None
        for name, link in links.items():
            self._trust(name, link)

    def _trust(self, name: ChannelName, link: Link) -> None:
        # By its topic a message is held back whole, and not with another that it was read with.
        link.trusted = self.wire.signed and not (self._narrow and name == "iopub")

    # Receiving and sending.

    def take(self, channel: ChannelName, most: float, size: float) -> list[list[Frame]]:
        arrived = self._links[channel].receive(most, size)
        if not arrived:
            raise anyio.WouldBlock
        return arrived

    def receive_nowait(
        self, channel: ChannelName, most: float = math.inf, size: float = math.inf
    ) -> list[Message]:
        if self._narrow and channel == "iopub":
            messages = self._receive_covered(most, size)
        else:
            messages = super().receive_nowait(channel, most, size)
        # What does not verify may come from anything that listens there.
        if messages and self._links[channel].accepted:
            self._links[channel].assume_connected()
        return messages

    def _receive_covered(self, most: float, size: float) -> list[Message]:
        messages: list[Message] = []
        for frames in self.take("iopub", most, size):
            decoded = self.decode_all("iopub", [frames])
            if bytes(frames[0]).startswith(self._topics):
                messages += decoded
            else:
                self.held_back += len(decoded)
        return messages

    def has_arrived(self, channel: ChannelName) -> bool:
        return self._links[channel].has_arrived()

    def refuse(
        self, channel: ChannelName, frames: Sequence[Frame], error: RemoteProtocolError
    ) -> list[Message]:
        # Frame by frame as well, so that the same is delivered whatever it was read with.
        self._links[channel].trusted = False
        saved = self.wire.decode_last(frames) if self.wire.signed else None
        if saved is None:
            return super().refuse(channel, frames, error)
        super().refuse(
            channel, frames, MalformedMessage("frames that are none of a message's stand before it")
        )
        return [saved]

    def give(self, channel: ChannelName, frames: Sequence[Frame]) -> None:
        try:
            self._links[channel].send(frames)
        except KernelDied as died:
            # Whoever reads is told as well.
            self.lose(str(died))
            raise

    def wait_readable(self, channel: ChannelName) -> Coroutine[Any, Any, None]:
        # Not a coroutine around the link's: it is resumed, and kept, for each reader.
        return self._links[channel].wait_readable()

    async def wait_writable(self, channel: ChannelName) -> None:
        await self._links[channel].wait_writable()

    # The connection.

    def begin(self) -> None:
        # Those of the last use are gone.
        self._tell = self._start = None
        for link in self._links.values():
            link.begin()

    def follow(self, tell: Tell, start: Start) -> None:
        self._tell, self._start = tell, start
        for link in self._links.values():
            start(link.follow, self._hear)

    def _hear(self, link: Link, event: ConnectionEvent) -> None:
        channel: ChannelName = next(name for name, each in self._links.items() if each is link)
        if event is ConnectionEvent.CONNECTED:
            self._trust(channel, link)
            for other in self._links.values():
                other.assume_connected_like(link)
            self._watch_no_more_than_needed()
        elif event is ConnectionEvent.DISCONNECTED:
            for other in self._links.values():
                self._watch(other)
        if self._tell is not None:
            self._tell(event, (channel,), f"{link.endpoint} ({link.seen})")

    def watch(self, channel: ChannelName) -> None:
        link = self._links.get(channel)
        if link is None or channel in self.followed:
            return
        self._watch(link)
        self.followed = (*self.followed, channel)

    def _watch_no_more_than_needed(self) -> None:
        if not self.unconnected():
            for name, link in self._links.items():
                if name not in self.followed:
                    link.rest()

    def _watch(self, link: Link) -> None:
        if link.watch() and self._start is not None:
            self._start(link.follow, self._hear)

    def unconnected(self) -> Mapping[str, str]:
        return {
            channel: f"{link.endpoint} ({link.seen})"
            for channel, link in self._links.items()
            if not link.connected
        }

    def reconnect(self, channels: Sequence[ChannelName]) -> None:
        for channel in channels:
            self._links[channel].reconnect()

    def forget(self, channel: ChannelName) -> None:
        self._links[channel].forget()

    def widen(self) -> None:
        if self._narrow and not self._wide:
            self._wide = True
            self._resubscribe((b"",), self._topics)

    def narrow(self) -> None:
        if self._wide:
            self._wide = False
            self._resubscribe(self._topics, (b"",))

    def mute(self) -> None:
        self._resubscribe((), (b"",) if self._wide else self._topics)
        self.sees_everything = False
        self._topics = ()
        self._narrow, self._wide = True, False

    def _resubscribe(self, new: Sequence[bytes], old: Sequence[bytes]) -> None:
        link = self._links["iopub"]
        if link.socket.closed:
            return
        # The new first: there must be no moment without a subscription.
        for topic in new:
            link.socket.subscribe(topic)
        for topic in old:
            link.socket.unsubscribe(topic)
        link.recheck()

    def beat(self) -> bool:
        assert self._heart is not None
        echoed = any(frames[-1] == self._beat for frames in self._heart.receive())
        self._beat = str(next(self._beats)).encode()
        # Where nobody takes them, one waits to be sent and the others are not. What is wrong with the socket
        # the readers meet as well, and what they say of it counts.
        with contextlib.suppress(anyio.WouldBlock, KernelDied):
            # As a REQ socket frames it, which some kernels insist on.
            self._heart.send([b"", self._beat])
        return echoed

    def lose(self, said: str) -> None:
        """The other end is gone, or cannot be reached any more; of sockets without a connection (inproc) others say so."""
        if self._tell is not None:
            self._tell(ConnectionEvent.GONE, self.channels, said)

    def abandon(self) -> None:
        for link in self._links.values():
            link.abandon()
        if self._heart is not None:
            self._heart.close()

    async def aclose(self) -> None:
        for link in self._links.values():
            link.close()
        if self._heart is not None:
            self._heart.close()
