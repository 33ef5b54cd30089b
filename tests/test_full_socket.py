"""A socket of the caller's that takes nothing for a while: what we ask behind something is asked when it does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import pytest

from enchannel import KernelChannels, NotImplementedByKernel
from memory_kernel import Kernel, conversation, executed, start
from virtual_clock import virtual_backend  # noqa: F401

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def filling_up() -> AsyncIterator[
    tuple[KernelChannels, Kernel, anyio.abc.TaskGroup, set[str]]
]:
    """A conversation, and the channels that are full."""
    full: set[str] = set()
    async with conversation() as (ch, kernel, tasks):
        client: Any = kernel.client
        give = client.give

        def give_where_there_is_room(channel: Any, frames: Any) -> None:
            if channel in full:
                raise anyio.WouldBlock
            give(channel, frames)

        client.give = give_where_there_is_room
        yield ch, kernel, tasks, full


async def test_an_execution_without_its_idle_is_not_over() -> None:
    async with filling_up() as (ch, kernel, tasks, full):
        task = start(tasks, executed, ch, "1")
        asked = await kernel.asked()
        full.update(("control", "shell"))
        kernel.status(asked[1], "busy")
        kernel.reply(asked)
        await anyio.sleep(50)
        assert not task.done.is_set()
        full.clear()
        other = await kernel.asked("control")
        kernel.reply(other, "control")
        kernel.status(other[1], "busy")
        execution, _ = await task.result()
        assert execution.complete


async def test_a_request_without_its_reply_is_not_over() -> None:
    async with filling_up() as (ch, kernel, tasks, full):
        task = start(tasks, ch.request, "inspect_request", {"code": "1", "cursor_pos": 1})
        asked = await kernel.asked()
        full.add("shell")
        kernel.status(asked[1], "busy")
        kernel.status(asked[1], "idle")
        await anyio.sleep(50)
        assert not task.done.is_set()
        full.clear()
        kernel.reply(await kernel.asked())
        with pytest.raises(NotImplementedByKernel):
            await task.result()


async def test_who_waits_for_an_idle_kernel_does_not_wait_for_ever() -> None:
    async with filling_up() as (ch, kernel, tasks, full):
        full.add("shell")
        task = start(tasks, ch.wait_idle)
        await anyio.sleep(50)
        assert not task.done.is_set()
        full.clear()
        kernel.reply(await kernel.asked())
        await task.result()
