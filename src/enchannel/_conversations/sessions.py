"""Subshells and debug sessions as scopes.

Both exist only in kernels that announce them, and some kernels die of a request on control that they do not
know. So the kernel's features are looked at first, and what it does not announce is not asked for.

Source: "Kernel subshells" (JEP 91) and "Debug request" of the Jupyter messaging specification; the Debug
Adapter Protocol.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import attrs

from .. import messages
from .._core.stream import Feed, Stream
from .._exceptions import EnchannelError, NotImplementedByKernel
from .._protocol.connection_info import ChannelName
from .._protocol.errors import text_of
from .._protocol.message import CHANNELS, Message
from .comms import TiedFeed
from .completed import CompletedExecution, run_code
from .conversations import Conversations
from .execution import Execution, execute_code
from .replies import raise_for_status

if TYPE_CHECKING:
    from typing import Unpack

    from .execution import CodeOptions

__all__ = ["DebugSession", "Subshell", "open_debug_session", "open_subshell"]

CLOSE_DEADLINE = 2.0
"""Seconds that deleting a subshell, or ending a debug session, may take on the way out."""


T = TypeVar("T")


class Subshell:
    """A further shell of the kernel: it runs code while the main shell is busy.

    Attributes:
        subshell_id: Its id, in the header of what it is to handle.
    """

    def __init__(self, conversations: Conversations, subshell_id: str) -> None:
        self._conversations = conversations
        self.subshell_id = subshell_id

    async def request(
        self, request: str | Message, content: Mapping[str, Any] | None = None
    ) -> Message:
        """Like :meth:`KernelChannels.request`, answered by this subshell."""
        if isinstance(request, str):
            request = messages.message(request, content)
            content = None
        header = {**request.header, "subshell_id": self.subshell_id}
        return await self._conversations.request(attrs.evolve(request, header=header), content)

    def execute(
        self, code: str, **options: Unpack[CodeOptions]
    ) -> AbstractAsyncContextManager[Execution]:
        """Like :meth:`KernelChannels.execute`, run by this subshell."""
        return execute_code(self._conversations, code, **options, subshell_id=self.subshell_id)

    async def run(
        self, code: str, *, check: bool = False, **options: Unpack[CodeOptions]
    ) -> CompletedExecution:
        """Like :meth:`KernelChannels.run`, run by this subshell."""
        subshell_id = self.subshell_id
        return await run_code(
            self._conversations, code, check=check, subshell_id=subshell_id, **options
        )

    def __repr__(self) -> str:
        return f"<Subshell {self.subshell_id}>"


@asynccontextmanager
async def open_subshell(conversations: Conversations) -> AsyncIterator[Subshell]:
    """The scope of a subshell."""
    if "kernel subshells" not in await _features(conversations):
        raise NotImplementedByKernel(
            "the kernel has no subshells: its supported_features do not name 'kernel subshells'"
        )
    opening = _Opening(conversations, _create_subshell, _delete_subshell)
    subshell_id = await opening.wait()
    try:
        yield Subshell(conversations, subshell_id)
    finally:
        await opening.undo()


async def _create_subshell(conversations: Conversations) -> str:
    reply = await conversations.request(messages.create_subshell_request())
    return text_of(raise_for_status(reply).content.get("subshell_id"))


async def _delete_subshell(conversations: Conversations, subshell_id: str) -> None:
    await conversations.request(messages.delete_subshell_request(subshell_id))


class _Opening(Generic[T]):
    """Something that the kernel opens for a block, and that must be undone.

    Whoever asked for it may be cancelled meanwhile, and the kernel cannot be told. So a task of the connection asks, and
    undoes what comes when nobody wants it any more.

    Args:
        conversations: Those of the connection.
        open_: Opens it.
        undo: Undoes that.
    """

    def __init__(
        self,
        conversations: Conversations,
        open_: Callable[[Conversations], Awaitable[T]],
        undo: Callable[[Conversations, T], Awaitable[None]],
    ) -> None:
        self._conversations = conversations
        self._core = conversations.core
        self._open = open_
        self._undo = undo
        self._wanted = True
        self._opened: list[T] = []
        self._failure: EnchannelError | anyio.ClosedResourceError | None = None
        self._done = anyio.Event()

    async def wait(self) -> T:
        """Opens it.

        Raises:
            NoReply: The kernel does not reply.
            ReplyError: The kernel refuses.
            KernelDied: The kernel is lost.
            anyio.ClosedResourceError: The block of the channels was left.
        """
        self._core.raise_if_over()
        self._core.start(self._run)
        try:
            with self._core.bound.waiting(CHANNELS, self._done.is_set):
                await self._done.wait()
        except BaseException:
            self._wanted = False
            if self._opened:
                await self.undo()
            else:
                # The connection, where it is left as well, waits for it.
                self._core.farewells.begin(CLOSE_DEADLINE, self._done.wait)
            raise
        if self._failure is not None:
            raise self._failure
        if not self._opened:
            self._core.raise_if_over()
            raise anyio.ClosedResourceError("the block of the channels is being left")
        return self._opened[0]

    async def undo(self) -> None:
        """Undoes it; bounded, and never raises."""
        await self._core.farewells.say(
            CLOSE_DEADLINE, self._undo, self._conversations, self._opened[0]
        )

    async def _run(self) -> None:
        try:
            opened = await self._open(self._conversations)
            if self._wanted:
                self._opened.append(opened)
            else:
                await self._undo(self._conversations, opened)
        except (EnchannelError, anyio.ClosedResourceError) as failure:
            self._failure = failure
        finally:
            self._done.set()


class _Events(TiedFeed[Message]):
    """The debug events of one session."""

    def observe(self, _: ChannelName, arrived: Sequence[Message]) -> list[Message]:
        """Takes the debug events of what arrives, and returns them; must not raise."""
        events = [message for message in arrived if message.msg_type == "debug_event"]
        self.put(events)
        return events


class DebugSession(Stream[Message]):
    """Commands of the Debug Adapter Protocol, and the stream of the kernel's ``debug_event``."""

    def __init__(self, conversations: Conversations, events: Feed[Message]) -> None:
        super().__init__(events)
        self._conversations = conversations
        self._numbers = itertools.count(1)

    async def request(
        self, command: str, arguments: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Sends a command, and returns the body of its response.

        A cancelled request may have been sent.

        Args:
            command: For example ``"setBreakpoints"``.
            arguments: What the protocol asks for.

        Raises:
            ReplyError: The response says that it was not successful.
            NoReply: The kernel is done with it, and sent no reply.
            KernelDied: The kernel is lost.
        """
        request = messages.debug_request(command, arguments, seq=next(self._numbers))
        reply = raise_for_status(await self._conversations.request(request))
        return reply.content.get("body") or {}

    def __repr__(self) -> str:
        return f"<DebugSession of {self._conversations.core.session}>"


@asynccontextmanager
async def open_debug_session(conversations: Conversations) -> AsyncIterator[DebugSession]:
    """The scope of a debug session."""
    if "debugger" not in await _features(conversations):
        raise NotImplementedByKernel(
            "the kernel has no debugger: its kernel_info does not name one"
        )
    core = conversations.core
    events = _Events(core.bound.hold(("iopub",)))
    session = DebugSession(conversations, events)
    core.observers.append(events.observe)
    core.requests.tie(events)

    async def attach(_: Conversations) -> None:
        await session.request("initialize", {"clientID": "enchannel", "adapterID": "enchannel"})
        # Until it is attached it may be somebody else's, who would be disconnected.
        await session.request("attach", {})

    async def detach(_: Conversations, __: None) -> None:
        await session.request("disconnect", {"restart": False, "terminateDebuggee": False})

    opening = _Opening(conversations, attach, detach)
    try:
        await opening.wait()
        try:
            yield session
        finally:
            await opening.undo()
    finally:
        core.observers.remove(events.observe)
        core.requests.untie(events)
        events.end(left=True)


async def _features(conversations: Conversations) -> list[str]:
    info = await conversations.kernel_info()
    features = info.get("supported_features")
    # Before version 5.5 of the protocol the debugger had a field of its own.
    named = [*features] if isinstance(features, list) else []
    return [*named, "debugger"] if info.get("debugger") else named
