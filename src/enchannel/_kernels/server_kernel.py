"""One kernel of a server, with the names and rules of a kernel of one's own.

* It is started, interrupted, restarted and stopped over REST; what is said to it goes through a websocket for each block
  of channels.
* No websocket is kept beside those of the user: the server keeps what a kernel says for a websocket that was lost while
  that is the only one.

Source: the REST API of Jupyter Server.
"""

from __future__ import annotations

import contextlib
import math
import re
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

import anyio
from anyio.lowlevel import checkpoint

from .._channels import KernelChannels
from .._core.core import Core
from .._core.exits import begin_restart, other_kernel_behind_server, restart_refused
from .._exceptions import (
    EnchannelError,
    KernelConnectError,
    KernelDied,
    LocalProtocolError,
    ServerError,
)
from .._groups import unwrapping_task_group
from .._open_channels import CONNECT_TIMEOUT, CommonOptions, open_made_channels
from .._protocol.arguments import check_amount, check_seconds, checked_size
from .._protocol.connection_info import sockets_for
from .._protocol.message import CHANNELS, ChannelName
from .._protocol.wire import Wire
from .._transports.reach import Presence, Reach
from .._transports.server import ServerTransport
from .rest import Rest
from .server_models import ServerKernelSpec, mapping, model_of

if TYPE_CHECKING:
    from typing import Unpack

    from .._transports.websocket import WebSocket

__all__ = ["ServerKernel", "connect_kernel"]

MAX_SENT_SIZE = 10 << 20
"""Bytes that a server takes in one message, where it is not configured to take more."""

LEAST_LIMIT = 64 << 20
"""Bytes that a message may announce before its websocket is ended, where less is allowed: sixteen times what is."""

LOOK_DEADLINE = 5.0
"""Seconds for a server to say whether a kernel is there."""

INTERRUPT_DEADLINE, RESTART_DEADLINE, DELETE_DEADLINE = 10.0, 70.0, 20.0
"""Seconds for a server to do it; a restart is given up by the server itself after 60."""

RECONNECT_DEADLINE = 15.0
"""Seconds for the open channels to be connected once a restarted kernel is ready."""

DOUBTFUL = "the kernel may have been restarted: its server has not said whether it was"
"""What is told to what was in flight, where nobody knows."""

AWAY = 3.0
"""Seconds that a server may be away from which a kernel is to be deleted; it may be about to be there again."""

FAILED, AGAIN = 500, 0.5
"""The status from which on it is the server's own failure, and seconds until it is asked again."""

REFUSED = (401, 403)
"""What a server says to who may not ask."""

UNKNOWN = "is gone: the server does not know it any more"
"""What is said of a kernel behind a 404."""

POLL = 2.0
"""Seconds between two questions whether a kernel is there that somebody waits for."""


class _KernelReach(Reach):
    """How one kernel of a server is reached."""

    def __init__(self, rest: Rest, kernel_id: str, max_message_size: float) -> None:
        self.endpoint = f"{rest.url}/api/kernels/{kernel_id}/channels"
        self._rest = rest
        self._id = kernel_id
        # What is larger than is allowed is dropped, and costs nothing else; what would fill the memory is not awaited.
        self._limit: int | None = None
        if max_message_size < math.inf:
            self._limit = int(max(LEAST_LIMIT, 16 * max_message_size))

    async def connect(self, session: str) -> WebSocket:
        """Opens a websocket; see :meth:`Reach.connect <enchannel._transports.server.Reach.connect>`."""
        # By who has it: the classes are there without.
        from .._transports.websocket import Refused, open_websocket

        rest = self._rest
        try:
            return await open_websocket(
                rest.url,
                rest.url.channels_path(self._id, session),
                token=rest.token,
                tls=rest.tls,
                max_size=self._limit,
            )
        except Refused as error:
            refused = error
        # Not with what the server said as its context: there may be a token in it.
        if refused.status == 404:
            raise ServerError(f"{rest.url} has no kernel {self._id}", 404)
        path = f"/kernels/{self._id}/channels"
        raise rest.refused(refused.status, refused.said, refused.location, path)

    async def look(self) -> Presence | None:
        """What the server says of the kernel."""
        try:
            said = await self._rest.get(kernel_path(self._id), timeout=LOOK_DEADLINE)
        except anyio.ClosedResourceError:
            return None
        except ServerError as error:
            if error.status == 404:
                return Presence(there=False, said=error.said or "the server does not know it")
            return None
        model = model_of(mapping(said))
        return Presence(there=True, state=model.execution_state, connections=model.connections)


