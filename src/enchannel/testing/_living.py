"""What becomes of a fake kernel: its silence, its death, and its lives one after the other.

One bell rings at every change: whoever waits for one looks again, and nobody is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import anyio.abc
from anyio.lowlevel import checkpoint

from .._bell import Bell
from .._groups import unwrapping_task_group
from ._ends import KernelEnd
from ._failures import is_failure
from ._reachable import Reachable, TransportName
from ._transcript import Transcript

__all__ = ["Living"]


class Living(Reachable):
    """A kernel that may fall silent, die and come back; what it does in a life is its own.

    Args:
        end: What it stands on.
        transport: What that is made of.
    """

    failure: BaseException | None = None

    def __init__(self, end: KernelEnd, transport: TransportName) -> None:
        super().__init__(end, transport)
        self.transcript: Transcript = Transcript()
        end.wait_awake = self.wait_awake
        self._silent = False
        self._dead = False
        self._over = False
        # Of a death that its clients have still to be told.
        self._reason: str | None = None
        self._incarnation = anyio.CancelScope()
        self._lives = 0
        self._changed = Bell()

    def __repr__(self) -> str:
        state = "dead" if self._dead else "silent" if self._silent else "running"
        return f"<{type(self).__name__} over {self._transport} {state}>"

    # Making it fail.

    def go_silent(self) -> None:
        """Stops reading, answering and echoing heartbeats, like a frozen process; :meth:`wake` ends it.

        A cell that runs stops behind the step that it is at.
        """
        self._silent = True
        self.transcript.note("went silent")

    def wake(self) -> None:
        """Goes on where :meth:`go_silent` stopped, with everything that came meanwhile."""
        self._silent = False
        self._changed.ring()
        self.transcript.note("woke up")

    async def wait_awake(self) -> None:
        """Waits while it is silent. A checkpoint."""
        await checkpoint()
        while self._silent:
            await self._changed.wait()

    def die(self, reason: str = "the fake kernel died") -> None:
        """Is gone at once, as if killed; :meth:`restart` brings it back."""
        if not self._dead:
            self._dead = True
            self._reason = reason
            self.transcript.note("died")
            self._change_life()

    async def wait_dead(self) -> None:
        """Waits until it is dead. A checkpoint; cancellation changes nothing."""
        await checkpoint()
        while not self._dead:
            await self._changed.wait()

    async def restart(self) -> None:
        """Dies and comes back at the same place with a new session; its clients reconnect.

        Over ``"inproc"`` nothing reconnects: they are told that it died.

        Raises:
            RuntimeError: It comes back no more: what it was told to do has failed, which is the
                cause, or its block was left.
        """
        lives = self._lives
        if not self._over:
            self._dead = self._silent = False
            self._change_life()
        # Killed on the way it is another one's to restart.
        while self._lives == lives and not (self._dead or self._over):
            await self._changed.wait()
        if self._over:
            why = "its block was left" if self.failure is None else "what it does has failed"
            raise RuntimeError(f"the fake kernel comes back no more: {why}") from self.failure

    def _change_life(self) -> None:
        # In this order, or what waited in the life that ends would go on in it.
        self._incarnation.cancel()
        self._changed.ring()

    # Its lives.

    async def live(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """One life after the other; run by :func:`open_fake_kernel`."""
        try:
            await self._live(task_status)
        except BaseException as error:
            if not is_failure(error):
                raise
            # Raised where the block is left. It cancels no block, which may be a fixture's: that is not where the test runs, or it
            # is in a way in which AnyIO's plugin never ends.
            self.failure, self._dead = error, True
            self.transcript.fail(error)
            self._end.vanish(f"what the test says the fake kernel does has failed: {error!r}")
        finally:
            self._over = True
            self._changed.ring()

    async def _live(self, task_status: anyio.abc.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            # It may have been killed while it was not there.
            if self._reason is None:
                await self._live_once()
            if self._reason is not None or self._transport != "memory":
                self._end.vanish(self._reason or "")
            while self._dead:
                await self._changed.wait()
            self._reason = None
            await self._end.appear()

    async def _live_once(self) -> None:
        async with unwrapping_task_group() as self._tasks:
            self._incarnation = self._tasks.cancel_scope
            self._tasks.start_soon(self._end.serve)
            self._begin(again=self._lives > 0)
            self._lives += 1
            self._changed.ring()

    def _begin(self, *, again: bool) -> None:
        """Starts what a life consists of."""
        raise NotImplementedError

    def _start(self, function: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Starts a task that ends with this life of the kernel."""
        self._tasks.start_soon(function, name="fake kernel")
