"""What a lost connection means: the kernel is gone, or it came back, the same or another.

The rules:

* A connection that is lost may come back within ``reconnect_timeout``; where it does not, the kernel is
  lost. Meanwhile nothing is sent: whoever sends waits.
* When every channel is connected again, iopub is proven live once more, and the kernel's session decides.
  The same session: everything goes on, and the gap is counted and logged, because what was published in it
  is lost. Another one: the kernel was restarted; requests in flight are told, and the streams go on.
* A reply that was sent in the gap is lost. So a channel that carried requests is asked once more behind it,
  and a request that this one overtakes is told that its reply will not come.
* Many kernels never say their session. Where one such lost every connection at once, it counts as
  restarted, since a request that waits for ever would be worse; where some connection held, it is the same.
* A restart that we make ourselves takes its time, and is over when the new kernel is ready.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import anyio
import anyio.abc

from .. import messages
from .._exceptions import KernelDied, NotImplementedByKernel
from .._groups import unwrapping_task_group
from .._log import logger
from .._protocol.connection_info import ChannelName
from .probe import prove_iopub

if TYPE_CHECKING:
    from .._channels import KernelChannels

__all__ = ["Outages"]

PROOF_DEADLINE = 5.0
"""Seconds for iopub to be live again once every channel is connected; some kernels take that to start."""

SESSION_GRACE = 1.0
"""Seconds for the kernel to say its session once iopub is live."""


class Outages:
    """Follows the connections of one kernel's channels.

    Attributes:
        count: How often the connection was lost and came back.
        seconds: How long it was gone, all in all.
        of: How often each channel's was.
    """

    def __init__(self, channels: KernelChannels, reconnect_timeout: float) -> None:
        self.count: int = 0
        self.seconds: float = 0.0
        self.of: Counter[str] = Counter()
        self._channels = channels
        self._reconnect_timeout = reconnect_timeout
        self._over: anyio.Event | None = None
        self._expected = False
        self._told = False
        self._patience = anyio.CancelScope()

    @property
    def current(self) -> bool:
        """Whether there is one now."""
        return self._over is not None

    async def wait_over(self) -> None:
        """Waits until what is asked for is not lost in an outage; the kernel may be gone by then.

        Not always a checkpoint.
        """
        while self._over is not None and not self._channels._delivery.ended:
            await self._over.wait()

    def expect_restart(self) -> None:
        """The kernel is about to be restarted: from now on nothing is sent, until it is back."""
        if self._channels._delivery.ended:
            return  # they have ended with an earlier run of the kernel
        self._expected, self._told = True, False
        self._patience.deadline = math.inf
        self._over = self._over or anyio.Event()

    def tell_restart(self) -> None:
        """The kernel that is to be restarted has exited."""
        if not self._expected:
            return
        self._channels._catch_up()
        self._channels._kernel.begin_anew()
        self._told = True
        self._tell("the kernel was restarted")

    def end(self) -> None:
        """Wakes who waits: the kernel is lost, or the block was left."""
        if self._over is not None:
            self._over.set()
            self._over = None

    async def follow(self) -> None:
        """For as long as the channels are open: from one outage to the next."""
        async with unwrapping_task_group() as tasks:
            await self._follow(tasks)
            tasks.cancel_scope.cancel()

    async def _follow(self, tasks: anyio.abc.TaskGroup) -> None:
        while not self._channels._delivery.ended:
            await self._channels._transport.wait_lost()
            self._over = self._over or anyio.Event()
            # Bounded streams would keep back what the kernel sent before its end.
            self._channels._delivery.lift_bound()
            await self._sit_out(tasks)

    async def _sit_out(self, tasks: anyio.abc.TaskGroup) -> None:
        """Waits until the connection is there again or given up, and tells whom it concerns."""
        transport, kernel = self._channels._transport, self._channels._kernel
        lost_at, restarts = anyio.current_time(), kernel.restarts
        lost: set[ChannelName] = set()
        same = True
        # One channel may go while iopub is proven for the loss of another.
        while anew := await self._connect_again(lost):
            lost |= anew
            same = lost != set(transport.channels)
            if "iopub" in lost:
                same |= await self._meet_again(need_session=not same)
        if self._channels._delivery.ended:
            return
        transport.settle()
        if self._expected and not self._told:
            return  # the kernel that is about to be restarted came back; it is not over
        if self._expected:
            self._expected = False
        elif kernel.restarts != restarts:
            self._tell(
                "the kernel was restarted: its sockets were gone and are back with a new session"
            )
        elif not same:
            kernel.begin_anew()
            self._tell(
                "the kernel's sockets were gone and are back, and it does not say whether it was restarted"
            )
        elif lost:
            gap = anyio.current_time() - lost_at
            self.count += 1
            self.seconds += gap
            self.of.update(lost)
            logger().warning(
                "%s lost the connection to the kernel and had it back after %.2f s; what was sent to us "
                "meanwhile is lost",
                ", ".join(channel for channel in transport.channels if channel in lost),
                gap,
            )
            for channel in lost - {"iopub", "stdin"}:
                tasks.start_soon(self._settle_requests, channel, "iopub" in lost)
        self.end()
        self._channels._delivery.restore_bound()
        # Idle may have come, and the reply not.
        self._channels._delivery.tell_all()

    async def _connect_again(self, lost: Collection[ChannelName]) -> set[ChannelName]:
        """Waits until every channel is connected; which of them were gone, but for those known to be `lost`.

        A transport that cannot tell counts as having lost all of them, once.
        """
        transport = self._channels._transport
        timeout = math.inf if self._expected else self._reconnect_timeout
        with anyio.move_on_after(timeout) as self._patience:
            await transport.connect()
        unconnected = transport.unconnected()
        if unconnected:
            self._channels._lose(
                KernelDied(
                    f"the kernel is gone: {_listed(unconnected)} disconnected and did not come back "
                    f"within {self._reconnect_timeout:g} s",
                    "disconnected",
                )
            )
            return set()
        anew = transport.take_lost()
        if anew is None:
            return set() if lost else set(transport.channels)
        return set(anew)

    async def _settle_requests(self, channel: ChannelName, idle_lost: bool) -> None:
        """Finds the requests whose reply was lost in the gap: those that a later one overtakes."""
        conversations = [
            each
            for each in self._channels._conversations
            if each.channel == channel and each.reply is None
        ]
        if not conversations:
            return
        # Kernels answer a channel's requests in order; this one waits for its turn behind a running cell.
        with contextlib.suppress(NotImplementedByKernel, KernelDied, anyio.ClosedResourceError):
            await self._channels.request(messages.kernel_info_request(), channel=channel)
        await anyio.sleep(SESSION_GRACE)
        self._channels._catch_up()
        for each in conversations:
            # Some kernels, and every subshell, run several at a time: what is busy goes on.
            several = "subshell_id" in each.request.header
            busy = self._channels._kernel.is_busy(each.request.msg_id)
            if each.reply is None and not (busy and (several or not idle_lost)):
                each.fail(each.reply_lost())

    async def _meet_again(self, *, need_session: bool) -> bool:
        """Proves iopub live once more; whether the kernel says that it is the one that it was."""
        channels, kernel = self._channels, self._channels._kernel
        kernel.forget_busy({each.request.msg_id for each in channels._conversations})
        # What the old connection brought proves nothing of the new one.
        channels._catch_up()
        heard, knew = kernel.heard, kernel.session is not None
        channels._iopub_proven = anyio.Event()
        channels._transport.unsettle()
        kernel.curious = True
        with anyio.move_on_after(PROOF_DEADLINE):
            await prove_iopub(channels)
            with anyio.move_on_after(SESSION_GRACE):
                while need_session and kernel.heard == heard:
                    await kernel.changed.wait()
        kernel.curious = False
        return knew and kernel.heard > heard

    def _tell(self, message: str) -> None:
        self._channels._delivery.restart(KernelDied(message, "restarted"))


def _listed(unconnected: Mapping[str, str]) -> str:
    return ", ".join(f"{channel} at {endpoint}" for channel, endpoint in unconnected.items())
