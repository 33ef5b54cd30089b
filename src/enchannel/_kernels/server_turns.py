"""Whose turn it is to have a kernel of a server restarted.

A server that is asked for two restarts of one kernel at once may lose the kernel between them. So all who have that kernel
of one :class:`Server` take turns, first come first served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from weakref import WeakValueDictionary

from .._bell import Bell

__all__ = ["AllTurns", "Turns"]


class Turns:
    """Those of one kernel.

    Attributes:
        restarting: Whether a restart is under way, be it that nobody waits for it any more.
    """

    def __init__(self) -> None:
        self.restarting: bool = False
        self._waiting: deque[object] = deque()
        self._changed = Bell()

    async def wait(self, turn: object, is_given_up: Callable[[], bool]) -> None:
        """Waits until it is the turn of `turn`, which is to be ended whatever comes of this; or that is given up."""
        self._waiting.append(turn)
        while (self.restarting or self._waiting[0] is not turn) and not is_given_up():
            await self._changed.wait()

    def end(self, turn: object) -> None:
        """It is over, or was given up."""
        if turn in self._waiting:
            self._waiting.remove(turn)
        self._changed.ring()

    def look_again(self) -> None:
        """A restart is over, or somebody's turn is given up."""
        self._changed.ring()


class AllTurns:
    """Those of every kernel of one server that somebody has."""

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[str, Turns] = WeakValueDictionary()

    def of(self, kernel_id: str) -> Turns:
        """Those of the kernel with this id."""
        return self._turns.setdefault(kernel_id, Turns())
