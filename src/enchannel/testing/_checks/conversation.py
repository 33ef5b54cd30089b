"""One request to the kernel under check, and everything that it sent because of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import attrs

from ..._protocol.connection_info import ChannelName
from ..._protocol.message import Message

__all__ = ["Conversation", "Failed", "NotOffered", "several"]

_COMMS = ("comm_open", "comm_msg", "comm_close")

MOST_NAMED = 4
"""Findings of one kind that are written out."""


class Failed(Exception):
    """The kernel does not do what the specification asks; the message says what was seen."""


class NotOffered(Exception):
    """What is checked is nothing that the kernel has, or must have; the message says what is missing."""


def several(findings: Sequence[str]) -> str:
    """`findings` as one text, the first few of them."""
    text = "; ".join(findings[:MOST_NAMED])
    more = len(findings) - MOST_NAMED
    return f"{text}; and {more} more" if more > 0 else text


@attrs.frozen
class Conversation:
    """A request, and its children in the order of their arrival."""

    request: Message
    channel: ChannelName
    """That it was sent on."""
    children: Sequence[tuple[ChannelName, Message]]
    life: int = 0
    """Which of the kernel's lives it was held in."""
    unnamed: Collection[str] = ()
    """Types of replies and statuses that came since, and name nothing that was asked: one of them may be for this request."""

    @property
    def name(self) -> str:
        """The request in a report."""
        code = self.request.content.get("code")
        what = f" {code!r}" if code is not None else ""
        return f"{self.request.msg_type}{what} on {self.channel}"

    @property
    def reply_type(self) -> str:
        """What a reply must be called."""
        return self.request.msg_type.replace("_request", "_reply")

    @property
    def reply_types(self) -> list[str]:
        """What the replies are called."""
        return [message.msg_type for _, message in self.replies]

    @property
    def replies(self) -> list[tuple[ChannelName, Message]]:
        """What came on shell and control; a comm's messages are no reply, wherever they come."""
        return [
            (channel, message)
            for channel, message in self.children
            if channel in ("shell", "control") and message.msg_type not in _COMMS
        ]

    @property
    def published(self) -> list[Message]:
        """What came on iopub."""
        return [message for channel, message in self.children if channel == "iopub"]

    @property
    def prompts(self) -> list[Message]:
        """What came on stdin."""
        return [message for channel, message in self.children if channel == "stdin"]

    @property
    def states(self) -> list[str]:
        """The statuses on iopub."""
        return [str(each.content.get("execution_state")) for each in self.of_type("status")]

    @property
    def reply(self) -> Message:
        """The reply.

        Raises:
            Failed: There is none.
        """
        if not self.replies:
            raise Failed(f"no reply to {self.name}{self.doubt}")
        return self.replies[0][1]

    @property
    def doubt(self) -> str:
        """How far it is known that there is no reply, for a report."""
        doubtful = self.reply_type in self.doubts
        return ", as far as the parents of replies tell" if doubtful else ""

    @property
    def doubts(self) -> list[str]:
        """What it lacks and may have: it came without a name."""
        lacking = [state for state in ("busy", "idle") if state not in self.states]
        if not self.replies:
            lacking.append(self.reply_type)
        return [each for each in lacking if each in self.unnamed]

    @property
    def ended(self) -> bool:
        """Whether there is a reply, or an idle."""
        return bool(self.replies) or "idle" in self.states

    @property
    def whole(self) -> bool:
        """Whether there are both."""
        return bool(self.replies) and "idle" in self.states

    def faults_of_state(self, state: str, place: int) -> list[str]:
        """Where `state` was not published exactly once, and at its `place` among what was."""
        if state in self.doubts:
            return []
        count = self.states.count(state)
        if count == 1 and self.published[place].content.get("execution_state") == state:
            return []
        return [f"{self.name}: {count or 'no'} {state}, in {self.types()}"]

    def of_type(self, msg_type: str) -> list[Message]:
        """What of this type came on iopub."""
        return [message for message in self.published if message.msg_type == msg_type]

    def one(self, msg_type: str) -> Message:
        """The one of this type on iopub.

        Raises:
            Failed: There is none, or more than one.
        """
        found = self.of_type(msg_type)
        if len(found) != 1:
            raise Failed(f"{len(found) or 'no'} {msg_type} for {self.name}, but {self.types()}")
        return found[0]

    def text(self, name: str) -> str:
        """What came on ``"stdout"`` or ``"stderr"``."""
        return "".join(
            str(each.content.get("text", ""))
            for each in self.of_type("stream")
            if each.content.get("name") == name
        )

    def types(self) -> str:
        """The types of what was published, for a report."""
        return ", ".join(each.msg_type for each in self.published) or "nothing"

    def succeeded(self) -> dict[str, Any]:
        """The content of the reply.

        Raises:
            Failed: It is no success, or there is none.
        """
        content = self.reply.content
        if content.get("status") != "ok":
            raise Failed(f"{self.name} was answered {_outcome(content)}")
        return content

    def failed(self) -> dict[str, Any]:
        """The content of a reply that must be an error.

        Raises:
            Failed: It is none, or there is none.
        """
        content = self.reply.content
        if content.get("status") != "error":
            raise Failed(f"{self.name} was answered {_outcome(content)}, and should have failed")
        return content


def _outcome(content: dict[str, Any]) -> str:
    status = repr(content.get("status"))
    error = ": ".join(str(content[name]) for name in ("ename", "evalue") if content.get(name))
    return f"{status} ({error})" if error else status
