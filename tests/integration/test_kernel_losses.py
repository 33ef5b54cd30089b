"""What ipykernel loses by itself is told to the message, and nothing else is."""

from __future__ import annotations

import time

import anyio
import pytest

from enchannel import KernelChannels, open_kernel, open_kernel_channels

pytestmark = pytest.mark.anyio

COUNT, FEW = 4_000, 20

CELLS = (
    "for number in range(50): print(number, flush=True)",
    "class Shown:\n    def _ipython_display_(self): print('shown')\nShown()",
    "1/0",
    "import threading\nthread = threading.Thread(target=lambda: print(1)); thread.start(); thread.join(); 1",
    "print(input())",
)
FLOOD = f"from IPython.display import display\nfor number in range({COUNT}): display('x' * 10_000)"


async def test_what_the_kernels_publisher_drops_is_told_to_the_message() -> None:
    async with (
        open_kernel("python3") as kernel,
        open_kernel_channels(None, kernel.connection_info, max_buffer_size=100) as ch,
    ):
        lost = seconds = 0
        while not lost:
            seconds += 2
            async with ch.execute(FLOOD) as execution:
                # The event loop is held: nobody reads, and the kernel drops what the network does not hold.
                time.sleep(seconds)
                with anyio.fail_after(60):
                    await execution.wait()
            lost = COUNT - sum(each["output_type"] == "display_data" for each in execution.outputs)
            # Beside them its input may be lost, and the statuses of what we have asked meanwhile.
            assert execution.missed is not None
            assert lost <= execution.missed <= lost + FEW
        assert ch.statistics().missed == execution.missed


async def run_all(ch: KernelChannels, rounds: int) -> None:
    for number in range(rounds):
        code = CELLS[number % len(CELLS)]
        async with ch.execute(code, stop_on_error=False, on_input=lambda *_: "x") as execution:
            await execution.wait()
        assert execution.missed == 0
        await ch.request("is_complete_request", {"code": "1"}, channel="shell")
        await ch.request("kernel_info_request", channel="control")


async def test_with_two_clients_nothing_is_told_where_nothing_is_lost() -> None:
    async with (
        open_kernel("python3") as kernel,
        kernel.open_channels() as one,
        open_kernel_channels(None, kernel.connection_info) as another,
    ):
        with anyio.fail_after(200):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run_all, one, 100)
                tasks.start_soon(run_all, another, 100)
        assert one.statistics().missed == another.statistics().missed == 0
