"""Opening a connection, and closing it.

Opening goes through these steps, all before one deadline, ``connect_timeout``:

1. The host's name is resolved, and sockets are made and begin to connect.
2. Every one of them must have shaken hands with its peer. Those that have not by the deadline are named
   in a ``KernelConnectError``.
3. iopub must be proven live, for a subscription that is still on its way loses output without a word.
   Anything genuine that arrives there proves it: a welcome, another client's traffic, or the status that answers
   our own ``kernel_info_request``, which goes to control (answered even while a cell runs) and to shell. Where no
   proof can be had the block is entered all the same: a kernel that is busy can be joined. A warning is logged,
   and ``statistics().iopub_proven`` is false. Where all that arrives is refused it is not entered: the key is
   another one.

What leaves the block:

* The body's exception, as itself: not in an ``ExceptionGroup``, with its ``__context__`` and
  ``__cause__`` as they were. A group that the body raised stays what it is.
* Nothing of ours: readers record their error and the streams raise it; closing logs its own.

On the way out what the blocks inside have still to say is waited for. Then the streams end, then the tasks, then
the sockets. Closing is shielded from cancellation and bounded by :data:`CLOSE_DEADLINE`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import anyio

from .._exceptions import KernelConnectError, LocalProtocolError
from .._groups import block_task_group, unwrapping_task_group
from .._log import logger
from .._transports.base import Transport
from .._trio import protect, uncut_block
from .core import Core
from .life import Event
from .proof import ask_anyhow, prove_iopub
from .tasks import tend

__all__ = ["OnMade", "opened"]

CLOSE_DEADLINE = 2.0
"""Seconds that closing a transport may take."""

ASK_ANYHOW = 0.3
"""Seconds without a word of the connection before the kernel is asked whether it is there all the same."""

OnMade: TypeAlias = Callable[[Core], None]


@uncut_block
async def opened(
    make_transport: Callable[[], Awaitable[Transport]],
    make_core: Callable[[Transport], Core],
    connect_timeout: float,
    *,
    owned: bool,
    on_made: OnMade | None,
) -> AsyncIterator[Core]:
    """The scope of a connection; the core that it gives is live.

    Args:
        make_transport: Makes what carries its messages, within the same seconds.
        make_core: Makes the core on it.
        connect_timeout: Seconds until every channel must be connected and iopub proven.
        owned: Whether the transport is closed behind the block.
        on_made: Called with the core before anything is waited for.
    """
    protect()
    deadline = anyio.current_time() + connect_timeout
    transport = await make_transport()
    if transport.in_use:
        raise LocalProtocolError(
            "channels are open over this transport already: each block takes one of its own"
        )
    transport.in_use = True
    try:
        core = make_core(transport)
        transport.begin()
        if on_made is not None:
            on_made(core)
        async with block_task_group("the channels") as tasks:
            try:
                tasks.start_soon(tend, core, name="enchannel")
                await _become_ready(core, deadline, connect_timeout)
                yield core
            finally:
                try:
                    await core.farewells.all_said()
                finally:
                    core.leave()
    finally:
        transport.in_use = False
        if owned:
            await _close(transport)


async def _close(transport: Transport) -> None:
    with anyio.move_on_after(CLOSE_DEADLINE, shield=True):
        try:
            await transport.aclose()
        except Exception:  # noqa: BLE001
            # It must not replace the exception that the body may be leaving with.
            logger().exception("closing a kernel's channels failed")


async def _become_ready(core: Core, deadline: float, connect_timeout: float) -> None:
    transport = core.transport
    with anyio.CancelScope(deadline=deadline):
        await _connect(core)
        if transport.iopub_needs_proof and core.lost is None:
            async with unwrapping_task_group() as tasks:
                tasks.start_soon(_cancel_when_lost, core, tasks.cancel_scope)
                await prove_iopub(core)
                # A connection may have gone and come meanwhile.
                await _connect(core)
                tasks.cancel_scope.cancel()
    unconnected = transport.unconnected()
    if core.lost is not None and (core.lost.reason in ("exited", "restarted") or not unconnected):
        core.raise_if_over()
    if unconnected:
        raise KernelConnectError(
            f"no connection within {connect_timeout:g} s: "
            + "; ".join(f"{channel} at {seen}" for channel, seen in unconnected.items()),
            unconnected,
        ) from core.lost
    if transport.iopub_needs_proof and not core.iopub_proven:
        _raise_if_all_is_refused(core)
        logger().warning(
            "iopub could not be proven live within %g s: is the kernel busy, or its key another one? "
            "Output of the first request may be missed",
            connect_timeout,
        )
    transport.narrow()
    core.happen(Event.OPENED)


async def _connect(core: Core) -> None:
    """Waits until every channel is connected, or the kernel is lost."""
    while core.transport.unconnected() and core.lost is None:
        with anyio.move_on_after(ASK_ANYHOW):
            await core.changed.wait()
            continue
        # Of a peer that speaks ZMTP 2.0 nothing is seen but that it has accepted; an answer shows the rest.
        ask_anyhow(core)


async def _cancel_when_lost(core: Core, scope: anyio.CancelScope) -> None:
    while core.lost is None:
        await core.changed.wait()
    scope.cancel()


def _raise_if_all_is_refused(core: Core) -> None:
    refused = core.transport.dropped()
    if refused and not any(core.received.values()):
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(refused.items()))
        said = f"all that arrives is refused ({kinds}): is the connection file this kernel's, with its key?"
        raise KernelConnectError(said, dict.fromkeys(core.channels, said))
