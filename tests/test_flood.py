"""Nothing is lost, whatever its consumer does, and nobody is starved."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import time
import tracemalloc
from typing import Any

import anyio
import pytest
import zmq
from anyio.lowlevel import checkpoint

from enchannel import Message, open_channels, wrap_sockets
from enchannel._core.stream import TURN
from enchannel._protocol.wire import Wire
from enchannel._transports.zmq_carrier import BATCH
from enchannel.testing import open_fake_kernel
from helpers import arrived, numbered, take, texts
from raw_kernel import KEY, RawKernel, message, request

pytestmark = pytest.mark.anyio

MEBIBYTE = 1 << 20


async def test_a_consumer_that_blocks_the_event_loop_gets_all_of_a_flood(
    raw_kernel: RawKernel,
) -> None:
    count = 20_000
    async with raw_kernel.open() as ch:
        # Published by this very thread: nothing of ours can read meanwhile.
        raw_kernel.publish(*numbered(count))
        assert texts(await take(ch.iopub, count)) == list(range(count))


async def test_a_flood_while_the_missing_status_is_looked_for_wakes_its_reader(
    raw_kernel: RawKernel,
) -> None:
    """Whoever looks at a socket for another reason does not take away what its reader waits for."""
    before, after, received = 5_000, 20_000, 0

    async def read(output: Any) -> None:
        nonlocal received
        async for _, msg in output:
            received += msg.msg_type == "stream"

    async def block(at: float) -> None:
        await anyio.sleep_until(at)
        time.sleep(0.4)

    async def flood(at: float, asked: Message) -> None:
        await anyio.sleep_until(at)
        raw_kernel.publish(*numbered(before))
        raw_kernel.publish(message("status", asked, execution_state="idle"))
        raw_kernel.publish(*numbered(after))
        time.sleep(0.5)

    async with (
        raw_kernel.open() as ch,
        ch.subscribe("iopub") as output,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(read, output)
        async with ch.execute("1") as execution:
            identity, asked = await raw_kernel.receive("shell")
            raw_kernel.publish(message("status", asked, execution_state="busy"))
            raw_kernel.send("shell", identity, message("execute_reply", asked, status="ok"))
            while execution.reply is None:
                await anyio.sleep(0.001)
            # Both are over in the same turn: a second without the status, and the wait for the flood.
            now = anyio.current_time()
            tasks.start_soon(block, now + 0.85)
            tasks.start_soon(flood, now + 0.95, asked)
            with anyio.fail_after(30):
                await execution.wait()
        with anyio.fail_after(10):
            while received < before + after:
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()


async def test_what_waits_is_taken_in_batches() -> None:
    wire, count = Wire(KEY), 1_000
    batches: list[int] = []
    with (
        zmq.Context() as context,
        context.socket(zmq.XPUB) as kernel,
        context.socket(zmq.SUB) as sub,
    ):
        kernel.bind("inproc://iopub")
        kernel.set(zmq.SNDHWM, 0)
        sub.set(zmq.RCVHWM, 0)
        sub.subscribe(b"")
        sub.connect("inproc://iopub")
        kernel.recv()
        transport: Any = wrap_sockets({"iopub": sub}, key=KEY)
        receive_nowait = transport.receive_nowait

        def counted(channel: Any) -> list[Message]:
            messages: list[Message] = receive_nowait(channel)
            batches.append(len(messages))
            return messages

        transport.receive_nowait = counted
        async with open_channels(transport) as ch:
            await anyio.wait_all_tasks_blocked()
            # inproc: what is sent is there.
            for each in numbered(count):
                kernel.send_multipart(wire.encode(each, [b"topic"]))
            assert texts(await take(ch.iopub, count)) == list(range(count))
    # The first comes alone, because most often it is.
    assert batches == [1, *[BATCH] * 15, 39]


async def test_a_thousand_cancellations_lose_nothing(raw_kernel: RawKernel) -> None:
    count, cancellations, dice = 10_000, 1_000, random.Random(0)
    got: dict[str, list[int]] = {"iopub": [], "main": []}
    cancelled = 0
    async with raw_kernel.open() as ch, anyio.create_task_group() as tasks:
        scopes: dict[str, anyio.CancelScope] = {}

        async def consume(name: str, stream: Any) -> None:
            while len(got[name]) < count:
                with anyio.CancelScope() as scopes[name]:
                    async for item in stream:
                        got[name] += texts([item[1] if isinstance(item, tuple) else item])
                        if len(got[name]) == count:
                            break

        tasks.start_soon(consume, "iopub", ch.iopub)
        tasks.start_soon(consume, "main", ch.main)
        while ch.statistics().listeners < 2:
            await checkpoint()
        each = count // cancellations
        for step in range(cancellations):
            raw_kernel.publish(*numbered(each, start=step * each))
            for _ in range(dice.randrange(6)):
                await checkpoint()
            for scope in scopes.values():
                scope.cancel()
                cancelled += 1
    assert cancelled == 2 * cancellations
    assert got["iopub"] == got["main"] == list(range(count))


async def test_every_message_is_a_cancellation_point(raw_kernel: RawKernel) -> None:
    async with raw_kernel.open() as ch:
        raw_kernel.publish(*numbered(TURN // 2))
        await arrived(ch, "iopub", TURN // 2)
        got = []
        while len(got) < TURN // 2:
            with anyio.CancelScope() as scope:
                async for msg in ch.iopub:
                    got.append(msg)
                    scope.cancel()
        assert texts(got) == list(range(TURN // 2))


async def test_others_take_their_turns_beside_a_flood(raw_kernel: RawKernel) -> None:
    count = 50 * TURN
    async with raw_kernel.open() as ch, anyio.create_task_group() as tasks:
        raw_kernel.publish(*numbered(count))
        got: list[int] = []
        seen_at_each_turn = [0]

        async def take_turns() -> None:
            while True:
                await checkpoint()
                seen_at_each_turn.append(len(got))

        tasks.start_soon(take_turns)
        async for msg in ch.iopub:
            got += texts([msg])
            if len(got) == count:
                break
        tasks.cancel_scope.cancel()
    assert got == list(range(count))
    between = [after - before for before, after in itertools.pairwise(seen_at_each_turn)]
    assert max(between) <= 3 * TURN


async def test_a_big_buffer_arrives_without_a_copy(raw_kernel: RawKernel) -> None:
    size = 256 * MEBIBYTE
    big = message("display_data")
    frames = raw_kernel.wire.encode(big, [b"topic"])
    data = bytes(size)
    async with raw_kernel.open() as ch:
        tracemalloc.start()
        try:
            raw_kernel.sockets["iopub"].send_multipart([*frames, data], copy=False)
            received = await ch.iopub.receive()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        (view,) = received.buffers
        assert isinstance(view, memoryview)
        assert (view.nbytes, view.readonly) == (size, True)
        assert peak < MEBIBYTE


async def test_a_big_buffer_goes_out_without_a_copy(raw_kernel: RawKernel) -> None:
    data = bytes(256 * MEBIBYTE)
    async with raw_kernel.open() as ch:
        tracemalloc.start()
        try:
            await ch.shell.send({**request(), "buffers": [data]})
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < MEBIBYTE
        _, received = await raw_kernel.receive("shell")
        assert received.buffers == (data,)


async def test_nothing_is_lent_to_a_context_of_the_caller(raw_kernel: RawKernel) -> None:
    # It may end while ZeroMQ still reads, and what it would tell pyzmq then comes too late.
    data = bytes(64 * MEBIBYTE)
    with zmq.Context() as context:
        async with raw_kernel.open(context=context) as ch:
            before = sys.getrefcount(data)
            await ch.shell.send({**request(), "buffers": [data]})
            assert sys.getrefcount(data) == before
            _, received = await raw_kernel.receive("shell")
            assert received.buffers == (data,)


@pytest.mark.parametrize("size", [10, 2 * MEBIBYTE])
@pytest.mark.parametrize(
    "view", [bytearray, memoryview, lambda data: memoryview(data).toreadonly()[::1]]
)
async def test_a_buffer_may_be_changed_once_it_was_sent(
    raw_kernel: RawKernel, size: int, view: Any
) -> None:
    data = bytearray(b"x" * size)
    async with raw_kernel.open() as ch:
        await ch.shell.send({**request(), "buffers": [data if view is bytearray else view(data)]})
        data[:] = b"y" * size
        _, received = await raw_kernel.receive("shell")
        assert received.buffers == (b"x" * size,)


NOT_NEEDED = (
    "asyncio",
    "trio",
    "pytest",
    "click",
    "jupyter_core",
    "subprocess",
    "pathlib",
    "logging",
)


LATER = (
    "enchannel._kernels",
    "enchannel._conversations.comms",
    "enchannel._conversations.sessions",
    "enchannel._protocol.contents",
    "enchannel._protocol.signing",
    "enchannel.operators",
    "enchannel.testing",
)


def test_an_import_brings_what_is_used_and_no_more() -> None:
    code = (
        "import sys, anyio, attrs, msgspec, zmq; before = set(sys.modules)\n"
        "import enchannel; print(*set(sys.modules) - before, sep='\\n')"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    imported = output.stdout.split()
    assert "enchannel._channels" in imported
    assert [name for name in NOT_NEEDED if name in imported] == []
    assert [name for name in imported if name.startswith(LATER)] == []


async def test_a_kernel_that_never_pauses_is_met_again() -> None:
    async with (
        open_fake_kernel() as kernel,
        kernel.open_channels(max_backlog_size=0) as ch,
        anyio.create_task_group() as tasks,
    ):

        async def flood() -> None:
            while True:
                for _ in range(50):
                    kernel.publish("stream", {"name": "stdout", "text": "x"})
                await anyio.lowlevel.checkpoint()

        tasks.start_soon(flood)
        while ch.statistics().received["iopub"] < 5_000:
            await anyio.sleep(0.01)
        (client,) = kernel.clients
        client.cut()
        client.mend()
        with anyio.fail_after(30):
            await ch.request("kernel_info_request")
        tasks.cancel_scope.cancel()
