"""Launching a kernel and stopping it, as a scope."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal

from .._groups import block_task_group
from .._trio import uncut_block
from .connection_files import ConnectionFile
from .kernel import Kernel
from .launch import STARTUP_TIMEOUT, Launch
from .specs import KernelSpec

__all__ = ["open_kernel", "opened"]


def open_kernel(
    name: str | KernelSpec = "python3",
    *,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    launcher: Sequence[str] = (),
    extra_arguments: Sequence[str] = (),
    transport: Literal["auto", "ipc", "tcp"] = "auto",
    encryption: Literal["auto", "required", "off"] = "auto",
    startup_timeout: float = STARTUP_TIMEOUT,
) -> AbstractAsyncContextManager[Kernel]:
    """Launches a kernel, and stops it when the block is left.

    On entry the kernel is ready. On every way out it is stopped, with everything that it started;
    that is shielded from cancellation and takes 10 seconds at the very most. An entry that is
    cancelled leaves nothing behind. The task that entered the block leaves it.

    Args:
        name: The name of an installed kernelspec, or a :class:`KernelSpec`.
        cwd: The directory to run it in, by default ours.
        env: Variables to set in its environment, beside ours and the kernelspec's.
        launcher: A program that starts the kernel, with its arguments: what the kernelspec says is
            behind them, for example ``["prlimit", "--as=2000000000"]``. It gets the kernel's
            signals as well, so it is best gone by then (by exec).
        extra_arguments: Arguments behind those of the kernelspec.
        transport: ``"tcp"`` on loopback, ``"ipc"`` in a private directory, or ``"auto"``: ipc for
            the kernels that are known to speak it.
        encryption: ``"required"``: CurveZMQ, for a kernel whose kernelspec declares it
            (``supported_encryption``). ``"off"``. Or ``"auto"``: where it is declared, and the
            transport is tcp; the directory of ipc is private anyhow.
        startup_timeout: Seconds that the kernel may take to become ready (a JVM may take 35).

    Raises:
        LocalProtocolError: An argument cannot be used (raised at the call).
        KernelLaunchError: There is no such kernelspec, or it has no encryption (raised at the
            call), or the kernel could not be started (raised on entry, with the tail of what it
            wrote).

    Example:
        .. code-block:: python

            variables = {"GREETING": "hello"}
            async with open_kernel("python3", env=variables) as kernel:
                async with kernel.open_channels() as ch:
                    done = await ch.run("import os; print(os.environ['GREETING'])")
                    print(done.text)  # hello
    """
    launch = Launch.checked(
        name,
        cwd=cwd,
        env=env,
        launcher=launcher,
        extra_arguments=extra_arguments,
        transport=transport,
        encryption=encryption,
        startup_timeout=startup_timeout,
    )
    return opened(launch)


@uncut_block
async def opened(launch: Launch) -> AsyncIterator[Kernel]:
    """The scope of a kernel; see :func:`open_kernel`."""
    with ConnectionFile(launch.spec.name, launch.transport, encrypted=launch.encrypted) as file:
        async with block_task_group("the kernel") as tasks:
            kernel = Kernel(launch, file)
            async with kernel.launched(tasks):
                yield kernel
