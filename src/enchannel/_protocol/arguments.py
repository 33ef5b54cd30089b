"""Checks of what callers give: a ``LocalProtocolError`` names the argument, and what would be right."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping

from .errors import LocalProtocolError

__all__ = [
    "check_amount",
    "check_env",
    "check_seconds",
    "checked_size",
    "encoded",
    "is_number",
    "is_system_text",
    "is_text",
]

HALF = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair, which UTF-8 has no bytes for."""


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_text(value: object) -> bool:
    """Whether it is a ``str`` that UTF-8 can say."""
    return isinstance(value, str) and HALF.search(value) is None


def is_system_text(value: object) -> bool:
    """Whether it is a ``str`` that the system takes: for a path, an argument, or a variable."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return True


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


def check_amount(name: str, amount: object, least: int, unit: str) -> None:
    """Raises ``LocalProtocolError`` where `amount`, the argument called `name`, is no number from `least` to infinity."""
    if not (is_number(amount) and amount >= least):  # type: ignore[operator]
        raise LocalProtocolError(
            f"{name} is a number of {unit}, {least} or more, or math.inf, not {amount!r}"
        )


def checked_size(max_message_size: float) -> float:
    """`max_message_size`, where it is a number of bytes."""
    check_amount("max_message_size", max_message_size, 1, "bytes")
    return max_message_size


def check_env(env: object, is_fine: Callable[[object], bool]) -> None:
    """Raises ``LocalProtocolError`` where `env` names no variables with texts that are fine; ``None`` has none."""
    if env is None:
        return
    if not (isinstance(env, Mapping) and all(map(is_fine, (*env, *env.values())))):
        raise LocalProtocolError("env maps names of variables to texts, without NUL characters")
    if any("=" in name or not name for name in env):
        raise LocalProtocolError("a name in env is not empty, and has no = in it")
