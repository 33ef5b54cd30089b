"""The channels over real sockets, with the kernel's side in the test's hands."""

from __future__ import annotations

import itertools
import math
import time
import uuid
from typing import Any

import anyio
import anyio.abc
import attrs
import pytest

from enchannel import (
    KernelDied,
    LocalProtocolError,
    Message,
    open_channels,
    open_control_channel,
    open_iopub_channel,
    open_kernel_channels,
    open_shell_channel,
    open_stdin_channel,
    wrap_sockets,
)
from enchannel._core.core import Core
from enchannel._open_channels import open_some_channels
from enchannel._protocol.connection_info import CHANNELS
from enchannel._transports.zmq_carrier import BATCH
from helpers import numbered, take, texts
from memory_kernel import start
from raw_kernel import KEY, RawKernel, message, request

pytestmark = pytest.mark.anyio


# Sending.


async def test_a_message_is_sent_whole_and_returned(raw_kernel: RawKernel) -> None:
    async with raw_kernel.open(b"me", session="ours", username="us") as ch:
        sent = await ch.main.send("shell", request(code="1", allow_stdin=False))
        identity, received = await raw_kernel.receive("shell")
    assert identity == b"me"
    assert received == sent
    assert received.content == {"code": "1", "allow_stdin": False}
    assert (received.session, received.header["username"]) == ("ours", "us")


@pytest.mark.parametrize("channel", ["shell", "control", "stdin"])
async def test_each_channel_sends_to_its_own_socket(raw_kernel: RawKernel, channel: str) -> None:
    async with raw_kernel.open(b"me") as ch:
        one = await ch.main.send(channel, request())
        two = await getattr(ch, channel).send(request())
        assert await raw_kernel.receive(channel) == (b"me", one)
        assert await raw_kernel.receive(channel) == (b"me", two)
        assert ch.statistics().sent == {
            name: 2 * (name == channel) for name in ("shell", "control", "stdin", "iopub")
        }


IDENTITY = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("identity", "routing_id"),
    [(b"\x01\xff", b"\x01\xff"), ("mé", "mé".encode()), (IDENTITY, str(IDENTITY).encode())],
)
async def test_the_identity_is_kept_on_the_sockets(
    raw_kernel: RawKernel, identity: Any, routing_id: bytes
) -> None:
    async with raw_kernel.open(identity) as ch:
        for channel in ("shell", "control", "stdin"):
            await ch.main.send(channel, request())
            assert (await raw_kernel.receive(channel))[0] == routing_id


async def test_without_an_identity_each_client_has_its_own(raw_kernel: RawKernel) -> None:
    async with raw_kernel.open() as one, raw_kernel.open() as two:
        identities = set()
        for ch in (one, two):
            for channel in ("shell", "stdin"):
                await ch.main.send(channel, request())
                identities.add((await raw_kernel.receive(channel))[0])
        assert len(identities) == 2


async def test_a_send_does_not_put_the_reader_to_sleep(raw_kernel: RawKernel) -> None:
    # The descriptor is edge-triggered, and a send may eat the edge of a reply that comes meanwhile.
    async with raw_kernel.open() as ch, anyio.create_task_group() as tasks:

        async def echo() -> None:
            while True:
                identity, received = await raw_kernel.receive("shell")
                raw_kernel.send("shell", identity, message("reply", received))

        tasks.start_soon(echo)
        with anyio.fail_after(30):
            for _ in range(300):
                sent = [await ch.shell.send(request()) for _ in range(3)]
                replies = await take(ch.shell, 3)
                assert [reply.parent_id for reply in replies] == [each.msg_id for each in sent]
        tasks.cancel_scope.cancel()


# Receiving.


async def test_sockets_are_multiplexed_in_order_with_their_channel(raw_kernel: RawKernel) -> None:
    async with raw_kernel.open(b"me") as ch:
        for channel in ("shell", "control", "stdin"):
            await ch.main.send(channel, request())
            await raw_kernel.receive(channel)
            raw_kernel.send(channel, b"me", *numbered(50))
        raw_kernel.publish(*numbered(50))
        received = await take(ch.main, 200)
    for channel in ("shell", "control", "stdin", "iopub"):
        assert texts([each for name, each in received if name == channel]) == list(range(50))


