"""Kernels that a pool keeps open on behalf of others, with scripted ones."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.from_thread import start_blocking_portal

from enchannel import (
    KernelDied,
    KernelLaunchError,
    KernelPool,
    LocalProtocolError,
    Subscription,
    open_kernel_pool,
)
from helpers import is_there, scripted
from memory_kernel import start

pytestmark = pytest.mark.anyio


async def pid_of(pool: KernelPool, key: object) -> int:
    async with pool.lease(key) as lease:
        pid = int((await lease.channels.run("pid")).text)
        assert pid == lease.kernel.pid
        return pid


async def test_there_is_one_kernel_for_each_key() -> None:
    async with open_kernel_pool(scripted(), max_kernels=2) as pool:
        pids: list[tuple[object, int]] = []

        async def use(key: object) -> None:
            pids.append((key, await pid_of(pool, key)))

        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(use, number % 2)
        assert len(set(pids)) == 2
        assert sorted(map(str, pool.keys)) == ["0", "1"]
        assert repr(pool) == "<KernelPool 2 of 2 kernels, 0 in use>"
    assert not any(is_there(pid) for _, pid in pids)
    assert "left" in repr(pool)


async def test_the_channels_of_its_leases_have_options() -> None:
    options: Any = {"username": "ada", "max_backlog_size": 0}
    async with open_kernel_pool(scripted(), max_kernels=1, channel_options=options) as pool:
        async with pool.lease("key") as lease:
            done = await lease.channels.run("pid")
            assert done.request.header["username"] == "ada"
    wrong: Any = {"max_message_size": -1}
    async with open_kernel_pool(scripted(), max_kernels=1, channel_options=wrong) as pool:
        with pytest.raises(LocalProtocolError, match="max_message_size"):
            async with pool.lease("key"):
                pass


async def test_the_one_that_nobody_used_for_longest_makes_room() -> None:
    async with open_kernel_pool(scripted(), max_kernels=2) as pool:
        first, second = await pid_of(pool, "first"), await pid_of(pool, "second")
        assert await pid_of(pool, "first") == first
        await pid_of(pool, "third")
        assert not is_there(second)
        assert await pid_of(pool, "first") == first
        assert len(pool) == 2


async def test_where_all_are_in_use_who_asks_waits_in_turn() -> None:
    async with (
        open_kernel_pool(scripted(), max_kernels=1) as pool,
        anyio.create_task_group() as tasks,
    ):
        order: list[object] = []

        async def use(key: object) -> None:
            async with pool.lease(key):
                order.append(key)

        async with pool.lease("first"):
            for key in ("second", "third"):
                tasks.start_soon(use, key)
                await anyio.wait_all_tasks_blocked()
            with anyio.move_on_after(0.1):
                await use("never")
            assert order == []
            # One that is there need not wait.
            await use("first")
        while len(order) < 3:
            await anyio.sleep(0.01)
        assert order == ["first", "second", "third"]


async def test_one_that_is_lost_is_told_and_followed_by_another() -> None:
    async with open_kernel_pool(scripted("--says", "last words"), max_kernels=1) as pool:
        async with pool.lease("key") as lease:
            first = lease.kernel.pid
            with pytest.raises(KernelDied) as caught:
                await lease.channels.run("exit 3")
            assert "last words" in caught.value.output
            # The pool may not have heard of it: it is not lent any more.
            assert await pid_of(pool, "key") != first


async def test_one_that_cannot_be_started_is_told_to_all_who_asked() -> None:
    async with open_kernel_pool(scripted("--exits", "5"), max_kernels=1) as pool:
        errors: list[Exception] = []

        async def use() -> None:
            with pytest.raises(KernelLaunchError, match="exited with status 5") as caught:
                await pid_of(pool, "key")
            errors.append(caught.value)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(use)
        assert len({id(error) for error in errors}) == 3
        assert len(pool) == 0


async def test_a_discarded_one_is_closed() -> None:
    async with open_kernel_pool(scripted(), max_kernels=1) as pool:
        first = await pid_of(pool, "key")
        await pool.discard("nobody's")
        await pool.discard("key")
        assert not is_there(first)
        assert pool.keys == []
        assert await pid_of(pool, "key") != first


async def begun(published: Subscription) -> None:
    """Waits until code that says so has begun: what is interrupted before has no error."""
    async for _, said in published:
        if said.msg_type == "stream":
            return


async def test_who_uses_a_discarded_one_is_told_that_it_is_gone() -> None:
    async with (
        open_kernel_pool(scripted(), max_kernels=1) as pool,
        pool.lease("key") as lease,
        lease.channels.subscribe("iopub") as published,
        anyio.create_task_group() as tasks,
    ):
        running = start(tasks, lease.channels.run, "run")
        await begun(published)
        await pool.discard("key")
        # It was interrupted first, as a kernel is that is shut down.
        assert (await running.result()).status == "error"
        with pytest.raises(KernelDied):
            await lease.channels.run("pid")
        with pytest.raises(LocalProtocolError, match="a key has a hash, which list has not"):
            await pid_of(pool, [])


async def test_who_thinks_while_its_kernel_dies_is_told_that_it_died() -> None:
    async with open_kernel_pool(scripted("--says", "last words"), max_kernels=1) as pool:
        async with pool.lease("key") as lease:
            lease.kernel.signal(signal.SIGKILL)
            while pool.keys:
                await anyio.sleep(0.01)
            # Another one may take its place meanwhile.
            await pid_of(pool, "key")
            with pytest.raises(KernelDied) as caught:
                await lease.channels.run("pid")
            assert "last words" in caught.value.output


async def test_one_that_is_restarted_is_the_same() -> None:
    async with open_kernel_pool(scripted(), max_kernels=1) as pool, pool.lease("key") as lease:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lease.kernel.restart)
            while not lease.kernel.restarting:
                await anyio.sleep(0)
            with anyio.fail_after(20):
                async with pool.lease("key") as another:
                    assert another.kernel is lease.kernel
        assert pool.keys == ["key"]


async def test_who_waits_for_room_has_what_is_given_back() -> None:
    async with (
        open_kernel_pool(scripted(), max_kernels=1) as pool,
        anyio.create_task_group() as tasks,
    ):
        taken = anyio.Event()

        async def greedy() -> None:
            while True:
                async with pool.lease("greedy"):
                    taken.set()
                    await anyio.sleep(0)

        tasks.start_soon(greedy)
        await taken.wait()
        with anyio.fail_after(20):
            await pid_of(pool, "another")
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("how", ["discard", "leave"])
async def test_one_that_is_being_started_is_closed_at_once(how: str) -> None:
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            async with open_kernel_pool(scripted("--mute"), max_kernels=1) as pool:
                asking = start(tasks, pid_of, pool, "key")
                while not len(pool):
                    await anyio.sleep(0)
                if how == "discard":
                    await pool.discard("key")
                    # Who asked for it waits for another one.
                    assert not asking.done.is_set()
            with pytest.raises(anyio.ClosedResourceError, match="pool was left"):
                await asking.result()


async def test_an_error_of_the_system_is_told_to_who_asked_and_harms_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_kernel_pool(scripted(), max_kernels=2) as pool:
        async with pool.lease("good") as lease:
            (tmp_path / "file").write_text("")
            monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "file" / "under it"))
            with pytest.raises(KernelLaunchError):
                await pid_of(pool, "bad")
            monkeypatch.undo()
            assert int((await lease.channels.run("pid")).text) == lease.kernel.pid


async def test_what_nobody_uses_is_closed_after_a_while() -> None:
    async with open_kernel_pool(scripted(), max_kernels=1, max_idle=0.2) as pool:
        async with pool.lease("key") as lease:
            # Not while somebody does.
            await anyio.sleep(0.5)
            assert lease.kernel.returncode is None
        with anyio.fail_after(20):
            while len(pool):
                await anyio.sleep(0.02)


async def test_who_starts_a_kernel_and_is_cancelled_leaves_it_to_the_next() -> None:
    async with open_kernel_pool(scripted(), max_kernels=1) as pool:
        with anyio.move_on_after(0.05):
            await pid_of(pool, "key")
        assert len(pool) == 1
        await pid_of(pool, "key")
        assert len(pool) == 1


async def test_leaving_closes_all_and_tells_who_waits() -> None:
    async with anyio.create_task_group() as tasks:
        async with open_kernel_pool(scripted(), max_kernels=1) as pool:
            held = anyio.Event()

            async def hold() -> Any:
                async with (
                    pool.lease("held") as lease,
                    lease.channels.subscribe("iopub") as published,
                    anyio.create_task_group() as running,
                ):
                    run = start(running, lease.channels.run, "run")
                    await begun(published)
                    held.set()
                    return await run.result()

            holding = start(tasks, hold)
            await held.wait()
            waiting = start(tasks, pid_of, pool, "another")
            await anyio.wait_all_tasks_blocked()
        assert (await holding.result()).status == "error"
        with pytest.raises(anyio.ClosedResourceError, match="pool was left"):
            await waiting.result()
        with pytest.raises(anyio.ClosedResourceError, match="pool was left"):
            await pid_of(pool, "late")


async def test_a_daemon_that_a_kernel_leaves_behind_holds_up_nobody() -> None:
    daemons = []
    try:
        with anyio.fail_after(20):
            async with open_kernel_pool(scripted(), max_kernels=1) as pool:
                async with pool.lease("key") as lease:
                    daemons.append(int((await lease.channels.run("fork")).text))
    finally:
        for daemon in daemons:
            os.kill(daemon, signal.SIGKILL)


async def test_a_cancelled_pool_leaves_no_process() -> None:
    pid = 0
    with anyio.CancelScope() as scope:
        async with open_kernel_pool(scripted(), max_kernels=1) as pool:
            pid = await pid_of(pool, "key")
            scope.cancel()
            await anyio.sleep_forever()
    assert pid
    assert not is_there(pid)


async def test_a_lease_may_be_given_back_by_another_task() -> None:
    async with open_kernel_pool(scripted(), max_kernels=1) as pool:
        lease = pool.lease("key")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lease.__aenter__)
        await lease.__aexit__(None, None, None)
        assert repr(pool) == "<KernelPool 1 of 1 kernels, 0 in use>"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_kernels": 0}, "max_kernels is a number"),
        ({"max_kernels": True}, "max_kernels is a number"),
        ({"max_kernels": 2.5}, "max_kernels is a number"),
        (
            {"max_kernels": 1, "channel_options": {"max_size": 1}},
            "'max_size', which open_channels has not",
        ),
        ({"max_kernels": 1, "channel_options": 5}, "channel_options is a mapping"),
        ({"max_kernels": 1, "max_idle": -1}, "max_idle is a number of seconds"),
        ({"max_kernels": 1, "cwd": 5}, "cwd is the path"),
    ],
)
def test_wrong_arguments_are_told_at_the_call(options: Any, said: str) -> None:
    with pytest.raises(LocalProtocolError, match=said):
        open_kernel_pool(scripted(), **options)


def test_a_synchronous_program_holds_one_through_a_portal() -> None:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_kernel_pool(scripted(), max_kernels=1)) as pool,
        portal.wrap_async_context_manager(pool.lease("me")) as lease,
    ):
        assert int(portal.call(lease.channels.run, "pid").text) == lease.kernel.pid


@pytest.mark.parametrize("other", ["trio", "asyncio"])
def test_channels_belong_to_one_thread(other: str) -> None:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_kernel_pool(scripted(), max_kernels=1)) as pool,
        portal.wrap_async_context_manager(pool.lease("key")) as lease,
    ):
        with pytest.raises(RuntimeError, match="event loop of another thread"):
            anyio.run(lease.channels.run, "pid", backend=other)
        assert portal.call(lease.channels.run, "pid").status == "ok"
