"""A kernel that starts in a millisecond, does what the test says, and fails on command.

It answers every request of the specification between a ``busy`` and an ``idle``, as ipykernel does:
shell requests one after the other, control requests beside them. The same kernel stands on memory
or on real ZeroMQ sockets.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
from anyio.lowlevel import checkpoint

from .._exceptions import RemoteProtocolError
from .._protocol.connection_info import ChannelName
from .._protocol.message import Message, new_id
from ._behaviour import Behaviour
from ._ends import KernelEnd
from ._executions import ABORTED, Outcome
from ._fake_comms import CommHandler
from ._living import Living
from ._prompts import Prompts
from ._reachable import TransportName
from ._request import Answering, Reply, kernel_message, topic_of
from ._shells import Shells, unknown_subshell
from ._wrong import bundle, check_callable, check_content, check_text

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["FakeKernel", "Handler", "Request", "Step", "Tamper", "TransportName"]

Tamper: TypeAlias = "Callable[[ChannelName, Message], Iterable[Message]]"
"""Takes the channel of a message and it; gives the messages that are sent in its place, if any.

Example:
    .. code-block:: python

        async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
            kernel.tamper(lambda name, said: [said, said])
            await ch.run("6 * 7")
            print(ch.statistics().dropped)  # {'ReplayedMessage': 4}
"""

Handler: TypeAlias = "Callable[[Request], Reply | Awaitable[Reply]]"
"""Answers one request, as a plain or async function; returns what :meth:`~enchannel.testing.FakeKernel.on` says.

Example:
    .. code-block:: python

        async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
            kernel.on("history_request", lambda request: {"history": [[1, 1, "x"]]})
            reply = await ch.request(messages.history_tail_request(1))
            print(reply.content["history"])  # [[1, 1, 'x']]
"""

Step: TypeAlias = "Callable[[Request], Outcome | Awaitable[Outcome]]"
"""What a cell does next; returns ``None``, or ``ename``, ``evalue`` and ``traceback`` to fail with.

Example:
    .. code-block:: python

        def shout(request: Request) -> None:
            request.publish("stream", {"name": "stdout", "text": "WOO"})

        async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
            kernel.script("woo", shout)
            print((await ch.run("woo")).text)  # WOO
