"""Writing down what goes on between this client and its kernel, as a scope.

Each batch is written as it comes, and handed to the system at once, so that a program that crashes loses nothing of what
it had read. What we ask the kernel ourselves is none of the program's, and left out with what answers it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, TextIO, TypeAlias

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from .._exceptions import LocalProtocolError
from .._protocol.message import ChannelName, Message
from .._protocol.recording import Recorded, first_line, line_of

if TYPE_CHECKING:
    from .._core.core import Core, Happening

__all__ = ["Recording", "Redact", "record"]

Redact: TypeAlias = Callable[[Message], "Message | None"]
"""Takes a message; gives what is written in its place, or ``None`` to leave it out."""


class Recording:
    """A recording that is being made; by :meth:`KernelChannels.record`.

    It ends when its block is left, and what could not be written is raised there.

    Attributes:
        count: How many messages and other lines it has so far.
        failure: Why nothing more is written, ``None`` where it is.

    Example:
        .. code-block:: python

            def without_metadata(msg):
                return Message(msg.header, msg.parent_header, {}, msg.content)

            async with ch.record("s.jsonl", redact=without_metadata) as recording:
                await ch.run("6 * 7")
            print(recording.count)  # 6
    """

    def __init__(self, core: Core, file: TextIO, redact: Redact | None) -> None:
        self.count: int = 0
        self.failure: Exception | None = None
        self._core = core
        self._file = file
        self._redact = redact
        self._began = anyio.current_time()

    def __repr__(self) -> str:
        return f"<Recording {self.count} lines>"

    def observe(self, channel: ChannelName, arrived: Sequence[Message]) -> Sequence[Message]:
        """Writes what has arrived; must not raise."""
        asked_on = self._core.requests.questions.asked_on
        self._write(
            [
                Recorded(self._now(), "received", channel, message)
                for message in arrived
                if asked_on(message.parent_id) is None
            ]
        )
        return ()

    def witness(
        self, happening: Happening, channel: ChannelName | None, message: Message | None
    ) -> None:
        """Writes what was sent, and what else happens; must not raise."""
        self._write([Recorded(self._now(), happening, channel, message)])

    def close(self) -> None:
        """Nothing more is written; must not raise."""
        try:
            self._file.close()
        except OSError as error:
            # What could not be written is tried once more, and fails once more.
            self.failure = self.failure or error

    def _now(self) -> float:
        return anyio.current_time() - self._began

    def _write(self, several: Sequence[Recorded]) -> None:
        if self.failure is not None:
            return
        try:
            for recorded in several:
                written = self._redacted(recorded)
                if written is not None:
                    self._file.write(line_of(written))
                    self.count += 1
            self._file.flush()
        except Exception as error:  # noqa: BLE001
            # The reader task must not end of it; told when the block is left.
            self.failure = error

    def _redacted(self, recorded: Recorded) -> Recorded | None:
        if self._redact is None or recorded.message is None:
            return recorded
        message = self._redact(recorded.message)
        if message is None:
            return None
        if not isinstance(message, Message):
            raise LocalProtocolError(
                f"redact returns a Message, or None, and no {type(message).__name__}"
            )
        return Recorded(recorded.time, recorded.kind, recorded.channel, message)


def _begun(path: str, session: str) -> TextIO:
    # Surrogates are escaped, and so is every other character then.
    file = open(path, "w", encoding="ascii", newline="\n")  # noqa: SIM115
    try:
        file.write(first_line(session))
        file.flush()
    except BaseException:
        file.close()
        raise
    return file


_written: set[str] = set()
"""The files that are being written by this process."""


def record(
    core: Core, path: str | os.PathLike[str], redact: Redact | None
) -> AbstractAsyncContextManager[Recording]:
    """A recording; see :meth:`enchannel.KernelChannels.record`."""
    given: object = path
    if not isinstance(given, (str, os.PathLike)):
        # An integer would be a descriptor of the program's, and closed in the end.
        raise LocalProtocolError(f"path is that of a file, not {given!r}")
    if redact is not None and not callable(redact):
        raise LocalProtocolError(f"redact is called with each message, which {redact!r} cannot be")
    return _recorded(core, os.path.realpath(path), redact)


@asynccontextmanager
async def _recorded(core: Core, path: str, redact: Redact | None) -> AsyncIterator[Recording]:
    await checkpoint_if_cancelled()
    core.raise_if_over()
    if path in _written:
        raise LocalProtocolError(f"another recording is being written to {path}")
    recording = Recording(core, _begun(path, core.session), redact)
    _written.add(path)
    core.observers.append(recording.observe)
    core.witnesses.append(recording.witness)
    try:
        yield recording
    finally:
        core.observers.remove(recording.observe)
        core.witnesses.remove(recording.witness)
        recording.close()
        _written.discard(path)
    if recording.failure is not None:
        raise recording.failure
