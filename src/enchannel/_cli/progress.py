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
        self._writer = writer
        utf8 = writer.encoding.lower().replace("-", "") == "utf8"
        self._frames = FRAMES if utf8 else ASCII_FRAMES

    async def show(self, text: str) -> None:
        """Draws the line, or draws it anew."""
        frame = self._frames[int(trio.current_time() / FRAME) % len(self._frames)]
        # One that fills the last column would begin the next line of some terminals.
        width = max(self._columns() - 1, 1)
        line = f"{frame} {text}".encode(self._writer.encoding, "replace")
        line_shown = set_cell_size(line.decode(self._writer.encoding), width).rstrip()
        begin = "" if self.shown else BEGIN
        self.shown = True
        await self._writer.write(f"{begin}\r\x1b[2K{line_shown}")

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
