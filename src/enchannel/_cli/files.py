"""The file that a notebook is written to, in the end.

* A regular file is whole or as it was before. Whoever has it open keeps what he had.
* Everything else is written to where it is: a pipe, a device, and where standard output or standard error go. There it
  comes behind what they were told, whatever they are. A reader may be slow, or never come: whoever waits for him can be
  cancelled.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import TextIO

import trio

from .command import Failure
from .writer import Writer

__all__ = ["check_writable", "free_name", "write_file"]

AGAIN = 0.1
"""Seconds until somebody may read a pipe by name that nobody reads; the system tells nobody when."""


def check_writable(path: Path) -> None:
    """Raises ``Failure`` before anything is run that would be lost."""
    if path.is_dir():
        raise Failure(f"{path} is a directory, and no file to write a notebook to")
    directory = Path(os.path.realpath(path)).parent
    if not path.exists() and not directory.is_dir():
        raise Failure(f"{path}: there is no directory {directory}")
    if not os.access(path if path.exists() else directory, os.W_OK):
        raise Failure(f"{path} may not be written")


def free_name(path: Path) -> Path:
    """A name beside `path` that nobody has taken."""
    ends = itertools.chain(["-run"], (f"-run-{number}" for number in itertools.count(2)))
    names = (path.with_name(f"{path.stem}{end}{path.suffix}") for end in ends)
    return next(name for name in names if not name.exists())


async def write_file(path: Path, data: bytes) -> None:
    """Writes `data` to `path`.

    Cancelled, a part of it may be written where it is no regular file.

    Raises:
        OSError: It cannot be written.
    """
    ours = _ours(path)
    if ours is not None:
        await _write_to(ours, data)
    elif _is_whole(path):
        _write_whole(path, data)
    else:
        while (stream := _opened(path)) is None:  # noqa: ASYNC110
            await trio.sleep(AGAIN)
        with stream:
            await _write_to(stream, data)


def _is_whole(path: Path) -> bool:
    return path.is_file() or not path.exists()


def _ours(path: Path) -> TextIO | None:
    """That of our own streams which goes to `path`."""
    for stream in (sys.stdout, sys.stderr):
        # One that is closed, and one that is none of the system's.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if os.path.samestat(path.stat(), os.fstat(stream.fileno())):
                return stream
    return None


def _opened(path: Path) -> TextIO | None:
    """What is no regular file; ``None`` where it is a pipe that nobody reads yet."""
    try:
        # So that to open it holds up nothing; what may block there is the writer's business.
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno == errno.ENXIO and path.is_fifo():
            return None
        raise
    return open(fd, "w", encoding="utf-8")


async def _write_to(stream: TextIO, data: bytes) -> None:
    with Writer(stream) as writer:
        await writer.write_bytes(data)


def _write_whole(path: Path, data: bytes) -> None:
    # What a link points to, and not the link.
    path = Path(os.path.realpath(path))
    try:
        _replace(path, data)
    except OSError as error:
        # A directory in which nothing can be made, or a file that is mounted by itself.
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EXDEV):
            raise
        path.write_bytes(data)


def _replace(path: Path, data: bytes) -> None:
    fd, temporary = tempfile.mkstemp(prefix=".enchannel-", dir=path.parent)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
        os.chmod(temporary, _mode(path))
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _mode(path: Path) -> int:
    with contextlib.suppress(OSError):
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
