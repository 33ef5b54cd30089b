"""A kernel that starts in a millisecond, does what the test says, and fails on command.

It answers every request of the specification between a ``busy`` and an ``idle``, as real kernels do:
shell requests one after the other, control requests beside them. What it answers can be scripted
(:meth:`FakeKernel.script` for cells, :meth:`FakeKernel.on` for message types), and everything it received
and sent can be looked at, waited for and asserted.

The same kernel stands on memory or on real ZeroMQ sockets.
"""

from __future__ import annotations

import inspect
import itertools
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import anyio
import anyio.abc
import attrs

from .._bell import Bell
from .._channels import KernelChannels
from .._exceptions import LocalProtocolError, RemoteProtocolError
from .._groups import unwrapping_task_group
from .._open_channels import (
    Identity,
    OpenOptions,
    Topics,
    open_channels,
    open_kernel_channels,
    parse_identity,
    parse_topics,
)
from .._protocol.connection_info import ChannelName, ConnectionInfo
from .._protocol.message import Message
from ._answers import answer
from ._ends import KernelEnd
from ._memory import MemoryKernelEnd
from ._transcript import Transcript

if TYPE_CHECKING:
    from typing import Unpack

    from typing_extensions import Buffer

    from ._memory import MemoryTransport
    from ._sockets import ZmqKernelEnd

__all__ = ["FakeKernel", "Handler", "Outcome", "Request", "Step", "TransportName"]

Reply: TypeAlias = "Mapping[str, Any] | None"
Handler: TypeAlias = "Callable[[Request], Reply | Awaitable[Reply]]"
"""Answers one request: returns the content of the reply, or ``None`` to send none."""

Outcome: TypeAlias = "Mapping[str, Any] | None"
Step: TypeAlias = "Callable[[Request], Outcome | Awaitable[Outcome]]"
"""What a cell does next: returns ``None``, or the ``ename``, ``evalue`` and ``traceback`` with which it fails."""

TransportName: TypeAlias = Literal["memory", "inproc", "ipc", "tcp"]

# What is answered by a message of no other name.
_NO_REPLY = {"comm_open", "comm_msg", "comm_close", "input_reply"}


@attrs.frozen(eq=False)
class Request:
    """A request that a handler answers."""

    kernel: FakeKernel
    channel: ChannelName
    identity: bytes
    """Of the client that asks."""
    message: Message

    @property
    def content(self) -> dict[str, Any]:
        """The content of the request."""
        return self.message.content

    def publish(
        self, msg_type: str, content: Mapping[str, Any], buffers: Sequence[Buffer] = ()
    ) -> Message:
        """Publishes an iopub message with this request as its parent."""
        return self.kernel.publish(msg_type, content, parent=self.message, buffers=buffers)

    def reply(self, content: Mapping[str, Any], msg_type: str | None = None) -> Message:
        """Sends a reply, by default one named after the request, on the channel of the request."""
        name = msg_type or self.message.msg_type.replace("_request", "_reply")
        full = {"status": "ok", **content}
        return self.kernel.send(self.channel, self.identity, name, full, parent=self.message)

    async def input(self, prompt: str = "", *, password: bool = False) -> str:
        """Asks the client for input and waits for its answer. Cancellation forgets the question."""
        return await self.kernel.ask(self, {"prompt": prompt, "password": password})


