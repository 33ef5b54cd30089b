"""The debugger of a fake kernel, for those that ask for one: it is never attached, and agrees to everything."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._request import Asked

__all__ = ["debug"]

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
