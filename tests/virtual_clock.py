"""Both event loops with a clock that jumps over the time in which nobody has anything to do.

For tests in memory, where nothing happens outside the event loop. A module asks for it by importing
:func:`virtual_backend`, or one of the others, as ``anyio_backend``.
"""

from __future__ import annotations

import asyncio
import selectors
from functools import partial
from typing import Any

import pytest
import trio.testing


class _JumpingSelector(selectors.DefaultSelector):
    """Does not wait until something is due, but has the clock say that it is."""

    loop: VirtualClockLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            self.loop.now += timeout
        return ready


class VirtualClockLoop(asyncio.SelectorEventLoop):
    now: float = 0.0

    def __init__(self) -> None:
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now


class FrozenClockLoop(asyncio.SelectorEventLoop):
    def time(self) -> float:
        return 0.0


@pytest.fixture(params=["trio", "asyncio"], name="anyio_backend")
def frozen_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """With a clock that stands still: what happens at all happens at once. For tests over sockets as well."""
    if request.param == "trio":
        return "trio", {"clock": trio.testing.MockClock()}
    return "asyncio", {"loop_factory": FrozenClockLoop}


@pytest.fixture(params=["trio", "asyncio"], name="anyio_backend")
def virtual_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    if request.param == "trio":
        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return "asyncio", {"loop_factory": VirtualClockLoop}


class _PacedSelector(selectors.DefaultSelector):
    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout / self.rate)


class PacedClockLoop(asyncio.SelectorEventLoop):
    def __init__(self, rate: float) -> None:
        super().__init__(_PacedSelector(rate))
        self.rate = rate

    def time(self) -> float:
        return super().time() * self.rate


def _paced(library: str, rate: float) -> tuple[str, dict[str, Any]]:
    if library == "trio":
        return "trio", {"clock": trio.testing.MockClock(rate=rate)}
    return "asyncio", {"loop_factory": partial(PacedClockLoop, rate)}


@pytest.fixture(params=["trio", "asyncio"], name="anyio_backend")
def fast_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """With a clock on which 40 s go by in one: for what takes its time over sockets."""
    return _paced(request.param, 40)


@pytest.fixture(params=["trio", "asyncio"], name="anyio_backend")
def slow_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """With a clock on which one second goes by in four: what a deadline must not end, no loaded machine ends either."""
    return _paced(request.param, 0.25)
