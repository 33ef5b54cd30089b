"""Fixtures for pytest, found by its ``pytest11`` entry point.

========================  ==========================================================================
``fake_kernel``           a :class:`~enchannel.testing.FakeKernel` in memory
``kernel_channels``       its open channels
``new_fake_kernel``       ``await new_fake_kernel(...)`` opens one more, any number of times
``real_kernel``           a real :class:`~enchannel.Kernel`; skips where its kernelspec is not installed
``real_kernel_name``      which: ``"python3"``, unless overridden or parametrised
========================  ==========================================================================

They are async fixtures and nothing more, so they run under whatever runs the test: pytest-trio (strict
mode and ``trio_mode``), or AnyIO's plugin on either backend. There is no hook here that could take over a
test; the one that there is adds the conversation with each fake kernel to the report of a failed test.

pytest imports this module wherever enchannel is installed, for whoever runs it. So it stands outside the package, and
imports nothing else until a fixture is used, and asks nothing of pytest that an old one has not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import pytest

if TYPE_CHECKING:
    from enchannel import Kernel, KernelChannels
    from enchannel.testing import FakeKernel


@pytest.fixture
async def fake_kernel(request: pytest.FixtureRequest) -> AsyncIterator[FakeKernel]:
    """A fake kernel in memory."""
    from enchannel.testing import open_fake_kernel

    async with open_fake_kernel() as kernel:
        _remember(request, kernel)
        yield kernel


@pytest.fixture
async def kernel_channels(fake_kernel: FakeKernel) -> AsyncIterator[KernelChannels]:
    """The open channels of `fake_kernel`."""
    async with fake_kernel.open_channels() as channels:
        yield channels


@pytest.fixture
async def new_fake_kernel(
    request: pytest.FixtureRequest,
) -> AsyncIterator[Callable[..., Awaitable[FakeKernel]]]:
    """Opens fake kernels, with the arguments of ``open_fake_kernel``, that live as long as the test."""
    import anyio
    import anyio.abc

    from enchannel.testing import open_fake_kernel

    async with anyio.create_task_group() as tasks:
        # Each in a task of its own: a test may run in another task than its fixtures.
        async def live(
            options: dict[str, Any], *, task_status: anyio.abc.TaskStatus[FakeKernel]
        ) -> None:
            async with open_fake_kernel(**options) as kernel:
                _remember(request, kernel)
                task_status.started(kernel)
                await anyio.sleep_forever()

        async def new(**options: Any) -> FakeKernel:
            kernel: FakeKernel = await tasks.start(live, options)
            return kernel

        yield new
        tasks.cancel_scope.cancel()


@pytest.fixture
def real_kernel_name() -> str:
    """The kernelspec that `real_kernel` launches: override it, or parametrise a test with it."""
    return "python3"


@pytest.fixture
def _real_kernel_opening(real_kernel_name: str) -> AbstractAsyncContextManager[Kernel]:
    from enchannel import KernelLaunchError, open_kernel

    # Not in the async fixture: pytest-trio loses the reason of what is skipped there.
    try:
        return open_kernel(real_kernel_name)
    except KernelLaunchError as error:
        pytest.skip(f"needs a real kernel: {error}")


@pytest.fixture
async def real_kernel(
    _real_kernel_opening: AbstractAsyncContextManager[Kernel],
) -> AsyncIterator[Kernel]:
    """A real kernel, launched for this test."""
    async with _real_kernel_opening as kernel:
        yield kernel


# Not the stash of an item, which came with pytest 7.
_kernels: WeakKeyDictionary[pytest.Item, list[FakeKernel]] = WeakKeyDictionary()


def _remember(request: pytest.FixtureRequest, kernel: FakeKernel) -> None:
    """Lets the report of a failed test find the conversation with `kernel`."""
    _kernels.setdefault(request.node, []).append(kernel)


# Not wrapper=True, at which pluggy before 1.2 ends every run.
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Adds the conversations with fake kernels to the report of a test that failed."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for number, kernel in enumerate(_kernels.get(item, ()), 1):
            title = f"conversation with fake kernel {number}"
            report.sections.append((title, str(kernel.transcript)))
