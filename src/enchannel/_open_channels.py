"""Opening a kernel's channels: arguments, checked at the call; :mod:`~enchannel._core.opening`."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypedDict, TypeVar

from ._channels import KernelChannels
from ._core.bound import Limits
from ._core.core import Core
from ._core.delivery import Listener
from ._core.opening import OnMade, opened
from ._exceptions import LocalProtocolError
from ._log import logger
from ._protocol.arguments import check_amount, check_seconds, checked_size, encoded
from ._protocol.connection_info import Config, ConnectionInfo, sockets_for
from ._protocol.message import CHANNELS, ChannelName, Message
from ._streams import Channel
from ._transports.base import Transport
from ._transports.zmq_open import check_context, connect_zmq

if TYPE_CHECKING:
    from typing import Unpack

    import zmq

__all__ = [
    "get_username",
    "open_channels",
    "open_control_channel",
    "open_iopub_channel",
    "open_kernel_channels",
    "open_shell_channel",
    "open_stdin_channel",
]

CONNECT_TIMEOUT, RECONNECT_TIMEOUT, HEARTBEAT_TIMEOUT = 10.0, 10.0, 30.0
"""The defaults, in seconds."""

BACKLOG_SIZE, BACKLOG_BYTES = 100_000, 64 << 20
"""The same, in messages and in bytes."""

Identity: TypeAlias = "str | bytes | uuid.UUID | None"
"""A ZeroMQ routing id: ``str``, ``bytes``, :class:`uuid.UUID`, or ``None`` for a fresh one."""
Topics: TypeAlias = "str | bytes | Iterable[str | bytes]"
"""A prefix of iopub's topics, ``str`` or ``bytes``; or several."""


