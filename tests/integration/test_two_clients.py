"""Two clients on one kernel, of which one cancels at random what waits and what runs."""

from __future__ import annotations

import random

import anyio
import pytest

from enchannel import KernelChannels, open_kernel, open_kernel_channels

pytestmark = pytest.mark.anyio

ROUNDS = 40


async def leave_at_random(ch: KernelChannels, rng: random.Random) -> None:
    for _ in range(ROUNDS):
        with anyio.move_on_after(rng.choice((0.001, 0.004, 0.008, 0.03, 0.1)) * rng.random()):
            # It never ends; and an error would abort what waits behind it, whoever sent that.
            async with ch.execute(
                "while True: pass", stop_on_error=False, interrupt_on_cancel=True
            ) as execution:
                await execution.wait()
        await anyio.sleep(0.05 * rng.random())


async def work(ch: KernelChannels, statuses: list[str], done: anyio.Event) -> None:
    while not done.is_set():
        async with ch.execute("import time; time.sleep(0.02)") as execution:
            with anyio.fail_after(30):
                statuses.append((await execution.wait()).content["status"])


async def test_nobody_elses_cell_is_interrupted_and_none_of_ours_runs_on() -> None:
    statuses: list[str] = []
    done = anyio.Event()
    async with (
        open_kernel("python3") as kernel,
        kernel.open_channels() as ours,
        open_kernel_channels(None, kernel.connection_info) as others,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(work, others, statuses, done)
        await leave_at_random(ours, random.Random(7))
        done.set()
    assert set(statuses) == {"ok"}
