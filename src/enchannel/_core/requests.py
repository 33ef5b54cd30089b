"""What is asked of a kernel, and what to make of an answer that is missing.

The rules:

* A request is filed before it is sent and taken back on every way out, so no answer can come too early and none
  is waited for in vain. Answers are told by the id in their parent header and by nothing else: kernels answer on
  the other channel, with another type, and in any order. One id is in flight once.
* Reply and idle status travel on two sockets and come in either order, and a large message, a slow connection or
  a loaded machine may hold either up for any time. Some kernels never send one of them, some neither. What never
  comes is known by one means: the kernel is asked something *behind* it (:class:`Inquiry`). Every channel keeps its
  order, so what the kernel sends for the question comes behind all that it sent before; when that is here, what is
  missing never comes.
* Every deadline stands in :mod:`~enchannel._core.deadlines`. They count from the last message of the request.
* A silence counts only where everything that has arrived was read: a program that blocks its event loop is no
  kernel that does not answer. In an outage nothing counts.

There is no task and no clock here: the core's keeper calls :meth:`Requests.look` every :data:`TICK` while something
may be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import anyio

from .._bell import Bell
from .._exceptions import EnchannelError, KernelDied, LocalProtocolError
from .._log import logger
from .._protocol.message import ChannelName, Message
from .._trio import uncut
from .deadlines import ANSWER, BEGUN, GRACE, PUBLISHED, QUESTION, UNANSWERED
from .flight import Flight, Missing, Tied
from .inquiry import Inquiry, Probe
from .left import Left
from .no_reply import no_reply
from .seam import Seam

__all__ = ["ABORTED", "Requests"]

EXCLUSIVE = 1_000
"""Questions of our own that may be unanswered at once; the oldest are forgotten."""

_QUESTION_LOST = (
    "the connection of stdin to the kernel was away for a moment, and the code says nothing any more: what it asked may "
    "be lost, and it would wait for the answer without end"
)

ABORTED = ("aborted", "abort")
"""The status of a reply to a request that was not run, because one before it failed."""


class Requests:
    """The requests, questions and tied things of one connection."""

    def __init__(self, seam: Seam) -> None:
        self._seam = seam
        self._filed: dict[str, Flight | Probe] = {}
        self._asked: dict[str, tuple[Inquiry | None, Probe]] = {}
        self.left: Left = Left()
        self._tied: dict[Tied, None] = {}
        self._inquiries: dict[tuple[ChannelName, str | None], Inquiry] = {}
        self._waiting: set[Inquiry] = set()
        self._inquired = 0
        self._quiet = Bell()
        self.overhear: Callable[[Sequence[Message]], object] | None = None
        """Called with what comes on iopub and no execution takes."""
        self.paused: bool = False
        """Whether nothing is concluded now."""

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
        return len(self._filed) - len(self._asked)

    @property
    def asking(self) -> bool:
        """Whether anybody waits for an answer, or we do."""
        return bool(len(self) or self._waiting)

    def find(self, msg_id: str) -> Flight | None:
        """The request in flight with this id."""
        filed = self._filed.get(msg_id)
        return filed if isinstance(filed, Flight) else None

    def asked_on(self, msg_id: str) -> ChannelName | None:
        """Where the question of our own with this id was asked."""
        asked = self._asked.get(msg_id)
        return asked[1].channel if asked is not None else None

    def is_answered(self, msg_id: str) -> bool:
        """Whether this is a request of ours whose reply came before its idle status."""
        asked = self._asked.get(msg_id)
        return self.left.is_answered(msg_id) or (asked is not None and asked[1].answered)

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
            self._hear(taker, channel, run)
        if self.overhear is not None and channel == "iopub":
            self.overhear(run)

    def untaken(self, messages: Iterable[Message]) -> list[Message]:
        """Those of `messages` that belong to no request in flight, and to none that was taken back."""
        return [
            message
            for message in messages
            if message.parent_id not in self._filed and not self.left.concerns(message)
        ]

    # Asking behind.

    def ask(self, channel: ChannelName, inquiry: Inquiry | None = None) -> bool:
        """Sends a question of our own; whether it could be sent. What answers it reaches no stream."""
        subshell = inquiry.subshell if inquiry is not None else None
        try:
            request = self._seam.ask(channel, subshell)
        except anyio.WouldBlock:
            # Where nobody can be asked there is no connection, which may come back.
            return False
        probe = Probe(channel, request, self._seam.begun())
        self._filed[request.msg_id] = probe
        self._asked[request.msg_id] = (inquiry, probe)
        if len(self._asked) > EXCLUSIVE:
            self._forget(next(iter(self._asked)))
        return True

    def pending(self, channel: ChannelName) -> bool:
        """Whether a question asked on `channel` is unanswered."""
        return any(
            probe.channel == channel and not (probe.answered or probe.given_up)
            for _, probe in self._asked.values()
        )

    def inquire(self, channel: ChannelName, subshell: str | None, now: float) -> Inquiry:
        """Asks behind everything that was asked before on `channel`, or published before."""
        self._inquired += 1
        inquiry = Inquiry(channel, subshell, self._inquired)
        self._inquiries[channel, subshell] = inquiry
        self._ask_again(inquiry, now)
        return inquiry

    def _ask_again(self, inquiry: Inquiry, now: float) -> None:
        inquiry.asked_at = now
        inquiry.received = self._seam.received.get("iopub", 0)
        asked: Sequence[ChannelName] = (inquiry.channel,)
        if inquiry.channel == "iopub":
            # Control is answered even while a cell runs; some kernels publish nothing for it.
            asked = ("control", "shell")
        for channel in asked:
            if channel in self._seam.channels:
                inquiry.sent |= self.ask(channel, inquiry)
        if not inquiry.sent:
            # Where there is no room to ask, it is asked again.
            self._seam.stir()

    def _forget(self, msg_id: str) -> None:
        self._asked.pop(msg_id, None)
        self._filed.pop(msg_id, None)
        self._quiet.ring()

    async def all_answered(self, channel: ChannelName) -> None:
        """Waits until no question asked on `channel` is open, neither its reply nor its idle status."""
        while any(probe.channel == channel for _, probe in self._asked.values()):
            await self._quiet.wait()

    def _hear(self, probe: Probe, channel: ChannelName, run: Sequence[Message]) -> None:
        published, msg_id = channel == "iopub", probe.request.msg_id
        inquiry, _ = self._asked[msg_id]
        if published:
            probe.idle |= any(message.content.get("execution_state") == "idle" for message in run)
        else:
            probe.answered = True
            self._seam.over(probe.channel, probe.request)
            if (
                probe.channel == "shell"
                and not (inquiry and inquiry.subshell)
                and not probe.given_up
            ):
                self._seam.answered(probe.begun)
        if probe.answered and probe.idle:
            self._forget(msg_id)
        if inquiry is None:
            return
        inquiry.hear(published=published, idle=probe.idle)
        if inquiry.overtaken:
            self._waiting.discard(inquiry)
            for flight in self._flights():
                if flight.inquiry is inquiry and not flight.stirred:
                    self._judge(flight, None)

    async def behind(self, channel: ChannelName) -> bool:
        """Waits until the kernel is done with something asked behind everything on `channel`.

        Whether it is; there may be news of the connection before. Cancellation changes nothing.
        """
        asked_before = self._inquired
        while True:
            # One at a time: who waits again and again must not heap questions on a busy kernel. What is asked
            # already may not be behind everything, so that another one follows it.
            inquiry = self._inquiries.get((channel, None))
            if inquiry is None or inquiry.finished:
                inquiry = self.inquire(channel, None, anyio.current_time())
            await self._finished(inquiry)
            if not inquiry.finished or inquiry.number > asked_before:
                return inquiry.finished

    async def _finished(self, inquiry: Inquiry) -> None:
        self._waiting.add(inquiry)
        try:
            with self._seam.bound.waiting((inquiry.channel,), lambda: inquiry.finished):
                await inquiry.wait()
        finally:
            self._waiting.discard(inquiry)

    # Concluding.

    def look(self) -> bool:
        """Concludes what is due; whether there may be more."""
        flights = [flight for flight in self._flights() if flight.missing is not None]
        unsent = [inquiry for inquiry in self._waiting if not inquiry.sent]
        if not (flights or unsent) or self.paused:
            return False
        now = anyio.current_time()
        for inquiry in unsent:
            self._ask_again(inquiry, now)
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
            flight.fail(KernelDied(_QUESTION_LOST, "disconnected"))
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
        if inquiry is None or inquiry.channel != wanted:
            if now is not None:
                flight.inquiry = self._inquiry_for(flight, wanted, now)
            return
        if self._is_answered(flight, missing, inquiry, now):
            self._conclude(flight)

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
            self._ask_again(inquiry, now)
            return False
        waited = now - inquiry.asked_at
        if inquiry.channel != "iopub":
            # A busy kernel answers when it is done. Given up is what is over, and what is asked where nothing ever
            # answered.
            silent = inquiry.channel == "control" and not self._seam.received["control"]
            return (flight.idle or silent) and waited >= self._patience(missing, silent=silent)
        if not inquiry.answered:
            return waited >= ANSWER
        if self._seam.received["iopub"] > inquiry.received:
            # The kernel drops what its queue does not hold.
            self._ask_again(inquiry, now)
            return False
        return waited >= PUBLISHED

    def _patience(self, missing: Missing, *, silent: bool) -> float:
        known = silent and missing is Missing.REPLY and self.pending("control")
        return UNANSWERED if known else ANSWER

    def _idle_may_come(self, flight: Flight) -> bool:
        assert flight.reply is not None
        # Nothing was published for an aborted one that could be on its way.
        aborted = flight.reply.content.get("status") in ABORTED
        return not aborted and self._seam.sees_statuses()

    def _inquiry_for(self, flight: Flight, channel: ChannelName, now: float) -> Inquiry:
        subshell = None if channel == "iopub" else flight.request.header.get("subshell_id")
        inquiry = self._inquiries.get((channel, subshell))
        # One question answers for all that were silent when it was asked.
        if inquiry is None or inquiry.asked_at < flight.since + GRACE:
            inquiry = self.inquire(channel, subshell, now)
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

    def fail_all(self, failure: EnchannelError, *, final: bool = False) -> None:
        """Tells everything that is in flight, and everything that is tied, why it never ends.

        Args:
            failure: Why.
            final: Whether nothing more will come, so that it concerns what outlives restarts as well.
        """
        for flight in self._flights():
            flight.fail(failure)
        for tied in tuple(self._tied):
            if final or not tied.outlives_restarts:
                self.untie(tied)
                tied.fail(failure)
        self.give_up_questions()

    def give_up_questions(self) -> None:
        """The questions of our own may have been lost. Where they are answered yet, no stream gets that."""
        self._inquiries.clear()
        for msg_id, (_, probe) in self._asked.items():
            probe.given_up = True
            self._asked[msg_id] = (None, probe)
        for inquiry in tuple(self._waiting):
            inquiry.tell()

    def leave_all(self) -> None:
        """The block of the channels was left."""
        for flight in self._flights():
            flight.leave()
        for tied in tuple(self._tied):
            self.untie(tied)
            tied.leave()
        for inquiry in tuple(self._waiting):
            inquiry.tell()

    def doubt(self, lost: Collection[ChannelName], busy: Collection[str]) -> None:
        """The connection of some channels was away for a moment: what they carried may be lost.

        Args:
            lost: The channels.
            busy: The requests that the kernel was busy with, and of whose end it has not spoken.
        """
        for flight in self._flights():
            flight.doubt(lost, busy)

    def interrupted(self) -> None:
        """The kernel is being interrupted."""
        for flight in self._flights():
            flight.hit |= {"interrupted"}
