"""An execution: code that the kernel runs, as a scope.

It is complete with its reply and its idle status, in either order; where one stays away,
:mod:`~enchannel._core.requests` finds out whether it ever comes. Meanwhile its messages are a
stream, its outputs are kept as a notebook shows them, and its prompts are answered if anybody does.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import anyio
import attrs
from anyio.lowlevel import checkpoint

from .. import messages
from .._bell import Bell
from .._core.bond import Tie
from .._core.bound import Held
from .._core.stream import Feed, Stream
from .._exceptions import KernelDied, LocalProtocolError, NoReply
from .._groups import block_task_group
from .._log import logger
from .._protocol.errors import text_of
from .._protocol.message import ChannelName, Message, RequestChannel
from .._protocol.outputs import OutputArea
from .block import Block
from .losses import Numbers
from .replies import count_among, count_of
from .stopping import Code, can_interrupt, leave
from .timings import Timings, timings_of

if TYPE_CHECKING:
    from typing import Self

    from .conversations import Conversations

__all__ = ["CodeOptions", "ExecuteOptions", "Execution", "OnInput", "execute_code"]

_PUBLISHED: tuple[ChannelName, ...] = ("iopub", "stdin")


class CodeOptions(TypedDict, total=False):
    """Arguments that say how code is run; see :meth:`enchannel.KernelChannels.execute`."""

    silent: bool
    store_history: bool | None
    user_expressions: Mapping[str, str] | None
    stop_on_error: bool
    on_input: OnInput | None
    interrupt_on_cancel: bool
    metadata: Mapping[str, Any] | None
    msg_id: str | None


class ExecuteOptions(CodeOptions, total=False):
    """The same, and where it is run; see :meth:`enchannel.KernelChannels.execute`."""

    subshell_id: str | None
    channel: RequestChannel
    keep_outputs: bool


OnInput: TypeAlias = Callable[[str, bool], "str | Awaitable[str]"]
"""Answers a prompt: called with its text, and whether what is typed is a password."""


class _Messages(Feed[Message]):
    """The messages of an execution; a wait is over when it is complete as well."""

    def __init__(self, run: _Run, held: Held | None) -> None:
        super().__init__(held)
        self._run = run

    def done(self) -> bool:
        """Whether a wait is over although nothing is there."""
        run = self._run
        return run.complete or run.left or run.failure is not None or super().done()


class _Run(Code):
    """An execution in flight: collects what the kernel says for it, and answers what it asks."""

    question: Message | None

    def __init__(
        self,
        conversations: Conversations,
        channel: ChannelName,
        request: Message,
        on_input: OnInput | None,
        *,
        streamed: bool,
        keep_outputs: bool,
    ) -> None:
        super().__init__(channel, request)
        self.wants_idle: bool = "iopub" in conversations.core.channels
        self._streamed = streamed
        self.keeps_outputs = keep_outputs
        self.statuses: dict[str, Message] = {}
        self.outputs: OutputArea = OutputArea(conversations.displays)
        self._hear_outputs = conversations.hear_outputs
        self._core = conversations.core
        self._on_input = on_input
        self.numbers: Numbers = conversations.losses.follow(request.msg_id)
        self._refused: int | None = None
        self._held = conversations.core.bound.hold(_PUBLISHED, told=False) if streamed else None
        self._messages = _Messages(self, self._held)
        self._stream = Stream(self._messages)
        self.count: int | None = None
        self._iterating = 0
        self._shown: Message | None = None
        self._prompted = Bell()
        self._answering = anyio.CancelScope()

    def take(self, channel: ChannelName, messages: Sequence[Message]) -> None:
        """Takes note of messages of this execution; must not raise."""
        if channel == "iopub":
            self.count = self.count or count_among(messages)
            if self.keeps_outputs:
                self._hear_outputs(messages)
                self.outputs.apply(*messages)
            if self._streamed:
                self._messages.put(messages)
        elif channel == "stdin" and self._on_input is None and self._streamed:
            self._messages.put(messages)
        super().take(channel, messages)
        if channel == "stdin":
            self._look_at_question()

    def hear_status(self, status: Message) -> None:
        """The kernel says what it does for it."""
        super().hear_status(status)
        self.statuses.setdefault(text_of(status.content["execution_state"]), status)

    def tell(self) -> None:
        """Has whoever waits look."""
        super().tell()
        if self.failure is not None or self.is_settled():
            self._look_at_question()
        self._messages.wake()

    def _look_at_question(self) -> None:
        """Who answers has to begin anew, or to stop."""
        self._answering.cancel()
        self._prompted.ring()
        self._core.changed.ring()

    @property
    def dropped(self) -> int:
        """See :attr:`Execution.dropped`."""
        return self._held.dropped if self._held is not None else 0

    @property
    def refused(self) -> int:
        """See :attr:`Execution.refused`."""
        now = self._core.refused if self._refused is None else self._refused
        return now - self.dropped_before

    def close(self) -> None:
        """Its block is left."""
        self._refused = self._core.refused
        self._messages.end(left=True)
        self.leave()

    async def wait(self) -> Message:
        """Waits until it is complete; see :meth:`Execution.wait`."""
        await checkpoint()
        while not self.complete:
            question = self.question
            nobodys = self._on_input is None and not self._iterating and question is not self._shown
            if question is not None and nobodys:
                logger().warning(
                    "the kernel asks for input although it may not (%r): it is given an empty text",
                    text_of(question.content.get("prompt")),
                )
                await self.answer_in_vain(self._core)
            else:
                await self.wait_news()
        assert self.reply is not None
        return self.reply

    async def receive(self) -> Message:
        """The next message of its stream; see :class:`Execution`."""
        while True:
            # Whoever iterates has the questions of the kernel.
            self._iterating += 1
            try:
                message = await self._stream.receive()
            except (anyio.EndOfStream, anyio.ClosedResourceError):
                if self.complete:
                    raise StopAsyncIteration from None
            else:
                if message is self.question:
                    self._shown = message
                return message
            finally:
                self._iterating -= 1
            # Says why it never will be.
            await self.wait_news()

    async def answer_prompts(self) -> None:
        """Answers what the code asks, until it is over or has failed."""
        while self.failure is None and not self.is_settled():
            question = self.question
            if question is None:
                await self._prompted.wait()
                continue
            with anyio.CancelScope() as self._answering:
                value = await self._answer(question)
                try:
                    await self.answer(self._core, question, value)
                except (KernelDied, NoReply, anyio.ClosedResourceError):
                    if self.question is question:
                        # Who waits for the execution is told what has ended it.
                        return

    async def _answer(self, prompt: Message) -> str:
        assert self._on_input is not None
        text, password = prompt.content.get("prompt"), prompt.content.get("password")
        answer = self._on_input(text_of(text), bool(password))
        value = await answer if inspect.isawaitable(answer) else answer
        if not isinstance(value, str):
            raise LocalProtocolError(f"on_input returns a str, not {type(value).__name__}")
        return value


class Execution:
    """Code that the kernel runs: its messages, its outputs and its reply.

    Made by :meth:`KernelChannels.execute`. Iterating gives the execution's iopub messages in order,
    and its input requests where no handler answers them; it ends when both the reply and the idle
    status are in, and raises what :meth:`wait` does. While the block lasts, what comes later still
    (a thread that prints) changes :attr:`outputs`, and iterating again gives it.

    Example:
        .. code-block:: python

            async with ch.execute("print('woo')") as execution:
                async for msg in execution:
                    print(msg.msg_type)  # stream
                reply = await execution.wait()
                print(reply.content["status"])  # ok
    """

    def __init__(self, run: _Run) -> None:
        self._run = run

    @property
    def request(self) -> Message:
        """The ``execute_request`` as it was sent."""
        return self._run.request

    @property
    def reply(self) -> Message | None:
        """The ``execute_reply``, ``None`` until it is in."""
        return self._run.reply

    @property
    def outputs(self) -> list[dict[str, Any]]:
        """The outputs so far in nbformat's shape, as a notebook shows them; none where they are not kept."""
        return self._run.outputs.outputs

    @property
    def text(self) -> str:
        """What a terminal would show of :attr:`outputs`, with the colours that are in them."""
        return self._run.outputs.text

    @property
    def dropped(self) -> int:
        """How many of its messages went beyond ``max_buffer_size``; :attr:`outputs` has them."""
        return self._run.dropped

    @property
    def refused(self) -> int:
        """How many arrivals were refused from its sending to the end of its block: too large, or no message.

        Nobody knows whose they were. :attr:`ChannelStatistics.dropped` says what was wrong with them.
        """
        return self._run.refused

    @property
    def missed(self) -> int | None:
        """How many of its messages the kernel lost before they were sent, once it is complete.

        Known of kernels that number what they send (ipykernel and its family), where all of iopub
        is subscribed to and nobody else runs code in a subshell; otherwise ``None``. Numbers that a
        kernel does not use look the same: of a hook that swallows displays, or of several
        expressions that show themselves.
        """
        return self._run.numbers.missed if self.complete else None

    @property
    def execution_count(self) -> int | None:
        """The number of this execution, where the kernel counts and has said it."""
        return self._run.count if self.reply is None else count_of(self.reply)

    @property
    def timings(self) -> Timings:
        """When it was where, as far as that is known."""
        return timings_of(self.request, self.reply, self._run.statuses)

    @property
    def complete(self) -> bool:
        """Whether the reply and the idle status are in, or the status is known never to come."""
        return self._run.complete

    async def wait(self) -> Message:
        """Waits until the execution is complete, and returns the reply.

        Its messages can still be iterated. A checkpoint; a cancelled wait may be resumed. A kernel
        that asks although it may not is given an empty text, with a warning, where nobody iterates.

        Raises:
            NoReply: The kernel is done with it, and no reply came.
            anyio.ClosedResourceError: The block was left before it was complete.
            KernelDied: The kernel is lost, or was restarted meanwhile.
        """
        return await self._run.wait()

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Coroutine[Any, Any, Message]:
        return self._run.receive()

    def __repr__(self) -> str:
        run = self._run
        count = "" if self.execution_count is None else f" [{self.execution_count}]"
        if run.complete:
            state = "complete"
        elif run.failure is not None:
            state = "failed"
        else:
            state = "left" if run.left else "running"
        return f"<Execution{count} {state}>"


