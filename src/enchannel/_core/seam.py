"""What the registry of requests needs of the connection that it belongs to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from .._protocol.message import ChannelName, Message
from .bound import Bound

__all__ = ["Seam"]


class Seam:
    """The connection, as :class:`~enchannel._core.requests.Requests` sees it."""

    channels: Sequence[ChannelName]
    received: dict[ChannelName, int]
    bound: Bound

    def ask(self, channel: ChannelName, subshell: str | None) -> Message:
        """Sends a ``kernel_info_request``, now or not at all.

        Raises:
            anyio.WouldBlock: It cannot be sent now.
        """
        raise NotImplementedError

    def stir(self) -> None:
        """Has :meth:`Requests.look` called from now on."""
        raise NotImplementedError

    def sees_statuses(self) -> bool:
        """Whether the kernel's statuses can reach us."""
        raise NotImplementedError

    def asks_to_open(self) -> bool:
        """Whether control was asked, as shell was, before anything else."""
        raise NotImplementedError

    def all_read(self) -> bool:
        """Whether everything that has arrived was read."""
        raise NotImplementedError

    @property
    def refused(self) -> int:
        """How many arrivals were no message so far."""
        raise NotImplementedError

    def dropped(self) -> Mapping[str, int]:
        """The same, by the error's name."""
        raise NotImplementedError

    def over(self, channel: ChannelName, request: Message) -> None:
        """Called when the kernel has replied to a request, whether its idle status came or not."""
        raise NotImplementedError

    def begun(self) -> Collection[str]:
        """The requests that the main shell has begun, as far as is known."""
        raise NotImplementedError

    def answered(self, begun: Collection[str]) -> None:
        """Called when the main shell has just answered something that was asked when these requests had begun."""
        raise NotImplementedError
