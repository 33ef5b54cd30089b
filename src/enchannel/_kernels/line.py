"""Our own connection to a kernel that we launched: what proves it ready is kept for as long as it runs.

No connection is closed in a kernel's first moments: some abort at that, some answer before the process behind them is
there. From the moment it is ready the line is subscribed to nothing, and it serves interrupt, restart and stop, which
need not connect then.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import anyio

from .. import messages
from .._core.core import Core
from .._core.exits import end_of_kernel
from .._core.idle import wait_idle
from .._core.proof import prove_answering
from .._core.stream import fresh
from .._exceptions import EnchannelError, KernelConnectError, KernelDied
from .._open_channels import open_some_channels
from .._protocol.connection_info import ConnectionInfo
from .._protocol.message import ChannelName, Message

__all__ = ["Line"]


QUIET: Mapping[ChannelName, float] = {"shell": 1.0, "control": 0.1}
"""Seconds for the kernel to be done with what it was asked to prove it ready. Some are silent on control, or publish
nothing for it; the others answer there before they do on shell."""


class Line:
    """The connection to one run of a kernel.

    Attributes:
        failure: Why it could not be opened.
        ready: Whether the kernel is: its iopub is live, and it has answered something. It may greet who subscribes long
            before it does.
    """

    def __init__(self) -> None:
        self.failure: KernelConnectError | None = None
        self.ready: bool = False
        self._core: Core | None = None
        self._over = KernelDied("the kernel was stopped", "exited")
        self._scope = anyio.CancelScope()
        self._known = anyio.Event()

    async def hold(self, info: ConnectionInfo, timeout: float) -> None:
        """Opens it, and keeps it open until :meth:`close`; never raises."""
        deadline = anyio.current_time() + timeout
        try:
            opening = open_some_channels(
                info, "shell", "control", "iopub", connect_timeout=timeout, on_made=self._made
            )
            with self._scope:
                async with opening as channels:
                    assert self._core is not None
                    with anyio.CancelScope(deadline=deadline):
                        await prove_answering(self._core)
                        self.ready = channels.statistics().iopub_proven
                    # Or what the kernel publishes for our questions would show up in the first streams of the user.
                    for channel, seconds in QUIET.items():
                        with anyio.move_on_after(seconds):
                            await self._core.requests.questions.all_answered(channel)
                    self._core.transport.mute()
                    self._known.set()
                    await anyio.sleep_forever()
        except KernelConnectError as failure:
            self.failure = failure
        except KernelDied:
            pass  # whoever watches the process says so
        finally:
            self._known.set()

    def _made(self, core: Core) -> None:
        self._core = core

    async def wait_known(self) -> None:
        """Waits until the kernel is ready, or is known not to be."""
        await self._known.wait()

    def close(self, over: KernelDied) -> None:
        """The kernel's run is over; also where it never was ready.

        Args:
            over: What is said of it to who waits for its answer.
        """
        self._over = over
        if self._core is not None:
            # What it has not read, such as a request to exit, is not for the next one there.
            self._core.transport.reconnect(self._core.channels)
        self._scope.cancel()

    async def end(self, died: KernelDied, last_words: float) -> None:
        """The kernel has exited: nobody connects to where it was, and who waits for its answer is told.

        Args:
            died: What is said of it.
            last_words: Seconds that its last words may take.
        """
        if self._core is not None:
            await end_of_kernel(self._core, died, last_words)

    async def request(self, request: Message) -> None:
        """Sends a request on control and waits for its reply.

        Raises:
            EnchannelError: No reply comes, or the kernel is lost, or its run is over.
        """
        if self._core is None:
            raise fresh(self._over)
        try:
            await self._core.request("control", self._core.prepare(request))
        except anyio.ClosedResourceError:
            # No block of the caller's.
            raise fresh(self._over) from None

    async def wait_done(self) -> None:
        """Waits until the kernel is done with the code that it was given, or is lost; never raises."""
        if self._core is None:
            return
        with contextlib.suppress(EnchannelError, anyio.ClosedResourceError):
            # It takes its clients in turns: behind our first question comes what waits of another.
            for _ in range(2):
                await wait_idle(self._core)

    async def ask_to_shut_down(self, *, restart: bool, interrupt: bool) -> None:
        """Asks the kernel to exit; never raises.

        Args:
            restart: Whether it is started again behind that.
            interrupt: Whether what it runs is to be interrupted by a message first.
        """
        # An error means that it went away meanwhile, or cannot be reached: the signals end it.
        with contextlib.suppress(EnchannelError):
            if interrupt and self._core is not None:
                self._core.post("control", messages.interrupt_request())
            await self.request(messages.shutdown_request(restart=restart))
