"""Looking after the Output widgets of a kernel, as a scope."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint_if_cancelled

from .. import messages
from .._exceptions import LocalProtocolError
from .._protocol.output_widgets import OutputWidgets
from .._protocol.outputs import Output

if TYPE_CHECKING:
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

    def tell(comm_id: str, outputs: list[Output]) -> None:
        data = {"method": "update", "state": {"outputs": outputs}, "buffer_paths": []}
        # Before anything that is sent behind what was captured, so that code finds it in its widget.
        core.post("shell", messages.comm_msg(comm_id, data))

    widgets = OutputWidgets(displays, tell)
    conversations.look_after(widgets)
    try:
        yield widgets
    finally:
        conversations.look_after(None)
