"""What the command line writes: the messages of a kernel, and a line about code that is quiet.

* What the code writes goes where the code wrote it, as it is, and at once.
* The progress line is on standard error, where that is a terminal, and gone before anything else is
  written. It is never put behind output whose line has not ended, nor beside an open prompt.
* It is drawn by a task: a thread would draw while something else is being written.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

import click
import trio

from .. import Message
from ..outputs import bundle_text

if TYPE_CHECKING:
    from rich.live import Live

__all__ = ["JsonOutput", "Output", "Progress", "is_terminal", "printable", "write"]

QUIET = 1.0
"""Seconds without output after which the progress line is shown."""

REFRESH = 0.1
"""Seconds between two looks of it."""

FRAMES, ASCII_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\"


def write(stream: TextIO | None, text: str) -> None:
    """Writes `text` at once, with escapes for what `stream` has no encoding for."""
    if stream is None:
        # Closed by whoever started us, as by ">&-".
        return
    try:
        stream.write(text)
    except UnicodeEncodeError:
        # A terminal without UTF-8, or a lone surrogate: show what can be shown.
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def printable(text: str) -> str:
    """`text` with nothing that moves the cursor."""
    return "".join(each if each.isprintable() else "?" for each in text)


class Progress:
    """One transient line: what runs, and since when."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=stream)
        utf8 = (stream.encoding or "").lower().replace("-", "") == "utf8"
        self._frames = FRAMES if utf8 else ASCII_FRAMES
        self._live: Live | None = None

    def show(self, text: str) -> None:
        """Draws the line, or draws it anew."""
        from rich.live import Live
        from rich.text import Text

        frame = self._frames[int(trio.current_time() / REFRESH) % len(self._frames)]
        shown = f"{frame} {text}".encode(self._console.encoding, "replace")
        line = Text(shown.decode(self._console.encoding), no_wrap=True, overflow="ellipsis")
        if self._live is None:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(line, refresh=True)

    def hide(self) -> None:
        """Removes the line, where it is shown."""
        if self._live is not None:
            live, self._live = self._live, None
            live.stop()


class Output:
    """Shows messages as a person expects them."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._error_shown = False
        self._running = ""
        self._hint = ""
        self._line_open = False
        self._prompt_open = False
        self._began = self._written = 0.0

    def begin(self, name: str) -> None:
        """From here on what is called `name` runs."""
        self._running = printable(name)
        self._hint = "Ctrl-C interrupts"
        self._error_shown = False
        self._began = self._written = trio.current_time()

    def interrupted(self) -> None:
        """It was told to stop, and may take its time."""
        self._hint = "interrupted; Ctrl-C again stops"
        self._hide_progress()

    def end(self) -> None:
        """It runs no more."""
        self._running = ""
        self._hide_progress()

    def message(self, channel: str, msg: Message) -> None:
        """Shows what there is to see of a message."""
        content = msg.content
        if msg.msg_type == "stream":
            stream = sys.stderr if content.get("name") == "stderr" else sys.stdout
            self._write(stream, str(content.get("text", "")))
        elif msg.msg_type in ("execute_result", "display_data", "update_display_data"):
            data = content.get("data")
            if isinstance(data, dict) and data:
                self._write(sys.stdout, f"{bundle_text(data)}\n")
        elif msg.msg_type == "error" or (channel == "shell" and not self._error_shown):
            self._error(content)

    def note(self, text: str) -> None:
        """Says something of our own, on a line of its own."""
        self._write(sys.stderr, f"\n{text}\n" if self._line_open else f"{text}\n")

    def open_prompt(self, text: str) -> None:
        """Shows the prompt of a question; nothing else is drawn until it is closed."""
        self._prompt_open = True
        self._write(self._prompt_stream(), text)

    def close_prompt(self, *, echoed: bool) -> None:
        """Ends the line of the prompt, unless the terminal has `echoed` its end."""
        if not echoed:
            self._write(self._prompt_stream(), "\n")
        self._prompt_open = self._line_open = False

    async def draw_progress(self) -> None:
        """Shows the progress line while there is reason to; runs until it is cancelled."""
        if not is_terminal(sys.stderr) or os.environ.get("TERM", "dumb") == "dumb":
            return
        self._progress = Progress(sys.stderr)
        try:
            while True:
                await trio.sleep(REFRESH)
                self._draw()
        finally:
            self._hide_progress()

    def _draw(self) -> None:
        now = trio.current_time()
        quiet = now - self._written >= QUIET and not self._line_open and not self._prompt_open
        if self._progress is not None and self._running and quiet:
            self._progress.show(
                f"running {self._running}, {now - self._began:.0f} s ({self._hint})"
            )

    def _hide_progress(self) -> None:
        if self._progress is not None:
            self._progress.hide()

    def _prompt_stream(self) -> TextIO | None:
        return sys.stdout if is_terminal(sys.stdout) else sys.stderr

    def _error(self, content: dict[str, Any]) -> None:
        traceback = content.get("traceback")
        if content.get("status", "error") == "ok":
            return
        if isinstance(traceback, list):
            traceback = "\n".join(map(str, traceback))
        text = str(traceback or f"{content.get('ename') or 'Error'}: {content.get('evalue') or ''}")
        if not is_terminal(sys.stderr):
            text = click.unstyle(text)
        self._write(sys.stderr, f"{text}\n")
        self._error_shown = True

    def _write(self, stream: TextIO | None, text: str) -> None:
        self._hide_progress()
        write(stream, text)
        self._written = trio.current_time()
        if text and is_terminal(stream):
            self._line_open = not text.endswith("\n")


class JsonOutput(Output):
    """Prints each message as one line of JSON; buffers as base64."""

    def message(self, channel: str, msg: Message) -> None:
        """Prints all of it."""
        line = {"channel": channel, **msg.to_dict()}
        line["buffers"] = [base64.b64encode(buffer).decode() for buffer in msg.buffers]
        self._write(sys.stdout, json.dumps(line) + "\n")

    async def draw_progress(self) -> None:
        """Draws nothing: a program reads this."""

    def _prompt_stream(self) -> TextIO | None:
        return sys.stderr


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody looks at `stream`, which may be closed."""
    return stream is not None and stream.isatty()
