"""Arguments that would fail much later, in a task of the fake kernel's, where nobody sees whose they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._exceptions import LocalProtocolError

__all__ = ["bundle", "check_callable", "check_content", "check_text"]


def check_text(what: str, value: object) -> None:
    """Refuses what is no text.

    Raises:
        LocalProtocolError: `value` is none; the message names it.
    """
    if not isinstance(value, str):
        raise LocalProtocolError(f"{what} is a str, not {value!r}")


def check_callable(what: str, value: object) -> None:
    """Refuses what cannot be called.

    Raises:
        LocalProtocolError: `value` cannot; the message names it.
    """
    if not callable(value):
        raise LocalProtocolError(f"{what} is a function, not {value!r}")


def bundle(data: str | Mapping[str, Any]) -> dict[str, Any]:
    """A MIME bundle of `data`, which may be plain text.

    Raises:
        LocalProtocolError: It is neither.
    """
    given: object = data
    if isinstance(given, str):
        return {"text/plain": given}
    if not isinstance(given, Mapping):
        raise LocalProtocolError(f"data is a MIME bundle or plain text, not {given!r}")
    return dict(given)


def check_content(who: str, returned: object) -> None:
    """Refuses what a function of the test returned, and is no content.

    Raises:
        TypeError: It is none; the message names who returned it.
    """
    if not isinstance(returned, Mapping):
        raise TypeError(f"{who} returned {returned!r}, which is no content")
