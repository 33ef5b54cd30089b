"""Checking a kernel: one check after the other, on one life of it or, where it does not survive, on several."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeAlias

import anyio

from ..._exceptions import EnchannelError, LocalProtocolError
from . import behaviour, lives, requests, rules
from .check import Check
from .conversation import Failed, NotOffered
from .probe import KernelUnderCheck, Probe, Record
from .report import CheckResult, KernelReport, Outcome
from .samples import KernelSamples

if TYPE_CHECKING:
    from ..._kernels.specs import KernelSpec

__all__ = ["CHECKS", "check_kernel"]

CHECKS: Sequence[Check] = (
    *requests.CHECKS,
    *behaviour.CHECKS,
    *lives.CHECKS,
    *rules.CHECKS,
    *lives.ENDS,
)

BROKEN = (EnchannelError, anyio.ClosedResourceError, anyio.EndOfStream)
"""What ends a check together with its channels."""

Make: TypeAlias = "Callable[[], AbstractAsyncContextManager[KernelUnderCheck]]"


async def check_kernel(
    kernel: str | KernelSpec | Make,
    *,
    samples: KernelSamples | None = None,
    only: Iterable[str] = (),
    patience: float = 30.0,
    on_result: Callable[[CheckResult], object] | None = None,
) -> KernelReport:
    """Checks whether a kernel does what the Jupyter messaging specification asks of it.

    A kernel that dies of a check, or answers nothing any more, is launched again for the next. It
    ends with every kernel that starts, however that misbehaves. Cancelled, it ends the kernel and returns
    nothing.

    Args:
        kernel: The name of an installed kernelspec, or a :class:`~enchannel.KernelSpec`; or what
            makes an async context manager of an open kernel, such as ``partial(open_kernel,
            "my_kernel", env=...)``.
        samples: Code in its language, beside what is known for the language that it says it has, or
            in its place.
        only: Names of the checks to run, by default all.
        patience: Seconds that it may be silent where it owes an answer; five at the most once it
            has left something out. A check takes 20 times as long at the most.
        on_result: Called with each result when there is one.

    Returns:
        The results in the order of the checks. A check that fails raises nothing;
        :meth:`KernelReport.raise_if_failed` does.

    Raises:
        KernelLaunchError: There is no such kernelspec, or the kernel does not start: it has failed
            no check.
        ServerError: A server did not start it.
        LocalProtocolError: There is no such check, or an argument is of no use.

    Example:
        .. code-block:: python

            report = await check_kernel("python3", only=["kernel-info", "complete"])
            for result in report.failed:
                print(result.title, "but", result.seen)
            print(report.summary)
    """
    waiting = deque(_chosen(only))
    name, make = _maker(kernel)
    if not 0 < patience < math.inf:
        raise LocalProtocolError(f"patience is a positive number of seconds, not {patience!r}")
    results: list[CheckResult] = []
    record = Record()

    def tell(check: Check, outcome: Outcome, seen: str) -> None:
        result = CheckResult(check.name, check.title, check.source, outcome, seen)
        results.append(result)
        if on_result is not None:
            on_result(result)

    while waiting:
        try:
            async with make() as subject:
                record.life += 1
                probe = Probe(subject, samples, patience, record)
                await _live(probe, waiting, tell)
        except EnchannelError as error:
            # No check lets one out: it comes from the kernel's block.
            if not record.life:
                raise
            seen = f"the kernel could not be started: {error}"
            for check in waiting:
                tell(check, "failed", seen)
                # Once with all its last words.
                seen = "the kernel could not be started"
            break
    return KernelReport(f"{name}{record.description}", tuple(results))


def _chosen(only: Iterable[str]) -> Sequence[Check]:
    known = {check.name: check for check in CHECKS}
    if isinstance(only, str):
        raise LocalProtocolError(f"only is a list of checks, such as [{only!r}], and no text")
    names = list(only)
    for name in names:
        if name not in known:
            raise LocalProtocolError(f"there is no check {name!r}; there are {', '.join(known)}")
    return [check for check in CHECKS if not names or check.name in names]


def _maker(kernel: str | KernelSpec | Make) -> tuple[str, Make]:
    from ..._kernels.opening import open_kernel
    from ..._kernels.specs import KernelSpec

    if isinstance(kernel, str):
        kernel = KernelSpec.find(kernel)
    if isinstance(kernel, KernelSpec):
        spec = kernel
        return spec.name, lambda: open_kernel(spec)
    if not callable(kernel):
        raise LocalProtocolError(
            "a kernel to check is the name of a kernelspec, a KernelSpec, or what makes an async context manager "
            f"of a kernel, not {kernel!r}"
        )
    return "kernel", kernel


async def _live(
    probe: Probe, waiting: deque[Check], tell: Callable[[Check, Outcome, str], None]
) -> None:
    """Runs the checks that are `waiting` for as long as the kernel is well."""
    # What it does not say of itself is not offered, or fails below.
    with contextlib.suppress(Failed, EnchannelError):
        await probe.meet()
    while waiting:
        check = waiting.popleft()
        outcome, seen = await _run(check, probe)
        tell(check, outcome, seen)
        doubtful = outcome == "failed" or probe.suspect
        if check.ends_kernel or (doubtful and not await _is_well(probe)):
            return


async def _run(check: Check, probe: Probe) -> tuple[Outcome, str]:
    try:
        with anyio.fail_after(probe.longest):
            await check.run(probe)
    except NotOffered as reason:
        return "not offered", str(reason)
    except Failed as reason:
        return "failed", str(reason)
    except TimeoutError:
        return "failed", f"it was not over within {probe.longest:g} s"
    except BROKEN as error:
        return "failed", f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001
        # A kernel may say anything, anywhere: what a check trips over is not what the specification has there.
        return (
            "failed",
            f"what came is of another shape than expected ({type(error).__name__}: {error})",
        )
    return "passed", ""


async def _is_well(probe: Probe) -> bool:
    """Whether the kernel answers on shell, where nothing of the last check may be left."""
    with contextlib.suppress(Failed, *BROKEN):
        return await probe.look()
    return False
