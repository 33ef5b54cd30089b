"""Subshells and debug sessions as scopes.

Both exist only in kernels that announce them, and some kernels die of a request on control that they do not
know. So the kernel's features are looked at first, and what it does not announce is not asked for.

Source: "Kernel subshells" (JEP 91) and "Debug request" of the Jupyter messaging specification; the Debug
Adapter Protocol.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import attrs

from .. import messages
from .._core.bond import Bond, Tie
from .._core.core import Core
from .._core.flight import Tied
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


class _Block(Tied):
    """What was opened for a block: it ends with the block, and with the kernel that it was opened on.

    Args:
        core: The connection.
        what: As it is called.
    """

    def __init__(self, core: Core, what: str) -> None:
        self._core = core
        self._what = what
        self._left = False

    def leave(self) -> None:
        """Its block, or that of the channels, was left."""
        self._left = True
        self._core.changed.ring()

    def raise_if_over(self) -> None:
        """Raises why nothing can be asked of it any more."""
        super().raise_if_over()
        if self._left:
            raise anyio.ClosedResourceError(f"the block of the {self._what} was left")


@contextmanager
def _tied(conversations: Conversations, what: str) -> Iterator[_Block]:
    block = _Block(conversations.core, what)
    conversations.core.requests.tie(block)
    try:
        yield block
    finally:
        conversations.core.requests.untie(block)
        block.leave()


class Subshell:
    """A further shell of the kernel: it runs code while the main shell is busy.

    By :meth:`KernelChannels.open_subshell`. What it runs shares the kernel's variables. Behind its
    block it raises ``anyio.ClosedResourceError``, and behind a restart of the kernel
    :class:`KernelDied`.

    Attributes:
        subshell_id: Its id, in the header of what it is to handle.

    Example:
        .. code-block:: python

            async with ch.open_subshell() as subshell:
                async with ch.execute("import time; time.sleep(1)"):
                    done = await subshell.run("print('meanwhile')")
                    print(done.text)  # meanwhile
    """

    def __init__(self, conversations: Conversations, block: _Block, subshell_id: str) -> None:
        self._conversations = conversations
        self._block = block
        self.subshell_id = subshell_id

    async def request(
        self, request: str | Message, content: Mapping[str, Any] | None = None
    ) -> Message:
        """Like :meth:`KernelChannels.request`, answered by this subshell."""
        self._block.raise_if_over()
        if isinstance(request, str):
            request = messages.message(request, content)
            content = None
        header = {**request.header, "subshell_id": self.subshell_id}
        return await self._conversations.request(
            attrs.evolve(request, header=header), content, tied=self._block
        )

    def execute(
        self, code: str, **options: Unpack[CodeOptions]
    ) -> AbstractAsyncContextManager[Execution]:
        """Like :meth:`KernelChannels.execute`, run by this subshell."""
        self._block.raise_if_over()
        return execute_code(
            self._conversations, code, **options, subshell_id=self.subshell_id, tied=self._block
        )

    async def run(
        self, code: str, *, check: bool = False, **options: Unpack[CodeOptions]
    ) -> CompletedExecution:
        """Like :meth:`KernelChannels.run`, run by this subshell."""
        self._block.raise_if_over()
        return await run_code(
            self._conversations,
            code,
            check=check,
            subshell_id=self.subshell_id,
            tied=self._block,
            **options,
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
    with _tied(conversations, "subshell") as block:
        subshell_id = await opening.wait()
        try:
            yield Subshell(conversations, block, subshell_id)
        finally:
            block.leave()
            await opening.undo()


async def _create_subshell(conversations: Conversations, bond: Bond) -> str:
    reply = await conversations.request(messages.create_subshell_request(), tied=bond)
    return text_of(raise_for_status(reply).content.get("subshell_id"))


async def _delete_subshell(conversations: Conversations, bond: Bond, subshell_id: str) -> None:
    await conversations.request(messages.delete_subshell_request(subshell_id), tied=bond)


class _Opening(Generic[T]):
    """Something that the kernel opens for a block, and that must be undone in that kernel, and in no other.

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
        open_: Callable[[Conversations, Bond], Awaitable[T]],
        undo: Callable[[Conversations, Bond, T], Awaitable[None]],
    ) -> None:
        self._conversations = conversations
        self._core = conversations.core
        self._open = open_
        self._undo = undo
        self._wanted = True
        self._opened: list[tuple[Bond, T]] = []
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
        return self._opened[0][1]

    async def undo(self) -> None:
        """Undoes it; bounded, and never raises."""
        await self._core.farewells.say(
            CLOSE_DEADLINE, self._undo, self._conversations, *self._opened[0]
        )

    async def _run(self) -> None:
        try:
            await self._core.opened()
            bond = Bond(self._core)
            opened = await self._open(self._conversations, bond)
            if self._wanted:
                self._opened.append((bond, opened))
            else:
                await self._undo(self._conversations, bond, opened)
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
    """Commands of the Debug Adapter Protocol, and the stream of the kernel's ``debug_event``.

    By :meth:`KernelChannels.open_debug_session`; one client debugs a kernel at a time. Behind its
    block it raises ``anyio.ClosedResourceError``, and behind a restart of the kernel
    :class:`KernelDied`.

    Example:
        .. code-block:: python

            async with ch.open_debug_session() as session:
                cell = await session.request("dumpCell", {"code": "x = 1"})
                wanted = {
                    "source": {"path": cell["sourcePath"]},
                    "breakpoints": [{"line": 1}],
                }
                found = await session.request("setBreakpoints", wanted)
                print(len(found["breakpoints"]))  # 1
    """

    def __init__(
        self, session: str, debugger: _Debugger, block: _Block, events: Feed[Message]
    ) -> None:
        super().__init__(events)
        self._session = session
        self._debugger = debugger
        self._block = block

    async def request(
        self, command: str, arguments: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Sends a command, and returns the body of its response.

        A checkpoint; a cancelled request may have been sent.

        Args:
            command: For example ``"setBreakpoints"``.
            arguments: What the protocol asks for.

        Returns:
            The body, which the protocol describes; empty where the response has none.

        Raises:
            ReplyError: The response says that it was not successful.
            NoReply: The kernel is done with it, and sent no reply.
            anyio.ClosedResourceError: The block of the channels was left.
            KernelDied: The kernel is lost.
        """
        self._block.raise_if_over()
        return await self._debugger.ask(command, arguments, tied=self._block)

    def __repr__(self) -> str:
        return f"<DebugSession of {self._session}>"


@asynccontextmanager
async def open_debug_session(conversations: Conversations) -> AsyncIterator[DebugSession]:
    """The scope of a debug session."""
    if "debugger" not in await _features(conversations):
        raise NotImplementedByKernel(
            "the kernel has no debugger: its kernel_info does not name one"
        )
    core = conversations.core
    events = _Events(core.bound.hold(("iopub",)))
    core.observers.append(events.observe)
    core.requests.tie(events)

    debugger = _Debugger(conversations)
    opening = _Opening(conversations, debugger.attach, debugger.detach)
    try:
        with _tied(conversations, "debug session") as block:
            await opening.wait()
            try:
                yield DebugSession(core.session, debugger, block, events)
            finally:
                block.leave()
                await opening.undo()
    finally:
        core.observers.remove(events.observe)
        core.requests.untie(events)
        events.end(left=True)


class _Debugger:
    """The kernel's debugger, as one session speaks to it."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations
        self._numbers = itertools.count(1)

    async def ask(
        self, command: str, arguments: Mapping[str, Any] | None, *, tied: Tie
    ) -> dict[str, Any]:
        request = messages.debug_request(command, arguments, seq=next(self._numbers))
        reply = raise_for_status(await self._conversations.request(request, tied=tied))
        return reply.content.get("body") or {}

    async def attach(self, _: Conversations, bond: Bond) -> None:
        who = {"clientID": "enchannel", "adapterID": "enchannel"}
        await self.ask("initialize", who, tied=bond)
        # Until it is attached it may be somebody else's, who would be disconnected.
        await self.ask("attach", {}, tied=bond)

    async def detach(self, _: Conversations, bond: Bond, __: None) -> None:
        how = {"restart": False, "terminateDebuggee": False}
        await self.ask("disconnect", how, tied=bond)


async def _features(conversations: Conversations) -> list[str]:
    info = await conversations.kernel_info()
    features = info.get("supported_features")
    # Before version 5.5 of the protocol the debugger had a field of its own.
    named = [*features] if isinstance(features, list) else []
    return [*named, "debugger"] if info.get("debugger") else named
