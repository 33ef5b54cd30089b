"""Cancelled at every single await, an operation leaves nothing behind and costs no message.

Each operation is run again and again, cancelled at its first suspension, then at its second, and so on until
it is done before it is cancelled. After each the channels are as they were, and work.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from enchannel import KernelChannels
from enchannel.testing import FakeKernel, ask, open_fake_kernel, result, stream
from raw_kernel import request

pytestmark = pytest.mark.anyio

MOST = 200
"""Suspensions that no operation here has."""


class CancelledAt:
    """Awaits a coroutine and cancels `scope` at its n-th suspension."""

    def __init__(self, coroutine: Coroutine[Any, Any, None], n: int, scope: anyio.CancelScope):
        self._coroutine = coroutine
        self._left = n
        self._scope = scope

    def __await__(self) -> Generator[Any, Any, None]:
        step: Callable[[], Any] = lambda: self._coroutine.send(None)  # noqa: E731
        while True:
            try:
                awaited = step()
            except StopIteration:
                return
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()
            try:
                value = yield awaited
                step = lambda value=value: self._coroutine.send(value)  # noqa: E731
            except BaseException as error:
                step = lambda error=error: self._coroutine.throw(error)  # noqa: E731


async def at_every_await(
    operation: Callable[[], Coroutine[Any, Any, None]], check: Callable[[], Awaitable[None]]
) -> int:
    """Runs `operation`, cancelled at each of its awaits, and `check` after each; returns their number."""
    for n in range(1, MOST):
        with anyio.CancelScope() as scope:
            await CancelledAt(operation(), n, scope)
        await check()
        if not scope.cancel_called:
            return n - 1
    raise AssertionError(f"more than {MOST} suspensions")


@asynccontextmanager
async def kernel_over(transport: Any) -> AsyncIterator[FakeKernel]:
    async with open_fake_kernel(transport=transport) as kernel:
        kernel.script("1", stream("one"), result("1"))
        kernel.script("ask", ask("? "))
        yield kernel


async def one_of_each(ch: KernelChannels) -> None:
    """The channels work, and each conversation is right."""
    with anyio.fail_after(10):
        assert (await ch.request("kernel_info_request")).content["status"] == "ok"
        async with ch.execute("1") as execution:
            await execution.wait()
        assert [each["output_type"] for each in execution.outputs] == ["stream", "execute_result"]


async def opened(ch: KernelChannels) -> None:
    """Every task of the channels runs, and what answers the questions of the opening is here as well."""
    await one_of_each(ch)
    with anyio.fail_after(10):
        while ch._core.requests._filed:
            await anyio.sleep(0.001)


async def until_usable(ch: KernelChannels) -> None:
    """Frees a kernel that an interrupt reached before the cell that asks: it would wait for ever."""
    with anyio.fail_after(30):
        while True:
            with anyio.move_on_after(0.5):
                await ch.request("kernel_info_request")
                return
            await ch.interrupt()


def waiters(ch: KernelChannels) -> tuple[Any, ...]:
    """Everything that somebody who waits leaves with the channels."""
    core, comms = ch._core, ch._conversations.comms
    requests, delivery = core.requests, core.delivery
    return (
        len(requests),
        len(requests._tied),
        requests.questions.waited_for,
        len(comms._comms),
        len(comms._targets),
        sum(map(len, delivery._feeds.values())),
        len(core.observers),
        len(core.scopes),
    )


async def send(ch: KernelChannels) -> None:
    await ch.main.send("shell", request("kernel_info_request"))


async def receive(ch: KernelChannels) -> None:
    async with ch.subscribe("shell") as replies:
        await ch.shell.send(request("kernel_info_request"))
        await replies.receive()


async def ask_for(ch: KernelChannels) -> None:
    await ch.request("kernel_info_request")


async def execute(ch: KernelChannels) -> None:
    async with ch.execute("1") as execution:
        async for _ in execution:
            pass


async def execute_and_interrupt(ch: KernelChannels) -> None:
    async with ch.execute("1", interrupt_on_cancel=True) as execution:
        await execution.wait()


async def answer(ch: KernelChannels) -> None:
    async def on_input(prompt: str, password: bool) -> str:
        await anyio.sleep(0)
        return "yes"

    # Or the kernel would wait for ever for what nobody will answer.
    async with ch.execute("ask", on_input=on_input, interrupt_on_cancel=True) as execution:
        await execution.wait()


async def comm(ch: KernelChannels) -> None:
    async with ch.open_comm("target") as comm:
        await comm.send({"x": 1})


async def accept(ch: KernelChannels) -> None:
    async with ch.accept_comms("target"):
        await anyio.sleep(0)


async def wait_idle(ch: KernelChannels) -> None:
    await ch.kernel_info()
    await ch.wait_idle()


OPERATIONS = (
    send,
    receive,
    ask_for,
    execute,
    execute_and_interrupt,
    answer,
    comm,
    accept,
    wait_idle,
)


@pytest.mark.parametrize("transport", ["memory", "tcp"])
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_operations(transport: str, operation: Any) -> None:
    async with kernel_over(transport) as kernel, kernel.open_channels() as ch:
        await opened(ch)
        before = waiters(ch)

        async def check() -> None:
            assert waiters(ch) == before
            if operation is answer:
                await until_usable(ch)
            await one_of_each(ch)
            assert waiters(ch) == before

        awaits = await at_every_await(lambda: operation(ch), check)
        # A send suspends only where it has to wait.
        assert awaits >= 1 or operation in (send, comm)


@pytest.mark.parametrize("transport", ["memory", "ipc", "tcp"])
async def test_opening_and_closing(transport: str) -> None:
    async with kernel_over(transport) as kernel:
        async with kernel.open_channels() as ch:
            await one_of_each(ch)
        before = len(os.listdir("/proc/self/fd"))

        async def operation() -> None:
            async with kernel.open_channels() as ch:
                await ch.request("kernel_info_request")

        async def check() -> None:
            with anyio.fail_after(10):
                # ZeroMQ closes sockets on a thread of its own.
                while len(os.listdir("/proc/self/fd")) > before:
                    await anyio.sleep(0.001)
            async with kernel.open_channels() as ch:
                await one_of_each(ch)

        assert await at_every_await(operation, check) >= 2


@pytest.mark.parametrize("transport", ["memory", "tcp"])
async def test_a_stream_that_is_cancelled_at_every_await_loses_nothing(transport: str) -> None:
    async with kernel_over(transport) as kernel, kernel.open_channels() as ch:
        received: list[str] = []

        async def operation() -> None:
            for _ in range(3):
                kernel.publish("stream", {"name": "stdout", "text": str(len(sent))})
                sent.append(str(len(sent)))
                received.append((await ch.iopub.receive()).content["text"])

        sent: list[str] = []

        async def check() -> None:
            with anyio.fail_after(10):
                while len(received) < len(sent):
                    received.append((await ch.iopub.receive()).content["text"])
            assert received == sent

        assert await at_every_await(operation, check) >= 3


async def test_a_send_that_is_cancelled_natively_has_sent_nothing(anyio_backend_name: str) -> None:
    """No shield of AnyIO's holds that off."""
    if anyio_backend_name != "asyncio":
        pytest.skip("Trio knows no other cancellation than a scope's")
    sent = []
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:

        async def send() -> None:
            sent.append(await ch.control.send(request("kernel_info_request")))

        before = {
            each.msg_id for each in kernel.transcript.messages("> control kernel_info_request")
        }
        for _ in range(200):
            task = asyncio.create_task(send())
            await anyio.lowlevel.checkpoint()
            task.cancel()
            await asyncio.wait([task])
        await ch.request("kernel_info_request", channel="control")
        heard = kernel.transcript.messages("> control kernel_info_request")
        assert 100 < len(sent) < 200
        assert {each.msg_id for each in sent} >= {each.msg_id for each in heard[:-1]} - before
