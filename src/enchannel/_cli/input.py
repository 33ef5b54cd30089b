"""Standard input of the command line: the answers to what the code asks for.

* Nothing is read before the code asks, and no more is taken from a terminal than the line that answers.
* No thread: one that reads a terminal cannot be stopped, and would take the next line from the shell.
  What can be waited for is waited for, everything else (a regular file, the null device) never blocks.
* The echo of a terminal is off while a password is typed, and back on every way out.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import trio

from .output import Output

__all__ = ["Input", "Lines", "TerminalInput", "open_input"]

PROMPT_GRACE = 0.05
"""Seconds before a prompt is shown: what was printed before it comes on another socket."""

READ_SIZE = 65_536


class Lines:
    """The lines of a file descriptor, read when they are asked for."""

    def __init__(self, fd: int, encoding: str = "utf-8") -> None:
        self._fd = fd
        self._encoding = encoding
        self._buffer = bytearray()
        self._waits = _can_be_waited_for(fd)

    async def receive(self) -> str | None:
        """The next line without its end, or ``None`` behind the last one.

        A checkpoint; cancelled, it has lost nothing.
        """
        end = self._buffer.find(b"\n")
        while end < 0:
            chunk = await self._read()
            if not chunk:
                return self._take(len(self._buffer)) if self._buffer else None
            self._buffer += chunk
            end = self._buffer.find(b"\n")
        return self._take(end + 1)

    async def _read(self) -> bytes:
        while True:
            if self._waits:
                await trio.lowlevel.wait_readable(self._fd)
            else:
                await trio.lowlevel.checkpoint()
            try:
                return os.read(self._fd, READ_SIZE)
            except BlockingIOError:
                # Somebody else who has it was faster.
                continue
            except OSError as error:
                # A terminal that was closed.
                if error.errno == errno.EIO:
                    return b""
                raise

    def _take(self, size: int) -> str:
        line = bytes(self._buffer[:size])
        del self._buffer[:size]
        return line.decode(self._encoding, "replace").rstrip("\r\n")


def _can_be_waited_for(fd: int) -> bool:
    mode = os.fstat(fd).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or os.isatty(fd)


class Input:
    """Answers from a pipe or a file, a line each; the prompts are for nobody to see."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines

    async def answer(self, prompt: str, password: bool) -> str | None:  # noqa: ARG002
        """What answers `prompt`; ``None`` when standard input has ended."""
        return await self._lines.receive()

    def stand_back(self) -> None:
        """Somebody else has the terminal."""

    def come_back(self) -> None:
        """He has it no more."""


class TerminalInput(Input):
    """Answers by whoever sits at the terminal."""

    def __init__(self, lines: Lines, fd: int, output: Output) -> None:
        super().__init__(lines)
        self._fd = fd
        self._output = output
        # What the terminal is set to, while that is changed.
        self._before: list[Any] | None = None

    async def answer(self, prompt: str, password: bool) -> str | None:
        """Shows `prompt` and reads the line that is typed, a password without echo."""
        await trio.sleep(PROMPT_GRACE)
        line = None
        with self._no_echo() if password else nullcontext():
            try:
                await self._output.open_prompt(prompt)
                line = await self._lines.receive()
            finally:
                # The terminal has echoed the end of a line that was typed in the open.
                await self._output.close_prompt(echoed=line is not None and not password)
        return line

    def stand_back(self) -> None:
        """Leaves the terminal as it was, for whoever has it next."""
        if self._before is not None:
            # Nothing waits for what was written to be shown, which a terminal may have been told to stop.
            termios.tcsetattr(self._fd, termios.TCSANOW, self._before)

    def come_back(self) -> None:
        """Takes it back."""
        if self._before is not None:
            self._silence(self._before)

    @contextmanager
    def _no_echo(self) -> Iterator[None]:
        """A terminal that does not show what is typed."""
        self._before = termios.tcgetattr(self._fd)
        self._silence(self._before)
        try:
            yield
        finally:
            self.stand_back()
            self._before = None

    def _silence(self, before: Sequence[Any]) -> None:
        silent = list(before)
        silent[3] &= ~termios.ECHO
        # What was typed ahead was seen, and is no password.
        termios.tcflush(self._fd, termios.TCIFLUSH)
        termios.tcsetattr(self._fd, termios.TCSANOW, silent)


def open_input(output: Output) -> Input:
    """Standard input, whatever it is."""
    if sys.stdin is None:
        return Input(Lines(os.open(os.devnull, os.O_RDONLY)))
    fd = sys.stdin.fileno()
    lines = Lines(fd, sys.stdin.encoding)
    return TerminalInput(lines, fd, output) if os.isatty(fd) else Input(lines)
