"""What may be held: a bound holds for every kind of stream, and costs who stays below it nothing."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import anyio
import pytest
import zmq

from enchannel import (
    KernelChannels,
    LocalProtocolError,
    Message,
    messages,
    open_channels,
    wrap_sockets,
)
from enchannel._conversations.sessions import DebugSession, _Block, _Debugger, _Events
from enchannel._core.bound import STALLED
from enchannel._core.stream import Stream
from enchannel.testing import open_fake_kernel
from memory_kernel import Kernel, conversation, start
from raw_kernel import message, request
from virtual_clock import virtual_backend  # noqa: F401

pytestmark = pytest.mark.anyio

FLOOD, SIZE = 300, 10

BOUNDS = [
    {"max_buffer_size": SIZE},
    {"max_buffer_bytes": SIZE * 1000},
    {"max_buffer_size": SIZE, "max_buffer_bytes": SIZE * 1000},
]


def flood(kernel: Kernel, parent: Message, **content: Any) -> None:
    for number in range(FLOOD):
        kernel.say(
            content.get("msg_type", "stream"), parent, number=number, text="x" * 1000, **content
        )


@asynccontextmanager
async def listener(ch: KernelChannels, kernel: Kernel) -> AsyncIterator[Stream[Any]]:
    async with ch.subscribe("iopub") as stream:
        flood(kernel, message("execute_request"))
        yield stream


@asynccontextmanager
async def main_channel(ch: KernelChannels, kernel: Kernel) -> AsyncIterator[Stream[Any]]:
    ch.main.listen()
    flood(kernel, message("execute_request"))
    yield ch.main


@asynccontextmanager
async def execution(ch: KernelChannels, kernel: Kernel) -> AsyncIterator[Stream[Any]]:
    async with ch.execute("1") as execution:
        asked = await kernel.asked()
        flood(kernel, asked[1])
        yield execution._run._stream
        kernel.reply(asked)
        kernel.status(asked[1], "idle")
        await execution.wait()


@asynccontextmanager
async def comm(ch: KernelChannels, kernel: Kernel) -> AsyncIterator[Stream[Any]]:
    async with ch.open_comm("target") as comm:
        _, opening = await kernel.asked()
        for number in range(FLOOD):
            kernel.say(
                "comm_msg", opening, comm_id=comm.comm_id, data={"x": "x" * 1000}, number=number
            )
        yield comm


@asynccontextmanager
async def comms(ch: KernelChannels, kernel: Kernel) -> AsyncIterator[Stream[Any]]:
    parent = ch._core.prepare(request())
    async with ch.accept_comms("mine") as incoming:
        for number in range(FLOOD):
            kernel.say(
                "comm_open",
                parent,
                comm_id=str(number),
                target_name="mine",
                number=number,
                data="x" * 1000,
            )
        yield incoming


@asynccontextmanager
async def debug_events(ch: KernelChannels, kernel: Kernel) -> AsyncIterator[Stream[Any]]:
    events = _Events(ch._core.bound.hold(("iopub",)))
    debugger = _Debugger(ch._conversations)
    session = DebugSession("", debugger, _Block(ch._core, "debug session"), events)
    ch._core.observers.append(events.observe)
    for number in range(FLOOD):
        kernel.say("debug_event", message(""), event="x" * 1000, number=number)
    yield session
    session.close()


STREAMS = [listener, main_channel, execution, comm, comms, debug_events]


def number_of(item: Any) -> int:
    item = item[1] if isinstance(item, tuple) else getattr(item, "opening", item)
    number: int = item.content["number"]
    return number


@pytest.mark.parametrize("bound", BOUNDS, ids=str)
@pytest.mark.parametrize("kind", STREAMS, ids=lambda kind: kind.__name__)
async def test_a_bounded_stream_holds_no_more_and_loses_nothing(kind: Any, bound: Any) -> None:
    async with conversation(**bound) as (ch, kernel, _), kind(ch, kernel) as stream:
        seen = []
        for _ in range(FLOOD):
            await anyio.wait_all_tasks_blocked()
            assert stream.buffered <= SIZE + ("max_buffer_bytes" in bound)
            seen.append(number_of(await stream.receive()))
        assert seen == list(range(FLOOD))
        assert ch.statistics().buffer_dropped == 0


async def test_one_message_passes_a_bound_of_fewer_bytes() -> None:
    async with conversation(max_buffer_bytes=1) as (ch, kernel, _), listener(ch, kernel) as stream:
        assert [number_of(await stream.receive()) for _ in range(FLOOD)] == list(range(FLOOD))


@pytest.mark.parametrize("bound", BOUNDS, ids=str)
async def test_who_only_waits_for_an_execution_has_its_outputs_and_is_told_the_rest(
    bound: Any,
) -> None:
    async with conversation(**bound) as (ch, kernel, tasks), ch.execute("1") as execution:
        waiting = start(tasks, execution.wait)
        asked = await kernel.asked()
        for number in range(FLOOD):
            kernel.say("stream", asked[1], name="stdout", text=f"{number:1000}")
        kernel.reply(asked)
        kernel.status(asked[1], "idle")
        await waiting.result()
        assert len(execution.outputs[0]["text"]) == 1000 * FLOOD
        iterated = [each async for each in execution]
        assert len(iterated) <= bound.get("max_buffer_size", math.inf)
        assert sum(each.size for each in iterated[:-1]) < bound.get("max_buffer_bytes", math.inf)
        assert iterated[-1].content == {"execution_state": "idle"}
        assert execution.dropped == FLOOD + 1 - len(iterated)
        assert ch.statistics().buffer_dropped == 0


async def gives_way_at_once(ch: KernelChannels, kernel: Kernel, stream: Stream[Any]) -> None:
    """A full `stream` whose reader waits for an execution."""
    async with ch.execute("1") as execution:
        asked = await kernel.asked()
        kernel.reply(asked)
        kernel.status(asked[1], "idle")
        # At once, and not behind any time.
        began = anyio.current_time()
        await execution.wait()
        assert anyio.current_time() - began < 0.1
    assert [number_of(await stream.receive()) for _ in range(SIZE)][-1] == FLOOD - 1
    assert ch.statistics().buffer_dropped == FLOOD - SIZE


async def test_a_comm_that_its_reader_cannot_read_gives_way(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with conversation(max_buffer_size=SIZE) as (ch, kernel, _), comm(ch, kernel) as stream:
        await gives_way_at_once(ch, kernel, stream)
    assert caplog.text.count("dropped its oldest messages") == 1


async def test_a_comm_that_the_kernel_opened_gives_way_at_once_as_well() -> None:
    async with conversation(max_buffer_size=SIZE) as (ch, kernel, _):
        parent = ch._core.prepare(request())
        async with ch.accept_comms("mine") as incoming:
            kernel.say("comm_open", parent, comm_id="1", target_name="mine")
            for number in range(FLOOD):
                kernel.say("comm_msg", message(""), comm_id="1", number=number)
            stream = await incoming.receive()
            await gives_way_at_once(ch, kernel, stream)


async def test_a_comm_that_its_target_gave_up_is_closed_and_holds_up_nobody() -> None:
    async with conversation(max_buffer_size=2) as (ch, kernel, _):
        async with ch.accept_comms("mine") as incoming:
            async with ch.execute("1") as execution:
                asked = await kernel.asked()
                for comm_id in "0123":
                    kernel.say("comm_open", asked[1], comm_id=comm_id, target_name="mine")
                for number in range(8):
                    kernel.say("comm_msg", asked[1], comm_id=str(number // 2), number=number)
                kernel.reply(asked)
                kernel.status(asked[1], "idle")
                await execution.wait()
            closed = [(await kernel.asked())[1].content["comm_id"] for _ in "01"]
            assert closed == ["0", "1"]
            assert ch.statistics().buffer_dropped == 2
            for number in (4, 6):
                comm = await incoming.receive()
                got = [number_of(await comm.receive()), number_of(await comm.receive())]
                assert got == [number, number + 1]
            async with ch.subscribe("iopub") as listener:
                flood(kernel, message("execute_request"))
                with anyio.fail_after(1):
                    for _ in range(FLOOD):
                        await listener.receive()


async def test_a_slow_reader_holds_up_others_and_loses_nothing() -> None:
    async with conversation(max_buffer_size=SIZE) as (ch, kernel, tasks):
        seen = []

        async def read_slowly() -> None:
            async for each in ch.iopub:
                seen.append(each.content.get("number"))
                await anyio.sleep(3)

        tasks.start_soon(read_slowly)
        await anyio.wait_all_tasks_blocked()
        flood(kernel, message("execute_request"))
        async with ch.execute("1") as execution:
            asked = await kernel.asked()
            kernel.reply(asked)
            kernel.status(asked[1], "idle")
            await execution.wait()
            assert len(seen) > FLOOD - 2 * SIZE
        await anyio.sleep(100)
        assert seen == [*range(FLOOD), None]


async def test_where_nobody_waits_for_an_answer_any_more_a_slow_reader_loses_nothing() -> None:
    """Though the block of what was answered is open, which keeps its outputs up to date."""
    async with open_fake_kernel() as kernel, kernel.open_channels(max_buffer_size=5) as ch:
        async with ch.execute("1") as execution, ch.subscribe("iopub") as stream:
            await execution.wait()
            for number in range(20):
                kernel.publish("stream", {"name": "stdout", "text": str(number)})
            seen = []
            while len(seen) < 20:
                with anyio.fail_after(60):
                    _, msg = await stream.receive()
                if msg.msg_type == "stream":
                    seen.append(int(msg.content["text"]))
                    await anyio.sleep(STALLED + 3)
            assert seen == list(range(20))
        assert ch.statistics().buffer_dropped == 0


async def test_a_reply_needs_no_room_on_iopub() -> None:
    """Its reader waits for something on shell, which another stream of its own does not hold up."""
    async with (
        conversation(max_buffer_size=SIZE) as (ch, kernel, tasks),
        listener(ch, kernel) as stream,
    ):
        waiting = start(tasks, ch.request, "is_complete_request", {"code": ""})
        asked = await kernel.asked()
        kernel.reply(asked)
        await waiting.result()
        await ch.shell.send(request())
        kernel.reply(await kernel.asked())
        assert (await ch.shell.receive()).content["status"] == "ok"
        assert [number_of(await stream.receive()) for _ in range(FLOOD)] == list(range(FLOOD))


async def test_who_reads_is_who_took_last() -> None:
    """And not who entered the execution, which may wait for its end meanwhile."""
    async with (
        conversation(max_buffer_size=SIZE) as (ch, kernel, tasks),
        ch.execute("1") as execution,
    ):
        seen = []

        async def read_slowly() -> None:
            async for each in execution:
                seen.append(each.content.get("number"))
                await anyio.sleep(0.1)

        asked = await kernel.asked()
        kernel.say("stream", asked[1], number=-1)
        tasks.start_soon(read_slowly)
        while not seen:
            await anyio.sleep(0.01)
        flood(kernel, asked[1])
        kernel.reply(asked)
        kernel.status(asked[1], "idle")
        await execution.wait()
        while seen[-1] is not None:
            await anyio.sleep(1)
        assert seen == [*range(-1, FLOOD), None]
        assert execution.dropped == 0


async def test_a_stream_that_is_not_full_loses_nothing() -> None:
    async with (
        conversation(max_buffer_size=SIZE) as (ch, kernel, _),
        ch.subscribe("iopub") as first,
        ch.subscribe("iopub") as second,
    ):
        for number in range(5):
            kernel.say("stream", message(""), number=number)
        assert [number_of(await first.receive()) for _ in range(5)] == list(range(5))
        for number in range(5, 20):
            kernel.say("stream", message(""), number=number)
        assert [number_of(await first.receive()) for _ in range(5)] == list(range(5, 10))
        assert [number_of(await second.receive()) for _ in range(20)] == list(range(20))
        assert ch.statistics().buffer_dropped == 0


async def test_a_prompt_passes_a_full_stream_of_who_waits_at_once() -> None:
    async with conversation(max_buffer_size=1) as (ch, kernel, tasks):
        ch.main.listen()
        async with ch.execute("input()", on_input=lambda *_: "x") as execution:
            asked = await kernel.asked()
            kernel.status(asked[1], "busy")
            kernel.ask(asked, prompt="")
            kernel.ask(asked, prompt="")

            async def answer() -> None:
                with anyio.fail_after(100):
                    await kernel.end.receive("stdin")
                kernel.reply(asked)
                kernel.status(asked[1], "idle")

            tasks.start_soon(answer)
            began = anyio.current_time()
            await execution.wait()
            assert anyio.current_time() - began < 1


async def test_who_cannot_listen_holds_nothing() -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as iopub:
        iopub.connect("inproc://nobody")
        async with open_channels(wrap_sockets({"iopub": iopub}), max_buffer_size=SIZE) as ch:
            for _ in range(3):
                with pytest.raises(LocalProtocolError, match="there is no shell channel here"):
                    await ch.shell.receive()
            assert not ch._core.bound._held


# The backlog.


@pytest.mark.parametrize(
    ("bound", "kept"),
    [
        ({"max_backlog_size": 10}, 10),
        ({"max_backlog_size": 0}, 0),
        ({"max_backlog_bytes": 10_000}, 10),
        ({"max_buffer_size": 10}, 10),
        ({"max_buffer_bytes": 10_000}, 10),
    ],
    ids=str,
)
async def test_what_nobody_listens_for_is_bounded(bound: Any, kept: int) -> None:
    async with conversation(**bound) as (ch, kernel, _):
        asked = await ch.shell.send(request())
        kernel.reply(await kernel.asked())
        flood(kernel, asked)
        while ch.statistics().received["iopub"] < FLOOD:
            await anyio.sleep(0.01)
        backlog = ch.statistics().backlog
        # The reply is not taken away by what comes on iopub.
        assert backlog["shell"] == min(1, kept)
        assert kept - 3 <= sum(backlog.values()) <= kept
        assert ch.statistics().backlog_dropped == FLOOD + 1 - sum(backlog.values())


async def test_what_a_comm_has_delivered_does_not_wait_for_a_listener_as_well() -> None:
    async with conversation() as (ch, kernel, _), comm(ch, kernel) as stream:
        for _ in range(FLOOD):
            await stream.receive()
        kernel.say("comm_close", message(""), comm_id=stream.comm_id)  # type: ignore[attr-defined]
        kernel.say("comm_msg", message(""), comm_id="another's")
        while not ch.statistics().backlog["iopub"]:
            await anyio.sleep(0.01)
        assert ch.statistics().backlog["iopub"] == 1


@pytest.mark.parametrize("name", ["max_buffer_size", "max_buffer_bytes"])
@pytest.mark.parametrize("value", [0, -1, True, math.nan, "1", None])
async def test_a_bound_that_is_none_is_refused(name: str, value: Any) -> None:
    opening: AbstractAsyncContextManager[Any]
    async with open_fake_kernel() as kernel:
        with pytest.raises(ValueError, match=f"{name} is a number of .*, 1 or more"):
            opening = kernel.open_channels(**{name: value})
            async with opening:
                pass


async def test_a_program_below_its_bound_loses_nothing_and_waits_for_nobody() -> None:
    async with (
        open_fake_kernel() as kernel,
        kernel.open_channels(max_buffer_size=SIZE, max_buffer_bytes=10_000) as ch,
        ch.subscribe("iopub") as stream,
    ):
        for number in range(50):
            await ch.request(messages.complete_request(str(number), 0))
            async with ch.execute("1") as execution:
                await execution.wait()
            while stream.buffered:
                await stream.receive()
            assert execution.dropped == 0
        assert ch.statistics().buffer_dropped == 0
