"""What a terminal, or a log, would show of outputs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import LocalProtocolError, text_of

__all__ = ["bundle_text", "plain_text", "text_of_outputs"]

MIME_TYPES = ("text/plain", "text/markdown", "text/latex", "text/html")
"""What a person can read, the best first."""

ESCAPES = re.compile(
    r"""\x1b(?: \[[0-?]*[ -/]*[@-~]             # CSI: colours, and what moves the cursor
              | \][^\x07\x1b]*(?:\x07|\x1b\\)?  # OSC: titles and links
              | [@-Z\\-_])""",
    re.VERBOSE,
)
"""Source: ECMA-48, section 5."""


def bundle_text(data: Mapping[str, Any]) -> str:
    """What of a MIME bundle a person can read best; some kernels send no plain text.

    Where there is no text in it: the types that are.
    """
    if not isinstance(data, Mapping):
        raise LocalProtocolError(
            f"a MIME bundle maps types to data, as output['data'] does, and is no {type(data).__name__}"
        )
    for mime_type in MIME_TYPES:
        if mime_type in data:
            return _joined(data[mime_type])
    return f"<{', '.join(data)}>"


def _joined(text: object) -> str:
    # nbformat allows a list of lines.
    return "".join(map(text_of, text if isinstance(text, list) else [text]))


def text_of_outputs(outputs: Iterable[Mapping[str, Any]]) -> str:
    """What a terminal would show of outputs in nbformat's shape, with the colours that are in them."""
    return "".join(map(_text_of_output, outputs))


def _text_of_output(output: Mapping[str, Any]) -> str:
    kind = output.get("output_type")
    if kind == "stream":
        return _joined(output.get("text"))
    if kind == "error":
        name, value = text_of(output.get("ename")), text_of(output.get("evalue"))
        return "".join(
            f"{text_of(line)}\n" for line in output.get("traceback") or [f"{name}: {value}"]
        )
    data = output.get("data")
    return f"{bundle_text(data)}\n" if data and isinstance(data, Mapping) else ""


def plain_text(text: str) -> str:
    """`text` as it looks on a terminal in the end, without colours.

    A carriage return goes back to the beginning of the line, and a backspace by one place, and what follows is written
    over what was there, as progress bars do it. Escape sequences are left out.
    """
    if not isinstance(text, str):
        raise LocalProtocolError(f"text is a str, not {type(text).__name__}")
    if "\x1b" in text:
        text = ESCAPES.sub("", text)
    if "\r" not in text and "\b" not in text:
        return text
    return "\n".join(_overwritten(line) for line in text.replace("\r\n", "\n").split("\n"))


def _overwritten(line: str) -> str:
    if "\b" not in line:
        return _overlaid(line.split("\r"))
    shown: list[str] = []
    at = 0
    for each in line:
        if each == "\r":
            at = 0
        elif each == "\b":
            at = max(at - 1, 0)
        else:
            shown[at : at + 1] = each
            at += 1
    return "".join(shown)


def _overlaid(pieces: list[str]) -> str:
    """Each piece over the one before, from the beginning; the last ones first, for most are covered whole."""
    shown = ""
    for piece in reversed(pieces):
        shown += piece[len(shown) :]
    return shown
