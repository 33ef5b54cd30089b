"""Comms as scopes: custom messages between a front end and a kernel.

A comm is an object stream of :class:`Message`, closed on the kernel's side when its block is left. Comms that
the *kernel* opens are offered to whoever accepts their target; while somebody accepts any, a target that
nobody accepts is answered with ``comm_close``, as the specification asks. Without that the kernel's comms are
left alone, and those that it opens for another client always: what they answer says whose they are.

Source: "Custom Messages" of the Jupyter messaging specification.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint_if_cancelled

from .. import messages
from .._core.bond import Bond
from .._core.bound import Held
from .._core.core import Core
from .._core.flight import Tied
from .._core.stream import Feed, Stream
from .._exceptions import EnchannelError
from .._protocol.connection_info import ChannelName
from .._protocol.errors import LocalProtocolError, text_of
from .._protocol.message import Message, new_id
from .._trio import uncut

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Comm", "Comms", "IncomingComms", "TiedFeed", "new_comm"]

_CHANNELS: tuple[ChannelName, ...] = ("iopub",)

CLOSE_DEADLINE = 1.0
"""Seconds that telling the kernel of a comm's end may take on the way out."""

T = TypeVar("T")


class TiedFeed(Feed[T], Tied):
    """The feed of a stream that ends with the kernel, and with the block of the channels."""

    def fail(self, failure: EnchannelError) -> None:
        """The kernel was lost or restarted."""
        super().fail(failure)
        self.end(failure)

    def leave(self) -> None:
        """The block of the channels was left."""
        self.end()


class _Kernel(Bond):
    """The kernel that a comm is open in.

    Attributes:
        knows: Whether it knows of the comm's end: what was closed here in an outage is open there still.
    """

    __slots__ = ("knows",)

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self.knows: bool = False

    def raise_if_over(self) -> None:
        """Raises why it is not to be told of the end any more."""
        super().raise_if_over()
        if self.knows:
            raise anyio.ClosedResourceError("the kernel knows that the comm is closed")


class CommFeed(TiedFeed[Message]):
    """One open comm, as the core knows it.

    Attributes:
        kernel: Where it is open.
        comm_id: Its id.
        target_name: What it was opened to.
        opening: The ``comm_open`` message, as it was sent or received.
        closing: The kernel's ``comm_close``, once it is in.
        over: Whether one side has closed it.
    """

    def __init__(self, comms: Comms, opening: Message, held: Held | None) -> None:
        super().__init__(held)
        self._comms = comms
        self._core = comms.core
        self.kernel: _Kernel = _Kernel(comms.core)
        self.opening: Message = opening
        self.closing: Message | None = None
        self.over: bool = False
        self.comm_id: str = text_of(opening.content.get("comm_id"))
        self.target_name: str = text_of(opening.content.get("target_name"))

    def raise_if_over(self) -> None:
        """Raises why nothing can be sent on it any more."""
        if self.over:
            raise anyio.ClosedResourceError("the comm is closed")
        super().raise_if_over()

    def hear(self, message: Message) -> None:
        """Takes what the kernel sends; must not raise."""
        if message.msg_type == "comm_close":
            self.closing = message
            self.kernel.knows = True
            self.shut()
        elif message.msg_type == "comm_msg":
            self.put([message])

    async def send(self, body: Message) -> Message:
        """Sends what belongs to it; see :meth:`Comm.send`."""
        return await self._core.send("shell", self._core.prepare(body), tied=self)

    def shut(self, failure: EnchannelError | None = None) -> None:
        """Nothing is sent on it any more, nor taken for it."""
        self.over = True
        self.end(failure)
        # Who waits to send is told.
        self._core.changed.ring()

    def refuse(self) -> None:
        """Nobody will read it. A kernel that cannot be told now is told when its target is left."""
        self.shut()
        owed = not self.kernel.knows and self.kernel.failure is None
        if owed and self._comms.refuse(self.comm_id):
            self.kernel.knows = True
            self._comms.forget(self)

    async def finish(self) -> None:
        """Ends it, and tells the kernel, where it is there and does not know; bounded, and never raises."""
        # The loss may not be told yet.
        self.shut(self._core.lost)
        await self._core.farewells.say(CLOSE_DEADLINE, self.tell_kernel)

    async def tell_kernel(self) -> None:
        """Tells the kernel, where it is there and does not know.

        Raises:
            KernelDied: It is not there any more.
        """
        if self.kernel.knows or self.kernel.failure is not None or self._core.life.over:
            return
        closing = self._core.prepare(messages.comm_close(self.comm_id))
        # Somebody else may tell it meanwhile.
        with contextlib.suppress(anyio.ClosedResourceError):
            # An outage may have ended its stream, and the same kernel be back.
            await self._core.send("shell", closing, tied=self.kernel)
            self.kernel.knows = True
            self._comms.forget(self)


