"""What the command line shows of the messages of a kernel, and a line about code that is quiet.

* What the code writes goes where the code wrote it, as it is, and at once.
* The progress line is on standard error, where that is a terminal, and gone before anything else is
  written. It is never put behind output whose line has not ended, nor beside an open prompt.
* One thing is written at a time. What is read slowly holds up what goes the same way, and nothing else.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
import sys
from collections.abc import Mapping
from typing import Any

import click
import trio

from .. import Message
from ..outputs import bundle_text
from .json_values import without_odd_numbers
from .progress import Progress
from .writer import Writer

__all__ = [
    "JsonOutput",
    "Output",
    "as_line",
    "exit_status",
    "json_of",
    "printable",
]

QUIET = 1.0
"""Seconds without output after which the progress line is shown."""

REFRESH = 0.1
"""Seconds between two looks of it."""

LAST_WORD = 1.0
"""Seconds that the end of the command may wait for who reads it."""

EXIT = "SystemExit"
"""What Python calls the end of a program that wants to end."""

ERASE = "\r\x1b[2K"
"""What clears a line of a terminal."""


def printable(text: str) -> str:
    """`text` with nothing that moves the cursor."""
    return "".join(each if each.isprintable() else "?" for each in text)


def exit_status(content: Mapping[str, Any]) -> int | None:
    """The status that code with this error, or this reply, has ended its program with; ``None`` where it has not."""
    if content.get("ename") == EXIT:
        said = str(content.get("evalue") or "")
        if said in ("", "None"):
            return 0
        return int(said) & 0xFF if re.fullmatch(r"[+-]?\d+", said, re.ASCII) else None
    return 0 if any(each.get("source") == "ask_exit" for each in payloads(content)) else None


def payloads(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a reply with this content wants its front end to do.

    Source: "Payloads (DEPRECATED)" of the Jupyter messaging specification; ipykernel goes on with them.
    """
    payload = content.get("payload")
    return [each for each in payload if isinstance(each, dict)] if isinstance(payload, list) else []


def is_plain() -> bool:
    """Whether nobody wants colours, nor anything else that a terminal may not know."""
    # Source: no-color.org.
    return bool(os.environ.get("NO_COLOR")) or is_dumb()


def is_dumb() -> bool:
    """Whether the terminal knows no more than lines."""
    return os.environ.get("TERM", "dumb") == "dumb"


