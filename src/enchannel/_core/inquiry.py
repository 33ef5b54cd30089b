"""What we ask of a kernel ourselves: that it is answered counts, and where, and not what is said."""

from __future__ import annotations

from collections.abc import Collection

import anyio

from .._protocol.message import ChannelName, Message

__all__ = ["Inquiry", "Probe"]


class Probe:
    """A ``kernel_info_request`` of our own: that it is answered counts, and not what is said."""

    def __init__(
        self, channel: ChannelName, request: Message, begun: Collection[str], now: float
    ) -> None:
        self.channel: ChannelName = channel
        self.request: Message = request
        self.asked_at: float = now
        self.begun: Collection[str] = begun
        """What the main shell was busy with when it was asked."""
        self.answered: bool = False
        self.idle: bool = False
        self.given_up: bool = False
        self.outlived: int = 0
        """How many restarts were told since; the first may be that of the very kernel that was asked."""


class Inquiry:
    """What was asked behind something.

    Args:
        channel: What is to be overtaken: what was asked before on shell or control, or what was published.
        subshell: The subshell that is asked.
        number: How many were made before it.

    Attributes:
        answered: Whether the kernel has replied.
        overtaken: Whether all that came before it is here.
        finished: Whether the kernel is done with it, and so with all that was asked before; its reply may have been
            dropped here.
    """

    def __init__(self, channel: ChannelName, subshell: str | None, number: int) -> None:
        self.channel: ChannelName = channel
        self.subshell: str | None = subshell
        self.number: int = number
        self.asked_at: float = 0.0
        self.sent: bool = False
        """Whether it was asked: there was room, and nothing that was asked there before waits for its answer."""
        self.waits: bool = False
        """Whether that is what it waits for."""
        self.received: int = 0
        """How much iopub had said."""
        self.answered: bool = False
        self.overtaken: bool = False
        self.finished: bool = False
        self.waiters: int = 0
        """How many wait for it: one may give up, and the others not."""
        self._news = anyio.Event()

    def hear(self, *, published: bool, idle: bool) -> None:
        """Something came for a question of this one."""
        self.answered |= not published
        self.overtaken |= published == (self.channel == "iopub")
        self.finished |= self.answered or idle
        if self.overtaken or self.finished:
            self._news.set()

    def doubt(self) -> None:
        """What was asked may be lost: it counts as not asked, unless it is answered."""
        self.sent = self.finished

    def tell(self) -> None:
        """Has whoever waits look: the kernel is lost, or was restarted."""
        self._news.set()

    async def wait(self) -> None:
        """Waits until it is finished, or there is news of the connection."""
        await self._news.wait()
