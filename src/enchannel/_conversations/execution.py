"""Requests and executions: who waits for what a kernel answers.

A conversation is filed with the delivery rule before its request is sent, and taken back on every way out,
so no answer can come too early and none is waited for in vain. Answers are told by the id in their parent
header and by nothing else: kernels answer on the other channel, with another type, and in any order.

An execution is complete with its reply and its idle status, which come in either order, and any other
request with its reply. Where one of the two is here and the other one stays away, :mod:`~enchannel._ending` has
the rules: an execution ends without the status, and a kernel that sends no reply does not implement the
request. Where neither is, the caller's own deadline decides, or the loss of the kernel.
"""

from __future__ import annotations

import contextlib
import inspect
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

import anyio
from anyio.lowlevel import checkpoint, checkpoint_if_cancelled

from .. import messages
from .._core.delivery import fresh
from .._core.ending import ABORTED, Ending, MissingIdle, MissingReply
from .._exceptions import (
    EnchannelError,
    KernelDied,
    LocalProtocolError,
    NotImplementedByKernel,
    ReplyError,
    text_of,
)
from .._groups import closing_within, unwrapping_task_group
from .._protocol.connection_info import ChannelName
from .._protocol.message import Message
from .._protocol.outputs import OutputList

if TYPE_CHECKING:
    from typing import Self

    from .._channels import KernelChannels

__all__ = ["Conversation", "Execution", "raise_for_status"]

INTERRUPT_DEADLINE = 2.0
"""Seconds that interrupting the kernel may take on the way out of a cancelled execution."""

OnInput: TypeAlias = Callable[[str, bool], "str | Awaitable[str]"]
"""Answers a prompt: called with its text, and whether what is typed is a password."""

_COMM_TYPES = ("comm_open", "comm_msg", "comm_close")


def raise_for_status(reply: Message) -> Message:
    """Returns `reply` where it is a success.

    Kernels that leave the status out mean success.

    Raises:
        ReplyError: Its status is ``"error"``, ``"aborted"`` or another one that is no success.
    """
    status = reply.content.get("status", "ok")
    if reply.content.get("success") is False:  # a debug_reply
        raise ReplyError({**reply.content, "evalue": reply.content.get("message")})
    if status == "error" or status in ABORTED:
        raise ReplyError(reply.content)
    return reply


class Conversation:
    """A request in flight. Enter it before sending; what answers it is collected while it is entered."""

    def __init__(self, channels: KernelChannels, channel: ChannelName, request: Message) -> None:
        self.channel: ChannelName = channel
        self.request = request
        self.reply: Message | None = None
        self.idle: bool = False
        self._over = False
        self._failure: KernelDied | None = None
        self._channels = channels
        self.restarts: int = 0
        self._outages_before = 0
        self._news = anyio.Event()
        self._ending: Ending | None = None

    def __enter__(self) -> Self:
        delivery = self._channels._delivery
        self.restarts = len(delivery.restarts)
        self._outages_before = self._channels._outages.of[self.channel]
        delivery.expect(self.request.msg_id, self._take)
        delivery.at_end[self._tell] = None
        self._channels._conversations.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        delivery = self._channels._delivery
        delivery.at_end.pop(self._tell, None)
        self._channels._conversations.discard(self)
        idle_to_come = self.reply is not None and not self.idle
        delivery.forget(self.request.msg_id, idle_to_come=idle_to_come)
        if idle_to_come:
            # Some kernels never send it.
            self._channels._kernel.done(self.request.msg_id)
        if self._ending is not None:
            self._ending.close()
        self._over = True
        self._tell()

    def _take(self, channel: ChannelName, message: Message) -> None:
        if channel == "iopub":
            self.idle = self.idle or (
                message.msg_type == "status" and message.content.get("execution_state") == "idle"
            )
        elif channel != "stdin" and message.msg_type not in _COMM_TYPES and self.reply is None:
            self.reply = message
        if self._ending is not None:
            self._ending.stir()
        self._tell()

    def _tell(self) -> None:
        self._news.set()

    def fail(self, failure: KernelDied) -> None:
        """Whoever waits is told that there will be no reply."""
        self._failure = failure
        self._tell()

    def reply_lost(self) -> KernelDied:
        """What is told where the connection was gone when the kernel replied."""
        return KernelDied(
            f"the reply to the {self.request.msg_type} was lost with the connection, which is back",
            "disconnected",
        )

    @property
    def alive(self) -> bool:
        """Whether the kernel that was asked is there."""
        delivery = self._channels._delivery
        return not delivery.ended and len(delivery.restarts) == self.restarts

    async def wait_reply(self) -> Message:
        """The reply.

        Raises:
            NotImplementedByKernel: The kernel went idle, and sent none.
            KernelDied: The kernel is lost, or was restarted meanwhile.
        """
        while self.reply is None:
            await self._wait_progress()
        return self.reply

    async def _wait_progress(self) -> None:
        """Waits for what brings the end nearer."""
        if self._ending is None:
            self._ending = self._begin_ending()
        if self._ending is None:
            await self._wait_news()
            return
        if not self._ending.over:
            with anyio.CancelScope(deadline=self._ending.deadline):
                await self._wait_news()
                return
            self._ending.look()
        if self._ending.over and self.reply is None:
            if not self._channels._outages.current:
                self._channels._delivery.raise_if_ended(self.restarts)
                raise self._no_reply()
            # It may be lost with the connection; that is told when it is over.
            await self._wait_news()

    def _begin_ending(self) -> Ending | None:
        if self.reply is not None:
            return MissingIdle(self._channels, self.reply, self._tell)
        if self.idle:
            return MissingReply(self._channels, self.channel, self.request, self._tell)
        return None

    def _no_reply(self) -> EnchannelError:
        if self._channels._outages.of[self.channel] > self._outages_before:
            return self.reply_lost()
        return NotImplementedByKernel(
            f"the kernel sent no reply to the {self.request.msg_type} and is done with it; "
            "it does not seem to implement it"
        )

    async def _wait_news(self) -> None:
        self._channels._delivery.raise_if_ended(self.restarts)
        if self._over:
            raise anyio.ClosedResourceError
        if self._failure is not None:
            raise fresh(self._failure)
        if self._news.is_set():
            # Not otherwise: several tasks may wait for the same news.
            self._news = anyio.Event()
        await self._news.wait()


