"""What several test modules say in the same words."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import FrameType
from typing import Any

import anyio
import anyio.abc

from enchannel import KernelChannels, KernelSpec, Message
from enchannel.testing import Request
from raw_kernel import message

SCRIPT = Path(__file__).with_name("scripted_kernel.py")


def scripted(*options: str, mode: str = "signal") -> KernelSpec:
    """The kernelspec of a kernel that is up in a tenth of a second, and does what `options` say."""
    argv = (sys.executable, str(SCRIPT), "{connection_file}", *options)
    return KernelSpec("scripted", argv, SCRIPT.parent, interrupt_mode=mode)


def is_there(pid: int) -> bool:
    """Whether there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def numbered(count: int, start: int = 0) -> list[Message]:
    return [message("stream", text=str(number)) for number in range(start, start + count)]


def texts(messages: list[Message]) -> list[int]:
    return [int(each.content["text"]) for each in messages]


async def take(stream: anyio.abc.ObjectReceiveStream[Any], count: int) -> list[Any]:
    return [await stream.receive() for _ in range(count)]


async def arrived(channels: KernelChannels, channel: str, count: int) -> None:
    """Waits until `count` messages have been delivered."""
    while channels.statistics().received[channel] < count:
        await anyio.sleep(0.001)


async def away(channels: KernelChannels) -> None:
    """Waits until the connection is away, or whoever launched the kernel has begun to restart it."""
    with anyio.fail_after(30):
        while not channels._core.life.away:
            await anyio.sleep(0)


async def beating(channels: KernelChannels) -> None:
    """Waits until the kernel has echoed a heartbeat."""
    with anyio.fail_after(15):
        while not channels._core.heartbeat.echoed:
            await anyio.sleep(0.001)


async def leaves_as_itself(
    block: AbstractAsyncContextManager[object], error: BaseException
) -> None:
    """Raises `error` in `block`, out of which it comes as the same object, with what it had."""
    context, cause = KeyError("context"), OSError("cause")
    caught: BaseException | None = None
    try:
        async with block:
            error.__context__, error.__cause__ = context, cause
            raise error
    except BaseException as left:
        caught = left
    assert caught is error
    assert error.__context__ is context
    assert error.__cause__ is cause


def fails(_: Request) -> None:
    """A step of a fake kernel that raises."""
    raise ZeroDivisionError("the step's own")


async def fails_when_ended(_: Request) -> None:
    """A step that raises when the life of the kernel ends."""
    try:
        await anyio.sleep(3600)
    finally:
        raise ZeroDivisionError("in the way of the restart")


def calls_of(function: Callable[[], object]) -> int:
    """How many calls it makes: what it takes, however fast the machine is."""
    counts = {"call": 0, "c_call": 0}

    def count(frame: FrameType, event: str, argument: object) -> None:
        if event in counts:
            counts[event] += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(before)
    return sum(counts.values())


async def freeze(pid: int) -> None:
    """Stops the process, and waits until each of its threads has stopped."""
    os.kill(pid, signal.SIGSTOP)
    for stat in Path(f"/proc/{pid}/task").glob("*/stat"):
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            await anyio.sleep(0.001)
