"""Code in flight, and how the kernel is rid of it once nobody wants it any more.

* An interrupt hits this code or nothing. It is sent while the kernel is known to run it: what waits behind somebody
  else's cell is interrupted when it begins, which its own messages on iopub say. Before each interrupt all that has
  arrived is looked at, for the end of the code may be among it.
* Kernels lose an interrupt that comes between the busy status and the first line (ipykernel ignores SIGINT there). So
  ``execute_input`` is waited for, and what still runs is interrupted again, each time after twice as long: code that
  catches it may have something to put in order.
* An interrupt reaches the main shell alone. Code in a subshell runs on.
* Code that asks for input and whose user has gone would hold up the kernel for ever. It is interrupted whether it was to
  be or not; in a subshell it is given an empty text.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint

from .. import messages
from .._core.flight import Flight
from .._exceptions import EnchannelError
from .._groups import closing_within
from .._protocol.message import ChannelName, Message
from .replies import interrupt_reply

if TYPE_CHECKING:
    from .conversations import Conversations

__all__ = ["Code", "interrupt", "leave"]

STOP_DEADLINE = 2.0
"""Seconds that stopping it may hold up who leaves it; it goes on behind that."""

BEGINS = 0.1
"""Seconds from the busy status within which the first line of code runs."""

AGAIN = 0.5
"""Seconds for the first interrupt to have ended it."""

LOOK = 0.1
"""Seconds in which all that has arrived is read, where nobody holds up the readers."""


class Code(Flight):
    """An ``execute_request`` in flight: how far the kernel is with it.

    Attributes:
        begun: Whether the kernel has said that it is busy with it.
        runs: Whether it has said anything else of it.
        question: What it asks last, and was not answered.
    """

    wants_idle = True

    def __init__(self, channel: ChannelName, request: Message) -> None:
        super().__init__(channel, request)
        self.begun: bool = False
        self.runs: bool = False
        self.question: Message | None = None

    def take(self, channel: ChannelName, messages: Sequence[Message]) -> None:
        """Takes note of messages of this request; must not raise."""
        if channel == "iopub":
            self.begun = True
            self.runs = self.runs or any(message.msg_type != "status" for message in messages)
        elif channel == "stdin":
            # Code that asks anew has given up on what it asked before: it was interrupted.
            self.question = messages[-1]
            self.begun = self.runs = True
        super().take(channel, messages)

    def is_over(self) -> bool:
        """Whether the kernel has run it."""
        return self.reply is not None or self.idle

    def is_settled(self) -> bool:
        """Whether it is, or never will be."""
        return self.is_over() or self.failure is not None

    @property
    def asks(self) -> bool:
        """Whether it waits for an answer of its user, or may do so."""
        return self.question is not None or self.question_lost

    @property
    def subshell(self) -> object:
        """The subshell that runs it."""
        return self.request.header.get("subshell_id")


class _Unwanted(Code):
    """Code whose block was left. Nothing of what it prints is kept."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.channel, code.request)
        self.take_over(code)
        self.begun, self.runs, self.question = code.begun, code.runs, code.question


async def interrupt(conversations: Conversations) -> None:
    """Interrupts what the kernel runs; see :meth:`enchannel.KernelChannels.interrupt`."""
    core = conversations.core
    core.requests.interrupted()
    if core.interrupter is not None:
        core.raise_if_over()
        await checkpoint()
        core.interrupter()
        return
    await interrupt_reply(conversations.request(messages.interrupt_request()))


async def leave(conversations: Conversations, code: Code, *, unwanted: bool) -> None:
    """The block of `code` is left. Bounded, and never raises.

    Args:
        conversations: Those of its connection.
        code: It.
        unwanted: Whether it is to be stopped where it is not over.
    """
    if code.is_settled() or not (unwanted or code.request.content["allow_stdin"]):
        return
    if _may_be_stopped_soon(conversations, code, unwanted=unwanted):
        with closing_within(STOP_DEADLINE):
            await _stop(conversations, code, unwanted=unwanted)
            while not code.complete:
                await code.wait_news()
    if not code.is_settled():
        left = _Unwanted(code)
        conversations.core.requests.hand_over(code, left)
        conversations.core.start(_stop_later, conversations, left, unwanted)


def _may_be_stopped_soon(conversations: Conversations, code: Code, *, unwanted: bool) -> bool:
    if code.asks:
        return True
    if not unwanted or code.subshell:
        return False
    others = set(conversations.core.status.busy) - {code.request.msg_id}
    return code.begun or not others


def _has_begun(conversations: Conversations, code: Code) -> bool:
    # A kernel that says nothing of what it does is interrupted as it is.
    return code.begun or not conversations.core.status.seen


async def _stop_later(conversations: Conversations, code: Code, unwanted: bool) -> None:
    try:
        # There may be nobody any more to tell.
        with contextlib.suppress(EnchannelError, anyio.ClosedResourceError, OSError):
            await _stop(conversations, code, unwanted=unwanted)
    finally:
        conversations.core.requests.remove(code)


async def _stop(conversations: Conversations, code: Code, *, unwanted: bool) -> None:
    """Waits until `code` is over, and stops it as soon as that is possible.

    Raises:
        KernelDied: The kernel is lost, or was restarted.
        NoReply: It never ends.
        anyio.ClosedResourceError: The block of the channels was left.
    """
    pause = AGAIN
    while not code.is_over():
        if code.subshell:
            if code.question is not None:
                reply = messages.input_reply("", code.question)
                code.question = None
                await conversations.core.send("stdin", conversations.core.prepare(reply), tied=code)
            else:
                await code.wait_news()
        elif not (code.asks or (unwanted and _has_begun(conversations, code))):
            await code.wait_news()
        elif await _is_running(conversations, code):
            with anyio.move_on_after(pause):
                with contextlib.suppress(EnchannelError):
                    await interrupt(conversations)
                while not code.is_over():
                    await code.wait_news()
            pause *= 2


async def _is_running(conversations: Conversations, code: Code) -> bool:
    """Waits until `code` is surely at its first line, or over; false where it is."""
    with anyio.move_on_after(BEGINS):
        while not code.runs and not code.is_over():
            await code.wait_news()
    with anyio.move_on_after(LOOK):
        while not conversations.core.all_read():
            await checkpoint()
    return not code.is_over()
