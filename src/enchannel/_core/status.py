"""What the kernel's own messages say of it: what it does, and whether it is still the same one.

* The status is kept per request, because busy and idle of several overlap.
* A kernel's session changes when it restarts. Many kernels write the *client's* session into their headers,
  so only one that differs from its parent's is the kernel's own.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import anyio

from .._exceptions import text_of
from .._log import logger
from .._protocol.connection_info import ChannelName
from .._protocol.message import Message

__all__ = ["KernelState"]


BUSY = 10_000
"""Requests that may be busy at once; the oldest are forgotten, since some kernels never send their idle."""


class KernelState:
    """Follows the statuses on iopub; an observer of the delivery."""

    def __init__(self) -> None:
        self.status: str = "unknown"
        self.session: str | None = None
        self.restarts: int = 0
        self.heard: int = 0
        """How often the kernel has said its session."""
        self.curious: bool = False
        """Whether any message is to be looked at for it, and not the statuses alone."""
        self.publishes_status: bool = False
        """Whether a status was ever seen."""
        self.publishes_for_probes: set[ChannelName] = set()
        """The channels of the probes for which anything was ever seen that it published."""
        self._busy: dict[str, None] = {}
        self.changed = anyio.Event()

    def observe(self, channel: ChannelName, messages: Sequence[Message]) -> None:
        if channel != "iopub":
            return
        for message in messages:
            if message.header.get("msg_type") == "status":
                self._see_session(message)
                self._see(message)
            elif self.curious:
                self._see_session(message)

    def done(self, msg_id: str) -> None:
        """The request is over, whether its idle status came or not."""
        if msg_id in self._busy:
            del self._busy[msg_id]
            self._set("busy" if self._busy else "idle")

    def _see(self, message: Message) -> None:
        self.publishes_status = True
        state, parent = text_of(message.content.get("execution_state")), message.parent_id
        if state == "busy":
            self._busy[parent] = None
            if len(self._busy) > BUSY:
                del self._busy[next(iter(self._busy))]
            self._set("busy")
        elif state == "idle":
            self._busy.pop(parent, None)
            self._set("busy" if self._busy else "idle")
        elif state == "starting":
            self._busy.clear()
            self._set("starting")

    def _see_session(self, message: Message) -> None:
        session = message.session
        if not session or session == message.parent_header.get("session"):
            return
        if self.session is not None and session != self.session:
            self.begin_anew()
            logger().info("the kernel has a new session: it was restarted")
        self.session = session
        self.heard += 1

    def is_busy(self, msg_id: str) -> bool:
        """Whether the kernel said that it handles this request, and not yet that it is done with it."""
        return msg_id in self._busy

    def forget_busy(self, known: Container[str]) -> None:
        """Forgets which requests are busy, but for those that are `known`: their idle may be lost."""
        self._busy = {msg_id: None for msg_id in self._busy if msg_id in known}
        if self.status == "busy" and not self._busy:
            self._set("unknown")

    def begin_anew(self) -> None:
        """The kernel was restarted."""
        self.restarts += 1
        self.session = None
        self._busy.clear()
        self._set("unknown")

    def _set(self, status: str) -> None:
        self.status = status
        self.end()

    def end(self) -> None:
        """Wakes who waits for a change."""
        self.changed.set()
        self.changed = anyio.Event()
