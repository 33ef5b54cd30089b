"""One run of a kernel's command: its process group, what it writes, and its exit.

A kernel runs in a session and a process group of its own: a Ctrl-C at our terminal does not reach it, and what it
started is signalled and killed with it, by the group. What has left the group for one of its own is not found: the
system signals no session as a whole.
"""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping, Sequence

import anyio
import anyio.abc

from .._bell import Bell
from .._exceptions import KernelDied
from .._groups import shielded
from .._log import logger

__all__ = ["KernelProcess", "exit_text"]

OUTPUT_TAIL = 16_384
"""Bytes of the process's own output that are kept, to explain a failure."""

LAST_OUTPUT = 0.3
"""Seconds to read what an exited process has written; a daemon that it left behind may hold its output open."""

CLOSE_DEADLINE = 5.0
"""Seconds that letting go of a process may take."""

_ADDRESS_TAKEN = re.compile(
    rb"address (is )?already in use|address in use|EADDRINUSE", re.IGNORECASE
)


class KernelProcess:
    """A kernel's process; made by :meth:`start`.

    Attributes:
        ready: Whether the kernel has been ready.
        leaving: Whether it was told to exit, and may be saving something.
        exited: Set when it has exited, and :attr:`returncode` says how.
        told: Set when whoever is to know of that does.
        output_ended: Set when neither it nor what it started will write any more.
        address_taken: Set when it has complained of an address in use, before it was ready.
    """

    def __init__(self, process: anyio.abc.Process) -> None:
        self._process = process
        self.ready = False
        self.leaving = False
        self._output = bytearray()
        self._written = 0
        self._more = Bell()
        self._gone = False
        self.output_ended = anyio.Event()
        self.address_taken = anyio.Event()
        self.exited = anyio.Event()
        self.told = anyio.Event()

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        cwd: str | os.PathLike[str] | None,
        env: Mapping[str, str],
    ) -> KernelProcess:
        """Runs `command`. Not cancelled while it does.

        Raises:
            OSError: It cannot be run.
        """
        # A cancelled asyncio has started the process all the same, and nobody waits for it.
        with shielded():
            process = await anyio.open_process(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=env,
                start_new_session=True,
            )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    @property
    def output(self) -> str:
        """The tail of what it wrote to standard output and standard error."""
        return self._output.decode(errors="replace").strip()

    async def keep_output(self) -> None:
        """Reads what it writes, so that it never blocks, and keeps the tail."""
        assert self._process.stdout is not None
        with contextlib.suppress(
            anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError
        ):
            while True:
                piece = await self._process.stdout.receive()
                self._written += len(piece)
                self._output += piece
                del self._output[:-OUTPUT_TAIL]
                self._more.ring()
                if not self.ready and _ADDRESS_TAKEN.search(self._output):
                    self.address_taken.set()
        self.output_ended.set()
        self._more.ring()

    async def stream_output(self) -> AsyncIterator[str]:
        """What it writes from now on, until its output ends."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        seen = self._written
        while True:
            new = min(self._written - seen, len(self._output))
            seen = self._written
            if new:
                text = decoder.decode(bytes(self._output[-new:]))
                if text:
                    yield text
            elif self.output_ended.is_set() or self.told.is_set():
                # What it left behind may hold its output open.
                return
            else:
                await self._more.wait()

    async def wait(self) -> None:
        """Waits until it has exited, and ends what it has left behind in its process group."""
        await self._process.wait()
        self.signal(signal.SIGKILL)
        # From here on the number may become somebody else's.
        self._gone = True
        self.exited.set()

    async def wait_last_output(self) -> None:
        """Waits until all it wrote before it exited is kept."""
        with anyio.move_on_after(LAST_OUTPUT):
            await self.output_ended.wait()

    def died(self) -> KernelDied:
        """What is raised of it, once it has exited."""
        said = f"the kernel's process {exit_text(self.returncode)}"
        return KernelDied(said, "exited", self.output)

    def tell(self) -> None:
        """Whoever is to know of its exit does."""
        self.told.set()
        self._more.ring()

    async def cancel_at_exit(self, scope: anyio.CancelScope) -> None:
        """Cancels `scope` when it has exited."""
        await self.exited.wait()
        scope.cancel()

    def signal(self, number: int) -> None:
        """Signals the process group: the process and what it started; none of them may be there any more."""
        if self._gone:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def aclose(self) -> None:
        """Lets go of the process. What it started may still hold its output."""
        if self.returncode is None:
            # AnyIO would wait for it, for ever.
            logger().warning("the kernel's process %d cannot be ended", self.pid)
            assert self._process.stdout is not None
            await self._process.stdout.aclose()
            return
        with anyio.move_on_after(CLOSE_DEADLINE, shield=True):
            await self._process.aclose()


def exit_text(returncode: int | None) -> str:
    """How a process ended, for the end of a sentence."""
    if returncode is None or returncode >= 0:
        return f"exited with status {returncode}"
    try:
        return f"was ended by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was ended by signal {-returncode}"
