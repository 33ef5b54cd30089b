"""A kernel in memory that says what the test says, in the order of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc

from enchannel import KernelChannels, Message, open_channels
from enchannel.testing import MemoryKernelEnd, MemoryTransport, memory_transport_pair
from raw_kernel import message


class Kernel:
    """The other end: says what the test says, in the order of the test."""

    def __init__(self, end: MemoryKernelEnd) -> None:
        self.end = end
        self.asked_on: dict[Any, list[tuple[bytes, Message]]] = {"shell": [], "control": []}

    @property
    def client(self) -> MemoryTransport:
        return self.end.clients[0]

    async def asked(self, channel: Any = "shell") -> tuple[bytes, Message]:
        with anyio.fail_after(100):
            return await self.end.receive(channel)

    def say(self, msg_type: str, parent: Message, **content: Any) -> None:
        self.end.publish(message(msg_type, parent, **content))

    def status(self, parent: Message, state: str) -> None:
        self.say("status", parent, execution_state=state)

    def ask(self, asked: tuple[bytes, Message], **content: Any) -> None:
        """Has the code that was asked to run ask for input."""
        identity, request = asked
        self.end.send("stdin", identity, message("input_request", request, **content))

    def reply(
        self,
        to: tuple[bytes, Message],
        channel: Any = "shell",
        *,
        session: str = "kernel",
        **content: Any,
    ) -> Message:
        identity, request = to
        kind = request.msg_type.replace("request", "reply")
        reply = message(kind, request, **{"status": "ok", **content})
        reply.header["session"] = session
        self.end.send(channel, identity, reply)
        return reply


@asynccontextmanager
async def conversation(
    **options: Any,
) -> AsyncIterator[tuple[KernelChannels, Kernel, anyio.abc.TaskGroup]]:
    transport, end = memory_transport_pair("key")
    async with open_channels(transport, **options) as ch, anyio.create_task_group() as tasks:
        yield ch, Kernel(end), tasks
        tasks.cancel_scope.cancel()


class Task:
    """What a coroutine returned or raised, for those that run beside the test."""

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.value: Any = None
        self.error: BaseException | None = None

    async def run(self, function: Any, *args: Any) -> None:
        try:
            self.value = await function(*args)
        except Exception as error:
            self.error = error
        self.done.set()

    async def result(self) -> Any:
        with anyio.fail_after(100):
            await self.done.wait()
        if self.error is not None:
            raise self.error
        return self.value


def start(tasks: anyio.abc.TaskGroup, function: Any, *args: Any) -> Task:
    task = Task()
    tasks.start_soon(task.run, function, *args)
    return task


async def executed(ch: KernelChannels, code: str, **options: Any) -> Any:
    async with ch.execute(code, **options) as execution:
        seen = [msg.msg_type async for msg in execution]
    return execution, seen


async def answer_questions(kernel: Kernel, *channels: Any, publishes: bool = True) -> None:
    """Answers every kernel_info_request on `channels`, and keeps to itself what else is asked there."""

    async def answer(channel: Any) -> None:
        while True:
            asked = await kernel.end.receive(channel)
            kernel.asked_on[channel].append(asked)
            if asked[1].msg_type != "kernel_info_request":
                continue
            if publishes:
                kernel.status(asked[1], "busy")
            kernel.reply(asked, channel)
            if publishes:
                kernel.status(asked[1], "idle")

    async with anyio.create_task_group() as tasks:
        for channel in channels:
            tasks.start_soon(answer, channel)
