"""What a terminal, or a log, would show of outputs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .errors import LocalProtocolError, text_of

__all__ = ["bundle_text", "plain_text", "text_of_outputs"]

MIME_TYPES = ("text/plain", "text/markdown", "text/latex", "text/html")
"""What a person can read, the best first."""

ESCAPE = r"""(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]  # CSI: colours, and what moves the cursor
          | \x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?  # OSC: titles and links
          | \x1b[ -/]+[0-~]                   # character sets
          | \x1b[0-~]
          """
"""Source: ECMA-48, section 5; ECMA-35, section 13."""

ESCAPES = re.compile(ESCAPE, re.VERBOSE)
TOKENS = re.compile(rf"\r | \x08 | {ESCAPE} | [^\r\x08\x1b\x9b]+ | .", re.VERBOSE)
ERASE = re.compile(r"(?:\x1b\[|\x9b)([012]?)K")
"""To the end of the line, from its beginning, or all of it."""


def bundle_text(data: Mapping[str, Any]) -> str:
    """What of a MIME bundle a person can read best; some kernels send no plain text.

    That is plain text, Markdown, LaTeX or HTML, in this order. Where there is none of them: the
    types that there are.

    Args:
        data: Data by MIME type, such as the ``data`` of an output. A list of lines, which nbformat
            allows, is one text.

    Raises:
        LocalProtocolError: `data` is no mapping.

    Example:
        .. code-block:: python

            done = await ch.run("6 * 7")
            print(bundle_text(done.outputs[0]["data"]))  # 42
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
    """What a terminal would show of outputs in nbformat's shape, with the colours that are in them.

    Each display, and each error's traceback, ends in a line feed; of displays it is
    :func:`bundle_text`.

    Args:
        outputs: For example those of a cell of a notebook.

    Example:
        .. code-block:: python

            done = await ch.run("print('woo'); 6 * 7")
            streams = [
                each for each in done.outputs if each["output_type"] == "stream"
            ]
            print(text_of_outputs(streams))  # woo
    """
    return "".join(map(_text_of_output, outputs))


def _text_of_output(output: Mapping[str, Any]) -> str:
    kind = output.get("output_type")
    if kind == "stream":
        return _joined(output.get("text"))
    if kind == "error":
        lines = output.get("traceback")
        if not isinstance(lines, list) or not lines:
            lines = [f"{text_of(output.get('ename'))}: {text_of(output.get('evalue'))}"]
        return "".join(f"{text_of(line)}\n" for line in lines)
    data = output.get("data")
    return f"{bundle_text(data)}\n" if data and isinstance(data, Mapping) else ""


def plain_text(text: str) -> str:
    r"""`text` as it looks on a terminal in the end, without colours.

    A carriage return goes back to the beginning of the line, and a backspace by one place, and what
    follows is written over what was there, as progress bars do it; lines are erased. Other escape
    sequences are left out.

    Args:
        text: Such as :attr:`enchannel.CompletedExecution.text`.

    Raises:
        LocalProtocolError: `text` is no ``str``.

    Example:
        .. code-block:: python

            done = await ch.run(r"print('\x1b[31m 10 %\r100 %\x1b[0m')")
            print(plain_text(done.text))  # 100 %
    """
    if not isinstance(text, str):
        raise LocalProtocolError(f"text is a str, not {type(text).__name__}")
    if not any(each in text for each in "\r\b\x1b\x9b"):
        return text
    return "\n".join(map(_in_the_end, text.replace("\r\n", "\n").split("\n")))


def _in_the_end(line: str) -> str:
    if "\b" in line or ERASE.search(line):
        return _written(line)
    return _overlaid(ESCAPES.sub("", line).split("\r"))


def _written(line: str) -> str:
    shown: list[str] = []
    # What is blank up to there is not blanked again, or each of many erasures would take the whole line.
    at = blank = 0
    for piece in TOKENS.findall(line):
        erase = ERASE.fullmatch(piece)
        if piece == "\r":
            at = 0
        elif piece == "\b":
            at = max(at - 1, 0)
        elif erase is not None:
            if erase[1] in ("1", "2") and blank < at:
                shown[blank:at] = " " * (at - blank)
                blank = at
            if erase[1] != "1":
                del shown[at:]
        elif piece[0] not in "\x1b\x9b":
            blank = min(blank, at)
            shown[at : at + len(piece)] = piece
            at += len(piece)
    return "".join(shown).rstrip(" ") if ERASE.search(line) else "".join(shown)


def _overlaid(pieces: list[str]) -> str:
    """Each piece over the one before, from the beginning; the last ones first, for most are covered whole."""
    shown = ""
    for piece in reversed(pieces):
        shown += piece[len(shown) :]
    return shown
