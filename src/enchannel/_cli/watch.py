"""``enchannel watch``: what goes on in a running kernel, as somebody sees it who only listens.

* All that is known comes on iopub: what the kernel says of its work, and in the parent headers who asked for it.
* What a kernel or its users have written moves no cursor: control characters are shown as question marks.
* A line says one thing, and is written when that is known. On a terminal there is one more line below them, about now.
* It is joined at any moment: what began before is told as far as what follows shows it.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import attrs
import trio

from .. import KernelChannels, KernelDied, Message, Subscription, list_running_kernels
from .._groups import unwrapping_task_group
from .._signals import heard
from ..outputs import bundle_text, plain_text
from .command import Failure, stop_until_continued
from .output import as_line, is_dumb, json_of, printable
from .progress import Progress
from .target import Target
from .writer import Writer

__all__ = ["Watch"]

REFRESH = 0.1
"""Seconds between two looks of the line about now."""

MEETING = 0.5
"""Seconds that an idle kernel may take to answer, when it is joined."""

MOST_REQUESTS = 1_000
"""Requests that are remembered until the kernel says that it is done with them; some are lost."""

MOST_LINES = 20
"""Of one piece of code, or of one text; the others are counted."""


@attrs.define
class Request:
    """What somebody has asked for, and the kernel has begun."""

    msg_type: str
    who: str
    began: float
    code: str = ""
    label: str = ""


class Watch:
    """One run of the command; called, it returns the exit status.

    Args:
        target: The kernel.
        record: A file to record in, for ``enchannel.testing``.
        as_json: Whether to print each message as a line of JSON, and no lines for a person.
    """

    def __init__(self, target: Target, *, record: Path | None, as_json: bool) -> None:
        self._target = target
        self._record = record
        self._as_json = as_json
        self._stdout = Writer(sys.stdout)
        self._requests: dict[str, Request] = {}
        self._restarts = 0
        self._is_met = True

    async def __call__(self) -> int:
        if self._target.existing is None:
            running = (kernel for kernel in await list_running_kernels() if kernel.alive)
            newest = next(running, None)
            if newest is None:
                raise Failure("no kernel is running here that could be watched")
            self._target.existing = str(newest.connection_file)
        async with AsyncExitStack() as stack:
            ch = await stack.enter_async_context(self._target.open_channels())
            if self._record is not None:
                await stack.enter_async_context(ch.record(self._record))
            stream = await stack.enter_async_context(ch.subscribe("iopub"))
            screen = Screen(self._stdout)
            async with unwrapping_task_group() as tasks:
                if self._stdout.is_terminal and not self._as_json and not is_dumb():
                    tasks.start_soon(screen.draw, lambda: self._now(ch))
                    tasks.start_soon(screen.give_way)
                tasks.start_soon(self._follow, ch, screen)
                tasks.start_soon(self._meet, ch, screen)
                await self._read(ch, stream, screen)
                tasks.cancel_scope.cancel()
        return 0

    async def _read(self, ch: KernelChannels, stream: Subscription, screen: Screen) -> None:
        try:
            async for channel, message in stream:
                await self._tell_restarts(ch, screen)
                if self._as_json:
                    await screen.write(as_line(json_of(channel, message)))
                    continue
                for line in self._lines(message):
                    await self._say(screen, line)
        except KernelDied as died:
            await self._tell_restarts(ch, screen)
            await self._say(screen, str(died), event="lost", reason=died.reason)

    async def _meet(self, ch: KernelChannels, screen: Screen) -> None:
        """Tells whether it runs something that began before."""
        with trio.move_on_after(MEETING), suppress(KernelDied):
            await ch.wait_idle()
            await self._say(screen, f"{self._watching}: the kernel is idle")
            return
        if ch.lost is not None:
            return
        self._is_met = False
        await self._say(screen, f"{self._watching}: the kernel is busy")
        with suppress(KernelDied):
            await ch.wait_idle()
        self._is_met = True

    @property
    def _watching(self) -> str:
        return f"watching {Path(self._target.existing or '').name}"

    async def _follow(self, ch: KernelChannels, screen: Screen) -> None:
        """Tells of restarts though nothing is said behind them."""
        async for _ in ch.statuses():
            await self._tell_restarts(ch, screen)

    async def _tell_restarts(self, ch: KernelChannels, screen: Screen) -> None:
        restarts = ch.statistics().restarts
        if restarts > self._restarts:
            self._restarts = restarts
            self._requests.clear()
            await self._say(screen, "the kernel was restarted", event="restarted")

    async def _say(self, screen: Screen, line: str, **event: object) -> None:
        if not self._as_json:
            await screen.write(f"{time.strftime('%H:%M:%S')}  {printable(line)}\n")
        elif event:
            await screen.write(as_line({**event, "message": line}))

    # What a message comes to.

    def _lines(self, message: Message) -> Iterator[str]:
        content, kind = message.content, message.msg_type
        request = self._request(message)
        if kind == "status":
            yield from self._status(message, request)
        elif kind == "execute_input":
            code = str(content.get("code") or "")
            request.code, request.label = code, f"[{content.get('execution_count', ' ')}]"
            yield from _told(f"{request.who}  {request.label}", code)
        elif kind == "stream":
            mark = "err" if content.get("name") == "stderr" else "out"
            yield from _told(
                f"{request.who}  {request.label} {mark}|", str(content.get("text") or "")
            )
        elif kind in ("execute_result", "display_data", "update_display_data"):
            data = content.get("data")
            mark = "=" if kind == "execute_result" else "shows"
            text = bundle_text(data) if isinstance(data, dict) and data else ""
            yield from _told(f"{request.who}  {request.label} {mark}", text)
        elif kind == "error":
            said = f"{content.get('ename') or 'Error'}: {content.get('evalue') or ''}"
            yield from _told(f"{request.who}  {request.label} raised", said)
        elif kind.startswith("comm_"):
            yield f"{request.who}  {kind} {content.get('target_name') or content.get('comm_id') or ''}"
        elif kind not in ("iopub_welcome", "clear_output"):
            yield f"{request.who}  {kind}"

    def _status(self, message: Message, request: Request) -> Iterator[str]:
        state = str(message.content.get("execution_state") or "")
        is_code = request.msg_type == "execute_request"
        if not message.parent_header:
            if state not in ("busy", "idle"):
                yield f"the kernel is {state}"
        elif state == "busy" and not is_code:
            yield f"{request.who}  asks: {request.msg_type}"
        elif state == "idle":
            self._requests.pop(message.parent_id, None)
            if is_code and request.label:
                yield f"{request.who}  {request.label} done after {trio.current_time() - request.began:.1f} s"
            elif is_code:
                yield f"{request.who}  done"

    def _request(self, message: Message) -> Request:
        parent = message.parent_header
        known = self._requests.get(message.parent_id)
        if known is not None or not parent:
            return known or Request("", "the kernel", trio.current_time())
        user, session = str(parent.get("username") or "somebody"), str(parent.get("session") or "")
        request = Request(
            str(parent.get("msg_type") or ""), f"{user} {session[:6]}".strip(), trio.current_time()
        )
        self._requests[message.parent_id] = request
        while len(self._requests) > MOST_REQUESTS:
            self._requests.pop(next(iter(self._requests)))
        return request

    def _now(self, ch: KernelChannels) -> str:
        running = [each for each in self._requests.values() if each.msg_type == "execute_request"]
        if ch.status == "busy" and running:
            first = running[0]
            line = (first.code.strip().splitlines() or ["code"])[0]
            since = trio.current_time() - first.began
            return printable(f"busy for {since:.0f} s: {first.label} {line} ({first.who})")
        return ch.status if self._is_met else "busy since before this began"


def _told(head: str, text: str) -> Iterator[str]:
    """Lines of what was said: `head` begins the first, and the others stand below it."""
    lines = [plain_text(line) for line in text.rstrip("\n").split("\n")] if text else [""]
    yield f"{head} {lines[0]}".rstrip()
    margin = " " * len(head)
    for line in lines[1:MOST_LINES]:
        yield f"{margin} {line}".rstrip()
    if len(lines) > MOST_LINES:
        yield f"{margin} ... {len(lines) - MOST_LINES} more lines"


class Screen:
    """Lines, and on a terminal one more below them, about now."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._progress = Progress(writer)
        self._turn = trio.Lock()

    async def write(self, text: str) -> None:
        """Writes lines."""
        async with self._turn:
            await self._progress.hide()
            await self._writer.write(text)

    async def draw(self, now: Callable[[], str]) -> None:
        """Shows what `now` says; until it is cancelled."""
        try:
            while True:
                async with self._turn:
                    await self._progress.show(now(), turning=False)
                await trio.sleep(REFRESH)
        finally:
            await self._stand_back()

    async def give_way(self) -> None:
        """Gives the terminal back when this program is stopped; until it is cancelled."""
        with heard(signal.SIGTSTP) as signals:
            async for _ in signals:
                await self._stand_back()
                stop_until_continued()

    async def _stand_back(self) -> None:
        with trio.move_on_after(1, shield=True):
            async with self._turn:
                await self._progress.hide()
