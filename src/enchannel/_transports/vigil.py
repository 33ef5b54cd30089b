"""Whether anybody is there: the websocket's other end, and the kernel behind it.

* The server is pinged. Where nothing at all comes behind a ping, the network is gone and nobody has told: the websocket is
  closed hard, and something may be lost.
* A server leaves the websocket of a kernel that is gone open, and silent. So the kernel is asked for over REST where
  something is due and nothing comes, when it has said that it exits, and now and then while it says nothing.
* A server that says that the kernel is idle, while an answer of it is due and nothing is under way, has lost the way to it.
  So has one that believes the kernel busy (it may, since the one before died at work), where control is silent as well.
* Where the websocket was made anew for that, and made anew without what the server had kept, and still says nothing,
  the kernel that its server calls idle is not there.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import anyio

from .._bell import Bell
from .reach import Presence

if TYPE_CHECKING:
    from .._protocol.connection_info import ChannelName
    from .websocket import WebSocket

__all__ = ["Vigil"]

PING = 20.0
"""Seconds between two pings; proxies end what is silent for 60."""

PONG = 10.0
"""Seconds for anything to come behind a ping."""

DUE = 2.0
"""Seconds without a word behind something that was sent, until the kernel is asked for over REST."""

SELDOM = 60.0
"""The longest time between two such questions."""

LEAVING, LEAVE = 10.0, 0.5
"""Seconds that a kernel which said that it exits may take to be gone, and between two looks whether it is."""

CONTROL_FRAME = 256
"""Bytes that a ping or a pong, which says nothing of the way to the kernel, has at the most; several may come together."""

SLOWEST = 100_000
"""Bytes a second that a connection is trusted to take; what was sent is on its way for as long."""

DEAF = 10.0
"""Seconds without the answer of a kernel that is idle, or of control, behind which the websocket leads nowhere."""

WAYS = 2
"""How often it is made anew for that: with what the server has kept for it, and without."""


class Watched(Protocol):
    """The connection, as far as it is watched over."""

    @property
    def socket(self) -> WebSocket | None:
        """The websocket, where there is one that has not ended."""
        ...

    @property
    def stopped(self) -> bool:
        """Whether nothing is read, because too much waits."""
        ...

    def silent(self) -> None:
        """Nothing came behind a ping."""

    def deaf(self) -> None:
        """The server has lost the way to the kernel."""

    def mute(self) -> None:
        """The kernel is idle, its server says, and says nothing, however it is reached."""

    def gone(self, said: str) -> None:
        """The kernel is gone."""


class Vigil:
    """Watches over one connection.

    Args:
        watched: It.
        look: What the server says of the kernel; ``None`` where it cannot be asked.
    """

    def __init__(self, watched: Watched, look: Callable[[], Awaitable[Presence | None]]) -> None:
        self._watched = watched
        self._ask = look
        self._heard_at = self._spoke_at = self._due_since = math.inf
        self._leaves_until = -math.inf
        self._moved_at = self._through_at = -math.inf
        self._control_since, self._control_speaks = math.inf, False
        self._thought_deaf = 0
        self._due = Bell()

    # What is seen of it.

    def connected(self) -> None:
        """A websocket is open."""
        self._heard_at = self._spoke_at = anyio.current_time()
        self._due_since = self._control_since = math.inf

    def heard(self, size: int, *, messages: bool) -> None:
        """Something of `size` bytes has arrived, and whole `messages` of the kernel among it."""
        self._heard_at = anyio.current_time()
        if size > CONTROL_FRAME:
            # A large message takes its time.
            self._moved_at = self._heard_at
        if messages:
            self._spoke_at, self._due_since = self._heard_at, math.inf
            self._control_since = math.inf
            self._thought_deaf = 0

    def control_spoke(self) -> None:
        """The kernel has answered on control, and so it may when it is busy."""
        self._control_speaks = True

    def sent(self, channel: ChannelName, size: int) -> None:
        """Something of `size` bytes was sent, and an answer is due."""
        # What is acknowledged may be in the memory of somebody in between: the system does not know how far it is.
        now = anyio.current_time()
        self._through_at = max(self._through_at, now) + size / SLOWEST
        if channel == "control":
            self._control_since = min(self._control_since, now)
        if self._due_since == math.inf:
            self._due_since = now
            self._due.ring()

    def leaves(self) -> None:
        """The kernel has said that it exits."""
        self._leaves_until = anyio.current_time() + LEAVING
        self._due.ring()

    @property
    def leaving(self) -> bool:
        """Whether the kernel has just said that it exits."""
        return anyio.current_time() < self._leaves_until

    # What is done about it.

    async def ping(self) -> None:
        """Pings the other end, for as long as this task is let."""
        while True:
            await anyio.sleep(PING)
            socket, asked = self._watched.socket, anyio.current_time()
            if socket is None:
                continue
            socket.ping()
            # It stands behind all that was sent before.
            await anyio.sleep_until(max(asked, self._through_at) + PONG)
            if self._watched.socket is socket and not (
                self._watched.stopped or self._heard_at >= asked
            ):
                self._watched.silent()

    async def look_after(self) -> None:
        """Asks for the kernel when that is due, for as long as this task is let."""
        silence: tuple[float, float] | None = None
        at, pause = math.inf, DUE
        while True:
            if silence != (self._due_since, self._spoke_at):
                silence = self._due_since, self._spoke_at
                due = self._due_since < math.inf
                pause = DUE if due else PING
                at = (self._due_since if due else self._spoke_at) + pause
            leaving = self.leaving
            if leaving:
                at = anyio.current_time() + LEAVE
            with anyio.CancelScope(deadline=at):
                if pause == DUE and not leaving:
                    # Most often it comes, and the next is due; that must not cost each request a turn of this task.
                    await anyio.sleep_until(at)
                await self._due.wait()
                continue
            if leaving or silence == (self._due_since, self._spoke_at):
                await self._look()
                pause = min(2 * pause, SELDOM)
                at = anyio.current_time() + pause

    async def _look(self) -> None:
        due_since = self._due_since
        presence = await self._ask()
        if presence is None or self._watched.socket is None:
            return
        if not presence.there:
            self._watched.gone(f"the kernel is gone: {presence.said}")
            return
        if due_since < math.inf and due_since == self._due_since:
            self._judge(presence.state)

    def _judge(self, state: str) -> None:
        """Concludes what a silence means, while the server says that the kernel is there and in `state`."""
        idle = state == "idle"
        due_since = self._due_since if idle else self._control_since
        since = max(due_since, self._moved_at, self._through_at)
        if anyio.current_time() - since < DEAF:
            return
        # What is made anew altogether loses the reply of what runs; some kernels that are busy are silent on control too.
        ways = WAYS if idle or self._control_speaks else 1
        if self._thought_deaf < ways:
            self._thought_deaf += 1
            self._watched.deaf()
        elif idle:
            self._watched.mute()
