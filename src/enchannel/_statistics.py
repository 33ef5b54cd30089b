"""What a connection has counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from ._core.core import Core
from ._protocol.connection_info import ChannelName

__all__ = ["ChannelStatistics", "statistics_of"]

T = TypeVar("T")


class ChannelStatistics(NamedTuple):
    """What :meth:`KernelChannels.statistics` says; counts since the channels were opened.

    All of it is as of the moment that it was asked for.

    Example:
        .. code-block:: python

            await ch.run("print('woo')")
            counts = ch.statistics()
            lost = sum(counts.dropped.values()) + counts.backlog_dropped
            print(counts.sent["shell"], lost)  # 1 0
    """

    iopub_proven: bool
    """Whether the subscription of the connection that there is was seen to work. Where it was not yet (a
    busy kernel that answers nothing, when the block was entered or behind an outage), output of the
    next request may be missed; as soon as anything comes on iopub it was."""
    received: Mapping[str, int]
    """Messages that arrived, by channel."""
    sent: Mapping[str, int]
    """Messages that were sent, by channel."""
    dropped: Mapping[str, int]
    """Arrivals that were no message, by the name of the error that says why."""
    dropped_by_channel: Mapping[str, Mapping[str, int]]
    """The same, by channel."""
    received_bytes: Mapping[str, int]
    """Bytes of content and buffers that arrived, by channel."""
    sent_bytes: Mapping[str, int]
    """The same of what was sent."""
    repaired: int
    """Messages whose JSON held bytes that are no UTF-8, and which were read with replacement characters."""
    backlog: Mapping[str, int]
    """Messages that wait for somebody to listen, by channel."""
    backlog_dropped: int
    """Messages that nobody listened for, and for which the backlog had no room."""
    listeners: int
    """Streams that are listening."""
    buffer_dropped: int = 0
    """Messages that a full stream lost, because who reads it was waiting for what came behind."""
    missed: int = 0
    """Messages of executions that the kernel lost before they were sent; see :attr:`Execution.missed`."""
    restarts: int = 0
    """How often the kernel was restarted."""
    outages: int = 0
    """How often the connection was lost, and came back to the same kernel."""
    outage_seconds: float = 0.0
    """How long it was gone in these; what was published then is lost, unless a server has kept it."""
    missed_beats: int = 0
    """Heartbeats in a row that the kernel has not echoed; 0 where it never echoed any."""
    gaps: int = 0
    """In how many of these outages something that was published may be lost."""
    rate_limited: int = 0
    """How often a server said that it drops what the kernel publishes, because it is too much at a time."""


def statistics_of(core: Core, missed: int) -> ChannelStatistics:
    """What `core` has counted so far, and its conversations, which know what the kernel `missed`."""
    transport, backlog = core.transport, core.delivery.backlog
    waiting = backlog.counts()
    return ChannelStatistics(
        iopub_proven=core.iopub_proven or not transport.iopub_needs_proof,
        received=_by_channel(core.received),
        sent=_by_channel(core.sent),
        dropped=transport.dropped(),
        dropped_by_channel=_by_channel(transport.dropped_by_channel()),
        received_bytes=_by_channel(transport.received_bytes()),
        sent_bytes=_by_channel(transport.sent_bytes()),
        repaired=transport.repaired,
        backlog={str(name): waiting.get(name, 0) for name in core.channels},
        backlog_dropped=backlog.dropped,
        listeners=core.delivery.listening(),
        buffer_dropped=core.bound.dropped,
        missed=missed,
        restarts=core.life.epoch,
        outages=core.outage.times,
        outage_seconds=core.outage.seconds,
        missed_beats=core.heartbeat.missed,
        gaps=core.outage.gaps,
        rate_limited=transport.rate_limited,
    )


def _by_channel(counts: Mapping[ChannelName, T]) -> dict[str, T]:
    return {str(channel): count for channel, count in counts.items()}
