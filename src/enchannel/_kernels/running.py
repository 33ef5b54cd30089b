"""The process of a kernel, from its start to its end, and the one that is started in its place.

The rules:

* A kernel is ready when its channels are open, iopub is proven live, and it has answered. Its process is watched
  meanwhile, so one that exits while starting is told at once, with the tail of what it wrote. One that finds its
  address taken is started again with another, and one that does not get at those of its ipc sockets with one of TCP.
* It is stopped step by step: interrupted, asked to shut down, told to (SIGTERM), killed, each with its own deadline.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
import anyio.abc
from anyio.lowlevel import checkpoint

from .._exceptions import KernelDied, KernelLaunchError, LaunchFailure
from .._groups import unwrapping_task_group
from .._protocol.connection_info import SOCKETS
from .._trio import uncut
from .connection_files import ConnectionFile
from .launch import Launch
from .line import Line
from .process import KernelProcess, exit_text

__all__ = ["Running"]

SHUTDOWN_DEADLINE, TERMINATE_DEADLINE, KILL_DEADLINE = 2.5, 2.0, 5.0
"""Seconds a kernel has to exit after a shutdown_request, after SIGTERM, and after SIGKILL; the last are those in which
whoever is to know of the exit is told as well."""

INTERRUPTS, INTERRUPT_DEADLINE = 2, 1.0
"""How often a kernel that is being stopped is interrupted before it is asked to exit all the same, and seconds that it has
each time to be done. On ipykernel a signal that comes between two cells is lost."""

ADDRESSES = 5
"""Addresses to try, one after the other, where they turn out to be taken."""

TAKEN_GRACE = 1.0
"""Seconds in which a kernel may become ready though something said that an address is in use. ipykernel
neither becomes ready nor exits."""


class Running:
    """The process of a kernel: the present one, or the last.

    Args:
        launch: How it is started.
        file: The connection file.
        is_replaced: Whether it is being replaced by another one, so that who replaces it says what becomes of it.
        on_exit: Called with what is raised of it when a process has exited that is not being replaced.
        on_interrupt: Called before it is interrupted.

    Attributes:
        process: It; ``None`` before the first was started.
        line: Our own connection to it.
        hosting: Set when :meth:`host` can take what goes on beside it.
    """

    def __init__(
        self,
        launch: Launch,
        file: ConnectionFile,
        *,
        is_replaced: Callable[[], bool],
        on_exit: Callable[[KernelDied], Awaitable[None]],
        on_interrupt: Callable[[], None],
    ) -> None:
        self.process: KernelProcess | None = None
        self.line: Line = Line()
        self.hosting: anyio.Event = anyio.Event()
        self._launch = launch
        self._spec = launch.spec
        self._file = file
        self._tasks: anyio.abc.TaskGroup | None = None
        self._is_replaced = is_replaced
        self._on_exit = on_exit
        self._on_interrupt = on_interrupt

    async def wait_told(self) -> int:
        """Waits until the process that runs now has exited and whoever is to know does; returns its exit status."""
        process = self.process
        assert process is not None
        await checkpoint()
        await process.told.wait()
        assert process.returncode is not None
        return process.returncode

    def raise_if_exited(self) -> None:
        """Raises what is to be told of a process that has exited.

        Raises:
            KernelDied: It has.
        """
        if self.process is not None and self.process.returncode is not None:
            raise self.process.died()

    async def host(self) -> None:
        """Where what goes on beside it runs, until :meth:`end`.

        Shielded: whoever cancels the kernel's block wants it stopped as softly as ever, and for that it is talked to.
        """
        async with unwrapping_task_group() as self._tasks:
            self._tasks.cancel_scope.shield = True
            self.hosting.set()
            await anyio.sleep_forever()

    def end(self) -> None:
        """Behind the last :meth:`stop`."""
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()

    def _start_beside(
        self, function: Callable[..., Coroutine[Any, Any, None]], *args: object, name: str
    ) -> None:
        assert self._tasks is not None
        self._tasks.start_soon(self._run_beside, function, *args, name=name)

    @uncut
    async def _run_beside(
        self, function: Callable[..., Coroutine[Any, Any, None]], *args: object
    ) -> None:
        await function(*args)

    # Starting.

    async def begin(self) -> None:
        """Starts it for the first time, at an address that nobody else has."""
        hold = True
        for left in reversed(range(ADDRESSES)):
            with self.cannot("get an address"):
                self._file.choose(hold=hold)
            try:
                await self.start()
                break
            except KernelLaunchError as error:
                hidden = error.reason == "address hidden" and self._launch.may_use_tcp
                if not left or not (hidden or error.reason == "address taken"):
                    raise
                await self.stop()
                if hidden:
                    self._file.use_tcp()
                else:
                    # Where a kernel cannot bind what is held for it, it gets what is free and not held.
                    hold = False
        self._file.release()

    async def start(self) -> KernelProcess:
        """Starts it, and waits until it is ready.

        Raises:
            KernelLaunchError: It could not be, or was not in time.
        """
        launch = self._launch
        own = self._spec.command(self._file.path)
        command = [*launch.launcher, *own, *launch.extra_arguments]
        with self.cannot("be started"):
            self._file.write()
            environment = self._spec.environment(launch.env)
            process = await KernelProcess.start(command, launch.cwd, environment)
        self.process = process
        self._start_beside(process.keep_output, name="enchannel kernel output")
        self._start_beside(self._follow_exit, process, name="enchannel kernel exit")
        await self._become_ready(process)
        return process

    @contextmanager
    def cannot(self, what: str) -> Iterator[None]:
        """Says of an error of the system what the kernel cannot.

        Raises:
            KernelLaunchError: There was one.
        """
        try:
            yield
        except OSError as error:
            name = f"{error.filename}: " if error.filename else ""
            raise KernelLaunchError(
                f"kernel {self._spec.name!r} cannot {what}: {name}{error.strerror}",
                reason="system",
            ) from error

    async def _become_ready(self, process: KernelProcess) -> None:
        timeout = self._launch.startup_timeout
        line = self.line = Line()
        self._start_beside(line.hold, self._file.info, timeout, name="enchannel line")
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
            if self._file.is_named_in(process.output):
                what += ": it does not get at the directory of its ipc sockets, since its /tmp may be another one than ours"
                raise self.launch_error(what, "address hidden")
            taken = process.address_taken.is_set()
            raise self.launch_error(what, "address taken" if taken else "exited")
        if not known:
            raise self.launch_error("found its address taken", "address taken")
        if line.failure is not None:
            what = f"was not ready within {timeout:g} s: {line.failure}"
            raise self.launch_error(what, "not ready") from line.failure
        if not line.ready:
            what = f"was not ready within {timeout:g} s: it answers no kernel_info_request"
            raise self.launch_error(what, "not ready")
        process.ready = True

    async def _cancel_at_taken(self, process: KernelProcess, scope: anyio.CancelScope) -> None:
        """Cancels where the kernel complains of an address that is ours, and not of one of its own."""
        await process.address_taken.wait()
        await anyio.sleep(TAKEN_GRACE)
        info = self._file.info
        ports = (info.endpoint(name).rpartition(":")[2] for name in SOCKETS)
        if any(re.search(rf"\b{re.escape(port)}\b", process.output) for port in ports):
            scope.cancel()

    def launch_error(self, what: str, reason: LaunchFailure) -> KernelLaunchError:
        """That it did `what`, with the tail of what it wrote."""
        assert self.process is not None
        said = f"kernel {self._spec.name!r} {what}"
        return KernelLaunchError(said, self.process.output, reason)

    async def _follow_exit(self, process: KernelProcess) -> None:
        await process.wait()
        try:
            if not self._is_replaced():
                await process.wait_last_output()
                # Somebody may have begun meanwhile.
                if process is self.process and not self._is_replaced():
                    await self._on_exit(process.died())
        finally:
            process.tell()

    # Interrupting and stopping.

    @property
    def can_be_interrupted(self) -> bool:
        """Whether it is there for code; one that is still starting, or on its way out, would be ended, or cut short."""
        process = self.process
        if process is None or process.returncode is not None:
            return False
        return process.ready and not process.leaving

    def interrupt(self) -> None:
        """Sends SIGINT to it and all that it started, where it can be interrupted."""
        if self.can_be_interrupted:
            assert self.process is not None
            self._on_interrupt()
            self.process.signal(signal.SIGINT)

    def kill(self) -> None:
        """Kills what runs now, and all that it started."""
        if self.process is not None:
            self.process.signal(signal.SIGKILL)

    async def stop(self, *, restart: bool = False, now: bool = False) -> None:
        """Ends it and all that it started, and has whoever is to know told; bounded.

        Args:
            restart: Whether another one is started in its place.
            now: Whether it is killed and not asked.
        """
        process = self.process
        if process is None:
            return
        try:
            if process.returncode is None and process.ready and not now:
                with anyio.move_on_after(SHUTDOWN_DEADLINE):
                    await self._shut_down(process, restart=restart)
            if process.returncode is None and not now:
                process.signal(signal.SIGTERM)
                with anyio.move_on_after(TERMINATE_DEADLINE):
                    await process.wait()
        finally:
            self.line.close(
                KernelDied("the kernel was restarted", "restarted")
                if restart
                else KernelDied("the kernel was stopped", "exited", process.output)
            )
            # Also when the kernel is gone: what it left behind in its process group goes with it.
            process.signal(signal.SIGKILL)
        with anyio.move_on_after(KILL_DEADLINE):
            await process.told.wait()
        await process.aclose()

    async def _shut_down(self, process: KernelProcess, *, restart: bool) -> None:
        async with unwrapping_task_group() as tasks:
            tasks.start_soon(partial(self._ask_to_exit, process, restart=restart))
            await process.wait()
            tasks.cancel_scope.cancel()

    @uncut
    async def _ask_to_exit(self, process: KernelProcess, *, restart: bool) -> None:
        # ipykernel answers a shutdown_request while a cell runs, and exits only behind the cell.
        by_message = self._spec.interrupt_mode == "message"
        try:
            for _ in range(0 if by_message else INTERRUPTS):
                self.interrupt()
                with anyio.move_on_after(INTERRUPT_DEADLINE):
                    await self.line.wait_done()
                    break
        finally:
            # Whoever interrupts: a signal hits who is on the way out as well.
            process.leaving = True
        await self.line.ask_to_shut_down(restart=restart, interrupt=by_message)
