"""Fixtures for pytest, found by its ``pytest11`` entry point.

========================  ==========================================================================
``fake_kernel``           a :class:`~enchannel.testing.FakeKernel` in memory
``kernel_channels``       its open channels
``new_fake_kernel``       ``await new_fake_kernel(...)`` opens one more, any number of times
``real_kernel``           a real :class:`~enchannel.Kernel`; skips where its kernelspec is not installed
``real_kernel_channels``  its open channels
``real_kernel_name``      which: that of ``--enchannel-kernel NAME``, unless overridden or parametrised
========================  ==========================================================================

They are async fixtures and nothing more, so they run under whatever runs the test: pytest-trio (strict
mode and ``trio_mode``), AnyIO's plugin on either backend, or pytest-asyncio in ``auto`` mode. In its strict mode that
runs nobody else's fixtures, and in ``auto`` mode also those of tests that run on Trio: where either happens, the test
fails with a sentence about it. There is no hook here that could take over a test; there is one that adds the
conversation with each fake kernel to the report of a test that failed.

pytest imports this module wherever enchannel is installed, for whoever runs it. So it stands outside the package, and
imports nothing else until a fixture is used, and asks nothing of pytest that an old one has not.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import pytest

if TYPE_CHECKING:
    from enchannel import Kernel, KernelChannels
    from enchannel.testing import FakeKernel


T = TypeVar("T")

_ASYNC = {
    "fake_kernel",
    "kernel_channels",
    "new_fake_kernel",
    "real_kernel",
    "real_kernel_channels",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--enchannel-kernel NAME``."""
    parser.getgroup("enchannel").addoption(
        "--enchannel-kernel",
        metavar="NAME",
        help="The kernelspec that the fixture real_kernel launches (default: python3, and to skip without it).",
    )


@pytest.fixture
async def fake_kernel(request: pytest.FixtureRequest) -> AsyncIterator[FakeKernel]:
    r"""A :class:`~enchannel.testing.FakeKernel` in memory, a fresh one for each test.

    Where the test fails, its conversation is in the report. An error of what the test told it to do
    ends it, and is raised when the test is over.

    Example:
        .. code-block:: python

            from enchannel.testing import FakeKernel, stream


            async def test_hello(fake_kernel: FakeKernel) -> None:
                fake_kernel.script("greet()", stream("hello\n"))
                async with fake_kernel.open_channels() as ch:
                    done = await ch.run("greet()")
                assert done.text == "hello\n"
    """
    from enchannel.testing import open_fake_kernel

    async with _held(request, open_fake_kernel()) as kernel:
        _remember(request, kernel)
        yield kernel


@pytest.fixture
async def kernel_channels(
    request: pytest.FixtureRequest, fake_kernel: FakeKernel
) -> AsyncIterator[KernelChannels]:
    r"""The open channels of `fake_kernel`, as :class:`~enchannel.KernelChannels`.

    Example:
        .. code-block:: python

            from enchannel import KernelChannels
            from enchannel.testing import FakeKernel, result


            async def test_answer(
                fake_kernel: FakeKernel, kernel_channels: KernelChannels
            ) -> None:
                fake_kernel.script("6 * 7", result("42"))
                done = await kernel_channels.run("6 * 7")
                assert done.text == "42\n"
    """
    async with _held(request, fake_kernel.open_channels()) as channels:
        yield channels


@pytest.fixture
async def new_fake_kernel(
    request: pytest.FixtureRequest,
) -> AsyncIterator[Callable[..., Awaitable[FakeKernel]]]:
    """Opens fake kernels that live as long as the test, any number of them.

    ``await new_fake_kernel(...)`` takes the arguments of
    :func:`enchannel.testing.open_fake_kernel`, and raises what that does on entry.

    Example:
        .. code-block:: python

            async def test_two_kernels(new_fake_kernel) -> None:
                first = await new_fake_kernel()
                second = await new_fake_kernel(transport="tcp", subshells=True)
                async with first.open_channels() as one:
                    async with second.open_channels() as other:
                        assert (await one.run("1")).status == "ok"
                        assert (await other.run("1")).status == "ok"
    """
    async with _held(request, _opening_kernels(request)) as new:
        yield new


