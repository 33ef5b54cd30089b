"""The streams of a kernel's channels, as a user holds them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Literal, TypeAlias

import anyio
import anyio.abc
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from ._core.core import Core
from ._core.delivery import Listener
from ._core.life import State
from ._core.status import Word
from ._exceptions import LocalProtocolError
from ._protocol.connection_info import ChannelName
from ._protocol.message import Body, Message
from ._trio import uncut

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Channel", "KernelStatus", "MainChannel", "StatusChanges", "Subscription", "status_of"]

KernelStatus: TypeAlias = Literal[Word, "dead"]
"""What is known of a kernel."""


class Channel(Listener[Message], anyio.abc.ObjectStream[Message]):
    """The shell, control or stdin channel: an AnyIO object stream of :class:`Message`.

    :class:`KernelChannels` has one of each. It listens from its first :meth:`Listener.receive` or
    iteration, whatever else listens. Where one only wants the answer to a request,
    :meth:`KernelChannels.request` needs no stream.

    Attributes:
        name: ``"shell"``, ``"control"`` or ``"stdin"``.

    Example:
        .. code-block:: python

            sent = await ch.shell.send(messages.inspect_request("print"))
            async for reply in ch.shell:
                if reply.is_child_of(sent):
                    print(reply.content["found"])  # True
                    break
    """

    def __init__(self, core: Core, name: ChannelName) -> None:
        super().__init__(core.delivery, (name,), tagged=False)
        self.name: ChannelName = name
        self._core = core
        self._may_send = True

    # AnyIO's send returns nothing; ours says what was sent, so that replies can be matched.
    async def send(self, item: Body) -> Message:  # type: ignore[override]
        """Sends `item`, completed, on this channel; waits while nothing can go out.

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
    """All channels as one stream of ``(channel, message)``; :attr:`KernelChannels.main` is one.

    It listens from its first :meth:`Listener.receive` or iteration. The order is that of each
    channel; between channels a kernel's messages may overtake one another.

    Example:
        .. code-block:: python

            sent = await ch.main.send("shell", messages.execute_request("6 * 7"))
            async for channel, msg in ch.main:
                if msg.is_child_of(sent) and msg.msg_type == "execute_result":
                    print(channel, msg.content["data"]["text/plain"])  # iopub 42
                    break
    """

    def __init__(self, core: Core) -> None:
        super().__init__(core.delivery, core.channels, tagged=True)
        self._core = core

    async def send(self, channel: Literal["shell", "control", "stdin"], body: Body) -> Message:
        """Sends `body`, completed, on `channel`; waits while nothing can go out.

        A checkpoint; a cancelled send has sent nothing.

        Args:
            channel: ``"shell"``, ``"control"`` or ``"stdin"``.
            body: See :meth:`Channel.send`.

        Returns:
            The message as it was sent.

        Raises:
            LocalProtocolError: No ``msg_type``, or a part that is no JSON; a channel that is
                unknown, or only receives. Nothing was sent.
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
    """One more listener, live while its ``async with`` block lasts; by
    :meth:`KernelChannels.subscribe`.

    It listens from its entry, so that nothing is missed of what is asked for in the block, and is
    closed when the block is left. A cancelled entry listens to nothing.

    Example:
        .. code-block:: python

            async with ch.subscribe("iopub") as published:
                await ch.run("print('woo')")
                async for channel, msg in published:
                    if msg.msg_type == "stream":
                        print(msg.content["text"])  # woo
                        break
    """

    @uncut
    async def __aenter__(self) -> Self:
        # First: an entry that is cancelled has no exit, and would listen for ever.
        await checkpoint_if_cancelled()
        self.listen()
        return self


# No generator: one that is left early on Trio is the garbage collector's, who warns.
class StatusChanges(AsyncIterator[KernelStatus]):
    """The status as it is, and then each other one; see :meth:`enchannel.KernelChannels.statuses`."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._said: KernelStatus | None = None
        self._epoch = core.life.epoch

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> KernelStatus:
        await checkpoint()
        while self._core.life.state is not State.LEFT and self._said != "dead":
            status, epoch = status_of(self._core), self._core.life.epoch
            # All that the next kernel says may have arrived at once.
            if status != self._said or epoch != self._epoch:
                self._said, self._epoch = status, epoch
                return status
            await self._core.changed.wait()
        raise StopAsyncIteration


def status_of(core: Core) -> KernelStatus:
    """What is known of the kernel now."""
    return "dead" if core.lost is not None else core.status.word
