"""What a step or a handler of the test raises, on its way to the end of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import anyio

__all__ = ["is_failure", "raising_failure"]


class _Failing(Protocol):
    @property
    def failure(self) -> BaseException | None: ...


def is_failure(error: BaseException) -> bool:
    """Whether `error` is the test's word; an exit and a cancellation are not, and go on as they are.

    That a test fails or is skipped need not be an ``Exception``: with pytest it is none.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(map(is_failure, error.exceptions))
    leaving = (KeyboardInterrupt, SystemExit, GeneratorExit, anyio.get_cancelled_exc_class())
    return not isinstance(error, leaving)


@contextmanager
def raising_failure(owner: _Failing) -> Iterator[None]:
    """Raises the failure of `owner` where the block is left, also in the place of an error that follows from it."""
    left: Exception | None = None
    try:
        yield
    except Exception as error:  # noqa: BLE001
        left = error
    failure = left if owner.failure is None else owner.failure
    if failure is None:
        return
    context = failure.__context__
    try:
        raise failure
    finally:
        # Of its own, rather than what is being handled here.
        if context is not None:
            failure.__context__ = context
        del failure, left, context
