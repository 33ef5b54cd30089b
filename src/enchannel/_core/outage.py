"""What an outage is made of: which channels were lost and since when, and when patience with it ends.

The rules:

* An outage begins with the first channel whose connection goes, and is over when every channel is connected and
  iopub is proven live once more. A channel may go while that is done for the loss of another.
* The kernel is the same one where some channel held, or where it says the session that it had. One that says none
  and lost every channel counts as restarted: a request that waits for ever would be worse.
* Two deadlines: what is in flight is told :data:`OVERDUE` behind its beginning, streams and senders when the connection
  has not been there for ``reconnect_timeout``. A restart of our own has neither.
* Where somebody in between keeps what the kernel says meanwhile, the connection that comes back leads to the same
  kernel, and only the second deadline counts; it is :data:`LED` at the least while that somebody restarts the kernel.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable

import anyio

from .._exceptions import KernelDied
from .._log import logger
from .._protocol.connection_info import ChannelName

__all__ = ["OVERDUE", "Outage"]

OVERDUE = 0.8
"""Seconds that what is in flight may be left in doubt whether its kernel is still there."""

LED = 60.0
"""Seconds that a kernel may take to be there which somebody in between restarts."""


class Outage:
    """The outages of one connection; the one that is under way, if any.

    Args:
        reconnect_timeout: Seconds until it is given up.
        buffered: Whether somebody in between keeps what the kernel says meanwhile.

    Attributes:
        times: How often the connection was lost, and came back to the same kernel.
        gaps: In how many of these something that the kernel published may be lost.
        seconds: How long it was gone in these.
        lost: The channels that were lost in the present one.
        losses: How often any was.
        overdue: Whether it is, and what was in flight is told.
        ours: Whether it is a restart of our own.
        death: What is told of the kernel that goes, where it went by itself.
        session: The session of the kernel before it, empty where that had said none; ``None`` until that is known.
    """

    def __init__(self, reconnect_timeout: float, *, buffered: bool = False) -> None:
        self.times: int = 0
        self.gaps: int = 0
        self.seconds: float = 0.0
        self.lost: set[ChannelName] = set()
        self.losses: int = 0
        self.overdue: bool = False
        self.ours: bool = False
        self.death: KernelDied | None = None
        self.session: str | None = None
        self._buffered = buffered
        self._since = self._away_since = math.inf
        self._reconnect_timeout = reconnect_timeout
        self._patience = reconnect_timeout

    def note(self, channels: Iterable[ChannelName]) -> None:
        """The connection of `channels` went."""
        now = anyio.current_time()
        self._since, self._away_since = min(self._since, now), min(self._away_since, now)
        self.lost.update(channels)
        self.losses += 1

    def connected(self) -> None:
        """Every channel is connected, though the kernel may have said nothing yet, and any may go once more."""
        self._away_since = math.inf

    def led(self) -> None:
        """Somebody in between restarts the kernel, and says so when he gives up."""
        self._patience = max(self._reconnect_timeout, LED)

    def not_ours(self) -> None:
        """The restart of our own does not take place: what was not waited for meanwhile is, from now on."""
        self.ours = False
        if self._away_since < math.inf:
            self._away_since = anyio.current_time()

    def end(self) -> None:
        """It is over."""
        self._patience = self._reconnect_timeout
        self.lost, self._since, self._away_since = set(), math.inf, math.inf
        self.overdue = self.ours = False
        self.death = self.session = None

    def deadline(self, *, connected: bool) -> float:
        """When patience ends, on AnyIO's clock: that of what is in flight, then that of the streams.

        Args:
            connected: Whether every channel is back, so that nothing but the kernel's word is waited for.
        """
        if self.ours:
            return math.inf
        given_up = math.inf if connected else self._away_since + self._patience
        one_deadline = self.overdue or self._buffered
        return given_up if one_deadline else min(self._since + OVERDUE, given_up)

    @property
    def given_up(self) -> bool:
        """Whether the connection will not be waited for any longer."""
        return anyio.current_time() >= self._away_since + self._patience

    def restarted(self) -> KernelDied:
        """What is told to what was in flight on a kernel that another one follows."""
        return self.death or KernelDied("the kernel was restarted", "restarted")

    def died(self) -> KernelDied:
        """What is told to what was in flight, and to the streams."""
        listed = ", ".join(sorted(self.lost))
        if self.given_up:
            said = f"did not come back within {self._patience:g} s"
        else:
            said = "is not back yet: what was in flight may be lost with it"
        return KernelDied(
            f"the connection of {listed} to the kernel was lost, and {said}", "disconnected"
        )

    def count(self, channels: Collection[ChannelName], doubtful: Collection[ChannelName]) -> None:
        """It is over, and the kernel is the same; on those that are `doubtful` something may be lost."""
        gap = anyio.current_time() - self._since
        self.times += 1
        self.seconds += gap
        if "iopub" in doubtful:
            self.gaps += 1
            said = "what was on its way meanwhile is lost"
            if self._buffered:
                said = (
                    "something of what it said in the moment of the loss, or meanwhile, may be lost"
                )
        else:
            said = "what it said meanwhile was kept"
        logger().warning(
            "%s lost the connection to the kernel and had it back after %.2f s; %s",
            ", ".join(channel for channel in channels if channel in self.lost),
            gap,
            said,
        )
