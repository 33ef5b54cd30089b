"""A conversation with a kernel as a file: JSON, a line for everything that happened.

The first line says what it is::

    {"format": "enchannel recording", "version": 1, "started": "2026-11-27T12:00:00+00:00", "session": "..."}

and each other one what was sent or received, as seen from the client, or what else happened to the kernel::

    {"time": 0.0012, "kind": "sent", "channel": "shell", "message": {"header": {...}, "parent_header": {...},
     "metadata": {...}, "content": {...}, "buffers": ["base64", ...]}}
    {"time": 1.5, "kind": "interrupted"}
    {"time": 2.5, "kind": "restarted"}
    {"time": 9.0, "kind": "lost"}

``time`` is seconds since the first line. What a reader does not know it leaves out. A file that was cut off is valid up to
its last whole line. Numbers that JSON has not (``NaN``) are written as JavaScript and Python have them.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Literal, get_args

import attrs

from .errors import RecordingError
from .message import CHANNELS, ChannelName, Message

__all__ = ["Recorded", "first_line", "line_of", "read_recording"]

FORMAT, VERSION = "enchannel recording", 1

PARTS = ("header", "parent_header", "metadata", "content")

LONGEST = 1e15
"""Seconds that a recording may take: microseconds are exact until there."""

Kind = Literal["sent", "received", "interrupted", "restarted", "lost"]
"""What may happen."""


@attrs.frozen
class Recorded:
    """One thing that happened; by :func:`read_recording`.

    Example:
        .. code-block:: python

            async with ch.record("session.jsonl"):
                await ch.request("kernel_info_request")
            first = next(read_recording("session.jsonl"))
            print(first.kind, first.channel)  # sent shell
            print(first.message.msg_type)  # kernel_info_request
    """

    time: float
    """Seconds since the beginning of the recording."""
    kind: Kind
    """``"sent"`` or ``"received"``; ``"interrupted"``, ``"restarted"`` or ``"lost"``, which the kernel was."""
    channel: ChannelName | None = None
    """Of the message."""
    message: Message | None = None
    """What was sent or received."""


def first_line(session: str) -> str:
    """The line that a recording begins with."""
    started = datetime.now(UTC).isoformat()
    first = {"format": FORMAT, "version": VERSION, "started": started, "session": session}
    return f"{json.dumps(first)}\n"


def line_of(recorded: Recorded) -> str:
    """The line that stands for `recorded`."""
    line: dict[str, Any] = {"time": round(recorded.time, 6), "kind": recorded.kind}
    message = recorded.message
    if message is not None:
        line["channel"] = recorded.channel
        line["message"] = {
            **{name: getattr(message, name) for name in PARTS},
            "buffers": [base64.b64encode(each).decode() for each in message.buffers],
        }
    return f"{json.dumps(line)}\n"


def read_recording(path: str | os.PathLike[str]) -> Iterator[Recorded]:
    """What happened, as the file at `path` says, one after the other; the file is read as they are
    asked for.

    Args:
        path: What :meth:`KernelChannels.record` has written.

    Raises:
        RecordingError: The file is no recording, or a line in it is broken that is not the last.
        OSError: It cannot be read.

    Example:
        .. code-block:: python

            async with ch.record("session.jsonl"):
                await ch.run("6 * 7")
            for recorded in read_recording("session.jsonl"):
                if recorded.kind == "received" and recorded.channel == "iopub":
                    print(recorded.message.msg_type)  # execute_result
    """
    source = f"recording {os.fspath(path)}"
    # What is no text is no recording, and not an error of its own.
    with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
        first = _parsed(file.readline(), source, 1)
        if first is None or first.get("format") != FORMAT:
            raise RecordingError(f"{source}: no recording of enchannel")
        version = first.get("version")
        if version != VERSION or isinstance(version, bool):
            raise RecordingError(f"{source}: version {version!r}; this enchannel reads {VERSION}")
        for number, line in enumerate(file, 2):
            parsed = _parsed(line, source, number)
            if parsed is None:
                return
            recorded = _recorded(parsed, source, number)
            if recorded is not None:
                yield recorded


def _parsed(line: str, source: str, number: int) -> Mapping[str, Any] | None:
    """What a line holds, none where it was cut off."""
    if not line.endswith("\n"):
        return None
    try:
        parsed = json.loads(line)
    except (ValueError, RecursionError):
        parsed = None
    if not isinstance(parsed, dict):
        raise RecordingError(f"{source}: line {number} holds no JSON object")
    return parsed


def _recorded(line: Mapping[str, Any], source: str, number: int) -> Recorded | None:
    at = line.get("time")
    kind: Any = line.get("kind")
    if kind not in get_args(Kind):
        return None  # of a later version
    if not isinstance(at, (int, float)) or isinstance(at, bool) or not 0 <= at < LONGEST:
        raise RecordingError(f"{source}: line {number} has no time")
    if kind not in ("sent", "received"):
        return Recorded(float(at), kind)
    channel = line.get("channel")
    message: Any = line.get("message")
    if channel not in CHANNELS:
        raise RecordingError(f"{source}: line {number} has no channel")
    try:
        header, parent, metadata, content = (dict(message[name]) for name in PARTS)
        encoded = list(message["buffers"])
        buffers = tuple(memoryview(base64.b64decode(each, validate=True)) for each in encoded)
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise RecordingError(f"{source}: line {number} holds no message") from None
    return Recorded(float(at), kind, channel, Message(header, parent, metadata, content, buffers))
