"""Probes: requests of our own, of which it counts that and where they are answered, and not what is said.

A probe asks for ``kernel_info``. What answers it reaches no stream. It proves two things:

* That iopub is live: a subscription that is still on its way loses output without a word. Anything that
  arrives proves it. So the kernel is asked until something does: on control, which is answered even while a
  cell runs, and where control stays silent on shell as well.
* That nothing is on its way any more, for what is sent for a probe comes behind all that was sent before
  (:mod:`~enchannel._ending`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from .._protocol.connection_info import ChannelName
from .._protocol.message import Message, prepare

if TYPE_CHECKING:
    from .._channels import KernelChannels

__all__ = ["Probe", "channels_to_ask", "prove_iopub"]

FIRST_ASK, LAST_ASK = 0.02, 0.5
"""Seconds to wait for the answer to a probe before looking what to do: at first, and at the longest."""

ASKED: tuple[ChannelName, ...] = ("control", "shell")
"""Which channels are asked, in this order."""

PATIENCE = 0.25
"""Seconds after which a silent control channel is taken for one that does not answer."""


class Probe:
    """One request for kernel_info.

    Sent when it is made, or not at all. What answers it stays out of the streams, however late it comes.

    Args:
        channels: Whose kernel is asked.
        channel: Where.
        told: Called with it when anything arrives for it.
        subshell: The subshell that is asked.

    Attributes:
        channel: Where it was sent.
        answered: Whether its reply is here.
        published: Whether anything is that was published for it.

    Raises:
        anyio.WouldBlock: It cannot be sent now.
    """

    def __init__(
        self,
        channels: KernelChannels,
        channel: ChannelName,
        told: Callable[[Probe], None] | None = None,
        *,
        subshell: str | None = None,
    ) -> None:
        self.channel: ChannelName = channel
        self.answered: bool = False
        self.published: bool = False
        self._channels = channels
        self._idle = False
        self._told = told
        header = {"msg_type": "kernel_info_request"}
        if subshell is not None:
            header["subshell_id"] = subshell
        request = prepare(
            {"header": header},
            session=channels.session,
            username=channels.username,
        )
        self._msg_id = request.msg_id
        channels._transport.send_nowait(channel, request)
        channels._delivery.expect(request.msg_id, self._take, exclusive=True)

    def _take(self, channel: ChannelName, message: Message) -> None:
        if channel == "iopub":
            self.published = True
            self._channels._kernel.publishes_for_probes.add(self.channel)
            self._idle |= message.content.get("execution_state") == "idle"
        else:
            self.answered = True
        if self.answered and self._idle:
            self._channels._delivery.forget(self._msg_id)
        if self._told is not None:
            self._told(self)

    def abandon(self) -> None:
        """Tells nobody any more."""
        self._told = None


def channels_to_ask(channels: KernelChannels) -> list[ChannelName]:
    """Those that a probe may be sent on, the better ones first."""
    return [channel for channel in ASKED if channel in channels._transport.channels]


async def prove_iopub(channels: KernelChannels) -> None:
    """Waits, asking the kernel again and again, until anything arrives on iopub."""
    proven = channels._iopub_proven
    to_ask = channels_to_ask(channels)
    probes: dict[ChannelName, Probe | None] = {}
    pause, waited = FIRST_ASK, 0.0
    while True:
        first = next(iter(probes.values()), None)
        if to_ask and (not probes or (waited >= PATIENCE and not (first and first.answered))):
            probes[to_ask.pop(0)] = None
        for channel, probe in probes.items():
            # Again only behind an answer: a busy kernel would find a heap of requests when it is done. The
            # answer came and its status did not, so the subscription arrived after the status had gone.
            if probe is None or probe.answered:
                with contextlib.suppress(anyio.WouldBlock):
                    probes[channel] = Probe(channels, channel)
        with anyio.move_on_after(pause):
            await proven.wait()
        if proven.is_set():
            return
        waited += pause
        pause = min(2 * pause, LAST_ASK)
