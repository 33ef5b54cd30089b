"""The channels of one kernel, as a user holds them.

:class:`KernelChannels` joins a transport to the delivery rule: one reader task per channel takes what
has arrived and delivers it, one watcher task per channel follows the connection. The tasks never raise:
what ends them is recorded, ends the streams, and is raised at the next receive or send.

A message is sent by the task that calls ``send``; nothing is queued in between, so an error of the
message is an error of the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import attrs
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint, checkpoint_if_cancelled

from ._connection_info import ChannelName
from ._delivery import TURN, Delivery, Listener
from ._exceptions import KernelDied, LocalProtocolError
from ._groups import unwrapping_task_group
from ._transport import Transport
from .messages import Body, Message, prepare

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Channel", "ChannelStatistics", "KernelChannels", "MainChannel", "Subscription"]


@attrs.frozen
class ChannelStatistics:
    """What :meth:`KernelChannels.statistics` says; counts since the channels were opened."""

    iopub_proven: bool
    """Whether the subscription was seen to work before the block was entered. Where it was not (a busy
    kernel that answers nothing), output of the first request may be missed."""
    received: Mapping[str, int]
    """Messages that arrived, by channel."""
    sent: Mapping[str, int]
    """Messages that were sent, by channel."""
    dropped: Mapping[str, int]
    """Arrivals that were no message, by the name of the error that says why."""
    backlog: Mapping[str, int]
    """Messages that wait for somebody to listen, by channel."""
    backlog_dropped: int
    """Messages that nobody listened for until the backlog was full."""
    listeners: int
    """Streams that are listening."""


class Channel(Listener[Message], anyio.abc.ObjectStream[Message]):
    """The shell, control or stdin channel: an AnyIO object stream of :class:`Message`."""

    def __init__(self, channels: KernelChannels, name: ChannelName) -> None:
        super().__init__(channels._delivery, (name,), tagged=False)
        self.name: ChannelName = name
        self._channels = channels
        self._may_send = True

    # AnyIO's send returns nothing; ours says what was sent, so that replies can be matched.
    async def send(self, item: Body) -> Message:  # type: ignore[override]
        """Sends `item`, completed, on this channel.

        A checkpoint; a cancelled send has sent nothing.

        Args:
            item: The dict of the Jupyter documentation, or a :class:`Message`. What it leaves out
                (``msg_id``, ``date``, ``version``, ``parent_header``, ``metadata``, ``content``) is
                filled in; ``session`` and ``username`` are ours.

        Returns:
            The message as it was sent; its replies are those for which ``is_child_of(sent)``.

        Raises:
            LocalProtocolError: No ``msg_type``, or a part that is no JSON. Nothing was sent.
            anyio.ClosedResourceError: This channel is closed, or its block was left.
            KernelDied: The kernel is lost.
        """
        if self._closed or not self._may_send:
            raise anyio.ClosedResourceError
        return await self._channels._send(self.name, item)

    async def send_eof(self) -> None:
        """Sends nothing more on this channel; receiving goes on. A checkpoint."""
        self._may_send = False
        await checkpoint()

    def __repr__(self) -> str:
        return f"<Channel {self.name} {self._state()}>"


class MainChannel(Listener[tuple[ChannelName, Message]]):
    """All channels as one stream of ``(channel, message)``."""

    def __init__(self, channels: KernelChannels) -> None:
        super().__init__(channels._delivery, channels._transport.channels, tagged=True)
        self._channels = channels

    async def send(self, channel: str, body: Body) -> Message:
        """Sends `body`, completed, on `channel`: ``"shell"``, ``"control"`` or ``"stdin"``.

        Like :meth:`Channel.send` in everything else.

        Raises:
            LocalProtocolError: Also for a channel that is unknown, or that only receives.
            anyio.ClosedResourceError: This stream is closed, or its block was left.
            KernelDied: The kernel is lost.
        """
        if self._closed:
            raise anyio.ClosedResourceError
        return await self._channels._send(channel, body)

    def __repr__(self) -> str:
        return f"<MainChannel {self._state()}>"


class Subscription(Listener[tuple[ChannelName, Message]]):
    """One more listener, live while its ``async with`` block lasts."""

    async def __aenter__(self) -> Self:
        # First: an entry that is cancelled has no exit, and would listen for ever.
        await checkpoint_if_cancelled()
        self.listen()
        return self


class KernelChannels:
    """The open channels of one kernel; made by :func:`enchannel.open_kernel_channels`.

    Attributes:
        main: Every channel at once.
        shell: Requests and their replies.
        control: Requests that must not wait behind a running cell.
        stdin: The kernel's requests for input, and our replies.
        iopub: What the kernel publishes; receive only.
        session: The session id in the header of each sent message.
        username: The user name there.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        session: str,
        username: str,
        max_buffer_size: float,
    ) -> None:
        self._transport = transport
        self._delivery = Delivery(transport.channels, max_buffer_size)
        self._tasks = anyio.CancelScope()
        self._blocked_sends: set[anyio.CancelScope] = set()
        self._sent = dict.fromkeys(transport.channels, 0)
        self._iopub_proven = anyio.Event()
        self._turn = TURN
        self.session = session
        self.username = username
        self.main: MainChannel = MainChannel(self)
        self.shell: Channel = Channel(self, "shell")
        self.control: Channel = Channel(self, "control")
        self.stdin: Channel = Channel(self, "stdin")
        self.iopub: Listener[Message] = Listener(self._delivery, ("iopub",), tagged=False)

    def subscribe(self, *channels: str) -> Subscription:
        """One more listener on `channels` (all by default), as an async context manager.

        ::

            async with ch.subscribe("iopub") as output:
                async for channel, msg in output: ...

        It listens from the entry of the block to its end, beside ``main`` and the other streams.

        Raises:
            LocalProtocolError: There is no such channel.
        """
        names: list[ChannelName] = [self._name(channel) for channel in dict.fromkeys(channels)]
        names = names or list(self._transport.channels)
        return Subscription(self._delivery, names, tagged=True)

    def statistics(self) -> ChannelStatistics:
        """Counts of what happened so far."""
        backlog, listeners = self._delivery.statistics()
        return ChannelStatistics(
            iopub_proven=self._iopub_proven.is_set() or not self._transport.iopub_needs_proof,
            received=_by_channel(self._delivery.received),
            sent=_by_channel(self._sent),
            dropped=self._transport.dropped(),
            backlog=_by_channel(backlog),
            backlog_dropped=self._delivery.backlog_dropped,
            listeners=listeners,
        )

    def __repr__(self) -> str:
        return f"<KernelChannels {', '.join(self._transport.channels)} {self._state()}>"

    def _state(self) -> str:
        delivery = self._delivery
        return "closed" if delivery.left else "kernel died" if delivery.died else "open"

    def _name(self, channel: str) -> ChannelName:
        for name in self._transport.channels:
            if name == channel:
                return name
        raise LocalProtocolError(
            f"unknown channel {channel!r}; there are {', '.join(self._transport.channels)}"
        )

    async def _send(self, channel: str, body: Body) -> Message:
        await checkpoint_if_cancelled()
        name = self._name(channel)
        if name == "iopub":
            raise LocalProtocolError(
                "iopub only receives; you may send on shell, control and stdin"
            )
        message = prepare(body, session=self.session, username=self.username)
        while True:
            if self._delivery.left:
                raise anyio.ClosedResourceError
            if self._delivery.died is not None:
                raise self._delivery.error()
            try:
                self._transport.send_nowait(name, message)
                break
            except anyio.WouldBlock:
                await self._wait_writable(name)
        self._sent[name] += 1
        self._turn -= 1
        if not self._turn:
            # Let the others run. The message is out: a cancellation belongs to the next checkpoint.
            self._turn = TURN
            await cancel_shielded_checkpoint()
        return message

    async def _wait_writable(self, channel: ChannelName) -> None:
        with anyio.CancelScope() as scope:
            self._blocked_sends.add(scope)
            try:
                await self._transport.wait_writable(channel)
            finally:
                self._blocked_sends.discard(scope)

    # The life of the channels, which the openers drive.

    async def _run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        """Reads and watches every channel, until the kernel is lost or the block is left."""
        async with unwrapping_task_group() as tasks:
            self._tasks = tasks.cancel_scope
            for channel in self._transport.channels:
                tasks.start_soon(self._watch, channel, name=f"enchannel {channel} watcher")
                tasks.start_soon(self._read, channel, name=f"enchannel {channel} reader")
            # From here on _stop() reaches them; a block may be left before this task runs again.
            task_status.started()

    async def _read(self, channel: ChannelName) -> None:
        transport, delivery = self._transport, self._delivery
        try:
            while True:
                try:
                    messages = transport.receive_nowait(channel)
                except anyio.WouldBlock:
                    pass
                else:
                    if channel == "iopub":
                        # Whatever arrives, be it no message at all: the subscription works.
                        self._iopub_proven.set()
                    await delivery.deliver(channel, messages)
                # Most often the batch was all there was, and another look would find nothing.
                await transport.wait_readable(channel)
        except Exception as error:  # noqa: BLE001
            # Recorded: it is the cause of what every stream raises from here on.
            self._lose(KernelDied(f"{channel} can no longer be read: {error!r}"), error)

    async def _watch(self, channel: ChannelName) -> None:
        try:
            await self._transport.watch(channel)
        except KernelDied as died:
            self._lose(died, died.__cause__)
        except Exception as error:  # noqa: BLE001
            self._lose(KernelDied(f"{channel} can no longer be watched: {error!r}"), error)

    def _lose(self, died: KernelDied, cause: BaseException | None = None) -> None:
        """Ends every stream with `died`, behind all that the kernel managed to send."""
        if self._delivery.ended:
            return
        died.__cause__ = cause
        self._stop()
        for channel in self._transport.channels:
            self._drain(channel)
        self._delivery.end(died)

    def _drain(self, channel: ChannelName) -> None:
        self._delivery.deliver_all(channel, ())
        try:
            while True:
                self._delivery.deliver_all(channel, self._transport.receive_nowait(channel))
        except anyio.WouldBlock:
            pass
        except Exception:  # noqa: BLE001, S110
            # The reader met the same error, and it is what the streams end with.
            pass

    def _leave(self) -> None:
        """Ends every stream, because the block was left."""
        self._stop()
        self._delivery.end()

    def _stop(self) -> None:
        self._tasks.cancel()
        for scope in self._blocked_sends:
            scope.cancel()


def _by_channel(counts: Mapping[ChannelName, int]) -> dict[str, int]:
    return {str(channel): count for channel, count in counts.items()}
