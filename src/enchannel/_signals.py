"""The signals that end a program, but for those that whoever started it has told it to ignore.

Python's own answer to SIGTERM is to be gone: no block is left, a connection file stays, and kernels notice by themselves
that their parent is not there any more.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint

from ._exceptions import LocalProtocolError
from ._groups import block_task_group
from ._trio import in_trio

__all__ = ["checked_signal", "exit_on_signals", "heard"]

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What others end a program with: a supervisor, and a terminal that is closed."""


TURNS = 5
"""Of the event loop, from a signal that has come to the task that is told of it; asyncio takes three."""


@contextmanager
def heard(*numbers: int) -> Iterator[AsyncIterator[int]]:
    """The signals of these numbers, as they come, while the block lasts."""
    chosen = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    if not chosen:
        yield _none()
        return
    # On Trio AnyIO's receiver fails when a signal comes that has no name.
    receiver: Any = sys.modules["trio"] if in_trio() else anyio
    with receiver.open_signal_receiver(*chosen) as signals:
        yield signals


async def _none() -> AsyncIterator[int]:
    await anyio.sleep_forever()
    yield signal.SIGTERM  # an iterator, though never of anything


@asynccontextmanager
async def exit_on_signals(*numbers: int) -> AsyncIterator[None]:
    """Has the signals that end a program cancel the block, so that what is in it is let go, and
    then exits.

    Without it SIGTERM ends a program at once, and its kernels' connection files stay. It belongs
    around everything else, in the main thread. A signal that the program was started to ignore is
    ignored.

    Args:
        numbers: By default SIGTERM and SIGHUP. Ctrl-C is Python's, Trio's and asyncio's own.

    Raises:
        SystemExit: One of them came; with status 128 and its number, as shells have it.
        LocalProtocolError: On entry: a number is that of no signal, or of one that no program is
            told of; or this is not the main thread.

    Example:
        .. code-block:: python

            import os, signal

            try:
                async with exit_on_signals(), open_kernel("python3") as kernel:
                    os.kill(os.getpid(), signal.SIGTERM)
                    await kernel.wait()
            except SystemExit as ended:
                print(ended.code)  # 143
    """
    chosen = [_checked(number) for number in numbers or ENDING]
    if threading.current_thread() is not threading.main_thread():
        raise LocalProtocolError("signals come to the main thread, and this is another one")
    ended_by = 0
    with heard(*chosen) as signals:
        async with block_task_group("exit_on_signals") as tasks:

            async def obey() -> None:
                nonlocal ended_by
                async for number in signals:
                    ended_by = ended_by or number
                    tasks.cancel_all()

            tasks.start_soon(obey, name="enchannel signals")
            try:
                yield
                # One that came last is still on its way through the pipe of asyncio's loop.
                for _ in range(TURNS):
                    await cancel_shielded_checkpoint()
            finally:
                tasks.end()
    if ended_by:
        raise SystemExit(128 + ended_by)


def _checked(number: object) -> int:
    chosen = checked_signal(number)
    if chosen in (signal.SIGKILL, signal.SIGSTOP):
        raise LocalProtocolError(f"no program is told of {signal.Signals(chosen).name}")
    return chosen


def checked_signal(number: object) -> int:
    """`number`, where there is such a signal; those of real time have no name, but for the first and the last.

    Raises:
        LocalProtocolError: There is none.
    """
    if not isinstance(number, int) or isinstance(number, bool):
        raise LocalProtocolError(f"a signal is one of signal.SIGTERM and the like, not {number!r}")
    if number not in signal.valid_signals():
        raise LocalProtocolError(f"there is no signal {number}")
    return number
