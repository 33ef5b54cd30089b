"""What a fake kernel received and sent, to look at, wait for and assert.

One line stands for one message, as seen from the client:

.. code-block:: text

    > shell execute_request      the client sent it < iopub status busy          the kernel sent it
    * died                       something else happened
"""

from __future__ import annotations

import anyio
import attrs

from .._bell import Bell
from .._protocol.connection_info import ChannelName
from .._protocol.message import Message

__all__ = ["Entry", "Transcript"]


@attrs.frozen
class Entry:
    """One message, or something else that happened (`note`).

    Example:
        .. code-block:: python

            async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
                await ch.run("6 * 7")
                line = "> shell execute_request"
                entry = await kernel.transcript.wait_for(line)
                print(entry.message.content["code"])  # 6 * 7
    """

    time: float
    """By the event loop's clock, in seconds."""
    direction: str
    """``">"`` from the client, ``"<"`` from the kernel, ``"*"`` neither."""
    channel: ChannelName | None = None
    message: Message | None = None
    note: str = ""

    @property
    def line(self) -> str:
        """The line that stands for it."""
        if self.message is None:
            return f"* {self.note}"
        state = self.message.content.get("execution_state")
        told = None if state is None else str(state)
        return " ".join(filter(None, (self.direction, self.channel, self.message.msg_type, told)))


class Transcript:
    """All that a fake kernel received and sent, in order.

    Its ``str`` is the whole conversation, with times and ids. One line stands for one message, as
    seen from the client: ``"> shell execute_request"`` the client sent, ``"< iopub status busy"``
    the kernel did (of a status its state stands behind), and ``"* died"`` is something else that
    happened.

    Attributes:
        entries: All of it.

    Example:
        .. code-block:: python

            async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
                kernel.script("1 / 0", error("ZeroDivisionError"))
                await ch.run("1 / 0")
                transcript = kernel.transcript
                transcript.assert_has("> shell execute_request", "< iopub error")
                (sent,) = transcript.messages("> shell execute_request")
                print(sent.content["code"])  # 1 / 0
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self._failure: BaseException | None = None
        self._grown = Bell()

    def received(self, channel: ChannelName, message: Message) -> None:
        """The client sent `message`."""
        self._add(">", channel, message)

    def sent(self, channel: ChannelName, message: Message) -> None:
        """The kernel sent `message`."""
        self._add("<", channel, message)

    def fail(self, error: BaseException) -> None:
        """Nothing more happens: what the kernel does has failed."""
        self._failure = error
        self.note(f"failed: {error!r}")

    def note(self, note: str) -> None:
        """Something else happened."""
        self._add("*", note=note)

    def _add(
        self,
        direction: str,
        channel: ChannelName | None = None,
        message: Message | None = None,
        note: str = "",
    ) -> None:
        self.entries.append(Entry(anyio.current_time(), direction, channel, message, note))
        self._grown.ring()

    @property
    def lines(self) -> list[str]:
        """A line for each entry."""
        return [entry.line for entry in self.entries]

    def messages(self, line: str) -> list[Message]:
        """The messages that `line` stands for, for example ``"> shell execute_request"``."""
        return [
            entry.message
            for entry in self.entries
            if entry.message is not None and entry.line == line
        ]

    async def wait_for(self, line: str, count: int = 1) -> Entry:
        """Waits until `line` has happened `count` times; returns what happened that time.

        Put a deadline around it. Cancellation changes nothing.

        Raises:
            RuntimeError: It never will: what the kernel does has failed.
        """
        while len(found := [entry for entry in self.entries if entry.line == line]) < count:
            if self._failure is not None:
                raise RuntimeError(f"{line!r} never happens: the fake kernel has failed") from (
                    self._failure
                )
            await self._grown.wait()
        return found[count - 1]

    def assert_has(self, *lines: str) -> None:
        """Asserts that `lines` happened in this order, whatever else happened between them.

        Raises:
            AssertionError: They did not; it shows the whole conversation.
        """
        remaining = iter(self.lines)
        for number, line in enumerate(lines):
            if line not in remaining:
                before = f" after {lines[number - 1]!r}" if number else ""
                raise AssertionError(f"there is no {line!r}{before} in this conversation:\n{self}")

    def assert_is(self, *lines: str) -> None:
        """Asserts that exactly `lines` happened, in this order.

        Raises:
            AssertionError: They did not; it shows the whole conversation and what was expected.
        """
        if self.lines != list(lines):
            expected = "\n".join(f"    {line}" for line in lines)
            raise AssertionError(f"the conversation was\n{self}\nand not\n{expected}")

    def __str__(self) -> str:
        start = self.entries[0].time if self.entries else 0.0
        rows = [self._row(entry, start) for entry in self.entries]
        return "\n".join(rows) or "    (nothing)"

    @staticmethod
    def _row(entry: Entry, start: float) -> str:
        row = f"    {entry.time - start:8.3f} {entry.line}"
        if entry.message is not None:
            row += f"  [{entry.message.msg_id}"
            if entry.message.parent_id:
                row += f" for {entry.message.parent_id}"
            row += "]"
        return row
