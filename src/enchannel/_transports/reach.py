"""How a transport reaches a kernel behind a server, and what the server says of that kernel."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import anyio
import attrs

from .._exceptions import ServerError
from .._groups import unwrapping_task_group

if TYPE_CHECKING:
    from .websocket import WebSocket

__all__ = ["Presence", "Reach", "open_first", "open_while_there"]

PAUSES = (0.1, 0.4)
"""Seconds between the attempts at the first websocket."""

LOOK = 2.0
"""Seconds between two looks whether the kernel is there, beside a handshake that takes its time."""


@attrs.frozen
class Presence:
    """What a server says of a kernel over REST."""

    there: bool
    """Whether it knows the kernel."""
    state: str = ""
    """The kernel's, as far as the server knows it."""
    connections: int = 0
    """How many websockets lead to it; 0 where the server does not say."""
    said: str = ""
    """Why it is not there."""


class Reach:
    """How the transport reaches its server.

    Attributes:
        endpoint: What it is called in errors.
    """

    endpoint: str

    async def connect(self, session: str) -> WebSocket:
        """Opens a websocket.

        Raises:
            ServerError: The server refuses it.
            OSError: It cannot be reached.
        """
        raise NotImplementedError

    async def look(self) -> Presence | None:
        """What the server says of the kernel; ``None`` where it cannot be asked. Bounded, and never raises."""
        raise NotImplementedError


async def open_first(reach: Reach, session: str) -> WebSocket:
    """Opens the first websocket; see :func:`open_while_there`."""
    for pause in PAUSES:
        # One that ends in the middle of the handshake says nothing of the next one.
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            return await open_while_there(reach, session)
        await anyio.sleep(pause)
    return await open_while_there(reach, session)


async def open_while_there(reach: Reach, session: str) -> WebSocket:
    """Opens a websocket, for as long as the server knows the kernel: the handshake of one that is gone may never end.

    Cancelled, it leaves nothing open.

    Raises:
        ServerError: The server refuses it, or the kernel is gone.
        OSError: It cannot be reached.
    """
    opened: WebSocket | None = None
    gone: list[Presence] = []
    try:
        async with unwrapping_task_group() as tasks:

            async def look() -> None:
                while not gone:
                    await anyio.sleep(LOOK)
                    presence = await reach.look()
                    if presence is not None and not presence.there:
                        gone.append(presence)
                tasks.cancel_scope.cancel()

            tasks.start_soon(look)
            opened = await reach.connect(session)
            tasks.cancel_scope.cancel()
    except BaseException:
        if opened is not None:
            opened.close()
        raise
    if opened is None:
        raise ServerError(f"there is no such kernel any more: {gone[0].said}", 404)
    return opened
