from __future__ import annotations

import os
from collections.abc import AsyncIterator

import anyio
import hypothesis
import pytest

from enchannel import Kernel, open_kernel
from raw_kernel import RawKernel

# On a loaded machine whatever is generated is slow.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session", autouse=True)
def directories(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What the kernels of the tests write is not among the user's own.

    IPython's history is in memory: kernels that start at a time fight over one, and say so in the output of
    any cell. And a kernel that a test leaves no chance leaves its connection file behind.
    """
    os.environ["JUPYTER_RUNTIME_DIR"] = str(tmp_path_factory.mktemp("runtime"))
    profile = tmp_path_factory.mktemp("ipython") / "profile_default"
    profile.mkdir()
    profile.joinpath("ipython_config.py").write_text('c.HistoryManager.hist_file = ":memory:"\n')
    os.environ["IPYTHONDIR"] = str(profile.parent)


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
