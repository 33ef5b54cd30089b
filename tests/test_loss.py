"""What the loss of a kernel does to those that are still there."""

from __future__ import annotations

import time
from itertools import pairwise

import anyio
import pytest

from enchannel import KernelConnectError, KernelDied, open_kernel_channels
from enchannel.testing import open_fake_kernel, stream
from helpers import numbered, texts
from raw_kernel import RawKernel

pytestmark = pytest.mark.anyio

FLOOD = 5_000


async def test_a_flood_of_last_words_lets_others_run(raw_kernel: RawKernel) -> None:
    read = [0]

    async def others() -> None:
        while True:
            read.append(ch.statistics().received["iopub"])
            await anyio.sleep(0)

    async with raw_kernel.open() as ch, ch.subscribe("iopub") as output:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(others)
            raw_kernel.publish(*numbered(FLOOD))
            # The program holds its event loop, while the flood arrives in the socket.
            time.sleep(0.5)
            ch._core.lose(KernelDied("gone", "exited"))
            received = []
            with pytest.raises(KernelDied, match="gone"):
                while True:
                    received.append((await output.receive())[1])
            tasks.cancel_scope.cancel()
        assert texts(received) == list(range(FLOOD))
        # Between two turns of another task: some batches of 64.
        assert max(after - before for before, after in pairwise(read)) <= 256


async def test_the_outputs_of_an_execution_let_others_run() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script("many", *[stream(str(number)) for number in range(2_000)])
        async with ch.execute("many") as execution, anyio.create_task_group() as tasks:
            await execution.wait()
            turns = 0

            async def others() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await anyio.sleep(0)

            tasks.start_soon(others)
            count = len([msg async for msg in execution])
            assert turns >= count // 128
            tasks.cancel_scope.cancel()


async def test_another_key_is_told(raw_kernel: RawKernel) -> None:
    config = {**raw_kernel.config, "key": "another one"}
    with pytest.raises(KernelConnectError, match="is refused .* with its key"):
        async with open_kernel_channels(None, config, connect_timeout=0.5):
            pytest.fail("the block was entered")
