"""ZeroMQ sockets as a transport; with its two helpers the only room that imports zmq.

The facts it stands on:

* A PUB socket drops what its subscriber's queue does not hold, so our receive high-water mark is 0:
  memory is the limit. Where the caller bounds the streams it is that bound, or the messages that the
  readers leave would pile up here.
* The send high-water mark is 0 as well, and a send waits for a connection and for nothing else. That is
  decided by the monitor's word, and not by ``IMMEDIATE``: with it a disconnection takes away what
  has arrived and was not read yet (measured: a kernel's last ten replies gone in 49 of 120 deaths).
* A monitor costs 17 kB and two descriptors. While the connection is made all channels have one; then shell's and
  iopub's tell enough, and the others are watched again when one of these goes.
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
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import anyio.abc
import attrs
import zmq

from .._exceptions import KernelConnectError, KernelDied
from .._protocol.connection_info import CHANNELS, SOCKETS, ChannelName, ConnectionInfo
from .._protocol.errors import LocalProtocolError, MalformedMessage, RemoteProtocolError
from .._protocol.message import Message
from .._protocol.wire import Frame, Wire
from .addresses import resolve
from .base import ConnectionEvent, FrameTransport, Tell
from .zmq_link import Link

__all__ = ["ZmqTransport", "connect_endpoints", "connect_zmq", "wrap_sockets"]

LINGER = 1000
"""Milliseconds for which what was sent before closing may still go out."""

RETRY_INTERVAL = 20
"""Milliseconds between attempts to connect. ZeroMQ's own 100 to 200 would be most of the time that it
takes to join a kernel which has just been started."""

KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 10, 5, 3
"""Seconds of silence before the system asks whether the peer's machine is there, seconds between the
questions, and how many go unanswered before the connection is lost."""

MAX_SOCKETS = 16_384
"""Sockets of the shared context. A kernel takes nine, monitors included, and thirteen while it is opened; the
default of 1,023 would end at 78 kernels."""

MOST_WAITING = 2**31 - 1
"""The largest high-water mark that ZeroMQ knows."""

_FOLLOWED: tuple[ChannelName, ...] = ("shell", "iopub")

_shared: tuple[int, zmq.Context[zmq.Socket[bytes]]] | None = None


def shared_context() -> zmq.Context[zmq.Socket[bytes]]:
    """The process's context for kernels; a forked child gets one of its own."""
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
    """The channels of a kernel over ZeroMQ sockets; made by `connect_zmq` and `wrap_sockets`."""

    def __init__(
        self,
        links: Mapping[ChannelName, Link],
        wire: Wire,
        topics: tuple[bytes, ...] | None,
        heart: Link | None = None,
    ) -> None:
        super().__init__(tuple(links), wire)
        self._links = links
        self.followed: Sequence[ChannelName] = tuple(
            name for name in _FOLLOWED if name in links
        ) or tuple(links)
        self.iopub_needs_proof: bool = topics is not None and "iopub" in links
        # Until iopub is proven it is subscribed to everything, for the proof may have any topic. What the
        # caller did not subscribe to is held back here, then and later: it may be on its way still.
        self._topics = topics or (b"",)
        self._narrow = self._topics != (b"",)
        self._wide = self._narrow
        self.sees_everything: bool = not self._narrow
        # What it proves depends on the kernel's status, which a narrower subscription does not show.
        self.has_heartbeat: bool = heart is not None and not self._narrow
        self._heart = heart
        self._beats = itertools.count(1)
        self._beat = b""
        self._watchers: anyio.abc.TaskGroup | None = None
        self._tell: Tell | None = None
        for name, link in links.items():
            self._trust(name, link)

    def _trust(self, name: ChannelName, link: Link) -> None:
        # By its topic a message is held back whole, and not with another that it was read with.
        link.trusted = self.wire.signed and not (self._narrow and name == "iopub")

    # Receiving and sending.

    def take(self, channel: ChannelName) -> list[list[Frame]]:
        arrived = self._links[channel].receive()
        if not arrived:
            raise anyio.WouldBlock
        return arrived

    def receive_nowait(self, channel: ChannelName) -> list[Message]:
        if not (self._narrow and channel == "iopub"):
            return super().receive_nowait(channel)
        messages: list[Message] = []
        for frames in self.take(channel):
            decoded = self.decode_all(channel, [frames])
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
        link = self._links[channel]
        if not link.by_shape:
            return super().refuse(channel, frames, error)
        link.trusted = False
        saved = self.wire.decode_last(frames)
        if saved is None:
            return super().refuse(channel, frames, error)
        super().refuse(channel, frames, MalformedMessage("too few frames behind the delimiter"))
        return [saved]

    def give(self, channel: ChannelName, frames: Sequence[Frame]) -> None:
        self._links[channel].send(frames)

    async def wait_readable(self, channel: ChannelName) -> None:
        await self._links[channel].wait_readable()

    async def wait_writable(self, channel: ChannelName) -> None:
        await self._links[channel].wait_writable()

    # The connection.

    def begin(self) -> None:
        for link in self._links.values():
            link.begin()

    async def follow(self, tell: Tell) -> None:
        self._tell = tell
        async with anyio.create_task_group() as tasks:
            self._watchers = tasks
            first, *others = self._links.values()
            for link in others:
                tasks.start_soon(link.follow, self._hear)
            await first.follow(self._hear)

    def _hear(self, link: Link, event: ConnectionEvent) -> None:
        channel = next(name for name, each in self._links.items() if each is link)
        if event is ConnectionEvent.CONNECTED:
            self._trust(channel, link)
            for other in self._links.values():
                other.assume_connected_like(link)
            self._watch_no_more_than_needed()
        elif event is ConnectionEvent.DISCONNECTED and channel in self.followed:
            self._watch_all()
        if self._tell is not None:
            self._tell(event, (channel,), f"{link.endpoint} ({link.seen})")

    def _watch_no_more_than_needed(self) -> None:
        if not self.unconnected():
            for name, link in self._links.items():
                if name not in self.followed:
                    link.unwatch()

    def _watch_all(self) -> None:
        for name, link in self._links.items():
            if name not in self.followed and link.watch_anew() and self._watchers is not None:
                self._watchers.start_soon(link.follow, self._hear)

    def unconnected(self) -> Mapping[str, str]:
        return {
            channel: f"{link.endpoint} ({link.seen})"
            for channel, link in self._links.items()
            if not link.connected
        }

    def reconnect(self, channels: Sequence[ChannelName]) -> None:
        for channel in channels:
            self._links[channel].reconnect()

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
        """For sockets without a connection (inproc): whoever knows says that the other end is gone."""
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


