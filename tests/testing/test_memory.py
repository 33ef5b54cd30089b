"""Channels in memory: deterministic, with faults on command, on the clock of the event loop."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
import trio
import trio.testing

from enchannel import LocalProtocolError, Message, open_channels
from enchannel.testing import (
    FakeKernel,
    Pipe,
    memory_transport_pair,
    open_fake_kernel,
    pause,
    stream,
)


def message(number: int) -> Message:
    return Message({"msg_id": str(number), "msg_type": "stream"}, {}, {}, {"number": number})


def numbers(messages: list[Message]) -> list[int]:
    return [each.content["number"] for each in messages]


@pytest.mark.parametrize("count", [-1, 1.5, "x", True, None])
def test_messages_are_lost_by_number(count: Any) -> None:
    for fault in (Pipe().drop, Pipe().duplicate):
        with pytest.raises(LocalProtocolError, match="count is a number of messages, 0 or more"):
            fault(count)


@pytest.mark.anyio
async def test_a_pair_carries_messages_both_ways_as_copies() -> None:
    transport, end = memory_transport_pair("key")
    async with open_channels(transport) as ch:
        sent = await ch.shell.send({"header": {"msg_type": "x"}, "content": {"list": [1]}})
        identity, received = await end.receive("shell")
        assert received == sent
        assert received.content["list"] is not sent.content["list"]
        end.send("shell", identity, message(1))
        end.publish(message(2))
        assert numbers([await ch.shell.receive(), await ch.iopub.receive()]) == [1, 2]


@pytest.mark.anyio
async def test_messages_are_dropped_and_duplicated_on_command() -> None:
    transport, end = memory_transport_pair()
    async with open_channels(transport) as ch:
        pipe = transport.inbound["iopub"]
        pipe.drop(2)
        pipe.duplicate()
        for number in range(4):
            end.publish(message(number))
        assert numbers([await ch.iopub.receive() for _ in range(3)]) == [2, 2, 3]


@pytest.mark.anyio
async def test_a_stall_holds_everything_back_until_it_is_resumed() -> None:
    transport, end = memory_transport_pair()
    async with open_channels(transport) as ch:
        transport.inbound["iopub"].stall()
        end.publish(message(0))
        await anyio.wait_all_tasks_blocked()
        assert ch.statistics().received["iopub"] == 0
        transport.inbound["iopub"].resume()
        assert numbers([await ch.iopub.receive()]) == [0]


@pytest.mark.anyio
async def test_a_shorter_delay_overtakes_nothing() -> None:
    transport, end = memory_transport_pair()
    async with open_channels(transport) as ch:
        transport.inbound["iopub"].delay = 0.02
        end.publish(message(0))
        transport.inbound["iopub"].delay = 0
        end.publish(message(1))
        assert numbers([await ch.iopub.receive(), await ch.iopub.receive()]) == [0, 1]


def test_delays_take_no_real_time_on_a_virtual_clock() -> None:
    async def main() -> None:
        async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
            start = trio.current_time()
            kernel.clients[0].inbound["iopub"].delay = 100
            kernel.script("go", pause(1000), stream("late"))
            await ch.shell.send({"msg_type": "execute_request", "content": {"code": "go"}})
            async for msg in ch.iopub:
                if msg.msg_type == "stream":
                    break
            assert trio.current_time() - start == 1100
            # A thousand seconds of silence are as quick.
            with trio.move_on_after(1000) as scope:
                await ch.stdin.receive()
            assert scope.cancelled_caught

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.anyio
async def test_the_transcript_is_asserted_and_shows_the_conversation(
    fake_kernel: FakeKernel,
) -> None:
    async with fake_kernel.open_channels() as ch:
        await ch.shell.send({"msg_type": "kernel_info_request"})
        with anyio.fail_after(30):
            await fake_kernel.transcript.wait_for("< iopub status idle")
    transcript = fake_kernel.transcript
    transcript.assert_has("> shell kernel_info_request", "< shell kernel_info_reply")
    with pytest.raises(
        AssertionError, match="no '> shell kernel_info_request' after '< shell"
    ) as e:
        transcript.assert_has("< shell kernel_info_reply", "> shell kernel_info_request")
    for line in transcript.lines:
        assert line in str(e.value)
    with pytest.raises(AssertionError, match="and not"):
        transcript.assert_is("> shell kernel_info_request")
