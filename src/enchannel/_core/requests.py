"""What is asked of a kernel, and what to make of an answer that is missing.

The rules:

* A request is filed before it is sent and taken back on every way out, so no answer can come too early and none
  is waited for in vain. Answers are told by the id in their parent header and by nothing else: kernels answer on
  the other channel, with another type, and in any order. One id is in flight once.
* Reply and idle status travel on two sockets and come in either order, and a large message, a slow connection or
  a loaded machine may hold either up for any time. Some kernels never send one of them, some neither. What never
  comes is known by one means: the kernel is asked something *behind* it (:mod:`~enchannel._core.questions`). Every
  channel keeps its order, so what the kernel sends for the question comes behind all that it sent before; when that
  is here, what is missing never comes.
* Every deadline stands in :mod:`~enchannel._core.deadlines`. They count from the last message of the request.
* A silence counts only where everything that has arrived was read: a program that blocks its event loop is no
  kernel that does not answer. In an outage nothing counts.

There is no task and no clock here: the core's keeper calls :meth:`Requests.look` every :data:`TICK` while something
may be missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence

import anyio

from .._exceptions import EnchannelError, KernelDied, LocalProtocolError
from .._log import logger
from .._protocol.message import ABORTED, ChannelName, Message
from .._trio import uncut
from .deadlines import ANSWER, BEGUN, GRACE, KNOCK, PUBLISHED, QUESTION, UNANSWERED
from .flight import Flight, Missing, Tied
from .inquiry import Inquiry, Probe
from .left import Left
from .no_reply import no_reply
from .questions import Questions
from .seam import Seam

__all__ = ["Requests"]

_QUESTION_LOST = (
    "the connection of stdin to the kernel was away for a moment, and the code says nothing any more: what it asked may "
    "be lost, and it would wait for the answer without end"
)


class Requests:
    """The requests, questions and tied things of one connection."""

    def __init__(self, seam: Seam) -> None:
        self._seam = seam
        self._filed: dict[str, Flight | Probe] = {}
        self.questions: Questions = Questions(seam, self._filed)
        self.left: Left = Left()
        self._tied: dict[Tied, None] = {}
        self.overhear: Callable[[Sequence[Message]], object] | None = None
        """Called with what comes on iopub and no execution takes."""
        self.paused: bool = False
        """Whether nothing is concluded now."""
        self._knock_at = -math.inf

    # Filing.

    @uncut
    def file(self, flight: Flight) -> None:
        """Hands `flight` every message whose parent it is, until :meth:`remove`.

        Raises:
            LocalProtocolError: Its id is in flight.
        """
        msg_id = flight.request.msg_id
        if msg_id in self._filed:
            raise LocalProtocolError(
                f"a request with the msg_id {msg_id!r} is in flight already: give each its own"
            )
        self._filed[msg_id] = flight
        flight.stir = self._seam.stir
        flight.bound = self._seam.bound if self._seam.bound.limited else None
        flight.dropped_before = self._seam.refused
        self._seam.stir()

    @uncut
    def remove(self, flight: Flight) -> None:
        """Takes :meth:`file` back; no error where it is back already."""
        msg_id = flight.request.msg_id
        if self._filed.get(msg_id) is not flight:
            return
        del self._filed[msg_id]
        self.left.add(flight)
        if flight.reply is not None:
            self._seam.over(flight.channel, flight.request)

    @uncut
    def hand_over(self, flight: Flight, to: Flight) -> None:
        """From now on `to` gets what would have come for `flight`."""
        if self._filed.get(flight.request.msg_id) is flight:
            self._filed[flight.request.msg_id] = to

    def tie(self, tied: Tied) -> None:
        """Tells `tied` of the next loss or restart."""
        self._tied[tied] = None

    def untie(self, tied: Tied) -> None:
        """Takes :meth:`tie` back."""
        self._tied.pop(tied, None)

    def __len__(self) -> int:
        return len(self._filed) - len(self.questions)

    @property
    def asking(self) -> bool:
        """Whether anybody waits for an answer, or we do."""
        return any(flight.waits for flight in self._flights()) or self.questions.waited_for

    def find(self, msg_id: str) -> Flight | None:
        """The request in flight with this id."""
        filed = self._filed.get(msg_id)
        return filed if isinstance(filed, Flight) else None

    def is_answered(self, msg_id: str) -> bool:
        """Whether this is a request of ours whose reply came before its idle status."""
        return self.left.is_answered(msg_id) or self.questions.is_answered(msg_id)

    # Routing.

    def route(self, channel: ChannelName, messages: Sequence[Message]) -> Sequence[Message]:
        """Serves what is filed, and returns what the streams get: all but the answers to our own questions."""
        filed = self._filed
        if not filed:
            self._serve(None, channel, messages)
            return messages
        for_streams: list[Message] = []
        run: list[Message] = []
        last: Flight | Probe | None = None
        for message in messages:
            parent = message.parent_header.get("msg_id")
            taker = filed.get(parent) if type(parent) is str else None
            if taker is not last:
                self._serve(last, channel, run)
                run, last = [], taker
            run.append(message)
            if taker is None or type(taker) is not Probe:
                for_streams.append(message)
        self._serve(last, channel, run)
        return for_streams

    def _serve(
        self, taker: Flight | Probe | None, channel: ChannelName, run: Sequence[Message]
    ) -> None:
        if isinstance(taker, Flight):
            taker.take(channel, run)
            if taker.keeps_outputs:
                return
        elif taker is not None:
            self.questions.hear(taker, channel, run, self._overtaken)
        if self.overhear is not None and channel == "iopub":
            self.overhear(run)

    def untaken(self, channel: ChannelName, messages: Iterable[Message]) -> list[Message]:
        """Those of `messages` that belong to no request in flight, and to none that was taken back."""
        filed = self._filed
        if channel == "stdin":
            # A question wants an answer, from whoever listens.
            filed = {
                key: each
                for key, each in filed.items()
                if isinstance(each, Probe) or each.takes_questions
            }
        return [
            message
            for message in messages
            if message.parent_id not in filed and not self.left.concerns(message)
        ]

    # Concluding.

    def _overtaken(self, inquiry: Inquiry) -> None:
        for flight in self._flights():
            if flight.inquiry is inquiry and not flight.stirred:
                self._judge(flight, None)

    def look(self) -> bool:
        """Concludes what is due; whether there may be more."""
        flights = [flight for flight in self._flights() if flight.missing is not None]
        unsent = self.questions.unsent()
        if not (flights or unsent) or self.paused:
            return False
        now = anyio.current_time()
        for inquiry in unsent:
            self.questions.ask_again(inquiry, now)
        all_read = self._seam.all_read()
        for flight in flights:
            if flight.stirred or not all_read:
                flight.stirred, flight.since = False, now
            elif now - flight.since >= GRACE:
                self._judge(flight, now)
        return True

    def _flights(self) -> list[Flight]:
        return [filed for filed in self._filed.values() if isinstance(filed, Flight)]

    def _judge(self, flight: Flight, now: float | None) -> None:
        """Decides what comes next for `flight`; without a time, because what it asked was overtaken."""
        missing = flight.missing
        if missing is None or self.paused:
            return
        if flight.question_lost and now is not None and now - flight.since >= QUESTION:
            flight.give_up(KernelDied(_QUESTION_LOST, "disconnected"))
            return
        if missing is Missing.ANSWER:
            return
        if missing is Missing.IDLE and not self._idle_may_come(flight):
            flight.conclude()
            return
        wanted: ChannelName = "iopub" if missing is Missing.IDLE else flight.channel
        inquiry = flight.inquiry
        if missing is Missing.BOTH and inquiry is not None and self._second(inquiry):
            wanted = "iopub"
        unheard = inquiry is not None and not (flight.heard or inquiry.answered)
        if unheard and now is not None and now - flight.since >= ANSWER:
            self._knock(now)
        if inquiry is None or inquiry.channel != wanted:
            if now is not None:
                flight.inquiry = self._inquiry_for(flight, wanted, now)
            return
        if self._is_answered(flight, missing, inquiry, now):
            self._conclude(flight)

    def _knock(self, now: float) -> None:
        """Asks on control, which is answered while code runs, so that a connection that leads nowhere shows."""
        asked = self.questions.pending("control")
        if now >= self._knock_at and not asked and "control" in self._seam.channels:
            self._knock_at = now + KNOCK
            self.questions.ask("control")

    def _second(self, inquiry: Inquiry) -> bool:
        """Where nothing at all came: whether its channel is overtaken, and iopub is to be asked behind as well."""
        seen = self._seam.sees_statuses()
        return seen and (inquiry.channel == "iopub" or inquiry.overtaken)

    def _is_answered(
        self, flight: Flight, missing: Missing, inquiry: Inquiry, now: float | None
    ) -> bool:
        """Whether what is missing never comes, or is given up."""
        patience = BEGUN if flight.heard else ANSWER
        if missing is Missing.BOTH and (now is None or now - flight.since < patience):
            # Some kernels handle several at a time, and say nothing of it: of what is said nowhere it is no proof
            # that something later was answered.
            return False
        if inquiry.overtaken:
            return True
        if now is None:
            return False
        if not inquiry.sent:
            self.questions.ask_again(inquiry, now)
            if not inquiry.waits:
                return False
        waited = now - max(inquiry.asked_at, flight.since + GRACE)
        if inquiry.channel != "iopub":
            # A busy kernel answers when it is done. Given up is what is over, and what is asked where nothing ever
            # answered.
            silent = inquiry.channel == "control" and self._control_is_silent()
            patience = UNANSWERED if silent and missing is Missing.REPLY else ANSWER
            return (flight.idle or silent) and waited >= patience
        if not inquiry.answered:
            return waited >= ANSWER
        if self._seam.received["iopub"] > inquiry.received and waited >= GRACE:
            # The kernel drops what its queue does not hold.
            self.questions.ask_again(inquiry, now)
            return False
        return waited >= PUBLISHED

    def _control_is_silent(self) -> bool:
        """Whether nothing ever answered on control, though it could have."""
        flights = self._flights()
        at_work = any(
            each.channel == "control" and each.heard and not each.idle for each in flights
        )
        if self._seam.received["control"] or at_work:
            return False
        # Where it was not asked before, code may run that lets nothing else run, nor say that it does.
        waiting = any(each.channel == "shell" and each.reply is None for each in flights)
        return self._seam.asks_to_open() or not (waiting or self._seam.begun())

    def _idle_may_come(self, flight: Flight) -> bool:
        assert flight.reply is not None
        # Nothing was published for an aborted one that could be on its way.
        aborted = flight.reply.content.get("status") in ABORTED
        return not aborted and self._seam.sees_statuses()

    def _inquiry_for(self, flight: Flight, channel: ChannelName, now: float) -> Inquiry:
        subshell = None if channel == "iopub" else flight.request.header.get("subshell_id")
        inquiry = self.questions.newest(channel, subshell)
        # One question answers for all that were silent when it was asked.
        if inquiry is None or (inquiry.sent and inquiry.asked_at < flight.since + GRACE):
            inquiry = self.questions.inquire(channel, subshell, now)
        return inquiry

    def _conclude(self, flight: Flight) -> None:
        if flight.reply is None:
            flight.fail(no_reply(flight, self._seam.dropped()))
            return
        inquiry = flight.inquiry
        if inquiry is not None and not inquiry.overtaken:
            logger().warning(
                "the idle status of the %s never came, nor what else iopub may hold: its outputs may be "
                "incomplete",
                flight.request.msg_type,
            )
        flight.conclude()
        self._seam.over(flight.channel, flight.request)

    # Losses.

    def give_up_all(self, failure: EnchannelError) -> None:
        """Tells everything that is in flight, or tied, of an outage in which it may be lost."""
        for flight in self._flights():
            flight.give_up(failure)
        self._fail_tied(failure, final=False)

    def fail_all(self, failure: EnchannelError, *, final: bool = False) -> None:
        """Tells everything that is in flight, or tied, that its kernel is gone.

        Args:
            failure: Why.
            final: Whether nothing more will come, so that it concerns what outlives restarts as well.
        """
        for flight in self._flights():
            flight.fail(failure)
        self._fail_tied(failure, final=final)

    def _fail_tied(self, failure: EnchannelError, *, final: bool) -> None:
        for tied in tuple(self._tied):
            if final or not tied.outlives_restarts:
                self.untie(tied)
                tied.fail(failure)
        self.questions.give_up()

    def begin_anew(self) -> None:
        """The kernel was restarted: nothing more comes for what was taken back."""
        self.left.clear()
        self.questions.begin_anew()

    def leave_all(self) -> None:
        """The block of the channels was left."""
        for flight in self._flights():
            flight.leave()
        for tied in tuple(self._tied):
            self.untie(tied)
            tied.leave()
        self.questions.tell()

    def doubt(self, lost: Collection[ChannelName], busy: Collection[str]) -> None:
        """The connection of some channels was away for a moment: what they carried may be lost.

        Args:
            lost: The channels.
            busy: The requests that the kernel was busy with, and of whose end it has not spoken.
        """
        for flight in self._flights():
            flight.doubt(lost, busy)

    def interrupted(self) -> None:
        """The kernel is being interrupted, and may lose what it is at, be it a question of ours."""
        for flight in self._flights():
            flight.hit |= {"interrupted"}
            if flight.inquiry is not None:
                flight.inquiry.doubt()
        self.questions.interrupted()
