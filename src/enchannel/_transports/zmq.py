"""ZeroMQ sockets as a transport; the only module that imports zmq.

The facts it stands on:

* Any call on a socket may consume the edge that its reader waits for. So whoever calls one while the
  reader may be waiting has it look again (:meth:`Link.recheck`).
* ``connect()`` says nothing of the peer. The socket monitor does: a channel is connected from
  ``HANDSHAKE_SUCCEEDED`` to ``DISCONNECTED``, which comes milliseconds after a kernel's death. From then
  on ZeroMQ tries to reconnect by itself.
* A PUB socket drops what its subscriber's queue does not hold, so our receive high-water mark is 0:
  memory is the limit. Where the caller bounds the streams it is that bound, or the messages that the
  readers leave would pile up here.
* What is no ZMTP, or larger than a caller's context allows, ends a connection for good: ZeroMQ does not
  connect again by itself, and says so by saying nothing. Then we do (:meth:`Link.revive`).
* Where nobody listens, the system may give our own end the very port that it connects to: the connection
  then is one with itself (TCP's simultaneous open), holds a port that the kernel wants, and is ended.
* The send high-water mark is 0 as well, and a send waits for a connection and for nothing else. That is
  decided here, by the monitor's word, and not by ``IMMEDIATE``: with it a disconnection takes away what
  has arrived and was not read yet (measured: a kernel's last ten replies gone in 49 of 120 deaths).
* Whether more frames follow is what costs in reading (see :func:`_read_by_shape`). Signed messages are
  read by their shape, as long as everything on the channel has it: the signature tells where a message
  begins that stands behind a malformed one. From the first that is refused on, and always where nothing
  is signed, every frame is asked.
* One context serves the whole process (each costs two threads), with room for the sockets of many
  kernels. A context that the caller gave is never terminated.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import zmq

from .._exceptions import (
    KernelConnectError,
    KernelDied,
    LocalProtocolError,
    MalformedMessage,
    RemoteProtocolError,
)
from .._protocol.connection_info import CHANNELS, SOCKETS, ChannelName, ConnectionInfo
from .._protocol.message import Message, new_id
from .._protocol.wire import DELIMITER, Frame, Wire
from .base import FrameTransport
from .readiness import Readiness, stay_ready

__all__ = ["Link", "ZmqTransport", "connect_endpoints", "connect_zmq", "wrap_sockets"]

BATCH = 64
"""How many messages are taken from a socket before others run: large enough that the scheduler costs
little per message, small enough that a flood on one channel delays the others by a millisecond."""

LINGER = 1000
"""Milliseconds for which what was sent before closing may still go out."""

GIVEN_UP = 0.25
"""Seconds after which a connection that ended, and of which the monitor has said nothing more, is one that
ZeroMQ has given up. Where it has not, it says within a millisecond that it tries again."""

RETRY_INTERVAL = 20
"""Milliseconds between attempts to connect. ZeroMQ's own 100 to 200 would be most of the time that it
takes to join a kernel which has just been started."""

KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 10, 5, 3
"""Seconds of silence before the system asks whether the peer's machine is there, seconds between the
questions, and how many go unanswered before the connection is lost."""

MAX_SOCKETS = 16_384
"""Sockets of the shared context. A kernel takes thirteen, monitors included; the default of 1,023 would end
at 78 kernels."""

MOST_WAITING = 2**31 - 1
"""The largest high-water mark that ZeroMQ knows."""

COPIED = 8192
"""Bytes from which on a frame that arrived is viewed and not copied."""

UNCOPIED = 1 << 20
"""Bytes from which on a frame that is sent is lent to ZeroMQ and not copied. It costs pyzmq a thread, once
in the process, to learn when it may let go of what was lent."""

# Plain integers: arithmetic with zmq's flags takes 1 to 2 µs.
_NOBLOCK = int(zmq.NOBLOCK)
_SNDMORE = int(zmq.SNDMORE)
_POLLIN = int(zmq.POLLIN)
_EVENTS = int(zmq.EVENTS)

_WATCHED = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
)

_SEEN = {
    zmq.EVENT_CONNECTED: "accepted the connection, but no ZeroMQ handshake came",
    zmq.EVENT_CONNECT_RETRIED: "refused or dropped the connection",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the ZeroMQ handshake failed",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "the ZeroMQ handshake failed: is it a kernel's channel?",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "the ZeroMQ handshake failed: not authorised",
    zmq.EVENT_DISCONNECTED: "disconnected",
}

_ENDED = (
    zmq.EVENT_DISCONNECTED,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
)
"""Behind these ZeroMQ either says that it tries again, or never does."""

_shared: tuple[int, zmq.Context[zmq.Socket[bytes]]] | None = None


def shared_context() -> zmq.Context[zmq.Socket[bytes]]:
    """The process's context for kernels; a forked child gets one of its own."""
    global _shared  # noqa: PLW0603
    if _shared is None or _shared[0] != os.getpid() or _shared[1].closed:
        context = zmq.Context()
        context.set(zmq.MAX_SOCKETS, min(MAX_SOCKETS, context.get(zmq.SOCKET_LIMIT)))
        _shared = (os.getpid(), context)
    return _shared[1]


