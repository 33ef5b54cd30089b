"""The start of a kernel on a server, and its end, whatever becomes of who asked for it.

* Its id is chosen here, so that it can be deleted where nobody knows what has become of its start. Where the server has
  answered, it is there by then or never; where something before the server has, or nobody, it is looked for a while.
* What is done here is done by a task of its own, which no scope cancels, and Ctrl-C does not cut on Trio. Where asyncio
  cancels every task that there is, the kernel is deleted all the same; also where it does so once more meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import anyio

from .._channels import KernelChannels
from .._exceptions import (
    KernelConnectError,
    KernelDied,
    KernelLaunchError,
    NoReply,
    ServerError,
)
from .._groups import BlockTasks, shielded, unwrapping_task_group
from .._log import logger
from .._trio import uncut
from .rest import IN_BETWEEN, Rest
from .server_kernel import AGAIN, FAILED, ServerKernel
from .server_models import ServerKernelSpec, mapping, model_of
from .server_reach import kernel_path
from .server_turns import AllTurns

__all__ = ["Start", "ready"]

CUTS = 3
"""How often the end of a kernel is begun anew where something cuts it off; then it is somebody's will."""

DELETED_WITHIN = 30.0
"""Seconds for a server to delete a kernel that it may never have started."""

NO_WORDS = ("", "Unhandled error", "Internal Server Error")
"""What a server says of a start that has failed, where it says nothing."""

APPEARING = 5.0
"""Seconds for a kernel to appear whose start was not answered."""

REFUSED, UNKNOWN_THERE = 400, 404
"""The status from which on a server has refused, and that of what it does not know."""

UNANSWERED = (0, *IN_BETWEEN)
"""The status where nobody has answered, or only what stands before the server."""

STOPPED_START = 10.0
"""Seconds that a start which was cancelled may take to say what it has started."""


class Start:
    """The start of a kernel, and its end; both go on where whoever asked for it is cancelled.

    Attributes:
        answered: Set when the server has answered.
        left: Set when the block of the kernel is left.
    """

    def __init__(
        self,
        rest: Rest,
        body: Mapping[str, Any],
        spec: ServerKernelSpec | None,
        timeout: float,
        tasks: BlockTasks,
        turns: AllTurns,
    ) -> None:
        self._rest = rest
        self._body = body
        self._spec = spec
        self._timeout = timeout
        self._tasks = tasks
        self._turns = turns
        self._kernel: ServerKernel | None = None
        self._failure: ServerError | None = None
        self.answered = anyio.Event()
        self.left = anyio.Event()

    @uncut
    def leave(self) -> None:
        """The block of the kernel is left."""
        self.left.set()

    @uncut
    async def host(self) -> None:
        """Has the server start it, and delete it when its block is left. Shielded, and never raises."""
        with shielded():
            try:
                async with unwrapping_task_group() as tasks:
                    tasks.start_soon(self._give_up, tasks.cancel_scope)
                    await self._ask()
                    tasks.cancel_scope.cancel()
                self.answered.set()
                await self.left.wait()
            finally:
                self.answered.set()
                # Also where asyncio cancels every task that there is.
                await self._delete()

    @uncut
    async def _give_up(self, scope: anyio.CancelScope) -> None:
        """A start whose block is left may go on for a moment, to say what it has started."""
        await self.left.wait()
        await anyio.sleep(STOPPED_START)
        scope.cancel()

    async def _ask(self) -> None:
        try:
            said = await self._rest.ask("POST", "/kernels", self._body, timeout=self._timeout)
        except ServerError as error:
            self._failure = error
        except Exception as error:  # noqa: BLE001
            self._failure = ServerError(f"the kernel could not be started: {error!r}")
        else:
            model = model_of(mapping(said))
            name = model.name or self._body.get("name", "")
            self._kernel = self._kernel_at(self._rest, model.id, name)

    def _kernel_at(self, rest: Rest, kernel_id: str, name: str) -> ServerKernel:
        turns = self._turns.of(kernel_id)
        return ServerKernel(rest, kernel_id, name, self._spec, self._tasks, turns)

    def kernel(self) -> ServerKernel:
        """What it has started.

        Raises:
            ServerError: It has started nothing.
        """
        error = self._failure
        if error is not None and error.status == 500 and error.said in NO_WORDS:
            raise ServerError(
                f"{error}: the kernel's program may be missing there; the server's log says more",
                500,
            )
        if error is not None:
            raise error
        if self._kernel is None or not self._kernel.id:
            raise ServerError(f"{self._rest.url} has started a kernel and does not say which")
        return self._kernel

    async def _delete(self) -> None:
        """Deletes it. What cuts that off is raised behind it."""
        failure, cut = self._failure, None
        # It has said that it starts none; what stands before it says nothing of that.
        if failure is not None and REFUSED <= failure.status < FAILED:
            return
        for left in reversed(range(CUTS + 1)):
            try:
                await self._try_to_delete()
                break
            except Exception as error:  # noqa: BLE001
                self._warn(f"{error}")
                break
            except BaseException as error:  # noqa: BLE001
                cut = error
                if not left or isinstance(error, GeneratorExit):
                    self._warn(f"cut off by {error!r}")
                    break
        if self._kernel is not None:
            self._kernel.let_go()
        if cut is not None:
            raise cut

    async def _try_to_delete(self) -> None:
        kernel = self._kernel
        # The block of the server may be left before that of its kernel.
        rest = self._rest.another()
        try:
            if kernel is None or not kernel.id:
                await self._delete_unknown(rest)
            elif rest is self._rest:
                await kernel.shut_down()
            else:
                await self._kernel_at(rest, kernel.id, kernel.name).shut_down()
        finally:
            if rest is not self._rest:
                await rest.aclose()

    def _warn(self, why: str) -> None:
        kernel_id = (self._kernel and self._kernel.id) or self._body["kernel_id"]
        logger().warning("the kernel %s could not be deleted: %s", kernel_id, why)

    async def _delete_unknown(self, rest: Rest) -> None:
        """It may have been started as we have asked, or may be about to be."""
        path = kernel_path(self._body["kernel_id"])
        status = self._failure.status if self._failure is not None else 0
        answered = self._kernel is not None or status not in UNANSWERED
        until = anyio.current_time() + (0 if answered else APPEARING)
        while True:
            try:
                await rest.ask("DELETE", path, timeout=DELETED_WITHIN)
            except ServerError as error:
                if error.status != UNKNOWN_THERE:
                    raise
            else:
                return
            if anyio.current_time() >= until:
                return
            await anyio.sleep(AGAIN)


async def ready(kernel: ServerKernel, deadline: float, timeout: float) -> None:
    """Waits until the kernel has answered."""
    left = max(deadline - anyio.current_time(), 0.001)
    try:
        with anyio.fail_after(left):
            async with kernel.open_channels(connect_timeout=left) as ch:
                await _answered(ch)
    except (TimeoutError, KernelConnectError) as error:
        said = f"the kernel {kernel.name!r} was not ready within {timeout:g} s"
        raise KernelLaunchError(said, reason="not ready") from error
    except (KernelDied, ServerError) as error:
        if isinstance(error, ServerError) and error.status != 404:
            raise
        said = f"the kernel {kernel.name!r} exited before it was ready; the server's log says more"
        raise KernelLaunchError(said, reason="exited") from error


async def _answered(ch: KernelChannels) -> None:
    while True:
        # Its question may be lost with a websocket.
        with contextlib.suppress(NoReply):
            await ch.kernel_info()
            return
