"""What a fake kernel does with a request where the test has said nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._debugger import debug
from ._executions import Executions
from ._fake_comms import FakeComms
from ._request import Answering, Asked, Reply
from ._shells import Shells

__all__ = ["Behaviour"]

_INFO: Mapping[str, Any] = {
    "protocol_version": "5.4",
    "implementation": "fake",
    "implementation_version": "1.0",
    "language_info": {
        "name": "fake",
        "version": "1.0",
        "mimetype": "text/plain",
        "file_extension": ".txt",
    },
    "banner": "A fake kernel",
    "help_links": [],
}

_NEEDED: Mapping[str, set[str]] = {
    "execute_request": {"code"},
    "complete_request": {"code", "cursor_pos"},
    "inspect_request": {"code", "cursor_pos"},
    "is_complete_request": {"code"},
    "history_request": {"hist_access_type"},
    "debug_request": {"command"},
    "delete_subshell_request": {"subshell_id"},
}

_ON_CONTROL_ONLY = {
    "interrupt_request",
    "debug_request",
    "create_subshell_request",
    "delete_subshell_request",
    "list_subshell_request",
}


class Behaviour:
    """The answers of one kernel.

    Args:
        shells: Its shells.
        subshells: Whether others than the main one may be asked for.
        debugger: Whether it has one.

    Attributes:
        handlers: What the test has said, by the type of the request.
    """

    def __init__(self, shells: Shells, *, subshells: bool, debugger: bool) -> None:
        self.executions = Executions()
        self.comms = FakeComms()
        self.handlers: dict[str, Answering] = {}
        self._own: dict[str, Answering] = {
            "execute_request": self.executions.run,
            "interrupt_request": self._interrupt,
            "comm_open": self.comms.on_open,
            "comm_msg": self.comms.on_message,
            "comm_close": self.comms.on_message,
            "comm_info_request": self.comms.info,
            "kernel_info_request": self._info,
            "shutdown_request": lambda request: {"restart": bool(request.content.get("restart"))},
            "connect_request": lambda _: {},
            "complete_request": _complete,
            "inspect_request": lambda _: {"found": False, "data": {}, "metadata": {}},
            "history_request": lambda _: {"history": []},
            "is_complete_request": lambda _: {"status": "complete"},
        }
        self._features: list[str] = []
        if subshells:
            self._features.append("kernel subshells")
            self._own["create_subshell_request"] = shells.create
            self._own["delete_subshell_request"] = shells.delete
            self._own["list_subshell_request"] = shells.list
        if debugger:
            self._features.append("debugger")
            self._own["debug_request"] = debug

    def handler(self, request: Asked) -> Answering:
        """What answers `request`; one that is not known, or lacks what it must say, gets no reply."""
        msg_type = request.message.msg_type
        if msg_type in self.handlers:
            return self.handlers[msg_type]
        known = msg_type in self._own and _NEEDED.get(msg_type, set()) <= request.content.keys()
        if not known or (request.channel == "shell" and msg_type in _ON_CONTROL_ONLY):
            return lambda _: None
        return self._own[msg_type]

    def forget(self) -> None:
        """The kernel is another one: nothing is counted or open. What the test has said stays."""
        self.executions.count = 0
        self.comms.clear()

    def _interrupt(self, _: Asked) -> Reply:
        self.executions.interrupt()
        return {}

    def _info(self, _: Asked) -> Reply:
        features = {"supported_features": self._features, "debugger": "debugger" in self._features}
        return {**_INFO, **features}


def _complete(request: Asked) -> Reply:
    cursor = request.content.get("cursor_pos", 0)
    return {"matches": [], "cursor_start": cursor, "cursor_end": cursor, "metadata": {}}
