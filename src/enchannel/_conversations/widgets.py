"""Looking after the Output widgets of a kernel, as a scope."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from .. import messages
from .._exceptions import KernelDied, LocalProtocolError
from .._protocol.output_widgets import OutputWidgets
from .._protocol.outputs import Output

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

    late: set[str] = set()

    def tell(comm_id: str, outputs: list[Output]) -> None:
        # Before anything that is sent behind what was captured, so that code finds it in its widget.
        if not core.post("shell", _update(comm_id, outputs)):
            late.add(comm_id)
            if len(late) == 1:
                core.start(tell_late, core.life.epoch)

    async def tell_late(epoch: int) -> None:
        with contextlib.suppress(KernelDied, anyio.ClosedResourceError):
            while late:
                await core.opened()
                if core.life.epoch != epoch:
                    # The next kernel knows none of them.
                    late.clear()
                    return
                comm_id = next(iter(late))
                if comm_id in widgets.areas:
                    update = _update(comm_id, widgets.areas[comm_id].outputs)
                    await core.send("shell", core.prepare(update))
                late.discard(comm_id)

    widgets = OutputWidgets(displays, tell)
    conversations.look_after(widgets)
    try:
        yield widgets
    finally:
        conversations.look_after(None)


def _update(comm_id: str, outputs: list[Output]) -> Body:
    """What a front end says of what a widget shows."""
    data = {"method": "update", "state": {"outputs": outputs}, "buffer_paths": []}
    return messages.comm_msg(comm_id, data)
