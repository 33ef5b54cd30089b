from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import pytest

from enchannel import Kernel, open_kernel
from raw_kernel import RawKernel


@pytest.fixture(params=["trio", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def raw_kernel(anyio_backend: str) -> AsyncIterator[RawKernel]:
    """The kernel's ends of the sockets, in the hands of the test."""
    with RawKernel() as kernel:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kernel.greet)
            yield kernel
            tasks.cancel_scope.cancel()


@pytest.fixture
async def kernel(anyio_backend: str) -> AsyncIterator[Kernel]:
    """A real ipykernel of this test's own."""
    async with open_kernel("python3") as kernel:
        yield kernel
