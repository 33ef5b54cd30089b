"""The channels of one kernel, as a user holds them.

:class:`KernelChannels` joins a transport to the delivery rule: one reader task per channel takes what
has arrived and delivers it, one watcher task per channel follows the connection. The tasks never raise:
what ends them is recorded, ends the streams, and is raised at the next receive or send.

A message is sent by the task that calls ``send``; nothing is queued in between, so an error of the
message is an error of the call.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import anyio
import anyio.abc
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from . import messages
from ._conversations.execution import (
    Conversation,
    Execution,
    OnInput,
    checked_code,
    raise_for_status,
    run_execution,
)
from ._core.delivery import TURN, Delivery, Listener
from ._core.heartbeat import Heartbeat
from ._core.outages import Outages
from ._core.status import KernelState
from ._exceptions import EnchannelError, KernelDied, LocalProtocolError
from ._groups import unwrapping_task_group
from ._protocol.connection_info import ChannelName
from ._protocol.message import Body, Message, prepare
from ._protocol.outputs import Displays
from ._transports.base import Transport

if TYPE_CHECKING:
    from typing import Self

    from typing_extensions import Buffer

    from ._conversations.comms import Comm, Comms, IncomingComms
    from ._conversations.sessions import DebugSession, Subshell
    from ._protocol.contents import KernelInfoReply

__all__ = ["Channel", "ChannelStatistics", "KernelChannels", "MainChannel", "Subscription"]


class ChannelStatistics(NamedTuple):
    """What :meth:`KernelChannels.statistics` says; counts since the channels were opened."""

    iopub_proven: bool
    """Whether the subscription was seen to work before the block was entered. Where it was not (a busy
    kernel that answers nothing), output of the first request may be missed."""
    received: Mapping[str, int]
    """Messages that arrived, by channel."""
    sent: Mapping[str, int]
    """Messages that were sent, by channel."""
    dropped: Mapping[str, int]
    """Arrivals that were no message, by the name of the error that says why."""
    backlog: Mapping[str, int]
    """Messages that wait for somebody to listen, by channel."""
    backlog_dropped: int
    """Messages that nobody listened for until the backlog was full."""
    listeners: int
    """Streams that are listening."""
    restarts: int = 0
    """How often the kernel was restarted."""
    outages: int = 0
    """How often the connection was lost, and came back to the same kernel."""
    outage_seconds: float = 0.0
    """How long it was gone in these; what was published then is lost."""
    missed_beats: int = 0
    """Heartbeats in a row that the kernel has not echoed; 0 where it never echoed any."""


class Channel(Listener[Message], anyio.abc.ObjectStream[Message]):
    """The shell, control or stdin channel: an AnyIO object stream of :class:`Message`."""

    def __init__(self, channels: KernelChannels, name: ChannelName) -> None:
        super().__init__(channels._delivery, (name,), tagged=False)
        self.name: ChannelName = name
        self._channels = channels
        self._may_send = True

    # AnyIO's send returns nothing; ours says what was sent, so that replies can be matched.
    async def send(self, item: Body) -> Message:  # type: ignore[override]
        """Sends `item`, completed, on this channel.

        A checkpoint; a cancelled send has sent nothing.

        Args:
            item: The dict of the Jupyter documentation, or a :class:`Message`. What it leaves out
                (``msg_id``, ``date``, ``version``, ``parent_header``, ``metadata``, ``content``) is
                filled in; ``session`` and ``username`` are ours.

        Returns:
            The message as it was sent; its replies are those for which ``is_child_of(sent)``.

        Raises:
            LocalProtocolError: No ``msg_type``, or a part that is no JSON. Nothing was sent.
            anyio.ClosedResourceError: This channel is closed, or its block was left.
            KernelDied: The kernel is lost.
        """
        if self._closed or not self._may_send:
            raise anyio.ClosedResourceError
        return await self._channels._send(self.name, item)

    async def send_eof(self) -> None:
        """Sends nothing more on this channel; receiving goes on. A checkpoint."""
        self._may_send = False
        await checkpoint()

    def __repr__(self) -> str:
        return f"<Channel {self.name} {self._state()}>"


class MainChannel(Listener[tuple[ChannelName, Message]]):
    """All channels as one stream of ``(channel, message)``."""

    def __init__(self, channels: KernelChannels) -> None:
        super().__init__(channels._delivery, channels._transport.channels, tagged=True)
        self._channels = channels

    async def send(self, channel: str, body: Body) -> Message:
        """Sends `body`, completed, on `channel`: ``"shell"``, ``"control"`` or ``"stdin"``.

        Like :meth:`Channel.send` in everything else.

        Raises:
            LocalProtocolError: Also for a channel that is unknown, or that only receives.
            anyio.ClosedResourceError: This stream is closed, or its block was left.
            KernelDied: The kernel is lost.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        return await self._channels._send(channel, body)

    def __repr__(self) -> str:
        return f"<MainChannel {self._state()}>"


