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
from typing import TYPE_CHECKING, Any

import attrs

from .. import messages
from .._exceptions import NotImplementedByKernel, text_of
from .._groups import closing_within
from .._protocol.connection_info import ChannelName
from .._protocol.message import Message
from .comms import _Queue
from .execution import Execution, OnInput, raise_for_status

if TYPE_CHECKING:
    from .._channels import KernelChannels

__all__ = ["DebugSession", "Subshell", "open_debug_session", "open_subshell"]

CLOSE_DEADLINE = 2.0
"""Seconds that deleting a subshell, or ending a debug session, may take on the way out."""


class Subshell:
    """A further shell of the kernel: it runs code while the main shell is busy.

    Attributes:
        subshell_id: Its id, in the header of what it is to handle.
    """

    def __init__(self, channels: KernelChannels, subshell_id: str) -> None:
        self._channels = channels
        self.subshell_id = subshell_id

    async def request(
        self, request: str | Message, content: Mapping[str, Any] | None = None
    ) -> Message:
        """Like :meth:`KernelChannels.request`, answered by this subshell."""
        if isinstance(request, str):
            request = messages.message(request, content)
            content = None
        header = {**request.header, "subshell_id": self.subshell_id}
        return await self._channels.request(attrs.evolve(request, header=header), content)

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
        return self._channels.execute(
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
async def open_subshell(channels: KernelChannels) -> AsyncIterator[Subshell]:
    if "kernel subshells" not in await _features(channels):
        raise NotImplementedByKernel(
            "the kernel has no subshells: its supported_features do not name 'kernel subshells'"
        )
    reply = raise_for_status(await channels.request(messages.create_subshell_request()))
    subshell_id = text_of(reply.content.get("subshell_id"))
    try:
        yield Subshell(channels, subshell_id)
    finally:
        with closing_within(CLOSE_DEADLINE):
            await channels.request(messages.delete_subshell_request(subshell_id))


class DebugSession(_Queue[Message]):
    """Commands of the Debug Adapter Protocol, and the stream of the kernel's ``debug_event``."""

    def __init__(self, channels: KernelChannels) -> None:
        super().__init__(channels)
        self._restarts = len(channels._delivery.restarts)
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
            NotImplementedByKernel: The kernel went idle, and sent no reply.
            KernelDied: The kernel is lost.
        """
        request = messages.debug_request(command, arguments, seq=next(self._numbers))
        reply = raise_for_status(await self._channels.request(request))
        return reply.content.get("body") or {}

    def observe(self, _: ChannelName, arrived: Sequence[Message]) -> None:
        for message in arrived:
            if message.msg_type == "debug_event":
                self._put(message)


@asynccontextmanager
async def open_debug_session(channels: KernelChannels) -> AsyncIterator[DebugSession]:
    if "debugger" not in await _features(channels):
        raise NotImplementedByKernel(
            "the kernel has no debugger: its kernel_info does not name one"
        )
    session = DebugSession(channels)
    delivery = channels._delivery
    delivery.observers.append(session.observe)
    delivery.at_end[session._tell] = None
    try:
        await session.request("initialize", {"clientID": "enchannel", "adapterID": "enchannel"})
        try:
            await session.request("attach", {})
            yield session
        finally:
            with closing_within(CLOSE_DEADLINE):
                await session.request("disconnect", {"restart": False, "terminateDebuggee": False})
    finally:
        delivery.observers.remove(session.observe)
        del delivery.at_end[session._tell]
        session._end()


async def _features(channels: KernelChannels) -> list[str]:
    info = await channels.kernel_info()
    features = info.get("supported_features")
    # Before version 5.5 of the protocol the debugger had a field of its own.
    named = [*features] if isinstance(features, list) else []
    return [*named, "debugger"] if info.get("debugger") else named
