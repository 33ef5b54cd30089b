r"""What one needs to test a program that talks to Jupyter kernels.

* :func:`open_fake_kernel`: a kernel that does what the test says, in memory or on real sockets.
* :func:`open_recorded_kernel`: a kernel that answers as a real one did.
* :func:`open_fake_server`: a server of such kernels, for :func:`enchannel.open_server`.
* :func:`memory_transport_pair`: the two ends of channels in memory, with faults on command.
* :func:`check_transport`: what every transport must keep, for those who write one.
* :func:`check_kernel`: what the specification asks of a kernel, for those who write one;
  :func:`kernel_cases`: the same as cases for pytest.
* fixtures for pytest (``fake_kernel``, ``kernel_channels``, ``new_fake_kernel``, ``real_kernel``,
  ``real_kernel_channels``), under pytest-trio, AnyIO's plugin and pytest-asyncio alike.

Example:
    .. code-block:: python

        from enchannel.testing import open_fake_kernel, stream


        async def test_my_front_end() -> None:
            async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
                kernel.script("greet()", stream("hello\n"))
                done = await ch.run("greet()")
                assert done.text == "hello\n"
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._later import importer
from ._check_transport import check_transport
from ._ends import KernelEnd
from ._fake_comms import CommHandler, FakeComm
from ._fake_kernel import FakeKernel, Handler, Request, Step, Tamper
from ._memory import MemoryKernelEnd, MemoryTransport, Pipe, memory_transport_pair
from ._opening import open_fake_kernel
from ._steps import (
    ask,
    clear_output,
    display,
    error,
    page,
    pause,
    result,
    stream,
    update_display,
)
from ._transcript import Entry, Transcript

if TYPE_CHECKING:
    from ._checks.cases import kernel_cases
    from ._checks.probe import KernelUnderCheck
    from ._checks.report import CheckResult, KernelReport
    from ._checks.run import check_kernel
    from ._checks.samples import KernelSamples
    from ._fake_server import FakeServer, open_fake_server
    from ._fake_websocket import FakeWebSocket
    from ._recorded import RecordedKernel, open_recorded_kernel
    from ._replay import RecordingMismatch

__all__ = [
    "CheckResult",
    "CommHandler",
    "Entry",
    "FakeComm",
    "FakeKernel",
    "FakeServer",
    "FakeWebSocket",
    "Handler",
    "KernelEnd",
    "KernelReport",
    "KernelSamples",
    "KernelUnderCheck",
    "MemoryKernelEnd",
    "MemoryTransport",
    "Pipe",
    "RecordedKernel",
    "RecordingMismatch",
    "Request",
    "Step",
    "Tamper",
    "Transcript",
    "ask",
    "check_kernel",
    "check_transport",
    "clear_output",
    "display",
    "error",
    "kernel_cases",
    "memory_transport_pair",
    "open_fake_kernel",
    "open_fake_server",
    "open_recorded_kernel",
    "page",
    "pause",
    "result",
    "stream",
    "update_display",
]

# Imported by who checks a kernel, or plays a recorded one: tests with a fake one never need it.
_LATER = {
    "CheckResult": "_checks.report",
    "FakeServer": "_fake_server",
    "FakeWebSocket": "_fake_websocket",
    "KernelReport": "_checks.report",
    "KernelSamples": "_checks.samples",
    "KernelUnderCheck": "_checks.probe",
    "RecordedKernel": "_recorded",
    "RecordingMismatch": "_replay",
    "check_kernel": "_checks.run",
    "kernel_cases": "_checks.cases",
    "open_fake_server": "_fake_server",
    "open_recorded_kernel": "_recorded",
}

if not TYPE_CHECKING:
    __getattr__ = importer(__name__, _LATER)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
