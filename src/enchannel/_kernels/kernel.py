"""Kernels of one's own: launched, interrupted, restarted, and stopped on every way out.

The rules:

* A kernel is ready when its channels are open and iopub is proven live. Its process is watched meanwhile, so
  one that exits while starting is told at once, with the tail of what it wrote. One that finds its address
  taken is started again with another.
* It is interrupted as its kernelspec says: by SIGINT to all that it started, or by an interrupt_request.
* It is stopped step by step: interrupted, asked to shut down, told to (SIGTERM), killed, each with its own
  deadline; on the way out of the block that is shielded from cancellation.
* A restart is that, and a start on the same connection file. Whoever waits for an answer is told, and the
  open channels go on.

Source: "Making kernels for Jupyter", "Kernel interrupt" and "Kernel shutdown" of the Jupyter messaging
specification, jupyter_client.
"""

from __future__ import annotations

import contextlib
import math
import re
import signal
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.abc
from anyio.lowlevel import checkpoint

from .. import messages
from .._channels import KernelChannels
from .._conversations.replies import interrupt_reply
from .._core.core import Core
from .._core.stream import fresh
from .._exceptions import EnchannelError, KernelDied, KernelLaunchError
from .._groups import unwrapping_task_group
from .._open_channels import Identity, OpenOptions, Topics, open_some_channels
from .._protocol.connection_info import SOCKETS, ConnectionInfo
from .connection_files import ConnectionFile
from .launch import Launch
from .line import Line
from .process import KernelProcess, exit_text
from .specs import KernelSpec

if TYPE_CHECKING:
    from typing import Unpack

__all__ = ["Kernel"]

SHUTDOWN_DEADLINE, TERMINATE_DEADLINE, KILL_DEADLINE = 2.5, 2.0, 5.0
"""Seconds a kernel has to exit after a shutdown_request, after SIGTERM, and after SIGKILL."""

RECONNECT_DEADLINE = 15.0
"""Seconds for the open channels to be connected, and their iopub live, once a restarted kernel is ready."""

INTERRUPT_AGAIN = 1.0
"""Seconds after which a kernel that is being stopped, and still runs, is interrupted once more."""

LAST_WORDS = 0.5
"""Seconds that what a kernel sent before its process exited may take to arrive."""

ADDRESSES = 5
"""Addresses to try, one after the other, where they turn out to be taken."""

TAKEN_GRACE = 1.0
"""Seconds in which a kernel may become ready though something said that an address is in use. ipykernel
neither becomes ready nor exits."""


class _AddressTaken(KernelLaunchError):
    """Somebody else has the address that was meant for the kernel."""


