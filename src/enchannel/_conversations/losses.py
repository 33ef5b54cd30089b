"""What a kernel's own publisher has lost of an execution, where the kernel numbers what it sends.

The facts it stands on:

* ipykernel and its family number everything that they send, over all sockets, in one sequence:
  ``<session>_<pid>_<n>``. Of other kernels nothing can be said.
* Between the busy and the idle status of an execution the numbers are those of what is published, of its reply, and of
  its prompts. Whatever else the kernel handles meanwhile (control, a subshell, another client's request) has a reply as
  well, which may go to somebody else: one number for each request that is heard of.
* Code of others asks, and its prompts go to them. What runs in a subshell of theirs may do so at any time, beside ours; so
  where somebody runs code there, nothing is known.
* A number is taken for the value of an expression before it is known whether there is anything to show. One that shows
  itself (``_ipython_display_``) leaves it unused. So where no ``execute_result`` came a single missing number is no loss,
  unless somebody in between said meanwhile that he drops output: then it is one. Where the connection was away it is not
  known to be one, nor to be none.

What is counted is looked at while executions are in flight, and costs nothing otherwise.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from .._log import logger
from .._protocol.message import ChannelName, Message

if TYPE_CHECKING:
    from .._core.core import Core

__all__ = ["Losses", "Numbers"]

LATE = 64
"""Numbers behind an idle status up to which something may come that was numbered before it."""

ELSEWHERE = 1_000
"""Replies and prompts whose numbers are remembered; the oldest are forgotten."""

LONGEST = 20
"""Digits that a counter may have. Of more than 4,300 Python makes no integer, and raises."""


def _number(message: Message) -> tuple[str, int] | None:
    """The sequence that the message belongs to, and its number there."""
    name, _, number = message.msg_id.rpartition("_")
    if len(number) > LONGEST or not number.isdecimal():
        return None
    if not name.startswith(f"{message.session}_"):
        return None
    return name, int(number)


class Numbers:
    """The numbers of one execution.

    Args:
        msg_id: Its request's.
        session: Ours.
        refused: How many arrivals were dropped here so far.
        outages: How often the connection was lost so far.
        limited: How often somebody in between said so far that he drops output.
        elsewhere: The numbers of replies and prompts, by the request that is answered, or by the prompt's own id.
        shared: Whether somebody else runs code in a subshell.
    """

    def __init__(
        self,
        msg_id: str,
        session: str,
        refused: Callable[[], int],
        outages: Callable[[], int],
        limited: Callable[[], int],
        elsewhere: Mapping[str, tuple[str, int]],
        shared: Callable[[], bool],
    ) -> None:
        self._shared = shared
        self._refused = refused
        self._refused_before = self._refused_behind = refused()
        self._outages = outages
        self._outages_before = outages()
        self._limited = limited
        self._limited_before = limited()
        self.msg_id: str = msg_id
        self._session = session
        self._sequence = ""
        self._first = 0
        self._last: int | None = None
        self._reply: int | None = None
        self._seen = 0
        # A thread may publish something behind the idle status with an earlier number, and the reverse.
        self._newest: deque[int] = deque(maxlen=LATE)
        self._elsewhere = elsewhere
        self._settled: tuple[int | None] | None = None
        self._others: dict[str, int] = {}
        self._unsure = False
        self._shows_result = False

    def begin(self, sequence: str, first: int, *, sure: bool) -> None:
        """The kernel has begun, with that number, as far as that is sure."""
        self._sequence, self._first = sequence, first
        self._unsure = self._was_away and not sure

    @property
    def begun(self) -> bool:
        """Whether the kernel has."""
        return bool(self._sequence)

    def is_behind(self, sequence: str, number: int) -> bool:
        """Whether nothing more of it comes, where the kernel says that number."""
        over = self._last is not None and sequence == self._sequence
        return over and number > (self._last or 0) + LATE

    @property
    def _was_away(self) -> bool:
        """Whether the connection was, meanwhile."""
        return self._outages() > self._outages_before

    def see(self, message: Message, sequence: str, number: int) -> None:
        """Takes note of what is published while it runs."""
        if sequence != self._sequence or number < self._first:
            return
        if self._last is not None and number > self._last:
            return  # the kernel goes on with something else
        self._seen += 1
        self._newest.append(number)
        if message.parent_id != self.msg_id:
            self._see_other(message, number)
        elif message.msg_type == "execute_result":
            self._shows_result = True
        elif message.content.get("execution_state") == "idle":
            self._last = number
            self._refused_behind = self._refused()

    def replied(self, number: int) -> None:
        """Its reply is here, with that number; that may be before its busy status."""
        self._reply = number
        self._refused_behind = self._refused()

    def _see_other(self, message: Message, number: int) -> None:
        parent = message.parent_header
        if message.msg_type == "status" and parent:
            self._others.setdefault(message.parent_id, number)
            # What it asks goes to somebody else.
            foreign = parent.get("session") != self._session
            self._unsure |= foreign and parent.get("msg_type") == "execute_request"

    def settle(self) -> int | None:
        """Returns :attr:`missed`, which is that from now on."""
        self._settled = (self.missed,)
        return self._settled[0]

    @property
    def missed(self) -> int | None:
        """How many were lost, ``None`` where that cannot be known."""
        if self._settled is not None:
            return self._settled[0]
        if (
            self._unsure
            or self._shared()
            or not self._sequence
            or (self._reply is None and self._last is None)
        ):
            return None
        # The idle status is the next thing that is sent behind the reply.
        last = self._last if self._last is not None else (self._reply or 0) + 1
        seen = self._seen - sum(number > last for number in self._newest)
        for sequence, number in self._elsewhere.values():
            seen += sequence == self._sequence and self._first <= number <= last
        others = {parent for parent, number in self._others.items() if number <= last}
        replies_elsewhere = others - self._elsewhere.keys()
        dropped_here = self._refused_behind - self._refused_before
        missing = last - self._first + 1 - seen - len(replies_elsewhere) - dropped_here
        limited = self._limited() > self._limited_before
        if missing >= (1 if self._shows_result or limited else 2):
            return missing
        # Of others, one reply each is taken for granted; beside an outage that may hide a loss.
        return None if self._was_away and (missing or replies_elsewhere) else 0


class Losses:
    """The executions of one connection that are in flight, and what was lost of those that were.

    Attributes:
        missed: How many messages were lost.
    """

    def __init__(self, core: Core) -> None:
        self.missed: int = 0
        self._core = core
        self._followed: dict[str, Numbers] = {}
        self._begun: dict[str, Numbers] = {}
        self._highest: dict[str, int] = {}
        self._elsewhere: dict[str, tuple[str, int]] = {}

    def follow(self, msg_id: str) -> Numbers:
        """Looks at what arrives from now on, until :meth:`conclude`."""
        core, transport = self._core, self._core.transport
        numbers = Numbers(
            msg_id,
            core.session,
            lambda: transport.refused,
            lambda: core.outage.losses,
            lambda: transport.rate_limited,
            self._elsewhere,
            lambda: core.status.shared,
        )
        # What has an id that is in flight is not sent.
        known = msg_id in self._followed
        if core.sees_statuses() and transport.sees_everything and not known:
            if not self._followed:
                self._highest.clear()
                self._elsewhere.clear()
                core.observers.append(self._observe)
            self._followed[msg_id] = numbers
        return numbers

    def conclude(self, numbers: Numbers, *, complete: bool) -> None:
        """The execution is left; no error where it was already."""
        if self._followed.get(numbers.msg_id) is not numbers:
            return
        del self._followed[numbers.msg_id]
        self._begun.pop(numbers.msg_id, None)
        if not self._followed:
            self._core.observers.remove(self._observe)
        missed = numbers.settle() if complete else None
        if missed:
            if not self.missed:
                logger().warning(
                    "the kernel lost %d messages of an execution before they were sent: it publishes faster than "
                    "they go out; further losses are only counted",
                    missed,
                )
            self.missed += missed

    def _observe(self, channel: ChannelName, arrived: Sequence[Message]) -> Sequence[Message]:
        for message in arrived:
            numbered = _number(message)
            if numbered is None:
                continue
            sequence, number = numbered
            if channel == "iopub":
                self._see(message, sequence, number)
            else:
                self._see_elsewhere(message, sequence, number)
        return ()

    def _see_elsewhere(self, message: Message, sequence: str, number: int) -> None:
        """Takes note of a reply or a prompt: once for all, for any number of executions may be in flight."""
        reply = message.msg_type != "input_request"
        self._elsewhere[message.parent_id if reply else message.msg_id] = sequence, number
        if len(self._elsewhere) > ELSEWHERE:
            del self._elsewhere[next(iter(self._elsewhere))]
        if reply and message.parent_id in self._followed:
            self._followed[message.parent_id].replied(number)

    def _see(self, message: Message, sequence: str, number: int) -> None:
        parent = message.parent_id
        if parent in self._followed and not self._followed[parent].begun:
            self._begin(parent, message, sequence, number)
        for numbers in self._begun.values():
            numbers.see(message, sequence, number)
        self._highest[sequence] = max(number, self._highest.get(sequence, 0))

    def _begin(self, msg_id: str, message: Message, sequence: str, number: int) -> None:
        # Each begins with its busy status; where that is lost, behind what came last.
        first, sure = number, message.content.get("execution_state") == "busy"
        if not sure:
            sure = sequence in self._highest
            first = min(number, self._highest.get(sequence, number - 1) + 1)
        # Who leaves the blocks of many open pays for those that run.
        for numbers in tuple(self._begun.values()):
            if numbers.is_behind(sequence, number):
                del self._begun[numbers.msg_id]
        self._begun[msg_id] = self._followed[msg_id]
        self._begun[msg_id].begin(sequence, first, sure=sure)
