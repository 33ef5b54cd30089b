"""What a reply says of its request."""

from __future__ import annotations

from .._core.requests import ABORTED
from .._exceptions import ReplyError
from .._protocol.message import Message

__all__ = ["raise_for_status"]


def raise_for_status(reply: Message) -> Message:
    """Returns `reply` where it is a success.

    Kernels that leave the status out mean success.

    Raises:
        ReplyError: Its status is ``"error"``, ``"aborted"`` or another one that is no success.
    """
    status = reply.content.get("status", "ok")
    if reply.content.get("success") is False:  # a debug_reply
        raise ReplyError({**reply.content, "evalue": reply.content.get("message")})
    if status == "error" or status in ABORTED:
        raise ReplyError(reply.content)
    return reply