def check_kernel_id(kernel_id: object) -> None:
    """Raises ``LocalProtocolError`` where `kernel_id` is none."""
    if not (isinstance(kernel_id, str) and re.fullmatch(r"[\w.~-]{1,200}", kernel_id, re.ASCII)):
        raise LocalProtocolError(
            f"the id of a kernel is text such as a uuid, not {kernel_id!r:.80}"
        )
    if not kernel_id.strip("."):
        raise LocalProtocolError(f"{kernel_id!r} is no id of a kernel")


def kernel_path(kernel_id: str) -> str:
    """Where a kernel is, below ``/api``."""
    return f"/kernels/{quote(kernel_id, safe='')}"


async def connect_kernel(
    rest: Rest,
    kernel_id: str,
    *,
    session: str | None,
    channels: Sequence[ChannelName],
    connect_timeout: float,
    max_message_size: float,
    max_sent_size: float,
) -> ServerTransport:
    """The channels of a kernel as a transport; see :meth:`Server.connect <enchannel.Server.connect>`."""
    check_seconds("connect_timeout", connect_timeout)
    transport = _make_transport(rest, kernel_id, session, channels, max_message_size, max_sent_size)
    try:
        with anyio.fail_after(connect_timeout):
            await transport.connect()
    except TimeoutError:
        raise _unconnected(transport, f"no connection within {connect_timeout:g} s") from None
    except OSError as error:
        raise _unconnected(transport, error.strerror or str(error)) from None
    except BaseException:
        transport.close()
        raise
    return transport


def _unconnected(transport: ServerTransport, said: str) -> KernelConnectError:
    unconnected = transport.unconnected()
    where = next(iter(unconnected.values()), "")
    return KernelConnectError(f"{said}: {where}", unconnected)


def _make_transport(
    rest: Rest,
    kernel_id: str,
    session: str | None,
    channels: Sequence[ChannelName],
    max_message_size: float,
    max_sent_size: float,
) -> ServerTransport:
    """A transport that is not connected yet, with its arguments checked."""
    check_kernel_id(kernel_id)
    carried = sockets_for(channels)
    names: list[ChannelName] = [name for name in CHANNELS if name in carried]
    check_amount("max_sent_size", max_sent_size, 1, "bytes")
    chosen: object = str(uuid.uuid4()) if session is None else session
    if not (isinstance(chosen, str) and chosen.isascii() and 1 <= len(chosen) <= 255):
        raise LocalProtocolError(
            "the session of a kernel behind a server is text of 1 to 255 ASCII characters"
        )
    reach = _KernelReach(rest, kernel_id, checked_size(max_message_size))
    wire = Wire(b"", max_size=max_message_size)
    return ServerTransport(names, wire, reach, chosen, max_sent_size)