"""


@attrs.frozen(eq=False)
class Request:
    """A request that a handler or a step is called with.

    Example:
        .. code-block:: python

            async def greet(request: Request) -> None:
                name = await request.input("name? ")
                request.publish("stream", {"name": "stdout", "text": f"hello {name}"})

            async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
                kernel.script("greet()", greet)
                done = await ch.run("greet()", on_input=lambda prompt, password: "ada")
                print(done.text)  # hello ada
    """

    kernel: FakeKernel
    channel: ChannelName
    identity: bytes
    """Of the client that asks."""
    message: Message
    payload: list[Mapping[str, Any]] = attrs.field(factory=list)
    """What the reply to an execution carries as its payload."""

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
        # A response of the Debug Adapter Protocol has no status.
        full = {**({} if name == "debug_reply" else {"status": "ok"}), **content}
        return self.kernel.send(self.channel, self.identity, name, full, parent=self.message)

    async def input(self, prompt: str = "", *, password: bool = False) -> str:
        """Asks the client for input and waits for its answer. Cancellation forgets the question."""
        content = {"prompt": prompt, "password": password}
        return await self.kernel.ask(self, content)


class FakeKernel(Living):
    """A scripted kernel; made by :func:`open_fake_kernel`.

    Attributes:
        transcript: All that was received and sent, in order.
        session: The session id in the headers it sends; a new one after a restart.
        failure: What a step, a handler or what tampers has raised. It ends the kernel, which its
            channels are told, and is raised where the kernel's block is left.

    Example:
        .. code-block:: python

            async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
                kernel.die("the test has killed it")
                print(await ch.wait_lost())  # the test has killed it
                kernel.transcript.assert_has("* died")
    """

    def __init__(
        self,
        end: KernelEnd,
        transport: TransportName,
        *,
        subshells: bool = False,
        debugger: bool = False,
    ) -> None:
        super().__init__(end, transport)
        self.session: str = new_id()
        self._numbers = itertools.count(1)
        self._shells = Shells(self._handle, self._start)
        self._behaviour = Behaviour(self._shells, subshells=subshells, debugger=debugger)
        self._tamper: Tamper | None = None
        self._prompts = Prompts()

    @property
    def execution_count(self) -> int:
        """Of the last execution that was counted."""
        return self._behaviour.executions.count

    # Telling it what to do.

    def script(self, code: str, *steps: Step) -> None:
        """Has exactly `code` do these `steps`, such as :func:`stream`; other code does nothing."""
        check_text("the code of a script", code)
        for step in steps:
            check_callable(f"each step of the script for {code!r}", step)
        self._behaviour.executions.scripts[code] = steps

    def script_expression(self, expression: str, value: str | Mapping[str, Any]) -> None:
        """Says what a user expression is: a MIME bundle or plain text. Others are not defined."""
        check_text("an expression", expression)
        self._behaviour.executions.expressions[expression] = bundle(value)

    def on(self, msg_type: str, handler: Handler) -> None:
        """Answers requests of `msg_type` with what `handler`, a plain or async function, returns.

        It runs between busy and idle. The content that it returns is sent as the reply, with a
        ``status`` of ``"ok"`` where it names none; where it returns ``None`` no reply is sent. It
        takes the place of what the kernel would do: one for ``shutdown_request`` ends it with
        :meth:`die`, or does not.
        """
        check_text("the type of a request", msg_type)
        check_callable(f"the handler of {msg_type}", handler)
        self._behaviour.handlers[msg_type] = handler

    def on_comm(self, target_name: str, handler: CommHandler) -> None:
        """Accepts comms to `target_name`; `handler`, plain or async, is given what comes on them.

        It is called with a :class:`FakeComm` and the message, between busy and idle: with the
        ``comm_open`` first, with the ``comm_close`` last. Comms to other targets are closed at
        once.
        """
        check_text("the target of a comm", target_name)
        check_callable(f"the handler of {target_name!r}", handler)
        self._behaviour.comms.targets[target_name] = handler

    def tamper(self, tamper: Tamper | None) -> None:
        """From now on sends (and the transcript has) what `tamper` makes of messages; ``None`` ends
        it.
        """
        if tamper is not None:
            check_callable("what tampers", tamper)
        self._tamper = tamper

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
        name = topic_of(message) if topic is None else topic
        for each in self._tampered("iopub", message):
            self.transcript.sent("iopub", each)
            self._end.publish(each, name)
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
        for each in self._tampered(channel, message):
            self.transcript.sent(channel, each)
            self._end.send(channel, identity, each)
        return message

    def _tampered(self, channel: ChannelName, message: Message) -> Iterable[Message]:
        return [message] if self._tamper is None else self._tamper(channel, message)

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

    # Its life.

    async def interrupt(self) -> None:
        """Interrupts what it runs, as a kernel that is launched is interrupted by a signal. A checkpoint."""
        await checkpoint()
        self._behaviour.executions.interrupt()

    def _begin(self, *, again: bool) -> None:
        if again:
            self.session = self._new_session()
            self._behaviour.forget()
            self.transcript.note("restarted")
        self._shells.begin()
        for channel in ("shell", "control", "stdin"):
            self._tasks.start_soon(self._serve, channel, name=f"fake kernel {channel}")

    async def _serve(self, channel: ChannelName) -> None:
        while True:
            request = await self._next(channel)
            if channel == "stdin":
                self.transcript.received(channel, request.message)
                self._prompts.answer(request.identity, request.message)
            elif not self._shells.take(channel, request):
                self.transcript.received(channel, request.message)
                await self._answer_with(request, unknown_subshell)

    async def _next(self, channel: ChannelName) -> Request:
        """What a client sends next."""
        while True:
            await self.wait_awake()
            try:
                identity, message = await self._end.receive(channel)
            except RemoteProtocolError as error:
                self.transcript.note(f"refused what came on {channel}: {error}")
                continue
            await self.wait_awake()
            return Request(self, channel, identity, message)

    async def _handle(self, request: Request, aborted: bool) -> None:
        await self.wait_awake()
        msg_type = request.message.msg_type
        self.transcript.received(request.channel, request.message)
        handler = (lambda _: ABORTED) if aborted else self._behaviour.handler(request)
        reply = await self._answer_with(request, handler)
        if self._behaviour.executions.aborts(request, reply):
            self._shells.abort(request.channel, request)
        if msg_type != "shutdown_request" or msg_type in self._behaviour.handlers:
            return
        if request.content.get("restart"):
            await self.restart()
        else:
            self.die("the fake kernel was shut down")

    async def _answer_with(self, request: Request, handler: Answering) -> Reply:
        """Replies with what `handler` gives, between busy and idle."""
        request.publish("status", {"execution_state": "busy"})
        given = handler(request)
        reply = await given if inspect.isawaitable(given) else given
        # Where the handler has ended this life of the kernel, so has this.
        await self.wait_awake()
        if reply is not None:
            check_content(f"the handler of {request.message.msg_type}", reply)
            sent = request.reply(reply)
            if sent.msg_type == "shutdown_reply":
                request.publish(sent.msg_type, sent.content)
        request.publish("status", {"execution_state": "idle"})
        return reply

    def _message(self, msg_type: str, *parts: Any) -> Message:
        if self._dead:
            raise RuntimeError(f"the fake kernel is dead and cannot send {msg_type!r}")
        return kernel_message(self._new_id(), self.session, msg_type, *parts)

    _new_session = staticmethod(new_id)

    def _new_id(self) -> str:
        # As ipykernel's, whose clients tell by it what was lost.
        return f"{self.session}_1_{next(self._numbers)}"

    async def ask(self, request: Request, content: Mapping[str, Any]) -> str:
        """Sends an ``input_request`` to who made `request`; see ``Request.input``."""
        prompt = self.send(
            "stdin", request.identity, "input_request", content, parent=request.message
        )
        with self._prompts.asking(request.identity, prompt) as answer:
            return await answer.wait()
