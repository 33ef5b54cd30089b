"""What a reply says of its request, and how long one is waited for that some kernels never send."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

import anyio

from .._exceptions import LocalProtocolError, NoReply, ReplyError
from .._protocol.message import ABORTED, Message

__all__ = [
    "INTERRUPT_REPLY",
    "count_among",
    "count_of",
    "interrupt_reply",
    "is_success",
    "raise_for_status",
    "user_expression",
]

INTERRUPT_REPLY = 5.0
"""Seconds for the reply to an interrupt_request."""


def is_success(reply: Message) -> bool:
    """Whether `reply` is one; kernels that leave the status out mean so."""
    status = reply.content.get("status", "ok")
    refused = reply.content.get("success") is False  # a debug_reply
    return not (refused or status == "error" or status in ABORTED)


def raise_for_status(reply: Message) -> Message:
    """Returns `reply` where it is a success.

    Args:
        reply: Of any request, as :meth:`KernelChannels.request` returns it. One without a status is
            a success.

    Raises:
        ReplyError: Its status is ``"error"``, ``"aborted"`` or another one that is no success; or a
            debugger says that it was not successful.

    Example:
        .. code-block:: python

            request = messages.inspect_request("print")
            reply = raise_for_status(await ch.request(request))
            print(reply.content["found"])  # True
    """
    if is_success(reply):
        return reply
    content = reply.content
    if content.get("success") is False:
        command = content.get("command")
        silence = f"the debugger refused {command!r} without a word: is another client debugging?"
        content = {**content, "evalue": content.get("message") or silence}
    raise ReplyError(content)


def user_expression(reply: Message, name: str) -> dict[str, Any]:
    """The value of one of the ``user_expressions`` that an ``execute_request`` asked for, as a MIME
    bundle.

    Args:
        reply: The ``execute_reply``.
        name: The expression's.

    Returns:
        What there is of it by MIME type; its ``repr`` is ``"text/plain"``.

    Raises:
        ReplyError: The expression failed, or the code before it.
        LocalProtocolError: No expression of that name was evaluated.

    Example:
        .. code-block:: python

            done = await ch.run("x = 6", user_expressions={"double": "2 * x"})
            value = user_expression(done.reply, "double")
            print(value["text/plain"])  # 12
    """
    values = raise_for_status(reply).content.get("user_expressions")
    if not isinstance(values, dict) or not isinstance(value := values.get(name), dict):
        known = sorted(values) if isinstance(values, dict) else []
        raise LocalProtocolError(f"the reply has no user expression {name!r}; it has {known}")
    if value.get("status") == "error":
        raise ReplyError(value)
    data = value.get("data")
    return data if isinstance(data, dict) else {}


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


def count_of(reply: Message) -> int | None:
    """The number of the execution that `reply` answers, where the kernel says one."""
    count = reply.content.get("execution_count")
    return count if isinstance(count, int) else None


def count_among(published: Sequence[Message]) -> int | None:
    """The number of the execution that `published` belongs to, where the kernel says it there already."""
    for message in published:
        if message.msg_type == "execute_input":
            return count_of(message)
    return None
