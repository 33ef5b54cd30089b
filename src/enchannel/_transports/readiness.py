"""Waiting until a ZeroMQ socket has something to receive.

Its descriptor is edge-triggered, and *any* call on the socket may consume the edge. So whoever is about to
wait looks at the socket first, and whoever calls the socket while somebody waits looks at it afterwards and
wakes him (:meth:`Readiness.recheck`).

AnyIO adds the descriptor to the event loop for each wait and removes it behind it. On asyncio that is a
twentieth of a round trip, so there a descriptor stays added until the channels are left. asyncio knows one
reader of a descriptor: a socket of :mod:`zmq.asyncio` that has waited before steps aside until then. It must
not watch beside us, not even a copy of the descriptor, for it calls the socket whenever it is woken. There is no
public way to have it watch again; where the private one is not known, it goes on, and is looked at now and then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import anyio

from .._trio import in_trio

__all__ = ["Readiness", "stay_ready"]

PAUSE = 0.01
"""Seconds between two looks at a socket that nobody else may watch."""


class Readiness:
    """Whether a socket is readable, for one task at a time to wait for.

    Args:
        fd: The socket's descriptor.
        readable: Looks at the socket.

    Attributes:
        waiting: Whether a task does, as that task says.
    """

    __slots__ = ("_fd", "_readable", "waiting")

    def __init__(self, fd: int, readable: Callable[[], bool]) -> None:
        self._fd = fd
        self._readable = readable
        self.waiting: bool = False

    async def wait(self) -> None:
        """Waits until the descriptor is readable, or until :meth:`wake`; the socket was looked at just now."""
        with contextlib.suppress(anyio.ClosedResourceError):
            await anyio.wait_readable(self._fd)

    def recheck(self) -> None:
        """Wakes who waits where the call just made has eaten the edge that he waits for."""
        if self.waiting and self._readable():
            self.wake()

    def wake(self) -> None:
        """Wakes who waits, if anybody does."""
        # Nothing is closing: a cancel scope around each wait would do as well, for 10 µs a wait.
        anyio.notify_closing(self._fd)

    def close(self) -> None:
        """To be called when nobody waits any more, before the descriptor is closed."""


class _TrioReadiness(Readiness):
    # What AnyIO does with it, without its two coroutines, which every reader keeps and every wait resumes.
    __slots__ = ("_wait", "_woken")

    def __init__(self, fd: int, readable: Callable[[], bool]) -> None:
        import trio

        super().__init__(fd, readable)
        self._wait = trio.lowlevel.wait_readable
        self._woken = trio.ClosedResourceError

    async def wait(self) -> None:
        with contextlib.suppress(self._woken):
            await self._wait(self._fd)


class _AsyncioReadiness(Readiness):
    __slots__ = ("_give_back", "_loop", "_waiter")

    def __init__(
        self, fd: int, readable: Callable[[], bool], give_back: Callable[[], object] | None
    ) -> None:
        import asyncio

        super().__init__(fd, readable)
        self._loop = asyncio.get_running_loop()
        # An event keeps 700 bytes for those who may wait for it; here one does, or nobody.
        self._waiter: asyncio.Future[None] | None = None
        self._give_back = give_back if self._loop.remove_reader(fd) else None
        self._loop.add_reader(fd, self._look)

    async def wait(self) -> None:
        self._waiter = self._loop.create_future()
        await self._waiter

    def _look(self) -> None:
        # Whether anybody waits or not: until the socket is looked at, the loop comes back to it at once.
        try:
            readable = self._readable()
        except Exception:  # noqa: BLE001
            # A terminated context. Who receives next meets the same error.
            self._loop.remove_reader(self._fd)
            readable = True
        if readable:
            self.wake()

    def wake(self) -> None:
        # Done where he is cancelled, or woken already.
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(self._fd)
            if self._give_back is not None:
                self._give_back()


class _SleepingReadiness(Readiness):
    # Its owner's reader eats the edges.
    __slots__ = ("_woken",)

    async def wait(self) -> None:
        self._woken = False
        while not self._woken and not self._readable():  # noqa: ASYNC110
            await anyio.sleep(PAUSE)

    def wake(self) -> None:
        self._woken = True


def stay_ready(
    fd: int,
    readable: Callable[[], bool],
    give_back: Callable[[], object] | None = None,
    *,
    shared: bool = False,
) -> Readiness:
    """The readiness of a socket for as long as it is used in the event loop that runs now.

    Args:
        fd: The socket's descriptor.
        readable: Looks at the socket.
        give_back: Called at the end where somebody else had the loop watch the descriptor before.
        shared: Whether somebody else has the loop watch it, and cannot be given it back.
    """
    if in_trio():
        return _TrioReadiness(fd, readable)
    if shared:
        return _SleepingReadiness(fd, readable)
    # A loop may be without it, as Windows has one; AnyIO knows another way.
    with contextlib.suppress(NotImplementedError):
        return _AsyncioReadiness(fd, readable, give_back)
    return Readiness(fd, readable)
