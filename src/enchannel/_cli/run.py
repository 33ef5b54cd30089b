"""``enchannel run``: code in a kernel, one piece after the other, and every way that this can end.

What ends it is recorded once, by whichever task noticed, and cancels: the code while it runs, so that the
kernel is interrupted over channels that still work, everything otherwise. A kernel that was launched is
stopped on the way out, and signals are obeyed until that is done. No task raises, so nothing comes in an
``ExceptionGroup``.

=================================  ==========================================================
the code ran                       exit status 0, or that of ``sys.exit()``
it raised                          1; what comes behind it is not run
it could not be run                2
input was asked for, and is over   2; the code is interrupted
``--timeout``                      124; the code is interrupted
Ctrl-C                             interrupts the code; 130 where it fails then, and behind a
                                   second one, or where nothing runs yet
SIGTERM, SIGHUP                    143, 129
each of them behind the code       the same, where a notebook is not written yet
each of them once more             kills a kernel that is being stopped; one that was started at
                                   a server is deleted
Ctrl-Z                             the terminal is given back first
=================================  ==========================================================
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import anyio
import attrs
import trio

from .. import (
    EnchannelError,
    Execution,
    KernelChannels,
    KernelDied,
    Message,
    NoReply,
    NotImplementedByKernel,
    ServerError,
    Subscription,
    messages,
)
from .._signals import heard
from .command import stop_until_continued
from .input import Input
from .output import Output, exit_status
from .target import Target

__all__ = ["Cell", "Run", "Work"]

LAST_LINES = 10
"""Of what a kernel that has died has written, to say with its death."""

FAILED = 1
"""The status behind code that raised."""

INTERRUPTED = 128 + signal.SIGINT
"""The status behind code that was interrupted and failed, as a shell's."""

PATIENCE = 2.0
"""Seconds that a server may be silent when nobody wants to wait."""

STOPPED_WITHIN = 10.0
"""Seconds that one which answers has to end a kernel then: it may ask a kernel that heeds nobody first."""

READ_WITHIN = 1.0
"""Seconds that who reads what is kept has behind a time limit, or a signal."""

INPUT_ENDED = "the code asked for input, and standard input has ended"
"""Said when nobody can answer any more."""


def _ignore(_: Execution) -> None:
    pass


@attrs.frozen
class Cell:
    """A piece of code to run."""

    name: str
    """What it is called while it runs."""
    code: str
    may_fail: bool = False
    """Whether the others are run whatever becomes of it."""
    timeout: float = math.inf
    """Seconds that it may take."""
    record: Callable[[Execution], None] = _ignore
    """Called with its execution when that is over, in whatever way."""
    keep_outputs: bool = False
    is_named: bool = False
    """Whether what becomes of it is told by its name, behind the kernel's own words."""


class Work:
    """What is run.

    Attributes:
        cells: One after the other.
    """

    def __init__(self, cells: Sequence[Cell]) -> None:
        self.cells: Sequence[Cell] = cells

    async def prepare(self, ch: KernelChannels) -> None:
        """The kernel is ready, and nothing has run. Cancelled, nothing will."""

    @asynccontextmanager
    async def at_work(self, ch: KernelChannels) -> AsyncIterator[None]:  # noqa: ARG002
        """The scope in which it is run, and saved."""
        yield

    def hear(self, message: Message) -> None:
        """The kernel has published something for what is run."""

    async def save(self) -> None:
        """Nothing more is run. Cancelled, what is to be kept may not be written, or in part.

        Raises:
            OSError: What is to be kept cannot be written.
        """


@attrs.frozen
class Ending:
    """How the command ends."""

    status: int
    message: str


