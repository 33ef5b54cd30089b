"""Comms as scopes: custom messages between a front end and a kernel.

A comm is an object stream of :class:`Message`, closed on the kernel's side when its block is left. Comms that
the *kernel* opens are offered to whoever accepts their target; while somebody accepts any, a target that
nobody accepts is answered with ``comm_close``, as the specification asks. Without that the kernel's comms are
left alone: another client may be their other end.

Source: "Custom Messages" of the Jupyter messaging specification.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
import anyio.abc
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from .. import messages
from .._exceptions import LocalProtocolError, text_of
from .._groups import closing_within
from .._protocol.connection_info import ChannelName
from .._protocol.message import Message, new_id

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from .._channels import KernelChannels

__all__ = ["Comm", "Comms", "IncomingComms"]

CLOSE_DEADLINE = 1.0
"""Seconds that telling the kernel of a comm's end may take on the way out."""

T = TypeVar("T")


class _Queue(anyio.abc.ObjectReceiveStream[T], Generic[T]):
    """What arrives for one receiver, until it is ended."""

    def __init__(self, channels: KernelChannels) -> None:
        self._channels = channels
        self._items: deque[T] = deque()
        self._news = anyio.Event()
        self._ended = False
        self._restarts: int | None = None
        """How often the kernel had been restarted, where what comes does not outlive it."""

    def _put(self, item: T) -> None:
        if not self._ended:
            self._items.append(item)
            self._tell()

    def _end(self) -> None:
        self._ended = True
        self._tell()

    def _tell(self) -> None:
        self._news.set()

    async def receive(self) -> T:
        """The next one. A checkpoint; a cancelled receive has taken nothing.

        Raises:
            anyio.EndOfStream: The other side closed it, or the block was left.
            KernelDied: The kernel is lost, or what belonged to it with a restart.
        """
        await checkpoint_if_cancelled()
        while not self._items:
            if self._ended:
                raise anyio.EndOfStream
            try:
                self._channels._delivery.raise_if_ended(self._restarts)
            except anyio.ClosedResourceError:
                raise anyio.EndOfStream from None
            if self._news.is_set():
                # Not otherwise: several tasks may wait for the same news.
                self._news = anyio.Event()
            await self._news.wait()
        return self._items.popleft()

    async def aclose(self) -> None:
        """Receives no more."""
        self._items.clear()
        self._end()
        await checkpoint()


