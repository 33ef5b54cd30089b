"""What a recorded kernel has still to say, and when it may.

The rules:

* What the client asks is looked for among what was asked in the recording and not asked again yet: the first that is the
  same, by channel, type, content and buffers. The id of a comm that the client opens is another one each time; it is
  followed. What had been replied to before it was sent must have been asked as well.
* What answered it is said then, in its order, and behind what the main shell has to run before. What was said behind an
  answer of the client to a prompt waits for that answer, and what code said behind an interrupt that came while it ran
  waits for one.
* What answered nobody here is said when all that had been asked before it is asked.
* A restart begins a new epoch: what was said and asked in another one is not for this one.
* How long anything took is not repeated.

There is no input or output here.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import attrs

from .._protocol.errors import text_of
from .._protocol.message import ChannelName, Message
from .._protocol.recording import Recorded

__all__ = ["Match", "RecordingMismatch", "Replay", "Saying"]

Match: TypeAlias = Callable[[Message, Message], bool]
"""Whether what was recorded, the first, is what is asked now."""

Saying: TypeAlias = "tuple[ChannelName, bytes, Message]"
"""A message that is to be sent: where, to whom, and what."""

_COMMS = ("comm_open", "comm_msg", "comm_close")
_ANSWERED_ANYHOW = ("kernel_info_request", "interrupt_request")

SHOWN = 5
"""Requests that a mismatch lists."""


class RecordingMismatch(AssertionError):
    """The program asks a :class:`RecordedKernel` for something else than in the recording.

    It says what, and what was asked there. It ends the kernel, which its channels are told, and
    leaves the block of :func:`open_recorded_kernel`.

    Example:
        .. code-block:: python

            async with ch.record("session.jsonl"):
                await ch.run("6 * 7")

            try:
                async with open_recorded_kernel("session.jsonl") as recorded:
                    async with recorded.open_channels() as again:
                        await again.run("7 * 6")
            except RecordingMismatch as mismatch:
                print(mismatch)
    """


@attrs.define(eq=False)
class _Ask:
    """What the client sent in the recording."""

    at: int
    channel: ChannelName
    message: Message
    epoch: int
    behind: int = 0
    """How many had been replied to before it was sent."""
    answers: list[_Ask] = attrs.field(factory=list)
    """To the kernel's prompts, so far."""
    says: deque[_Say] = attrs.field(factory=deque)
    replied: bool = False
    """Whether it was replied to, as far as the recording is read."""
    ended: bool = False
    """Whether that is so, or the kernel has said that it is idle again: it may send no reply."""
    was_interrupted: bool = False
    """Whether the kernel was interrupted while it ran, so far."""
    taken: Message | None = None
    """What the client has sent now."""
    identity: bytes = b""
    ahead: Sequence[_Ask] = ()
    """What the main shell had to run before, when it came."""
    done: bool = False
    """Whether its reply is said."""
    interrupted: bool = False
    """Whether it is, now."""

    @property
    def on_main_shell(self) -> bool:
        """Whether it waits its turn there, and an interrupt may reach it."""
        return self.channel == "shell" and not self.message.header.get("subshell_id")

    @property
    def runs(self) -> bool:
        """Whether it is a request, and not over as soon as it is heard."""
        return self.on_main_shell and self.message.msg_type.endswith("_request")


@attrs.define(eq=False)
class _Say:
    """What the kernel sent in the recording."""

    at: int
    channel: ChannelName
    message: Message
    epoch: int
    needs: Sequence[_Ask] = ()
    needs_interrupt: bool = False


class _Loading:
    """What is known while a recording is read."""

    def __init__(self) -> None:
        self.epoch = 0
        self.passed_over: set[str] = set()
        self.asks: dict[str, _Ask] = {}
        self.prompted: dict[str, _Ask] = {}

    def interrupt(self) -> None:
        """What the main shell was running then was interrupted; what waited behind it was not."""
        for ask in self.asks.values():
            if ask.runs and not ask.ended and ask.epoch == self.epoch:
                ask.was_interrupted = True
                return


