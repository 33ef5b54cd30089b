"""Who handles the requests of a fake kernel: its shell, its control, and its subshells (JEP 91).

Each handles one request after the other, and none waits for another. What waits behind an execution that failed can be
aborted: the executions among it, as they were at that moment.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeAlias

from .._bell import Bell
from ._request import Asked

__all__ = ["Handle", "Shells", "Start", "unknown_subshell"]

Handle: TypeAlias = "Callable[[Any, bool], Awaitable[object]]"
"""Handles a request, or aborts it."""

Start: TypeAlias = "Callable[[Callable[[], Coroutine[Any, Any, None]]], None]"
"""Starts an async function as a task of the kernel."""


class _Shell:
    """One of them."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._waiting: deque[tuple[Asked, bool]] = deque()
        self._bell = Bell()
        self._over = False

    def take(self, request: Asked) -> None:
        self._waiting.append((request, False))
        self._bell.ring()

    def abort(self) -> None:
        """The executions that wait will not run."""
        self._waiting = deque(
            (request, aborted or request.message.msg_type == "execute_request")
            for request, aborted in self._waiting
        )

    def end(self) -> None:
        self._over = True
        self._bell.ring()

    async def run(self) -> None:
        while not self._over:
            if self._waiting:
                await self._handle(*self._waiting.popleft())
            else:
                await self._bell.wait()


class Shells:
    """All of one kernel.

    Args:
        handle: Handles a request.
        start: Starts a task of the kernel's.
    """

    def __init__(self, handle: Handle, start: Start) -> None:
        self._handle = handle
        self._start = start
        self._main: dict[str, _Shell] = {}
        self._sub: dict[str, _Shell] = {}

    def begin(self) -> None:
        """A new life of the kernel, with nothing of the one before."""
        self._sub = {}
        self._main = {"shell": self._new(), "control": self._new()}

    def _new(self) -> _Shell:
        shell = _Shell(self._handle)
        self._start(shell.run)
        return shell

    def take(self, channel: str, request: Asked) -> bool:
        """Has `request` handled in its turn; whether the shell that it names is there."""
        shell = self._of(channel, request)
        if shell is not None:
            shell.take(request)
        return shell is not None

    def abort(self, channel: str, request: Asked) -> None:
        """Aborts the executions that wait behind `request`."""
        shell = self._of(channel, request)
        if shell is not None:
            shell.abort()

    def _of(self, channel: str, request: Asked) -> _Shell | None:
        subshell = request.message.header.get("subshell_id") if channel == "shell" else None
        return self._main[channel] if subshell is None else self._sub.get(str(subshell))

    # The answers to requests for subshells.

    def create(self, _: Asked) -> Mapping[str, Any]:
        """To a create_subshell_request."""
        subshell = str(uuid.uuid4())
        self._sub[subshell] = self._new()
        return {"subshell_id": subshell}

    def delete(self, request: Asked) -> Mapping[str, Any]:
        """To a delete_subshell_request."""
        name = str(request.content.get("subshell_id"))
        shell = self._sub.pop(name, None)
        if shell is None:
            return {"status": "error", "evalue": f"there is no subshell {name!r}"}
        shell.end()
        return {}

    def list(self, _: Asked) -> Mapping[str, Any]:
        """To a list_subshell_request."""
        return {"subshell_id": list(self._sub)}


def unknown_subshell(request: Asked) -> Mapping[str, Any]:
    """The reply to what is for a subshell that there is not."""
    said = f"there is no subshell {request.message.header.get('subshell_id')!r}"
    return {"status": "error", "ename": "UnknownSubshellError", "evalue": said, "traceback": []}