class Run:
    """The running of some code, in a kernel of its own or in one that is there."""

    def __init__(
        self,
        work: Work,
        target: Target,
        *,
        output: Output,
        answers: Input | None,
        timeout: float | None,
    ) -> None:
        self._work = work
        self._target = target
        self._output = output
        self._answers = answers
        self._timeout = math.inf if timeout is None else timeout
        self._ending: Ending | None = None
        self._stopped = 0
        self._running: KernelChannels | None = None
        self._interrupted = False
        self._cell: Cell | None = None
        # What may still run in a kernel that goes on.
        self._waits = ""
        self._prompt = trio.CancelScope()

    async def __call__(self) -> int:
        """Runs it, says what went wrong, and returns the exit status."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)
        with heard(*numbers) as signals:
            async with trio.open_nursery() as self._beside:
                async with trio.open_nursery() as self._tasks:
                    self._scope = self._tasks.cancel_scope
                    self._start_beside(self._obey, signals)
                    self._start_beside(self._output.draw_progress)
                    self._start(self._run)
                self._beside.cancel_scope.cancel()
        assert self._ending is not None
        left = self._target.left_behind
        goes_on = f"the server has not said that it stopped it: {left} may go on" if left else ""
        said = "\n".join(filter(None, (self._ending.message, self._waits, goes_on)))
        if said:
            with suppress(OSError):
                await self._output.last_note(f"Error: {said}")
        return self._ending.status

    # Every task is started here, so that every error is an ending.

    def _start(self, task: Callable[..., Awaitable[None]], *args: Any) -> None:
        self._tasks.start_soon(self._recorded, task, *args)

    def _start_beside(self, task: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Starts what goes on until the kernel is stopped."""
        self._beside.start_soon(self._recorded, task, *args)

    async def _recorded(self, task: Callable[..., Awaitable[None]], *args: Any) -> None:
        with self._recording():
            await task(*args)
            return
        self._scope.cancel()

    @contextmanager
    def _recording(self) -> Iterator[None]:
        """Whatever ends the block is how we end, and is raised no further."""
        try:
            yield
        except KernelDied as died:
            self._record(2, "\n".join([str(died), *died.output.splitlines()[-LAST_LINES:]]))
        except EnchannelError as error:
            self._record(2, str(error))
        except BrokenPipeError:
            # Whoever read our output has gone; there is nobody to tell.
            self._record(1)
        except OSError as error:
            self._record(2, str(error))

    def _end(self, status: int, message: str = "") -> None:
        self._record(status, message)
        self._scope.cancel()

    def _record(self, status: int, message: str = "") -> None:
        if self._ending is None:
            self._ending = Ending(status, message)

    # Signals.

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number == signal.SIGTSTP:
                await self._give_way()
            elif self._ending is None and number == signal.SIGINT and self._can_be_interrupted:
                self._interrupted = True
                self._prompt.cancel()
                self._output.say("interrupted; Ctrl-C again stops")
                assert self._running is not None
                self._start(self._interrupt, self._running)
            else:
                told_before = self._ending is not None or self._interrupted
                self._output.begin(*self._target.ends)
                self._stopped = self._stopped or 128 + number
                self._end(128 + number)
                if told_before and self._target.kill is not None:
                    self._start_beside(self._kill, self._target.kill)
                if told_before and self._target.left_behind:
                    self._start_beside(self._leave_behind, 128 + number)

    @property
    def _can_be_interrupted(self) -> bool:
        return self._running is not None and not self._interrupted

    async def _kill(self, kill: Callable[[], Awaitable[object]]) -> None:
        with suppress(EnchannelError, anyio.ClosedResourceError):
            await kill()

    async def _leave_behind(self, status: int) -> None:
        """Ends us where the server is silent, or takes all too long to end the kernel."""
        said = "has not stopped it"
        with trio.move_on_after(STOPPED_WITHIN):
            await self._target.wait_silent(PATIENCE)
            said = "does not answer"
        await self._stand_back()
        left = self._target.left_behind
        if left:
            with suppress(OSError):
                await self._output.last_note(f"Error: the server {said}; {left} may go on")
        os._exit(status)

    async def _stand_back(self) -> None:
        """Gives the terminal back as it was."""
        if self._answers is not None:
            self._answers.stand_back()
        await self._output.stand_back()

    async def _give_way(self) -> None:
        """Stops until somebody has us go on; the terminal is somebody else's meanwhile."""
        await self._stand_back()
        stop_until_continued()
        if self._answers is not None:
            self._answers.come_back()
        await self._output.come_back()

    async def _interrupt(self, ch: KernelChannels) -> None:
        # That the kernel is lost, is told by whoever reads what it said before.
        with suppress(KernelDied, anyio.ClosedResourceError):
            try:
                await ch.interrupt()
            except NotImplementedByKernel:
                await self._output.note("this kernel cannot be interrupted; Ctrl-C again stops")
            except NoReply as error:
                said = "the kernel does not answer to that"
                if isinstance(error.__cause__, ServerError):
                    said = str(error)
                await self._output.note(f"{said}; Ctrl-C again stops")

    # The code.

    async def _run(self) -> None:
        self._output.begin(self._target.begins, "Ctrl-C stops")
        # It listens before anything runs: what answers an execution waits for no stream.
        async with self._target.open_channels() as ch, ch.subscribe("stdin") as prompts:
            self._start(self._answer_prompts, ch, prompts)
            until = trio.current_time() + self._timeout
            await self._in_time(trio.CancelScope(deadline=until), self._work.prepare, ch)
            await self._output.end()
            if self._ending is None:
                async with self._work.at_work(ch):
                    limit = trio.CancelScope(deadline=until)
                    try:
                        await self._in_time(limit, self._run_cells, ch)
                    finally:
                        await self._save(limit)
            self._output.begin(*self._target.ends)
        self._tasks.cancel_scope.cancel()

    async def _save(self, limit: trio.CancelScope) -> None:
        """Has it written what is to be kept; whoever reads that may take his time, but for all that ends us."""
        status, told = 2, ""
        stopped = limit.cancel_called
        until = trio.current_time() + READ_WITHIN if stopped else limit.deadline
        with self._ended_by(trio.CancelScope(deadline=until)) as saving:
            self._output.begin("writing what came of it", "Ctrl-C stops")
            try:
                await self._work.save()
            except OSError as error:
                told = f"what came of it cannot be written: {error}" if error.errno else str(error)
        if saving.cancelled_caught:
            status = self._ending.status if stopped and self._ending else self._stopped or 124
            told = "what came of it is not written: nobody has read it in time"
        if told:
            # Whatever came of it before: who relies on what is written is to know.
            before = self._ending.message if self._ending is not None else ""
            self._ending = Ending(status, "\n".join(filter(None, (before, told))))

    @contextmanager
    def _ended_by(self, scope: trio.CancelScope) -> Iterator[trio.CancelScope]:
        """What ends us cancels `scope`, while the block lasts, and nothing else."""
        self._scope = scope
        try:
            with scope:
                yield scope
        finally:
            self._scope = self._tasks.cancel_scope

    async def _in_time(
        self,
        limit: trio.CancelScope,
        task: Callable[[KernelChannels], Awaitable[None]],
        ch: KernelChannels,
    ) -> None:
        """Has `task` done within `limit`; what ends it before it is done is how we end."""
        with self._ended_by(limit), self._recording():
            await task(ch)
            return
        # Unless there is another reason why it was cancelled.
        where = f", in {self._cell.name}" if self._cell is not None and self._cell.is_named else ""
        self._record(124, f"timed out after {self._timeout:g} s{where}")

    async def _run_cells(self, ch: KernelChannels) -> None:
        for cell in self._work.cells:
            self._cell = cell
            hint = "Ctrl-C stops" if self._interrupted else "Ctrl-C interrupts"
            self._output.begin(f"running {cell.name}", hint)
            status = None
            try:
                with trio.move_on_after(cell.timeout) as limit:
                    status = await self._run_cell(ch, cell)
            finally:
                self._running = None
                self._prompt.cancel()
            await self._output.end()
            if limit.cancelled_caught:
                self._record(124, f"{cell.name} took more than {cell.timeout:g} s")
                return
            if status is not None:
                how = "was interrupted" if self._interrupted else "failed"
                if status != FAILED:
                    how = "ended it, and what comes behind was not run"
                told = status == FAILED or cell is not self._work.cells[-1]
                if status == FAILED and self._interrupted:
                    status = INTERRUPTED
                self._record(status, f"{cell.name} {how}" if cell.is_named and told else "")
                return
        self._record(0)

    async def _run_cell(self, ch: KernelChannels, cell: Cell) -> int | None:
        """Runs it; the status that the command ends with, unless it goes on."""
        on_input = None if self._answers is None else _answered_elsewhere
        executing = ch.execute(
            cell.code, on_input=on_input, interrupt_on_cancel=True, keep_outputs=cell.keep_outputs
        )
        async with executing as execution:
            begun = False
            try:
                self._running = ch
                async for msg in execution:
                    begun = True
                    if msg.msg_type != "input_request":
                        self._work.hear(msg)
                        await self._output.message("iopub", msg)
                reply = await execution.wait()
            except trio.Cancelled:
                if not begun and self._target.existing is not None:
                    self._waits = f"the kernel was busy with other code; {cell.name} still waits there, and may be run"
                raise
            finally:
                cell.record(execution)
        await self._output.message("shell", reply)
        if execution.missed:
            await self._output.note(
                f"the kernel has lost {execution.missed} messages of {cell.name}: they were read too slowly"
            )
        if cell.may_fail and not self._interrupted:
            return None
        ended = exit_status(reply.content)
        if ended is None and reply.content.get("status", "ok") != "ok":
            return FAILED
        return ended

    # What the code asks for.

    async def _answer_prompts(self, ch: KernelChannels, prompts: Subscription) -> None:
        with suppress(KernelDied, anyio.ClosedResourceError):
            async for _, msg in prompts:
                await self._output.message("stdin", msg)
                if msg.msg_type == "input_request":
                    # Given up when the code is interrupted: it may ask anew.
                    with trio.CancelScope() as self._prompt:
                        value = await self._value(msg)
                        await ch.stdin.send(messages.input_reply(value, msg))

    async def _value(self, msg: Message) -> str:
        if self._answers is None:
            # Some kernels ask although that is not allowed; without an answer they would wait.
            return ""
        prompt, password = msg.content.get("prompt"), msg.content.get("password")
        line = await self._answers.answer(str(prompt or ""), bool(password))
        if line is None:
            self._end(2, INPUT_ENDED)
            await trio.sleep_forever()
        return line


async def _answered_elsewhere(prompt: str, password: bool) -> str:  # noqa: ARG001
    """Allows the code to ask. An answer given here could not be taken back when it is interrupted."""
    await trio.sleep_forever()
