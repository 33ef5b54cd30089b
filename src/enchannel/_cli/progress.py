"""One transient line of a terminal: what goes on, and since when."""

from __future__ import annotations

import contextlib
import os

import trio
from rich.cells import set_cell_size

from .writer import Writer

__all__ = ["Progress"]

FRAME = 0.1
"""Seconds that one of these is shown."""

FRAMES, ASCII_FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", "|/-\\"

BEGIN, END = "\x1b[?25l", "\r\x1b[2K\x1b[?25h"
"""The cursor is hidden while the line is there."""

COLUMNS = 80
"""Of a terminal that does not say how many it has."""


class Progress:
    """The line.

    Attributes:
        shown: Whether it is there.
    """

    def __init__(self, writer: Writer) -> None:
        self.shown: bool = False
        self._line = ""
        self._writer = writer
        utf8 = writer.encoding.lower().replace("-", "") == "utf8"
        self._frames = FRAMES if utf8 else ASCII_FRAMES

    async def show(self, text: str, *, turning: bool = True) -> None:
        """Draws the line, or draws it anew where it says something else; one that is `turning` always does."""
        if turning:
            text = f"{self._frames[int(trio.current_time() / FRAME) % len(self._frames)]} {text}"
        # One that fills the last column would begin the next line of some terminals.
        width = max(self._columns() - 1, 1)
        shown = text.encode(self._writer.encoding, "replace").decode(self._writer.encoding)
        line = f"\r\x1b[2K{set_cell_size(shown, width).rstrip()}"
        if self.shown and line == self._line:
            return
        begin = "" if self.shown else BEGIN
        self.shown, self._line = True, line
        await self._writer.write(f"{begin}{line}")

    async def hide(self) -> None:
        """Removes the line, where it is shown."""
        if self.shown:
            await self._writer.write(END)
            self.shown = False

    def _columns(self) -> int:
        # Looked up each time: terminals are resized.
        with contextlib.suppress(OSError, ValueError):
            if self._writer.fd is not None:
                return os.get_terminal_size(self._writer.fd).columns or COLUMNS
        return COLUMNS
