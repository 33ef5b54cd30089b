"""Proving that iopub is live: a subscription that is still on its way loses output without a word.

Anything that arrives proves it. To make something arrive, the kernel is asked for its ``kernel_info``: on
control, which is answered even while a cell runs, and where control stays silent on shell as well. What
answers the probe reaches no stream.

A probe tells as well that nothing is on its way any more: iopub keeps the order, so what a kernel publishes
for it comes behind all that was published before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from ._connection_info import ChannelName
from ._message import Message, prepare

if TYPE_CHECKING:
    from ._channels import KernelChannels

__all__ = ["ask_for_the_end", "prove_iopub"]

FIRST_ASK, LAST_ASK = 0.02, 0.5
"""Seconds to wait for the answer to a probe before looking what to do: at first, and at the longest."""

ASKED: tuple[ChannelName, ...] = ("control", "shell")
"""Which channels are asked, in this order."""

PATIENCE = 0.25
"""Seconds after which a silent control channel is taken for one that does not answer."""


async def prove_iopub(channels: KernelChannels) -> None:
    """Waits, asking the kernel again and again, until anything arrives on iopub."""
    proven = channels._iopub_proven
    to_ask: list[ChannelName] = [c for c in ASKED if c in channels._transport.channels]
    probes: list[_Probe] = []
    pause, waited = FIRST_ASK, 0.0
    while True:
        if to_ask and (not probes or (waited >= PATIENCE and not probes[0].answered)):
            probes.append(_Probe(channels, to_ask.pop(0)))
            probes[-1].ask()
        with anyio.move_on_after(pause):
            await proven.wait()
        if proven.is_set():
            return
        waited += pause
        pause = min(2 * pause, LAST_ASK)
        for probe in probes:
            # Only behind an answer: a busy kernel would find a heap of requests when it is done. The
            # answer came and its status did not, so the subscription arrived after the status had gone.
            if probe.answered:
                probe.ask()


def ask_for_the_end(channels: KernelChannels, came: Callable[[], None]) -> None:
    """Has `came` called when all that the kernel has published until now is here, if it answers at all."""
    asked: list[ChannelName] = [c for c in ASKED if c in channels._transport.channels]
    _Probe(channels, asked[0], came).ask()


class _Probe:
    """Asks for kernel_info on one channel, and keeps what answers it out of the streams."""

    def __init__(
        self,
        channels: KernelChannels,
        channel: ChannelName,
        published: Callable[[], None] = lambda: None,
    ) -> None:
        self.answered = False
        self._channels = channels
        self._channel: ChannelName = channel
        self._published = published

    def ask(self) -> None:
        channels = self._channels
        request = prepare(
            {"header": {"msg_type": "kernel_info_request"}},
            session=channels.session,
            username=channels.username,
        )
        self.answered = False
        channels._delivery.expect(request.msg_id, self._take, exclusive=True)
        try:
            channels._transport.send_nowait(self._channel, request)
        except anyio.WouldBlock:
            self.answered = True  # nothing was asked, so ask again

    def _take(self, channel: ChannelName, _: Message) -> None:
        if channel == "iopub":
            self._published()
        else:
            self.answered = True
