"""Kernels of one's own: launched, interrupted, restarted, and stopped on every way out.

The rules:

* It is interrupted as its kernelspec says: by SIGINT to all that it started, or by an interrupt_request.
* It is stopped on the way out of its block, which is shielded from cancellation.
* A restart is a stop, and a start on the same connection file. Whoever waits for an answer is told, and the
  open channels go on.

Source: "Making kernels for Jupyter", "Kernel interrupt" and "Kernel shutdown" of the Jupyter messaging
specification, jupyter_client.
"""

from __future__ import annotations

import contextlib
import math
import signal
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from .. import messages
from .._channels import KernelChannels
from .._conversations.replies import interrupt_reply
from .._core.core import Core
from .._core.exits import begin_restart, end_of_kernel, end_of_old_kernel
from .._core.stream import fresh
from .._exceptions import EnchannelError, KernelDied
from .._groups import BlockTasks, unwrapping_task_group
from .._open_channels import Identity, OpenOptions, Topics, open_some_channels
from .._protocol.connection_info import ConnectionInfo, sockets_for
from .._protocol.message import CHANNELS, ChannelName
from .._signals import checked_signal
from .._trio import uncut, uncut_block
from .connection_files import ConnectionFile
from .launch import Launch
from .process import exit_text
from .running import Running
from .specs import KernelSpec

if TYPE_CHECKING:
    from typing import Unpack

__all__ = ["Kernel"]

RECONNECT_DEADLINE = 15.0
"""Seconds for the open channels to be connected, and their iopub live, once a restarted kernel is ready."""

LAST_WORDS = 0.5
"""Seconds that what a kernel sent before its process exited may take to arrive."""

_PUT_OFF = KernelDied("the kernel is restarted", "restarted")
"""What is said of channels that are being opened beside a restart: they are opened anew behind it."""