@asynccontextmanager
async def _opening_kernels(
    request: pytest.FixtureRequest,
) -> AsyncIterator[Callable[..., Awaitable[FakeKernel]]]:
    import anyio
    import anyio.abc

    from enchannel._groups import unwrapping_task_group
    from enchannel.testing import open_fake_kernel

    over = anyio.Event()
    async with unwrapping_task_group() as tasks:
        # Each in a task of its own: a test may run in another task than its fixtures.
        async def live(
            options: dict[str, Any], *, task_status: anyio.abc.TaskStatus[FakeKernel]
        ) -> None:
            async with open_fake_kernel(**options) as kernel:
                _remember(request, kernel)
                task_status.started(kernel)
                # Cancelled it would not say what has failed in it.
                await over.wait()

        async def new(**options: Any) -> FakeKernel:
            kernel: FakeKernel = await tasks.start(live, options)
            return kernel

        yield new
        over.set()


@pytest.fixture
def real_kernel_name(request: pytest.FixtureRequest) -> str:
    """The kernelspec of `real_kernel`: that of ``--enchannel-kernel NAME``, else ``python3``.

    Override it where tests are for one kernel, or parametrise them with it.

    Example:
        .. code-block:: python

            import pytest


            @pytest.mark.parametrize("real_kernel_name", ["python3"])
            async def test_language(real_kernel_channels) -> None:
                info = await real_kernel_channels.kernel_info()
                assert info["language_info"]["name"] == "python"
    """
    return str(request.config.getoption("--enchannel-kernel") or "python3")


@pytest.fixture
def _real_kernel_opening(
    request: pytest.FixtureRequest, real_kernel_name: str
) -> AbstractAsyncContextManager[Kernel]:
    from enchannel import KernelLaunchError, open_kernel

    # Not in the async fixture: pytest-trio loses the reason of what is skipped there.
    try:
        return open_kernel(real_kernel_name)
    except KernelLaunchError as error:
        if real_kernel_name == request.config.getoption("--enchannel-kernel"):
            # Who asked for it by name would never know that it was misspelt.
            pytest.fail(f"--enchannel-kernel: {error}", pytrace=False)
        pytest.skip(f"needs a real kernel: {error}")


@pytest.fixture
async def real_kernel(
    request: pytest.FixtureRequest, _real_kernel_opening: AbstractAsyncContextManager[Kernel]
) -> AsyncIterator[Kernel]:
    r"""A real :class:`~enchannel.Kernel`, launched for this test and stopped behind it.

    Where its kernelspec is not installed the test is skipped, or fails where ``--enchannel-kernel``
    has named it. See `real_kernel_name`.

    Example:
        .. code-block:: python

            from enchannel import Kernel


            async def test_restart(real_kernel: Kernel) -> None:
                await real_kernel.restart()
                async with real_kernel.open_channels() as ch:
                    assert (await ch.run("6 * 7")).text == "42\n"
    """
    async with _held(request, _real_kernel_opening) as kernel:
        yield kernel


@pytest.fixture
async def real_kernel_channels(
    request: pytest.FixtureRequest, real_kernel: Kernel
) -> AsyncIterator[KernelChannels]:
    """The open channels of `real_kernel`, as :class:`~enchannel.KernelChannels`.

    Example:
        .. code-block:: python

            from enchannel import KernelChannels


            async def test_error(real_kernel_channels: KernelChannels) -> None:
                done = await real_kernel_channels.run("1 / 0")
                assert done.status == "error"
    """
    async with _held(request, real_kernel.open_channels()) as channels:
        yield channels


# Under pytest-asyncio.


def _ini(config: pytest.Config, name: str) -> Any:
    """A setting of another plugin, ``None`` where it has none of this name."""
    try:
        return config.getini(name)
    except ValueError:
        return None


