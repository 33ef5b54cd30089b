"""The streams of a kernel's channels, as a user holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import anyio
import anyio.abc
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from ._core.core import Core
from ._core.delivery import Listener
from ._exceptions import LocalProtocolError
from ._protocol.connection_info import ChannelName
from ._protocol.message import Body, Message
from ._trio import uncut

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Channel", "MainChannel", "Subscription"]


class Channel(Listener[Message], anyio.abc.ObjectStream[Message]):
    """The shell, control or stdin channel: an AnyIO object stream of :class:`Message`."""

    def __init__(self, core: Core, name: ChannelName) -> None:
        super().__init__(core.delivery, (name,), tagged=False)
        self.name: ChannelName = name
        self._core = core
        self._may_send = True

    # AnyIO's send returns nothing; ours says what was sent, so that replies can be matched.
    async def send(self, item: Body) -> Message:  # type: ignore[override]
        """Sends `item`, completed, on this channel.

        A checkpoint; a cancelled send has sent nothing.

        Args:
            item: The dict of the Jupyter documentation, or a :class:`Message`. What it leaves out
                (``msg_id``, ``date``, ``version``, ``parent_header``, ``metadata``, ``content``) is
                filled in; ``session`` and ``username`` are ours.

        Returns:
            The message as it was sent; its replies are those for which ``is_child_of(sent)``.

        Raises:
            LocalProtocolError: No ``msg_type``, or a part that is no JSON. Nothing was sent.
            anyio.ClosedResourceError: This channel is closed, or its block was left.
            KernelDied: The kernel is lost.
        """
        if self.closed or not self._may_send:
            raise anyio.ClosedResourceError(f"the {self.name} channel is closed for sending")
        return await _send(self._core, self.name, item)

    async def send_eof(self) -> None:
        """Sends nothing more on this channel; receiving goes on. A checkpoint."""
        self._may_send = False
        await checkpoint()

    def __repr__(self) -> str:
        return f"<Channel {self.name} {self._state()}>"


class MainChannel(Listener[tuple[ChannelName, Message]]):
    """All channels as one stream of ``(channel, message)``."""

    def __init__(self, core: Core) -> None:
        super().__init__(core.delivery, core.channels, tagged=True)
        self._core = core

    async def send(self, channel: Literal["shell", "control", "stdin"], body: Body) -> Message:
        """Sends `body`, completed, on `channel`: ``"shell"``, ``"control"`` or ``"stdin"``.

        Like :meth:`Channel.send` in everything else.

        Raises:
            LocalProtocolError: Also for a channel that is unknown, or that only receives.
            anyio.ClosedResourceError: This stream is closed, or its block was left.
            KernelDied: The kernel is lost.
        """
        if self.closed:
            raise anyio.ClosedResourceError("the main channel is closed")
        return await _send(self._core, channel, body)

    def __repr__(self) -> str:
        return f"<MainChannel {self._state()}>"


async def _send(core: Core, channel: str, body: Body) -> Message:
    name = core.name(channel)
    if name == "iopub":
        raise LocalProtocolError("iopub only receives; you may send on shell, control and stdin")
    return await core.send(name, core.prepare(body))


class Subscription(Listener[tuple[ChannelName, Message]]):
    """One more listener, live while its ``async with`` block lasts."""

    @uncut
    async def __aenter__(self) -> Self:
        # First: an entry that is cancelled has no exit, and would listen for ever.
        await checkpoint_if_cancelled()
        self.listen()
        return self
