"""Looking after the Output widgets of a kernel, as a scope."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from .. import messages
from .._core.core import Core
from .._exceptions import KernelDied, LocalProtocolError
from .._log import logger
from .._protocol.output_widgets import OutputWidgets
from .._protocol.outputs import Displays, Output

if TYPE_CHECKING:
    from .._protocol.message import Body
    from .conversations import Conversations

__all__ = ["open_output_widgets"]


@asynccontextmanager
async def open_output_widgets(conversations: Conversations) -> AsyncIterator[OutputWidgets]:
    """The scope in which they are looked after; see :meth:`enchannel.KernelChannels.open_output_widgets`."""
    core, displays = conversations.core, conversations.displays
    core.name("iopub")
    core.name("shell")
    if displays.widgets is not None:
        raise LocalProtocolError("the Output widgets of this kernel are looked after already")
    await checkpoint_if_cancelled()
    core.raise_if_over()
    widgets = _Telling(core, displays).widgets
    conversations.look_after(widgets)
    try:
        yield widgets
    finally:
        conversations.look_after(None)


class _Telling:
    """Tells the kernel what its widgets show.

    What cannot be sent now is sent later. What can never be sent (a NaN, more than a server takes) is not late: nobody
    is told of that update, and the others go on.
    """

    def __init__(self, core: Core, displays: Displays) -> None:
        self.widgets = OutputWidgets(displays, self._tell)
        self._core = core
        self._late: set[str] = set()
        self._untold: set[str] = set()

    def _tell(self, comm_id: str, outputs: list[Output]) -> None:
        """Called by the reader task, before anything is sent behind what was captured: code finds it in its widget."""
        try:
            told = self._core.post("shell", _update(comm_id, outputs))
        except LocalProtocolError as error:
            self._give_up(comm_id, error)
            return
        if not told:
            if not self._late:
                self._core.start(self._tell_late, self._core.life.epoch)
            self._late.add(comm_id)

    async def _tell_late(self, epoch: int) -> None:
        late = self._late
        with contextlib.suppress(KernelDied, anyio.ClosedResourceError):
            while late:
                await self._core.opened()
                if self._core.life.epoch != epoch:
                    # The next kernel knows none of them.
                    late.clear()
                    return
                comm_id = next(iter(late))
                if comm_id in self.widgets.areas:
                    await self._send(comm_id)
                late.discard(comm_id)

    async def _send(self, comm_id: str) -> None:
        update = _update(comm_id, self.widgets.areas[comm_id].outputs)
        try:
            await self._core.send("shell", self._core.prepare(update))
        except (LocalProtocolError, OSError) as error:
            self._give_up(comm_id, error)

    def _give_up(self, comm_id: str, error: Exception) -> None:
        """Says so, once for each widget that is there."""
        if comm_id not in self._untold:
            self._untold = {comm_id, *self._untold & self.widgets.areas.keys()}
            logger().warning(
                "what the Output widget %s shows cannot be told to the kernel (%s): its outputs are "
                "not up to date there; the kernel is told again when that can be sent",
                comm_id,
                error,
            )


def _update(comm_id: str, outputs: list[Output]) -> Body:
    """What a front end says of what a widget shows."""
    data = {"method": "update", "state": {"outputs": outputs}, "buffer_paths": []}
    return messages.comm_msg(comm_id, data)