async def connect_zmq(
    info: ConnectionInfo,
    identity: bytes,
    *,
    channels: Sequence[str] = SOCKETS,
    topics: tuple[bytes, ...] = (b"",),
    context: zmq.Context[zmq.Socket[bytes]] | None = None,
    max_buffer_size: float = math.inf,
    max_message_size: float = math.inf,
) -> ZmqTransport:
    """A transport whose sockets have begun to connect to the kernel that `info` names.

    Args:
        info: The connection file.
        identity: The routing id of shell, control and stdin.
        channels: Which channels to open, ``"hb"`` for the heartbeat among them.
        topics: The prefixes to subscribe iopub to.
        context: Where to make the sockets, by default the context shared by the process.
        max_buffer_size: Messages that may wait in each socket.
        max_message_size: Bytes that a message which arrives may have.

    Raises:
        KernelConnectError: The host's name has no address, ZeroMQ refused an endpoint, or lacks CurveZMQ where
            the kernel wants it.
    """
    wire = Wire(info.key, info.signature_scheme, max_message_size)
    hosts = [info] if info.transport == "ipc" else await _resolved(info)
    endpoints = {name: [each.endpoint(name) for each in hosts] for name in channels}
    return connect_endpoints(
        endpoints,
        wire,
        identity,
        topics,
        context,
        server_key=info.curve_publickey,
        max_buffer_size=max_buffer_size,
    )


async def _resolved(info: ConnectionInfo) -> list[ConnectionInfo]:
    """`info` with each address of its host."""
    try:
        return [attrs.evolve(info, ip=address) for address in await resolve(info.host)]
    except OSError as error:
        said = f"{info.host} has no address: {error.strerror or error}"
        raise KernelConnectError(said, dict.fromkeys(SOCKETS, said)) from error


def connect_endpoints(
    endpoints: Mapping[str, Sequence[str]],
    wire: Wire,
    identity: bytes,
    topics: tuple[bytes, ...] = (b"",),
    context: zmq.Context[zmq.Socket[bytes]] | None = None,
    *,
    server_key: bytes = b"",
    max_buffer_size: float = math.inf,
) -> ZmqTransport:
    """Like :func:`connect_zmq`, for endpoints that no connection file can name; several for each channel."""
    options: dict[int, int | bytes] = dict(_curve_keys(server_key)) if server_key else {}
    options[zmq.RCVHWM] = 0 if max_buffer_size > MOST_WAITING else math.ceil(max_buffer_size)
    links: dict[str, Link] = {}
    try:
        for name, several in endpoints.items():
            links[name] = _connect(context, name, several, identity, options)
    except BaseException:
        for link in links.values():
            link.close()
        raise
    carried: dict[ChannelName, Link] = {name: links[name] for name in CHANNELS if name in links}
    return ZmqTransport(carried, wire, topics, links.get("hb"))


