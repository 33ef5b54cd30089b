"""Checks of what callers give: a ``LocalProtocolError`` names the argument, and what would be right."""

from __future__ import annotations

import re

from .errors import LocalProtocolError

__all__ = ["check_seconds", "checked_size", "encoded", "is_number", "is_text"]

HALF = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair, which UTF-8 has no bytes for."""


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_text(value: object) -> bool:
    """Whether it is a ``str`` that UTF-8 can say."""
    return isinstance(value, str) and HALF.search(value) is None


def encoded(name: str, value: object) -> bytes:
    """`value`, the argument called `name`, as bytes: itself, or a text in UTF-8. Errors do not show it."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise LocalProtocolError(f"{name} is text or bytes, not {type(value).__name__}")
    if not is_text(value):
        raise LocalProtocolError(
            f"{name} is text or bytes, and half a surrogate pair is no character of a text"
        )
    return value.encode()


def check_seconds(name: str, seconds: object) -> None:
    """Raises ``LocalProtocolError`` where `seconds`, the argument called `name`, are none that something may take."""
    if not (is_number(seconds) and seconds > 0):  # type: ignore[operator]
        raise LocalProtocolError(f"{name} is seconds, above 0, not {seconds!r}")


def checked_size(max_message_size: float) -> float:
    """`max_message_size`, where it is a number of bytes."""
    if not is_number(max_message_size) or not max_message_size >= 1:
        raise LocalProtocolError(
            f"max_message_size is a number of bytes, 1 or more, or math.inf, not {max_message_size!r}"
        )
    return max_message_size
