"""The command line from outside: as a program, and at a terminal with somebody who types."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

DEADLINE = 60
"""Seconds after which a test fails whatever it waits for."""


def enchannel(
    *arguments: str, stdin: str | IO[str] = "", **options: Any
) -> subprocess.CompletedProcess[str]:
    given: dict[str, Any] = {"input": stdin} if isinstance(stdin, str) else {"stdin": stdin}
    return subprocess.run(
        [sys.executable, "-m", "enchannel", *arguments],
        **given,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
        **options,
    )


_HEED = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
    signal.signal(number, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""

HEEDING = (sys.executable, "-c", _HEED)
"""Begins Python's arguments: who runs in the background, or by nohup, ignores signals, and so do those that he starts."""


class Terminal:
    """The command in a terminal of its own, and somebody who types there."""

    # A session leader takes its terminal; a Ctrl-C that is typed reaches whoever has it, and who logs in ignores
    # none, as a program in the background may.
    LOGIN = (
        "import fcntl, os, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
        "signal.signal(signal.SIGINT, signal.SIG_DFL); signal.signal(signal.SIGHUP, signal.SIG_DFL); "
        "os.execvp(sys.argv[1], sys.argv[1:])"
    )

    def __init__(
        self,
        *arguments: str,
        program: Sequence[str] = (sys.executable, "-m", "enchannel"),
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.fd, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.LOGIN, *program, *arguments],
            **{"stdin": slave, "stdout": slave, "stderr": slave, **options},
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", **(env or {})},
            start_new_session=True,
        )
        os.close(slave)
        self.shown = ""
        self._seen = 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for end in (self.fd, self.process.stdout, self.process.stderr):
            if isinstance(end, int):
                os.close(end)
            elif end is not None:
                end.close()

    def expect(self, pattern: str) -> re.Match[str]:
        """Waits for what is shown next to match; between two lines the progress line may come and go."""
        deadline = time.monotonic() + DEADLINE
        while (match := re.search(pattern, self.shown[self._seen :])) is None:
            assert self._read(deadline), f"{pattern!r} was never shown, but {self.shown[-2000:]!r}"
        self._seen += match.end()
        return match

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def wait(self) -> int:
        """Waits for the command to end, and returns its exit status."""
        deadline = time.monotonic() + DEADLINE
        while self._read(deadline):
            pass
        return self.process.wait(DEADLINE)

    def resize(self, columns: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))

    def echoes(self) -> bool:
        return bool(termios.tcgetattr(self.fd)[3] & termios.ECHO)

    def _read(self, deadline: float) -> bool:
        readable, _, _ = select.select([self.fd], [], [], deadline - time.monotonic())
        assert readable, f"nothing more was shown after {self.shown[-500:]!r}"
        try:
            chunk = os.read(self.fd, 65_536)
        except OSError:  # Linux says so when the other end is closed
            return False
        self.shown += chunk.decode(errors="replace")
        return bool(chunk)


def is_gone(pid: str) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(pid), 0)
        return False
    return True


def wait_for(path: Path) -> str:
    """What somebody else writes into a file."""
    deadline = time.monotonic() + DEADLINE
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} was never written"
        time.sleep(0.01)
    return path.read_text()
