r"""What one needs to test a program that talks to Jupyter kernels.

::

    from enchannel.testing import open_fake_kernel, stream

    async def test_my_front_end():
        async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
            kernel.script("print('woo')", stream("woo\n"))
            ...

* :func:`open_fake_kernel`: a kernel that does what the test says, in memory or on real sockets.
* :func:`memory_transport_pair`: the two ends of channels in memory, with faults on command.
* :func:`check_transport`: what every transport must keep, for those who write one.
* fixtures for pytest (``fake_kernel``, ``kernel_channels``, ``new_fake_kernel``, ``real_kernel``), under
  pytest-trio and AnyIO's plugin alike.
"""

from __future__ import annotations

from ._check_transport import check_transport
from ._ends import KernelEnd
from ._fake_kernel import FakeKernel, Handler, Request, Step
from ._memory import MemoryKernelEnd, MemoryTransport, Pipe, memory_transport_pair
from ._opening import open_fake_kernel
from ._steps import (
    ask,
    clear_output,
    display,
    error,
    pause,
    result,
    stream,
    update_display,
)
from ._transcript import Entry, Transcript

__all__ = [
    "Entry",
    "FakeKernel",
    "Handler",
    "KernelEnd",
    "MemoryKernelEnd",
    "MemoryTransport",
    "Pipe",
    "Request",
    "Step",
    "Transcript",
    "ask",
    "check_transport",
    "clear_output",
    "display",
    "error",
    "memory_transport_pair",
    "open_fake_kernel",
    "pause",
    "result",
    "stream",
    "update_display",
]
