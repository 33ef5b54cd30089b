"""Code in flight, and how the kernel is rid of it once nobody wants it any more.

* An interrupt hits this code or nothing. It is sent while the kernel is known to run it: what waits behind somebody
  else's cell is interrupted when it begins, which its own messages on iopub say. Before each interrupt all that has
  arrived is looked at, for the end of the code may be among it.
* Kernels lose an interrupt that comes between the busy status and the first line (ipykernel ignores SIGINT there), and
  code that has just begun is most often over before an interrupt could reach it, which would then hit the next cell. So it
  is given a moment. What still runs is interrupted again, each time after twice as long: code that catches it may have
  something to put in order. An error that is shown since is its effect: a kernel that still has to say the rest is given
  as long again, or it would show a second one.
* Behind an outage of iopub it may be over although nothing says so. It is interrupted once the kernel says anything of it.
  An outage that lasts is told to whoever waits, and is no end of the code: the same kernel may come back.
* An interrupt reaches the main shell alone. Code in a subshell, or on control, runs on.
* All that is done by a task of the connection, which nothing that befalls the leaving task can end.
* Code that asks for input and whose user has gone would hold up the kernel for ever. It is interrupted whether it was to
  be or not; in a subshell, and behind an outage in which it may have ended, it is given an empty text.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import anyio
import attrs

from .. import messages
from .._core.flight import Flight
from .._core.stream import fresh
from .._exceptions import EnchannelError, KernelDied
from .._protocol.message import ChannelName, Message
from .._trio import uncut
from .replies import interrupt_reply

if TYPE_CHECKING:
    from .._core.core import Core
    from .conversations import Conversations

__all__ = ["Code", "can_interrupt", "interrupt", "leave"]

STOP_DEADLINE = 2.0
"""Seconds that stopping it may hold up who leaves it; it goes on behind that."""

BEGINS = 0.1
"""Seconds from the busy status within which the first line of code runs, and most code has run."""

AGAIN = 1.0
"""Seconds for the first interrupt to show an effect, and seconds for that to be the end."""

LOOK, LOOKS = 0.1, 20
"""Seconds in which all that has arrived is read, unless it is a flood (no stream that is full holds that up); and how often
that is looked at."""


class Code(Flight):
    """An ``execute_request`` in flight: how far the kernel is with it.

    Attributes:
        begun: When the kernel said first that it is busy with it, as far as that still holds.
        unseen: Whether it may have begun, or ended, in an outage of iopub, of which nothing was heard since.
        question: What it asks last, and was not answered.
        errors: How many errors it has shown since it is being stopped.
    """

    wants_idle = True
    takes_questions = True

    def __init__(self, channel: ChannelName, request: Message) -> None:
        super().__init__(channel, request)
        self.begun: float | None = None
        self.unseen: bool = False
        self.question: Message | None = None
        self.errors: int | None = None

    def take(self, channel: ChannelName, messages: Sequence[Message]) -> None:
        """Takes note of messages of this request; must not raise."""
        if self.begun is None and channel in ("iopub", "stdin"):
            self.begun, self.unseen = anyio.current_time(), False
        if channel == "stdin":
            # Code that asks anew has given up on what it asked before: it was interrupted.
            self.question = messages[-1]
        elif self.errors is not None and channel == "iopub":
            self.errors += sum(message.msg_type == "error" for message in messages)
        super().take(channel, messages)

    def doubt(self, lost: Collection[ChannelName], busy: Collection[str]) -> None:
        """The connection of some channels was away for a moment."""
        super().doubt(lost, busy)
        if "iopub" in lost:
            # Its end may be among what is lost.
            self.begun, self.unseen = None, True
        self.tell()

    def tell(self) -> None:
        """Has whoever waits look."""
        if self.is_settled():
            # A late answer would be taken for one to whatever asks then.
            self.question = None
        super().tell()

    async def answer(self, core: Core, question: Message | None, value: str) -> None:
        """Answers `question`, or one that may be lost, where the code waits for that when it can be sent.

        Raises:
            EnchannelError: It has failed.
            anyio.ClosedResourceError: It waits for no such answer any more.
        """
        reply = core.prepare(messages.input_reply(value, question or self.request))
        await core.send("stdin", reply, tied=_Question(self, question))
        self.question = None
        self.question_found()

    async def answer_in_vain(self, core: Core) -> None:
        """Gives it an empty text, where it waits for one when that can be sent."""
        try:
            await self.answer(core, self.question, "")
        except anyio.ClosedResourceError:
            # It is over, or asks something else, or somebody else waits for its end: the caller looks.
            core.raise_if_over()

    def is_over(self) -> bool:
        """Whether the kernel has run it."""
        return self.reply is not None or self.idle

    def is_settled(self) -> bool:
        """Whether it is, or never will be."""
        return self.is_over() or self.gone or self.left

    @property
    def asks(self) -> bool:
        """Whether it waits for an answer of its user, or may do so."""
        return self.question is not None or self.question_lost

    @property
    def reachable(self) -> bool:
        """Whether an interrupt reaches it."""
        return self.channel == "shell" and not self.request.header.get("subshell_id")


@attrs.frozen
class _Question:
    """What an answer is tied to: one to something else may be taken by whatever asks then."""

    code: Code
    question: Message | None

    def raise_if_over(self) -> None:
        """Raises why nobody waits for the answer any more."""
        code = self.code
        if code.failure is not None:
            raise fresh(code.failure)
        if code.is_settled() or code.question is not self.question or not code.asks:
            raise anyio.ClosedResourceError("the code does not wait for this answer any more")


class _Unwanted(Code):
    """Code whose block was left. Nothing of what it prints is kept."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.channel, code.request)
        self.take_over(code)
        self.begun, self.unseen = code.begun, code.unseen
        self.question, self.errors = code.question, code.errors

    def give_up(self, failure: EnchannelError) -> None:
        """Nobody waits, and the kernel may be at it."""


