"""The status as it changes, for who shows it."""

from __future__ import annotations

import gc

import anyio
import pytest

from enchannel import KernelChannels
from enchannel.testing import open_fake_kernel
from memory_kernel import conversation, start
from raw_kernel import message

pytestmark = pytest.mark.anyio


async def followed(ch: KernelChannels, seen: list[str]) -> None:
    async for status in ch.statuses():
        seen.append(status)


async def test_what_is_true_now_comes_first_and_then_what_changes() -> None:
    seen: list[str] = []
    async with conversation() as (ch, kernel, tasks):
        following = start(tasks, followed, ch, seen)
        await anyio.wait_all_tasks_blocked()
        assert seen == ["unknown"]
        start(tasks, ch.request, "execute_request", {"code": "1"})
        _, request = await kernel.asked()
        for state in ("busy", "busy", "idle", "starting", "idle"):
            kernel.status(request, state)
            await anyio.wait_all_tasks_blocked()
        assert seen == ["unknown", "busy", "idle", "starting", "idle"]
        kernel.client.lose("it went")
        await following.result()
    assert seen[-2:] == ["idle", "dead"]


async def test_it_ends_with_the_block() -> None:
    seen: list[str] = []
    async with anyio.create_task_group() as tasks:
        async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
            tasks.start_soon(followed, ch, seen)
            await anyio.wait_all_tasks_blocked()
        assert [status async for status in ch.statuses()] == []
    assert seen[-1] != "dead"


async def test_a_dead_kernel_is_dead_and_no_more() -> None:
    async with conversation() as (ch, kernel, _):
        kernel.client.lose("it went")
        await ch.wait_lost()
        assert [status async for status in ch.statuses()] == ["dead"]


async def test_that_of_another_kernel_is_another_one_though_it_is_the_same_word() -> None:
    """All that the next kernel says may arrive at once, and whoever follows sees none of what was in between."""
    async with conversation() as (ch, kernel, _):
        statuses = ch.statuses()
        request = message("execute_request")
        seen = []
        for session in ("first", "second"):
            for state in ("busy", "idle"):
                said = message("status", request, execution_state=state)
                said.header["session"] = session
                kernel.end.publish(said)
            with anyio.fail_after(20):
                while not ch._core.all_read():
                    await anyio.sleep(0.001)
                seen.append((await anext(statuses), ch.statistics().restarts))
        assert seen == [("idle", 0), ("idle", 1)]


async def test_whoever_has_seen_enough_leaves_nothing_behind() -> None:
    async with conversation() as (ch, _, _tasks):
        async for status in ch.statuses():
            assert status == "unknown"
            break
        # On Trio an unfinished generator would be told of as a warning.
        gc.collect()


async def test_what_we_gave_up_on_control_keeps_no_main_shell_busy() -> None:
    async with conversation() as (ch, kernel, tasks):
        kernel.status(message("kernel_info_request"), "idle")
        with anyio.move_on_after(0.1):
            await ch.request("inspect_request", {}, channel="control")
        _, asked = await kernel.asked("control")
        before = ch.status
        kernel.status(asked, "busy")
        with anyio.fail_after(20):
            while not ch._core.all_read():
                await anyio.sleep(0.001)
        await anyio.wait_all_tasks_blocked()
        assert ch.status == before
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(("state", "restarts"), [("starting", 1), ("idle", 0)])
async def test_a_kernel_that_starts_behind_the_word_of_another_is_another_one(
    state: str, restarts: int
) -> None:
    """Though either had said its session once only; some kernels say a fresh one without a parent."""
    async with conversation() as (ch, kernel, tasks):
        first = message("status", message("kernel_info_request"), execution_state="idle")
        first.header["session"] = "first"
        second = message("status", execution_state=state)
        second.header["session"] = "second"
        for each in (first, second):
            kernel.end.publish(each)
        with anyio.fail_after(20):
            while ch.statistics().received["iopub"] < 2:
                await anyio.sleep(0.001)
        assert ch.statistics().restarts == restarts
        tasks.cancel_scope.cancel()
