"""What the conversations of one connection share.

Displays are updated from any execution; comms are told apart by their ids; what the kernel says of itself is asked
for once in each epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anyio
from anyio.lowlevel import checkpoint

from .. import messages
from .._core.bond import Tie
from .._core.core import Core
from .._exceptions import EnchannelError, LocalProtocolError
from .._groups import unwrapping_task_group
from .._protocol.message import Message
from .._protocol.outputs import HeardDisplays
from .losses import Losses
from .replies import raise_for_status

if TYPE_CHECKING:
    from .._protocol.connection_info import ChannelName
    from .._protocol.output_widgets import OutputWidgets
    from .comms import Comms

__all__ = ["Conversations"]

CONTROL_FIRST = 0.25
"""Seconds that control has to itself before shell is asked as well; some kernels are silent there."""


class Conversations:
    """The conversations of one connection.

    Attributes:
        core: The connection.
        displays: What outputs share.
        losses: What the kernel has lost.
    """

    def __init__(self, core: Core) -> None:
        self.core = core
        self.displays: HeardDisplays = HeardDisplays()
        self._widgets: OutputWidgets | None = None
        self.losses: Losses = Losses(core)
        self._comms: Comms | None = None
        self._info: tuple[int, dict[str, Any]] | None = None
        core.requests.overhear = self.hear_outputs

    def look_after(self, widgets: OutputWidgets | None) -> None:
        """Who may have captured outputs from now on."""
        self.displays.widgets = self._widgets = widgets

    def hear_outputs(self, published: Sequence[Message]) -> None:
        """Does what `published` says of what outputs share; for each batch once, before any outputs are given it."""
        self.displays.hear(published)
        if self._widgets is not None:
            self._widgets.tell()

    @property
    def comms(self) -> Comms:
        """Its comms; asked for by who has any, because they look at every message."""
        from .comms import Comms

        self.core.name("shell")
        if self._comms is None:
            self._comms = Comms(self.core)
        return self._comms

    def prepare(
        self, request: str | Message, content: Mapping[str, Any] | None, channel: str | None
    ) -> tuple[ChannelName, Message]:
        """The channel of a request, and the whole message.

        Raises:
            LocalProtocolError: It is none, or there is no channel for it.
        """
        if isinstance(request, str):
            request = messages.message(request, content)
        elif not isinstance(request, Message):
            raise LocalProtocolError(
                f"a request is a message type or a Message, not {type(request).__name__}"
            )
        elif content is not None:
            raise LocalProtocolError("content goes with a message type; a Message has its own")
        name = self.core.name(request.channel if channel is None else channel)
        if name not in ("shell", "control"):
            raise LocalProtocolError(
                f"{request.msg_type!r} goes to {name}, where nothing replies; requests go to shell "
                "and control"
            )
        return name, self.core.prepare(request)

    async def request(
        self,
        request: str | Message,
        content: Mapping[str, Any] | None = None,
        channel: str | None = None,
        *,
        tied: Tie | None = None,
    ) -> Message:
        """Sends a request and returns its reply; see :meth:`enchannel.KernelChannels.request`.

        Where it is `tied` to something it is not sent once that has ended.
        """
        name, prepared = self.prepare(request, content, channel)
        return await self.core.request(name, prepared, tied=tied)

    async def kernel_info(self) -> dict[str, Any]:
        """What the kernel says of itself, asked for once in each epoch; a copy for each who asks."""
        self.core.raise_if_over()
        epoch = self.core.life.epoch
        if self._info is None or self._info[0] != epoch:
            self._info = epoch, await self._ask_kernel_info()
        else:
            await checkpoint()
        return _copied(self._info[1])

    async def _ask_kernel_info(self) -> dict[str, Any]:
        """Asks on control, where no cell is in the way, and soon on shell, where every kernel answers."""
        answers: list[Message] = []
        failures: list[EnchannelError | anyio.ClosedResourceError] = []
        channels = [name for name in ("control", "shell") if name in self.core.channels]
        if not channels:
            self.core.name("shell")

        async with unwrapping_task_group() as tasks:

            async def ask(channel: str) -> None:
                try:
                    answers.append(await self.request("kernel_info_request", channel=channel))
                    tasks.cancel_scope.cancel()
                except (EnchannelError, anyio.ClosedResourceError) as failure:
                    failures.append(failure)

            for channel in channels[:-1]:
                tasks.start_soon(ask, channel)
                await anyio.sleep(CONTROL_FIRST)
            await ask(channels[-1])
        if not answers:
            raise failures[-1]
        return raise_for_status(answers[0]).content


def _copied(content: dict[str, Any]) -> dict[str, Any]:
    """A copy of what was JSON; a kernel may nest it more deeply than :func:`copy.deepcopy` goes."""
    copied = content.copy()
    waiting: list[dict[str, Any] | list[Any]] = [copied]
    while waiting:
        into: Any = waiting.pop()
        for key, value in [*(into.items() if isinstance(into, dict) else enumerate(into))]:
            if isinstance(value, (dict, list)):
                into[key] = value.copy()
                waiting.append(into[key])
    return copied
