"""Whether anybody is there: the websocket's other end, and the kernel behind it.

* The server is pinged. Where nothing at all comes behind a ping, the network is gone and nobody has told: the websocket is
  closed hard, and something may be lost.
* A server leaves the websocket of a kernel that is gone open, and silent. So the kernel is asked for over REST where
  something is due and nothing comes, when it has said that it exits, and now and then while it says nothing.
* An answer is due on the channel where something was asked; that others are talked to proves nothing. A server that says that
  the kernel is idle, while an answer of it is due and nothing is under way, has lost the way to it. So has one that believes
  the kernel busy (it may, since the one before died at work), where control is silent as well.
* Code that lets nothing else run holds up control too, and even the word that it has begun: then its server calls the kernel
  idle. So where control is silent as well, all that is waited for several times as long.
* The websocket is made anew then: first with what the server has kept, unless that is what it was made with, then without,
  which loses the reply of what runs. Where nothing comes all the same, the kernel that its server calls idle is not there.
* What was sent is on its way for as long as a slow connection takes, or until a ping behind it is answered.
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

MUCH = 1_000_000
"""Bytes behind which a ping is sent at once: what answers it says that they are through."""

SLOWEST = 100_000
"""Bytes a second that a connection is trusted to take; what was sent is on its way for as long."""

DEAF = 10.0
"""Seconds without the answer of a kernel that is idle, or of control, behind which the websocket leads nowhere."""

FRESH = 4.0
"""The same for a websocket that was made anew, and has brought no answer yet."""

HELD = 3
"""How many times as long that is where control is silent as well."""

LONG = 300.0
"""Seconds of silence on control behind which a kernel that its server calls busy is reached by a way that is altogether new."""

WAYS = 2
"""How often it is made anew for that: with what the server has kept for it, and without."""


class Watched(Protocol):
    """The connection, as far as it is watched over."""

    @property
    def socket(self) -> WebSocket | None:
        """The websocket, where there is one that has not ended."""
        ...

    @property
    def jammed(self) -> bool:
        """Whether nothing is read, because too much waits."""
        ...

    def ping(self) -> int:
        """Pings the other end of the socket; the number of that ping."""
        ...

    def silent(self) -> None:
        """Nothing came behind a ping."""

    def deaf(self, *, anew: bool) -> None:
        """The server has lost the way to the kernel; what it has kept does not help where it is to be made `anew`."""

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
        self._heard_at = self._spoke_at = math.inf
        self._asked: dict[ChannelName, float] = {}
        self._leaves_until = -math.inf
        self._moved_at = self._through_at = -math.inf
        self._sent_behind = 0
        self._much, self._ponged = Bell(), Bell()
        self._control_speaks = self._answered = False
        self._control_spoke_at = -math.inf
        self._connections = self._thought_deaf = 0
        self._due = Bell()

    # What is seen of it.

    def connected(self) -> None:
        """A websocket is open."""
        self._heard_at = self._spoke_at = anyio.current_time()
        self._asked.clear()
        self._through_at, self._sent_behind = -math.inf, 0
        self._answered, self._control_spoke_at = False, -math.inf
        self._connections += 1

    def heard(self, size: int, *, messages: bool) -> None:
        """Something of `size` bytes has arrived, and whole `messages` of the kernel among it."""
        self._heard_at = anyio.current_time()
        if messages:
            self._spoke_at = self._heard_at
        elif size > CONTROL_FRAME:
            # A large message takes its time.
            self._moved_at = self._heard_at

    def ponged(self) -> None:
        """A ping was answered."""
        self._ponged.ring()

    @property
    def due(self) -> bool:
        """Whether an answer is."""
        return bool(self._asked)

    def answered(self, channel: ChannelName) -> None:
        """The kernel has answered what was asked on `channel`."""
        self._asked.pop(channel, None)
        if channel == "control":
            self._control_speaks, self._control_spoke_at = True, anyio.current_time()
        self._answered = True
        self._thought_deaf = 0

    def sent(self, channel: ChannelName, size: int) -> None:
        """Something of `size` bytes was sent, and an answer is due."""
        # What is acknowledged may be in the memory of somebody in between: the system does not know how far it is.
        now = anyio.current_time()
        self._through_at = max(self._through_at, now) + size / SLOWEST
        self._sent_behind += size
        if self._sent_behind >= MUCH:
            self._much.ring()
        if channel == "stdin" or channel in self._asked:
            return
        self._asked[channel] = now
        if len(self._asked) == 1:
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
        """Pings the other end now and then, and behind much that was sent, for as long as this task is let."""
        while True:
            with anyio.move_on_after(PING):
                while self._sent_behind < MUCH:
                    await self._much.wait()
            socket, self._sent_behind = self._watched.socket, 0
            if socket is not None:
                await self._ping(socket)

    async def _ping(self, socket: WebSocket) -> None:
        """Pings `socket`, and waits until that is answered, or it is over."""
        asked, number = anyio.current_time(), self._watched.ping()
        while self._watched.socket is socket:
            # It stands behind all that was sent before.
            with anyio.CancelScope(deadline=max(asked, self._through_at) + PONG):
                await self._ponged.wait()
            now = anyio.current_time()
            if socket.pong >= number:
                self._through_at = min(self._through_at, now + self._sent_behind / SLOWEST)
                return
            if now < max(asked, self._through_at) + PONG:
                continue
            if not (self._watched.jammed or self._heard_at >= asked):
                self._watched.silent()
            return

    async def look_after(self) -> None:
        """Asks for the kernel when that is due, for as long as this task is let."""
        silence: tuple[bool, float] | None = None
        at, pause = math.inf, DUE
        while True:
            if silence != self._silence():
                silence = self._silence()
                due, since = silence
                pause = DUE if due else PING
                at = since + pause
            leaving = self.leaving
            if leaving:
                at = anyio.current_time() + LEAVE
            with anyio.CancelScope(deadline=at):
                if pause == DUE and not leaving:
                    # Most often it comes, and the next is due; that must not cost each request a turn of this task.
                    await anyio.sleep_until(at)
                await self._due.wait()
                continue
            if leaving or silence == self._silence():
                await self._look()
                pause = min(2 * pause, SELDOM)
                at = anyio.current_time() + pause

    def _silence(self) -> tuple[bool, float]:
        """Whether an answer is due, and since when; or since when nothing was said."""
        return bool(self._asked), min(self._asked.values(), default=self._spoke_at)

    async def _look(self) -> None:
        before = self._silence()
        presence = await self._ask()
        if presence is None or self._watched.socket is None:
            return
        if not presence.there:
            self._watched.gone(f"the kernel is gone: {presence.said}")
        elif before[0] and before == self._silence():
            self._judge(presence.state)

    def _judge(self, state: str) -> None:
        """Concludes what a silence means, while the server says that the kernel is there and in `state`."""
        idle = state == "idle"
        # One that was made anew, and leads nowhere from the beginning.
        fresh = self._connections > 1 and not self._answered
        patience = FRESH if fresh else DEAF
        spoken_to = self._control_spoke_at >= self._asked.get("shell", math.inf)
        shell_is_deaf = idle and self._is_silent("shell", patience * (1 if spoken_to else HELD))
        if not (shell_is_deaf or self._is_silent("control", patience * HELD)):
            return
        # Some kernels that are busy are silent on control too.
        sure = idle or self._control_speaks
        anew = sure and (fresh or self._thought_deaf > 0)
        if anew and not idle and not self._is_silent("control", LONG):
            return
        if self._thought_deaf < (WAYS if sure else 1):
            self._thought_deaf += 1
            self._watched.deaf(anew=anew)
        elif idle:
            self._watched.mute()

    def _is_silent(self, channel: ChannelName, patience: float) -> bool:
        """Whether what was asked on `channel` was not answered for so long."""
        since = max(self._asked.get(channel, math.inf), self._moved_at, self._through_at)
        return anyio.current_time() - since >= patience
