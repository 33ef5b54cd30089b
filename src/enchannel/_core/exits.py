"""The exit of a kernel, and its restart, as whoever launched it tells of them."""

from __future__ import annotations

import anyio

from .._exceptions import KernelDied
from .core import Core
from .life import Event

__all__ = [
    "begin_restart",
    "end_of_kernel",
    "end_of_old_kernel",
    "is_led",
    "other_kernel_behind_server",
    "restart_refused",
]


def begin_restart(core: Core, death: KernelDied | None = None) -> None:
    """The kernel is about to be restarted: from now on nothing is sent, until it is back.

    Args:
        core: The connection.
        death: What is told of the present one, where it has exited by itself.
    """
    core.outage.ours, core.outage.death = True, death
    if death is not None:
        core.tell("lost")
    core.patience.deadline = core.outage.deadline(connected=False)
    core.happen(Event.RESTART_BEGINS)


async def end_of_old_kernel(core: Core, last_words: float) -> None:
    """The kernel that is to be restarted has exited: waits for its last words, and for the next one.

    Args:
        core: The connection.
        last_words: Seconds that they may take.
    """
    with anyio.move_on_after(last_words):
        await _disconnected(core)
    # What the old kernel has left behind may hold its sockets, and what it has not read is not for the next one.
    core.transport.reconnect(core.channels)
    core.happen(Event.EXITED)


def is_led(core: Core) -> None:
    """Somebody in between restarts the kernel, and says so when he gives up: that is waited for longer."""
    core.outage.led()
    core.patience.deadline = core.outage.deadline(connected=False)


def other_kernel_behind_server(core: Core) -> None:
    """The restart that was begun is over, whatever came of it: the connection is made anew, and says what is there."""
    core.outage.ours = False
    core.transport.reconnect(core.channels)
    is_led(core)
    core.happen(Event.EXITED)


def restart_refused(core: Core) -> None:
    """The restart that was begun does not take place: everything goes on with the kernel that is there."""
    core.outage.not_ours()
    core.patience.deadline = core.outage.deadline(connected=False)
    core.happen(Event.RESTART_REFUSED)


async def end_of_kernel(core: Core, died: KernelDied, last_words: float) -> None:
    """The kernel has exited: waits for its last words, and is lost.

    Args:
        core: The connection.
        died: What is said of it.
        last_words: Seconds that they may take.
    """
    # Bounded streams would keep them back, and with them the end of the connection.
    core.bound.lifted = True
    with anyio.move_on_after(last_words):
        await _disconnected(core)
    core.lose(died)


async def _disconnected(core: Core) -> None:
    """Waits until no followed channel is connected, by when all that was sent to us can be received, or the core is let go."""
    transport = core.transport
    while not (core.life.over or set(transport.followed) <= set(transport.unconnected())):
        await core.changed.wait()
