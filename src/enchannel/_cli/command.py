"""A command from its start to its exit status, where nothing has to be asked of it on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import click
import trio

from .._groups import unwrapping_task_group
from .._signals import heard

__all__ = ["Failure", "stop_until_continued", "until_signal"]


class Failure(click.ClickException):
    """What was asked for cannot be done."""

    exit_code = 2


async def until_signal(command: Callable[[], Awaitable[int]]) -> int:
    """Runs `command`, which Ctrl-C, SIGTERM and SIGHUP cancel; returns its status, or 128 and the signal's number."""
    ended_by = status = 0

    async def obey(signals: AsyncIterator[int]) -> None:
        nonlocal ended_by
        async for number in signals:
            ended_by = ended_by or number
            running.cancel()

    with heard(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
        async with unwrapping_task_group() as tasks:
            with trio.CancelScope() as running:
                tasks.start_soon(obey, signals)
                status = await command()
            tasks.cancel_scope.cancel()
    return 128 + ended_by if ended_by else status


def stop_until_continued() -> None:
    """Stops this program as Ctrl-Z does, until somebody has it go on."""
    ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    # Here it stops, and goes on.
    os.kill(os.getpid(), signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, ours)
