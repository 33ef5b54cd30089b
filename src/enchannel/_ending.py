"""When an execution is over whose reply is in, and whose idle status is not.

Some kernels never send that status, behind an aborted request for example; and where it is to come, a large
output or a slow connection may hold it up for any time. So:

* As long as the execution's messages come, and for :data:`IDLE_GRACE` behind each, it is waited for.
* Then the kernel is probed. What it publishes for the probe comes behind all that it published before, so
  when that is here the execution is over.
* A kernel that does not answer the probe at all within :data:`ARRIVAL_DEADLINE` tells nothing, nor does one
  that answers and has never published anything for a probe: the execution is over then.
* One that has answered is waited for, while what it publishes is on its way. Where other messages arrive
  and then nothing more, it is probed anew: a kernel drops what its queue does not hold.
* Where no status was ever seen (iopub is not carried, or subscribed to too narrowly), none will tell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from ._probe import Probe, channels_to_ask

if TYPE_CHECKING:
    from ._channels import KernelChannels

__all__ = ["Ending"]

IDLE_GRACE = 1.0
"""Seconds without any message that an idle status may come behind its reply, before the kernel is probed."""

ARRIVAL_DEADLINE = 10.0
"""Seconds for an answer to the probe, and between two looks at whether anything arrives."""


class Ending:
    """What is known of the end of one execution.

    It waits for nothing itself and has no task: whoever waits for the execution does so until
    :attr:`deadline`, and then has it :meth:`look`. So it comes to the same however many wait, and for how
    short a time each.

    Args:
        channels: The execution's.
        tell: Called when it is over because of what arrived.
        aborted: Whether the request was. It has published nothing that could be on its way.

    Attributes:
        over: Whether nothing more is waited for.
    """

    def __init__(
        self, channels: KernelChannels, tell: Callable[[], None], *, aborted: bool
    ) -> None:
        self.over: bool = False
        self._aborted = aborted
        self._channels = channels
        self._tell = tell
        self._probe: Probe | None = None
        self._deadline: float | None = None
        self._received = 0

    @property
    def deadline(self) -> float:
        """Until when the next message is waited for, on AnyIO's clock."""
        if self._deadline is None:
            grace = IDLE_GRACE if self._probe is None else ARRIVAL_DEADLINE
            self._deadline = anyio.current_time() + grace
        return self._deadline

    def stir(self) -> None:
        """A message of the execution arrived."""
        self._deadline = None

    def look(self) -> None:
        """Decides what comes next, where the deadline is over and nothing has arrived that was not read."""
        # The clock may have run while nobody read.
        self._channels._catch_up()
        if anyio.current_time() < self.deadline:
            return
        self._deadline = None
        before, self._received = self._received, self._channels._delivery.received.get("iopub", 0)
        kernel = self._channels._kernel
        if self._aborted or not kernel.publishes_status:
            self.over = True
        elif self._probe is None:
            self._ask()
        elif not (self._probe.answered and kernel.publishes_for_probes):
            self.over = True
        elif self._received > before:
            self._probe.abandon()
            self._ask()

    def _ask(self) -> None:
        try:
            self._probe = Probe(self._channels, channels_to_ask(self._channels)[0], self._come)
        except anyio.WouldBlock:
            # Nobody was asked: there is no connection, which may come back.
            self._probe = None

    def _come(self) -> None:
        self.over = True
        self._tell()

    def close(self) -> None:
        """The execution was left."""
        if self._probe is not None:
            self._probe.abandon()
