"""``enchannel run``: code in a kernel, one piece after the other, and every way that this can end.

What ends it is recorded once, by whichever task noticed, and cancels: the code while it runs, so that the
kernel is interrupted over channels that still work, everything otherwise. A kernel that was launched is
stopped on the way out. No task raises, so nothing comes in an ``ExceptionGroup``.

=================================  ==========================================================
the code ran                       exit status 0
it raised                          1; what comes behind it is not run
it could not be run                2
input was asked for, and is over   2; the code is interrupted
``--timeout``                      124; the code is interrupted
Ctrl-C                             interrupts the code, which most often raises then; again
                                   (or while nothing runs yet) 130
SIGTERM, SIGHUP                    143, 129
=================================  ==========================================================
"""

from __future__ import annotations

import math
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import attrs
import trio

from .. import (
    EnchannelError,
    KernelChannels,
    KernelDied,
    Message,
    NoReply,
    NotImplementedByKernel,
    Subscription,
    find_connection_file,
    messages,
    open_kernel,
    open_kernel_channels,
    open_server,
)
from .._signals import heard
from .input import Input
from .output import Output

__all__ = ["Cell", "Run", "Target"]

LAST_LINES = 10
"""Of what a kernel that has died has written, to say with its death."""

INPUT_ENDED = "the code asked for input, and standard input has ended"
"""Said when nobody can answer any more."""


@attrs.frozen
class Cell:
    """A piece of code to run."""

    name: str
    """What it is called while it runs."""
    code: str


@attrs.frozen
class Target:
    """Where code is run."""

    kernel: str | None
    existing: str | None
    server: str | None = None

    @asynccontextmanager
    async def open_channels(self) -> AsyncIterator[KernelChannels]:
        """The channels of the kernel, which is launched unless it runs already."""
        if self.server is not None:
            async with open_server(self.server) as server:
                if self.existing is not None:
                    there = server.attach(self.existing)
                else:
                    # A gateway wants to know who starts a kernel, and takes that and more from these.
                    env = {k: v for k, v in os.environ.items() if k.startswith("KERNEL_")}
                    there = server.open_kernel(self.kernel, env=env)
                async with there as kernel, kernel.open_channels() as ch:
                    yield ch
        elif self.existing is not None:
            async with open_kernel_channels(None, find_connection_file(self.existing)) as ch:
                yield ch
        else:
            async with (
                open_kernel(self.kernel or "python3") as launched,
                launched.open_channels() as ch,
            ):
                yield ch


@attrs.frozen
class Ending:
    """How the command ends."""

    status: int
    message: str


class Run:
    """The running of some cells, in a kernel of their own or in one that is there."""

    def __init__(
        self,
        cells: Sequence[Cell],
        target: Target,
        *,
        output: Output,
        answers: Input | None,
        timeout: float | None,
    ) -> None:
        self._cells = cells
        self._target = target
        self._output = output
        self._answers = answers
        self._timeout = math.inf if timeout is None else timeout
        self._ending: Ending | None = None
        self._running: KernelChannels | None = None
        self._interrupted = False
        self._prompt = trio.CancelScope()

    async def __call__(self) -> int:
        """Runs them, says what went wrong, and returns the exit status."""
        with heard(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            async with trio.open_nursery() as self._tasks:
                self._scope = self._tasks.cancel_scope
                self._start(self._obey, signals)
                self._start(self._run)
        assert self._ending is not None
        if self._ending.message:
            self._output.note(f"Error: {self._ending.message}")
        return self._ending.status

    # Every task is started here, so that every error is an ending.

    def _start(self, task: Callable[..., Awaitable[None]], *args: Any) -> None:
        self._tasks.start_soon(self._recorded, task, *args)

    async def _recorded(self, task: Callable[..., Awaitable[None]], *args: Any) -> None:
        try:
            await task(*args)
        except KernelDied as died:
            self._end(2, "\n".join([str(died), *died.output.splitlines()[-LAST_LINES:]]))
        except EnchannelError as error:
            self._end(2, str(error))
        except BrokenPipeError:
            # Whoever read our output has gone; there is nobody to tell.
            self._end(1)
        except OSError as error:
            self._end(2, str(error))

    def _end(self, status: int, message: str = "") -> None:
        self._record(status, message)
        self._scope.cancel()

    def _record(self, status: int, message: str = "") -> None:
        if self._ending is None:
            self._ending = Ending(status, message)

    # Signals.

    async def _obey(self, signals: AsyncIterator[int]) -> None:
        async for number in signals:
            if number != signal.SIGINT or self._running is None or self._interrupted:
                self._end(128 + number)
            else:
                self._interrupted = True
                self._prompt.cancel()
                self._output.interrupted()
                self._start(self._interrupt, self._running)

    async def _interrupt(self, ch: KernelChannels) -> None:
        # That the kernel is lost, is told by whoever reads what it said before.
        with suppress(KernelDied, anyio.ClosedResourceError):
            try:
                await ch.interrupt()
            except NotImplementedByKernel:
                self._output.note("this kernel cannot be interrupted; Ctrl-C again stops")
            except NoReply:
                self._output.note("the kernel does not answer to that; Ctrl-C again stops")

    # The code.

    async def _run(self) -> None:
        # It listens before anything runs: what answers an execution waits for no stream.
        async with self._target.open_channels() as ch, ch.subscribe("stdin") as prompts:
            self._start(self._answer_prompts, ch, prompts)
            self._start(self._output.draw_progress)
            await self._run_in_time(ch)
        self._tasks.cancel_scope.cancel()

    async def _run_in_time(self, ch: KernelChannels) -> None:
        with trio.move_on_after(self._timeout) as limit:
            self._scope = limit
            try:
                self._record(0 if await self._run_cells(ch) else 1)
            finally:
                self._scope = self._tasks.cancel_scope
        # Unless there is another reason why it was cancelled.
        self._record(124, f"timed out after {self._timeout:g} s")

    async def _run_cells(self, ch: KernelChannels) -> bool:
        for cell in self._cells:
            self._output.begin(cell.name)
            try:
                if not await self._run_cell(ch, cell):
                    return False
            finally:
                self._running = None
                self._prompt.cancel()
                self._output.end()
        return True

    async def _run_cell(self, ch: KernelChannels, cell: Cell) -> bool:
        self._interrupted = False
        on_input = None if self._answers is None else _answered_elsewhere
        executing = ch.execute(cell.code, on_input=on_input, interrupt_on_cancel=True)
        async with executing as execution:
            self._running = ch
            async for msg in execution:
                if msg.msg_type != "input_request":
                    self._output.message("iopub", msg)
            reply = await execution.wait()
        self._output.message("shell", reply)
        return bool(reply.content.get("status", "ok") == "ok")

    # What the code asks for.

    async def _answer_prompts(self, ch: KernelChannels, prompts: Subscription) -> None:
        with suppress(KernelDied, anyio.ClosedResourceError):
            async for _, msg in prompts:
                self._output.message("stdin", msg)
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