@asynccontextmanager
async def _execute(
    conversations: Conversations,
    channel: ChannelName,
    request: Message,
    on_input: OnInput | None,
    *,
    interrupt_on_cancel: bool,
    streamed: bool,
    keep_outputs: bool,
    tied: Tie | None,
) -> AsyncIterator[Execution]:
    """The scope of an execution."""
    core = conversations.core
    run = _Run(
        conversations, channel, request, on_input, streamed=streamed, keep_outputs=keep_outputs
    )
    async with block_task_group("an execution") as tasks:
        if on_input is not None:
            tasks.start_soon(run.answer_prompts, name="enchannel prompts")
        try:
            await core.send(channel, request, flight=run, tied=tied)
            try:
                yield Execution(run)
            finally:
                await leave(conversations, run, unwanted=interrupt_on_cancel)
        finally:
            core.requests.remove(run)
            conversations.losses.conclude(run.numbers, complete=run.complete)
            run.close()
            tasks.end()


def execute_code(
    conversations: Conversations,
    code: str,
    *,
    silent: bool = False,
    store_history: bool | None = None,
    user_expressions: Mapping[str, str] | None = None,
    stop_on_error: bool = True,
    on_input: OnInput | None = None,
    interrupt_on_cancel: bool = False,
    metadata: Mapping[str, Any] | None = None,
    msg_id: str | None = None,
    subshell_id: str | None = None,
    channel: RequestChannel = "shell",
    keep_outputs: bool = True,
    streamed: bool = True,
    tied: Tie | None = None,
) -> AbstractAsyncContextManager[Execution]:
    """Runs `code`; see :meth:`enchannel.KernelChannels.execute`.

    Where it is not `streamed`, no messages are kept to be iterated; where what it is `tied` to has ended, it is not sent.
    """
    if not isinstance(code, str):
        raise LocalProtocolError(f"code is a str, not {type(code).__name__}")
    answers: dict[str, object] = {
        "silent": silent,
        "store_history": silent if store_history is None else store_history,
        "stop_on_error": stop_on_error,
        "interrupt_on_cancel": interrupt_on_cancel,
        "keep_outputs": keep_outputs,
    }
    for name, answer in answers.items():
        if not isinstance(answer, bool):
            raise LocalProtocolError(f"{name} is True or False, not {answer!r}")
    if user_expressions is not None and not isinstance(user_expressions, Mapping):
        raise LocalProtocolError(
            f"user_expressions maps names to expressions, and is no {type(user_expressions).__name__}"
        )
    core = conversations.core
    if not (on_input is None or callable(on_input)):
        raise LocalProtocolError(f"on_input is a function of prompt and password, not {on_input!r}")
    if on_input is not None and "stdin" not in core.channels:
        raise LocalProtocolError("on_input answers on the stdin channel, which is not open")
    if interrupt_on_cancel and not can_interrupt(core):
        raise LocalProtocolError("interrupt_on_cancel needs the control channel, which is not open")
    request = messages.execute_request(
        code,
        silent=silent,
        store_history=store_history,
        user_expressions=user_expressions,
        allow_stdin=on_input is not None,
        stop_on_error=stop_on_error,
        metadata=metadata,
        subshell_id=subshell_id,
    )
    if msg_id is not None:
        if not (msg_id and isinstance(msg_id, str)):
            raise LocalProtocolError(f"msg_id is a text that is not empty, not {msg_id!r}")
        request = attrs.evolve(request, header={**request.header, "msg_id": msg_id})
    name, prepared = conversations.prepare(request, None, channel)
    block = _execute(
        conversations,
        name,
        prepared,
        on_input,
        interrupt_on_cancel=interrupt_on_cancel,
        streamed=streamed,
        keep_outputs=keep_outputs,
        tied=tied,
    )
    return Block(block, code)