class Replay:
    """What is left of a recording.

    Args:
        recorded: It.
        match: See :func:`open_recorded_kernel`.

    Attributes:
        info: What the kernel said of itself, where it was asked.
    """

    def __init__(
        self, recorded: Iterable[Recorded], match: Match | None, *, in_order: bool
    ) -> None:
        self.info: dict[str, Any] | None = None
        self._match = match
        self._epoch = 0
        self._asks: list[_Ask] = []
        self._waiting: dict[tuple[ChannelName, str], list[_Ask]] = {}
        # Those that have still to be answered, and what the main shell has still to run.
        self._speaking: list[_Ask] = []
        self._line: list[_Ask] = []
        # In the order of their replies.
        self._replied: list[_Ask] = []
        # Before these nothing is missing.
        self._sent = self._asked = 0
        self._in_order = in_order
        self._loose: deque[_Say] = deque()
        self._ends: dict[int, int] = {}
        self._comm_ids: dict[str, str] = {}
        self._last_identity = b""
        self._sessions: dict[int, str] = {}
        self._prefixes: dict[str, str] = {}
        self._numbers: Counter[str] = Counter()
        self._load(recorded)

    def _load(self, recorded: Iterable[Recorded]) -> None:
        loading = _Loading()
        for at, each in enumerate(recorded):
            if each.kind == "restarted":
                loading.epoch += 1
            elif each.kind == "lost":
                self._ends[loading.epoch] = at
            elif each.kind == "interrupted":
                loading.interrupt()
            elif each.message is None or each.channel is None:
                continue
            elif each.kind == "sent":
                self._load_sent(loading, at, each.channel, each.message)
            else:
                self._load_received(loading, at, each.channel, each.message)

    def _load_sent(
        self, loading: _Loading, at: int, channel: ChannelName, message: Message
    ) -> None:
        if message.msg_type in _ANSWERED_ANYHOW:
            loading.passed_over.add(message.msg_id)
            if message.msg_type == "interrupt_request":
                loading.interrupt()
            return
        ask = _Ask(at, channel, message, loading.epoch, len(self._replied))
        self._asks.append(ask)
        self._waiting.setdefault((channel, message.msg_type), []).append(ask)
        loading.asks[message.msg_id] = ask
        if message.parent_id in loading.prompted:
            loading.prompted[message.parent_id].answers.append(ask)

    def _load_received(
        self, loading: _Loading, at: int, channel: ChannelName, message: Message
    ) -> None:
        self._note_session(loading.epoch, message)
        if message.parent_id in loading.passed_over:
            if message.msg_type == "kernel_info_reply" and self.info is None:
                self.info = message.content
            return
        say = _Say(at, channel, message, loading.epoch)
        asked = loading.asks.get(message.parent_id)
        if asked is None:
            self._loose.append(say)
            return
        if channel in ("shell", "control"):
            asked.replied = asked.ended = True
            self._replied.append(asked)
        elif message.msg_type == "status" and message.content.get("execution_state") == "idle":
            asked.ended = True
        say.needs, say.needs_interrupt = tuple(asked.answers), asked.was_interrupted
        asked.says.append(say)
        if message.msg_type == "input_request":
            loading.prompted[message.msg_id] = asked

    def _note_session(self, epoch: int, message: Message) -> None:
        """How the kernel of an epoch names itself, and numbers what it sends, as ipykernel does."""
        session = message.session
        if message.msg_type == "status":
            self._sessions.setdefault(epoch, session)
        name, _, number = message.msg_id.rpartition("_")
        if number.isdecimal() and f"{name}_".startswith(f"{session}_"):
            self._prefixes[session] = name

    # What happens now.

    def hear(self, channel: ChannelName, identity: bytes, message: Message) -> None:
        """The client sends `message`.

        Raises:
            RecordingMismatch: There is no such one in the recording, or no other.
        """
        self._last_identity = identity
        for ask in self._waiting.get((channel, message.msg_type), ()):
            if ask.epoch == self._epoch and self._is(ask, message):
                self._check_order(ask)
                self._take(ask, identity, message)
                return
        raise RecordingMismatch(self._difference(channel, message))

    def _take(self, ask: _Ask, identity: bytes, message: Message) -> None:
        self._waiting[ask.channel, message.msg_type].remove(ask)
        ask.taken, ask.identity = message, identity
        self._speaking.append(ask)
        if ask.on_main_shell:
            self._line = [each for each in self._line if not each.done]
            ask.ahead = tuple(self._line)
            # One that was never replied to ends with the kernel.
            if ask.runs and ask.replied:
                self._line.append(ask)
        if message.msg_type == "comm_open":
            recorded_id = text_of(ask.message.content.get("comm_id"))
            self._comm_ids[recorded_id] = text_of(message.content.get("comm_id"))

    def _check_order(self, ask: _Ask) -> None:
        if not self._in_order:
            return
        # What was on its way at the same time may come in any order.
        self._asked = _first_missing(self._replied, self._asked, self._epoch)
        if self._asked < ask.behind:
            before = self._replied[self._asked]
            sent, missing = ask.message.msg_type, "\n".join(_lines(before.message))
            raise RecordingMismatch(
                f"the program sends {sent} before {before.message.msg_type}, whose reply it had by then in the "
                f"recording:\n{missing}\n(in_order=False, where tasks of it race)"
            )

    def interrupt(self) -> None:
        """The client interrupts the kernel."""
        for ask in self._speaking:
            if ask.runs and not ask.done and all(each.done for each in ask.ahead):
                ask.interrupted = True
                return

    def restart(self) -> None:
        """The kernel is restarted."""
        self._epoch += 1
        self._speaking.clear()
        self._line.clear()

    def due(self) -> list[Saying]:
        """What is to be said now, in the order of the recording."""
        ready: list[tuple[int, Saying]] = []
        more = True
        while more:
            more = False
            for ask in self._speaking:
                while ask.says and self._may(ask, ask.says[0]):
                    say = ask.says.popleft()
                    assert ask.taken is not None
                    said = self._said(say.message, ask.taken)
                    ready.append((say.at, (say.channel, ask.identity, said)))
                    if say.channel in ("shell", "control"):
                        # What waited for it may be next.
                        ask.done = more = True
        self._speaking = [ask for ask in self._speaking if ask.says]
        while self._loose and self._all_asked(self._loose[0]):
            say = self._loose.popleft()
            if say.epoch == self._epoch:
                said = self._said(say.message, None)
                ready.append((say.at, (say.channel, self._last_identity, said)))
        return [saying for _, saying in sorted(ready, key=lambda each: each[0])]

    @property
    def over(self) -> bool:
        """Whether the kernel was lost at this point of the recording."""
        at = self._ends.get(self._epoch)
        return at is not None and all(
            ask.taken is not None and not (ask.says and ask.says[0].at < at)
            for ask in self._asks
            if ask.at < at and ask.epoch == self._epoch
        )

    @property
    def busy(self) -> bool:
        """Whether the main shell has not said all that answers what it was asked."""
        return any(ask.on_main_shell for ask in self._speaking)

    @property
    def remaining(self) -> list[Message]:
        """What was asked in the recording, and not now."""
        return [ask.message for ask in self._asks if ask.taken is None]

    @property
    def session(self) -> str | None:
        """How the kernel names itself in this epoch, where that is known."""
        return self._sessions.get(self._epoch)

    def number(self, session: str) -> str | None:
        """The id of the next message, where this kernel numbers what it sends."""
        prefix = self._prefixes.get(session)
        if prefix is None:
            return None
        self._numbers[prefix] += 1
        return f"{prefix}_{self._numbers[prefix]}"

    # Whether it is the same.

    def _is(self, ask: _Ask, message: Message) -> bool:
        recorded = ask.message
        if recorded.header.get("subshell_id") != message.header.get("subshell_id"):
            return False
        if self._match is not None:
            return self._match(recorded, message)
        content = self._with_comm_ids(recorded.msg_type, _without_id(recorded))
        return content == _without_id(message) and recorded.buffers == message.buffers

    def _with_comm_ids(self, msg_type: str, content: dict[str, Any]) -> dict[str, Any]:
        """`content` with the ids that the comms of this client have here."""
        comm_id, comms = content.get("comm_id"), content.get("comms")
        if msg_type in _COMMS and isinstance(comm_id, str):
            return {**content, "comm_id": self._comm_ids.get(comm_id, comm_id)}
        if msg_type == "comm_info_reply" and isinstance(comms, dict):
            named = {self._comm_ids.get(name, name): about for name, about in comms.items()}
            return {**content, "comms": named}
        return content

    def _may(self, ask: _Ask, say: _Say) -> bool:
        if say.epoch != self._epoch or not all(each.done for each in ask.ahead):
            return False
        if say.needs_interrupt and not ask.interrupted:
            return False
        return all(needed.taken is not None for needed in say.needs)

    def _all_asked(self, say: _Say) -> bool:
        if say.epoch > self._epoch:
            return False
        self._sent = _first_missing(self._asks, self._sent, self._epoch)
        return self._sent == len(self._asks) or self._asks[self._sent].at > say.at

    def _said(self, recorded: Message, asked: Message | None) -> Message:
        header = dict(recorded.header)
        header["msg_id"] = self.number(recorded.session) or recorded.msg_id
        parent = recorded.parent_header if asked is None else dict(asked.header)
        content = self._with_comm_ids(recorded.msg_type, recorded.content)
        return Message(header, parent, recorded.metadata, content, recorded.buffers)

    def _difference(self, channel: ChannelName, message: Message) -> str:
        asked = (
            f"the program sends {message.msg_type} on {channel}, which the recording has not here"
        )
        left = [ask for ask in self._asks if ask.taken is None and ask.epoch == self._epoch]
        for ask in left:
            if (ask.channel, ask.message.msg_type) == (channel, message.msg_type):
                lines = difflib.unified_diff(
                    _lines(ask.message), _lines(message), "recorded", "asked", lineterm=""
                )
                return f"{asked}:\n" + "\n".join(lines)
        shown = "\n".join([f"{asked}:", *_lines(message)])
        listed = "".join(f"\n    {ask.message.msg_type} on {ask.channel}" for ask in left[:SHOWN])
        if listed:
            return f"{shown}\nit goes on with{listed}"
        later = any(ask.epoch > self._epoch for ask in self._asks)
        return f"{shown}\nit " + ("goes on behind a restart" if later else "is at its end")


def _first_missing(asks: Sequence[_Ask], begin: int, epoch: int) -> int:
    """Where the first stands, from `begin` on, that has not been asked in this epoch."""
    while begin < len(asks) and (asks[begin].taken is not None or asks[begin].epoch < epoch):
        begin += 1
    return begin


def _without_id(message: Message) -> dict[str, Any]:
    """The content, without what is another one each time."""
    if message.msg_type == "comm_open":
        return {name: value for name, value in message.content.items() if name != "comm_id"}
    return message.content


def _lines(message: Message) -> list[str]:
    return json.dumps(message.content, indent=2, sort_keys=True, default=repr).splitlines()
