"""A kernel that answers as a real one did, while it was recorded."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio

from .._exceptions import LocalProtocolError
from .._protocol.connection_info import ChannelName
from .._protocol.message import Message
from .._protocol.recording import read_recording
from ._ends import KernelEnd
from ._fake_kernel import FakeKernel, Request, TransportName
from ._opening import opened_on
from ._replay import Match, Replay
from ._request import topic_of

__all__ = ["RecordedKernel", "open_recorded_kernel"]

OPENING = 0.5
"""Seconds for the first client to have all its channels open: nobody says that they are."""


class RecordedKernel(FakeKernel):
    """A fake kernel that answers as recorded; made by :func:`open_recorded_kernel`.

    It dies where the recorded one was lost, for good to its channels, also where those of the
    recording outlived it; how that was noticed is not repeated. What may be scripted of a
    :class:`FakeKernel` has no effect.

    Example:
        .. code-block:: python

            async with ch.record("session.jsonl"):
                await ch.run("6 * 7")

            async with open_recorded_kernel("session.jsonl") as recorded:
                async with recorded.open_channels() as again:
                    await again.run("6 * 7")
                print(len(recorded.remaining))  # 0
    """

    def __init__(self, end: KernelEnd, transport: TransportName, replay: Replay) -> None:
        super().__init__(end, transport)
        self._replay = replay
        self._waiting: list[Request] = []
        self._met = False
        self.session: str = replay.session or self.session

    @property
    def remaining(self) -> Sequence[Message]:
        """What was asked in the recording, and has not been asked here."""
        return self._replay.remaining

    async def interrupt(self) -> None:
        """Interrupts it, as a kernel that is launched is interrupted by a signal. A checkpoint."""
        await self.wait_awake()
        self._replay.interrupt()
        await self._play()

    async def restart(self) -> None:
        """Dies and comes back, to go on with what was recorded behind a restart; its clients reconnect."""
        self._replay.restart()
        self._waiting.clear()
        await super().restart()

    def _new_session(self) -> str:
        return self._replay.session or super()._new_session()

    def _new_id(self) -> str:
        return self._replay.number(self.session) or super()._new_id()

    def _begin(self, *, again: bool) -> None:
        super()._begin(again=again)
        self._met = False
        self._start(self._meet)

    async def _meet(self) -> None:
        # What answered nobody may have come before anything was asked, and so may the end.
        await self._end.wait_client()
        await anyio.sleep(OPENING)
        self._met = True
        await self._play()

    async def _serve(self, channel: ChannelName) -> None:
        while True:
            request = await self._next(channel)
            self.transcript.received(channel, request.message)
            await self._take(request)

    async def _take(self, request: Request) -> None:
        message = request.message
        if message.msg_type == "kernel_info_request":
            # Asked by whoever opens channels, and behind whatever is waited for.
            self._waiting.append(request)
        elif message.msg_type == "interrupt_request":
            self._met = True
            self._replay.interrupt()
            await self._answer_with(request, lambda _: {})
        else:
            self._met = True
            self._replay.hear(request.channel, request.identity, message)
        await self._play()
        if message.msg_type == "shutdown_request":
            if message.content.get("restart"):
                await self.restart()
            else:
                self.die("the recorded kernel was shut down")

    async def _play(self) -> None:
        if self._met:
            self._say_what_is_due()
            if self._replay.over:
                self.die("the recorded kernel was lost here")
                return
        busy = self._replay.busy
        waiting, self._waiting = self._waiting, []
        for request in waiting:
            if busy and request.channel == "shell":
                self._waiting.append(request)
            else:
                await self._answer_with(request, self._info(request))

    def _say_what_is_due(self) -> None:
        for channel, identity, message in self._replay.due():
            for each in self._tampered(channel, message):
                self.transcript.sent(channel, each)
                if channel == "iopub":
                    self._end.publish(each, topic_of(each))
                else:
                    self._end.send(channel, identity, each)

    def _info(self, request: Request) -> Any:
        info = self._replay.info
        return self._behaviour.handler(request) if info is None else (lambda _: info)


@asynccontextmanager
async def open_recorded_kernel(
    path: str | os.PathLike[str],
    *,
    transport: TransportName = "memory",
    key: str | bytes = b"secret",
    match: Match | None = None,
    in_order: bool = True,
) -> AsyncIterator[RecordedKernel]:
    """A :class:`RecordedKernel`, which answers as a real one did, as an async context manager.

    What the program asks is looked for in what was asked when
    :meth:`enchannel.KernelChannels.record` wrote the file: by channel, type, content and buffers.
    It is answered with what came then, without the time that it took. What was said behind an
    interrupt or a restart comes behind :meth:`RecordedKernel.interrupt` (or an
    ``interrupt_request``) and :meth:`RecordedKernel.restart`. ``kernel_info_request`` is always
    answered. What was said before anything was asked, all of it where others were only watched,
    comes half a second behind the first client, or with what that asks.

    Args:
        path: The recording.
        transport: As for :func:`open_fake_kernel`.
        key: What messages are signed with; empty for unsigned messages.
        match: Whether what was recorded, its first argument, is what is asked now, its second;
            channel, type and subshell are the same already. By default that content and buffers are
            equal.
        in_order: Whether what had been replied to before something was sent must have been asked
            before it here as well. Where several tasks of the program race with one another, it is not.

    Raises:
        RecordingMismatch: Where the block is left, also by an error that follows from it: the program
            has asked for something else. An ``AssertionError``.
        RecordingError: The file is no recording.
        LocalProtocolError: On entry: `match` cannot be called, there is no such transport, or the
            key is none.
        OSError: It cannot be read.

    Example:
        .. code-block:: python

            async with ch.record("session.jsonl"):
                await ch.run("6 * 7")

            async with open_recorded_kernel("session.jsonl") as recorded:
                async with recorded.open_channels() as again:
                    done = await again.run("6 * 7")
                    print(done.text)  # 42
    """
    if match is not None and not callable(match):
        raise LocalProtocolError(f"match is called with two messages, which {match!r} cannot be")
    replay = Replay(read_recording(path), match, in_order=in_order)
    async with opened_on(
        transport, key, lambda end: RecordedKernel(end, transport, replay)
    ) as kernel:
        yield kernel
