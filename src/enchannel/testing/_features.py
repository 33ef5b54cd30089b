"""What a fake kernel has if the test asks for it: subshells (JEP 91), and a debugger that is never busy."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .._bell import Bell
from ._request import Asked

__all__ = ["Subshells", "debug", "unknown_subshell"]


class Subshells:
    """Shells beside the main one; each handles its requests one after the other.

    Args:
        handle: Handles a request.
    """

    def __init__(self, handle: Callable[[Any], Awaitable[object]]) -> None:
        self._handle = handle
        self._waiting: dict[str, list[Asked]] = {}
        self._bell = Bell()

    def clear(self) -> None:
        """All are gone, as with the kernel that had them."""
        self._waiting.clear()

    def create(self) -> str:
        """A new one; :meth:`run` is to be started with its id."""
        subshell = str(uuid.uuid4())
        self._waiting[subshell] = []
        return subshell

    def delete(self, request: Asked) -> Mapping[str, Any]:
        """The reply to a delete_subshell_request."""
        known = self._waiting.pop(str(request.content.get("subshell_id")), None)
        self._bell.ring()
        if known is None:
            return {
                "status": "error",
                "evalue": f"no subshell {request.content.get('subshell_id')!r}",
            }
        return {}

    def list(self) -> Mapping[str, Any]:
        """The reply to a list_subshell_request."""
        return {"subshell_id": sorted(self._waiting)}

    def take(self, subshell: str, request: Asked) -> bool:
        """Has the subshell handle `request`; whether there is one."""
        if subshell not in self._waiting:
            return False
        self._waiting[subshell].append(request)
        self._bell.ring()
        return True

    async def run(self, subshell: str) -> None:
        """Handles what comes for one subshell, up to its end."""
        while (waiting := self._waiting.get(subshell)) is not None:
            if waiting:
                await self._handle(waiting.pop(0))
            else:
                await self._bell.wait()


def unknown_subshell(request: Asked) -> Mapping[str, Any]:
    """The reply to what is for a subshell that there is not."""
    said = f"there is no subshell {request.message.header.get('subshell_id')!r}"
    return {"status": "error", "ename": "UnknownSubshellError", "evalue": said, "traceback": []}


_BODIES: Mapping[str, Mapping[str, Any]] = {
    "initialize": {"supportsConfigurationDoneRequest": True},
    "debugInfo": {
        "isStarted": False,
        "hashMethod": "Murmur2",
        "hashSeed": 0,
        "tmpFilePrefix": "cells/",
        "tmpFileSuffix": ".txt",
        "breakpoints": [],
        "stoppedThreads": [],
        "richRendering": False,
        "exceptionPaths": [],
    },
    "dumpCell": {"sourcePath": "cells/1.txt"},
    "inspectVariables": {"variables": []},
    "setBreakpoints": {"breakpoints": []},
}


def debug(request: Asked) -> Mapping[str, Any]:
    """The reply to a debug_request: a success, with a body where the specification has one."""
    content = request.content
    return {
        "type": "response",
        "request_seq": content.get("seq"),
        "success": True,
        "command": content.get("command"),
        "body": dict(_BODIES.get(str(content.get("command")), {})),
    }
