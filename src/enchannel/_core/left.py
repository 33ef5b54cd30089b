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
        # Where it was sent, and what is missing of it.
        self._left: dict[str, tuple[ChannelName, set[str]]] = {}

    def add(self, flight: Flight) -> None:
        """`flight` was taken back."""
        missing = {"reply"} if flight.reply is None else set[str]()
        if not flight.idle:
            missing.add("idle")
        if missing and flight.sent:
            self._left[flight.request.msg_id] = flight.channel, missing
            if len(self._left) > MOST:
                del self._left[next(iter(self._left))]

    def clear(self) -> None:
        """The kernel was restarted: nothing more comes for any."""
        self._left.clear()

    def is_answered(self, msg_id: str) -> bool:
        """Whether it is one whose reply came before its idle status."""
        left = self._left.get(msg_id)
        return left is not None and "reply" not in left[1]

    def sent_on(self, msg_id: str) -> ChannelName | None:
        """The channel that the one with this id was sent on."""
        left = self._left.get(msg_id)
        return left[0] if left is not None else None

    def concerns(self, message: Message) -> bool:
        """Whether `message` answers one of them."""
        parent = message.parent_id
        left = self._left.get(parent)
        kind = message.msg_type
        if left is None or kind == "input_request":
            return False
        _, missing = left
        if kind == "status" and message.content.get("execution_state") == "idle":
            missing.discard("idle")
        elif kind.endswith("_reply"):
            missing.discard("reply")
        if not missing:
            del self._left[parent]
        return True