class Comm(_Queue[Message]):
    """One open comm: a stream of the kernel's ``comm_msg``; ends when either side closes it.

    Attributes:
        comm_id: Its id.
        target_name: What it was opened to.
        opening: The ``comm_open`` message, as it was sent or received.
        closing: The kernel's ``comm_close``, once it is in.
    """

    def __init__(self, channels: KernelChannels, opening: Message) -> None:
        super().__init__(channels)
        self._restarts = len(channels._delivery.restarts)
        self.opening = opening
        self.closing: Message | None = None
        self.comm_id: str = text_of(opening.content.get("comm_id"))
        self.target_name: str = text_of(opening.content.get("target_name"))

    async def send(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        buffers: Sequence[Buffer] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> Message:
        """Sends a ``comm_msg`` and returns it as it was sent; cancelled, it has sent nothing.

        Raises:
            anyio.ClosedResourceError: The comm is closed.
            KernelDied: The kernel is lost.
        """
        if self._ended:
            raise anyio.ClosedResourceError
        body = messages.comm_msg(self.comm_id, data, buffers=buffers, metadata=metadata)
        return await self._channels._send("shell", body, self._restarts)

    def _take(self, message: Message) -> None:
        if message.msg_type == "comm_close":
            self.closing = message
            self._end()
        elif message.msg_type == "comm_msg":
            self._put(message)

    async def aclose(self) -> None:
        """Closes the comm, tells the kernel, and drops what was not received; never cancelled."""
        await self._close()
        self._items.clear()
        await cancel_shielded_checkpoint()

    async def _close(self) -> None:
        delivery = self._channels._delivery
        if self._ended or delivery.ended:
            return
        self._end()
        with closing_within(CLOSE_DEADLINE):
            closing = messages.comm_close(self.comm_id)
            await self._channels._send("shell", closing, self._restarts)

    def __repr__(self) -> str:
        return f"<Comm {self.target_name} {self.comm_id}{' closed' if self._ended else ''}>"


class IncomingComms(_Queue[Comm]):
    """The comms that the kernel opens to one target."""

    def __init__(self, channels: KernelChannels) -> None:
        super().__init__(channels)
        self._offered: dict[str, Comm] = {}


class Comms:
    """The open comms of one kernel's channels; an observer of the delivery."""

    def __init__(self, channels: KernelChannels) -> None:
        self._channels = channels
        self._comms: dict[str, Comm] = {}
        self._targets: dict[str, IncomingComms] = {}
        channels._delivery.observers.append(self.observe)
        channels._delivery.at_end[self.end] = None

    def observe(self, _: ChannelName, arrived: Sequence[Message]) -> None:
        for message in arrived:
            if message.msg_type.startswith("comm_"):
                self._see(message)

    def _see(self, message: Message) -> None:
        comm_id = message.content.get("comm_id")
        if not isinstance(comm_id, str):
            return
        if message.msg_type == "comm_open":
            if comm_id not in self._comms:
                self._offer(comm_id, message)
        elif comm_id in self._comms:
            self._comms[comm_id]._take(message)
            if message.msg_type == "comm_close":
                self._forget(comm_id)

    def _offer(self, comm_id: str, opening: Message) -> None:
        incoming = self._targets.get(text_of(opening.content.get("target_name")))
        if incoming is not None and not incoming._ended:
            self._comms[comm_id] = comm = Comm(self._channels, opening)
            incoming._offered[comm_id] = comm
            incoming._put(comm)
        elif self._targets:
            self._channels._post("shell", messages.comm_close(comm_id))

    def _forget(self, comm_id: str) -> None:
        comm = self._comms.pop(comm_id, None)
        incoming = self._targets.get(comm.target_name) if comm is not None else None
        if incoming is not None:
            incoming._offered.pop(comm_id, None)

    def end(self) -> None:
        for comm in self._comms.values():
            comm._tell()
        for incoming in self._targets.values():
            incoming._tell()

    @asynccontextmanager
    async def open(self, opening: Message) -> AsyncIterator[Comm]:
        await self._channels._outages.wait_over()
        comm = Comm(self._channels, opening)
        self._comms[comm.comm_id] = comm
        try:
            comm.opening = await self._channels._send("shell", opening, comm._restarts)
            try:
                yield comm
            finally:
                await comm._close()
        finally:
            self._forget(comm.comm_id)

    @asynccontextmanager
    async def accept(self, target_name: str) -> AsyncIterator[IncomingComms]:
        if target_name in self._targets:
            raise LocalProtocolError(f"comms to {target_name!r} are being accepted already")
        await checkpoint_if_cancelled()
        incoming = IncomingComms(self._channels)
        self._targets[target_name] = incoming
        try:
            yield incoming
        finally:
            del self._targets[target_name]
            incoming._end()
            for comm in incoming._offered.values():
                self._forget(comm.comm_id)
                await comm._close()


def new_comm(
    target_name: object,
    data: Mapping[str, Any] | None,
    buffers: Sequence[Buffer],
    metadata: Mapping[str, Any] | None,
) -> Message:
    """The ``comm_open`` of a fresh comm."""
    if not isinstance(target_name, str) or not target_name:
        raise LocalProtocolError(f"target_name is the name of a comm target, not {target_name!r}")
    comm_id = new_id()
    return messages.comm_open(comm_id, target_name, data, buffers=buffers, metadata=metadata)
