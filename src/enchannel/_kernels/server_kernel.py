"""One kernel of a server, with the names and rules of a kernel of one's own.

* It is started, interrupted, restarted and stopped over REST; what is said to it goes through a websocket for each block
  of channels.
* A server is asked for one restart of a kernel at a time, however often that was attached to. Each goes on where who has
  asked for it is cancelled, until its block is left or the kernel is gone: what comes of it concerns all who talk to the
  kernel.
* No websocket is kept beside those of the user: the server keeps what a kernel says for a websocket that was lost while
  that is the only one.

Source: the REST API of Jupyter Server.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import anyio
import attrs
from anyio.lowlevel import checkpoint

from .._channels import KernelChannels
from .._conversations.replies import INTERRUPT_REPLY
from .._core.core import Core
from .._core.exits import begin_restart, other_kernel_behind_server, restart_refused
from .._exceptions import EnchannelError, KernelDied, NoReply, ServerError
from .._groups import BlockTasks, unwrapping_task_group
from .._open_channels import CONNECT_TIMEOUT, CommonOptions, open_made_channels
from .._protocol.message import CHANNELS, ChannelName
from .._trio import uncut, uncut_block
from .rest import Rest
from .server_models import ServerKernelSpec
from .server_reach import LOOK_DEADLINE, MAX_SENT_SIZE, connect_kernel, kernel_path
from .server_turns import Turns

if TYPE_CHECKING:
    from typing import Unpack

    from .._transports.server import ServerTransport

__all__ = ["ServerKernel"]

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

LEFT = "the block of the kernel was left"
"""What is said to who restarts it behind that."""

POLL = 2.0
"""Seconds between two questions whether a kernel is there that somebody waits for."""


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
        self,
        rest: Rest,
        kernel_id: str,
        name: str,
        spec: ServerKernelSpec | None,
        tasks: BlockTasks,
        turns: Turns,
    ) -> None:
        self.id = kernel_id
        self.name = name
        self.spec = spec
        self._rest = rest
        self._open: set[Core] = set()
        self._over, self._left = "", False
        self._turns = turns
        self._tasks = tasks
        self._restarting: _Restart | None = None

    def __repr__(self) -> str:
        return f"<ServerKernel {self.name} {self.id}{' ' + self._over if self._over else ''}>"

    @property
    def gone(self) -> bool:
        """Whether it was shut down, or the server has said that it has no such kernel any more."""
        return bool(self._over)

    @uncut_block
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
                core.interrupter = self._interrupt_for_channels

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
        await self._ask("POST", "/interrupt", INTERRUPT_DEADLINE)

    async def _interrupt_for_channels(self) -> None:
        """Channels know nothing of servers: that one cannot is no reply, as of any other kernel, and comes as soon."""
        try:
            await self._ask("POST", "/interrupt", INTERRUPT_REPLY)
        except ServerError as error:
            said = f"the server has not said that it has interrupted the kernel: {error}"
            raise NoReply(said) from error

    @uncut
    async def restart(self) -> None:
        """Has the server restart the kernel; returns when it is ready.

        The open channels go on: their requests in flight raise ``KernelDied``, what is sent meanwhile waits for the new
        kernel. Several restarts go one after the other. A checkpoint; cancelled, the restart goes on.

        Raises:
            ServerError: The server could not.
            KernelDied: The kernel was shut down.
            anyio.ClosedResourceError: The block of the kernel was left.
        """
        await checkpoint()
        turn = object()
        try:
            await self._turns.wait(turn, lambda: self._given_up)
            if self._given_up:
                raise self._why_given_up()
            restart = self._begin_restart()
            await restart.over.wait()
            if restart.failure is not None:
                raise restart.failure
            with anyio.move_on_after(RECONNECT_DEADLINE):
                async with unwrapping_task_group() as tasks:
                    for core in restart.cores:
                        tasks.start_soon(_opened, core)
                return
            raise ServerError("the kernel was restarted, and its channels found no way to it")
        finally:
            self._turns.end(turn)

    @uncut
    def _begin_restart(self) -> _Restart:
        restart = self._restarting = _Restart(tuple(self._open))
        self._turns.restarting = True
        for core in restart.cores:
            begin_restart(core)
        self._tasks.start_soon(self._restart, restart, name="enchannel restart at a server")
        return restart

    @uncut
    async def _restart(self, restart: _Restart) -> None:
        """Goes on where who has asked for it is cancelled, and the block, until that is left."""
        over, known = other_kernel_behind_server, False
        try:
            with restart.scope:
                await self._ask("POST", "/restart", RESTART_DEADLINE)
                known = True
        except (EnchannelError, anyio.ClosedResourceError) as error:
            restart.failure = error
            if isinstance(error, ServerError) and (
                not error.reached or 400 <= error.status < FAILED
            ):
                # It has not, and the kernel is the same.
                over = restart_refused
        finally:
            if not known and restart.failure is None:
                restart.failure = self._why_given_up()
            for core in self._open.intersection(restart.cores):
                if not known:
                    core.outage.death = KernelDied(DOUBTFUL, "restarted")
                over(core)
            self._restarting, self._turns.restarting = None, False
            self._turns.look_again()
            restart.over.set()

    @uncut
    def let_go(self) -> None:
        """Its block is left: nothing is waited for any more."""
        self._left = True
        self._give_up_restart()

    def _give_up_restart(self) -> None:
        if self._restarting is not None:
            self._restarting.scope.cancel()
        self._turns.look_again()

    @property
    def _given_up(self) -> bool:
        return bool(self._over) or self._left

    def _why_given_up(self) -> Exception:
        return self._died() if self._over else anyio.ClosedResourceError(LEFT)

    @uncut
    async def shut_down(self) -> None:
        """Has the server end the kernel; its channels raise ``KernelDied``, and so does a restart that is under way.

        A checkpoint; cancelled, the server may do so.

        Raises:
            ServerError: The server could not.
        """
        await checkpoint()
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

    @uncut
    def _end(self, how: str) -> None:
        self._over = self._over or how
        for core in tuple(self._open):
            core.lose(self._died())
        self._give_up_restart()

    def _raise_if_over(self) -> None:
        if self._over:
            raise self._died()

    def _died(self) -> KernelDied:
        return KernelDied(f"the kernel {self._over}", "exited")


@attrs.define(eq=False)
class _Restart:
    """A restart that the server was asked for.

    Attributes:
        cores: The connections that it concerns.
        scope: Cancelled where nobody wants to know any more.
        over: Set when it is over, whatever came of it.
        failure: What is raised where it has failed.
    """

    cores: tuple[Core, ...]
    scope: anyio.CancelScope = attrs.field(factory=lambda: anyio.CancelScope(shield=True))
    over: anyio.Event = attrs.field(factory=anyio.Event)
    failure: Exception | None = None


async def _opened(core: Core) -> None:
    with contextlib.suppress(EnchannelError, anyio.ClosedResourceError):
        await core.opened()


async def _wait_exited(core: Core, scope: anyio.CancelScope) -> None:
    while core.lost is None and not core.life.over:
        await core.changed.wait()
    if core.lost is not None and core.lost.reason == "exited":
        scope.cancel()
