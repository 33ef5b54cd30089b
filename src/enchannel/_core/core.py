"""The core of a connection: what its life comes to, and the few verbs that the rooms above need.

What an event means is decided in :mod:`~enchannel._core.life`; here it is done. The tasks that notice most of them
are those of :mod:`~enchannel._core.tasks`.

A message is sent by the task that calls :meth:`Core.send`, and nothing is queued in between, so an error of the
message is an error of the call.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from threading import get_ident
from typing import Any, Literal

import anyio
from anyio.lowlevel import checkpoint

from .. import messages
from .._bell import Bell
from .._exceptions import KernelDied, LocalProtocolError
from .._log import logger
from .._protocol.connection_info import ChannelName
from .._protocol.message import Body, Message, prepare
from .._transports.base import Start, Transport
from .._trio import uncut
from .backlog import Backlog
from .bond import Tie
from .bound import Bound, Limits
from .delivery import Delivery
from .farewells import Farewells
from .flight import Flight
from .heartbeat import Heartbeat
from .life import Effect, Event, Life, State
from .outage import Outage
from .requests import Requests
from .seam import Seam
from .status import Status
from .stream import TURN, fresh, native_checkpoint_if_cancelled

__all__ = ["Core"]

Observer = Callable[[ChannelName, Sequence[Message]], Collection[Message]]

Happening = Literal["sent", "interrupted", "restarted", "lost"]
Witness = Callable[[Happening, "ChannelName | None", "Message | None"], None]


class Core(Seam):
    """One connection to one kernel.

    Args:
        transport: What carries its messages.
        session: The session id in the header of each sent message; the transport's, or a fresh one, where it is left out.
        username: The user name there.
        limits: How much may be held.
        reconnect_timeout: Seconds that a lost connection may take to come back.
        heartbeat_timeout: Seconds of silence behind which an idle kernel counts as lost.

    Attributes:
        life: The state of the connection.
        requests: What is in flight.
        delivery: Who gets a message.
        status: What the kernel says of itself.
        sent: How many messages were sent, by channel.
        lost: The loss that ended the connection.
        farewells: What is still said to the kernel for blocks that were left.
        interrupter: Interrupts the kernel, where whoever launched it knows better than to ask it.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        session: str | None,
        username: str,
        limits: Limits,
        reconnect_timeout: float,
        heartbeat_timeout: float,
    ) -> None:
        self.transport = transport
        self.channels: Sequence[ChannelName] = transport.channels
        self.session: str = transport.session_for(session)
        self.username = username
        self.life: Life = Life()
        self.lost: KernelDied | None = None
        self.requests: Requests = Requests(self)
        self.bound: Bound = Bound(limits, lambda: self.requests.asking, lambda: transport.jammed)
        backlog = Backlog(limits)
        self.delivery: Delivery = Delivery(transport.channels, self.bound, backlog, self.requests)
        self.received: dict[ChannelName, int] = dict.fromkeys(transport.channels, 0)
        self.changed: Bell = Bell()
        """Rings whenever the connection, its state or the status changes."""
        renewed, answered = partial(self.happen, Event.NEW_SESSION), self.requests.is_answered
        self.status: Status = Status(self._sent_on, answered, renewed, self.changed.ring)
        self.heartbeat: Heartbeat = Heartbeat(heartbeat_timeout)
        self.outage: Outage = Outage(reconnect_timeout, buffered=transport.buffered)
        self.sent: dict[ChannelName, int] = dict.fromkeys(transport.channels, 0)
        self.interrupter: Callable[[], Awaitable[None]] | None = None
        self.to_start: list[tuple[Any, ...]] = []
        self.start: Start = lambda *task: self.to_start.append(task)
        """Starts a task that ends with the connection, once that has tasks."""
        self.farewells: Farewells = Farewells(self)
        self.observers: list[Observer] = []
        """Called with every batch that arrives, before anybody gets it; returns what it takes, and must not raise."""
        self.witnesses: list[Witness] = []
        """Called with what is sent, and with whatever else happens to the kernel; must not raise."""
        self.iopub_proven: bool = False
        self.scopes: set[anyio.CancelScope] = set()
        """Cancelled when the block is left."""
        self.ticking: bool = False
        """Whether something may be missing, so that the keeper, which `wakeup` wakes, is to look."""
        self.wakeup: Bell = Bell()
        self.patience: anyio.CancelScope = anyio.CancelScope()
        """Ends when the present outage is overdue, or given up."""
        self._held_back, self._turn = 0, TURN
        self._thread = get_ident()
        self._checkpoint_if_cancelled = native_checkpoint_if_cancelled()

    # The life of the connection.

    @uncut
    def happen(self, event: Event, died: KernelDied | None = None) -> None:
        """Something happened to the connection: does what that means.

        Args:
            event: What.
            died: Where it may lose the kernel, what is said then.
        """
        before = self.life.state
        effects = self.life.happen(event)
        if self.life.state is State.LOST and before is not State.LOST:
            self.lost = died
            self.tell("lost")
        for effect in effects:
            self._effects[effect](self)
        if self.life.over:
            self.patience.cancel()
        if self.life.state is not before:
            self.wakeup.ring()
        self.changed.ring()

    def lose(self, died: KernelDied, cause: BaseException | None = None) -> None:
        """The kernel is known to be gone."""
        died.__cause__ = cause
        self.happen(Event.GONE, died)

    def leave(self) -> None:
        """The block is left: ends the streams, and the tasks."""
        self.happen(Event.LEAVE)
        for scope in tuple(self.scopes):
            scope.cancel()

    async def opened(self, tied: Tie | None = None) -> None:
        """Waits until something may be sent, or nothing of what it is `tied` to may be any more. Not always a checkpoint.

        Raises:
            EnchannelError: What it is `tied` to has failed: its kernel is gone, for example.
            KernelDied: The kernel is lost.
            anyio.ClosedResourceError: What it is `tied` to has ended, or the block was left.
        """
        while True:
            if tied is not None:
                tied.raise_if_over()
            if not self.life.away:
                break
            await self.changed.wait()
        self.raise_if_over()

    def raise_if_over(self) -> None:
        """Tells who is about to wait that nothing more will come.

        Raises:
            KernelDied: The kernel is lost.
            anyio.ClosedResourceError: The block was left.
        """
        if self.life.state is State.LEFT:
            raise anyio.ClosedResourceError("the block of the channels was left")
        if self.lost is not None:
            raise fresh(self.lost)

    def deliver(self, channel: ChannelName, messages: Sequence[Message]) -> None:
        """What a reader has read."""
        self.received[channel] += len(messages)
        if channel == "iopub":
            messages = self._hear(messages)
        elif channel != "stdin" and messages:
            self.status.hear_reply(channel, messages[-1])
        taken = [each for observe in self.observers for each in observe(channel, messages)]
        self.delivery.deliver(channel, messages, taken)

    def _hear(self, messages: Sequence[Message]) -> Sequence[Message]:
        """What iopub says of itself and of the kernel; returns what others get of it."""
        held_back = self.transport.held_back
        if messages or held_back != self._held_back:
            self._held_back = held_back
            if not self.iopub_proven:
                self.iopub_proven = True
                self.changed.ring()
        # In C: most batches hold nothing that concerns us.
        kinds = [message.header.get("msg_type") for message in messages]
        if "status" in kinds or self.status.curious:
            heard = self.status.heard
            self.status.observe(messages)
            if self.status.heard != heard:
                self.changed.ring()
        if "iopub_welcome" in kinds:
            # It belongs to the opening of channels, and kernels repeat it for every other client.
            messages = [
                message
                for message in messages
                if message.parent_header or message.msg_type != "iopub_welcome"
            ]
        return messages

    def interrupted(self) -> None:
        """The kernel is being interrupted; some lose a reply then, and whoever waits for one is told why."""
        self.requests.interrupted()
        self.tell("interrupted")

    # What an effect comes to.

    def _hold(self) -> None:
        self.requests.paused = True
        self.bound.lifted = True

    def _resume(self) -> None:
        self.outage.end()
        self.requests.paused = False
        self.heartbeat.excuse()
        self.bound.lifted = False
        self.stir()

    def _tell_disconnected(self) -> None:
        self.requests.give_up_all(self.outage.died())

    def _tell_restarted(self) -> None:
        self.status.begin_anew()
        self.requests.begin_anew()
        logger().info("the kernel was restarted")
        self.tell("restarted")
        self.requests.fail_all(self.outage.restarted())

    def _doubt(self) -> None:
        lost = self.doubtful()
        self.requests.doubt(lost, self.status.busy)
        if "iopub" in lost:
            self.status.forget([busy for busy in self.status.busy if self.requests.find(busy)])

    def doubtful(self) -> Collection[ChannelName]:
        """The channels of the present outage on which something may be lost."""
        return self.transport.doubtful(self.outage.lost)

    def _abandon(self) -> None:
        self.bound.lifted = True
        self.transport.abandon()

    def _end(self) -> None:
        assert self.lost is not None
        self.delivery.end(self.lost)
        self.requests.fail_all(self.lost, final=True)

    def _close(self) -> None:
        self.delivery.end(self.lost, left=True)
        self.requests.leave_all()
        self.transport.abandon()

    _effects: Mapping[Effect, Callable[[Any], None]] = {
        Effect.HOLD: _hold,
        Effect.TELL_DISCONNECTED: _tell_disconnected,
        Effect.TELL_RESTARTED: _tell_restarted,
        Effect.COUNT_OUTAGE: lambda core: core.outage.count(core.channels, core.doubtful()),
        Effect.DOUBT: _doubt,
        Effect.RESUME: _resume,
        Effect.ABANDON: _abandon,
        Effect.END: _end,
        Effect.CLOSE: _close,
    }

    # Sending.

    def name(self, channel: str) -> ChannelName:
        """`channel`, where there is one.

        Raises:
            LocalProtocolError: There is none.
        """
        for name in self.channels:
            if name == channel:
                return name
        raise LocalProtocolError(
            f"unknown channel {channel!r}; there are {', '.join(self.channels)}"
        )

    def prepare(self, body: Body) -> Message:
        """The whole message that `body` stands for, in our session."""
        return prepare(body, session=self.session, username=self.username)

    async def send(
        self,
        channel: ChannelName,
        message: Message,
        *,
        flight: Flight | None = None,
        tied: Tie | None = None,
    ) -> Message:
        """Sends `message`, which is prepared; waits while there is no connection.

        A checkpoint; a cancelled send has sent nothing. Where what it is `tied` to has ended, it is not sent; `flight` is
        filed for its answers in the moment before it is.
        """
        if get_ident() != self._thread:
            # It would wait for what happens in another event loop, without end.
            raise RuntimeError(
                "these channels belong to the event loop of another thread: call it there, as AnyIO's from_thread does"
            )
        self._turn -= 1
        if self._turn:
            await self._checkpoint_if_cancelled()
        else:
            # Let the others run, while nothing is sent that a cancellation could concern.
            self._turn = TURN
            await checkpoint()
        self.transport.watch(channel)
        if message.content.get("allow_stdin", message.msg_type == "execute_request"):
            self.transport.watch("stdin")
        while True:
            if self.life.state is not State.LIVE or tied is not None:
                await self.opened(tied)
            if flight is not None:
                self.requests.file(flight)
            try:
                self._give(channel, message)
                if flight is not None:
                    flight.sent = True
                break
            except anyio.WouldBlock:
                if flight is not None:
                    self.requests.remove(flight)
            await self._wait_writable(channel)
        return message

    async def _wait_writable(self, channel: ChannelName) -> None:
        with anyio.CancelScope() as scope:
            self.scopes.add(scope)
            try:
                await self.transport.wait_writable(channel)
            finally:
                self.scopes.discard(scope)

    def post(self, channel: ChannelName, body: Body) -> bool:
        """Sends without waiting, or not at all; whether it has. Where it has not, it may be sent later.

        Raises:
            LocalProtocolError: It can never be sent.
        """
        message = self.prepare(body)
        with contextlib.suppress(anyio.WouldBlock, KernelDied, OSError):
            if not self.life.over:
                self.transport.watch(channel)
                if not self.life.away:
                    self._give(channel, message)
                    return True
        return False

    def _give(self, channel: ChannelName, message: Message) -> None:
        self.transport.send_nowait(channel, message)
        self.sent[channel] += 1
        if self.witnesses:
            self.tell("sent", channel, message)

    def tell(
        self,
        happening: Happening,
        channel: ChannelName | None = None,
        message: Message | None = None,
    ) -> None:
        """Tells the witnesses."""
        for witness in self.witnesses:
            witness(happening, channel, message)

    async def request(
        self, channel: ChannelName, request: Message, *, tied: Tie | None = None
    ) -> Message:
        """Sends a prepared request and returns its reply; see :meth:`enchannel.KernelChannels.request`."""
        flight = Flight(channel, request)
        try:
            await self.send(channel, request, flight=flight, tied=tied)
            return await flight.wait_reply()
        finally:
            self.requests.remove(flight)

    # The seam of the registry.

    def ask(self, channel: ChannelName, subshell: str | None) -> Message:
        request = messages.kernel_info_request()
        if subshell is not None:
            request.header["subshell_id"] = subshell
        prepared = self.prepare(request)
        # Until it is live all are watched, and what its opening asks is no use of a channel.
        if self.life.state is not State.OPENING:
            try:
                self.transport.watch(channel)
            except OSError as error:
                raise anyio.WouldBlock from error
        self.transport.send_nowait(channel, prepared)
        return prepared

    def stir(self) -> None:
        if not self.ticking:
            self.ticking = True
            self.wakeup.ring()

    def sees_statuses(self) -> bool:
        return "iopub" in self.channels and (self.status.seen or self.transport.sees_everything)

    def asks_to_open(self) -> bool:
        return not self.transport.buffered

    def all_read(self) -> bool:
        return not any(self.transport.has_arrived(channel) for channel in self.channels)

    @property
    def refused(self) -> int:
        return self.transport.refused

    def dropped(self) -> Mapping[str, int]:
        return self.transport.dropped()

    def over(self, channel: ChannelName, request: Message) -> None:
        if channel == "shell" and "subshell_id" not in request.header:
            self.status.over(request.msg_id)

    def begun(self) -> Collection[str]:
        return tuple(self.status.busy)

    def answered(self, begun: Collection[str]) -> None:
        self.status.overtaken(begun)

    def _sent_on(self, msg_id: str) -> ChannelName | None:
        flight = self.requests.find(msg_id)
        if flight is not None:
            return flight.channel
        questions, left = self.requests.questions, self.requests.left
        return questions.asked_on(msg_id) or left.sent_on(msg_id)