class Execution(Conversation):
    """Code that the kernel runs: its messages, its outputs and its reply.

    Made by :meth:`KernelChannels.execute`. Iterating gives the execution's iopub messages in their order,
    and its input requests where no handler answers them; it ends when both the reply and the idle status
    are in. While the block lasts, what comes later still (a thread that prints) changes :attr:`outputs`,
    and iterating again gives it.

    Attributes:
        request: The ``execute_request`` as it was sent.
        reply: The ``execute_reply``, ``None`` until it is in.
    """

    def __init__(
        self,
        channels: KernelChannels,
        channel: ChannelName,
        request: Message,
        on_input: OnInput | None,
    ) -> None:
        super().__init__(channels, channel, request)
        self._on_input = on_input
        self._buffer: deque[Message] = deque()
        self._prompts: deque[Message] = deque()
        self._prompted = anyio.Event()
        self._answering = anyio.CancelScope()
        self._outputs = OutputList(channels._displays)

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """The outputs so far in nbformat's shape, as a notebook shows them."""
        return self._outputs.outputs

    @property
    def execution_count(self) -> int | None:
        """The number of this execution, where the kernel counts and has said it."""
        count = self.reply.content.get("execution_count") if self.reply is not None else None
        return count if isinstance(count, int) else None

    @property
    def complete(self) -> bool:
        """Whether the reply and the idle status are in."""
        return self.reply is not None and (
            self.idle or (self._ending is not None and self._ending.over)
        )

    async def wait(self) -> Message:
        """Waits until the execution is complete, and returns the reply.

        Its messages can still be iterated. A checkpoint; a cancelled wait may be taken up again.

        Raises:
            NotImplementedByKernel: The kernel went idle, and sent no reply.
            anyio.ClosedResourceError: The block was left before it was complete.
            KernelDied: The kernel is lost.
        """
        await checkpoint()
        while not self.complete:
            await self._wait_progress()
        assert self.reply is not None
        return self.reply

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        await checkpoint_if_cancelled()
        while not self._buffer:
            if self.complete:
                await checkpoint()
                raise StopAsyncIteration
            await self._wait_progress()
        return self._buffer.popleft()

    def _take(self, channel: ChannelName, message: Message) -> None:
        if channel == "iopub":
            self._outputs.apply(message)
            self._buffer.append(message)
        elif channel == "stdin" and self._on_input is None:
            self._buffer.append(message)
        elif channel == "stdin":
            self._prompts.append(message)
            self._prompted.set()
            # Code that asks anew has given up on what it asked before: it was interrupted.
            self._answering.cancel()
        super()._take(channel, message)

    async def _answer_prompts(self) -> None:
        while True:
            await self._prompted.wait()
            self._prompted = anyio.Event()
            while self._prompts:
                prompt = self._prompts.popleft()
                with anyio.CancelScope() as self._answering:
                    await self._answer(prompt)

    async def _answer(self, prompt: Message) -> None:
        assert self._on_input is not None
        text, password = prompt.content.get("prompt"), prompt.content.get("password")
        answer = self._on_input(text_of(text), bool(password))
        value = await answer if inspect.isawaitable(answer) else answer
        if not isinstance(value, str):
            raise LocalProtocolError(f"on_input returns a str, not {type(value).__name__}")
        # Who waits for the execution is told of the loss.
        with contextlib.suppress(KernelDied, anyio.ClosedResourceError):
            reply = messages.input_reply(value, prompt)
            await self._channels._send("stdin", reply, self.restarts)

    async def _interrupt(self) -> None:
        """Interrupts the kernel and waits until it is done with this; bounded, and never raises."""
        with closing_within(INTERRUPT_DEADLINE):
            await self._channels.interrupt()
            await self.wait()


@asynccontextmanager
async def run_execution(
    channels: KernelChannels,
    channel: ChannelName,
    request: Message,
    on_input: OnInput | None,
    *,
    interrupt_on_cancel: bool,
) -> AsyncIterator[Execution]:
    """The scope of an execution."""
    execution = Execution(channels, channel, request, on_input)
    await channels._outages.wait_over()
    async with unwrapping_task_group() as tasks:
        with execution:
            if on_input is not None:
                tasks.start_soon(execution._answer_prompts, name="enchannel prompts")
            try:
                await channels._send_prepared(channel, request, execution.restarts)
                try:
                    yield execution
                except BaseException:
                    if interrupt_on_cancel and not execution.complete and execution.alive:
                        await execution._interrupt()
                    raise
            finally:
                tasks.cancel_scope.cancel()


def checked_code(code: object, user_expressions: Mapping[str, str] | None) -> None:
    """Raises LocalProtocolError for what a kernel would choke on."""
    if not isinstance(code, str):
        raise LocalProtocolError(f"code is a str, not {type(code).__name__}")
    if user_expressions is not None and not isinstance(user_expressions, Mapping):
        raise LocalProtocolError(
            f"user_expressions maps names to expressions, and is no {type(user_expressions).__name__}"
        )
