"""Opening a fake kernel: where it stands, and for how long it lives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

import anyio

from .._exceptions import LocalProtocolError
from .._groups import block_task_group
from ._ends import KernelEnd
from ._failures import raising_failure
from ._fake_kernel import FakeKernel, TransportName
from ._memory import MemoryKernelEnd

__all__ = ["open_fake_kernel", "opened_on"]

K = TypeVar("K", bound=FakeKernel)


def open_fake_kernel(
    *,
    transport: TransportName = "memory",
    key: str | bytes = b"the key of a fake kernel",
    subshells: bool = False,
    debugger: bool = False,
) -> AbstractAsyncContextManager[FakeKernel]:
    r"""A :class:`FakeKernel`, which does what the test says, as an async context manager.

    It answers as ipykernel does, in memory within a millisecond. When the block is left, cancelled
    or not, it is gone.

    Args:
        transport: ``"memory"`` needs no sockets, no threads and no time; with ``"tcp"`` and
            ``"ipc"`` any client can be pointed at its ``connection_info``; ``"inproc"`` is ZeroMQ
            within this process.
        key: What messages are signed with; empty for unsigned messages.
        subshells: Whether it has subshells, and says so.
        debugger: Whether it answers debug requests, and says so.

    Raises:
        LocalProtocolError: There is no such transport, or the key is none (raised on entry).
        Exception: Where the block is left, also by an error that follows from it or by a
            cancellation: what a handler, a step or what tampers has raised. It ends the kernel
            then and there, which its channels are told.

    Example:
        .. code-block:: python

            async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
                kernel.script("1 / 0", stream("woo\n"), error("ZeroDivisionError"))
                done = await ch.run("1 / 0")
                print(done.status)  # error
                kernel.transcript.assert_has("< iopub stream", "< iopub error")
    """
    return opened_on(
        transport,
        key,
        lambda end: FakeKernel(end, transport, subshells=subshells, debugger=debugger),
    )


@asynccontextmanager
async def opened_on(
    transport: TransportName, key: str | bytes, make: Callable[[KernelEnd], K]
) -> AsyncIterator[K]:
    """The scope of the kernel that `make` makes of its end of the channels."""
    secret = key.encode() if isinstance(key, str) else key
    given: object = secret
    if not isinstance(given, bytes):
        raise LocalProtocolError(f"a key is text or bytes, not {given!r}")
    end = _make_end(transport, secret)
    try:
        await end.appear()
        kernel = make(end)
        with raising_failure(kernel):
            async with block_task_group("the fake kernel") as tasks:
                await tasks.start(kernel.live, name="fake kernel")
                try:
                    yield kernel
                finally:
                    tasks.end()
    finally:
        with anyio.CancelScope(shield=True):
            await end.aclose()


def _make_end(transport: str, key: bytes) -> KernelEnd:
    if transport == "memory":
        return MemoryKernelEnd(key)
    if transport not in ("inproc", "ipc", "tcp"):
        raise LocalProtocolError(
            f"transport is 'memory', 'inproc', 'ipc' or 'tcp', not {transport!r}"
        )
    # Imported here, so that tests in memory load no sockets.
    from ._sockets import ZmqKernelEnd

    return ZmqKernelEnd(transport, key)
