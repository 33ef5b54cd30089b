"""What we ask a kernel ourselves, behind something: when that is answered, what it was asked behind is over.

What answers a question reaches no stream, so each is remembered until it is answered, by a reply and an idle status, or
until :data:`KERNELS` have come: what the one before had to say may still be on its way when the next one is here, and
the next one may have been asked before it was known.

A kernel that is busy for hours must not find a heap of questions when it is done, nor may one that was lost be waited for
without end. So while one is unanswered the next is asked on its channel in pauses that double.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import anyio

from .._bell import Bell
from .._protocol.message import ChannelName, Message
from .inquiry import Inquiry, Probe
from .seam import Seam

__all__ = ["Questions"]

EXCLUSIVE = 1_000
"""Questions that may be unanswered at once; the oldest are forgotten."""

PAUSE = 1.0
"""Seconds between two questions on a channel of which none is answered, at first."""

KERNELS = 3
"""Restarts behind which nothing more comes for a question."""


class Questions:
    """The questions of one connection.

    Args:
        seam: The connection.
        filed: Where what arrives finds who asked, by the id of the request.

    Attributes:
        ever_answered: Whether there was a reply to any.
    """

    def __init__(self, seam: Seam, filed: dict[str, Any]) -> None:
        self.ever_answered: bool = False
        self._seam = seam
        self._filed = filed
        self._asked: dict[str, tuple[Inquiry | None, Probe]] = {}
        # For as long as it is unanswered, or a request looks at it: a subshell may be one of thousands.
        self._newest: weakref.WeakValueDictionary[tuple[ChannelName, str | None], Inquiry]
        self._newest = weakref.WeakValueDictionary()
        self._waiting: set[Inquiry] = set()
        self._inquired = 0
        self._quiet = Bell()

    def __len__(self) -> int:
        return len(self._asked)

    @property
    def waited_for(self) -> bool:
        """Whether anybody waits for an answer."""
        return bool(self._waiting)

    def unsent(self) -> list[Inquiry]:
        """What somebody waits for, and there was no room to ask."""
        return [inquiry for inquiry in self._waiting if not inquiry.sent]

    def asked_on(self, msg_id: str) -> ChannelName | None:
        """Where the question with this id was asked."""
        asked = self._asked.get(msg_id)
        return asked[1].channel if asked is not None else None

    def is_answered(self, msg_id: str) -> bool:
        """Whether this is a question whose reply came before its idle status."""
        asked = self._asked.get(msg_id)
        return asked is not None and asked[1].answered

    def pending(self, channel: ChannelName) -> bool:
        """Whether a question asked on `channel` is unanswered."""
        return any(
            probe.channel == channel and not (probe.answered or probe.given_up)
            for _, probe in self._asked.values()
        )

    # Asking.

    def ask(self, channel: ChannelName, inquiry: Inquiry | None = None) -> bool:
        """Asks on `channel`; whether it could be sent."""
        subshell = inquiry.subshell if inquiry is not None else None
        try:
            request = self._seam.ask(channel, subshell)
        except anyio.WouldBlock:
            # Where nobody can be asked there is no connection, which may come back.
            return False
        probe = Probe(channel, request, self._seam.begun(), anyio.current_time())
        self._filed[request.msg_id] = probe
        self._asked[request.msg_id] = (inquiry, probe)
        if len(self._asked) > EXCLUSIVE:
            oldest, (forgotten, _) = next(iter(self._asked.items()))
            self._forget(oldest)
            if forgotten in self._waiting:
                # Whoever waits has it asked anew.
                forgotten.doubt()
                self._seam.stir()
        return True

    def _is_due(self, channel: ChannelName, subshell: str | None, now: float) -> bool:
        """Whether something more may be asked there."""
        asked = [
            probe.asked_at
            for _, probe in self._asked.values()
            if (probe.channel, probe.request.header.get("subshell_id")) == (channel, subshell)
            and not (probe.answered or probe.given_up)
        ]
        return not asked or now - asked[-1] >= max(PAUSE, asked[-1] - asked[0])

    def newest(self, channel: ChannelName, subshell: str | None) -> Inquiry | None:
        """What was asked last behind `channel`, where that is unanswered or somebody looks at it."""
        return self._newest.get((channel, subshell))

    def inquire(self, channel: ChannelName, subshell: str | None, now: float) -> Inquiry:
        """Asks behind everything that was asked before on `channel`, or published before."""
        self._inquired += 1
        inquiry = Inquiry(channel, subshell, self._inquired)
        self._newest[channel, subshell] = inquiry
        self.ask_again(inquiry, now)
        return inquiry

    def ask_again(self, inquiry: Inquiry, now: float) -> None:
        """Asks once more, or for the first time where that was not possible."""
        asked: Sequence[ChannelName] = (inquiry.channel,)
        if inquiry.channel == "iopub":
            # Control is answered even while a cell runs; some kernels publish nothing for it.
            asked = ("control", "shell")
        there: list[ChannelName] = [each for each in asked if each in self._seam.channels]
        due: list[ChannelName] = [
            each for each in there if self._is_due(each, inquiry.subshell, now)
        ]
        inquiry.waits = bool(there) and not due
        if due or not inquiry.asked_at:
            inquiry.asked_at = now
            inquiry.received = self._seam.received.get("iopub", 0)
        for channel in due:
            inquiry.sent |= self.ask(channel, inquiry)
        if not inquiry.sent:
            self._seam.stir()

    # Being answered.

    def hear(
        self,
        probe: Probe,
        channel: ChannelName,
        run: Sequence[Message],
        overtaken: Callable[[Inquiry], object],
    ) -> None:
        """Takes note of what answers `probe`; what that overtakes is `overtaken`."""
        published, msg_id = channel == "iopub", probe.request.msg_id
        inquiry, _ = self._asked[msg_id]
        if published:
            probe.idle |= any(message.content.get("execution_state") == "idle" for message in run)
        else:
            probe.answered = self.ever_answered = True
            self._quiet.ring()
            self._seam.over(probe.channel, probe.request)
            in_main_shell = probe.channel == "shell" and not (inquiry and inquiry.subshell)
            if in_main_shell and not probe.given_up:
                self._seam.answered(probe.begun)
        if probe.answered and probe.idle:
            self._forget(msg_id)
        if inquiry is None:
            return
        inquiry.hear(published=published, idle=probe.idle)
        if inquiry.overtaken:
            self._waiting.discard(inquiry)
            overtaken(inquiry)

    def _forget(self, msg_id: str) -> None:
        self._asked.pop(msg_id, None)
        self._filed.pop(msg_id, None)
        self._quiet.ring()

    async def first_answered(self) -> None:
        """Waits until there was a reply to any question."""
        while not self.ever_answered:
            await self._quiet.wait()

    async def all_answered(self, channel: ChannelName) -> None:
        """Waits until no question asked on `channel` is open, neither its reply nor its idle status."""
        while any(probe.channel == channel for _, probe in self._asked.values()):
            await self._quiet.wait()

    async def behind(self, channel: ChannelName) -> bool:
        """Waits until the kernel is done with something asked behind everything on `channel`.

        Whether it is; there may be news of the connection before. Cancellation changes nothing.
        """
        asked_before = self._inquired
        while True:
            # One at a time: who waits again and again must not heap questions on a busy kernel. What is asked
            # already may not be behind everything, so that another one follows it.
            inquiry = self.newest(channel, None)
            if inquiry is None or inquiry.finished:
                inquiry = self.inquire(channel, None, anyio.current_time())
            await self._finished(inquiry)
            if not inquiry.finished or inquiry.number > asked_before:
                return inquiry.finished

    async def _finished(self, inquiry: Inquiry) -> None:
        self._waiting.add(inquiry)
        inquiry.waiters += 1
        if not inquiry.sent:
            # Whoever was to ask it may have gone.
            self._seam.stir()
        try:
            with self._seam.bound.waiting((inquiry.channel,), lambda: inquiry.finished):
                await inquiry.wait()
        finally:
            inquiry.waiters -= 1
            if not inquiry.waiters:
                self._waiting.discard(inquiry)

    # Never being answered.

    def interrupted(self) -> None:
        """What somebody waits for may be lost, and is asked once more."""
        for inquiry in self._waiting:
            inquiry.doubt()
        self._seam.stir()

    def give_up(self) -> None:
        """What was asked may have been lost. Where it is answered yet, no stream gets that."""
        self._newest.clear()
        for msg_id, (_, probe) in self._asked.items():
            probe.given_up = True
            self._asked[msg_id] = (None, probe)
        self.tell()

    def begin_anew(self) -> None:
        """The kernel was restarted."""
        for msg_id, (_, probe) in tuple(self._asked.items()):
            probe.outlived += 1
            if probe.outlived == KERNELS:
                self._forget(msg_id)

    def tell(self) -> None:
        """There is news of the connection: whoever waits is to look."""
        for inquiry in tuple(self._waiting):
            inquiry.tell()
