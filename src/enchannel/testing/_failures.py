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
    return not (_is_exit(error) or isinstance(error, anyio.get_cancelled_exc_class()))


def _is_exit(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(_is_exit, error.exceptions))
    return isinstance(error, (KeyboardInterrupt, SystemExit, GeneratorExit))


@contextmanager
def raising_failure(owner: _Failing) -> Iterator[None]:
    """Raises the failure of `owner` where the block is left, also in the place of an error that follows from it.

    Who waits in the block for something that the failure has prevented may have been cancelled by his own deadline.
    """
    try:
        yield
    except BaseException as left:
        if owner.failure is None or _is_exit(left):
            raise
    if owner.failure is None:
        return
    failure = owner.failure
    context = failure.__context__
    try:
        raise failure
    finally:
        # Of its own, rather than what is being handled here.
        if context is not None:
            failure.__context__ = context
        del failure, context
