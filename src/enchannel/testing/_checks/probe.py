"""How a kernel is asked: as a client that keeps everything that comes.

* A conversation ends by what the kernel says and not by time: behind the request it is asked for its kernel info, on
  the same channel, and once that is answered and idle nothing more of the request is on its way. Time decides only
  where something is missing.
* A reply that names no request is taken for that of the only one that waits for such a reply, so that it is its parent
  that is found fault with, and not that there is none.
* A client belongs to one check; so does what it sees. Only the conversations are kept, for the rules that hold for all.
"""

from __future__ import annotations

import contextlib
import re
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

import anyio
import attrs

from ... import messages
from ..._channels import KernelChannels
from ..._exceptions import KernelDied, LocalProtocolError
from ..._protocol.connection_info import ChannelName, ConnectionInfo
from ..._protocol.message import Message, RequestChannel
from ..._streams import Subscription
from .conversation import Conversation, Failed, NotOffered
from .samples import KernelSamples

__all__ = ["Client", "KernelUnderCheck", "Probe", "Record"]

IMPATIENCE = 5.0
"""Seconds that a kernel gets for what it owes, once it has left something out."""

LONGEST = 20
"""Times the patience that one check may take."""

GRACE = 1.0
"""Seconds for what another thread of the kernel may still send, behind what was asked last."""

FLOOD = 20_000
"""Messages in one check, behind which the kernel is not listened to any longer."""


class KernelUnderCheck(Protocol):
    """What can be checked: a :class:`~enchannel.Kernel`, a :class:`FakeKernel`, or one's own.

    Example:
        .. code-block:: python

            from contextlib import asynccontextmanager

            @asynccontextmanager
            async def mine():
                async with open_kernel("python3", env={"MODE": "test"}) as kernel:
                    yield kernel  # a KernelUnderCheck

            report = await check_kernel(mine, only=["kernel-info"])
            print(report.failed)  # []
    """

    def open_channels(self) -> AbstractAsyncContextManager[KernelChannels]:
        """Opens its channels; called any number of times."""
        ...

    async def restart(self) -> None:
        """Ends the kernel and starts it again at the same place, its channels left open."""
        ...


class Record:
    """What is kept of a kernel over all its lives.

    Attributes:
        conversations: Those that were held.
        dropped: What came that was no message, by the name of the error that says why.
        strays: What came that had no parent, or somebody else's.
        tour: What is still to be asked so that there is a conversation of each kind; ``None`` before it began.
        life: How many lives there were, restarts among them.
        description: What the kernel says that it is.
    """

    def __init__(self) -> None:
        self.conversations: list[Conversation] = []
        self.dropped: dict[str, int] = {}
        self.strays: list[Message] = []
        self.tour: deque[tuple[RequestChannel, Message]] | None = None
        self.life: int = 0
        self.description: str = ""