# What it takes to read one waiting message of seven frames, measured in one run:
#
#     recv_multipart, which asks each frame through getsockopt   11.4 µs
#     seven zmq.Frame, each of which knows whether more follow    7.6
#     two of these (the first and the last) and five plain ones   3.3
#     seven plain ones, none of them asked                        1.4


def _read_exactly(socket: zmq.Socket[bytes]) -> list[Frame]:
    """The frames of one message, each asked whether more follow."""
    recv = socket.recv
    frames: list[Frame] = []
    more = True
    while more:
        frame = recv(_NOBLOCK, False)
        more = frame.more
        frames.append(_kept(frame))
    return frames


def _read_by_shape(socket: zmq.Socket[bytes]) -> list[Frame]:
    """The frames of one well-formed message; or of several, of which all but the last are malformed.

    The frames from the delimiter to the last part but one are not asked. A message that ends among them
    is read past its end, into at most one good message, because these are fewer than a good one has; and
    the end of that one is asked for again. So what is returned always ends where a message ends, and
    :meth:`Wire.decode_last` finds where it began. Parts of several messages make up one that verifies
    only where their sender could as well have sent it in one piece.
    """
    recv = socket.recv
    frame = recv(_NOBLOCK, False)
    more = frame.more
    frames: list[Frame] = [frame.bytes]
    if more and frames[0] != DELIMITER:
        frames.append(recv(_NOBLOCK))
        more = frames[1] == DELIMITER or bool(socket.get(zmq.RCVMORE))
    if more and frames[-1] == DELIMITER:
        try:
            frames += recv(_NOBLOCK), recv(_NOBLOCK), recv(_NOBLOCK), recv(_NOBLOCK)
            frame = recv(_NOBLOCK, False)
        except zmq.Again:
            # The message ended too early, and none is behind it.
            return frames
        more = frame.more
        frames.append(frame.bytes)
    while more:
        frame = recv(_NOBLOCK, False)
        more = frame.more
        frames.append(_kept(frame))
    return frames


def _kept(frame: zmq.Frame) -> Frame:
    """The bytes of a small frame, a view of a large one.

    A view keeps the memory that ZeroMQ reads into, 8 KiB at a time, and large frames have their own.
    """
    return frame.bytes if len(frame) < COPIED else frame.buffer.toreadonly()


# Behind zmq.Socket.send, which looks for options that only draft sockets have: 3 of 6.5 µs a message.
_send_frame: Any = zmq.backend.Socket.send


def _send(socket: zmq.Socket[bytes], frame: Frame, flags: int) -> None:
    # What is lent is read until it is sent, and the caller may change a writable buffer before that.
    lent = len(frame) >= UNCOPIED and (isinstance(frame, bytes) or frame.readonly)
    _send_frame(socket, frame, flags, not lent)


