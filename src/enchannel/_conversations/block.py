"""The block of an execution tells who takes it for a coroutine, or never enters it, what to write."""

from __future__ import annotations

import warnings
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, NoReturn, TypeVar

__all__ = ["Block"]

_INSTEAD = "write 'async with ch.execute(...) as execution:', or 'await ch.run(...)'"

T = TypeVar("T")


class Block(AbstractAsyncContextManager[T]):
    """The block of an execution.

    Args:
        block: What it is.
        code: What it runs.
    """

    def __init__(self, block: AbstractAsyncContextManager[T], code: str) -> None:
        self._block = block
        self._code = code
        self._used = False

    async def __aenter__(self) -> T:
        self._used = True
        return await self._block.__aenter__()

    async def __aexit__(self, *raised: object) -> bool | None:
        return await self._block.__aexit__(*raised)  # type: ignore[arg-type]

    if not TYPE_CHECKING:

        def __await__(self) -> NoReturn:
            self._used = True
            raise TypeError(f"execute() is a block, and cannot be awaited: {_INSTEAD}")

    def __del__(self) -> None:
        if not self._used:
            text = self._code if len(self._code) < 60 else f"{self._code[:57]}..."
            told = f"execute({text!r}) was never entered, and its code never sent: {_INSTEAD}"
            warnings.warn(told, RuntimeWarning, stacklevel=2, source=self)