class FakeKernel:
    """A scripted kernel; made by :func:`open_fake_kernel`.

    Attributes:
        transcript: All that was received and sent, in order.
        session: The session id in the headers it sends; a new one after a restart.
        execution_count: Of the last execute request.
    """

    def __init__(self, end: KernelEnd, transport: TransportName) -> None:
        self.transcript: Transcript = Transcript()
        self.session: str = str(uuid.uuid4())
        self.execution_count: int = 0
        self._transport: TransportName = transport
        self._end = end
        self._numbers = itertools.count(1)
        self._scripts: dict[str, Sequence[Step]] = {}
        self._handlers: dict[str, Handler] = {}
        self._questions: dict[bytes, anyio.Event] = {}
        self._answers: dict[bytes, str] = {}
        self._running: anyio.CancelScope | None = None
        self._silent = False
        self._awake = Bell()
        self._dead = False
        self._reason = ""
        self._incarnation = anyio.CancelScope()
        self._lives = 0
        self._born = anyio.Event()
        self._revived = anyio.Event()

    def __repr__(self) -> str:
        state = "dead" if self._dead else "silent" if self._silent else "running"
        return f"<FakeKernel over {self._transport} {state}>"

    # Reaching it.

    @property
    def connection_info(self) -> ConnectionInfo:
        """How any client reaches this kernel.

        Raises:
            LocalProtocolError: Over ``"memory"`` and ``"inproc"`` only :meth:`open_channels` does.
        """
        if self._transport not in ("tcp", "ipc"):
            raise LocalProtocolError(
                f"a fake kernel over {self._transport!r} has no connection file; "
                'open it with transport="tcp" or "ipc"'
            )
        return self._sockets.connection_info

    def open_channels(
        self,
        identity: Identity = None,
        *,
        subscription: Topics = b"",
        **options: Unpack[OpenOptions],
    ) -> AbstractAsyncContextManager[KernelChannels]:
        """Opens channels to this kernel, any number of times.

        Like :func:`~enchannel.open_kernel_channels`.
        """
        if self._transport in ("tcp", "ipc"):
            return open_kernel_channels(
                identity, self.connection_info, subscription=subscription, **options
            )
        end: Any = self._memory if self._transport == "memory" else self._sockets
        rest: Any = {name: value for name, value in options.items() if name != "context"}
        transport = end.connect(parse_identity(identity), parse_topics(subscription))
        return open_channels(transport, owned=True, **rest)

    @property
    def clients(self) -> Sequence[MemoryTransport]:
        """The clients' ends, whose pipes delay, drop, duplicate and stall; over ``"memory"`` only."""
        return self._memory.clients

    @property
    def _memory(self) -> MemoryKernelEnd:
        assert isinstance(self._end, MemoryKernelEnd), "this fake kernel is not in memory"
        return self._end

    @property
    def _sockets(self) -> ZmqKernelEnd:
        end: Any = self._end
        sockets: ZmqKernelEnd = end
        return sockets

    # Telling it what to do.

    def script(self, code: str, *steps: Step) -> None:
        r"""Says what running exactly `code` does; other code outputs nothing.

        ::

            kernel.script("greet()", stream("hello\n"), result("42"))
        """
        self._scripts[code] = steps

    def on(self, msg_type: str, handler: Handler) -> None:
        """Answers requests of `msg_type` with what `handler`, a plain or async function, returns.

        It runs between busy and idle. The content that it returns is sent as the reply, with a
        ``status`` of ``"ok"`` where it names none; where it returns ``None`` no reply is sent.
        """
        self._handlers[msg_type] = handler

    # Making it speak.

    def publish(
        self,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        parent: Message | None = None,
        buffers: Sequence[Buffer] = (),
        topic: bytes | None = None,
    ) -> Message:
        """Publishes a message on iopub, now, whatever the kernel is doing."""
        message = self._message(msg_type, content, parent, buffers)
        self.transcript.sent("iopub", message)
        self._end.publish(message, f"kernel.{msg_type}".encode() if topic is None else topic)
        return message

    def send(
        self,
        channel: ChannelName,
        identity: bytes,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        parent: Message | None = None,
        buffers: Sequence[Buffer] = (),
    ) -> Message:
        """Sends a message to one client on shell, control or stdin, now."""
        message = self._message(msg_type, content, parent, buffers)
        self.transcript.sent(channel, message)
        self._end.send(channel, identity, message)
        return message

    def send_frames(self, channel: ChannelName, frames: Sequence[bytes]) -> None:
        """Sends `frames` as they are, behind the identity (on iopub the topic) in the first of them."""
        self.transcript.note(f"sent raw frames on {channel}")
        self._end.give(channel, frames)

    def send_malformed(self, channel: ChannelName = "iopub", identity: bytes = b"") -> None:
        """Sends frames that are no Jupyter message."""
        self.send_frames(channel, [identity, b"no delimiter", b"{}"])

    def send_bad_signature(self, channel: ChannelName = "iopub", identity: bytes = b"") -> None:
        """Sends a message whose signature belongs to another; unsigned kernels have none to check."""
        message = self._message("stream", {"name": "stdout", "text": "forged"}, None, ())
        frames = [bytes(frame) for frame in self._end.wire.encode(message, [identity])]
        frames[2] = b"0" * len(frames[2])
        self.send_frames(channel, frames)

    # Making it fail.

    def go_silent(self) -> None:
        """Stops reading and answering, like a frozen process; :meth:`wake` ends it."""
        self._silent = True
        self.transcript.note("went silent")

    def wake(self) -> None:
        """Goes on where :meth:`go_silent` stopped, with everything that came meanwhile."""
        self._silent = False
        self._awake.ring()
        self.transcript.note("woke up")

    def die(self, reason: str = "the fake kernel died") -> None:
        """Is gone at once, as if killed; :meth:`restart` brings it back."""
        if not self._dead:
            self._dead = True
            self._reason = reason
            self.transcript.note("died")
            self._incarnation.cancel()

    async def restart(self) -> None:
        """Dies and comes back at the same place with a new session; its clients reconnect."""
        self._dead = False
        born = self._born
        self._incarnation.cancel()
        self._revived.set()
        await born.wait()

    # Its life.

    async def live(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """One incarnation after the other; run by :func:`open_fake_kernel`."""
        while True:
            self._revived = anyio.Event()
            async with unwrapping_task_group() as tasks:
                self._incarnation = tasks.cancel_scope
                tasks.start_soon(self._end.serve)
                for channel in ("shell", "control", "stdin"):
                    tasks.start_soon(self._serve, channel, name=f"fake kernel {channel}")
                if not self._lives:
                    task_status.started()
                self._lives += 1
                self._born.set()
                self._born = anyio.Event()
            if self._dead:
                self._end.vanish(self._reason)
                await self._revived.wait()
            elif self._transport != "memory":
                self._end.vanish()
            await self._end.appear()
            self.session = str(uuid.uuid4())
            self.execution_count = 0
            self.transcript.note("restarted")

    async def _serve(self, channel: ChannelName) -> None:
        while True:
            while self._silent:
                await self._awake.wait()
            try:
                identity, message = await self._end.receive(channel)
            except RemoteProtocolError as error:
                self.transcript.note(f"refused what came on {channel}: {error}")
                continue
            while self._silent:
                await self._awake.wait()
            if self._dead:
                return  # the cancellation comes at the next checkpoint, and there was none since
            self.transcript.received(channel, message)
            if channel == "stdin":
                self._answer(identity, message)
            else:
                await self._handle(Request(self, channel, identity, message))

    async def _handle(self, request: Request) -> None:
        msg_type = request.message.msg_type
        request.publish("status", {"execution_state": "busy"})
        handler = self._handlers.get(msg_type) or getattr(self, f"_on_{msg_type}", None)
        if handler is not None:
            given = handler(request)
            reply = await given if inspect.isawaitable(given) else given
            if self._dead:
                return  # by the handler's hand
        else:
            reply = answer(msg_type, request.content)
        if reply is not None and msg_type not in _NO_REPLY:
            request.reply(reply)
        request.publish("status", {"execution_state": "idle"})
        if msg_type == "shutdown_request" and request.content.get("restart"):
            await self.restart()
        elif msg_type == "shutdown_request":
            self.die("the fake kernel was shut down")

    def _message(
        self,
        msg_type: str,
        content: Mapping[str, Any],
        parent: Message | None,
        buffers: Sequence[Buffer],
    ) -> Message:
        if self._dead:
            raise RuntimeError(f"the fake kernel is dead and cannot send {msg_type!r}")
        header = {
            "msg_id": f"{self.session}_{next(self._numbers)}",
            "msg_type": msg_type,
            "session": self.session,
            "username": "kernel",
            "date": datetime.now(UTC).isoformat(),
            "version": "5.4",
        }
        return Message(header, dict(parent.header) if parent else {}, {}, dict(content), buffers)

    async def ask(self, request: Request, content: Mapping[str, Any]) -> str:
        """Sends an ``input_request`` to who made `request`; see :meth:`Request.input`."""
        identity = request.identity
        answered = self._questions[identity] = anyio.Event()
        try:
            self.send("stdin", identity, "input_request", content, parent=request.message)
            await answered.wait()
            return self._answers.pop(identity)
        finally:
            self._questions.pop(identity, None)

    def _answer(self, identity: bytes, message: Message) -> None:
        if message.msg_type == "input_reply" and identity in self._questions:
            self._answers[identity] = str(message.content.get("value", ""))
            self._questions[identity].set()

    # What it does where nothing else was said; its other answers are in `_answers`.

    async def _on_execute_request(self, request: Request) -> Reply:
        content = request.content
        silent = bool(content.get("silent"))
        if not silent and content.get("store_history", True):
            self.execution_count += 1
        count = self.execution_count
        code = str(content.get("code", ""))
        if not silent:
            request.publish("execute_input", {"code": code, "execution_count": count})
        failure: Mapping[str, Any] | None = None
        with anyio.CancelScope() as self._running:
            for step in self._scripts.get(code, ()):
                outcome = step(request)
                failure = await outcome if inspect.isawaitable(outcome) else outcome
                if failure is not None:
                    break
        if self._running.cancelled_caught:
            failure = {"ename": "KeyboardInterrupt", "evalue": "", "traceback": []}
            request.publish("error", failure)
        self._running = None
        if failure is not None:
            return {"status": "error", "execution_count": count, **failure}
        return {"execution_count": count, "payload": [], "user_expressions": {}}

    def _on_interrupt_request(self, request: Request) -> Reply:
        if self._running is not None:
            self._running.cancel()
        return {}

    def _on_comm_open(self, request: Request) -> Reply:
        # "If the target name is not known, it is answered with comm_close."
        request.publish("comm_close", {"comm_id": request.content.get("comm_id"), "data": {}})
        return None
