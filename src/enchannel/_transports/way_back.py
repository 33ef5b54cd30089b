"""How a lost websocket is had back.

* The server is tried again and again, less and less often; a websocket that ends soon, and brings nothing before it does,
  is no success. One that lives is: a server says nothing of a kernel that computes.
* What a server keeps for a session is handed to whoever comes with it. Where that is of another kernel, or leads nowhere,
  the websocket comes with a session of its own, and it is dropped. So it is not only spared: the session is the routing id
  of the server's sockets as well, and a kernel hears one of two that have the same. One with a word for the kernel that
  died lingers, and may get to the next one first.
* What was asked for anew while a websocket was being connected, counts for that one too.
"""

from __future__ import annotations

import math
import random
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from .._exceptions import ServerError
from .reach import Reach, open_while_there

if TYPE_CHECKING:
    from .websocket import WebSocket

__all__ = ["NoWayBack", "WayBack"]

AGAIN, LAST_AGAIN = 0.1, 5.0
"""Seconds until the server is tried again: at first, and at the longest; a random part of each, for others come as well."""

ATTEMPT, START = 6.0, 60.0
"""Seconds that an attempt may take: Enterprise Gateway waits 5 for the websocket that was there before; and for a kernel
that starts anew."""

FLAPPING = 30.0
"""Seconds for which every websocket may end soon, until that is no outage any more."""

LIVED = 5.0
"""Seconds behind which a websocket has not ended soon."""

OTHERS = 1.0
"""Seconds for the server to say who else is connected to the kernel."""

FINAL = (301, 302, 303, 307, 308, 401, 403, 404)
"""What a server answers that is not tried again."""

GONE = 404
"""Among them: there is no such kernel."""


class NoWayBack(Exception):
    """There is none any more.

    Attributes:
        exited: Whether it is the kernel that is gone.
    """

    def __init__(self, said: str, *, exited: bool) -> None:
        super().__init__(said)
        self.exited = exited


class WayBack:
    """The way back of one connection.

    Args:
        reach: How its server is reached.
        session: What the first websocket came with.

    Attributes:
        session: What the present one came with.
    """

    def __init__(self, reach: Reach, session: str) -> None:
        self.session = session
        self._reach = reach
        # How often nothing of what was connected before would do, and how often that was put right.
        self._wanted = self._renewed = 0
        self._pause = AGAIN
        self._speechless_since = math.inf
        self._connected_at = -math.inf

    def want_anew(self) -> None:
        """What the server keeps is of another kernel, or leads nowhere: also of what is being connected just now."""
        self._wanted += 1
        # It is we who end what is there.
        self._speechless_since = math.inf

    def spoke(self) -> None:
        """Something came through the websocket, or it has lived."""
        self._pause, self._speechless_since = AGAIN, math.inf

    async def connect(
        self, saw: Callable[[str], None], leaving: Callable[[], bool]
    ) -> tuple[WebSocket, bool]:
        """Connects; and whether nobody else is connected to the kernel, as far as that is known.

        Args:
            saw: Told what became of each attempt.
            leaving: Whether the kernel has said that it exits.

        Raises:
            NoWayBack: There is no hope.
        """
        await self._mind_what_ends_soon()
        while True:
            wanted, anew = self._wanted, self._wanted > self._renewed
            session = str(uuid.uuid4()) if anew else self.session
            try:
                with anyio.fail_after(START if anew else ATTEMPT):
                    socket, alone = await self._attempt(session)
            except ServerError as error:
                self._raise_if_final(error)
                saw(str(error))
            except TimeoutError:
                saw("it does not answer")
            except OSError as error:
                seen = error.strerror or str(error)
                if leaving():
                    said = f"it has said that it exits, and its server is away ({seen})"
                    raise NoWayBack(said, exited=True) from error
                saw(seen)
            else:
                if wanted == self._wanted:
                    self._renewed, self.session = wanted, session
                    self._connected_at = anyio.current_time()
                    return socket, alone
                socket.close()
                continue
            await self._wait()

    async def _mind_what_ends_soon(self) -> None:
        """Waits where the last websocket has ended soon.

        Raises:
            NoWayBack: All of them have, for too long.
        """
        if anyio.current_time() - self._connected_at >= LIVED:
            self.spoke()
        if self._speechless_since < math.inf:
            if anyio.current_time() - self._speechless_since > FLAPPING:
                said = "each websocket ends before anything comes through it"
                raise NoWayBack(said, exited=False)
            await self._wait()
        self._speechless_since = min(self._speechless_since, anyio.current_time())

    @staticmethod
    def _raise_if_final(error: ServerError) -> None:
        if error.status in FINAL:
            said = f"the server does not let us back: {error}"
            raise NoWayBack(said, exited=error.status == GONE) from error

    async def _wait(self) -> None:
        await anyio.sleep(self._pause * random.uniform(0.5, 1))  # noqa: S311
        self._pause = min(2 * self._pause, LAST_AGAIN)

    async def _attempt(self, session: str) -> tuple[WebSocket, bool]:
        socket = await open_while_there(self._reach, session)
        try:
            presence = None
            with anyio.move_on_after(OTHERS):
                presence = await self._reach.look()
        except BaseException:
            socket.close()
            raise
        return socket, presence is None or presence.connections <= 1