def can_interrupt(core: Core) -> bool:
    """Whether there is a way to interrupt the kernel of `core`."""
    return core.interrupter is not None or "control" in core.channels


async def interrupt(conversations: Conversations) -> None:
    """Interrupts what the kernel runs; see :meth:`enchannel.KernelChannels.interrupt`."""
    core = conversations.core
    core.interrupted()
    if core.interrupter is not None:
        core.raise_if_over()
        await core.interrupter()
        return
    await interrupt_reply(conversations.request(messages.interrupt_request()))


@uncut
async def leave(conversations: Conversations, code: Code, *, unwanted: bool) -> None:
    """The block of `code` is left. Bounded, and never raises but what befalls the leaving task.

    Args:
        conversations: Those of its connection.
        code: It.
        unwanted: Whether it is to be stopped where it is not over.
    """
    core = conversations.core
    asking = code.request.content["allow_stdin"]
    if code.is_settled() or core.life.over or not (unwanted or asking):
        return
    code.errors = 0
    stopping = _Stopping(conversations, code, unwanted=unwanted)
    if code.failure is not None:
        # Whoever waited was told, and the kernel may be at it.
        stopping.hand_over()
    core.start(stopping.run)
    try:
        if stopping.is_soon():
            await core.farewells.say(STOP_DEADLINE, stopping.finish)
    finally:
        stopping.hand_over()


class _Stopping:
    """The end of code whose block is left."""

    def __init__(self, conversations: Conversations, code: Code, *, unwanted: bool) -> None:
        self._conversations = conversations
        self._core = conversations.core
        self._code = code
        self._unwanted = unwanted

    def is_soon(self) -> bool:
        """Whether it may be stopped before anything else is over."""
        code = self._code
        if self._core.life.away and isinstance(code, _Unwanted):
            # Whoever leaves was told of the outage, and waits no longer for its end.
            return False
        if code.question is not None:
            return True
        if not self._unwanted or not self._reachable:
            return False
        others = set(self._core.status.busy) - {code.request.msg_id}
        return code.begun is not None or not others

    @property
    def _reachable(self) -> bool:
        """Whether an interrupt reaches the code, and can be sent."""
        return self._code.reachable and can_interrupt(self._core)

    async def finish(self) -> None:
        """Waits until it is complete.

        Raises:
            EnchannelError: It never will be.
        """
        while not self._code.complete:
            await self._code.wait_news()

    def hand_over(self) -> None:
        """Its execution takes nothing more."""
        code = self._code
        if not (code.is_settled() or isinstance(code, _Unwanted)):
            self._code = _Unwanted(code)
            self._core.requests.hand_over(code, self._code)
            code.tell()

    async def run(self) -> None:
        """Waits until it is over, and stops it as soon as that is possible; never raises."""
        try:
            # There may be nobody any more to tell.
            with contextlib.suppress(EnchannelError, anyio.ClosedResourceError, OSError):
                try:
                    await self._stop()
                except KernelDied:
                    if self._code.gone:
                        raise
                    # Whoever waited was told of an outage that lasts.
                    self.hand_over()
                    await self._stop()
        finally:
            if isinstance(self._code, _Unwanted):
                self._core.requests.remove(self._code)

    async def _stop(self) -> None:
        pause = AGAIN
        while not self._code.is_over():
            code, begun = self._code, self._has_begun()
            may_be_hit = begun and self._reachable
            may_ask = code.question is not None or (code.question_lost and code.unseen)
            if may_ask and not may_be_hit:
                await code.answer_in_vain(self._core)
            elif not (may_be_hit and (code.asks or self._unwanted)):
                await code.wait_news()
            elif await self._is_running():
                await self._interrupt(pause)
                pause *= 2

    async def _interrupt(self, pause: float) -> None:
        """Interrupts it; until it is over, or that had no effect."""
        shown = self._code.errors
        with anyio.move_on_after(pause):
            with contextlib.suppress(EnchannelError):
                await interrupt(self._conversations)
            while not self._code.is_over() and self._code.errors == shown:
                await self._code.wait_news()
        if self._code.errors != shown:
            with anyio.move_on_after(pause):
                await self._over()

    async def _over(self) -> None:
        """Waits until it is over."""
        while not self._code.is_over():
            await self._code.wait_news()

    def _has_begun(self) -> bool:
        # A kernel that says nothing of what it does is interrupted as it is.
        silent = self._core.sees_statuses() and not self._core.status.seen
        return self._code.begun is not None or silent

    async def _is_running(self) -> bool:
        """Waits until it is surely at its first line, or over; false where it is, or where that is not known any more."""
        begun = self._code.begun
        if begun is not None:
            with anyio.CancelScope(deadline=begun + BEGINS):
                await self._over()
        with self._core.bound.looking():
            for _ in range(LOOKS):
                if self._core.all_read():
                    break
                await anyio.sleep(LOOK / LOOKS)
        if self._core.life.away:
            # An interrupt would wait, and be sent to whatever runs then.
            await self._core.opened()
            return False
        return not self._code.is_over() and self._has_begun()
