"""When the kernel is done: its main shell has answered something that was asked behind everything else.

A status is not believed, for it may be lost. Where statuses come, they may be a moment behind the reply; that moment is
waited for, so that who has waited reads no ``"busy"`` of what is over.
"""

from __future__ import annotations

import anyio
from anyio.lowlevel import checkpoint

from .core import Core

__all__ = ["wait_idle"]

BEHIND = 0.25
"""Seconds that statuses are waited for which may be behind the replies."""


async def wait_idle(core: Core) -> None:
    """Waits until the main shell is done with all that was asked before.

    A checkpoint; cancellation changes nothing.

    Raises:
        KernelDied: The kernel is lost.
        anyio.ClosedResourceError: The block was left.
    """
    await checkpoint()
    while True:
        await core.opened()
        epoch, begun = core.life.epoch, core.begun()
        if await core.requests.questions.behind("shell") and epoch == core.life.epoch:
            core.status.overtaken(begun)
            if core.status.word == "busy" and core.sees_statuses():
                with anyio.move_on_after(BEHIND):
                    await core.requests.questions.all_answered("shell")
            return
