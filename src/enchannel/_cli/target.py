"""Where ``enchannel run`` runs code: in a kernel of its own, one that runs already, or one of a server."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
import trio

from .. import (
    KernelChannels,
    Server,
    ServerError,
    ServerKernel,
    open_kernel,
    open_kernel_channels,
    open_server,
)
from .existing import existing_file

__all__ = ["Target"]

WAITING, WAITING_BYTES = 10_000, 8 << 20
"""Messages, and bytes of them, that may wait here for who reads the output; then the kernel waits, or drops some."""

AGAIN = 0.2
"""Seconds until a server is asked again whether it is there."""


@attrs.define
class Target:
    """Where code is run.

    Attributes:
        kill: Ends the kernel, which was launched here or started at a server and may be stopping, without asking it.
    """

    kernel: str | None = None
    existing: str | None = None
    server: str | None = None
    startup_timeout: float = 60.0
    cwd: str | None = None
    extra_arguments: Sequence[str] = ()
    kill: Callable[[], Awaitable[object]] | None = None
    _server: Server | None = attrs.field(default=None, init=False)
    _started: ServerKernel | None = attrs.field(default=None, init=False)

    @property
    def left_behind(self) -> str:
        """The kernel that was started at a server, as long as it may go on there."""
        if self._server is None or self._started is None or self._started.gone:
            return ""
        return f"the kernel {self._started.id} at {self._server.url}"

    async def wait_silent(self, seconds: float) -> None:
        """Waits until the server at which the kernel was started does not answer within `seconds`."""
        assert self._server is not None
        answers = True
        while answers:
            await trio.sleep(AGAIN)
            answers = False
            with trio.move_on_after(seconds):
                try:
                    await self._server.kernelspecs()
                    answers = True
                except ServerError as error:
                    # A refusal is an answer as well.
                    answers = error.status > 0
                except anyio.ClosedResourceError:
                    # Its block is being left, and nothing more is asked of it.
                    await trio.sleep_forever()

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
                self._server = server
                if self.existing is not None:
                    there = server.attach(self.existing)
                else:
                    # A gateway wants to know who starts a kernel, and takes that and more from these.
                    env = {k: v for k, v in os.environ.items() if k.startswith("KERNEL_")}
                    there = server.open_kernel(
                        self.kernel, env=env, startup_timeout=self.startup_timeout
                    )
                async with there as kernel:
                    if self.existing is None:
                        self._started, self.kill = kernel, kernel.shut_down
                    async with kernel.open_channels(**bounds) as ch:
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
