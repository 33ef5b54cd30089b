"""What Trio needs and AnyIO does not know of.

Trio raises ``KeyboardInterrupt`` wherever the program is when Ctrl-C comes, except in code that says that it must not be
cut in two: there it waits for the next checkpoint. On asyncio Ctrl-C cancels the main task, which cuts nothing.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from types import TracebackType
from typing import Generic, ParamSpec, TypeVar

__all__ = ["current_task", "in_trio", "protect", "uncut", "uncut_block"]

F = TypeVar("F", bound=Callable[..., object])
P = ParamSpec("P")
T = TypeVar("T")

_uncut: list[Callable[..., object]] = []


def in_trio() -> bool:
    """Whether Trio runs the current task; asyncio may run beneath it."""
    trio = sys.modules.get("trio")
    return trio is not None and trio.lowlevel.in_trio_task()


def current_task() -> object:
    """The task that runs, by which it can be told from any other, also from one that comes later."""
    if in_trio():
        return sys.modules["trio"].lowlevel.current_task()
    return sys.modules["asyncio"].current_task()


def uncut(function: F) -> F:
    """A state change, or a task of ours: Ctrl-C cuts neither it nor what it calls.

    Where it waits in the main task Ctrl-C comes there.
    """
    # Trio is not imported for it, nor is there a call around it.
    _uncut.append(function)
    return function


class _UncutBlock(AbstractAsyncContextManager[T], Generic[T]):
    def __init__(self, block: AbstractAsyncContextManager[T]) -> None:
        self._block = block

    @uncut
    async def __aenter__(self) -> T:
        return await self._block.__aenter__()

    @uncut
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._block.__aexit__(kind, raised, traceback)


def uncut_block(
    function: Callable[P, AsyncIterator[T]],
) -> Callable[P, AbstractAsyncContextManager[T]]:
    """An ``asynccontextmanager`` that Ctrl-C does not cut on its way in and on its way out, but where it waits there.

    What has begun by then is ended. The body of the block is its user's, and is cut as ever.
    """
    make = asynccontextmanager(uncut(function))

    @wraps(function)
    def made(*args: P.args, **kwargs: P.kwargs) -> AbstractAsyncContextManager[T]:
        return _UncutBlock(make(*args, **kwargs))

    return made


def protect() -> None:
    """Tells Trio, where that runs, of what is :func:`uncut`."""
    if _uncut and in_trio():
        for function in _uncut:
            sys.modules["trio"].lowlevel.enable_ki_protection(function)
        _uncut.clear()
