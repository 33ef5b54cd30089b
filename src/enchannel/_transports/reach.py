"""How a transport reaches a kernel behind a server, and what the server says of that kernel."""

from __future__ import annotations

import attrs

from .websocket import WebSocket

__all__ = ["Presence", "Reach"]


@attrs.frozen
class Presence:
    """What a server says of a kernel over REST."""

    there: bool
    """Whether it knows the kernel."""
    state: str = ""
    """The kernel's, as far as the server knows it."""
    connections: int | None = None
    """How many websockets lead to it."""
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
