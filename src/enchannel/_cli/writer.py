"""Standard output and standard error, written without holding up the event loop.

* What is written goes out in order and whole, however slowly the other end takes it; whoever writes waits for that, and
  nobody else does. Cancelled, the rest of it is not written.
* Somebody else may have the same open file (a shell, the next program of a pipe), and whether it blocks is theirs to
  choose. So a pipe and a terminal are opened anew, and are not to block there; a socket is asked anew each time.
* A regular file, or the null device, never makes anybody wait for long.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
from typing import TYPE_CHECKING, TextIO

import trio

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

__all__ = ["Writer", "is_terminal"]

PIECE = 65_536
"""Bytes that are given to the system at a time."""


class Writer:
    """What is written to `stream`, which may be closed: then it goes nowhere.

    Attributes:
        encoding: Of the text; what it has no bytes for is written with escapes.
        is_terminal: Whether somebody looks at it.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self.encoding: str = (stream.encoding if stream is not None else None) or "utf-8"
        self.is_terminal: bool = is_terminal(stream)
        self._stream = stream
        self.fd: int | None = _descriptor(stream)
        self._own: int | None = None
        self._give: Callable[[memoryview], int] | None = None
        self._turn = trio.Lock()
        self._opened_here = contextlib.ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Lets go of what it has opened itself; the stream stays as it is."""
        self._opened_here.close()

    async def write(self, text: str) -> None:
        """Writes `text`.

        A checkpoint.

        Raises:
            OSError: It cannot be written; ``BrokenPipeError`` where nobody reads it any more.
        """
        async with self._turn:
            if self.fd is not None:
                await self._write(memoryview(text.encode(self.encoding, "backslashreplace")))
            elif self._stream is not None:
                self._stream.write(text)
                self._stream.flush()

    async def write_bytes(self, data: bytes) -> None:
        """Writes `data` to a stream that is a descriptor of the system's; otherwise as :meth:`write`."""
        async with self._turn:
            await self._write(memoryview(data))

    async def _write(self, data: memoryview) -> None:
        if self._give is None:
            self._give = self._opened()
        while data:
            if self._own is not None:
                await trio.lowlevel.wait_writable(self._own)
            try:
                given = self._give(data[:PIECE])
            except BlockingIOError:
                continue
            data = data[given:]

    def _opened(self) -> Callable[[memoryview], int]:
        """What gives bytes to the system, and says how many it took."""
        assert self.fd is not None
        mode = os.fstat(self.fd).st_mode
        if stat.S_ISSOCK(mode):
            there = self._opened_here.enter_context(socket.socket(fileno=os.dup(self.fd)))
            self._own = there.fileno()
            return lambda data: there.send(data, socket.MSG_DONTWAIT)
        if stat.S_ISFIFO(mode) or os.isatty(self.fd):
            # Elsewhere than on Linux, or at the terminal of another user, there is none. What is written in pieces that
            # fit once there is room holds up nothing at a pipe, and at a terminal for as long as it shows them.
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY
            with contextlib.suppress(OSError):
                own = os.open(f"/proc/self/fd/{self.fd}", flags)
                self._opened_here.callback(os.close, own)
                self._own = own
                return lambda data: os.write(own, data)
            self._own = shared = self.fd
            return lambda data: os.write(shared, data[: select.PIPE_BUF])
        plain = self.fd
        return lambda data: os.write(plain, data)

    def is_same_as(self, other: Writer) -> bool:
        """Whether both end in the same file."""
        if self.fd is None or other.fd is None:
            return self._stream is other._stream
        return os.path.sameopenfile(self.fd, other.fd)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether somebody looks at `stream`, which may be closed."""
    return stream is not None and stream.isatty()


def _descriptor(stream: TextIO | None) -> int | None:
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
            return stream.fileno()
    return None
