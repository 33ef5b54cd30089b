"""Both event loops with a clock that jumps over the time in which nobody has anything to do, and with others.

So a test takes no time for what takes its time, and no loaded machine ends what a deadline must not end. A module asks
for one by importing its fixture.
"""

from __future__ import annotations

import asyncio
import selectors
from functools import partial
from typing import Any

import pytest
import trio.testing

QUIET = 0.005
"""Real seconds without anything to do behind which nothing is on its way between two sockets of one program."""

SLOW = 4
"""Real seconds in which one goes by."""


class _JumpingSelector(selectors.DefaultSelector):
    """Does not wait until something is due, but for some real seconds, and has the clock say that it is.

    What a thread is at is waited for.
    """

    loop: VirtualClockLoop

    def __init__(self, real: float) -> None:
        super().__init__()
        self.real = real

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        ready = super().select(QUIET if self.loop.threads else self.real)
        if not (ready or self.loop.threads):
            self.loop.now += timeout
        return ready


class VirtualClockLoop(asyncio.SelectorEventLoop):
    now: float = 0.0
    threads: int = 0
    """How many do something for it."""

    def __init__(self, real: float = 0.0) -> None:
        selector = _JumpingSelector(real)
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def run_in_executor(self, *args: Any) -> asyncio.Future[Any]:
        future = super().run_in_executor(*args)
        self.threads += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: object) -> None:
        self.threads -= 1

    async def shutdown_default_executor(self, *_: Any) -> None:
        # Python 3.12 and later give it 300 seconds, and a thread takes a moment to end.
        await super().shutdown_default_executor()


class FrozenClockLoop(asyncio.SelectorEventLoop):
    def time(self) -> float:
        return 0.0


class _SlowSelector(selectors.DefaultSelector):
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(None if timeout is None else timeout * SLOW)


class SlowClockLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__(_SlowSelector())

    def time(self) -> float:
        return super().time() / SLOW


@pytest.fixture(params=["trio", "asyncio"], name="anyio_backend")
def frozen_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The clock stands still: what happens at all happens at once. For tests over sockets as well."""
    if request.param == "trio":
        return "trio", {"clock": trio.testing.MockClock()}
    return "asyncio", {"loop_factory": FrozenClockLoop}


@pytest.fixture(params=["trio", "asyncio"], name="anyio_backend")
def virtual_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """For tests in memory, where nothing happens outside the event loop."""
    if request.param == "trio":
        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return "asyncio", {"loop_factory": VirtualClockLoop}


@pytest.fixture(params=["trio", "asyncio"], name="anyio_backend")
def jumping_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """For tests over sockets whose two ends are in one event loop."""
    if request.param == "trio":
        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=QUIET)}
    return "asyncio", {"loop_factory": partial(VirtualClockLoop, QUIET)}


@pytest.fixture(params=["trio", "asyncio"], name="anyio_backend")
def slow_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The clock goes slower: for what must be done in time, whatever machine does it."""
    if request.param == "trio":
        return "trio", {"clock": trio.testing.MockClock(rate=1 / SLOW)}
    return "asyncio", {"loop_factory": SlowClockLoop}
