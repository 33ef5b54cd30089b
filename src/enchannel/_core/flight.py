"""A request in flight, and what else ends with the kernel that it was begun on.

A flight collects what answers it, and knows which end of it is missing; what to make of that is decided in
:mod:`~enchannel._core.requests`. Any number of tasks may wait for its news.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from enum import Enum, auto
from typing import TYPE_CHECKING

import anyio

from .._exceptions import EnchannelError
from .._protocol.message import Message
from .inquiry import Inquiry
from .stream import fresh

if TYPE_CHECKING:
    from .._protocol.connection_info import ChannelName
    from .bound import Bound

__all__ = ["Flight", "Missing", "Tied"]

_COMM_TYPES = ("comm_open", "comm_msg", "comm_close")


class Missing(Enum):
    """Which end of a request is not here."""

    REPLY = auto()
    IDLE = auto()
    BOTH = auto()
    ANSWER = auto()
    """The user's, to a question of the code that may be lost: it would wait for it without end."""


class Flight:
    """A request in flight; sending it files it, and whoever sent it takes it back.

    Args:
        channel: Where it is sent.
        request: As it is sent.

    Attributes:
        reply: The reply, once it is here.
        idle: Whether the kernel's idle status for it is.
        concluded: Whether the missing end is known never to come.
    """

    wants_idle: bool = False
    """Whether it is complete only with its idle status."""

    keeps_outputs: bool = False
    """Whether it applies what it takes to outputs."""

    takes_questions: bool = False
    """Whether what its code asks is for whoever sent it."""

    def __init__(self, channel: ChannelName, request: Message) -> None:
        self.channel: ChannelName = channel
        self.request = request
        self.reply: Message | None = None
        self.idle: bool = False
        self.concluded: bool = False
        self.sent: bool = False
        """Whether it was sent."""
        self.heard: bool = False
        """Whether anything is here that belongs to it."""
        self.in_doubt: bool = False
        """Whether its reply may have been lost in an outage."""
        self.question_lost: bool = False
        """Whether what its code asked may have been lost in an outage."""
        self.hit: frozenset[str] = frozenset()
        """What it was in flight at: ``"disconnected"``, ``"interrupted"``."""
        self.dropped_before: int = 0
        self.stirred: bool = True
        self.since: float = 0.0
        self.inquiry: Inquiry | None = None
        """What was asked behind it."""
        self.stir: Callable[[], None] = _nothing
        self.bound: Bound | None = None
        """What is to know who waits, where there is any."""
        self.gone: bool = False
        """Whether the kernel is surely not at it any more."""
        self._failure: EnchannelError | None = None
        self._left = False
        self._news = anyio.Event()

    def take(self, channel: ChannelName, messages: Sequence[Message]) -> None:
        """Takes note of messages of this request; must not raise."""
        self.heard = self.stirred = True
        if channel == "stdin":
            self.question_found()
        for message in messages:
            if channel == "iopub":
                if "execution_state" in message.content:
                    self.hear_status(message)
            elif channel != "stdin" and self.reply is None and message.msg_type not in _COMM_TYPES:
                self.reply = message
        if self.missing is not None:
            self.stir()
        self.tell()

    def question_found(self) -> None:
        """What its code asks is here, or answered: it asks no more than one thing at a time."""
        self.question_lost = False

    def hear_status(self, status: Message) -> None:
        """The kernel says what it does for it."""
        self.idle = self.idle or status.content["execution_state"] == "idle"

    def doubt(self, lost: Collection[ChannelName], busy: Collection[str]) -> None:
        """The connection of some channels was away for a moment; see :meth:`~enchannel._core.requests.Requests.doubt`."""
        known = self.in_doubt
        if self.channel in lost:
            self.hit |= {"disconnected"}
            running = self.request.msg_id in busy and "iopub" not in lost
            # What was in doubt before is: that it was busy was said before that.
            self.in_doubt = self.reply is None and (known or not running)
        self.question_lost |= "stdin" in lost and self.request.content.get("allow_stdin") is True
        # One outage may follow the other: patience begins with the first.
        self.stirred, self.inquiry = self.stirred or not known, None

    def take_over(self, other: Flight) -> None:
        """What is known of `other`, which is the same request and not over, is known of this one."""
        for name in ("sent", "heard", "in_doubt", "question_lost", "hit"):
            setattr(self, name, getattr(other, name))
        self.dropped_before, self.stir = other.dropped_before, other.stir
        self.bound = other.bound

    @property
    def missing(self) -> Missing | None:
        """Which end of it may never come; ``None`` while nothing says so."""
        if self.concluded or self._failure is not None:
            return None
        if self.reply is not None:
            return Missing.IDLE if self.wants_idle and not self.idle else None
        if self.idle or self.in_doubt:
            return Missing.REPLY
        if not self.heard or self.request.msg_type != "execute_request":
            return Missing.BOTH
        # Code runs for any time, on some kernels beside what is asked later.
        return Missing.ANSWER if self.question_lost else None

    @property
    def left(self) -> bool:
        """Whether its block was left."""
        return self._left

    @property
    def failure(self) -> EnchannelError | None:
        """Why it never ends."""
        return self._failure

    def fail(self, failure: EnchannelError) -> None:
        """It never ends: the kernel is done with it, or is gone. Whoever waits is told; the first failure counts."""
        self.gone = True
        self._fail(failure)

    def give_up(self, failure: EnchannelError) -> None:
        """The same, where the kernel may be there and at it still."""
        self._fail(failure)

    def _fail(self, failure: EnchannelError) -> None:
        if self._failure is None and not self.complete:
            self._failure = failure
        self.tell()

    @property
    def complete(self) -> bool:
        """Whether all that it waits for is here, or is known never to come."""
        return self.reply is not None and (not self.wants_idle or self.idle or self.concluded)

    @property
    def waits(self) -> bool:
        """Whether there is anything yet to come for it."""
        return not (self.complete or self._left or self._failure is not None)

    def conclude(self) -> None:
        """What is missing never comes; the reply is here."""
        self.concluded = True
        self.tell()

    def tell(self) -> None:
        """Has whoever waits look."""
        self._news.set()

    def leave(self) -> None:
        """Its block was left."""
        self._left = True
        self.tell()

    async def wait_news(self) -> None:
        """Waits for anything new, whoever else does.

        Raises:
            KernelDied: The kernel is lost, or was restarted meanwhile.
            NoReply: No reply comes.
            anyio.ClosedResourceError: Its block was left.
        """
        if self._failure is not None:
            raise fresh(self._failure)
        if self._left:
            raise anyio.ClosedResourceError("the block of the request was left")
        if self._news.is_set():
            # Not otherwise: several tasks may wait for the same news.
            self._news = anyio.Event()
        if self.bound is None:
            await self._news.wait()
            return
        also: Collection[ChannelName] = ("iopub", "stdin") if self.wants_idle else ()
        with self.bound.waiting((self.channel, *also), self._news.is_set):
            await self._news.wait()

    async def wait_reply(self) -> Message:
        """The reply; raises what :meth:`wait_news` does."""
        while self.reply is None:
            await self.wait_news()
        return self.reply


def _nothing() -> None:
    pass


class Tied:
    """Something that ends with the kernel that it was opened on: a comm, a debug session."""

    failure: EnchannelError | None = None
    """Why it ended, where it did."""

    outlives_restarts: bool = False
    """Whether it goes on with the next kernel."""

    def fail(self, failure: EnchannelError) -> None:
        """The kernel was lost or restarted."""
        self.failure = failure

    def raise_if_over(self) -> None:
        """Raises why nothing of it may be sent any more."""
        if self.failure is not None:
            raise fresh(self.failure)

    def leave(self) -> None:
        """The block of the channels was left."""
