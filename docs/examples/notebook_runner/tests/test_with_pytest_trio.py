"""The tests of somebody who uses pytest-trio: ``pytest -p no:anyio``."""

import pytest
import trio
from runner import CellFailed, run_cell, run_notebook

from enchannel import KernelDied
from enchannel.testing import error, pause, stream

pytestmark = pytest.mark.trio


async def test_what_cells_print_comes_in_order(fake_kernel, kernel_channels):
    fake_kernel.script("a", stream("1\n"), stream("2\n"))
    fake_kernel.script("b", stream("3\n"))
    printed = [text async for text in run_notebook(kernel_channels, ["a", "b"])]
    assert printed == ["1\n2\n", "3\n"]


async def test_a_cell_that_raises(fake_kernel, kernel_channels):
    fake_kernel.script("1/0", error("ZeroDivisionError", "division by zero"))
    with pytest.raises(CellFailed, match="ZeroDivisionError: division by zero"):
        await run_cell(kernel_channels, "1/0")


async def test_an_hour_takes_no_time(fake_kernel, kernel_channels, autojump_clock):
    fake_kernel.script("sleep", pause(3600), stream("woke up"))
    assert await run_cell(kernel_channels, "sleep") == "woke up"
    assert trio.current_time() >= 3600


async def test_a_kernel_that_dies(fake_kernel, kernel_channels):
    fake_kernel.on("execute_request", lambda request: request.kernel.die("out of memory"))
    with pytest.raises(KernelDied, match="out of memory"):
        await run_cell(kernel_channels, "x = [0] * 10**12")


async def test_two_kernels(new_fake_kernel):
    one, two = await new_fake_kernel(), await new_fake_kernel()
    two.script("hi", stream("from two"))
    async with one.open_channels() as first, two.open_channels() as second:
        assert await run_cell(first, "hi") == ""
        assert await run_cell(second, "hi") == "from two"
    one.transcript.assert_has("> shell execute_request", "< iopub status idle")


async def test_a_real_kernel(real_kernel):
    async with real_kernel.open_channels() as channels:
        assert await run_cell(channels, "print(6 * 7)") == "42\n"