class Comm(Stream[Message]):
    r"""One open comm: a stream of the kernel's ``comm_msg``; ends when either side closes it.

    By :meth:`KernelChannels.open_comm`, and out of an :class:`IncomingComms`. With the kernel, and
    with its restart, it ends: receiving and sending raise :class:`KernelDied`.

    Example:
        .. code-block:: python

            await ch.run(
                "def opened(comm, msg):\n"
                "    comm.on_msg(lambda msg: comm.send({'seen': msg['content']['data']}))\n"
                "get_ipython().kernel.comm_manager.register_target('echo', opened)"
            )
            async with ch.open_comm("echo") as comm:
                await comm.send({"x": 1})
                answer = await comm.receive()
                print(answer.content["data"])  # {'seen': {'x': 1}}
    """

    def __init__(self, comm: CommFeed) -> None:
        super().__init__(comm)
        self._comm = comm

    @property
    def comm_id(self) -> str:
        """Its id."""
        return self._comm.comm_id

    @property
    def target_name(self) -> str:
        """What it was opened to."""
        return self._comm.target_name

    @property
    def opening(self) -> Message:
        """The ``comm_open`` message, as it was sent or received."""
        return self._comm.opening

    @property
    def closing(self) -> Message | None:
        """The kernel's ``comm_close``, once it is in."""
        return self._comm.closing

    @property
    def closed(self) -> bool:
        """Whether either side has closed it; what the kernel had sent before can be received."""
        return self._comm.over or super().closed

    async def send(
        self,
        data: Mapping[str, Any] | None = None,
        *,
        buffers: Sequence[Buffer] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> Message:
        """Sends a ``comm_msg`` and returns it as it was sent; cancelled, it has sent nothing. A
        checkpoint.

        Args:
            data: What it says.
            buffers: Binary data with it.
            metadata: Beside it.

        Raises:
            LocalProtocolError: A part is no JSON. Nothing was sent.
            anyio.ClosedResourceError: The comm is closed.
            KernelDied: The kernel is lost, or was restarted.
        """
        return await self._comm.send(
            messages.comm_msg(self.comm_id, data, buffers=buffers, metadata=metadata)
        )

    async def aclose(self) -> None:
        """Closes the comm, tells the kernel, and drops what was not received; never cancelled."""
        await self._comm.finish()
        self.close()
        await cancel_shielded_checkpoint()

    def __repr__(self) -> str:
        return f"<Comm {self.target_name} {self.comm_id}{' closed' if self._comm.over else ''}>"


class TargetFeed(TiedFeed[Comm]):
    """What one target is offered.

    Attributes:
        offered: What was, and is open.
    """

    outlives_restarts = True

    def __init__(self, held: Held | None) -> None:
        super().__init__(held)
        self.offered: dict[str, CommFeed] = {}
        self._untaken: dict[Comm, CommFeed] = {}

    def offer(self, feed: CommFeed) -> None:
        """The kernel has opened the comm of `feed`."""
        comm = Comm(feed)
        self.offered[feed.comm_id] = self._untaken[comm] = feed
        self.put([comm])

    @uncut
    def take(self) -> Comm:
        """The next one; or raises what this has ended with."""
        comm = super().take()
        del self._untaken[comm]
        return comm

    def drop(self, item: Comm) -> None:
        """It gives way: nobody gets `item`, whose messages would hold up the others without end."""
        super().drop(item)
        self._untaken.pop(item).refuse()

    @uncut
    def close(self) -> None:
        """Drops what was not taken; nothing more comes."""
        super().close()
        while self._untaken:
            self._untaken.popitem()[1].refuse()


class IncomingComms(Stream[Comm]):
    """The comms that the kernel opens to one target: a stream of :class:`Comm`.

    By :meth:`KernelChannels.accept_comms`; it outlives restarts of the kernel. A comm is closed by
    ``async with``, by :meth:`Comm.aclose`, or at the end of the block.

    Example:
        .. code-block:: python

            code = "from comm import create_comm; c = create_comm('mine', data={'x': 1})"
            async with ch.accept_comms("mine") as comms:
                await ch.run(code)
                async with await comms.receive() as comm:
                    print(comm.opening.content["data"])  # {'x': 1}
    """


class Comms:
    """The open comms of one connection; an observer of what arrives."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self._comms: dict[str, CommFeed] = {}
        self._epoch = core.life.epoch
        self._targets: dict[str, TargetFeed] = {}
        core.observers.append(self.observe)

    def observe(self, _: ChannelName, arrived: Sequence[Message]) -> list[Message]:
        """Hands each comm what is its own, and returns that; must not raise."""
        return [
            message
            for message in arrived
            if message.msg_type.startswith("comm_") and self._takes(message)
        ]

    def _takes(self, message: Message) -> bool:
        comm_id = message.content.get("comm_id")
        if not isinstance(comm_id, str):
            return False
        comm = self._open_comms().get(comm_id)
        if message.msg_type == "comm_open":
            if comm is not None and comm.over:
                # It was closed here in vain, and the kernel has another one by now.
                comm.kernel.knows = True
                self.forget(comm)
                comm = None
            return comm is None and self._offer(comm_id, message)
        if comm is None:
            return False
        comm.hear(message)
        if message.msg_type == "comm_close":
            self.forget(comm)
        return True

    def _offer(self, comm_id: str, opening: Message) -> bool:
        asked_by = opening.parent_header.get("session")
        if asked_by and asked_by != self.core.session:
            return False
        incoming = self._targets.get(text_of(opening.content.get("target_name")))
        if incoming is not None and not incoming.done():
            held = incoming.held.like() if incoming.held is not None else None
            incoming.offer(self._add(opening, held))
            return True
        if self._targets and asked_by:
            self.refuse(comm_id)
        return False

    def refuse(self, comm_id: str) -> bool:
        """Nobody will read what comes for `comm_id`; whether the kernel was told, or never can be."""
        try:
            return self.core.post("shell", messages.comm_close(comm_id))
        except LocalProtocolError:
            # The reader task says it, which must not end of an id that is more than a server takes.
            return True

    def _open_comms(self) -> dict[str, CommFeed]:
        """Those that are open in the kernel that is there now, as far as is known; their users have the others."""
        if self._epoch != self.core.life.epoch:
            self._epoch = self.core.life.epoch
            for comm in tuple(self._comms.values()):
                if comm.kernel.failure is not None:
                    self.forget(comm)
        return self._comms

    def _add(self, opening: Message, held: Held | None) -> CommFeed:
        comm = CommFeed(self, opening, held)
        self._open_comms()[comm.comm_id] = comm
        self.core.requests.tie(comm)
        return comm

    def forget(self, comm: CommFeed) -> None:
        """Nothing more is handed to `comm`; no error where nothing is already."""
        if self._comms.get(comm.comm_id) is not comm:
            return
        del self._comms[comm.comm_id]
        self.core.requests.untie(comm)
        incoming = self._targets.get(comm.target_name)
        if incoming is not None:
            incoming.offered.pop(comm.comm_id, None)

    @asynccontextmanager
    async def open(self, opening: Message) -> AsyncIterator[Comm]:
        """The scope of a comm that is opened here."""
        await self.core.opened()
        comm = self._add(opening, self.core.bound.hold(_CHANNELS))
        try:
            comm.opening = await comm.send(opening)
            try:
                yield Comm(comm)
            finally:
                await comm.finish()
        finally:
            comm.end(left=True)
            self.forget(comm)

    def accept(self, target_name: str) -> AbstractAsyncContextManager[IncomingComms]:
        """The scope in which comms that the kernel opens to `target_name` are accepted."""
        _check_target(target_name)
        return self._accepted(target_name)

    @asynccontextmanager
    async def _accepted(self, target_name: str) -> AsyncIterator[IncomingComms]:
        if target_name in self._targets:
            raise LocalProtocolError(f"comms to {target_name!r} are being accepted already")
        await checkpoint_if_cancelled()
        self.core.raise_if_over()
        incoming = TargetFeed(self.core.bound.hold(_CHANNELS))
        self._targets[target_name] = incoming
        self.core.requests.tie(incoming)
        try:
            yield IncomingComms(incoming)
        finally:
            del self._targets[target_name]
            self.core.requests.untie(incoming)
            incoming.end(left=True)
            offered = tuple(incoming.offered.values())
            for comm in offered:
                self.forget(comm)
                comm.shut(self.core.lost)
            # One deadline for all: in an outage each would wait for its own.
            await self.core.farewells.say(CLOSE_DEADLINE, _tell_kernel, offered)


async def _tell_kernel(comms: Sequence[CommFeed]) -> None:
    for comm in comms:
        await comm.tell_kernel()


def _check_target(target_name: object) -> None:
    if not isinstance(target_name, str) or not target_name:
        raise LocalProtocolError(f"target_name is the name of a comm target, not {target_name!r}")


def new_comm(
    target_name: str,
    data: Mapping[str, Any] | None,
    buffers: Sequence[Buffer],
    metadata: Mapping[str, Any] | None,
) -> Message:
    """The ``comm_open`` of a fresh comm."""
    _check_target(target_name)
    comm_id = new_id()
    return messages.comm_open(comm_id, target_name, data, buffers=buffers, metadata=metadata)
