"""What the kernel's own statuses say of it: what its main shell does, and whether it is still the same kernel.

* The status is about the main shell. What the kernel says for requests on control, or in a subshell, says nothing
  of it; nor does what it says for somebody else's ``kernel_info_request``, which may be on control.
* It is kept per request, because busy and idle of several overlap. The main shell takes its requests in order: what
  is known of one that is over holds for all that were busy before it, so a lost idle makes no kernel busy for ever.
* A kernel's session changes when it restarts. Many kernels write the *client's* session into their headers, and
  some a fresh one into each message without a parent. So only a message with a parent from another session can say
  that the kernel is another one, and only where the kernel had kept to one session before. That it is ``"starting"``
  a kernel says once, before anything else: behind what another session has said it is another one for sure.
* A reply may be here before any status of the next kernel. It says the same, where replies on its channel were seen to
  have the session of the statuses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Literal, TypeAlias

from .._protocol.connection_info import ChannelName
from .._protocol.errors import text_of
from .._protocol.message import Message, channel_of_type

__all__ = ["Status", "Word"]

Word: TypeAlias = Literal["unknown", "starting", "busy", "idle"]

BUSY = 10_000
"""Requests that may be busy at once; the oldest are forgotten, since some kernels never send their idle."""

EARLIER = 16
"""Sessions of earlier kernels that are remembered: what one said last may come behind what the next says first."""

STEADY = 2
"""How often a session is said before another one is a restart, and not a kernel that has no session."""


class Status:
    """Follows the statuses on iopub.

    Args:
        channel_of: The channel that one of our own requests was sent on, ``None`` for those of others.
        is_over: Whether a request of ours is known to be over.
        renewed: Called when the kernel says a new session.
        changed: Called when there is another word.

    Attributes:
        session: The kernel's session, where it has said it.
        heard: How often it has said it.
        seen: Whether any status was ever seen.
        curious: Whether any message is to be looked at for a session, and not the statuses alone.
        shared: Whether somebody else runs code in a subshell of the kernel.
    """

    def __init__(
        self,
        channel_of: Callable[[str], ChannelName | None],
        is_over: Callable[[str], bool],
        renewed: Callable[[], None],
        changed: Callable[[], None],
    ) -> None:
        self.session: str | None = None
        self.heard: int = 0
        self.seen: bool = False
        self.curious: bool = False
        self.shared: bool = False
        self._channel_of = channel_of
        self._is_over = is_over
        self._renewed = renewed
        self._changed = changed
        self._word: Word = "unknown"
        self._busy: dict[str, None] = {}
        self._said = 0
        self._earlier: deque[str] = deque(maxlen=EARLIER)
        self._said_on: set[ChannelName] = set()
        # Whether the session is that of the next kernel already, of which is told when whoever restarts it is done.
        self._ahead = False

    @property
    def word(self) -> Word:
        """``"unknown"``, ``"starting"``, ``"busy"`` or ``"idle"``."""
        return self._word

    @word.setter
    def word(self, word: Word) -> None:
        if word != self._word:
            self._word = word
            self._changed()

    @property
    def busy(self) -> Collection[str]:
        """The requests that the main shell has begun, and of whose end it has not spoken."""
        return self._busy.keys()

    def observe(self, messages: Sequence[Message]) -> None:
        """Looks at what arrived on iopub."""
        for message in messages:
            if message.header.get("msg_type") == "status":
                self.seen = True
                self._see_session(message)
                self._see(message)
            elif self.curious:
                self._see_session(message)

    def hear_reply(self, channel: ChannelName, reply: Message) -> None:
        """Looks at what arrived on shell or control."""
        if reply.session == self.session:
            self._said_on.add(channel)
        elif channel in self._said_on:
            self._see_session(reply)

    def over(self, msg_id: str) -> None:
        """The main shell is done with a request, and with those that it had begun before."""
        if msg_id in self._busy:
            for begun in tuple(self._busy):
                del self._busy[begun]
                if begun == msg_id:
                    break
            self._settle()

    def overtaken(self, begun: Collection[str]) -> None:
        """The main shell has answered something that was asked when these requests had begun."""
        for msg_id in begun:
            self._busy.pop(msg_id, None)
        self._settle()

    def forget(self, known: Collection[str]) -> None:
        """What was said meanwhile is lost: only what is `known` to be busy still counts as that."""
        self._busy = {msg_id: None for msg_id in self._busy if msg_id in known}
        if self.word == "busy" and not self._busy:
            self.word = "unknown"

    def doubt_session(self, before: str | None) -> None:
        """The kernel counts as restarted, and may be the same: nobody said that it is.

        Args:
            before: The session before the outage, if any.
        """
        if self.session == (before or None):
            # It may be that of the kernel that is there.
            self.session, self._said = None, 0
            return
        # Said since: it is.
        self._ahead = True
        if before:
            self._earlier.append(before)

    def begin_anew(self) -> None:
        """The kernel was restarted."""
        if not self._ahead:
            if self.session is not None:
                self._earlier.append(self.session)
            self.session, self._said = None, 0
        self._ahead = self.shared = False
        self._busy.clear()
        self.word = "unknown"

    def _settle(self) -> None:
        self.word = "busy" if self._busy else "idle"

    def _see(self, message: Message) -> None:
        state, parent = text_of(message.content.get("execution_state")), message.parent_id
        if state == "starting":
            self._busy.clear()
            self.word = "starting"
        elif self._is_elsewhere(message):
            return
        elif state == "busy" and not self._is_over(parent):
            self._busy[parent] = None
            if len(self._busy) > BUSY:
                del self._busy[next(iter(self._busy))]
            self.word = "busy"
        elif state == "idle":
            self.over(parent)
            self._settle()

    def _is_elsewhere(self, message: Message) -> bool:
        """Whether the status belongs to no request of the main shell, or may not."""
        parent = message.parent_header
        channel = self._channel_of(message.parent_id)
        if channel is None:
            kind = text_of(parent.get("msg_type"))
            control = channel_of_type(kind) == "control"
            self.shared |= kind == "execute_request" and bool(parent.get("subshell_id"))
            return control or kind == "kernel_info_request" or "subshell_id" in parent
        return channel != "shell" or bool(parent.get("subshell_id"))

    def _see_session(self, message: Message) -> None:
        session, parent = message.session, message.parent_header
        if not session or session == parent.get("session"):
            return
        if session == self.session:
            self._said += 1
            self.heard += 1
            return
        starts = self.session is not None and message.content.get("execution_state") == "starting"
        if not (parent or starts) or session in self._earlier:
            return
        another = self.session is not None and (self._said >= STEADY or starts)
        if another:
            self._renewed()
            self._ahead = self.session is not None
        if self.session is not None:
            self._earlier.append(self.session)
        self.session, self._said = session, 1
        self.heard += 1