class Link:
    """One channel: its socket, and what its monitor says of the connection."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        socket: zmq.Socket[bytes],
        endpoint: str,
        *,
        monitor: bool = True,
        connected: bool = False,
        owned: bool = True,
        give_back: Callable[[], object] | None = None,
    ) -> None:
        self._owned = owned
        self._give_back = give_back
        self.socket: zmq.Socket[bytes] = socket
        self.endpoint: str = endpoint
        self.trusted: bool = False
        """Whether the next batch may be read by shape."""
        self.by_shape: bool = False
        """Whether the batch at hand was."""
        self.connected: anyio.Event = anyio.Event()
        self.disconnected: anyio.Event = anyio.Event()
        self.lost: bool = False
        """Whether the connection was lost, and nobody has taken note of it."""
        self.seen: str = "nothing answered"
        self._ended: bool = False
        self._to_itself: bool = False
        # Made by the task that waits first: a transport may be made before any event loop runs.
        self._readiness: Readiness | None = None
        self._limit = BATCH
        self._writable: anyio.Event | None = None
        self._monitor = _monitor(context, socket) if monitor else None
        if connected:
            self.connected.set()
        else:
            self.disconnected.set()

    def receive(self) -> list[list[Frame]]:
        """The frames of what has arrived, a batch at most; empty where nothing has.

        The first message behind a wait comes alone: most often there is no other, and whoever waits for
        it need not wait until that is known (a vain read takes 8 µs).
        """
        self.by_shape = self.trusted
        read = _read_by_shape if self.by_shape else _read_exactly
        batch: list[list[Frame]] = []
        limit, self._limit = self._limit, BATCH
        try:
            while len(batch) < limit:
                batch.append(read(self.socket))
        except zmq.Again:
            pass
        return batch

    async def wait_readable(self) -> None:
        if self._readiness is None:
            descriptor = _descriptor(self.socket)
            self._readiness = stay_ready(descriptor, self._readable, self._give_back)
        if await self._readiness.wait():
            self._limit = 1
            self._wake_writers()

    def send(self, frames: Sequence[Frame]) -> None:
        if self.monitored and not self.connected.is_set():
            raise anyio.WouldBlock
        try:
            try:
                # Again can only come of the first frame; once it is taken, so are the others.
                for frame in frames[:-1]:
                    _send(self.socket, frame, _NOBLOCK | _SNDMORE)
                _send(self.socket, frames[-1], _NOBLOCK)
            finally:
                self.recheck()
        except zmq.Again:
            raise anyio.WouldBlock from None
        except zmq.ZMQError as error:
            raise KernelDied(f"{self.endpoint} can no longer be sent to: {error}") from error

    def recheck(self) -> None:
        """Wakes the reader where the call just made has eaten the edge that it waits for."""
        if self._readiness is not None:
            self._readiness.recheck()

    def _readable(self) -> bool:
        return bool(int(self.socket.get(_EVENTS)) & _POLLIN)

    async def wait_writable(self) -> None:
        # The reader owns the descriptor and wakes us. It may itself be waiting for a slow listener, so
        # look again now and then; this happens only while there is no connection.
        self._writable = self._writable or anyio.Event()
        with anyio.move_on_after(0.05):
            await self._writable.wait()

    def _wake_writers(self) -> None:
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    async def next_event(self) -> None:
        """Waits for the monitor's next word and takes it over. Cancellation loses no event."""
        assert self._monitor is not None
        while not self.take_events():
            await anyio.wait_readable(_descriptor(self._monitor))

    def take_events(self) -> bool:
        """Takes over all that the monitor has said, if anything."""
        said = with_itself = False
        while self._monitor is not None:
            try:
                frames = self._monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            said = True
            # Not zmq.utils.monitor, which takes 22 ms to import, for it imports asyncio as well.
            event, value = struct.unpack("=Hi", frames[0])
            if event == zmq.EVENT_CONNECTED:
                self._to_itself = self._owned and _is_its_own_peer(value)
            with_itself = event == zmq.EVENT_HANDSHAKE_SUCCEEDED and self._to_itself
            if not with_itself:
                self._see(event)
        if with_itself:
            self.reconnect()
            self.seen = _SEEN[zmq.EVENT_CONNECT_RETRIED]
        return said

    def _see(self, event: int) -> None:
        was_connected = self.connected.is_set()
        self._ended = event in _ENDED
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.connected.set()
            self.disconnected = anyio.Event()
            self._wake_writers()
        else:
            # The end of what never was a connection says less than what was seen of it before.
            if was_connected or event != zmq.EVENT_DISCONNECTED:
                self.seen = _SEEN[zmq.Event(event)]
            # A caller's socket counts as connected, and its monitor may say so only later.
            if was_connected and event != zmq.EVENT_CONNECTED:
                self.connected = anyio.Event()
                self.lost = True
                self.disconnected.set()

    async def revive(self) -> None:
        """Waits until this is connected, and connects anew where ZeroMQ has given up."""
        while not self.connected.is_set():
            ended = self._ended
            with anyio.move_on_after(GIVEN_UP):
                await self.connected.wait()
            if ended and self._ended and not self.connected.is_set() and self._owned:
                self.reconnect()

    @property
    def monitored(self) -> bool:
        return self._monitor is not None

    def reconnect(self) -> None:
        """Connects anew, whatever is connected now."""
        self.take_events()
        # Where ZeroMQ has given up, there is nothing to disconnect from.
        with contextlib.suppress(zmq.ZMQError):
            self.socket.disconnect(self.endpoint)
        self._see(zmq.EVENT_DISCONNECTED)
        self.socket.connect(self.endpoint)
        self.recheck()

    def rest(self) -> None:
        """Leaves the event loop."""
        if self._readiness is not None:
            self._readiness.close()
            self._readiness = None

    def close(self) -> None:
        """Closes what was opened here; again, or behind a caller who closed his own, it does no harm."""
        if self._monitor is not None and not self._monitor.closed:
            # Where the socket or its context is gone already, so is the monitor's other end.
            with contextlib.suppress(zmq.ZMQError):
                self.socket.monitor(None, 0)
            self._monitor.close(linger=0)
        self.rest()
        if self._owned:
            self.socket.close()


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
        # What it proves depends on the kernel's status, which a narrower subscription does not show.
        self.has_heartbeat: bool = heart is not None and topics == (b"",)
        self._heart = heart
        self._beats = itertools.count(1)
        self.iopub_needs_proof: bool = topics is not None and "iopub" in links
        self._links = links
        # Until iopub is proven it is subscribed to everything, for the proof may have any topic. What the
        # caller did not subscribe to is held back here, then and later: it may be on its way still.
        self._topics = topics or (b"",)
        self._narrow = self._topics != (b"",)
        self._wide = self._narrow
        self._settled = False
        self._changed = anyio.Event()

    def take(self, channel: ChannelName) -> list[list[Frame]]:
        arrived = self._links[channel].receive()
        if not arrived:
            raise anyio.WouldBlock
        if self._narrow and channel == "iopub":
            arrived = [frames for frames in arrived if bytes(frames[0]).startswith(self._topics)]
        return arrived

    def refuse(
        self, channel: ChannelName, frames: Sequence[Frame], error: RemoteProtocolError
    ) -> list[Message]:
        link = self._links[channel]
        if not link.by_shape:
            return super().refuse(channel, frames, error)
        link.trusted = False
        saved = self._wire.decode_last(frames)
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

    async def connect(self) -> None:
        # Again from the start until one pass finds all of them connected: links may go and come.
        while self.unconnected():
            for link in self._links.values():
                await link.revive()

    def unconnected(self) -> Mapping[str, str]:
        return {
            channel: f"{link.endpoint} ({link.seen})"
            for channel, link in self._links.items()
            if not link.connected.is_set()
        }

    def settle(self) -> None:
        self._settled = True
        for channel, link in self._links.items():
            # By its topic a message is held back whole, and not with another that it was read with.
            link.trusted = self._wire.signed and not (self._narrow and channel == "iopub")
            link.lost = not link.connected.is_set()
        self._tell_change()
        if self._wide:
            self._wide = False
            self._resubscribe(self._topics, (b"",))

    def unsettle(self) -> None:
        if self._narrow:
            self._wide = True
            self._resubscribe((b"",), self._topics)

    def _resubscribe(self, new: Sequence[bytes], old: Sequence[bytes]) -> None:
        link = self._links["iopub"]
        # The new first: there must be no moment without a subscription.
        for topic in new:
            link.socket.subscribe(topic)
        for topic in old:
            link.socket.unsubscribe(topic)
        link.recheck()

    async def watch(self, channel: ChannelName) -> None:
        link = self._links[channel]
        if not link.monitored:
            await anyio.sleep_forever()
        while True:
            await link.next_event()
            self._tell_change()

    async def wait_lost(self) -> None:
        while not (self._settled and any(link.lost for link in self._links.values())):
            await self._changed.wait()

    def _tell_change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def take_lost(self) -> list[ChannelName]:
        lost: list[ChannelName] = []
        for channel, link in self._links.items():
            # The watchers take turns, and may be behind one another.
            link.take_events()
            if link.lost:
                lost.append(channel)
                link.lost = False
        return lost

    def reconnect(self) -> None:
        for link in self._links.values():
            if link.connected.is_set():
                link.reconnect()
        self._tell_change()

    async def wait_disconnected(self) -> None:
        for link in self._links.values():
            await link.disconnected.wait()

    async def beat(self) -> None:
        assert self._heart is not None
        beat = str(next(self._beats)).encode()
        try:
            # Where nobody takes them, one waits to be sent and the others are not.
            with contextlib.suppress(anyio.WouldBlock):
                # As a REQ socket frames it, which some kernels insist on.
                self._heart.send([b"", beat])
            while True:
                for frames in self._heart.receive():
                    if frames[-1] == beat:
                        return
                await self._heart.wait_readable()
        except (KernelDied, zmq.ZMQError):
            # The readers meet the same error, and what they say of it counts.
            await anyio.sleep_forever()

    def rest(self) -> None:
        self._settled = False
        for link in self._links.values():
            link.rest()

    async def aclose(self) -> None:
        for link in self._links.values():
            link.close()
        if self._heart is not None:
            self._heart.close()


