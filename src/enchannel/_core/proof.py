"""Proof that iopub is live: a subscription that is still on its way loses output without a word.

Anything genuine that arrives there proves it. To cause something the kernel is asked for ``kernel_info``: on control,
which is answered even while a cell runs, and on shell, for some kernels are silent on control or publish nothing for
what they answer there. What answers reaches no stream.
"""

from __future__ import annotations

import anyio

from .._protocol.message import ChannelName
from .core import Core

__all__ = ["ask_anyhow", "prove_answering", "prove_iopub"]

FIRST_ASK, LAST_ASK = 0.02, 0.5
"""Seconds to wait for the answer to a question before looking what to do: at first, and at the longest."""

ASKED: tuple[ChannelName, ...] = ("control", "shell")
"""Which channels are asked."""


async def prove_iopub(core: Core) -> None:
    """Waits, asking the kernel again and again, until anything arrives on iopub."""
    pause = FIRST_ASK
    while not core.iopub_proven:
        ask_anyhow(core)
        with anyio.move_on_after(pause):
            while not core.iopub_proven:
                await core.changed.wait()
        pause = min(2 * pause, LAST_ASK)


async def prove_answering(core: Core) -> None:
    """Waits, asking the kernel again where what it was asked is lost, until it has answered anything."""
    questions = core.requests.questions
    while not questions.ever_answered:
        ask_anyhow(core)
        with anyio.move_on_after(LAST_ASK):
            await questions.first_answered()


def ask_anyhow(core: Core) -> None:
    """Asks the kernel something, where nothing is asked already.

    Again only behind an answer: a busy kernel would find a heap of questions when it is done. Where the answer came and
    its status did not, the subscription arrived after the status had gone.
    """
    for channel in ASKED:
        if channel in core.channels and not core.requests.questions.pending(channel):
            core.requests.questions.ask(channel)
