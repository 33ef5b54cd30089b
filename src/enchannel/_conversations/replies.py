"""What a reply says of its request, and how long one is waited for that some kernels never send."""

from __future__ import annotations

from collections.abc import Awaitable

import anyio

from .._core.requests import ABORTED
from .._exceptions import NoReply, ReplyError
from .._protocol.message import Message

__all__ = ["interrupt_reply", "raise_for_status"]

INTERRUPT_REPLY = 5.0
"""Seconds for the reply to an interrupt_request."""


def raise_for_status(reply: Message) -> Message:
    """Returns `reply` where it is a success.

    Kernels that leave the status out mean success.

    Raises:
        ReplyError: Its status is ``"error"``, ``"aborted"`` or another one that is no success.
    """
    status = reply.content.get("status", "ok")
    if reply.content.get("success") is False:  # a debug_reply
        command = reply.content.get("command")
        silence = f"the debugger refused {command!r} without a word: is another client debugging?"
        raise ReplyError({**reply.content, "evalue": reply.content.get("message") or silence})
    if status == "error" or status in ABORTED:
        raise ReplyError(reply.content)
    return reply


async def interrupt_reply(asking: Awaitable[object]) -> None:
    """Waits for the reply to an interrupt_request, which is not waited for as long as others are.

    Args:
        asking: Sends the request and returns its reply.

    Raises:
        NoReply: It has not come in time.
    """
    with anyio.move_on_after(INTERRUPT_REPLY):
        await asking
        return
    raise NoReply(
        f"the kernel has not replied to the interrupt_request within {INTERRUPT_REPLY:g} s"
    )