def get_username() -> str:
    """The user name for message headers, by default.

    The first of ``LOGNAME``, ``USER``, ``LNAME`` and ``USERNAME`` that is set, else ``username``.

    Example:
        .. code-block:: python

            print(get_username() == ch.username)  # True
    """
    names = (os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME"))
    return next((name for name in names if name), "username")


def open_kernel_channels(
    identity: Identity,
    config: Config,
    *,
    channels: Sequence[ChannelName] = CHANNELS,
    session: str | None = None,
    username: str | None = None,
    subscription: Topics = b"",
    connect_timeout: float = CONNECT_TIMEOUT,
    max_buffer_size: float = math.inf,
    max_buffer_bytes: float = math.inf,
    max_backlog_size: float = BACKLOG_SIZE,
    max_backlog_bytes: float = BACKLOG_BYTES,
    max_message_size: float = math.inf,
    reconnect_timeout: float = RECONNECT_TIMEOUT,
    heartbeat_timeout: float = HEARTBEAT_TIMEOUT,
    context: zmq.Context[zmq.Socket[bytes]] | None = None,
) -> AbstractAsyncContextManager[KernelChannels]:
    """Opens the shell, control, stdin and iopub channels of a running kernel.

    On entry every channel is connected and iopub is known to be live, so that the first request
    loses no output. Entering may be cancelled at any point, and then leaves nothing behind.

    Args:
        identity: The ZeroMQ routing id of shell, control and stdin, 1 to 255 bytes; ``None`` makes
            a fresh one. Two live clients of a kernel must not share one.
        config: The connection file: its path, a mapping of its form, or a :class:`ConnectionInfo`.
        channels: Which to open, by default all. The others raise ``LocalProtocolError`` when used.
            With iopub goes shell or control, for only a request can prove that it is live.
        session: The session id in the header of each sent message; by default a fresh uuid4.
        username: The user name there; by default :func:`get_username`.
        subscription: The topic prefix for iopub, or several; it counts once iopub is proven live.
        connect_timeout: Seconds until every channel must be connected and iopub proven.
        max_buffer_size: How many messages a stream may hold (a listener, an execution, a comm, a
            debug session), and may wait to go out. ``math.inf`` loses nothing and lets memory grow;
            a number makes the readers wait for the slowest. A full stream whose reader waits for
            what comes behind loses its oldest messages, counted in ``statistics().buffer_dropped``.
        max_buffer_bytes: The same in bytes of content and buffers; a stream holds one message more.
        max_backlog_size: How many messages may wait for somebody to listen; 0 for none. The oldest
            go first, counted. Never more than `max_buffer_size`.
        max_backlog_bytes: The same in bytes.
        max_message_size: Bytes that a message which arrives may have, and one frame for each 64 of
            them. A larger one is dropped and counted; see :class:`MessageTooLarge`.
        reconnect_timeout: Seconds that a lost connection may take to come back before the kernel
            counts as lost. Streams and senders wait for it; what is in flight raises within 0.9 s.
        heartbeat_timeout: Seconds without a heartbeat or any message after which a kernel that is
            not busy, and has had a heartbeat, counts as lost; ``math.inf`` for never.
        context: The sockets' ZeroMQ context, never terminated; by default one for all kernels here.

    Raises:
        ConnectionFileError: `config` cannot be used (raised at the call).
        LocalProtocolError: Another argument cannot be used (raised at the call).
        KernelConnectError: A channel did not answer in time (raised on entry).

    Example:
        .. code-block:: python

            async with open_kernel_channels(None, kernel.connection_file) as ch:
                print((await ch.run("6 * 7")).text)  # 42
    """
    return _open_zmq(
        sockets_for(channels),
        identity,
        config,
        session=session,
        username=username,
        subscription=subscription,
        connect_timeout=connect_timeout,
        max_buffer_size=max_buffer_size,
        max_buffer_bytes=max_buffer_bytes,
        max_backlog_size=max_backlog_size,
        max_backlog_bytes=max_backlog_bytes,
        max_message_size=max_message_size,
        reconnect_timeout=reconnect_timeout,
        heartbeat_timeout=heartbeat_timeout,
        context=context,
    )


def open_channels(
    transport: Transport,
    *,
    session: str | None = None,
    username: str | None = None,
    connect_timeout: float = CONNECT_TIMEOUT,
    max_buffer_size: float = math.inf,
    max_buffer_bytes: float = math.inf,
    max_backlog_size: float = BACKLOG_SIZE,
    max_backlog_bytes: float = BACKLOG_BYTES,
    reconnect_timeout: float = RECONNECT_TIMEOUT,
    heartbeat_timeout: float = HEARTBEAT_TIMEOUT,
    owned: bool = False,
) -> AbstractAsyncContextManager[KernelChannels]:
    """Opens channels over a transport that there is already, such as :func:`wrap_sockets` makes.

    The other arguments, and the errors, are those of :func:`open_kernel_channels`; what waits to go
    out is the transport's to bound. A channel that it does not carry raises ``LocalProtocolError``
    when used, as does entering while it is in use. It stays the caller's to close, but for `owned`.

    Example:
        .. code-block:: python

            from enchannel.testing import memory_transport_pair

            transport, kernel_end = memory_transport_pair()
            async with open_channels(transport, owned=True) as ch:
                await ch.shell.send(messages.kernel_info_request())
    """
    if not isinstance(transport, Transport):
        raise LocalProtocolError(f"transport is a Transport (see wrap_sockets), not {transport!r}")

    async def given() -> Transport:
        return transport

    return open_made_channels(
        given,
        owned=owned,
        session=session,
        username=username,
        connect_timeout=connect_timeout,
        max_buffer_size=max_buffer_size,
        max_buffer_bytes=max_buffer_bytes,
        max_backlog_size=max_backlog_size,
        max_backlog_bytes=max_backlog_bytes,
        reconnect_timeout=reconnect_timeout,
        heartbeat_timeout=heartbeat_timeout,
    )


class CommonOptions(TypedDict, total=False):
    """What means something over any transport; see :func:`~enchannel.open_kernel_channels`."""

    username: str | None
    connect_timeout: float
    max_buffer_size: float
    max_buffer_bytes: float
    max_backlog_size: float
    max_backlog_bytes: float
    reconnect_timeout: float


class OneChannelOptions(CommonOptions, total=False):
    """What every opener takes; see :func:`~enchannel.open_kernel_channels`."""

    session: str | None
    max_message_size: float
    context: zmq.Context[zmq.Socket[bytes]] | None


class OpenOptions(OneChannelOptions, total=False):
    """Those of openers that see the kernel's status, without which a heartbeat proves nothing."""

    heartbeat_timeout: float


def open_shell_channel(
    identity: Identity, config: Config, **options: Unpack[OneChannelOptions]
) -> AbstractAsyncContextManager[Channel]:
    """Opens the shell channel alone; for options and errors see :func:`open_kernel_channels`.

    Example:
        .. code-block:: python

            async with open_shell_channel(None, kernel.connection_file) as shell:
                await shell.send(messages.kernel_info_request())
                print((await shell.receive()).msg_type)  # kernel_info_reply
    """
    opening = _open_zmq(("shell",), identity, config, **options)
    return _part(opening, lambda channels: channels.shell)


def open_control_channel(
    identity: Identity, config: Config, **options: Unpack[OneChannelOptions]
) -> AbstractAsyncContextManager[Channel]:
    """Opens the control channel alone; for options and errors see :func:`open_kernel_channels`.

    Example:
        .. code-block:: python

            async with open_control_channel(None, kernel.connection_file) as control:
                await control.send(messages.kernel_info_request())
                print((await control.receive()).msg_type)  # kernel_info_reply
    """
    opening = _open_zmq(("control",), identity, config, **options)
    return _part(opening, lambda channels: channels.control)


def open_stdin_channel(
    identity: Identity, config: Config, **options: Unpack[OneChannelOptions]
) -> AbstractAsyncContextManager[Channel]:
    """Opens the stdin channel alone; for options and errors see :func:`open_kernel_channels`.

    A kernel asks the identity that sent the execute request; so shell is opened with the same one.

    Example:
        .. code-block:: python

            async with open_shell_channel("me", kernel.connection_file) as shell:
                async with open_stdin_channel("me", kernel.connection_file) as stdin:
                    await shell.send(messages.execute_request("input()", allow_stdin=True))
                    await stdin.send(messages.input_reply("ada", await stdin.receive()))
    """
    opening = _open_zmq(("stdin",), identity, config, **options)
    return _part(opening, lambda channels: channels.stdin)


def open_iopub_channel(
    identity: Identity,
    config: Config,
    *,
    subscription: Topics = b"",
    **options: Unpack[OpenOptions],
) -> AbstractAsyncContextManager[Listener[Message]]:
    """Opens the iopub channel alone; for options and errors see :func:`open_kernel_channels`.

    Shell and control, which prove it live, are connected too, and the heartbeat; not with
    `identity`, which may be that of a channel beside this one.

    Example:
        .. code-block:: python

            async with open_iopub_channel(None, kernel.connection_file) as iopub:
                await ch.run("print('woo')")
                print((await iopub.receive()).msg_type)  # status
    """
    channels = ("shell", "control", "iopub", "hb")
    parse_identity(identity)
    opening = _open_zmq(channels, None, config, subscription=subscription, **options)
    return _part(opening, lambda channels: channels.iopub)


def open_some_channels(
    config: Config,
    *channels: str,
    identity: Identity = None,
    subscription: Topics = b"",
    on_made: OnMade | None = None,
    **options: Unpack[OpenOptions],
) -> AbstractAsyncContextManager[KernelChannels]:
    """Opens the channels named, ``"hb"`` among them; ``on_made`` is called with the core first."""
    return _open_zmq(
        channels, identity, config, subscription=subscription, on_made=on_made, **options
    )


T = TypeVar("T")


@asynccontextmanager
async def _part(
    opening: AbstractAsyncContextManager[KernelChannels], part: Callable[[KernelChannels], T]
) -> AsyncIterator[T]:
    async with opening as channels:
        yield part(channels)


def _open_zmq(
    channels: Sequence[str],
    identity: Identity,
    config: Config,
    *,
    on_made: OnMade | None = None,
    subscription: Topics = b"",
    max_message_size: float = math.inf,
    context: zmq.Context[zmq.Socket[bytes]] | None = None,
    **options: Unpack[_ChannelOptions],
) -> AbstractAsyncContextManager[KernelChannels]:
    info = ConnectionInfo.parse(config)
    routing_id = parse_identity(identity)
    topics = parse_topics(subscription)
    checked_size(max_message_size)
    check_context(context)

    async def connect() -> Transport:
        if info.exposed:
            logger().warning(
                "the kernel at %s signs nothing (its connection file has no key): whoever reaches it can "
                "run code in it",
                info.ip,
            )
        return await connect_zmq(
            info,
            routing_id,
            channels=channels,
            topics=topics,
            context=context,
            max_buffer_size=options.get("max_buffer_size", math.inf),
            max_buffer_bytes=options.get("max_buffer_bytes", math.inf),
            max_message_size=max_message_size,
            connect_timeout=options.get("connect_timeout", CONNECT_TIMEOUT),
        )

    return open_made_channels(connect, owned=True, on_made=on_made, **options)


class _ChannelOptions(CommonOptions, total=False):
    session: str | None
    heartbeat_timeout: float


def open_made_channels(
    make_transport: Callable[[], Awaitable[Transport]],
    *,
    session: str | None = None,
    username: str | None = None,
    connect_timeout: float = CONNECT_TIMEOUT,
    max_buffer_size: float = math.inf,
    max_buffer_bytes: float = math.inf,
    max_backlog_size: float = BACKLOG_SIZE,
    max_backlog_bytes: float = BACKLOG_BYTES,
    reconnect_timeout: float = RECONNECT_TIMEOUT,
    heartbeat_timeout: float = HEARTBEAT_TIMEOUT,
    owned: bool = False,
    on_made: OnMade | None = None,
) -> AbstractAsyncContextManager[KernelChannels]:
    """Opens channels over what `make_transport` makes on entry; ``on_made`` is as above."""
    for name, text in (("session", session), ("username", username)):
        if text is not None and not isinstance(text, str):
            raise LocalProtocolError(f"{name} is a str, not {type(text).__name__}")
    for name, seconds in (
        ("connect_timeout", connect_timeout),
        ("reconnect_timeout", reconnect_timeout),
        ("heartbeat_timeout", heartbeat_timeout),
    ):
        check_seconds(name, seconds)
    for name, limit, least, unit in (
        ("max_buffer_size", max_buffer_size, 1, "messages"),
        ("max_buffer_bytes", max_buffer_bytes, 1, "bytes"),
        ("max_backlog_size", max_backlog_size, 0, "messages"),
        ("max_backlog_bytes", max_backlog_bytes, 0, "bytes"),
    ):
        check_amount(name, limit, least, unit)
    make_core = partial(
        Core,
        session=session,
        username=get_username() if username is None else username,
        limits=Limits(max_buffer_size, max_buffer_bytes, max_backlog_size, max_backlog_bytes),
        reconnect_timeout=reconnect_timeout,
        heartbeat_timeout=heartbeat_timeout,
    )
    opening = opened(make_transport, make_core, connect_timeout, owned=owned, on_made=on_made)
    return _channels(opening)


@asynccontextmanager
async def _channels(opening: AbstractAsyncContextManager[Core]) -> AsyncIterator[KernelChannels]:
    async with opening as core:
        yield KernelChannels(core)


def parse_identity(identity: Identity) -> bytes:
    """The ZeroMQ routing id of `identity`; ``LocalProtocolError`` where ZeroMQ would refuse it."""
    if identity is None:
        identity = uuid.uuid4()
    if isinstance(identity, uuid.UUID):
        identity = str(identity)
    if isinstance(identity, str):
        identity = encoded("identity", identity)
    if not isinstance(identity, bytes):
        raise LocalProtocolError(
            f"identity is str, bytes, uuid.UUID or None, not {type(identity).__name__}"
        )
    if not 1 <= len(identity) <= 255 or identity[0] == 0:
        raise LocalProtocolError(
            "identity is 1 to 255 bytes and does not begin with a zero byte, which ZeroMQ keeps for itself"
        )
    return identity


def parse_topics(subscription: Topics) -> tuple[bytes, ...]:
    """The topic prefixes of `subscription`; ``LocalProtocolError`` where one of them is no text."""
    given: object = subscription
    is_one = isinstance(given, (str, bytes)) or not isinstance(given, Iterable)
    several: Iterable[object] = (given,) if is_one else subscription
    topics: list[bytes] = []
    for each in several:
        topic = encoded("subscription", each) if isinstance(each, str) else each
        if not isinstance(topic, bytes):
            raise LocalProtocolError(
                f"subscription is a topic prefix (bytes or str) or several, not {type(topic).__name__}"
            )
        topics.append(topic)
    return (b"",) if not topics or b"" in topics else tuple(topics)