class Probe:
    """One life of a kernel under check.

    Args:
        kernel: The kernel.
        samples: Code for it; by default what is known for its language.
        patience: Seconds that it may take for an answer.
        record: Where what is to be kept goes.

    Attributes:
        info: The content of its ``kernel_info_reply``.
        longest: Seconds that one check may take.
        suspect: Whether the kernel may be dead or hung, though no check has said so.
    """

    def __init__(
        self,
        kernel: KernelUnderCheck,
        samples: KernelSamples | None,
        patience: float,
        record: Record,
    ) -> None:
        self.kernel = kernel
        self.samples = KernelSamples() if samples is None else samples
        self.patience = patience
        self.longest = LONGEST * patience
        self.record = record
        self.suspect = False
        self.info: dict[str, Any] = {}
        self._given = samples

    async def meet(self) -> None:
        """Asks the kernel what it is, on which the checks depend; no longer than a check may take."""
        with anyio.move_on_after(self.longest) as scope:
            self.learn((await self.ask(messages.kernel_info_request())).reply.content)
        if scope.cancelled_caught:
            self.lose_patience()

    def learn(self, info: dict[str, Any]) -> None:
        """The kernel says that it is `info`."""
        self.info = info
        self.samples = KernelSamples.of_language(self.language).with_those_of(self._given)
        said = (self.info.get("implementation"), self.info.get("implementation_version"))
        implementation = " ".join(str(each) for each in said if each)
        self.record.description = (
            f" ({implementation or 'unnamed'}, {self.language or 'no language'})"
        )

    def lose_patience(self) -> None:
        """It has left something out: no answer is waited for as long from now on."""
        self.patience = min(self.patience, IMPATIENCE)

    @property
    def language(self) -> str:
        """The name of its language."""
        language: Any = self.info.get("language_info")
        return str(language.get("name", "")) if isinstance(language, dict) else ""

    def has_feature(self, name: str) -> bool:
        """Whether it says so in its ``supported_features``."""
        features: Any = self.info.get("supported_features")
        return isinstance(features, list) and name in features

    @property
    def wants_interrupt_requests(self) -> bool:
        """Whether its kernelspec says so."""
        spec = getattr(self.kernel, "spec", None)
        return getattr(spec, "interrupt_mode", "") == "message"

    @property
    def protocol_version(self) -> tuple[int, ...]:
        """The first two numbers; empty where it says none."""
        numbers = str(self.info.get("protocol_version", "")).split(".")[:2]
        plain = len(numbers) == 2 and all(re.fullmatch("[0-9]{1,4}", each) for each in numbers)
        return tuple(map(int, numbers)) if plain else ()

    def sample(self, name: str) -> Any:
        """The samples called `name`.

        Raises:
            NotOffered: There are none.
        """
        found = getattr(self.samples, name)
        if not found:
            raise NotOffered(f"there is no sample {name!r} for {self.language or 'its language'}")
        return found

    @property
    def connection_info(self) -> ConnectionInfo:
        """How to reach it with other sockets.

        Raises:
            NotOffered: It has none.
        """
        try:
            info: ConnectionInfo = getattr(self.kernel, "connection_info")  # noqa: B009
        except (AttributeError, LocalProtocolError) as error:
            raise NotOffered("the kernel is not on sockets of its own") from error
        return info

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A client of the kernel."""
        async with self.kernel.open_channels() as channels, channels.subscribe() as stream:
            client = Client(self, channels, stream)
            try:
                yield client
            finally:
                self.record.strays += client.strays()
                for kind, count in channels.statistics().dropped.items():
                    self.record.dropped[kind] = self.record.dropped.get(kind, 0) + count

    async def ask(self, request: Message, channel: RequestChannel = "shell") -> Conversation:
        """Holds one conversation, as a client of its own."""
        async with self.client() as client:
            return await client.ask(request, channel)

    async def look(self) -> bool:
        """Whether the kernel runs code, where nothing of the last check may be left."""
        async with self.client() as client:
            sent = await client.send(messages.execute_request("", silent=True))
            return await client.until(lambda: bool(client.conversation(sent).replies), IMPATIENCE)

    async def execute(self, code: str, **options: Any) -> Conversation:
        """Has it run `code`, as a client of its own."""
        return await self.ask(messages.execute_request(code, **options))


class Client:
    """A client of the kernel under check, with everything that came.

    Attributes:
        channels: Its channels.
        answer: What it answers when the kernel asks for input; ``None`` leaves it unanswered.
    """

    def __init__(self, probe: Probe, channels: KernelChannels, stream: Subscription) -> None:
        self.channels = channels
        self.answer: str | None = None
        self.arrived: list[tuple[ChannelName, Message]] = []
        self._probe = probe
        self._stream = stream
        self._session = ""
        # What was asked, and how much had arrived before.
        self._sent: dict[str, tuple[Message, int]] = {}
        # By the request that each message is for, which those that arrived are called by.
        self._named: list[str] = []
        self._children: dict[str, list[tuple[ChannelName, Message]]] = {}

    async def send(self, request: Message, channel: RequestChannel = "shell") -> Message:
        """Sends `request`."""
        sent = await self.channels.main.send(channel, request)
        self._session = sent.session
        self._sent[sent.msg_id] = sent, len(self.arrived)
        return sent

    async def ask(self, request: Message, channel: RequestChannel = "shell") -> Conversation:
        """Holds one conversation."""
        (conversation,) = await self.ask_all([request], channel)
        return conversation

    async def ask_all(
        self, requests: Iterable[Message], channel: RequestChannel = "shell"
    ) -> list[Conversation]:
        """Sends all `requests` at once, and follows them to their ends."""
        sent = [await self.send(request, channel) for request in requests]
        return await self.follow(sent, channel)

    async def follow(
        self, sent: Sequence[Message], channel: RequestChannel = "shell"
    ) -> list[Conversation]:
        """The conversations that begin with what was `sent`, once they are over."""

        def ended() -> bool:
            return all(self.conversation(each, channel).ended for each in sent)

        def whole() -> bool:
            return all(self.conversation(each, channel).whole for each in sent)

        await self.until(ended)
        await self.settle(channel)
        await self.until(whole, GRACE)
        conversations = [self._with_doubts(each, channel) for each in sent]
        self._probe.record.conversations += conversations
        return conversations

    async def settle(self, channel: RequestChannel = "shell") -> bool:
        """Whether the kernel answers behind all that it was asked on `channel`; nothing more of that comes then."""
        marker = await self.send(messages.kernel_info_request(), channel)
        answered = await self.until(lambda: self.conversation(marker, channel).ended)
        return await self.until(lambda: self.conversation(marker, channel).whole) and answered

    async def complete(self, sent: Message, channel: ChannelName) -> Conversation:
        """A conversation with whatever else comes of it in a moment, where the kernel ends at it."""
        with contextlib.suppress(Failed):
            await self.until(lambda: False, GRACE)
        return self._with_doubts(sent, channel)

    def strays(self) -> list[Message]:
        """What came that nothing of this client's is the parent of."""
        return [message for _, message in self._strays()]

    def _strays(self, since: int = 0) -> Iterator[tuple[ChannelName, Message]]:
        for name, entry in zip(self._named[since:], self.arrived[since:], strict=True):
            if name not in self._sent:
                yield entry

    def _with_doubts(self, sent: Message, channel: ChannelName) -> Conversation:
        """A conversation that is over, and what came meanwhile that may be of it."""
        found = set()
        for name, message in self._strays(self._sent[sent.msg_id][1]):
            if name != "iopub" and not self._is_of_the_channels(message):
                found.add(message.msg_type)
            elif message.msg_type == "status" and not message.parent_header:
                # One with a parent may be for another client.
                found.add(str(message.content.get("execution_state")))
        return attrs.evolve(self.conversation(sent, channel), unnamed=found)

    def conversation(self, sent: Message, channel: ChannelName = "shell") -> Conversation:
        """What came so far of a conversation."""
        children = tuple(self._children.get(sent.msg_id, ()))
        return Conversation(sent, channel, children, self._probe.record.life)

    async def until(self, done: Callable[[], bool], seconds: float | None = None) -> bool:
        """Listens until `done`, and no longer than the kernel may take; whether it is.

        Raises:
            Failed: The kernel is dead, or does not stop to speak.
        """
        patience = self._probe.patience if seconds is None else seconds
        with anyio.move_on_after(patience) as scope:
            while not done():
                await self._listen()
                if seconds is None:
                    # It is at work: of many answers each may take as long.
                    scope.deadline = anyio.current_time() + patience
            return True
        if seconds is None:
            self._probe.lose_patience()
        return done()

    def _name(self, channel: ChannelName, message: Message) -> str:
        """The id of the request that `message` is for."""
        if channel == "iopub" or self._is_of_the_channels(message):
            return message.parent_id
        waiting = [
            conversation.request.msg_id
            for conversation in (self.conversation(sent) for sent, _ in self._sent.values())
            if conversation.reply_type == message.msg_type and not conversation.replies
        ]
        return waiting[0] if len(waiting) == 1 else message.parent_id

    def _is_of_the_channels(self, message: Message) -> bool:
        """Whether a request of these channels is its parent: one of this client's, or one of their own, as to interrupt."""
        ours = message.parent_header.get("session") == self._session
        return message.parent_id in self._sent or (ours and message.parent_id != "")

    async def _listen(self) -> None:
        try:
            channel, message = await self._stream.receive()
        except KernelDied as error:
            raise Failed(f"the kernel died: {error}") from error
        if len(self.arrived) >= FLOOD:
            raise Failed(f"the kernel does not stop to send: {FLOOD:,} messages in one check")
        if message.msg_type == "kernel_info_reply" and not self._probe.info:
            # Late, or the first that was not lost.
            self._probe.learn(message.content)
        self.arrived.append((channel, message))
        name = self._name(channel, message)
        self._named.append(name)
        self._children.setdefault(name, []).append((channel, message))
        if message.msg_type == "input_request" and self.answer is not None:
            await self.channels.main.send("stdin", messages.input_reply(self.answer, message))
