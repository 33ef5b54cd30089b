"""The heartbeat: reports how long the kernel has been silent, and is seldom proof of its death.

The rules:

* A beat is a message that the kernel's heartbeat socket echoes, in most kernels even while code holds the
  interpreter. Some kernels never echo, some only between cells. So nothing is concluded before the first
  echo, and nothing while the kernel is busy.
* Any message is as good as an echo.
* A kernel that misses beats is unresponsive, not dead: that is counted and logged. Only one that is idle by
  its own last word, and silent on every channel for ``heartbeat_timeout``, is taken for lost, since behind a
  network nothing else tells that its machine is gone.

Source: "Heartbeat for kernels" of the Jupyter messaging specification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from .._exceptions import KernelDied
from .._log import logger

if TYPE_CHECKING:
    from .._channels import KernelChannels

__all__ = ["Heartbeat"]

INTERVAL = 3.0
"""Seconds from one beat to the next."""

BEATS = 5
"""Beats at the least that fit into the timeout."""

WORTH_A_WARNING = 3
"""Beats missed in a row that make a kernel unresponsive."""


class Heartbeat:
    """Beats for one kernel's channels.

    Attributes:
        missed: Beats in a row that were not echoed, behind the first that was.
    """

    def __init__(self, channels: KernelChannels, timeout: float) -> None:
        self.missed: int = 0
        self._channels = channels
        self.first: anyio.Event = anyio.Event()
        """Set at the first echo."""
        self._timeout = timeout

    async def follow(self) -> None:
        """Beats for as long as the channels are open."""
        channels = self._channels
        if not channels._transport.has_heartbeat:
            return
        interval = min(INTERVAL, self._timeout / BEATS)
        received, since = -1, anyio.current_time()
        while True:
            echoed = await self._beat(interval)
            total = sum(channels._delivery.received.values())
            if echoed or total != received or channels._outages.current:
                received, since = total, anyio.current_time()
            self._count(echoed=echoed)
            silent = anyio.current_time() - since
            if self.missed and silent >= self._timeout and channels.status == "idle":
                channels._lose(
                    KernelDied(
                        f"the kernel is silent: no heartbeat and no message for {silent:.0f} s",
                        "heartbeat",
                    )
                )
                return

    async def _beat(self, interval: float) -> bool:
        """Whether a beat was echoed; takes `interval` seconds."""
        echoed = False
        with anyio.move_on_after(interval):
            await self._channels._transport.beat()
            echoed = True
            self.first.set()
            await anyio.sleep_forever()
        return echoed

    def _count(self, *, echoed: bool) -> None:
        if echoed:
            if self.missed >= WORTH_A_WARNING:
                logger().warning(
                    "the kernel's heartbeat is back after %d missed beats", self.missed
                )
            self.missed = 0
        elif self.first.is_set():
            self.missed += 1
            if self.missed == WORTH_A_WARNING:
                logger().warning(
                    "the kernel is unresponsive: it missed %d heartbeats in a row", self.missed
                )