def _asyncio_mode(config: pytest.Config) -> str | None:
    """The mode of pytest-asyncio, where that is there."""
    if not config.pluginmanager.hasplugin("asyncio"):
        return None
    mode: Any = config.getoption("asyncio_mode", None) or _ini(config, "asyncio_mode")
    return None if mode is None else str(getattr(mode, "value", mode))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuses what would fail with less of a word, or hang."""
    used = _used(item)
    mode = _asyncio_mode(item.config) if used else None
    if mode == "strict" and item.get_closest_marker("asyncio"):
        _refuse(
            f"pytest-asyncio in strict mode does not run the fixture {used[0]!r}, which is not its own: set "
            "asyncio_mode = auto, or mark the test with pytest.mark.anyio"
        )
    if mode != "auto":
        return
    if _is_run_by_another(item):
        _refuse(
            f"pytest-asyncio in auto mode takes over the fixture {used[0]!r} of a test that it does not run itself: set "
            "asyncio_mode = strict"
        )
    fixtures, test = _loop_scopes(item)
    if fixtures != test:
        _refuse(
            f"pytest-asyncio runs the fixture {used[0]!r} in the event loop of the {fixtures}, and the test in that of "
            f"the {test}: set both asyncio_default_fixture_loop_scope and asyncio_default_test_loop_scope to {test}"
        )


def _refuse(why: str) -> None:
    pytest.fail(why, pytrace=False)


def _used(item: pytest.Item) -> list[str]:
    """The async fixtures of this module that a test uses; not what somebody else has called the same."""
    info: Any = getattr(item, "_fixtureinfo", None)
    defined: dict[str, Any] = getattr(info, "name2fixturedefs", {})
    return sorted(name for name in _ASYNC.intersection(defined) if _is_ours(name, defined[name]))


def _is_ours(name: str, definitions: Any) -> bool:
    # The last one counts, and the one before it where that asks for what it overrides.
    for each in reversed(definitions):
        if getattr(each.func, "__module__", "") == __name__:
            return True
        if name not in each.argnames:
            break
    return False


def _is_run_by_another(item: pytest.Item) -> bool:
    has = item.config.pluginmanager.hasplugin
    trio = item.get_closest_marker("trio") or _ini(item.config, "trio_mode")
    anyio = item.get_closest_marker("anyio") or "anyio_backend" in getattr(item, "fixturenames", ())
    return bool((has("trio") and trio) or (has("anyio") and anyio))


def _loop_scopes(item: pytest.Item) -> tuple[str, str]:
    """In whose event loop pytest-asyncio runs a fixture, and a test."""
    mark = item.get_closest_marker("asyncio")
    said = mark.kwargs.get("loop_scope") or mark.kwargs.get("scope") if mark is not None else None
    test = said or _ini(item.config, "asyncio_default_test_loop_scope") or "function"
    return str(_ini(item.config, "asyncio_default_fixture_loop_scope") or "function"), str(test)


@asynccontextmanager
async def _held(
    request: pytest.FixtureRequest, opening: AbstractAsyncContextManager[T]
) -> AsyncIterator[T]:
    """What `opening` opens, entered and left by one task.

    pytest-asyncio sets a fixture up in one task and tears it down in another, which a task group does not stand.
    """
    if _asyncio_mode(request.config) != "auto":
        async with opening as opened:
            yield opened
        return
    import asyncio

    found: list[T] = []
    ready, over = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        try:
            async with opening as opened:
                found.append(opened)
                ready.set()
                await over.wait()
        finally:
            ready.set()

    holder = asyncio.create_task(hold())
    await ready.wait()
    if found:
        yield found[0]
    over.set()
    await holder


# The report.

# Not the stash of an item, which came with pytest 7. What a test had is forgotten when it is torn down.
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
    kernels = _kernels.get(item, ())
    if report.when == "teardown":
        # The session keeps its items.
        _kernels.pop(item, None)
    if report.failed:
        for number, kernel in enumerate(kernels, 1):
            title = f"conversation with fake kernel {number}"
            report.sections.append((title, str(kernel.transcript)))