async def test_a_cancelled_receive_loses_nothing(raw_kernel: RawKernel) -> None:
    count = 500
    async with raw_kernel.open() as ch, anyio.create_task_group() as tasks:

        async def publish() -> None:
            for each in numbered(count):
                raw_kernel.publish(each)
                await anyio.lowlevel.checkpoint()

        tasks.start_soon(publish)
        received: list[Message] = []
        attempts = cancelled = 0
        while len(received) < count:
            # Every fifth is cancelled at once, the others now and then while they wait.
            attempts += 1
            with anyio.move_on_after(attempts % 5 * 0.0001) as scope:
                received.append(await ch.iopub.receive())
            cancelled += scope.cancelled_caught
    assert texts(received) == list(range(count))
    assert cancelled >= count // 5


async def test_bad_messages_cost_no_good_one(
    raw_kernel: RawKernel, caplog: pytest.LogCaptureFixture
) -> None:
    async with raw_kernel.open() as ch:
        for number, each in enumerate(numbered(20)):
            frames = raw_kernel.wire.encode(each, [b"topic"])
            raw_kernel.publish_frames([b"topic", b"no delimiter"])
            raw_kernel.publish_frames([*frames[:-1], b'{"forged": true}'])
            raw_kernel.publish_frames(frames)
            if number % 2:
                raw_kernel.publish_frames(frames)
        raw_kernel.publish(*numbered(1, start=20))
        assert texts(await take(ch.iopub, 21)) == list(range(21))
        assert ch.statistics().dropped == {
            "MalformedMessage": 20,
            "InvalidSignature": 20,
            "ReplayedMessage": 10,
        }
        assert ch.statistics().dropped_by_channel == {"iopub": ch.statistics().dropped}
    assert len(caplog.records) == 3


async def test_bytes_are_counted_both_ways(raw_kernel: RawKernel) -> None:
    async with raw_kernel.open() as ch:
        before = ch.statistics()
        content, buffer = {"text": "x" * 1000}, b"y" * 10_000
        large = attrs.evolve(message("stream", **content), buffers=(buffer,))
        raw_kernel.publish(large)
        received = await ch.iopub.receive()
        assert received.size == len(b'{"text":""}') + 1000 + 10_000
        assert received.topic == b"topic"
        after = ch.statistics()
        assert after.received_bytes["iopub"] - before.received_bytes["iopub"] == received.size
        await ch.shell.send(
            {"header": {"msg_type": "odd"}, "content": content, "buffers": [buffer]}
        )
        assert ch.statistics().sent_bytes["shell"] - after.sent_bytes["shell"] == received.size


async def test_a_bounded_stream_makes_the_reader_wait(raw_kernel: RawKernel) -> None:
    async with raw_kernel.open(max_buffer_size=10) as ch, ch.subscribe("iopub") as slow:
        raw_kernel.publish(*numbered(1000))
        received = []
        for _ in range(1000):
            received.append((await slow.receive())[1])
            assert slow.buffered <= 10
            # The other channels go on.
            if len(received) == 500:
                await ch.shell.send(request())
                identity, _ = await raw_kernel.receive("shell")
                raw_kernel.send("shell", identity, message("reply"))
                assert (await ch.shell.receive()).msg_type == "reply"
        assert texts(received) == list(range(1000))


async def test_a_narrow_subscription_takes_effect_once_iopub_is_proven(
    raw_kernel: RawKernel,
) -> None:
    async with raw_kernel.open(subscription=[b"wanted", "also"]) as ch:
        while sorted(raw_kernel.topics) != [b"also", b"wanted"]:
            await anyio.sleep(0.001)
        raw_kernel.publish(*numbered(1), topic=b"unwanted")
        raw_kernel.publish(*numbered(1, start=1), topic=b"wanted.stream")
        raw_kernel.publish(*numbered(1, start=2), topic=None)
        raw_kernel.publish(*numbered(1, start=3), topic=b"also")
        assert texts(await take(ch.iopub, 2)) == [1, 3]
        assert ch.statistics().iopub_proven


# The ends of streams.


