"""What to make of a conversation of which one end is here, and the other one is not.

Reply and idle status travel on two sockets and come in either order. Some kernels never send one of them: the
status behind an aborted request for example, the reply to a request that they do not implement. But a large
message, a slow connection or a loaded machine may hold either up for any time. So:

* As long as messages of the conversation come, and for a grace behind each, the other end is waited for.
* Then the kernel is probed. Both iopub and the channel of the reply keep the order, so what the kernel sends
  there for the probe comes behind all that it sent before: when it is here and the other end is not, that
  never comes. (A kernel that has replied and goes on to publish is not known to do so.)
* A probe that is not answered says nothing, and then the other end is given up: after
  :data:`ANSWER_DEADLINE`, or :data:`GRACE` where the kernel never sent anything on the probe's channel.

Before a silence counts, what has arrived and was not read yet is looked at: a program that blocks its event
loop is no kernel that does not answer.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from .._protocol.connection_info import ChannelName
from .probe import Probe, channels_to_ask

if TYPE_CHECKING:
    from .._channels import KernelChannels
    from .._protocol.message import Message

__all__ = ["Ending", "MissingIdle", "MissingReply"]

GRACE = 1.0
"""Seconds without any message that one end may come behind the other, before the kernel is probed."""

ANSWER_DEADLINE = 10.0
"""Seconds for an answer to the probe, where the kernel does answer there."""

CATCH_UP = 10_000
"""Messages that are read at once before a silence counts; where there are more, there is none."""

ABORTED = ("aborted", "abort")
"""The status of a reply to a request that was not run, because one before it failed."""


class Ending(ABC):
    """What is known of the missing end.

    It waits for nothing itself and has no task: whoever waits for the conversation does so until
    :attr:`deadline`, and then has it :meth:`look`. So it comes to the same however many wait, and for how
    short a time each.

    Args:
        channels: The conversation's.
        tell: Called when it is over because of what arrived.

    Attributes:
        over: Whether the missing end is waited for no longer.
    """

    def __init__(self, channels: KernelChannels, tell: Callable[[], None]) -> None:
        self.over: bool = False
        self._channels = channels
        self._tell = tell
        self._probes: list[Probe] = []
        self._deadline: float | None = None

    @property
    def deadline(self) -> float:
        """Until when the next message is waited for, on AnyIO's clock."""
        if self._deadline is None:
            hopeful = self._probes and self._channels._delivery.received[self._probes[-1].channel]
            grace = ANSWER_DEADLINE if hopeful else GRACE
            self._deadline = anyio.current_time() + grace
        return self._deadline

    def stir(self) -> None:
        """A message of the conversation arrived."""
        self._deadline = None

    def look(self) -> None:
        """Decides what comes next, where the deadline is over."""
        # The clock may have run while nobody read.
        all_read = self._channels._catch_up(CATCH_UP)
        if self.over or anyio.current_time() < self.deadline:
            return
        self._deadline = None
        # In an outage it is decided when it is over what was lost.
        if all_read and not self._channels._outages.current:
            self._decide(self._probes[-1] if self._probes else None)

    def close(self) -> None:
        """The conversation was left."""
        for probe in self._probes:
            probe.abandon()

    @abstractmethod
    def _decide(self, probe: Probe | None) -> None:
        """Nothing has come until the deadline; `probe` is the last that was sent, if any was."""

    @abstractmethod
    def _overtaken(self, probe: Probe) -> bool:
        """Whether something is here that comes behind the missing end."""

    def _ask(self, channel: ChannelName, subshell: str | None = None) -> None:
        # The answers to the earlier ones count as well: they may take longer than the deadline.
        with contextlib.suppress(anyio.WouldBlock):
            # Where nobody can be asked there is no connection, which may come back.
            self._probes.append(Probe(self._channels, channel, self._hear, subshell=subshell))

    def _hear(self, probe: Probe) -> None:
        if self._overtaken(probe):
            self.over = True
            self._tell()


class MissingIdle(Ending):
    """The reply is here. The probe goes to control if there is one: it is answered even while a cell runs.

    Where the probe is answered, what the kernel has published for it is on its way, and waited for, as far as
    it is known to publish anything then. Where other messages arrive and then nothing more, it is probed once
    more, for it drops what its queue does not hold.

    Where no status was ever seen (iopub is not carried, or subscribed to too narrowly) none is waited for.
    """

    def __init__(self, channels: KernelChannels, reply: Message, tell: Callable[[], None]) -> None:
        super().__init__(channels, tell)
        # It has published nothing that could be on its way.
        self._aborted = reply.content.get("status") in ABORTED
        self._received = 0

    def _decide(self, probe: Probe | None) -> None:
        kernel = self._channels._kernel
        before, self._received = self._received, self._channels._delivery.received.get("iopub", 0)
        channel = channels_to_ask(self._channels)[0]
        silent = probe is not None and not (
            probe.answered and channel in kernel.publishes_for_probes
        )
        if self._aborted or silent or not kernel.publishes_status:
            self.over = True
        elif probe is None or self._received > before:
            self._ask(channel)

    def _overtaken(self, probe: Probe) -> bool:
        return probe.published


class MissingReply(Ending):
    """The idle status is here. The probe goes where the request went, and waits for its turn there."""

    def __init__(
        self,
        channels: KernelChannels,
        channel: ChannelName,
        request: Message,
        tell: Callable[[], None],
    ) -> None:
        super().__init__(channels, tell)
        self._channel: ChannelName = channel
        self._subshell: str | None = request.header.get("subshell_id")

    def _decide(self, probe: Probe | None) -> None:
        if probe is None:
            self._ask(self._channel, self._subshell)
        else:
            self.over = True

    def _overtaken(self, probe: Probe) -> bool:
        return probe.answered