class Subscription(Listener[tuple[ChannelName, Message]]):
    """One more listener, live while its ``async with`` block lasts."""

    async def __aenter__(self) -> Self:
        # First: an entry that is cancelled has no exit, and would listen for ever.
        await checkpoint_if_cancelled()
        self.listen()
        return self


class KernelChannels:
    """The open channels of one kernel; made by :func:`enchannel.open_kernel_channels`.

    Attributes:
        main: Every channel at once.
        shell: Requests and their replies.
        control: Requests that must not wait behind a running cell.
        stdin: The kernel's requests for input, and our replies.
        iopub: What the kernel publishes; receive only.
        session: The session id in the header of each sent message.
        username: The user name there.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        session: str,
        username: str,
        max_buffer_size: float,
        reconnect_timeout: float,
        heartbeat_timeout: float,
    ) -> None:
        self._transport = transport
        self._delivery = Delivery(transport.channels, max_buffer_size)
        self._tasks = anyio.CancelScope()
        self._blocked_sends: set[anyio.CancelScope] = set()
        self._sent = dict.fromkeys(transport.channels, 0)
        self._iopub_proven = anyio.Event()
        self._turn = TURN
        self._kernel = KernelState()
        self._delivery.observers.append(self._kernel.observe)
        self._delivery.at_end[self._kernel.end] = None
        self._outages = Outages(self, reconnect_timeout)
        self._heartbeat = Heartbeat(self, heartbeat_timeout)
        self._conversations: set[Conversation] = set()
        self._displays = Displays()
        self._comms: Comms | None = None
        self._info: tuple[int, dict[str, Any]] | None = None
        self._interrupter: Callable[[], None] | None = None
        self.session = session
        self.username = username
        self.main: MainChannel = MainChannel(self)
        self.shell: Channel = Channel(self, "shell")
        self.control: Channel = Channel(self, "control")
        self.stdin: Channel = Channel(self, "stdin")
        self.iopub: Listener[Message] = Listener(self._delivery, ("iopub",), tagged=False)

    # Conversations.

    async def request(
        self,
        request: str | Message,
        content: Mapping[str, Any] | None = None,
        *,
        channel: str | None = None,
    ) -> Message:
        """Sends a request and returns the reply to it, whatever else is in flight.

        Any number of tasks may do so at a time. A reply with ``status: error`` is returned like any other;
        :func:`enchannel.raise_for_status` makes an exception of it.

        A checkpoint; a cancelled request may have been sent, and its reply is passed over.

        Args:
            request: A type (``"inspect_request"``) with its `content`, or a message as the creators in
                :mod:`enchannel.messages` make it.
            content: What the request says, where only its type is given.
            channel: ``"shell"`` or ``"control"``; by default the one that the specification names.

        Raises:
            LocalProtocolError: No message, or no channel for requests. Nothing was sent.
            NotImplementedByKernel: The kernel is done with the request, and sent no reply within a second,
                nor before its answer to what it was asked then; that may take ten more.
            anyio.ClosedResourceError: The block of the channels was left.
            KernelDied: The kernel is lost.
        """
        name, prepared = self._prepare_request(request, content, channel)
        await self._outages.wait_over()
        with Conversation(self, name, prepared) as conversation:
            await self._send_prepared(name, prepared, conversation.restarts)
            return await conversation.wait_reply()

    def execute(
        self,
        code: str,
        *,
        silent: bool = False,
        store_history: bool | None = None,
        user_expressions: Mapping[str, str] | None = None,
        stop_on_error: bool = True,
        on_input: OnInput | None = None,
        interrupt_on_cancel: bool = False,
        metadata: Mapping[str, Any] | None = None,
        subshell_id: str | None = None,
        channel: str = "shell",
    ) -> AbstractAsyncContextManager[Execution]:
        """Runs `code`, as an async context manager that gives an :class:`Execution`.

        ::

            async with ch.execute("print('woo')") as execution:
                async for msg in execution:
                    print(msg.msg_type)
            print(execution.outputs, execution.reply.content["status"])

        Cancelled, the block is left at once; the code goes on in the kernel unless it is interrupted.

        Args:
            code: What to run.
            silent: Whether the kernel is to be quiet, and to count nothing.
            store_history: Whether it goes into the history; by default where it is not silent.
            user_expressions: Expressions to evaluate behind it, by name.
            stop_on_error: Whether an error aborts the requests that wait behind it.
            on_input: Answers the code's prompts: called with the prompt and with whether a password is
                asked for, it returns the text, or an awaitable of it. Without it the code may not ask.
            interrupt_on_cancel: Whether to interrupt the kernel where the block is left by a cancellation
                or an exception before the execution is complete; bounded by two seconds.
            metadata: Of the request, for example a ``cellId``.
            subshell_id: The subshell that runs it.
            channel: ``"shell"``, or ``"control"`` for kernels that execute there.

        Raises:
            LocalProtocolError: At the call, for arguments that are none.
            anyio.ClosedResourceError: The block of the channels was left.
            KernelDied: The kernel is lost.
        """
        checked_code(code, user_expressions)
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
        name, prepared = self._prepare_request(request, None, channel)
        return run_execution(
            self, name, prepared, on_input, interrupt_on_cancel=interrupt_on_cancel
        )

    async def interrupt(self) -> None:
        """Interrupts what the kernel runs.

        By an ``interrupt_request`` on control; a kernel that was launched here and wants a signal gets it.
        A checkpoint; cancelled, it may have interrupted.

        Raises:
            NotImplementedByKernel: The kernel does not know the request.
            KernelDied: The kernel is lost.
        """
        if self._interrupter is not None:
            await checkpoint()
            self._interrupter()
        else:
            await self.request(messages.interrupt_request())

    async def kernel_info(self) -> KernelInfoReply:
        """The content of the kernel's ``kernel_info_reply``, asked for once in each session of the kernel.

        Raises:
            NotImplementedByKernel: The kernel sent none.
            ReplyError: The reply is no success, for example because an error before it aborted it.
            KernelDied: The kernel is lost.
        """
        if self._info is None or self._info[0] != self._kernel.restarts:
            restarts = self._kernel.restarts
            reply = raise_for_status(await self.request(messages.kernel_info_request()))
            self._info = (restarts, reply.content)
        else:
            await checkpoint()
        return cast("KernelInfoReply", self._info[1])

    @property
    def status(self) -> str:
        """``"starting"``, ``"busy"``, ``"idle"``, or ``"unknown"`` until the kernel says so on iopub."""
        return self._kernel.status

    async def wait_idle(self) -> None:
        """Waits until the kernel is idle. A checkpoint; cancellation changes nothing.

        Raises:
            anyio.ClosedResourceError: The block of the channels was left.
            KernelDied: The kernel is lost.
        """
        await checkpoint()
        while self._kernel.status != "idle":
            self._delivery.raise_if_ended()
            await self._kernel.changed.wait()

    def open_comm(
        self,
        target_name: str,
        data: Mapping[str, Any] | None = None,
        *,
        buffers: Sequence[Buffer] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> AbstractAsyncContextManager[Comm]:
        """Opens a comm to a target of the kernel, as an async context manager that gives a :class:`Comm`.

        The kernel is told when the block is left. A kernel without that target closes the comm at once.

        Args:
            target_name: What the kernel registered.
            data: What the ``comm_open`` says.
            buffers: Binary data with it.
            metadata: Beside it.

        Raises:
            LocalProtocolError: At the call, for a target that is no name.
            KernelDied: The kernel is lost.
        """
        from ._conversations.comms import new_comm

        return self._all_comms().open(new_comm(target_name, data, buffers, metadata))

    def accept_comms(self, target_name: str) -> AbstractAsyncContextManager[IncomingComms]:
        """Accepts the comms that the kernel opens to `target_name`, as an async context manager.

        It gives a stream of :class:`Comm`; they are closed when the block is left. While any target is
        accepted, comms to others are answered with ``comm_close``.

        Raises:
            LocalProtocolError: On entry, where they are accepted already.
        """
        return self._all_comms().accept(target_name)

    def _all_comms(self) -> Comms:
        # Imported and asked by who has comms: it looks at every message.
        from ._conversations.comms import Comms

        self._name("shell")
        if self._comms is None:
            self._comms = Comms(self)
        return self._comms

    def open_subshell(self) -> AbstractAsyncContextManager[Subshell]:
        """A subshell of the kernel, as an async context manager that gives a :class:`Subshell`.

        Raises:
            NotImplementedByKernel: On entry, where the kernel has none.
            KernelDied: The kernel is lost.
        """
        from ._conversations.sessions import open_subshell

        return open_subshell(self)

    def open_debug_session(self) -> AbstractAsyncContextManager[DebugSession]:
        """Attaches the kernel's debugger, as an async context manager that gives a :class:`DebugSession`.

        Raises:
            NotImplementedByKernel: On entry, where the kernel has none.
            ReplyError: On entry, where the debugger refuses.
            KernelDied: The kernel is lost.
        """
        from ._conversations.sessions import open_debug_session

        return open_debug_session(self)

    def _prepare_request(
        self, request: str | Message, content: Mapping[str, Any] | None, channel: str | None
    ) -> tuple[ChannelName, Message]:
        if isinstance(request, str):
            request = messages.message(request, content)
        elif not isinstance(request, Message):
            raise LocalProtocolError(
                f"a request is a message type or a Message, not {type(request).__name__}"
            )
        elif content is not None:
            raise LocalProtocolError("content goes with a message type; a Message has its own")
        name = self._name(channel or request.channel)
        if name not in ("shell", "control"):
            raise LocalProtocolError(
                f"{request.msg_type!r} goes to {name}, where nothing replies; requests go to shell "
                "and control"
            )
        return name, prepare(request, session=self.session, username=self.username)

    def _post(self, channel: ChannelName, body: Body) -> None:
        """Sends without waiting, or not at all."""
        message = prepare(body, session=self.session, username=self.username)
        with contextlib.suppress(anyio.WouldBlock, EnchannelError):
            self._transport.send_nowait(channel, message)
            self._sent[channel] += 1

    # More of the streams.

    def subscribe(self, *channels: str) -> Subscription:
        """One more listener on `channels` (all by default), as an async context manager.

        ::

            async with ch.subscribe("iopub") as output:
                async for channel, msg in output: ...

        It listens from the entry of the block to its end, beside ``main`` and the other streams.

        Raises:
            LocalProtocolError: There is no such channel.
        """
        names: list[ChannelName] = [self._name(channel) for channel in dict.fromkeys(channels)]
        names = names or list(self._transport.channels)
        return Subscription(self._delivery, names, tagged=True)

    def statistics(self) -> ChannelStatistics:
        """Counts of what happened so far."""
        backlog, listeners = self._delivery.statistics()
        return ChannelStatistics(
            iopub_proven=self._iopub_proven.is_set() or not self._transport.iopub_needs_proof,
            received=_by_channel(self._delivery.received),
            sent=_by_channel(self._sent),
            dropped=self._transport.dropped(),
            backlog=_by_channel(backlog),
            backlog_dropped=self._delivery.backlog_dropped,
            listeners=listeners,
            restarts=self._kernel.restarts,
            outages=self._outages.count,
            outage_seconds=self._outages.seconds,
            missed_beats=self._heartbeat.missed,
        )

    def __repr__(self) -> str:
        return f"<KernelChannels {', '.join(self._transport.channels)} {self._state()}>"

    def _state(self) -> str:
        delivery = self._delivery
        return "closed" if delivery.left else "kernel died" if delivery.died else "open"

    def _name(self, channel: str) -> ChannelName:
        for name in self._transport.channels:
            if name == channel:
                return name
        raise LocalProtocolError(
            f"unknown channel {channel!r}; there are {', '.join(self._transport.channels)}"
        )

    async def _send(self, channel: str, body: Body, restarts: int | None = None) -> Message:
        name = self._name(channel)
        if name == "iopub":
            raise LocalProtocolError(
                "iopub only receives; you may send on shell, control and stdin"
            )
        message = prepare(body, session=self.session, username=self.username)
        return await self._send_prepared(name, message, restarts)

    async def _send_prepared(
        self, name: ChannelName, message: Message, restarts: int | None = None
    ) -> Message:
        """Sends `message`; with `restarts` only to the kernel that there was after so many of them."""
        await self._delivery.checkpoint_if_cancelled()
        while True:
            if self._outages.current:
                await self._outages.wait_over()
            if self._delivery.left:
                raise anyio.ClosedResourceError
            self._delivery.raise_if_ended(restarts)
            try:
                self._transport.send_nowait(name, message)
                break
            except anyio.WouldBlock:
                await self._wait_writable(name)
        self._sent[name] += 1
        self._turn -= 1
        if not self._turn:
            # Let the others run. The message is out: a cancellation belongs to the next checkpoint.
            self._turn = TURN
            await cancel_shielded_checkpoint()
        return message

    async def _wait_writable(self, channel: ChannelName) -> None:
        with anyio.CancelScope() as scope:
            self._blocked_sends.add(scope)
            try:
                await self._transport.wait_writable(channel)
            finally:
                self._blocked_sends.discard(scope)

    # The life of the channels, which the openers drive.

    async def _run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Reads and watches every channel, until the kernel is lost or the block is left."""
        async with unwrapping_task_group() as tasks:
            self._tasks = tasks.cancel_scope
            followed: dict[str, Callable[[], Awaitable[None]]] = {
                "the connection": self._outages.follow,
                "the heartbeat": self._heartbeat.follow,
            }
            for channel in self._transport.channels:
                tasks.start_soon(self._read, channel, name=f"enchannel {channel} reader")
                followed[channel] = partial(self._transport.watch, channel)
            for what, follow in followed.items():
                tasks.start_soon(self._follow, what, follow, name=f"enchannel: follows {what}")
            # From here on _stop() reaches them; a block may be left before this task runs again.
            task_status.started()

    async def _read(self, channel: ChannelName) -> None:
        transport, delivery = self._transport, self._delivery
        try:
            while True:
                try:
                    messages = transport.receive_nowait(channel)
                except anyio.WouldBlock:
                    pass
                else:
                    if channel == "iopub":
                        # Whatever arrives, be it no message at all: the subscription works.
                        self._iopub_proven.set()
                    await delivery.deliver(channel, messages)
                    if channel != "iopub":
                        # A reply, and who waits for it goes first: to prepare the next wait takes 10 µs
                        # on Trio, of a round trip of 300. Trio runs the tasks of one turn in any order,
                        # so two turns.
                        await checkpoint()
                        await checkpoint()
                # Most often the batch was all there was, and another look would find nothing.
                await transport.wait_readable(channel)
        except Exception as error:  # noqa: BLE001
            # Recorded: it is the cause of what every stream raises from here on.
            self._lose(KernelDied(f"{channel} can no longer be read: {error!r}"), error)

    async def _follow(self, what: str, follow: Callable[[], Awaitable[None]]) -> None:
        try:
            await follow()
        except KernelDied as died:
            self._lose(died, died.__cause__)
        except Exception as error:  # noqa: BLE001
            self._lose(KernelDied(f"{what} can no longer be followed: {error!r}"), error)

    def _lose(self, died: KernelDied, cause: BaseException | None = None) -> None:
        """Ends every stream with `died`, behind all that the kernel managed to send."""
        if self._delivery.ended:
            return
        died.__cause__ = cause
        self._stop()
        for channel in self._transport.channels:
            self._drain(channel)
        self._delivery.end(died)

    def _catch_up(self, at_most: float = math.inf) -> bool:
        """Delivers what has arrived, for who is about to conclude that nothing has.

        Args:
            at_most: Messages, more or less, of each channel.

        Returns:
            Whether that was all.
        """
        channels = () if self._delivery.ended else self._transport.channels
        # A list: each of them is drained, and not only up to the first that has more.
        drained = [self._drain(channel, at_most) for channel in channels]
        return all(drained)

    def _drain(self, channel: ChannelName, at_most: float = math.inf) -> bool:
        self._delivery.deliver_all(channel, ())
        drained = 0
        try:
            while drained < at_most:
                messages = self._transport.receive_nowait(channel)
                if channel == "iopub":
                    self._iopub_proven.set()
                self._delivery.deliver_all(channel, messages)
                drained += len(messages) or 1
        except Exception:  # noqa: BLE001
            # Nothing more has arrived; or the reader met the same error, and the streams end with it.
            return True
        return False

    def _leave(self) -> None:
        """Ends every stream, because the block was left."""
        self._stop()
        self._delivery.end()

    def _stop(self) -> None:
        self._tasks.cancel()
        self._outages.end()
        for scope in self._blocked_sends:
            scope.cancel()


def _by_channel(counts: Mapping[ChannelName, int]) -> dict[str, int]:
    return {str(channel): count for channel, count in counts.items()}
