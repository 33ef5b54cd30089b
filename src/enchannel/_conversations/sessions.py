"""Subshells and debug sessions as scopes.

Both exist only in kernels that announce them, and some kernels die of a request on control that they do not
know. So the kernel's features are looked at first, and what it does not announce is not asked for.

Source: "Kernel subshells" (JEP 91) and "Debug request" of the Jupyter messaging specification; the Debug
Adapter Protocol.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import attrs

from .. import messages
from .._exceptions import EnchannelError, NotImplementedByKernel
from .._groups import closing_within
from .._protocol.connection_info import ChannelName
from .._protocol.errors import text_of
from .._protocol.message import Message
from .comms import TiedStream
from .conversations import Conversations
from .execution import Execution, OnInput, execute_code
from .replies import raise_for_status

__all__ = ["DebugSession", "Subshell", "open_debug_session", "open_subshell"]

CLOSE_DEADLINE = 2.0
"""Seconds that deleting a subshell, or ending a debug session, may take on the way out."""


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
    ) -> AbstractAsyncContextManager[Execution]:
        """Like :meth:`KernelChannels.execute`, run by this subshell."""
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
            subshell_id=self.subshell_id,
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
    subshell_id = await _create_subshell(conversations)
    try:
        yield Subshell(conversations, subshell_id)
    finally:
        with closing_within(CLOSE_DEADLINE):
            await conversations.request(messages.delete_subshell_request(subshell_id))


async def _create_subshell(conversations: Conversations) -> str:
    """Creates one, and deletes it where it comes when nobody waits for it any more."""
    creation = _Creation(conversations)
    conversations.core.start(creation.run)
    try:
        await creation.done.wait()
        if creation.failure is not None:
            raise creation.failure
        conversations.core.raise_if_over()
    except BaseException:
        creation.wanted = False
        if creation.subshell_id is not None:
            with closing_within(CLOSE_DEADLINE):
                await conversations.request(messages.delete_subshell_request(creation.subshell_id))
        raise
    assert creation.subshell_id is not None
    return creation.subshell_id


class _Creation:
    """A subshell that is being created; whoever asked for it may be cancelled, and the kernel cannot be told."""

    def __init__(self, conversations: Conversations) -> None:
        self._conversations = conversations
        self.wanted = True
        self.subshell_id: str | None = None
        self.failure: EnchannelError | anyio.ClosedResourceError | None = None
        self.done = anyio.Event()

    async def run(self) -> None:
        """Creates it."""
        try:
            request = self._conversations.request
            reply = raise_for_status(await request(messages.create_subshell_request()))
            self.subshell_id = text_of(reply.content.get("subshell_id"))
            if not self.wanted:
                await request(messages.delete_subshell_request(self.subshell_id))
        except (EnchannelError, anyio.ClosedResourceError) as failure:
            self.failure = failure
        finally:
            self.done.set()


class DebugSession(TiedStream[Message]):
    """Commands of the Debug Adapter Protocol, and the stream of the kernel's ``debug_event``."""

    def __init__(self, conversations: Conversations) -> None:
        super().__init__(conversations.core.bound.hold(("iopub",)))
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

    def observe(self, _: ChannelName, arrived: Sequence[Message]) -> list[Message]:
        """Takes the debug events of what arrives, and returns them; must not raise."""
        events = [message for message in arrived if message.msg_type == "debug_event"]
        self.put(events)
        return events

    def __repr__(self) -> str:
        return f"<DebugSession of {self._conversations.core.session}>"


@asynccontextmanager
async def open_debug_session(conversations: Conversations) -> AsyncIterator[DebugSession]:
    """The scope of a debug session."""
    if "debugger" not in await _features(conversations):
        raise NotImplementedByKernel(
            "the kernel has no debugger: its kernel_info does not name one"
        )
    session = DebugSession(conversations)
    core = conversations.core
    core.observers.append(session.observe)
    core.requests.tie(session)
    try:
        await session.request("initialize", {"clientID": "enchannel", "adapterID": "enchannel"})
        # Until it is attached it may be somebody else's, who would be disconnected.
        await session.request("attach", {})
        try:
            yield session
        finally:
            with closing_within(CLOSE_DEADLINE):
                await session.request("disconnect", {"restart": False, "terminateDebuggee": False})
    finally:
        core.observers.remove(session.observe)
        core.requests.untie(session)
        session.end(left=True)


async def _features(conversations: Conversations) -> list[str]:
    info = await conversations.kernel_info()
    features = info.get("supported_features")
    # Before version 5.5 of the protocol the debugger had a field of its own.
    named = [*features] if isinstance(features, list) else []
    return [*named, "debugger"] if info.get("debugger") else named
