"""What it is that a message belongs to: nothing of a comm that was closed, or of a kernel that is gone, goes to the next kernel.

A bond is to one kernel, through the outages of its connection.
What is in flight is told when an outage lasts, for it may be lost. What was *opened* in the kernel is there all the same
where that kernel is had back, and is to be undone in it, and never in the next one.
"""

from __future__ import annotations

from typing import Protocol

from .._exceptions import KernelDied
from .life import Life
from .outage import Outage
from .stream import fresh

__all__ = ["Bond", "Tie"]


class Tie(Protocol):
    """What something that is sent belongs to. Where that ends, who waits to send is woken by ``changed`` of the core."""

    def raise_if_over(self) -> None:
        """Raises why nothing of it may be sent any more."""


class Connection(Protocol):
    """The connection, as bonds see it."""

    life: Life
    lost: KernelDied | None
    outage: Outage


class Bond:
    """To the kernel that is there now."""

    __slots__ = ("_connection", "_epoch")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._epoch = connection.life.epoch

    @property
    def failure(self) -> KernelDied | None:
        """Why it is over, where it is: the kernel is lost, or another one is there."""
        if self._connection.lost is not None:
            return self._connection.lost
        if self._connection.life.epoch != self._epoch:
            return self._connection.outage.restarted()
        return None

    def raise_if_over(self) -> None:
        """Raises why nothing may be sent to it any more."""
        if self.failure is not None:
            raise fresh(self.failure)
