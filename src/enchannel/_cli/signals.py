"""The signals that end a command, but for those that whoever started it has told it to ignore."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import trio

__all__ = ["heard"]


@contextmanager
def heard(*numbers: signal.Signals) -> Iterator[AsyncIterator[int]]:
    """The signals of these numbers, as they come, while the block lasts."""
    chosen = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    if not chosen:
        yield _none()
        return
    with trio.open_signal_receiver(*chosen) as signals:
        yield signals


async def _none() -> AsyncIterator[int]:
    await trio.sleep_forever()
    yield 0  # an iterator, though never of anything
