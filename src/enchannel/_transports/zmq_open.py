"""Making ZeroMQ transports: from a connection file, from endpoints, and from a caller's own sockets.

The facts it stands on:

* A PUB socket drops what its subscriber's queue does not hold, so our receive high-water mark is 0:
  memory is the limit. Where the caller bounds the streams it is that bound, or the messages that the
  readers leave would pile up here.
* The send high-water mark is 0 as well: what may wait to go out is bounded in messages and bytes by
  :mod:`~enchannel._transports.zmq_outgoing`, in a context of ours, and by the high-water mark in a caller's.
* A send waits for a connection. That is decided by the monitor's word, and not by ``IMMEDIATE``: with it a
  disconnection takes away what has arrived and was not read yet (measured: a kernel's last ten replies gone in 49
  of 120 deaths).
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import anyio
import attrs
import zmq

from .._exceptions import KernelConnectError
from .._protocol.connection_info import SOCKETS, ConnectionInfo
from .._protocol.errors import LocalProtocolError
from .._protocol.message import CHANNELS, ChannelName
from .._protocol.wire import Wire
from .addresses import resolve
from .zmq import LINGER, ZmqTransport, shared_context
from .zmq_link import LEFT_TO_US, RETRY_INTERVAL, Link
from .zmq_outgoing import Outgoing

__all__ = [
    "check_context",
    "connect_endpoints",
    "connect_zmq",
    "has_curve",
    "new_curve_keys",
    "wrap_sockets",
]

KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 10, 5, 3
"""Seconds of silence before the system asks whether the peer's machine is there, seconds between the
questions, and how many go unanswered before the connection is lost."""

TYPICAL = 1 << 16
"""Bytes of a message, where as many messages are to be bounded."""

MOST_WAITING = 2**31 - 1
"""The largest high-water mark that ZeroMQ knows."""


async def connect_zmq(
    info: ConnectionInfo,
    identity: bytes,
    *,
    channels: Sequence[str] = SOCKETS,
    topics: tuple[bytes, ...] = (b"",),
    context: zmq.Context[zmq.Socket[bytes]] | None = None,
    max_buffer_size: float = math.inf,
    max_buffer_bytes: float = math.inf,
    max_message_size: float = math.inf,
    connect_timeout: float = math.inf,
) -> ZmqTransport:
    """A transport whose sockets have begun to connect to the kernel that `info` names.

    Args:
        info: The connection file.
        identity: The routing id of shell, control and stdin.
        channels: Which channels to open, ``"hb"`` for the heartbeat among them.
        topics: The prefixes to subscribe iopub to.
        context: Where to make the sockets, by default the context shared by the process.
        max_buffer_size: Messages that may wait in each socket, in each direction.
        max_buffer_bytes: The same in bytes.
        max_message_size: Bytes that a message which arrives may have.
        connect_timeout: Seconds for the host's name to be resolved.

    Raises:
        KernelConnectError: The host's name has no address, or none in time, ZeroMQ refused an endpoint, or lacks CurveZMQ where
            the kernel wants it.
    """
    wire = Wire(info.key, info.signature_scheme, max_message_size)
    hosts = [info] if info.transport == "ipc" else await _resolved(info, connect_timeout)
    endpoints = {name: [each.endpoint(name) for each in hosts] for name in channels}
    return connect_endpoints(
        endpoints,
        wire,
        identity,
        topics,
        context,
        server_key=info.curve_publickey,
        max_buffer_size=max_buffer_size,
        max_buffer_bytes=max_buffer_bytes,
    )


async def _resolved(info: ConnectionInfo, timeout: float) -> list[ConnectionInfo]:
    """`info` with each address of its host."""
    try:
        with anyio.fail_after(timeout):
            return [attrs.evolve(info, ip=address) for address in await resolve(info.host)]
    except TimeoutError:
        raise KernelConnectError(
            f"no connection within {timeout:g} s: the name of the kernel's host is still being resolved"
        ) from None
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
    max_buffer_bytes: float = math.inf,
) -> ZmqTransport:
    """Like :func:`connect_zmq`, for endpoints that no connection file can name; several for each channel."""
    options: dict[int, int | bytes] = dict(_curve_keys(server_key)) if server_key else {}
    # ZeroMQ knows no bound in bytes.
    most = min(max_buffer_size, max(1, max_buffer_bytes / TYPICAL))
    options[zmq.RCVHWM] = 0 if most > MOST_WAITING else math.ceil(most)
    options[zmq.SNDHWM] = options[zmq.RCVHWM] if context is not None else 0
    links: dict[str, Link] = {}
    try:
        for name, several in endpoints.items():
            outgoing = Outgoing(max_buffer_size, max_buffer_bytes) if context is None else None
            links[name] = _connect(context, name, several, identity, options, outgoing)
    except BaseException:
        for link in links.values():
            link.close()
        raise
    carried: dict[ChannelName, Link] = {name: links[name] for name in CHANNELS if name in links}
    return ZmqTransport(carried, wire, topics, links.get("hb"), bounded=most < math.inf)


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
    outgoing: Outgoing | None,
) -> Link:
    context = given or shared_context()
    # inproc is connected from the start, and has no connection to watch; the heartbeat's proves nothing.
    monitored = not endpoints[0].startswith("inproc:") and name != "hb"
    with contextlib.ExitStack() as undo:
        try:
            socket = context.socket(_kind_of(name))
            undo.callback(socket.close, linger=0)
            for option, value in options.items():
                socket.set(option, value)
            _configure(socket, identity, name)
            link = Link(context, socket, endpoints, monitored=monitored, outgoing=outgoing)
            undo.callback(link.close)
            link.connect()
        except (zmq.ZMQError, OSError) as error:
            seen = f"{endpoints[0]} ({error.strerror})"
            raise KernelConnectError(f"cannot connect {name} to {seen}", {name: seen}) from error
        undo.pop_all()
    return link


def _kind_of(channel: str) -> zmq.SocketType:
    return zmq.SUB if channel == "iopub" else zmq.DEALER


def check_context(context: object) -> None:
    """Raises ``LocalProtocolError`` where no sockets can be made of `context`, the argument of that name."""
    if context is not None and not isinstance(context, zmq.Context):
        raise LocalProtocolError(f"context is a zmq.Context, or None, not {context!r}")


def _configure(socket: zmq.Socket[bytes], identity: bytes, name: str) -> None:
    socket.set(zmq.LINGER, LINGER if name != "hb" else 0)
    socket.set(zmq.IPV6, 1)
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
        socket.set(zmq.ROUTING_ID, identity)
    sends = name not in ("iopub", "hb")
    socket.set(zmq.RECONNECT_IVL, LEFT_TO_US if sends else RETRY_INTERVAL)


def wrap_sockets(
    sockets: Mapping[ChannelName, zmq.Socket[bytes]],
    *,
    key: str | bytes = b"",
    signature_scheme: str = "hmac-sha256",
    max_message_size: float = math.inf,
) -> ZmqTransport:
    """A transport over sockets that the caller has connected already, for :func:`open_channels`.

    They stay the caller's: nobody else may use them while the transport is in use, and closing the
    transport leaves them open. Sockets of :mod:`zmq.asyncio` are fine.

    Args:
        sockets: For each channel its socket, for iopub SUB and else DEALER, or PAIR; a channel left
            out is not carried.
        key: The secret that messages are signed with.
        signature_scheme: ``"hmac-sha256"`` and the like.
        max_message_size: Bytes that a message which arrives may have; see
            :func:`open_kernel_channels`.

    Raises:
        LocalProtocolError: An unknown channel or scheme, a key that is none, no sockets, one socket for
            two channels, or something that is no socket of ZeroMQ of that kind.

    Example:
        .. code-block:: python

            import zmq

            info = kernel.connection_info
            with zmq.Context() as context, context.socket(zmq.DEALER) as shell:
                shell.connect(info.endpoint("shell"))
                transport = wrap_sockets({"shell": shell}, key=info.key)
                async with open_channels(transport) as ch:
                    reply = await ch.request("kernel_info_request")
                    print(reply.content["status"])  # ok
    """
    wire = Wire(key, signature_scheme, max_message_size)
    several: object = sockets
    if not isinstance(several, Mapping) or not several:
        raise LocalProtocolError(
            f"sockets maps some of {', '.join(CHANNELS)} to sockets of ZeroMQ, and is not {sockets!r}"
        )
    for channel, socket in sockets.items():
        if channel not in CHANNELS:
            raise LocalProtocolError(
                f"unknown channel {channel!r}; a kernel has {', '.join(CHANNELS)}"
            )
        given: object = socket
        if not isinstance(given, zmq.Socket) or given.closed:
            raise LocalProtocolError(f"{channel} is no open zmq.Socket: {socket!r}")
        right = _kind_of(channel)
        if given.type not in (right, zmq.PAIR):
            found = zmq.SocketType(int(given.type))
            raise LocalProtocolError(f"{channel} is a {right.name} socket, not {found.name}")
        # There may be several objects of one socket.
        first = next(name for name, each in sockets.items() if each.underlying == given.underlying)
        if first != channel:
            raise LocalProtocolError(f"{channel} is the socket of {first}, and each has its own")
    links: dict[ChannelName, Link] = {name: _wrap(socket) for name, socket in sockets.items()}
    return ZmqTransport(links, wire, topics=None)


def _wrap(socket: zmq.Socket[bytes]) -> Link:
    endpoint = bytes(socket.getsockopt(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()
    # Synchronous views, for the methods of the caller's own objects may be coroutines.
    context, plain = zmq.Context(socket.context), zmq.Socket(socket)
    # Those of zmq.asyncio have the event loop watch them from their first wait on.
    give_back: Callable[[], Any] | None = getattr(socket, "_init_io_state", None)
    shared = give_back is None and _is_asynchronous(socket)
    # inproc has no connection to watch.
    monitored = not endpoint.startswith("inproc:")
    return Link(
        context,
        plain,
        [endpoint],
        monitored=monitored,
        owned=False,
        give_back=give_back,
        shared=shared,
    )


def _is_asynchronous(socket: zmq.Socket[bytes]) -> bool:
    # Whoever has one has imported its module.
    modules = map(sys.modules.get, ("zmq.asyncio", "zmq.eventloop.future"))
    return any(module is not None and isinstance(socket, module.Socket) for module in modules)
