"""Requests that were taken back before all that answers them had come.

Whoever asked has the answer, or has gone: what comes still is kept for nobody. Streams that listen get it all the same,
and so does whoever listens to stdin, for a question wants an answer.
"""

from __future__ import annotations

from .._protocol.message import ChannelName, Message
from .flight import Flight

__all__ = ["Left"]

MOST = 10_000
"""The oldest are forgotten: some kernels never send the rest."""


class Left:
    """Those of one connection."""

    def __init__(self) -> None:
        self._missing: dict[str, set[str]] = {}
        self._sent_on: dict[str, ChannelName] = {}

    def add(self, flight: Flight) -> None:
        """`flight` was taken back."""
        missing = {"reply"} if flight.reply is None else set[str]()
        if not flight.idle:
            missing.add("idle")
        if missing and flight.sent:
            msg_id = flight.request.msg_id
            self._missing[msg_id], self._sent_on[msg_id] = missing, flight.channel
            if len(self._missing) > MOST:
                self._forget(next(iter(self._missing)))

    def _forget(self, msg_id: str) -> None:
        del self._missing[msg_id], self._sent_on[msg_id]

    def clear(self) -> None:
        """The kernel was restarted: nothing more comes for any."""
        self._missing.clear()
        self._sent_on.clear()

    def is_answered(self, msg_id: str) -> bool:
        """Whether it is one whose reply came before its idle status."""
        missing = self._missing.get(msg_id)
        return missing is not None and "reply" not in missing

    def sent_on(self, msg_id: str) -> ChannelName | None:
        """The channel that the one with this id was sent on."""
        return self._sent_on.get(msg_id)

    def concerns(self, message: Message) -> bool:
        """Whether `message` answers one of them."""
        parent = message.parent_id
        missing = self._missing.get(parent)
        kind = message.msg_type
        if missing is None or kind == "input_request":
            return False
        if kind == "status" and message.content.get("execution_state") == "idle":
            missing.discard("idle")
        elif kind.endswith("_reply"):
            missing.discard("reply")
        if not missing:
            self._forget(parent)
        return True
