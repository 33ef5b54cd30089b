"""What leaves a block that runs a task group: one exception as itself, not an ``ExceptionGroup``.

The tasks of this library never raise, so the group around a body nearly always holds the body's own
exception and nothing else. One layer is unwrapped:

==========================================  =======================================================
in the group                                what leaves
==========================================  =======================================================
one exception (or a group that was raised)  itself, its ``__context__`` and ``__cause__`` as they were
a ``KeyboardInterrupt`` or ``SystemExit``   that; others beside it are its ``__cause__``
two or more others                          the group, with a note
a cancellation from outside, beside those   nothing of its own: the scope that cancelled knows
==========================================  =======================================================

A block of the user's that runs a task group must be left by the task that entered it. Left by another one, everything is
let go all the same, and a plain error says so: what the group would say helps nobody, and on Trio the wrong task would be
woken.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import anyio
import anyio.abc

from ._bell import Bell
from ._exceptions import EnchannelError
from ._trio import current_task, protect, uncut, uncut_block

NOTE = "a task of enchannel failed beside the body of the block; both errors are in this group"


@contextmanager
def closing_within(seconds: float) -> Iterator[None]:
    """What is said to a kernel on the way out: shielded, bounded, and never in the body's place."""
    with (
        anyio.CancelScope(shield=True, deadline=anyio.current_time() + seconds),
        suppress(EnchannelError, anyio.ClosedResourceError, OSError),
    ):
        yield


@contextmanager
def shielded() -> Iterator[None]:
    """What must not be cancelled in between. Type checkers take a bare scope for one that may be left early."""
    with anyio.CancelScope(shield=True):
        yield


@uncut_block
async def unwrapping_task_group() -> AsyncIterator[anyio.abc.TaskGroup]:
    """A task group out of which a single exception comes as itself."""
    raised: BaseException | None = None
    try:
        async with anyio.create_task_group() as tasks:
            try:
                yield tasks
            except BaseException as error:
                raised = error
                raise
    except BaseExceptionGroup as group:
        _raise_single(group, raised)


class BlockTasks:
    """What runs beside the body of a block.

    Args:
        group: Where; its own scope holds the task that entered the block as well, which is not always the one that leaves.
    """

    def __init__(self, group: anyio.abc.TaskGroup) -> None:
        self._group = group
        self._scopes: set[anyio.CancelScope] = set()
        self._fewer = Bell()

    def start_soon(
        self, function: Callable[..., Awaitable[object]], *args: object, name: str
    ) -> None:
        """Starts a task."""
        self._group.start_soon(partial(self._run, self._scope(), function, *args), name=name)

    async def start(self, function: Callable[..., Awaitable[object]], *, name: str) -> Any:
        """Starts a task, and waits until it says that it has started."""
        return await self._group.start(partial(self._run, self._scope(), function), name=name)

    def cancel_all(self) -> None:
        """Cancels them, and the body."""
        self._group.cancel_scope.cancel()

    def end(self) -> None:
        """Cancels them all, and not the body."""
        for scope in tuple(self._scopes):
            scope.cancel()

    async def wait_ended(self) -> None:
        """Waits until there is none. Shielded."""
        with shielded():
            while self._scopes:
                await self._fewer.wait()

    def _scope(self) -> anyio.CancelScope:
        scope = anyio.CancelScope()
        self._scopes.add(scope)
        return scope

    @uncut
    async def _run(
        self,
        scope: anyio.CancelScope,
        function: Callable[..., Awaitable[object]],
        *args: object,
        **status: Any,
    ) -> None:
        try:
            with scope:
                await function(*args, **status)
        finally:
            self._scopes.discard(scope)
            self._fewer.ring()


@uncut_block
async def block_task_group(block: str) -> AsyncIterator[BlockTasks]:
    """The task group of a block whose body is the user's, and which is called `block`.

    What is in it must end by itself on the way out, or be ended.

    Raises:
        RuntimeError: Another task leaves the block than the one that entered it.
    """
    protect()
    host, raised = current_task(), None
    try:
        async with unwrapping_task_group() as group:
            tasks = BlockTasks(group)
            try:
                yield tasks
            except BaseException as error:
                if current_task() is host:
                    raise
                # The group would cancel the task that entered the block, and on asyncio without an end.
                raised = error
            if current_task() is not host:
                await tasks.wait_ended()
    except RuntimeError:
        if current_task() is host:
            raise
    if current_task() is not host:
        if raised is not None and not isinstance(raised, Exception):
            # Ctrl-C, an exit and a cancellation have somebody who waits for them.
            raise raised
        raise RuntimeError(
            f"the block of {block} was left by another task than the one that entered it. It is closed, but the task that "
            "entered it fails where it leaves what is around it. Enter and leave in one task: an async fixture, an "
            "AsyncExitStack that several handlers share and the cells of a notebook often do not. Where that cannot be, let "
            "a task of its own hold it, as open_kernel_pool does for kernels"
        ) from raised


def _raise_single(group: BaseExceptionGroup[BaseException], raised: BaseException | None) -> None:
    """Raises what stands for `group` in the table above; `raised` is what left the body."""
    # Where the block was cancelled from outside, our tasks say so too: that goes to its scope.
    cancelled = anyio.get_cancelled_exc_class()
    errors: Sequence[BaseException] = [e for e in group.exceptions if not isinstance(e, cancelled)]
    if not errors:
        raise group
    leaving = next((e for e in errors if isinstance(e, (KeyboardInterrupt, SystemExit))), None)
    if len(errors) > 1 and leaving is None:
        group = group.derive(errors)
        group.add_note(NOTE)
        raise group
    error = leaving or next(iter(errors))
    if len(errors) > 1:
        error.__cause__ = group.derive([e for e in errors if e is not error])
    elif isinstance(raised, BaseExceptionGroup) and not _has_cancellation(raised):
        # Trio takes groups apart to look for cancellations, and what it puts together is a copy.
        error = raised
    # Raising sets the context to the group that is being handled, which the user never saw.
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
        del error, errors, leaving, group, raised


def _has_cancellation(group: BaseExceptionGroup[BaseException]) -> bool:
    return group.subgroup(anyio.get_cancelled_exc_class()) is not None
