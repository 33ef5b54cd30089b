"""What a server says in the kernel's name: that it starts it again, that it is dead, that it keeps back output.

Such a word comes on iopub, and bears the session of a websocket of ours, as nothing does that the kernel says.

Source: Jupyter Server's websocket handlers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from enum import Enum, auto

from .._protocol.message import Message

__all__ = ["Word", "Words", "is_farewell", "is_heard"]

RATE_LIMITS = ("IOPub message rate exceeded", "IOPub data rate exceeded")
"""How what a server says begins where it drops output."""

EARLIER = 3
"""Sessions of ours in which a word may be on its way."""


class Word(Enum):
    """What a server says."""

    RESTARTS = auto()
    """The kernel died, and is started again."""
    DEAD = auto()
    """It is started no more."""
    RATE_LIMITED = auto()
    """It publishes too much at a time, and some of that is dropped."""


class Words:
    """Tells what a server says from what the kernel says.

    Args:
        session: Of the first websocket.

    Attributes:
        waiting: What has come, a word of the server's among it perhaps.
    """

    def __init__(self, session: str) -> None:
        self.waiting: deque[Message] = deque()
        self._sessions = deque([session], EARLIER)

    def connected(self, session: str) -> None:
        """There is a websocket of `session`."""
        if session not in self._sessions:
            self._sessions.append(session)

    def may_be_among(self, messages: Sequence[Message]) -> bool:
        """Whether something here concerns the transport; most batches hold nothing of it."""
        headers = [message.header for message in messages]
        sessions = [header.get("session") for header in headers]
        return any(ours in sessions for ours in self._sessions) or (
            "shutdown_reply" in [header.get("msg_type") for header in headers]
        )

    def take_up_to_word(self) -> list[Message]:
        """Takes from what waits what stands before the first word."""
        messages: list[Message] = []
        while self.waiting and self.word(self.waiting[0]) is None:
            messages.append(self.waiting.popleft())
        return messages

    def word(self, message: Message) -> Word | None:
        """What the server says with `message`, where it is the server that speaks."""
        if message.session not in self._sessions:
            return None
        kind, content = message.header.get("msg_type"), message.content
        if kind == "status" and not message.parent_header:
            state = content.get("execution_state")
            return {"restarting": Word.RESTARTS, "dead": Word.DEAD}.get(str(state))
        if kind == "stream" and content.get("name") == "stderr":
            text = content.get("text")
            if isinstance(text, str) and text.startswith(RATE_LIMITS):
                return Word.RATE_LIMITED
        return None


def is_farewell(message: Message) -> bool:
    """Whether it is the kernel's own last word."""
    said = message.header.get("msg_type")
    return said == "shutdown_reply" and not message.content.get("restart")


def is_heard(messages: Sequence[Message], session: str | None) -> bool:
    """Whether something among `messages` is said for what was asked on shell in `session`; our questions are asked anywhere."""
    parents = [message.parent_header for message in messages]
    ours = [each for each in parents if each.get("session") == session]
    return any(each.get("msg_type") != "kernel_info_request" for each in ours)
