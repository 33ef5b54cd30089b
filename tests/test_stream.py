"""The one kind of stream, without channels: nothing is lost, one task at a time, and how it ends."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint

from enchannel import KernelDied
from enchannel._core.stream import TURN, Feed, Stream, fresh

pytestmark = pytest.mark.anyio

asyncio_only = pytest.mark.parametrize("anyio_backend", ["asyncio"])


class Fed(Stream[int]):
    """A stream, and the verbs of its other end."""

    def __init__(self) -> None:
        feed = Feed[int]()
        super().__init__(feed)
        self.put, self.end = feed.put, feed.end


@pytest.fixture
async def stream(anyio_backend: object) -> AsyncIterator[Fed]:
    async with Fed() as stream:
        yield stream


async def held(stream: Fed) -> list[int]:
    """What the stream holds."""
    return [await stream.receive() for _ in range(stream.buffered)]


async def receive_all(stream: Fed, got: list[int]) -> None:
    while True:
        got.append(await stream.receive())


async def test_batches_are_unrolled_in_order(stream: Fed) -> None:
    got = list[int]()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive_all, stream, got)
        for start in range(0, 100, 10):
            stream.put(range(start, start + 10))
            if start % 20:
                await anyio.wait_all_tasks_blocked()
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert got == list(range(100))
    assert stream.buffered == 0


async def test_what_is_held_is_counted_message_by_message(stream: Fed) -> None:
    for batch in ([0, 1, 2], [], [3], [4, 5]):
        stream.put(batch)
    assert stream.buffered == 6
    assert await stream.receive() == 0
    assert stream.buffered == 5
    stream.end()
    assert stream.buffered == 5


# Cancellation.


async def test_a_receive_that_is_cancelled_takes_nothing(stream: Fed) -> None:
    stream.put(range(3 * TURN))
    for number in range(3 * TURN):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await stream.receive()
        assert scope.cancelled_caught
        assert await stream.receive() == number
    with anyio.CancelScope() as scope:
        scope.cancel()
        await stream.receive()
    assert scope.cancelled_caught


@pytest.mark.parametrize("put_first", [True, False])
async def test_a_cancellation_in_the_turn_of_a_batch_loses_nothing(
    stream: Fed, put_first: bool
) -> None:
    got = list[int]()
    for number in range(50):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive_all, stream, got)
            await anyio.wait_all_tasks_blocked()
            if put_first:
                stream.put([2 * number, 2 * number + 1])
            tasks.cancel_scope.cancel()
            if not put_first:
                stream.put([2 * number, 2 * number + 1])
        got += await held(stream)
    assert got == list(range(100))


@asyncio_only
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("put_first", [True, False])
async def test_a_native_cancellation_in_the_turn_of_a_batch_loses_nothing(
    stream: Fed, put_first: bool, turns: int
) -> None:
    got = list[int]()
    for number in range(50):
        task = asyncio.ensure_future(receive_all(stream, got))
        await anyio.wait_all_tasks_blocked()
        first, second = (stream.put, task.cancel) if put_first else (task.cancel, stream.put)
        for step in (first, second):
            step(*[[2 * number, 2 * number + 1]] if step == stream.put else [])
            if step is first:
                for _ in range(turns):
                    await cancel_shielded_checkpoint()
        with pytest.raises(asyncio.CancelledError):
            await task
        got += await held(stream)
    assert got == list(range(100))


async def waited_for(stream: Fed, seconds: float) -> int:
    return await asyncio.wait_for(stream.receive(), seconds)


async def timed_out(stream: Fed, seconds: float) -> int:
    async with asyncio.timeout(seconds):
        return await stream.receive()


@asyncio_only
@pytest.mark.parametrize("receive", [waited_for, timed_out])
async def test_a_native_timeout_loses_nothing(stream: Fed, receive: Callable[..., Any]) -> None:
    got, count, dice = list[int](), 1000, random.Random(0)
    late = 0

    async def put() -> None:
        for number in range(count):
            stream.put([number])
            await asyncio.sleep(dice.choice([0, 0.0001, 0.0002]))

    task = asyncio.ensure_future(put())
    while len(got) < count:
        try:
            got.append(await receive(stream, dice.choice([0, 0.00005, 0.0001])))
        except TimeoutError:
            late += 1
    await task
    assert got == list(range(count))
    assert late > count // 10


# One task at a time.


async def test_another_task_is_told_that_it_is_busy(stream: Fed) -> None:
    got = list[int]()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive_all, stream, got)
        await anyio.wait_all_tasks_blocked()
        for receive in (stream.receive, stream.__anext__):
            with pytest.raises(anyio.BusyResourceError, match="receiving from"):
                await receive()
            # Also where something is there by now.
            stream.put([len(got)])
            with pytest.raises(anyio.BusyResourceError, match="receiving from"):
                await receive()
            await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert got == [0, 1]
    stream.put([2])
    assert await stream.receive() == 2


async def test_a_busy_stream_gives_the_others_their_turn(stream: Fed) -> None:
    turns, between = 0, list[int]()
    stream.put(range(10 * TURN))

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await checkpoint()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take_turns)
        await checkpoint()
        before, without = turns, 0
        for _ in range(10 * TURN):
            await stream.receive()
            without = without + 1 if turns == before else 0
            before = turns
            between.append(without)
        tasks.cancel_scope.cancel()
    # Trio runs the tasks of one turn in any order.
    assert max(between) <= 2 * TURN
    # And no more than that: it is paid for once in so many.
    assert turns <= 10 * 3


# How it ends.

ENDS: list[tuple[dict[str, Any], type[Exception], type[Exception]]] = [
    ({}, anyio.EndOfStream, anyio.EndOfStream),
    ({"left": True}, anyio.EndOfStream, anyio.ClosedResourceError),
    ({"failure": KernelDied("gone")}, KernelDied, KernelDied),
    ({"failure": KernelDied("gone"), "left": True}, KernelDied, anyio.ClosedResourceError),
]


@pytest.mark.parametrize("waiting", [True, False])
@pytest.mark.parametrize(("how", "first", "then"), ENDS)
async def test_what_it_holds_comes_before_its_end(
    stream: Fed,
    waiting: bool,
    how: dict[str, Any],
    first: type[Exception],
    then: type[Exception],
) -> None:
    got, raised = list[int](), list[Exception]()

    async def receive() -> None:
        try:
            await receive_all(stream, got)
        except Exception as error:
            raised.append(error)

    async with anyio.create_task_group() as tasks:
        if waiting:
            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
        stream.put([0, 1])
        stream.put([2])
        stream.end(**how)
        stream.put([3])
        if not waiting:
            tasks.start_soon(receive)
    assert got == [0, 1, 2]
    assert type(raised[0]) is first
    for _ in range(2):
        with pytest.raises(then):
            await stream.receive()


@pytest.mark.parametrize("how", ["end", "close"])
async def test_to_end_takes_as_long_as_what_is_held(how: str) -> None:
    def seconds(batches: int) -> float:
        stream = Fed()
        for _ in range(batches):
            stream.put(range(64))
        began = time.process_time()
        getattr(stream, how)()
        took = time.process_time() - began
        stream.close()
        return took

    # Sixteen times as long; where each batch copied what is held, it was 256 times.
    few, many = (min(seconds(batches) for _ in range(5)) for batches in (100, 1_600))
    assert many < 80 * few


async def test_iteration_ends_where_nothing_went_wrong(stream: Fed) -> None:
    stream.put([0, 1])
    stream.end(left=True)
    assert [number async for number in stream] == [0, 1]
    with pytest.raises(anyio.ClosedResourceError):
        await stream.__anext__()


async def test_the_first_failure_counts_and_each_waiter_has_its_own(stream: Fed) -> None:
    died, cause = KernelDied("first", "exited"), OSError("cause")
    died.__cause__ = cause
    stream.end(died)
    stream.end(KernelDied("second"))
    raised = []
    for _ in range(2):
        with pytest.raises(KernelDied, match="first") as caught:
            await stream.receive()
        raised.append(caught.value)
    assert raised[0] is not raised[1]
    for error in raised:
        assert error is not died
        assert (error.reason, error.__cause__) == ("exited", cause)


def test_a_fresh_error_has_no_traceback_of_another() -> None:
    with pytest.raises(KernelDied) as caught:
        raise KernelDied("gone", "exited") from OSError("cause")
    another = fresh(caught.value)
    assert (another.args, another.reason) == (("gone",), "exited")
    assert isinstance(another.__cause__, OSError)
    assert (another.__traceback__, another.__context__) == (None, None)


async def test_closing_drops_what_is_held_and_wakes_who_waits(stream: Fed) -> None:
    async with anyio.create_task_group() as tasks:

        async def receive() -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await stream.receive()

        tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        stream.put([0])
        await stream.aclose()
    assert (stream.closed, stream.buffered) == (True, 0)
    stream.put([1])
    assert stream.buffered == 0
    with pytest.raises(anyio.ClosedResourceError):
        await stream.receive()
    await stream.aclose()


async def test_closing_is_never_cancelled(stream: Fed) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await stream.aclose()
    assert not scope.cancelled_caught
    assert stream.closed