class Kernel:
    """A running kernel; made by :func:`~enchannel.open_kernel`.

    Attributes:
        spec: The :class:`KernelSpec` it was launched from.
        connection_file: The path of the file that says how to reach it, for other clients too;
            removed when the kernel is stopped.

    Example:
        .. code-block:: python

            async with kernel.open_channels() as ch:
                await ch.run("x = 1")
                await kernel.restart()
                done = await ch.run("x")
                print(done.status)  # error
            status = await kernel.shut_down()  # 0, or -15 where that took SIGTERM
    """

    def __init__(self, launch: Launch, file: ConnectionFile) -> None:
        self.spec: KernelSpec = launch.spec
        self.connection_file: Path = file.path
        self._file = file
        self._running = Running(
            launch,
            file,
            is_replaced=lambda: self.restarting,
            on_exit=self._tell_exit,
            on_interrupt=self._tell_interrupt,
        )
        self._open: set[Core] = set()
        self._opening: set[Core] = set()
        self._outliving: set[Core] = set()
        self._left = False
        self._turns = anyio.Lock()
        self._restarting = anyio.CancelScope()
        self._restarted = anyio.Event()
        self._restarted.set()

    @property
    def connection_info(self) -> ConnectionInfo:
        """How to reach it: what is in its connection file."""
        return self._file.info

    @property
    def pid(self) -> int:
        """The process id; another one after a restart."""
        assert self._running.process is not None
        return self._running.process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; ``None`` while the process runs."""
        process = self._running.process
        return process.returncode if process is not None else None

    @property
    def restarting(self) -> bool:
        """Whether it is being restarted, and another process takes the place of this one."""
        return not self._restarted.is_set()

    @property
    def output(self) -> str:
        """The tail, 16 KiB at most, of what its process has written to its standard output and
        error.
        """
        process = self._running.process
        return process.output if process is not None else ""

    async def stream_output(self) -> AsyncIterator[str]:
        """What its process writes to its standard output and standard error from now on, as an
        async iterator of pieces of text.

        It ends with the process; behind a restart there is another one. Of who is more than 16 KiB
        behind the oldest is lost. Cancellation loses nothing that was not given yet.
        """
        await checkpoint()
        process = self._running.process
        if process is not None:
            async for text in process.stream_output():
                yield text

    @asynccontextmanager
    async def open_channels(
        self,
        identity: Identity = None,
        *,
        channels: Sequence[ChannelName] = CHANNELS,
        subscription: Topics = b"",
        outlive_death: bool = False,
        **options: Unpack[OpenOptions],
    ) -> AsyncIterator[KernelChannels]:
        """Opens the channels of this kernel, any number of times; an async context manager.

        When the kernel's process exits, the streams know at once. As long as it runs a silent
        kernel is not taken for lost, unless ``heartbeat_timeout`` says so.

        With `outlive_death` the channels go on when the process exits and :meth:`restart` starts it
        again: what is in flight raises ``KernelDied``, what is sent meanwhile waits; they go on
        behind a restart that failed, and one that follows. So a service that keeps its kernel alive
        is two lines:

        .. not run: it goes on for ever

        .. code-block:: python

            while True:
                await kernel.wait()
                await kernel.restart()

        Args:
            identity: See :func:`open_kernel_channels`.
            channels: See :func:`open_kernel_channels`.
            subscription: See :func:`open_kernel_channels`.
            outlive_death: Whether the channels wait for the next process when this one has exited.
            options: Those of :func:`open_kernel_channels`.

        Raises:
            KernelDied: The process has exited already.
            KernelConnectError: A channel did not answer in time.
            LocalProtocolError: An argument cannot be used.
        """
        options = {"heartbeat_timeout": math.inf, **options}
        names = sockets_for(channels)
        open_them = partial(self._open_watched, *names, outlive_death=outlive_death, **options)
        entered = False
        while not entered:
            await self._wait_restarted()
            self._running.raise_if_exited()
            try:
                async with open_them(identity=identity, subscription=subscription) as opened:
                    entered = True
                    yield opened
            except KernelDied as died:
                if entered or died.reason != "restarted":
                    raise

    @uncut_block
    async def _open_watched(
        self, *names: str, outlive_death: bool = False, **options: Any
    ) -> AsyncIterator[KernelChannels]:
        """Channels that are told of the process's exit, from before they are open."""
        made: list[Core] = []

        def on_made(core: Core) -> None:
            made.append(core)
            self._open.add(core)
            self._opening.add(core)
            if self.spec.interrupt_mode == "signal":
                core.interrupter = self._interrupt_by_signal
            # The kernel may have gone before there was anybody to be told.
            if self.restarting or process is not self._running.process:
                core.lose(fresh(_PUT_OFF))
            elif process is not None and process.returncode is not None:
                core.lose(process.died())

        info, process = self.connection_info, self._running.process
        try:
            async with open_some_channels(info, *names, on_made=on_made, **options) as channels:
                self._opening.difference_update(made)
                if outlive_death:
                    self._outliving.update(made)
                yield channels
        finally:
            for known in (self._open, self._opening, self._outliving):
                known.difference_update(made)

    async def _tell_exit(self, died: KernelDied) -> None:
        async with unwrapping_task_group() as tasks:
            tasks.start_soon(self._running.line.end, died, LAST_WORDS)
            for core in tuple(self._open):
                if core in self._outliving and not self._left:
                    self._await_next(core, died)
                    tasks.start_soon(end_of_old_kernel, core, LAST_WORDS)
                else:
                    tasks.start_soon(end_of_kernel, core, died, LAST_WORDS)
        if self._outliving and not self._left:
            # Or they would find somebody else at its address. Where it cannot be held they may.
            with contextlib.suppress(OSError):
                self._file.hold()

    def _await_next(self, core: Core, died: KernelDied | None = None) -> None:
        """It waits for the next one, if it does not already: what has found that before it died waits once more."""
        if not core.outage.ours:
            begin_restart(core, died)

    def _lose(self, said: str, cores: Iterable[Core]) -> None:
        for core in tuple(cores):
            core.lose(KernelDied(said, "exited", self.output))

    async def _wait_restarted(self) -> None:
        while self.restarting:  # one may follow the other
            await self._restarted.wait()

    async def interrupt(self) -> None:
        """Interrupts what the kernel runs, in the way its kernelspec names.

        With ``"signal"`` its process group gets a SIGINT, so that the programs it started are interrupted as
        well. With ``"message"`` it gets an ``interrupt_request``, whose reply is waited for. One that was asked to
        exit is left alone: it may be saving something. A checkpoint; cancelled, it may have interrupted.

        Raises:
            KernelDied: The process has exited; or is stopped, or restarted, before it has replied.
            NoReply: The kernel has not replied to the request within five seconds.
        """
        await checkpoint()
        await self._wait_restarted()
        self._running.raise_if_exited()
        if self.spec.interrupt_mode == "signal":
            self._running.interrupt()
        elif self._running.can_be_interrupted:
            self._tell_interrupt()
            await interrupt_reply(self._running.line.request(messages.interrupt_request()))

    async def _interrupt_by_signal(self) -> None:
        await checkpoint()
        self._running.interrupt()

    def _tell_interrupt(self) -> None:
        for core in self._open:
            core.interrupted()

    def signal(self, number: int) -> None:
        """Sends a signal to the kernel's process group, itself and what it started, whatever they do with it.

        Args:
            number: For example ``signal.SIGUSR1``. For an interrupt, :meth:`interrupt` knows how the kernel wants it.

        Raises:
            KernelDied: The process has exited.
            LocalProtocolError: There is no such signal.
        """
        chosen = checked_signal(number)
        self._running.raise_if_exited()
        assert self._running.process is not None
        if chosen == signal.SIGINT:
            self._tell_interrupt()
        self._running.process.signal(chosen)

    async def kill(self) -> int:
        """Kills the kernel and all that it started; its channels raise ``KernelDied``.

        :meth:`restart` starts it again. Beside one, it kills what runs at that moment: the old process,
        or the new one, whose start fails then. A checkpoint; cancelled, it has been killed.

        Returns:
            Its exit status.
        """
        self._running.kill()
        # Not of one that somebody starts in its place meanwhile.
        return await self._running.wait_told()

    @uncut
    async def shut_down(self) -> int:
        """Ends the kernel as leaving its block does; its channels raise ``KernelDied``.

        Interrupted, asked, told (SIGTERM) and killed, one after the other where the one before does
        not help. :meth:`restart` starts it again; one that is under way is waited for. A checkpoint;
        cancelled, be it in that wait or before it has begun, it is killed as by :meth:`kill`.

        Returns:
            Its exit status.
        """
        try:
            async with self._turns:
                await self._running.stop()
                return await self._running.wait_told()
        except BaseException:
            self._running.kill()
            raise

    @uncut
    async def restart(self, *, now: bool = False) -> None:
        """Stops the kernel and starts it again on the same connection file; returns when it is
        ready.

        The open channels go on: their requests in flight raise ``KernelDied``, what is sent
        meanwhile waits for the new kernel; those that are being opened are opened to that. A kernel
        that has exited can be restarted as well; the channels that were open then have ended, but for
        those that outlive it. Several restarts go one after the other. Cancelled, the kernel is left
        stopped, and its channels raise ``KernelDied``.

        Args:
            now: Whether it is killed, where it would be interrupted, asked to exit and terminated first:
                4.5 seconds at most for one that does not react.

        Raises:
            KernelLaunchError: It could not be started again; it is stopped, and its channels raise
                ``KernelDied``, but for those that outlive its death.
            anyio.ClosedResourceError: The block of the kernel was left.
        """
        async with self._turns:
            if self._left:
                raise anyio.ClosedResourceError("the block of the kernel was left")
            self._restarted = anyio.Event()
            try:
                with anyio.CancelScope() as self._restarting:
                    await self._restart(now=now)
                    return
                raise anyio.ClosedResourceError("the block of the kernel was left")
            except BaseException:
                said = "the kernel was stopped, and could not be restarted"
                try:
                    with anyio.CancelScope(shield=True):
                        await self._running.stop()
                        await self._tell_exit(KernelDied(said, "exited", self.output))
                finally:
                    self._lose(said, self._open - self._outliving)
                raise
            finally:
                self._restarted.set()

    async def _restart(self, *, now: bool) -> None:
        for core in self._opening:
            core.lose(fresh(_PUT_OFF))
        for core in self._open:
            self._await_next(core)
        await self._running.stop(restart=True, now=now)
        with self._running.cannot("hold its address"):
            self._file.remove_sockets()
            self._file.hold()
        async with unwrapping_task_group() as tasks:
            for core in tuple(self._open):
                tasks.start_soon(end_of_old_kernel, core, LAST_WORDS)
        process = await self._running.start()
        self._file.release()
        with anyio.move_on_after(RECONNECT_DEADLINE) as scope:
            async with unwrapping_task_group() as tasks:
                tasks.start_soon(process.cancel_at_exit, tasks.cancel_scope)
                for core in tuple(self._open):
                    with contextlib.suppress(EnchannelError, anyio.ClosedResourceError):
                        await core.opened()
                tasks.cancel_scope.cancel()
        if process.exited.is_set():
            what = f"{exit_text(process.returncode)} as soon as it was ready"
            raise self._running.launch_error(what, "exited")
        if scope.cancelled_caught:
            what = "was restarted, and its channels found no way to it"
            raise self._running.launch_error(what, "not ready")

    async def wait(self) -> int:
        """Waits until the kernel's process has exited and its channels know, and returns its exit
        status.

        The status is negative for a signal. A restart goes unnoticed. A checkpoint; cancellation
        changes nothing.
        """
        while True:
            await self._wait_restarted()
            process = self._running.process
            returncode = await self._running.wait_told()
            if not self.restarting and process is self._running.process:
                return returncode

    def __repr__(self) -> str:
        if self._running.process is None:
            return f"<Kernel {self.spec.name} not started>"
        state = "running" if self.returncode is None else exit_text(self.returncode)
        return f"<Kernel {self.spec.name} {self.pid} {state}>"

    @uncut_block
    async def launched(self, tasks: BlockTasks) -> AsyncIterator[None]:
        """The scope in which the kernel lives; entered by :func:`~enchannel.open_kernel`."""
        try:
            # Not by start(), for what is cancelled meanwhile would wait for a host that is shielded.
            tasks.start_soon(self._running.host, name="enchannel kernel")
            with anyio.CancelScope(shield=True):
                await self._running.hosting.wait()
            await self._running.begin()
            yield
        finally:
            self._left = True
            self._restarting.cancel()
            try:
                with anyio.CancelScope(shield=True):
                    try:
                        async with self._turns:
                            await self._running.stop()
                    except BaseException:
                        # Ctrl-C once more, be it before it has begun.
                        await self._running.stop(now=True)
                        raise
            finally:
                # Those that wait for a kernel that never comes, and whom nobody has told of this one.
                self._lose("the block of the kernel was left", self._open)
                # Whatever it was: nothing else ends what is shielded.
                self._running.end()
