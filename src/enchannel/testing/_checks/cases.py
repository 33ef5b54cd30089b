"""The checks of a kernel as cases for pytest."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .report import CheckResult
from .run import CHECKS, Make, check_kernel
from .samples import KernelSamples

if TYPE_CHECKING:
    import pytest

    from ..._kernels.specs import KernelSpec

__all__ = ["kernel_cases"]


def kernel_cases(
    kernel: str | KernelSpec | Make,
    *,
    samples: KernelSamples | None = None,
    patience: float = 30.0,
) -> Callable[..., None]:
    r"""A test function with a case for each check of :func:`check_kernel`.

    The kernel is checked when the first case runs, by the checks that were selected. What is not
    offered is skipped; where the kernel does not start every case says why. The cases are no
    coroutines, and run under whatever plugins pytest has.

    Args:
        kernel: See :func:`check_kernel`.
        samples: See there.
        patience: See there, in seconds.

    Example:
        .. code-block:: python

            from enchannel import KernelChannels
            from enchannel.testing import kernel_cases

            test_the_protocol = kernel_cases("python3")


            async def test_the_language(real_kernel_channels: KernelChannels) -> None:
                done = await real_kernel_channels.run("6 * 7", check=True)
                assert done.text == "42\n"
    """
    import pytest

    results: dict[str, CheckResult] = {}
    failures: list[tuple[Exception, TracebackType | None]] = []

    @pytest.mark.parametrize("check", [check.name for check in CHECKS])
    def test_kernel(check: str, request: pytest.FixtureRequest) -> None:
        if failures:
            # A kernel that did not start starts no better for the next case.
            failure, traceback = failures[0]
            raise failure.with_traceback(traceback)
        if check not in results:
            try:
                report = _report(kernel, samples, patience, _selected(request, check))
            except Exception as error:
                failures.append((error, error.__traceback__))
                raise
            results.update({result.name: result for result in report})
        result = results[check]
        if result.outcome == "not offered":
            pytest.skip(result.seen)
        assert result.outcome == "passed", f"{result.title} ({result.source}): {result.seen}"

    return test_kernel


def _selected(request: pytest.FixtureRequest, check: str) -> set[str]:
    """The checks whose cases run in this session, of the same test function."""
    function: Any = getattr(request.node, "originalname", None)
    found = {check}
    for item in request.session.items:
        call: Any = getattr(item, "callspec", None)
        same = getattr(item, "originalname", None) == function and item.path == request.node.path
        if same and call is not None and "check" in call.params:
            found.add(call.params["check"])
    return found


def _report(
    kernel: str | KernelSpec | Make,
    samples: KernelSamples | None,
    patience: float,
    only: set[str],
) -> list[CheckResult]:
    import trio

    async def run() -> list[CheckResult]:
        report = await check_kernel(kernel, samples=samples, only=only, patience=patience)
        return list(report.results)

    return trio.run(run)
