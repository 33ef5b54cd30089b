"""What the specification says that a message holds: the fields that it must have, and the types of all.

The types are those of :mod:`enchannel.messages`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, TypedDict, get_type_hints, is_typeddict

import msgspec

from ..._protocol import contents
from ..._protocol.message import Message

__all__ = ["faults_of"]

_ERROR = ("ename", "evalue", "traceback")
_DISPLAY = ("data", "metadata")
_IMPLEMENTATION = ("implementation", "implementation_version")
_DAP_RESPONSE = ("type", "request_seq", "success", "command")

_SHAPES: Mapping[str, tuple[type, tuple[str, ...]]] = {
    "execute_reply": (contents.ExecuteReply, ("status", "execution_count")),
    "inspect_reply": (contents.InspectReply, ("status", "found", *_DISPLAY)),
    "complete_reply": (
        contents.CompleteReply,
        ("status", "matches", "cursor_start", "cursor_end", "metadata"),
    ),
    "history_reply": (contents.HistoryReply, ("status", "history")),
    "is_complete_reply": (contents.IsCompleteReply, ("status",)),
    "comm_info_reply": (contents.CommInfoReply, ("status", "comms")),
    "kernel_info_reply": (
        contents.KernelInfoReply,
        ("status", "protocol_version", *_IMPLEMENTATION, "language_info", "banner"),
    ),
    "shutdown_reply": (contents.ShutdownReply, ("status", "restart")),
    "interrupt_reply": (contents.Reply, ("status",)),
    "debug_reply": (contents.DebugReply, _DAP_RESPONSE),
    "create_subshell_reply": (contents.CreateSubshellReply, ("status", "subshell_id")),
    "delete_subshell_reply": (contents.Reply, ("status",)),
    "list_subshell_reply": (contents.ListSubshellReply, ("subshell_id",)),
    "input_request": (contents.InputRequest, ("prompt", "password")),
    "iopub_welcome": (contents.Welcome, ("subscription",)),
    "stream": (contents.Stream, ("name", "text")),
    "display_data": (contents.DisplayData, _DISPLAY),
    "update_display_data": (contents.DisplayData, (*_DISPLAY, "transient")),
    "execute_input": (contents.ExecuteInput, ("code", "execution_count")),
    "execute_result": (contents.ExecuteResult, ("execution_count", *_DISPLAY)),
    "error": (contents.Error, _ERROR),
    "status": (contents.Status, ("execution_state",)),
    "clear_output": (contents.ClearOutput, ("wait",)),
    "comm_open": (contents.CommOpen, ("comm_id", "target_name", "data")),
    "comm_msg": (contents.CommMsg, ("comm_id", "data")),
    "comm_close": (contents.CommClose, ("comm_id",)),
    "debug_event": (contents.DebugEvent, ("type", "event")),
}

_LANGUAGE_INFO = ("name", "version", "mimetype", "file_extension")

_STATUSES = ("ok", "error", "aborted")
_STATES = ("starting", "busy", "idle")


@cache
def _partial(kind: Any) -> Any:
    """`kind`, a TypedDict, without what is required: that is looked at by itself, for it depends on the status."""
    hints = {
        name: _partial(hint) if is_typeddict(hint) else hint
        for name, hint in get_type_hints(kind).items()
    }
    return TypedDict(kind.__name__, hints, total=False)  # type: ignore[operator]


def faults_of(message: Message) -> Iterator[str]:
    """What is wrong with the content of `message`; nothing of a type that the specification does not have."""
    shape = _SHAPES.get(message.msg_type)
    if shape is None:
        return
    kind, fields = shape
    content = message.content
    fields = _expected(message, fields)
    for name in fields:
        if name not in content:
            yield f"{message.msg_type} has no {name!r}"
    try:
        msgspec.convert(content, _partial(kind))
    except msgspec.ValidationError as error:
        yield f"{message.msg_type}: {error}"
        return
    yield from _values(message)


def _expected(message: Message, fields: tuple[str, ...]) -> tuple[str, ...]:
    status = message.content.get("status")
    if "status" not in fields or status not in ("error", "aborted"):
        return fields
    of_error = _ERROR if status == "error" else ()
    count = ("execution_count",) if status == "error" and "execution_count" in fields else ()
    return ("status", *of_error, *count)


def _values(message: Message) -> Iterator[str]:
    content = message.content
    if message.msg_type == "status" and content.get("execution_state") not in _STATES:
        yield f"status has the execution_state {content.get('execution_state')!r}"
    if message.msg_type == "kernel_info_reply":
        language: dict[str, Any] = content.get("language_info") or {}
        yield from (
            f"language_info has no {name!r}" for name in _LANGUAGE_INFO if name not in language
        )
    if message.msg_type == "is_complete_reply" or "status" not in content:
        return
    if message.msg_type.endswith("_reply") and content["status"] not in _STATUSES:
        yield f"{message.msg_type} has the status {content['status']!r}"
