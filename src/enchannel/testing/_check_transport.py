"""What every transport must keep, as a suite that any transport can run."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import anyio

from .._exceptions import LocalProtocolError
from .._groups import unwrapping_task_group
from .._protocol.arguments import check_seconds
from .._protocol.connection_info import ChannelName
from .._protocol.message import Message
from .._transports.base import ConnectionEvent, Transport
from ._ends import KernelEnd

__all__ = ["check_transport"]

Make: TypeAlias = "Callable[[], AbstractAsyncContextManager[tuple[Transport, KernelEnd]]]"

Events: TypeAlias = "list[tuple[ConnectionEvent, Sequence[ChannelName], str]]"
"""What the transport has told of its connection."""

LOSSES = (ConnectionEvent.DISCONNECTED, ConnectionEvent.GONE)

MOST = 200
"""Messages that one call may take, so that others get their turn."""


async def check_transport(make: Make, *, patience: float = 30.0) -> None:
    """Checks that a transport keeps the rules of :class:`enchannel.Transport`.

    Each check gets a fresh pair of ends. Cancelled, it leaves them.

    Args:
        make: Makes an async context manager of the transport under test and of the
            :class:`KernelEnd` that it is connected to.
        patience: Seconds that each check may take.

    Raises:
        AssertionError: It breaks a rule; the traceback names the check.
        TimeoutError: Something did not end that must.
        LocalProtocolError: `patience` is no time that a check may take.

    Example:
        .. code-block:: python

            from contextlib import asynccontextmanager

            @asynccontextmanager
            async def make():
                yield memory_transport_pair(b"key")

            await check_transport(make)
    """
    check_seconds("patience", patience)
    checks: Sequence[Callable[[Transport, KernelEnd, Events], Awaitable[None]]] = (
        check_sending,
        check_receiving,
        check_waiting,
        check_bad_arrivals,
        check_bad_messages,
        check_buffers,
        check_loss,
    )
    for check in checks:
        with anyio.fail_after(patience):
            async with make() as (transport, end), _followed(transport) as events:
                await check(transport, end, events)
    for check_end in (check_abandoning, check_closing):
        with anyio.fail_after(patience):
            async with make() as (transport, _):
                await check_end(transport)


@asynccontextmanager
async def _followed(transport: Transport) -> AsyncIterator[Events]:
    """Connects, and follows the connection while a check runs, as the core does."""
    events: Events = []

    def tell(event: ConnectionEvent, channels: Sequence[ChannelName], said: str) -> None:
        events.append((event, channels, said))

    async with unwrapping_task_group() as tasks:
        transport.begin()
        transport.follow(tell, tasks.start_soon)
        while transport.unconnected():  # noqa: ASYNC110
            await anyio.sleep(0.001)
        yield events
        tasks.cancel_scope.cancel()


def _message(number: int, **parts: Any) -> Message:
    header = {"msg_id": str(uuid.uuid4()), "msg_type": "check"}
    return Message(header, {"msg_id": "parent"}, {"m": 1}, {"number": number}, **parts)


def _senders(transport: Transport) -> list[ChannelName]:
    return [channel for channel in transport.channels if channel != "iopub"]


async def _send(transport: Transport, channel: ChannelName, message: Message) -> None:
    while True:
        try:
            return transport.send_nowait(channel, message)
        except anyio.WouldBlock:
            await transport.wait_writable(channel)


async def _receive(transport: Transport, channel: ChannelName, count: int) -> list[Message]:
    received: list[Message] = []
    while len(received) < count:
        try:
            batch = transport.receive_nowait(channel)
        except anyio.WouldBlock:
            await transport.wait_readable(channel)
        else:
            assert len(batch) <= MOST, f"{channel} gives too many at a time"
            received += batch
    return received


async def check_sending(transport: Transport, end: KernelEnd, events: Events) -> None:
    """What is sent arrives at the kernel whole and in order, under one identity."""
    identities = set()
    for channel in _senders(transport):
        sent = [_message(number) for number in range(200)]
        for each in sent:
            await _send(transport, channel, each)
        for each in sent:
            identity, received = await end.receive(channel)
            identities.add(identity)
            assert received == each, f"{channel} changed or reordered what was sent"
    assert len(identities) == 1, "shell, control and stdin must have one identity"


async def _identity(transport: Transport, end: KernelEnd) -> bytes:
    await _send(transport, "shell", _message(0))
    identity, _ = await end.receive("shell")
    return identity


async def _subscribed(transport: Transport, end: KernelEnd) -> None:
    """Publishes until something arrives, and takes what came of it."""
    while True:
        end.publish(_message(-1))
        with anyio.move_on_after(0.05):
            await _receive(transport, "iopub", 1)
            break
    last = _message(-2)
    end.publish(last)
    while last not in await _receive(transport, "iopub", 1):
        pass


async def check_receiving(transport: Transport, end: KernelEnd, events: Events) -> None:
    """What the kernel sends arrives whole, once and in order, in batches."""
    identity = await _identity(transport, end)
    await _subscribed(transport, end)
    for channel in transport.channels:
        sent = [_message(number) for number in range(1000)]
        for each in sent:
            if channel == "iopub":
                end.publish(each, b"some.topic")
            else:
                end.send(channel, identity, each)
        assert await _receive(transport, channel, len(sent)) == sent, f"{channel} lost order"
        try:
            extra = transport.receive_nowait(channel)
        except anyio.WouldBlock:
            extra = []
        assert extra == [], f"{channel} delivers twice"


async def check_waiting(transport: Transport, end: KernelEnd, events: Events) -> None:
    """A wait ends when something arrives, also behind sends; a cancelled one loses nothing."""
    identity = await _identity(transport, end)
    for number in range(50):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await transport.wait_readable("shell")
        sent = _message(number)

        async def answer(message: Message = sent) -> None:
            await _send(transport, "shell", _message(0))
            end.send("shell", identity, message)
            await _send(transport, "shell", _message(0))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            assert await _receive(transport, "shell", 1) == [sent], "a wait lost a message"


async def check_bad_arrivals(transport: Transport, end: KernelEnd, events: Events) -> None:
    """What is no message is dropped and counted, and costs no good one."""
    identity = await _identity(transport, end)
    good = [_message(number) for number in range(10)]
    for each in good:
        end.give("shell", [identity, b"no delimiter"])
        end.send("shell", identity, each)
    assert await _receive(transport, "shell", 10) == good, "a bad message cost a good one"
    assert sum(transport.dropped().values()) == 10, "bad messages are not counted"


async def check_bad_messages(transport: Transport, end: KernelEnd, events: Events) -> None:
    """What cannot be encoded is refused at the call, and nothing of it is sent."""
    for bad in (object(), float("nan"), {1, 2}):
        try:
            transport.send_nowait("shell", Message({"msg_type": "x"}, {}, {}, {"value": bad}))
        except LocalProtocolError:
            continue
        raise AssertionError(f"{bad!r} was sent")
    good = _message(0)
    await _send(transport, "shell", good)
    assert (await end.receive("shell"))[1] == good, "something of a refused message was sent"


async def check_buffers(transport: Transport, end: KernelEnd, events: Events) -> None:
    """Buffers cross byte for byte, empty and large ones too."""
    buffers = (b"", b"\0\1\2", bytearray(b"x" * 300_000), memoryview(b"a-b-c")[::2])
    expected = [bytes(buffer) for buffer in buffers]
    await _send(transport, "shell", _message(0, buffers=buffers))
    identity, arrived = await end.receive("shell")
    assert list(map(bytes, arrived.buffers)) == expected, "buffers changed on their way out"
    end.send("shell", identity, _message(1, buffers=buffers))
    (received,) = await _receive(transport, "shell", 1)
    assert list(map(bytes, received.buffers)) == expected, "buffers changed on their way in"


async def check_loss(transport: Transport, end: KernelEnd, events: Events) -> None:
    """The loss is noticed, and what arrived before it stays readable."""
    identity = await _identity(transport, end)
    sent = [_message(number) for number in range(10)]
    for each in sent:
        end.send("shell", identity, each)
    await transport.wait_readable("shell")
    end.vanish("gone")
    while not _is_lost(transport, events):  # noqa: ASYNC110
        await anyio.sleep(0.001)
    assert all(said for _, _, said in events), "an event must say what was seen"
    transport.abandon()
    assert await _receive(transport, "shell", 10) == sent, "last words were lost"


def _is_lost(transport: Transport, events: Events) -> bool:
    told = {channel for event, channels, _ in events if event in LOSSES for channel in channels}
    return set(transport.followed) <= told & set(transport.unconnected())


async def check_abandoning(transport: Transport) -> None:
    """Nobody waits for an abandoned transport, and nobody follows it."""
    abandoned = False

    async def read(channel: ChannelName) -> None:
        while not abandoned:
            await transport.wait_readable(channel)

    transport.begin()
    async with unwrapping_task_group() as tasks:
        transport.follow(lambda *_: None, tasks.start_soon)
        for channel in transport.channels:
            tasks.start_soon(read, channel)
        while transport.unconnected():  # noqa: ASYNC110
            await anyio.sleep(0.001)
        await anyio.wait_all_tasks_blocked()
        abandoned = True
        transport.abandon()


async def check_closing(transport: Transport) -> None:
    """Closing is quick, and closing again does no harm."""
    await transport.aclose()
    await transport.aclose()
