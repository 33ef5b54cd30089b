"""Creators of what a kernel says: for who writes one, stands in for one, or makes up what one has said.

Each takes the request that it belongs to as its `parent`. Public in :mod:`enchannel.messages`.

Source: "Messages on the IOPub (PUB/SUB) channel" and "Execution results" of the Jupyter messaging specification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from .message import Message

if TYPE_CHECKING:
    from .contents import (
        ClearOutput,
        DisplayData,
        Error,
        ExecuteInput,
        ExecuteReply,
        ExecuteResult,
        Status,
        Stream,
    )

__all__ = [
    "clear_output",
    "display_data",
    "error",
    "execute_input",
    "execute_reply",
    "execute_result",
    "status",
    "stream",
    "update_display_data",
]


def _said(msg_type: str, content: Mapping[str, Any], parent: Message | None) -> Message:
    header = {} if parent is None else parent.header
    return Message({"msg_type": msg_type}, header, {}, dict(content))


def stream(
    text: str, name: Literal["stdout", "stderr"] = "stdout", *, parent: Message | None = None
) -> Message:
    """Text that code printed."""
    content: Stream = {"name": name, "text": text}
    return _said("stream", content, parent)


def display_data(
    data: Mapping[str, Any],
    *,
    metadata: Mapping[str, Any] | None = None,
    display_id: str | None = None,
    parent: Message | None = None,
) -> Message:
    """Something to show.

    Args:
        data: Its formats, by MIME type.
        metadata: Of the formats, by MIME type as well.
        display_id: What it may be updated by.
        parent: The request that it belongs to.
    """
    return _said("display_data", _display(data, metadata, display_id), parent)


def update_display_data(
    data: Mapping[str, Any],
    display_id: str,
    *,
    metadata: Mapping[str, Any] | None = None,
    parent: Message | None = None,
) -> Message:
    """What is shown from now on where something of that `display_id` was; see :func:`display_data`."""
    return _said("update_display_data", _display(data, metadata, display_id), parent)


def execute_result(
    data: Mapping[str, Any],
    execution_count: int,
    *,
    metadata: Mapping[str, Any] | None = None,
    parent: Message | None = None,
) -> Message:
    """The value of the last expression of the code, in formats by MIME type."""
    display = _display(data, metadata, None)
    content: ExecuteResult = {**display, "execution_count": execution_count}
    return _said("execute_result", content, parent)


def _display(
    data: Mapping[str, Any], metadata: Mapping[str, Any] | None, display_id: str | None
) -> DisplayData:
    transient = {} if display_id is None else {"display_id": display_id}
    return {"data": dict(data), "metadata": dict(metadata or {}), "transient": transient}


def error(
    ename: str, evalue: str, traceback: Sequence[str] = (), *, parent: Message | None = None
) -> Message:
    """The exception that the code ended with: its name, its text, and the lines of its traceback."""
    content: Error = {"ename": ename, "evalue": evalue, "traceback": list(traceback)}
    return _said("error", content, parent)


def clear_output(*, wait: bool = False, parent: Message | None = None) -> Message:
    """Clears the output: now, or (`wait`) when the next one comes."""
    content: ClearOutput = {"wait": wait}
    return _said("clear_output", content, parent)


def execute_input(code: str, execution_count: int, *, parent: Message | None = None) -> Message:
    """The code that runs now, for everybody else."""
    content: ExecuteInput = {"code": code, "execution_count": execution_count}
    return _said("execute_input", content, parent)


def status(
    execution_state: Literal["busy", "idle", "starting"], *, parent: Message | None = None
) -> Message:
    """What the kernel does, for the request in the parent header."""
    content: Status = {"execution_state": execution_state}
    return _said("status", content, parent)


def execute_reply(
    execution_count: int | None,
    *,
    failed: Message | None = None,
    payload: Sequence[Mapping[str, Any]] = (),
    user_expressions: Mapping[str, Mapping[str, Any]] | None = None,
    parent: Message | None = None,
) -> Message:
    """The end of an execution.

    Args:
        execution_count: Its number.
        failed: The :func:`error` that it ended with.
        payload: What the front end is to do; see "Payloads" of the specification, which discourages them.
        user_expressions: The values of the expressions that were asked for, by their names.
        parent: The ``execute_request``.
    """
    content: ExecuteReply = {"status": "ok", "execution_count": execution_count}
    if failed is None:
        content["payload"] = [dict(each) for each in payload]
        content["user_expressions"] = {k: dict(v) for k, v in (user_expressions or {}).items()}
        return _said("execute_reply", content, parent)
    return _said("execute_reply", {**content, **failed.content, "status": "error"}, parent)