class ServerKernel:
    """A kernel of a server; made by :meth:`Server.open_kernel` and :meth:`Server.attach`.

    Attributes:
        id: What the server calls it.
        name: That of its kernelspec.
        spec: Its :class:`ServerKernelSpec`, ``None`` where the server does not tell.

    Example:
        .. code-block:: python

            from enchannel.testing import open_fake_server

            async with open_fake_server() as fake, open_server(fake.url) as server:
                async with server.open_kernel() as kernel:
                    async with kernel.open_channels() as ch:
                        await kernel.restart()
                        done = await ch.run("6 * 7")
                        print(kernel.name, done.status)  # python3 ok
    """

    def __init__(
        self, rest: Rest, kernel_id: str, name: str, spec: ServerKernelSpec | None
    ) -> None:
        self.id = kernel_id
        self.name = name
        self.spec = spec
        self._rest = rest
        self._open: set[Core] = set()
        self._over = ""
        self._turns = anyio.Lock()

    def __repr__(self) -> str:
        return f"<ServerKernel {self.name} {self.id}{' ' + self._over if self._over else ''}>"

    @property
    def gone(self) -> bool:
        """Whether it was shut down, or the server has said that it has no such kernel any more."""
        return bool(self._over)

    @asynccontextmanager
    async def open_channels(
        self,
        session: str | None = None,
        *,
        channels: Sequence[ChannelName] = CHANNELS,
        max_message_size: float = math.inf,
        max_sent_size: float = MAX_SENT_SIZE,
        **options: Unpack[CommonOptions],
    ) -> AsyncIterator[KernelChannels]:
        """Opens the channels of this kernel, any number of times.

        Like :func:`~enchannel.open_kernel_channels`, over a websocket of the server. Entering may be cancelled at any point.

        Args:
            session: The session of all that is sent, 1 to 255 ASCII characters; by default a fresh uuid4. It is what a
                ZeroMQ identity is elsewhere: two live clients must not share one.
            channels: Which to open, by default all.
            max_message_size: See :func:`~enchannel.open_kernel_channels`. What announces more than sixteen times as much,
                and more than 64 MiB, ends the websocket.
            max_sent_size: Bytes that the server takes in one message, by default 10 MiB. What is larger would end the
                websocket, and raises ``LocalProtocolError`` instead.
            options: Those of :func:`~enchannel.open_kernel_channels` that have a meaning here: ``username``,
                ``connect_timeout``, ``reconnect_timeout``, ``max_buffer_size``, ``max_buffer_bytes``, ``max_backlog_size``,
                ``max_backlog_bytes``.

        Raises:
            ServerError: The server refuses it.
            KernelConnectError: It did not answer in time.
            KernelDied: The kernel was shut down.
        """
        self._raise_if_over()
        unknown = options.keys() - CommonOptions.__annotations__.keys()
        if unknown:
            known = ", ".join(CommonOptions.__annotations__)
            raise TypeError(
                f"behind a server there is no option {min(unknown)!r}; there are {known}"
            )
        made: list[Core] = []

        def on_made(core: Core) -> None:
            made.append(core)
            self._open.add(core)
            if self.spec is None or self.spec.interrupt_mode == "signal":
                core.interrupter = self._interrupt

        async def connect() -> ServerTransport:
            return await connect_kernel(
                self._rest,
                self.id,
                session=session,
                channels=channels,
                connect_timeout=options.get("connect_timeout", CONNECT_TIMEOUT),
                max_message_size=max_message_size,
                max_sent_size=max_sent_size,
            )

        try:
            async with open_made_channels(
                connect, owned=True, on_made=on_made, **options
            ) as opened:
                yield opened
        finally:
            self._open.difference_update(made)

    async def interrupt(self) -> None:
        """Interrupts what the kernel runs, by whatever way its kernelspec names. A checkpoint; cancelled, it may have.

        Raises:
            ServerError: The server refuses it.
            KernelDied: The kernel was shut down.
        """
        self._raise_if_over()
        for core in self._open:
            core.interrupted()
        await self._interrupt()

    async def _interrupt(self) -> None:
        await self._ask("POST", "/interrupt", INTERRUPT_DEADLINE)

    async def restart(self) -> None:
        """Has the server restart the kernel; returns when it is ready.

        The open channels go on: their requests in flight raise ``KernelDied``, what is sent meanwhile waits for the new
        kernel. Several restarts go one after the other. A checkpoint; cancelled, the server may restart it all the same.

        Raises:
            ServerError: The server could not.
            KernelDied: The kernel was shut down.
        """
        async with self._turns:
            self._raise_if_over()
            concerned = tuple(self._open)
            for core in concerned:
                begin_restart(core)
            over = other_kernel_behind_server
            try:
                await self._ask("POST", "/restart", RESTART_DEADLINE)
            except BaseException as error:
                if isinstance(error, ServerError) and (
                    not error.reached or 400 <= error.status < FAILED
                ):
                    # It has not, and the kernel is the same.
                    over = restart_refused
                for core in concerned:
                    core.outage.death = KernelDied(DOUBTFUL, "restarted")
                raise
            finally:
                for core in concerned:
                    over(core)
            with anyio.move_on_after(RECONNECT_DEADLINE):
                async with unwrapping_task_group() as tasks:
                    for core in concerned:
                        tasks.start_soon(_opened, core)
                return
            raise ServerError("the kernel was restarted, and its channels found no way to it")

    async def shut_down(self) -> None:
        """Has the server end the kernel; its channels raise ``KernelDied``. A checkpoint; cancelled, the server may do so.

        Raises:
            ServerError: The server could not.
        """
        async with self._turns:
            if self._over:
                return
            with contextlib.suppress(KernelDied):
                await self._delete()
            self._end("was shut down")

    async def _delete(self) -> None:
        """Tried again where the server fails: it does while it starts a kernel again that has died."""
        began = anyio.current_time()
        while True:
            try:
                await self._ask("DELETE", "", DELETE_DEADLINE)
            except ServerError as error:
                # Not answered at all, the connection may have been cut.
                patience = DELETE_DEADLINE if error.reached else AWAY
                if 0 < error.status < FAILED or anyio.current_time() - began >= patience:
                    raise
            else:
                return
            await anyio.sleep(AGAIN)

    async def wait(self) -> None:
        """Waits until the kernel is gone, and its channels know. A restart goes unnoticed.

        The server is asked every two seconds. A checkpoint; cancellation changes nothing.

        Raises:
            ServerError: The token is refused from now on.
        """
        await checkpoint()
        while not self._over:
            if any(core.lost is not None and core.lost.reason == "exited" for core in self._open):
                self._end("is gone")
                return
            try:
                await self._rest.get(kernel_path(self.id), timeout=LOOK_DEADLINE)
            except ServerError as error:
                if error.status == 404:
                    self._end(UNKNOWN)
                    return
                if error.status in REFUSED:
                    raise
            with anyio.move_on_after(POLL):
                async with unwrapping_task_group() as tasks:
                    for core in self._open:
                        tasks.start_soon(_wait_exited, core, tasks.cancel_scope)
                    await anyio.sleep(POLL)

    async def _ask(self, method: str, what: str, timeout: float) -> None:
        try:
            await self._rest.ask(method, f"{kernel_path(self.id)}{what}", timeout=timeout)
        except ServerError as error:
            if error.status != 404:
                raise
            self._end(UNKNOWN)
            self._raise_if_over()

    def _end(self, how: str) -> None:
        self._over = self._over or how
        for core in tuple(self._open):
            core.lose(KernelDied(f"the kernel {self._over}", "exited"))

    def _raise_if_over(self) -> None:
        if self._over:
            raise KernelDied(f"the kernel {self._over}", "exited")


async def _opened(core: Core) -> None:
    with contextlib.suppress(EnchannelError, anyio.ClosedResourceError):
        await core.opened()


async def _wait_exited(core: Core, scope: anyio.CancelScope) -> None:
    while core.lost is None and not core.life.over:
        await core.changed.wait()
    if core.lost is not None and core.lost.reason == "exited":
        scope.cancel()
