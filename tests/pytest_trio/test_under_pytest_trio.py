"""What somebody who uses Trio and pytest-trio writes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from enchannel import Kernel, KernelChannels, KernelConnectError, open_kernel, open_kernel_channels

EXECUTE = {"header": {"msg_type": "execute_request"}, "content": {"code": "print('woo')"}}


@pytest.fixture
async def kernel() -> AsyncIterator[Kernel]:
    async with open_kernel() as kernel:
        yield kernel


@pytest.fixture
async def channels(kernel: Kernel) -> AsyncIterator[KernelChannels]:
    async with kernel.open_channels() as channels:
        yield channels


async def test_a_cell(channels: KernelChannels) -> None:
    sent = await channels.main.send("shell", EXECUTE)
    with trio.fail_after(30):
        async for channel, msg in channels.main:
            if msg.is_child_of(sent) and msg.msg_type == "stream":
                # The end of the line may come in a message of its own.
                assert (channel, msg.content["text"].rstrip()) == ("iopub", "woo")
                break


async def test_an_execution(channels: KernelChannels) -> None:
    with trio.fail_after(30):
        async with channels.execute("print('woo')") as execution:
            await execution.wait()
    assert execution.outputs == [{"output_type": "stream", "name": "stdout", "text": "woo\n"}]


async def test_a_reader_in_a_nursery(channels: KernelChannels) -> None:
    seen: list[str] = []

    async def read(task_status: trio.TaskStatus[None]) -> None:
        async with channels.subscribe("iopub") as output:
            task_status.started()
            async for _, msg in output:
                seen.append(msg.msg_type)
                if msg.msg_type == "stream":
                    return

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            await nursery.start(read)
            await channels.shell.send(EXECUTE)
    assert seen[-1] == "stream"


async def test_nobody_there() -> None:
    config = {f"{name}_port": 1 for name in ("shell", "control", "stdin", "iopub", "hb")}
    with pytest.raises(KernelConnectError, match=r"shell at tcp://127\.0\.0\.1:1 \(refused"):
        async with open_kernel_channels(None, config, connect_timeout=0.2):
            pytest.fail("the block was entered")


async def test_a_cancelled_receive(channels: KernelChannels) -> None:
    with trio.move_on_after(0) as scope:
        await channels.stdin.receive()
    assert scope.cancelled_caught