def connect_zmq(
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
        KernelConnectError: ZeroMQ refused an endpoint, or lacks CurveZMQ where the kernel wants it.
    """
    endpoints = {name: info.endpoint(name) for name in channels}
    wire = Wire(info.key, info.signature_scheme, max_message_size)
    return connect_endpoints(
        endpoints,
        wire,
        identity,
        topics,
        context,
        server_key=info.curve_publickey,
        max_buffer_size=max_buffer_size,
    )


def connect_endpoints(
    endpoints: Mapping[str, str],
    wire: Wire,
    identity: bytes,
    topics: tuple[bytes, ...] = (b"",),
    context: zmq.Context[zmq.Socket[bytes]] | None = None,
    *,
    server_key: bytes = b"",
    max_buffer_size: float = math.inf,
) -> ZmqTransport:
    """Like :func:`connect_zmq`, for endpoints that no connection file can name."""
    context = context or shared_context()
    options: dict[int, int | bytes] = dict(_curve_keys(server_key)) if server_key else {}
    options[zmq.RCVHWM] = 0 if max_buffer_size > MOST_WAITING else math.ceil(max_buffer_size)
    links: dict[str, Link] = {}
    try:
        for name, endpoint in endpoints.items():
            links[name] = _connect(context, name, endpoint, identity, options)
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
    context: zmq.Context[zmq.Socket[bytes]],
    name: str,
    endpoint: str,
    identity: bytes,
    options: Mapping[int, int | bytes],
) -> Link:
    # inproc is connected from the start, and has no connection to watch; the heartbeat's proves nothing.
    inproc = endpoint.startswith("inproc:")
    monitor = not inproc and name != "hb"
    with contextlib.ExitStack() as undo:
        try:
            socket = context.socket(zmq.SUB if name == "iopub" else zmq.DEALER)
            undo.callback(socket.close, linger=0)
            _configure(socket, identity, name)
            for option, value in options.items():
                socket.set(option, value)
            link = Link(context, socket, endpoint, monitor=monitor, connected=not monitor)
            undo.callback(link.close)
            socket.connect(endpoint)
        except zmq.ZMQError as error:
            seen = f"{endpoint} ({error.strerror})"
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
    # inproc has no connection to watch.
    monitor = not endpoint.startswith("inproc:")
    # Those of zmq.asyncio have the event loop watch them from their first wait on, and have no public way to
    # have it do so again.
    give_back = getattr(socket, "_init_io_state", None)
    return Link(
        context,
        plain,
        endpoint,
        monitor=monitor,
        connected=True,
        owned=False,
        give_back=give_back,
    )


def _descriptor(socket: zmq.Socket[bytes]) -> int:
    return int(socket.get(zmq.FD))


def _is_its_own_peer(descriptor: int) -> bool:
    """Whether both ends of a connection are the same; if so, its port is free as soon as it is closed."""
    from socket import AF_INET, AF_INET6, SO_LINGER, SOL_SOCKET, socket

    # ZeroMQ may have closed it already, and somebody else may have the number now.
    with contextlib.suppress(OSError):
        connection = socket(fileno=descriptor)
        try:
            if (
                connection.family in (AF_INET, AF_INET6)
                and connection.getsockname() == connection.getpeername()
            ):
                # Otherwise the system keeps the port for a minute, and no kernel can bind it.
                connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                return True
        finally:
            connection.detach()
    return False


def _monitor(
    context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes]
) -> zmq.Socket[bytes]:
    # Not get_monitor_socket(), whose socket nobody closes.
    address = f"inproc://enchannel-monitor-{new_id()}"
    socket.monitor(address, _WATCHED)
    monitor = context.socket(zmq.PAIR)
    monitor.connect(address)
    return monitor