class Kernel:
    """A running kernel; made by :func:`~enchannel.open_kernel`.

    Attributes:
        spec: The kernelspec it was launched from.
        connection_file: The file that says how to reach it, for other clients too; removed when the kernel
            is stopped.
    """

    def __init__(self, launch: Launch, file: ConnectionFile, tasks: anyio.abc.TaskGroup) -> None:
        self.spec: KernelSpec = launch.spec
        self.connection_file: Path = file.path
        self._launch = launch
        self._file = file
        self._tasks = tasks
        self._process: KernelProcess | None = None
        self._line = Line()
        self._open: set[Core] = set()
        self._opening: set[Core] = set()
        self._opened = anyio.Event()
        self._left = False
        self._turns = anyio.Lock()
        self._restarting = anyio.CancelScope()
        self._restarted = anyio.Event()
        self._restarted.set()

    @property
    def connection_info(self) -> ConnectionInfo:
        """How to reach it."""
        return self._file.info

    @property
    def pid(self) -> int:
        """The process id; another one after a restart."""
        assert self._process is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; ``None`` while the process runs."""
        return self._process.returncode if self._process is not None else None

    @property
    def output(self) -> str:
        """The tail, 16 KiB at most, of what its process has written to its standard output and standard error."""
        return self._process.output if self._process is not None else ""

    @asynccontextmanager
    async def open_channels(
        self,
        identity: Identity = None,
        *,
        subscription: Topics = b"",
        **options: Unpack[OpenOptions],
    ) -> AsyncIterator[KernelChannels]:
        """Opens the channels of this kernel, any number of times.

        Like :func:`~enchannel.open_kernel_channels`; when the kernel's process exits, the streams know
        at once. As long as it runs a silent kernel is not taken for lost, unless ``heartbeat_timeout`` says so.

        Raises:
            KernelDied: The process has exited already.
            KernelConnectError: A channel did not answer in time.
        """
        await self._wait_restarted()
        self._raise_if_exited()
        options = {"heartbeat_timeout": math.inf, **options}
        opening = self._open_watched(
            *SOCKETS, identity=identity, subscription=subscription, **options
        )
        async with opening as channels:
            yield channels

    @asynccontextmanager
    async def _open_watched(self, *names: str, **options: Any) -> AsyncIterator[KernelChannels]:
        """Channels that are told of the process's exit, from before they are open."""
        made: list[Core] = []

        def on_made(core: Core) -> None:
            made.append(core)
            self._open.add(core)
            self._opening.add(core)
            if self.spec.interrupt_mode == "signal":
                core.interrupter = self._send_interrupt

        info = self.connection_info
        try:
            async with open_some_channels(info, *names, on_made=on_made, **options) as channels:
                self._end_opening(made)
                yield channels
        finally:
            self._end_opening(made)
            self._open.difference_update(made)

    def _end_opening(self, made: Iterable[Core]) -> None:
        self._opening.difference_update(made)
        self._opened.set()
        self._opened = anyio.Event()

    async def _wait_restarted(self) -> None:
        # One restart may follow the other.
        while not self._restarted.is_set():
            await self._restarted.wait()

    async def interrupt(self) -> None:
        """Interrupts what the kernel runs, in the way its kernelspec names.

        With ``"signal"`` its process group gets a SIGINT, so that the programs it started are interrupted as
        well. With ``"message"`` it gets an ``interrupt_request``, whose reply is waited for. A checkpoint;
        cancelled, it may have interrupted.

        Raises:
            KernelDied: The process has exited.
            NoReply: The kernel has not replied to the request within five seconds.
        """
        await self._wait_restarted()
        self._raise_if_exited()
        if self.spec.interrupt_mode == "signal":
            await checkpoint()
            self._send_interrupt()
            return
        self._tell_interrupt()
        await interrupt_reply(self._line.request(messages.interrupt_request()))

    def _tell_interrupt(self) -> None:
        """Some kernels lose a reply when they are interrupted; whoever waits for one is told why."""
        for core in self._open:
            core.requests.interrupted()

    async def restart(self) -> None:
        """Stops the kernel and starts it again on the same connection file; returns when it is ready.

        The open channels go on: their requests in flight raise ``KernelDied``, what is sent meanwhile waits
        for the new kernel. A kernel that has exited can be restarted as well; the channels that were open
        then have ended. Several restarts go one after the other.

        Cancelled, the kernel is left stopped, and its channels raise ``KernelDied``.

        Raises:
            KernelLaunchError: It could not be started again; it is stopped, and its channels raise
                ``KernelDied``.
            anyio.ClosedResourceError: The block of the kernel was left.
        """
        async with self._turns:
            if self._left:
                raise anyio.ClosedResourceError("the block of the kernel was left")
            self._restarted = anyio.Event()
            try:
                with anyio.CancelScope() as self._restarting:
                    await self._restart()
                    return
                raise anyio.ClosedResourceError("the block of the kernel was left")
            except BaseException:
                with anyio.CancelScope(shield=True):
                    await self._stop()
                self._lose(
                    KernelDied("the kernel was stopped, and could not be restarted", "exited")
                )
                raise
            finally:
                self._restarted.set()

    async def _restart(self) -> None:
        while self._opening:
            # Or their sockets would be taken away meanwhile; bounded by their connect_timeout.
            await self._opened.wait()
        for core in self._open:
            core.begin_restart()
        await self._stop(restart=True)
        self._file.remove_sockets()
        with self._cannot("hold its address"):
            self._file.hold()
        async with unwrapping_task_group() as tasks:
            for core in tuple(self._open):
                tasks.start_soon(core.end_of_old_kernel, LAST_WORDS)
        process = await self._start()
        self._file.release()
        with anyio.move_on_after(RECONNECT_DEADLINE) as scope:
            async with unwrapping_task_group() as tasks:
                tasks.start_soon(process.cancel_at_exit, tasks.cancel_scope)
                for core in tuple(self._open):
                    with contextlib.suppress(EnchannelError, anyio.ClosedResourceError):
                        await core.opened()
                tasks.cancel_scope.cancel()
        if process.exited.is_set():
            raise self._launch_error(
                f"{exit_text(process.returncode)} as soon as it was ready", process
            )
        if scope.cancelled_caught:
            raise self._launch_error("was restarted, and its channels found no way to it", process)

    async def wait(self) -> int:
        """Waits until the kernel's process has exited, and returns its exit status.

        A restart goes unnoticed. A checkpoint; cancellation changes nothing.
        """
        await checkpoint()
        while True:
            await self._wait_restarted()
            process = self._process
            assert process is not None
            await process.exited.wait()
            if self._restarted.is_set() and process is self._process:
                assert process.returncode is not None
                return process.returncode

    def __repr__(self) -> str:
        if self._process is None:
            return f"<Kernel {self.spec.name} not started>"
        state = "running" if self.returncode is None else exit_text(self.returncode)
        return f"<Kernel {self.spec.name} {self.pid} {state}>"

    # Its life.

    @asynccontextmanager
    async def launched(self) -> AsyncIterator[None]:
        """The scope in which the kernel lives; entered by :func:`~enchannel.open_kernel`."""
        try:
            await self._begin()
            yield
        finally:
            self._left = True
            self._restarting.cancel()
            with anyio.CancelScope(shield=True):
                async with self._turns:
                    await self._stop()
            self._tasks.cancel_scope.cancel()

    async def _begin(self) -> None:
        """Starts it for the first time, at an address that nobody else has."""
        for left in reversed(range(ADDRESSES)):
            # Where a kernel cannot bind what is held for it, it gets what is free and not held.
            with self._cannot("get an address"):
                self._file.choose(hold=left == ADDRESSES - 1)
            try:
                await self._start()
                break
            except _AddressTaken:
                if not left:
                    raise
                await self._stop()
        self._file.release()

    @contextmanager
    def _cannot(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            name = f"{error.filename}: " if error.filename else ""
            raise KernelLaunchError(
                f"kernel {self.spec.name!r} cannot {what}: {name}{error.strerror}"
            ) from error

    async def _start(self) -> KernelProcess:
        spec, launch = self.spec, self._launch
        command = [*spec.command(self.connection_file), *launch.extra_arguments]
        with self._cannot("be started"):
            self._file.write()
            process = await KernelProcess.start(command, launch.cwd, spec.environment(launch.env))
        self._process = process
        self._tasks.start_soon(process.keep_output, name="enchannel kernel output")
        self._tasks.start_soon(self._follow_exit, process, name="enchannel kernel exit")
        await self._become_ready(process)
        return process

    async def _follow_exit(self, process: KernelProcess) -> None:
        await process.wait()
        if not self._restarted.is_set():
            return
        await process.wait_last_output()
        if process is self._process:
            async with unwrapping_task_group() as tasks:
                for each in (self._line.end, *(core.end_of_kernel for core in self._open)):
                    tasks.start_soon(each, process.died(), LAST_WORDS)

    def _raise_if_exited(self) -> None:
        if self._process is not None and self.returncode is not None:
            raise self._process.died()

    def _lose(self, died: KernelDied) -> None:
        for core in tuple(self._open):
            core.lose(fresh(died))

    async def _become_ready(self, process: KernelProcess) -> None:
        timeout = self._launch.startup_timeout
        line = self._line = Line()
        self._tasks.start_soon(line.hold, self.connection_info, timeout, name="enchannel line")
        known = False
        async with unwrapping_task_group() as tasks:
            tasks.start_soon(process.cancel_at_exit, tasks.cancel_scope)
            tasks.start_soon(self._cancel_at_taken, process, tasks.cancel_scope)
            await line.wait_known()
            known = True
            tasks.cancel_scope.cancel()
        if process.exited.is_set():
            await process.wait_last_output()
            what = f"{exit_text(process.returncode)} while starting"
            raise self._launch_error(what, process, taken=process.address_taken.is_set())
        if not known:
            raise self._launch_error("found its address taken", process, taken=True)
        if line.failure is not None:
            what = f"was not ready within {timeout:g} s: {line.failure}"
            raise self._launch_error(what, process) from line.failure
        if not line.ready:
            what = f"was not ready within {timeout:g} s: it answers no kernel_info_request"
            raise self._launch_error(what, process)
        process.ready = True

    async def _cancel_at_taken(self, process: KernelProcess, scope: anyio.CancelScope) -> None:
        """Cancels where the kernel complains of an address that is ours, and not of one of its own."""
        await process.address_taken.wait()
        await anyio.sleep(TAKEN_GRACE)
        info = self.connection_info
        ports = (info.endpoint(name).rpartition(":")[2] for name in SOCKETS)
        if any(re.search(rf"\b{re.escape(port)}\b", process.output) for port in ports):
            scope.cancel()

    def _launch_error(
        self, what: str, process: KernelProcess, *, taken: bool = False
    ) -> KernelLaunchError:
        kind = _AddressTaken if taken else KernelLaunchError
        return kind(f"kernel {self.spec.name!r} {what}", process.output)

    async def _stop(self, *, restart: bool = False) -> None:
        """Ends the process and all that it started; bounded."""
        process = self._process
        if process is None:
            return
        try:
            if process.returncode is None and process.ready:
                with anyio.move_on_after(SHUTDOWN_DEADLINE):
                    await self._shut_down(process, restart=restart)
            if process.returncode is None:
                process.signal(signal.SIGTERM)
                with anyio.move_on_after(TERMINATE_DEADLINE):
                    await process.wait()
        finally:
            self._line.close()
            # Also when the kernel is gone: what it left behind in its session goes with it.
            process.signal(signal.SIGKILL)
        with anyio.move_on_after(KILL_DEADLINE):
            await process.wait()
        await process.aclose()

    def _send_interrupt(self) -> None:
        process = self._process
        # Not one that is still starting, which it would end.
        if process is not None and process.returncode is None and process.ready:
            self._tell_interrupt()
            process.signal(signal.SIGINT)

    async def _shut_down(self, process: KernelProcess, *, restart: bool) -> None:
        # ipykernel answers a shutdown_request while a cell runs, and exits only behind the cell.
        async with unwrapping_task_group() as tasks:
            if self.spec.interrupt_mode == "signal":
                self._send_interrupt()
                tasks.start_soon(self._interrupt_again)
            by_message = self.spec.interrupt_mode == "message"
            tasks.start_soon(
                partial(self._line.ask_to_shut_down, restart=restart, interrupt=by_message)
            )
            await process.wait()
            tasks.cancel_scope.cancel()

    async def _interrupt_again(self) -> None:
        # A signal between two cells is lost on ipykernel, and the next cell would be waited for.
        await anyio.sleep(INTERRUPT_AGAIN)
        self._send_interrupt()
