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
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress

import anyio
import anyio.abc

from ._exceptions import EnchannelError

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


@asynccontextmanager
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
