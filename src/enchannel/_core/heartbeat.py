"""The heartbeat: reports how long the kernel has been silent, and is seldom proof of its death.

The rules:

* A beat is a message that the kernel's heartbeat socket echoes, in most kernels even while code holds the
  interpreter. Some kernels never echo, some only between cells. So nothing is concluded before the first
  echo, and nothing while the kernel is not known to be idle.
* Any message is as good as an echo.
* A kernel that misses beats is unresponsive, not dead: that is counted and logged. Only one that is idle by
  its own last word, and silent on every channel for the timeout, is taken for lost, since behind a network
  nothing else tells that its machine is gone.

There is no task here: the core's keeper looks every :attr:`Heartbeat.interval` seconds.

Source: "Heartbeat for kernels" of the Jupyter messaging specification.
"""

from __future__ import annotations

from .._log import logger

__all__ = ["Heartbeat"]

INTERVAL = 3.0
"""Seconds from one beat to the next."""

BEATS = 5
"""Beats at the least that fit into the timeout."""

WORTH_A_WARNING = 3
"""Beats missed in a row that make a kernel unresponsive."""


class Heartbeat:
    """What is known of one kernel's beats.

    Args:
        timeout: Seconds of silence behind which an idle kernel counts as lost.

    Attributes:
        interval: Seconds from one look to the next.
        missed: Beats in a row that were not echoed, behind the first that was.
        echoed: Whether any ever was.
    """

    def __init__(self, timeout: float) -> None:
        self.interval: float = min(INTERVAL, timeout / BEATS)
        self.missed: int = 0
        self.echoed: bool = False
        self._timeout = timeout
        self._sent = False
        self._received = -1
        self._since = 0.0

    def look(self, now: float, received: int, *, echoed: bool, idle: bool) -> float | None:
        """Takes note of the last beat; for how long the kernel was silent where that makes it lost.

        Args:
            now: The time.
            received: How many messages have arrived so far.
            echoed: Whether the last beat was echoed.
            idle: Whether the kernel is known to be idle.
        """
        if self._sent:
            self._count(echoed=echoed)
        self._sent = True
        if echoed or received != self._received:
            self._received, self._since = received, now
        silent = now - self._since
        return silent if self.missed and idle and silent >= self._timeout else None

    def excuse(self) -> None:
        """Forgets the beat that is on its way and the silence: the connection was away, or was restarted."""
        self._sent, self._received = False, -1

    def _count(self, *, echoed: bool) -> None:
        if echoed:
            if self.missed >= WORTH_A_WARNING:
                logger().warning(
                    "the kernel's heartbeat is back after %d missed beats", self.missed
                )
            self.missed, self.echoed = 0, True
        elif self.echoed:
            self.missed += 1
            if self.missed == WORTH_A_WARNING:
                logger().warning(
                    "the kernel is unresponsive: it missed %d heartbeats in a row", self.missed
                )
