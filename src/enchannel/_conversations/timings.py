"""When an execution was where: what it and the kernel wrote on their messages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from .._protocol.message import Message, parse_date

__all__ = ["Timings", "timings_of"]


class Timings(NamedTuple):
    """When an execution was where; all but the first by the kernel's clock.

    Of :attr:`Execution.timings` and :attr:`CompletedExecution.timings`. ``None`` where that is not
    known, or not yet; each has a time zone.

    Example:
        .. code-block:: python

            done = await ch.run("import time; time.sleep(0.1)")
            took = done.timings.idle - done.timings.busy
            print(took.total_seconds() >= 0.1)  # True
    """

    sent: datetime | None
    """The request was made."""
    busy: datetime | None
    """The kernel began with it."""
    started: datetime | None
    """Its code began, for kernels that say so in the reply's metadata, as ipykernel does."""
    replied: datetime | None
    """The reply was made."""
    idle: datetime | None
    """The kernel was done with it."""

    def to_metadata(self) -> dict[str, str]:
        """What notebooks keep of it, as the ``"execution"`` of a cell's metadata."""
        names = {
            "iopub.status.busy": self.busy,
            "shell.execute_reply.started": self.started,
            "shell.execute_reply": self.replied,
            "iopub.status.idle": self.idle,
        }
        return {name: at.isoformat() for name, at in names.items() if at is not None}


def timings_of(request: Message, reply: Message | None, statuses: Mapping[str, Message]) -> Timings:
    """The times on `request`, `reply` and `statuses`, by what they say."""
    busy, idle = statuses.get("busy"), statuses.get("idle")
    return Timings(
        sent=request.date,
        busy=None if busy is None else busy.date,
        started=None if reply is None else parse_date(reply.metadata.get("started")),
        replied=None if reply is None else reply.date,
        idle=None if idle is None else idle.date,
    )
