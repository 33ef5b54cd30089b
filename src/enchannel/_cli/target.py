"""Where ``enchannel run`` runs code: in a kernel of its own, one that runs already, or one of a server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs

from .. import KernelChannels, open_kernel, open_kernel_channels, open_server
from .existing import existing_file

__all__ = ["Target"]

WAITING, WAITING_BYTES = 10_000, 8 << 20
"""Messages, and bytes of them, that may wait here for who reads the output; then the kernel waits, or drops some."""


@attrs.define
class Target:
    """Where code is run.

    Attributes:
        kill: Kills the kernel, which was launched here and may be stopping.
        left_behind: The kernel of a server that was started here, while it may go on.
    """

    kernel: str | None = None
    existing: str | None = None
    server: str | None = None
    startup_timeout: float = 60.0
    cwd: str | None = None
    extra_arguments: Sequence[str] = ()
    kill: Callable[[], Awaitable[object]] | None = None
    left_behind: str = ""

    @property
    def begins(self) -> str:
        """What goes on until the channels are open."""
        if self.existing is not None:
            return f"connecting to {self.existing}"
        return f"starting {self.kernel or 'the kernel'}"

    @property
    def ends(self) -> tuple[str, str]:
        """What goes on behind the code, and what can be done about it."""
        if self.existing is not None:
            return "taking leave", "the kernel goes on"
        if self.server is not None:
            return "waiting for the server", "it stops the kernel; Ctrl-C waits no longer"
        return "stopping the kernel", "Ctrl-C kills it"

    @asynccontextmanager
    async def open_channels(self) -> AsyncIterator[KernelChannels]:
        """The channels of the kernel, which is launched unless it runs already."""
        bounds: dict[str, Any] = {
            "max_buffer_size": WAITING,
            "max_buffer_bytes": WAITING_BYTES,
        }
        if self.server is not None:
            async with open_server(self.server) as server:
                if self.existing is not None:
                    there = server.attach(self.existing)
                else:
                    # A gateway wants to know who starts a kernel, and takes that and more from these.
                    env = {k: v for k, v in os.environ.items() if k.startswith("KERNEL_")}
                    there = server.open_kernel(
                        self.kernel, env=env, startup_timeout=self.startup_timeout
                    )
                async with there as kernel, kernel.open_channels(**bounds) as ch:
                    if self.existing is None:
                        self.left_behind = f"the kernel {kernel.id} at {server.url}"
                    yield ch
        elif self.existing is not None:
            found = await existing_file(self.existing)
            async with open_kernel_channels(None, found, **bounds) as ch:
                yield ch
        else:
            launching = open_kernel(
                self.kernel or "python3",
                cwd=self.cwd,
                extra_arguments=self.extra_arguments,
                startup_timeout=self.startup_timeout,
            )
            async with launching as launched, launched.open_channels(**bounds) as ch:
                self.kill = launched.kill
                yield ch
