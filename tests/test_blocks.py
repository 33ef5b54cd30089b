"""A block that another task leaves than the one that entered it: closed, and a plain error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest

from enchannel import exit_on_signals, open_channels, open_kernel, open_kernel_pool
from enchannel.testing import memory_transport_pair, open_fake_kernel
from helpers import is_there, scripted

pytestmark = pytest.mark.anyio

SAID = "was left by another task than the one that entered it"

Blocks = Callable[[], AbstractAsyncContextManager[Any]]


@asynccontextmanager
async def some_channels() -> AsyncIterator[Any]:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        yield ch


def channels() -> AbstractAsyncContextManager[Any]:
    return open_channels(memory_transport_pair("key")[0], owned=True)


def kernel() -> AbstractAsyncContextManager[Any]:
    return open_kernel(scripted())


async def left_by_another(block: AbstractAsyncContextManager[Any], *raised: Any) -> bool | None:
    with anyio.fail_after(20):
        return await block.__aexit__(*(raised or (None, None, None)))


class Elsewhere:
    """A task that enters a block and goes on."""

    def __init__(self, block: AbstractAsyncContextManager[Any]) -> None:
        self._block = block
        self.given: Any = None
        self.entered = anyio.Event()
        self.go = anyio.Event()
        self.goes_on = False

    async def run(self) -> None:
        self.given = await self._block.__aenter__()
        self.entered.set()
        await self.go.wait()
        self.goes_on = True


@asynccontextmanager
async def entered_elsewhere(block: AbstractAsyncContextManager[Any]) -> AsyncIterator[Elsewhere]:
    """Entered by another task, that fails as Trio and AnyIO have it when it ends."""
    elsewhere = Elsewhere(block)
    with pytest.RaisesGroup(RuntimeError, flatten_subgroups=True):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(elsewhere.run)
            await elsewhere.entered.wait()
            yield elsewhere
            elsewhere.go.set()
    assert elsewhere.goes_on


def pool() -> AbstractAsyncContextManager[Any]:
    return open_kernel_pool(scripted(), max_kernels=1)


@pytest.mark.parametrize("opening", [channels, kernel, pool, open_fake_kernel, exit_on_signals])
async def test_it_is_closed_and_a_plain_error_says_so(opening: Blocks) -> None:
    block = opening()
    async with entered_elsewhere(block):
        with pytest.raises(RuntimeError, match=SAID) as caught:
            await left_by_another(block)
        assert caught.value.__cause__ is None


async def test_the_error_that_left_the_body_is_its_cause() -> None:
    block, error = channels(), KeyError("the body's")
    async with entered_elsewhere(block):
        with pytest.raises(RuntimeError, match=SAID) as caught:
            await left_by_another(block, KeyError, error, None)
        assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3)])
async def test_ctrl_c_and_an_exit_win(error: BaseException) -> None:
    block = channels()
    async with entered_elsewhere(block):
        # It goes on as itself.
        assert await left_by_another(block, type(error), error, None) is False


async def test_who_is_cancelled_while_leaving_is_cancelled() -> None:
    block = channels()
    async with entered_elsewhere(block):
        with anyio.move_on_after(0.01) as scope:
            try:
                await anyio.sleep_forever()
            except BaseException as error:
                await block.__aexit__(type(error), error, None)
                raise
        assert scope.cancelled_caught


async def test_the_kernel_of_such_a_block_is_stopped() -> None:
    block = kernel()
    async with entered_elsewhere(block) as elsewhere:
        pid, file = elsewhere.given.pid, elsewhere.given.connection_file
        with pytest.raises(RuntimeError, match=SAID):
            await left_by_another(block)
        assert not is_there(pid)
        assert not file.exists()


async def test_its_channels_are_closed() -> None:
    block = channels()
    async with entered_elsewhere(block) as elsewhere:
        with pytest.raises(RuntimeError, match=SAID):
            await left_by_another(block)
        assert "closed" in repr(elsewhere.given)
        with pytest.raises(anyio.ClosedResourceError):
            await elsewhere.given.shell.send({"header": {"msg_type": "x"}})


@pytest.mark.parametrize("asks", [False, True])
async def test_an_execution_as_well(asks: bool) -> None:
    async with some_channels() as ch:

        async def answer(prompt: str, password: bool) -> str:
            await anyio.sleep_forever()
            raise AssertionError

        block = ch.execute("1", on_input=answer if asks else None)
        async with entered_elsewhere(block):
            with pytest.raises(RuntimeError, match="an execution was left by another"):
                await left_by_another(block)
        # The connection is none the worse.
        assert (await ch.run("1")).status == "ok"


@pytest.mark.parametrize("opening", [channels, kernel, open_fake_kernel])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_where_the_task_that_entered_has_ended(opening: Blocks, anyio_backend: str) -> None:
    """As with fixtures, handlers and cells on asyncio, which are tasks of asyncio's own."""
    block = opening()
    elsewhere = Elsewhere(block)
    elsewhere.go.set()
    await asyncio.create_task(elsewhere.run())
    with pytest.raises(RuntimeError, match=SAID):
        await left_by_another(block)
    # Nothing spins: AnyIO would try to cancel the ended task at each turn of the loop.
    began = time.process_time()
    await anyio.sleep(0.5)
    assert time.process_time() - began < 0.3


async def test_who_enters_may_leave_after_others_have_come_and_gone() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:

        async def one() -> None:
            async with kernel.open_channels() as mine:
                await mine.run("1")

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(one)
        assert (await ch.run("1")).status == "ok"