async def test_the_loss_of_the_kernel_reaches_everybody_who_waits(raw_kernel: RawKernel) -> None:
    raised: list[KernelDied] = []

    async def wait(stream: Any) -> None:
        with pytest.raises(KernelDied, match="was lost, and did not come back") as caught:
            async for _ in stream:
                pass
        raised.append(caught.value)

    async with raw_kernel.open(reconnect_timeout=0.2) as ch:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                for stream in (ch.main, ch.shell, ch.iopub, ch.subscribe("stdin")):
                    tasks.start_soon(wait, stream)
                await anyio.wait_all_tasks_blocked()
                raw_kernel.publish(*numbered(3))
                raw_kernel.vanish()
        with pytest.raises(KernelDied):
            await ch.shell.send(request())
        with pytest.raises(KernelDied):
            await ch.main.receive()
        with pytest.raises(anyio.BrokenResourceError):
            await ch.control.receive()
    assert len(raised) == 4
    assert len(set(map(id, raised))) == 4


async def test_what_a_kernel_sent_before_it_died_is_received_first(raw_kernel: RawKernel) -> None:
    async with (
        raw_kernel.open(max_buffer_size=5, reconnect_timeout=1) as ch,
        ch.subscribe("iopub") as output,
    ):
        raw_kernel.publish(*numbered(200))
        await output.receive()
        raw_kernel.close("iopub", linger=5000)
        raw_kernel.vanish()
        with pytest.raises(KernelDied):
            await ch.shell.receive()
        received: list[Message] = []
        with pytest.raises(KernelDied):
            async for _, each in output:
                received.append(each)
        assert texts(received) == list(range(1, 200))


async def test_the_last_words_of_a_kernel_let_others_run(raw_kernel: RawKernel) -> None:
    count, cores = 50 * BATCH, list[Core]()
    opening = open_some_channels(raw_kernel.config, *CHANNELS, on_made=cores.append)
    async with opening as ch, ch.subscribe("iopub") as output:
        raw_kernel.publish(*numbered(count))
        # Holds the event loop, so that all of it is there and nothing is read.
        time.sleep(0.3)
        before = ch.statistics().received["iopub"]
        cores[0].lose(KernelDied("gone", "exited"))
        read_at_each_turn = [before]

        async def take_turns() -> None:
            while True:
                read_at_each_turn.append(ch.statistics().received["iopub"])
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take_turns)
            with pytest.raises(KernelDied, match="gone"):
                await ch.shell.receive()
            tasks.cancel_scope.cancel()
        received = [each for _, each in await take(output, count)]
    assert texts(received) == list(range(count))
    assert read_at_each_turn[-1] == before + count
    between = [after - earlier for earlier, after in itertools.pairwise(read_at_each_turn)]
    # Trio runs the tasks of one turn in any order.
    assert max(between) <= 3 * BATCH


async def test_a_send_waits_for_a_connection_that_comes_back(raw_kernel: RawKernel) -> None:
    cores: list[Core] = []
    opening = open_some_channels(raw_kernel.config, *CHANNELS, on_made=cores.append)
    async with opening as ch:
        endpoint = raw_kernel.info.endpoint("shell")
        await ch.shell.send(request("early_request"))
        await raw_kernel.receive("shell")
        raw_kernel.close("shell")
        with anyio.fail_after(10):
            while not cores[0].transport.unconnected():
                await anyio.sleep(0.001)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ch.shell.send, request("late_request"))
                await anyio.sleep(0.1)
                raw_kernel.rebind("shell", endpoint)
            assert (await raw_kernel.receive("shell"))[1].msg_type == "late_request"


async def test_the_death_of_the_kernel_leaves_as_itself(raw_kernel: RawKernel) -> None:
    with pytest.raises(KernelDied):
        async with raw_kernel.open(reconnect_timeout=0.2) as ch:
            raw_kernel.vanish()
            async for _ in ch.main:
                pass


async def test_a_cancelled_block_ends_and_closes(raw_kernel: RawKernel) -> None:
    import zmq

    context = zmq.Context()
    with anyio.CancelScope() as scope:
        async with raw_kernel.open(context=context) as ch:
            scope.cancel()
            await ch.main.receive()
    assert scope.cancelled_caught
    # It waits for whoever has not closed a socket.
    with anyio.fail_after(10):
        await anyio.to_thread.run_sync(context.term, abandon_on_cancel=True)


# The other doors.


