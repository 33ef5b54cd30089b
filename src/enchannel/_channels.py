"""The channels of one kernel, as a user holds them: a facade of its connection and its conversations."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, cast

from anyio.lowlevel import checkpoint

from ._conversations.completed import CompletedExecution, run_code
from ._conversations.conversations import Conversations
from ._conversations.execution import Execution, OnInput, execute_code
from ._conversations.stopping import interrupt
from ._core.core import Core
from ._core.delivery import Listener
from ._core.idle import wait_idle
from ._core.life import State
from ._exceptions import KernelDied
from ._protocol.connection_info import ChannelName
from ._protocol.message import Message, RequestChannel
from ._statistics import ChannelStatistics, statistics_of
from ._streams import Channel, KernelStatus, MainChannel, StatusChanges, Subscription, status_of

if TYPE_CHECKING:
    from typing import Unpack

    from typing_extensions import Buffer

    from ._conversations.comms import Comm, IncomingComms
    from ._conversations.execution import ExecuteOptions
    from ._conversations.recorder import Recording, Redact
    from ._conversations.sessions import DebugSession, Subshell
    from ._protocol.contents import KernelInfoReply
    from .outputs import Displays, OutputWidgets

__all__ = ["KernelChannels"]


class KernelChannels:
    """The open channels of one kernel: four streams, all of them as one, and conversations.

    Made by :func:`open_kernel_channels`, :func:`open_channels`, :meth:`Kernel.open_channels` and
    :meth:`ServerKernel.open_channels`. Any number of tasks may use it. When its block is left every
    stream ends, and what waits for a reply raises ``anyio.ClosedResourceError``.

    Attributes:
        main: Every channel at once, a :class:`MainChannel`.
        shell: Requests and their replies, a :class:`Channel`.
        control: Requests that must not wait behind a running cell, a :class:`Channel`.
        stdin: The kernel's requests for input, and our replies, a :class:`Channel`.
        iopub: What the kernel publishes, a :class:`Listener`; receive only.
        session: The session id in the header of each sent message.
        username: The user name there.

    Example:
        .. code-block:: python

            async with kernel.open_channels() as ch:
                done = await ch.run("print('woo'); 6 * 7")
                print(done.outputs[-1]["data"]["text/plain"])  # 42
                info = await ch.kernel_info()
                print(info["language_info"]["name"], ch.status)  # python idle
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._conversations = Conversations(core)
        self.session: str = core.session
        self.username: str = core.username
        self.main: MainChannel = MainChannel(core)
        self.shell: Channel = Channel(core, "shell")
        self.control: Channel = Channel(core, "control")
        self.stdin: Channel = Channel(core, "stdin")
        self.iopub: Listener[Message] = Listener(core.delivery, ("iopub",), tagged=False)

    # Conversations.

    async def request(
        self,
        request: str | Message,
        content: Mapping[str, Any] | None = None,
        *,
        channel: RequestChannel | None = None,
    ) -> Message:
        """Sends a request and returns the reply to it, whatever else is in flight.

        Any number of tasks may do so at a time. A reply with ``status: error`` is returned like any
        other; :func:`raise_for_status` makes an exception of it. A checkpoint; a cancelled request
        may have been sent, and its reply is passed over.

        Args:
            request: A type (``"inspect_request"``) with its `content`, or a message as the creators
                in :mod:`enchannel.messages` make it.
            content: What the request says, where only its type is given.
            channel: ``"shell"`` or ``"control"``; by default the one that the specification names.

        Raises:
            LocalProtocolError: No message, or no channel for requests. Nothing was sent.
            NoReply: The kernel is done with the request, and no reply came within a second, nor
                before its answer to what it was asked then; that may take ten more, and a minute
                where the kernel has begun with it. It says why, as
                far as that is known: ``NotImplementedByKernel`` where nothing else explains it.
            anyio.ClosedResourceError: The block of the channels was left.
            KernelDied: The kernel is lost.

        Example:
            .. code-block:: python

                reply = await ch.request(messages.complete_request("pri"))
                print(reply.content["matches"])  # ['print']
        """
        return await self._conversations.request(request, content, channel)

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
        msg_id: str | None = None,
        subshell_id: str | None = None,
        channel: RequestChannel = "shell",
        keep_outputs: bool = True,
    ) -> AbstractAsyncContextManager[Execution]:
        """Runs `code`, as an async context manager that gives an :class:`Execution`.

        Where its messages are of no interest, :meth:`run` is shorter. Left before it is complete,
        the code goes on in the kernel unless it is to be interrupted, or asks for input: that would
        hold up the kernel for ever.

        Args:
            code: What to run.
            silent: Whether the kernel is to be quiet, and to count nothing.
            store_history: Whether it goes into the history; by default where it is not silent.
            user_expressions: Expressions to evaluate behind it, by name; see
                :func:`user_expression`.
            stop_on_error: Whether an error aborts the requests that wait behind it.
            on_input: Answers the code's prompts: called with the prompt and with whether a password
                is asked for, it returns the text, or an awaitable of it. Without it the code may
                not ask.
            interrupt_on_cancel: Whether to interrupt the code where the block is left before it has
                run, in whatever way: it and no other, and what still waits when it begins. That
                holds up leaving for two seconds at most, and goes on behind it while the channels
                are open. Kernels interrupt their main shell only: in a subshell it does nothing.
            metadata: Of the request, for example a ``cellId``.
            msg_id: The request's id, by default a fresh one.
            subshell_id: The subshell that runs it.
            channel: ``"shell"``, or ``"control"`` for kernels that execute there.
            keep_outputs: Whether :attr:`Execution.outputs` are kept. Not for code that prints more
                than fits into the memory, and whose messages are iterated.

        Raises:
            LocalProtocolError: At the call, for arguments that are none.
            anyio.ClosedResourceError: The block of the channels was left.
            KernelDied: The kernel is lost.
        """
        return execute_code(
            self._conversations,
            code,
            silent=silent,
            store_history=store_history,
            user_expressions=user_expressions,
            stop_on_error=stop_on_error,
            on_input=on_input,
            interrupt_on_cancel=interrupt_on_cancel,
            metadata=metadata,
            msg_id=msg_id,
            subshell_id=subshell_id,
            channel=channel,
            keep_outputs=keep_outputs,
        )

    async def run(
        self, code: str, *, check: bool = False, **options: Unpack[ExecuteOptions]
    ) -> CompletedExecution:
        """Runs `code` to its end.

        A checkpoint. Cancelled, the code goes on in the kernel, unless ``interrupt_on_cancel`` is
        among the options.

        Args:
            code: What to run.
            check: Whether an error of it is raised.
            options: Those of :meth:`execute`. Without ``on_input`` the code may not ask for input; a
                kernel that asks all the same is given an empty text, with a warning.

        Raises:
            ReplyError: The reply is no success, and `check` is set; it has the outputs so far.
            LocalProtocolError: For arguments that are none; nothing was sent.
            NoReply: The kernel is done with it, and no reply came.
            anyio.ClosedResourceError: The block of the channels was left.
            KernelDied: The kernel is lost, or was restarted meanwhile.

        Example:
            .. code-block:: python

                with anyio.fail_after(30):
                    done = await ch.run("6 * 7", interrupt_on_cancel=True)
                print(done.status, done.text)  # ok 42
        """
        return await run_code(self._conversations, code, check=check, **options)

    async def interrupt(self) -> None:
        """Interrupts what the kernel runs.

        By an ``interrupt_request`` on control; a kernel that was launched here, or by a server, and
        wants a signal gets it. A checkpoint; cancelled, it may have interrupted.

        Raises:
            NoReply: The kernel has not replied within five seconds, or does not know the request; or its server has
                not done it, and its ``__cause__`` is the ``ServerError``.
            anyio.ClosedResourceError: The block of the channels was left.
            KernelDied: The kernel is lost.
        """
        await interrupt(self._conversations)

    async def kernel_info(self) -> KernelInfoReply:
        """The content of the kernel's ``kernel_info_reply``, asked for once in each session of the
        kernel.

        On control, where no cell is in the way, and where that stays silent on shell. A checkpoint.

        Raises:
            NoReply: The kernel sent none.
            anyio.ClosedResourceError: The block of the channels was left.
            ReplyError: The reply is no success, for example because an error before it aborted it.
            KernelDied: The kernel is lost.
        """
        return cast("KernelInfoReply", await self._conversations.kernel_info())

    @property
    def status(self) -> KernelStatus:
        """What is known of the kernel, as ``"unknown"``, ``"starting"``, ``"busy"``, ``"idle"`` or ``"dead"``.

        It is about the main shell, by what the kernel says on iopub of requests there.
        """
        return status_of(self._core)

    def statuses(self) -> AsyncIterator[KernelStatus]:
        """The status as it is now, and then each other one, as an async iterator.

        It ends behind ``"dead"``, or when the block of the channels is left. What came and went while nobody asked for the
        next one is passed over, but for a restart: the status of another kernel is another one. Cancellation changes
        nothing.
        """
        return StatusChanges(self._core)

    @property
    def lost(self) -> KernelDied | None:
        """The loss that ended the connection, ``None`` while there was none."""
        return self._core.lost

    async def wait_lost(self) -> KernelDied:
        """Waits until the kernel is lost, and returns how. A checkpoint; cancellation changes nothing.

        Raises:
            anyio.ClosedResourceError: The block of the channels was left.
        """
        await checkpoint()
        while self._core.lost is None:
            self._core.raise_if_over()
            await self._core.changed.wait()
        return self._core.lost

    async def wait_idle(self) -> None:
        """Waits until the kernel is done with all that was asked before, by whomever.

        It is asked behind everything on shell, and not believed on the word of a status, which may be lost. A
        checkpoint; cancellation changes nothing.

        Raises:
            anyio.ClosedResourceError: The block of the channels was left.
            KernelDied: The kernel is lost.
        """
        self._core.name("shell")
        await wait_idle(self._core)

    def open_comm(
        self,
        target_name: str,
        data: Mapping[str, Any] | None = None,
        *,
        buffers: Sequence[Buffer] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> AbstractAsyncContextManager[Comm]:
        """Opens a comm to a target of the kernel, as an async context manager that gives a
        :class:`Comm`.

        The kernel is told when the block is left. A kernel without that target closes the comm at
        once.

        Args:
            target_name: What the kernel registered.
            data: What the ``comm_open`` says.
            buffers: Binary data with it.
            metadata: Beside it.

        Raises:
            LocalProtocolError: At the call, for a target that is no name; on entry, for data that
                is no JSON.
            anyio.ClosedResourceError: On entry: the block of the channels was left.
            KernelDied: On entry: the kernel is lost.
        """
        from ._conversations.comms import new_comm

        return self._conversations.comms.open(new_comm(target_name, data, buffers, metadata))

    def accept_comms(self, target_name: str) -> AbstractAsyncContextManager[IncomingComms]:
        """Accepts the comms that the kernel opens to `target_name`, as an async context manager.

        It gives an :class:`IncomingComms`, a stream of :class:`Comm`; they are closed when the
        block is left. While any target is accepted, comms to others are answered with
        ``comm_close``.

        Args:
            target_name: What the kernel opens comms to.

        Raises:
            LocalProtocolError: At the call, for a target that is no name; on entry, where they are
                accepted already.
            anyio.ClosedResourceError: On entry: the block of the channels was left.
            KernelDied: On entry: the kernel is lost.
        """
        return self._conversations.comms.accept(target_name)

    def open_output_widgets(self) -> AbstractAsyncContextManager[OutputWidgets]:
        """Looks after the Output widgets of ipywidgets, as an async context manager that gives an
        :class:`~enchannel.outputs.OutputWidgets`.

        What such a widget has captured (``with out:``) is no output of its cell then, but the widget's, and the kernel is
        told what it shows. Widgets that were made before the block was entered are not known.

        Raises:
            LocalProtocolError: On entry, where they are looked after already, or iopub or shell is not open.
            KernelDied: On entry: the kernel is lost.
        """
        from ._conversations.widgets import open_output_widgets

        return open_output_widgets(self._conversations)

    @property
    def displays(self) -> Displays:
        """What the outputs of these channels share; an :class:`~enchannel.outputs.OutputArea` of one's own may take part.

        What arrives changes it, and nothing else: such an area, which may be given a message late, shows each of its
        displays in the newest state that has arrived, and nothing that a widget had captured.
        """
        return self._conversations.displays

    def open_subshell(self) -> AbstractAsyncContextManager[Subshell]:
        """A subshell of the kernel, as an async context manager that gives a :class:`Subshell`.

        Created on control, also beside a busy cell, and deleted when the block is left, or entering
        it was cancelled.

        Raises:
            NotImplementedByKernel: On entry, where the kernel has none.
            anyio.ClosedResourceError: On entry: the block of the channels was left.
            KernelDied: The kernel is lost.
        """
        from ._conversations.sessions import open_subshell

        return open_subshell(self._conversations)

    def open_debug_session(self) -> AbstractAsyncContextManager[DebugSession]:
        """Attaches the kernel's debugger, as an async context manager that gives a
        :class:`DebugSession`.

        It is detached when the block is left, or entering it was cancelled.

        Raises:
            NotImplementedByKernel: On entry, where the kernel has none.
            ReplyError: On entry, where the debugger refuses.
            anyio.ClosedResourceError: On entry: the block of the channels was left.
            KernelDied: The kernel is lost.
        """
        from ._conversations.sessions import open_debug_session

        return open_debug_session(self._conversations)

    def record(
        self, path: str | os.PathLike[str], *, redact: Redact | None = None
    ) -> AbstractAsyncContextManager[Recording]:
        """Writes all that is sent and received to a file, in a block that gives a
        :class:`Recording`.

        :func:`read_recording` reads it, and says what it looks like;
        :func:`enchannel.testing.open_recorded_kernel` plays it. Each line is handed to the system
        when it happens, by the event loop's own thread. What is secret in a message is the caller's
        to leave out.

        Args:
            path: Where; what is there is replaced.
            redact: Called with each message; returns what is written in its place, or ``None`` to
                leave it out. A kernel that plays it knows requests as they were written.

        Raises:
            LocalProtocolError: `path` is none, or `redact` cannot be called (raised at the call);
                on entry, another recording is being written there.
            OSError: On entry, or on the way out: the file cannot be written.
            anyio.ClosedResourceError: On entry: the block of the channels was left.
            KernelDied: On entry: the kernel is lost.
        """
        from ._conversations.recorder import record

        return record(self._core, path, redact)

    # More of the streams.

    def subscribe(self, *channels: ChannelName) -> Subscription:
        """One more listener on `channels`, as an async context manager: a :class:`Subscription`.

        It listens from the entry of the block to its end, beside :attr:`main` and the other
        streams, and gives ``(channel, message)``.

        Args:
            channels: Some of ``"shell"``, ``"control"``, ``"stdin"`` and ``"iopub"``; by default
                all.

        Raises:
            LocalProtocolError: There is no such channel.
        """
        names: list[ChannelName] = [self._core.name(channel) for channel in channels]
        chosen = list(dict.fromkeys(names)) or self._core.channels
        return Subscription(self._core.delivery, chosen, tagged=True)

    def statistics(self) -> ChannelStatistics:
        """Counts of what happened so far; no I/O."""
        return statistics_of(self._core, self._conversations.losses.missed)

    def __repr__(self) -> str:
        return f"<KernelChannels {', '.join(self._core.channels)} {self._state()}>"

    def _state(self) -> str:
        if self._core.life.state is State.LEFT:
            return "closed"
        return "kernel died" if self._core.lost is not None else "open"