class Output:
    """Shows messages as a person expects them."""

    def __init__(self) -> None:
        self.stdout: Writer = Writer(sys.stdout)
        self.stderr: Writer = Writer(sys.stderr)
        together = self.stdout.is_same_as(self.stderr)
        self._out_turn = trio.Lock()
        self._err_turn = self._out_turn if together else trio.Lock()
        self._progress: Progress | None = None
        self._error_shown = False
        self._clear_at_next = False
        self._doing = self._hint = ""
        self._line_open = False
        self._prompt_open = ""
        self._began = self._written = 0.0

    def begin(self, what: str, hint: str) -> None:
        """From here on `what` goes on; the `hint` says what can be done about it."""
        self._doing, self._hint = printable(what), hint
        self._error_shown = self._clear_at_next = False
        self._began = self._written = trio.current_time()

    def say(self, hint: str) -> None:
        """Another hint, which is shown without delay."""
        self._hint, self._written = hint, -math.inf

    async def end(self) -> None:
        """It goes on no more."""
        self._doing = ""
        await self._hide_progress()

    async def message(self, channel: str, msg: Message) -> None:
        """Shows what there is to see of a message."""
        content = msg.content
        if msg.msg_type == "stream":
            stream = self.stderr if content.get("name") == "stderr" else self.stdout
            await self._write(stream, str(content.get("text", "")))
        elif msg.msg_type in ("execute_result", "display_data", "update_display_data"):
            await self._bundle(content.get("data"))
        elif msg.msg_type == "clear_output":
            await self._clear(wait=bool(content.get("wait")))
        elif msg.msg_type == "error" or channel == "shell":
            if not self._error_shown:
                await self._error(content)
            if channel == "shell":
                await self._pages(content)

    async def note(self, text: str) -> None:
        """Says something of our own, on a line of its own."""
        await self._write(self.stderr, f"\n{text}\n" if self._line_open else f"{text}\n")

    async def last_note(self, text: str) -> None:
        """The same at the end, which nobody's reading holds up."""
        with trio.move_on_after(LAST_WORD):
            await self.note(text)

    async def open_prompt(self, text: str) -> None:
        """Shows the prompt of a question; nothing else is drawn until it is closed."""
        self._prompt_open = text or " "
        await self._write(self._prompt_writer(), text)

    async def close_prompt(self, *, echoed: bool) -> None:
        """Ends the line of the prompt, unless the terminal has `echoed` its end. Never cancelled, and bounded."""
        if not echoed:
            with trio.move_on_after(LAST_WORD, shield=True):
                await self._write(self._prompt_writer(), "\n")
        self._prompt_open = ""
        self._line_open = False

    # The progress line.

    async def draw_progress(self) -> None:
        """Shows the progress line while there is reason to; runs until it is cancelled."""
        if not self.stderr.is_terminal or is_dumb():
            return
        self._progress = Progress(self.stderr)
        try:
            while True:
                await trio.sleep(REFRESH)
                async with self._err_turn:
                    await self._draw(self._progress)
        finally:
            await self.stand_back()

    async def _draw(self, progress: Progress) -> None:
        now = trio.current_time()
        quiet = now - self._written >= QUIET and not self._line_open and not self._prompt_open
        if self._doing and quiet:
            await progress.show(f"{self._doing}, {now - self._began:.0f} s ({self._hint})")

    async def stand_back(self) -> None:
        """Leaves the terminal as it was, for whoever has it next. Never cancelled, and bounded."""
        with trio.move_on_after(LAST_WORD, shield=True):
            await self._hide_progress()

    async def come_back(self) -> None:
        """Shows again what was open when the terminal was somebody else's."""
        if self._prompt_open.strip():
            await self._write(self._prompt_writer(), self._prompt_open)

    async def _hide_progress(self) -> None:
        if self._progress is not None and self._progress.shown:
            async with self._err_turn:
                await self._progress.hide()

    # What is written.

    def _prompt_writer(self) -> Writer:
        return self.stdout if self.stdout.is_terminal else self.stderr

    async def _bundle(self, data: object) -> None:
        if isinstance(data, dict) and data:
            await self._write(self.stdout, f"{bundle_text(data)}\n")

    async def _clear(self, *, wait: bool) -> None:
        # The last line: a terminal's earlier ones may have scrolled away.
        if wait:
            self._clear_at_next = True
        elif self.stdout.is_terminal and not is_dumb():
            await self._write(self.stdout, ERASE)
            self._line_open = False

    async def _pages(self, content: dict[str, Any]) -> None:
        """What a person would be shown in a pager: the help that ``name?`` asks for."""
        for each in payloads(content):
            if each.get("source") == "page":
                data = each.get("data")
                text = bundle_text(data) if isinstance(data, dict) and data else each.get("text")
                text = self._coloured(str(text or ""), self.stdout)
                await self._write(self.stdout, f"{text.rstrip()}\n")

    async def _error(self, content: dict[str, Any]) -> None:
        if content.get("status", "error") == "ok":
            return
        traceback = content.get("traceback")
        if content.get("ename") == EXIT:
            # A program that ends is none that failed; and where it says why, no more is to be said.
            traceback = [] if exit_status(content) is not None else [content.get("evalue")]
            if not traceback:
                return
        if isinstance(traceback, list):
            traceback = "\n".join(map(str, traceback))
        text = str(traceback or f"{content.get('ename') or 'Error'}: {content.get('evalue') or ''}")
        self._error_shown = True
        await self._write(self.stderr, f"{self._coloured(text, self.stderr)}\n")

    def _coloured(self, text: str, writer: Writer) -> str:
        """`text`, which a kernel has coloured, as `writer` can show it."""
        return text if writer.is_terminal and not is_plain() else click.unstyle(text)

    async def _write(self, writer: Writer, text: str) -> None:
        if self._clear_at_next and text:
            self._clear_at_next = False
            await self._clear(wait=False)
        await self._hide_progress()
        async with self._out_turn if writer is self.stdout else self._err_turn:
            await writer.write(text)
            self._written = trio.current_time()
            if text and writer.is_terminal:
                self._line_open = not text.endswith("\n")


class JsonOutput(Output):
    """Prints each message as one line of JSON; buffers as base64."""

    async def message(self, channel: str, msg: Message) -> None:
        """Prints all of it."""
        await self._write(self.stdout, as_line(json_of(channel, msg)))

    async def draw_progress(self) -> None:
        """Draws nothing: a program reads this."""

    def _prompt_writer(self) -> Writer:
        return self.stderr


def json_of(channel: str, msg: Message) -> dict[str, Any]:
    """All of a message."""
    buffers = [base64.b64encode(buffer).decode() for buffer in msg.buffers]
    return {"channel": channel, **msg.to_dict(), "buffers": buffers}


def as_line(value: object) -> str:
    """`value` as one line of JSON; what is no number there (``NaN``, ``Infinity``) is ``null``."""
    try:
        return f"{json.dumps(value, allow_nan=False)}\n"
    except ValueError:
        return f"{json.dumps(without_odd_numbers(value), allow_nan=False)}\n"