async def test_one_channel_at_a_time(raw_kernel: RawKernel) -> None:
    openers = {
        "shell": open_shell_channel,
        "control": open_control_channel,
        "stdin": open_stdin_channel,
    }
    for name, opener in openers.items():
        async with opener("me", raw_kernel.config) as channel:
            sent = await channel.send(request())
            assert await raw_kernel.receive(name) == (b"me", sent)
            raw_kernel.send(name, b"me", message("reply", sent))
            assert (await channel.receive()).is_child_of(sent)
    async with open_iopub_channel("me", raw_kernel.config, subscription="topic") as iopub:
        raw_kernel.publish(*numbered(1))
        assert texts([await iopub.receive()]) == [0]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_the_callers_own_sockets(raw_kernel: RawKernel, asynchronous: bool) -> None:
    import zmq
    import zmq.asyncio

    with zmq.asyncio.Context() if asynchronous else zmq.Context() as context:
        shell = context.socket(zmq.DEALER)
        shell.connect(raw_kernel.info.endpoint("shell"))
        iopub = context.socket(zmq.SUB)
        iopub.subscribe(b"")
        iopub.connect(raw_kernel.info.endpoint("iopub"))
        transport = wrap_sockets({"shell": shell, "iopub": iopub}, key=KEY)
        async with open_channels(transport, session="ours") as ch:
            sent = await ch.main.send("shell", request())
            identity, received = await raw_kernel.receive("shell")
            assert received == sent
            raw_kernel.send("shell", identity, message("reply", sent))
            assert (await ch.main.receive())[1].is_child_of(sent)
            with pytest.raises(LocalProtocolError, match="there is no stdin channel here"):
                await ch.stdin.receive()
            with pytest.raises(LocalProtocolError, match="unknown channel 'stdin'"):
                await ch.stdin.send(request())
        await transport.aclose()
        assert not shell.closed
        shell.close(linger=0)
        iopub.close(linger=0)


@pytest.mark.parametrize("also", ["", "iopub"])
async def test_idle_is_waited_for_over_the_callers_own_sockets(
    raw_kernel: RawKernel, also: str
) -> None:
    import zmq

    with zmq.Context() as context:
        sockets = {"shell": context.socket(zmq.DEALER)}
        if also:
            sockets["iopub"] = context.socket(zmq.SUB)
            sockets["iopub"].subscribe(b"")
        for name, each in sockets.items():
            each.connect(raw_kernel.info.endpoint(name))
        async with (
            open_channels(wrap_sockets(sockets, key=KEY)) as ch,
            anyio.create_task_group() as tasks,
        ):
            waiting = start(tasks, ch.wait_idle)
            identity, *frames = await raw_kernel.receive_frames("shell")
            asked = raw_kernel.wire.decode(frames)
            assert not waiting.done.is_set()
            raw_kernel.send("shell", identity, message("kernel_info_reply", asked, status="ok"))
            await waiting.result()
        for each in sockets.values():
            each.close(linger=0)


async def test_the_callers_own_sockets_are_used_once_more(raw_kernel: RawKernel) -> None:
    import zmq

    with zmq.Context() as context:
        sockets = {name: context.socket(zmq.DEALER) for name in ("shell", "control")}
        sockets["iopub"] = context.socket(zmq.SUB)
        for name, each in sockets.items():
            each.connect(raw_kernel.info.endpoint(name))
        transport = wrap_sockets(sockets, key=KEY)
        async with open_channels(transport):
            await anyio.wait_all_tasks_blocked()
        async with open_channels(transport) as ch:
            # At once, before any task of the channels has run.
            await ch.control.send(request("interrupt_request"))
            assert (await raw_kernel.receive("control"))[1].msg_type == "interrupt_request"
        for each in sockets.values():
            each.close(linger=0)


