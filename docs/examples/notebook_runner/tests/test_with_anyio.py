"""The tests of somebody who uses AnyIO's pytest plugin: ``pytest -p no:trio``."""

import anyio
import pytest
from runner import CellFailed, run_cell, run_notebook

from enchannel import KernelDied
from enchannel.testing import error, stream

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request):
    return request.param


async def test_what_cells_print_comes_in_order(fake_kernel, kernel_channels):
    fake_kernel.script("a", stream("1\n"), stream("2\n"))
    fake_kernel.script("b", stream("3\n"))
    printed = [text async for text in run_notebook(kernel_channels, ["a", "b"])]
    assert printed == ["1\n2\n", "3\n"]


async def test_a_cell_that_raises(fake_kernel, kernel_channels):
    fake_kernel.script("1/0", error("ZeroDivisionError", "division by zero"))
    with pytest.raises(CellFailed, match="ZeroDivisionError: division by zero"):
        await run_cell(kernel_channels, "1/0")


async def test_a_kernel_that_falls_silent(fake_kernel, kernel_channels):
    fake_kernel.go_silent()
    with pytest.raises(TimeoutError), anyio.fail_after(0.01):
        await run_cell(kernel_channels, "print(1)")


async def test_a_kernel_that_dies(fake_kernel, kernel_channels):
    fake_kernel.on("execute_request", lambda request: request.kernel.die("out of memory"))
    with pytest.raises(KernelDied, match="out of memory"):
        await run_cell(kernel_channels, "x = [0] * 10**12")


async def test_over_real_sockets(new_fake_kernel):
    kernel = await new_fake_kernel(transport="tcp")
    kernel.script("hi", stream("over tcp"))
    async with kernel.open_channels() as channels:
        assert await run_cell(channels, "hi") == "over tcp"


async def test_a_real_kernel(real_kernel):
    async with real_kernel.open_channels() as channels:
        assert await run_cell(channels, "print(6 * 7)") == "42\n"
