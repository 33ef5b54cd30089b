"""What is still said to the kernel for blocks that were left: a comm is closed, a subshell deleted, code stopped.

Whoever leaves may be cancelled again on the way, by whatever shields hold off and by what they do not: Ctrl-C on Trio,
``Task.cancel`` on asyncio. So a task of the connection says it, and whoever leaves only waits for that. The connection
waits as well, before it is left itself. Each farewell has its deadline.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio

from .._groups import closing_within, shielded
from .._protocol.message import CHANNELS
from .._transports.base import Start
from .._trio import uncut
from .bound import Bound
from .life import Life

__all__ = ["Farewells"]


class Connection(Protocol):
    """The connection, as farewells see it."""

    life: Life
    start: Start
    bound: Bound


class Farewells:
    """Those of one connection; nobody is there to be told once its life is over."""

    __slots__ = ("_connection", "_open")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._open: set[anyio.Event] = set()

    @uncut
    def begin(
        self, seconds: float, say: Callable[..., Awaitable[object]], *args: object
    ) -> anyio.Event:
        """Has `say` called within `seconds`; it is over when the event is set, and where nobody is there at once."""
        over = anyio.Event()
        if self._connection.life.over:
            over.set()
        else:
            self._open.add(over)
            self._connection.start(self._say, over, seconds, say, args)
        return over

    @uncut
    async def say(
        self, seconds: float, say: Callable[..., Awaitable[object]], *args: object
    ) -> None:
        """The same, and waits for it. Shielded; it is said where this is cut short as well."""
        over = self.begin(seconds, say, *args)
        with shielded(), self._connection.bound.waiting(CHANNELS, over.is_set):
            await over.wait()

    async def _say(
        self,
        over: anyio.Event,
        seconds: float,
        say: Callable[..., Awaitable[object]],
        args: tuple[object, ...],
    ) -> None:
        try:
            with closing_within(seconds):
                await say(*args)
        finally:
            self._open.discard(over)
            over.set()

    async def all_said(self) -> None:
        """Waits until there is none. Shielded; a checkpoint only where there is any."""
        with shielded():
            while self._open:
                await next(iter(self._open)).wait()