async def test_a_lost_kernel_that_goes_on_is_listened_to_for_a_while_only(
    raw_kernel: RawKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enchannel._core.tasks.LAST_WORDS", 10)
    cores: list[Core] = []
    opening = open_some_channels(raw_kernel.config, *CHANNELS, on_made=cores.append)
    async with opening as ch, anyio.create_task_group() as tasks:
        cores[0].lose(KernelDied("frozen for a while", "heartbeat"))
        raw_kernel.publish(*numbered(3 * BATCH))

        async def go_on() -> None:
            while True:
                raw_kernel.publish(*numbered(10))
                await anyio.lowlevel.checkpoint()

        tasks.start_soon(go_on)
        links = cores[0].transport._links.values()  # type: ignore[attr-defined]
        with anyio.fail_after(20):
            while not all(link.socket.closed for link in links):
                await anyio.sleep(0.001)
        with pytest.raises(KernelDied, match="frozen"):
            await ch.shell.receive()
        tasks.cancel_scope.cancel()


async def test_a_context_that_is_terminated_is_survived(raw_kernel: RawKernel) -> None:
    import zmq

    context = zmq.Context()
    async with anyio.create_task_group() as tasks:
        async with raw_kernel.open(context=context) as ch:
            # It waits for its sockets, which leaving the block closes.
            tasks.start_soon(anyio.to_thread.run_sync, context.term)
            with (
                anyio.fail_after(30),
                pytest.raises(KernelDied, match="can no longer be") as caught,
            ):
                await ch.main.receive()
            assert isinstance(caught.value.__cause__, zmq.ContextTerminated)
            with pytest.raises(KernelDied):
                await ch.shell.send(request())


def test_wrong_sockets_are_refused() -> None:
    import zmq

    with pytest.raises(LocalProtocolError, match="unknown channel 'hb'"):
        wrap_sockets({"hb": None})  # type: ignore[dict-item]
    with pytest.raises(LocalProtocolError, match=r"shell is no open zmq\.Socket"):
        wrap_sockets({"shell": "socket"})  # type: ignore[dict-item]
    nothing: Any
    for nothing in ({}, None, [], "shell"):
        with pytest.raises(LocalProtocolError, match="sockets maps some of shell, .* to sockets"):
            wrap_sockets(nothing)
    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        with pytest.raises(LocalProtocolError, match="shell is a DEALER socket, not PUB"):
            wrap_sockets({"shell": publisher})
        with pytest.raises(LocalProtocolError, match="iopub is a SUB socket, not PUB"):
            wrap_sockets({"iopub": publisher})
    with zmq.Context() as context, context.socket(zmq.DEALER) as one:
        for same in (one, zmq.Socket(one)):
            with pytest.raises(LocalProtocolError, match="control is the socket of shell"):
                wrap_sockets({"shell": one, "control": same})


@pytest.mark.parametrize("key", [5, None, bytearray(b"key"), "\ud800"])
def test_a_key_of_sockets_is_text_or_bytes(key: Any) -> None:
    with pytest.raises(LocalProtocolError, match="key is text or bytes"):
        wrap_sockets({}, key=key)


@pytest.mark.parametrize("transport", [None, 5, {}])
def test_channels_are_opened_over_a_transport(transport: Any) -> None:
    with pytest.raises(
        LocalProtocolError, match="transport is a Transport .see wrap_sockets., not"
    ):
        open_channels(transport)


async def test_channels_that_are_none_are_refused(raw_kernel: RawKernel) -> None:
    async with raw_kernel.open() as ch:
        channel: Any
        for channel in ([], 5, "nowhere"):
            with pytest.raises(LocalProtocolError, match="unknown channel"):
                ch.subscribe(channel)


CONFIG = {f"{name}_port": 1 for name in ("shell", "control", "stdin", "iopub", "hb")}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"identity": ""}, "identity is 1 to 255 bytes"),
        ({"identity": b"\0x"}, "identity is 1 to 255 bytes"),
        ({"identity": "x" * 256}, "identity is 1 to 255 bytes"),
        ({"identity": 5}, "identity is str, bytes, uuid.UUID or None, not int"),
        ({"identity": "\ud800"}, "identity is .*, and half a surrogate pair is no character"),
        ({"session": 5}, "session is a str, not int"),
        ({"username": b"me"}, "username is a str, not bytes"),
        ({"subscription": [5]}, "subscription is a topic prefix .*, not int"),
        ({"subscription": ["x", "\ud800"]}, "subscription is .*, and half a surrogate pair is no"),
        ({"connect_timeout": 0}, "connect_timeout is seconds, above 0, not 0"),
        ({"connect_timeout": math.nan}, "connect_timeout is seconds, above 0, not nan"),
        ({"connect_timeout": "1"}, "connect_timeout is seconds, above 0, not '1'"),
        ({"connect_timeout": None}, "connect_timeout is seconds, above 0, not None"),
        ({"max_buffer_size": 0}, "max_buffer_size is a number of messages"),
        ({"max_buffer_size": True}, "max_buffer_size is a number of messages"),
        ({"max_backlog_bytes": -1}, "max_backlog_bytes is a number of bytes, 0 or more, or"),
        ({"context": 5}, r"context is a zmq\.Context, or None, not 5"),
    ],
)
def test_wrong_arguments_are_refused_at_the_call(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(LocalProtocolError, match=complaint):
        open_kernel_channels(arguments.pop("identity", None), CONFIG, **arguments)