def _curve_keys(server_key: bytes) -> dict[int, bytes]:
    """The options of a client with a fresh pair of keys of its own (RFC 26, CurveZMQ)."""
    if not has_curve():
        raise KernelConnectError(
            "the kernel's connection file asks for encryption (curve_publickey), and this libzmq was "
            "built without CurveZMQ; pyzmq's wheels have it"
        )
    public, secret = new_curve_keys()
    return {
        zmq.CURVE_SERVERKEY: server_key,
        zmq.CURVE_PUBLICKEY: public,
        zmq.CURVE_SECRETKEY: secret,
    }


def has_curve() -> bool:
    """Whether libzmq can encrypt."""
    return bool(zmq.has("curve"))


def new_curve_keys() -> tuple[bytes, bytes]:
    """A fresh public and secret key, in Z85."""
    public, secret = zmq.curve_keypair()
    return public, secret


def _connect(
    given: zmq.Context[zmq.Socket[bytes]] | None,
    name: str,
    endpoints: Sequence[str],
    identity: bytes,
    options: Mapping[int, int | bytes],
) -> Link:
    context = given or shared_context()
    # inproc is connected from the start, and has no connection to watch; the heartbeat's proves nothing.
    monitored = not endpoints[0].startswith("inproc:") and name != "hb"
    with contextlib.ExitStack() as undo:
        try:
            socket = context.socket(zmq.SUB if name == "iopub" else zmq.DEALER)
            undo.callback(socket.close, linger=0)
            _configure(socket, identity, name)
            for option, value in options.items():
                socket.set(option, value)
            link = Link(context, socket, endpoints, monitored=monitored, lend=given is None)
            undo.callback(link.close)
            link.connect()
        except zmq.ZMQError as error:
            seen = f"{endpoints[0]} ({error.strerror})"
            raise KernelConnectError(f"cannot connect {name} to {seen}", {name: seen}) from error
        undo.pop_all()
    return link


def _configure(socket: zmq.Socket[bytes], identity: bytes, name: str) -> None:
    socket.set(zmq.LINGER, LINGER if name != "hb" else 0)
    socket.set(zmq.IPV6, 1)
    socket.set(zmq.RECONNECT_IVL, RETRY_INTERVAL)
    # A peer's machine that is gone says nothing: the system asks it, where the connection is silent.
    socket.set(zmq.TCP_KEEPALIVE, 1)
    socket.set(zmq.TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE)
    socket.set(zmq.TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL)
    socket.set(zmq.TCP_KEEPALIVE_CNT, KEEPALIVE_COUNT)
    if name == "iopub":
        socket.subscribe(b"")
    elif name == "hb":
        socket.set(zmq.SNDHWM, 1)
    else:
        socket.set(zmq.SNDHWM, 0)
        socket.set(zmq.ROUTING_ID, identity)


def wrap_sockets(
    sockets: Mapping[ChannelName, zmq.Socket[bytes]],
    *,
    key: str | bytes = b"",
    signature_scheme: str = "hmac-sha256",
    max_message_size: float = math.inf,
) -> ZmqTransport:
    """A transport over sockets that the caller has connected already.

    They stay the caller's: nobody else may use them while the transport is in use, and closing the
    transport leaves them open. Sockets of :mod:`zmq.asyncio` are fine.

    Args:
        sockets: For each channel its socket; a channel left out is not carried.
        key: The secret that messages are signed with.
        signature_scheme: ``"hmac-sha256"`` and the like.
        max_message_size: Bytes that a message which arrives may have; see
            :func:`~enchannel.open_kernel_channels`.

    Raises:
        LocalProtocolError: An unknown channel or scheme, or something that is no ZeroMQ socket.
    """
    wire = Wire(key, signature_scheme, max_message_size)
    for channel, socket in sockets.items():
        if channel not in CHANNELS:
            raise LocalProtocolError(
                f"unknown channel {channel!r}; a kernel has {', '.join(CHANNELS)}"
            )
        given: object = socket
        if not isinstance(given, zmq.Socket) or given.closed:
            raise LocalProtocolError(f"{channel} is no open zmq.Socket: {socket!r}")
    links: dict[ChannelName, Link] = {name: _wrap(socket) for name, socket in sockets.items()}
    return ZmqTransport(links, wire, topics=None)


def _wrap(socket: zmq.Socket[bytes]) -> Link:
    endpoint = bytes(socket.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
    # Synchronous views, for the methods of the caller's own objects may be coroutines.
    context, plain = zmq.Context(socket.context), zmq.Socket(socket)
    # Those of zmq.asyncio have the event loop watch them from their first wait on, and have no public way to
    # have it do so again.
    give_back: Callable[[], Any] | None = getattr(socket, "_init_io_state", None)
    # inproc has no connection to watch.
    monitored = not endpoint.startswith("inproc:")
    return Link(context, plain, [endpoint], monitored=monitored, owned=False, give_back=give_back)
