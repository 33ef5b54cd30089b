"""Who gets a message, and how streams end: over memory, where no socket is the point."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import pytest

from enchannel import KernelChannels, LocalProtocolError, Message, open_channels
from enchannel._core.stream import TURN
from enchannel.testing import MemoryKernelEnd
from helpers import arrived, leaves_as_itself, numbered, take, texts
from raw_kernel import KEY, message, request

pytestmark = pytest.mark.anyio


class Peer(MemoryKernelEnd):
    """The kernel's end in memory, in the hands of the test."""

    def open(
        self, identity: bytes | None = None, **options: Any
    ) -> AbstractAsyncContextManager[KernelChannels]:
        return open_channels(self.connect(identity), owned=True, **options)

    def send(self, channel: Any, identity: bytes, *messages: Message) -> None:
        for each in messages:
            super().send(channel, identity, each)

    def publish(self, *messages: Message, topic: bytes = b"topic") -> None:
        for each in messages:
            super().publish(each, topic)


@pytest.fixture
async def peer(anyio_backend: str) -> Peer:
    return Peer(KEY.encode())


BAD_BODIES: list[tuple[str, Any, str]] = [
    ("iopub", request(), "iopub only receives; you may send on shell, control and stdin"),
    ("shel", request(), "unknown channel 'shel'; there are shell, control, stdin, iopub"),
    ("shell", {"content": {}}, "needs a message type"),
    ("shell", request(code=object()), "the content is no JSON"),
    ("shell", None, "a body is a dict or a Message, not NoneType"),
]


class Mine(Exception):
    pass


@pytest.mark.parametrize(("channel", "body", "complaint"), BAD_BODIES)
async def test_a_bad_call_sends_nothing_and_the_channel_works_on(
    peer: Peer, channel: str, body: Any, complaint: str
) -> None:
    async with peer.open() as ch:
        with pytest.raises(LocalProtocolError, match=complaint):
            await ch.main.send(channel, body)
        sent = await ch.shell.send(request())
        assert (await peer.receive("shell"))[1] == sent


async def test_a_cancelled_send_has_sent_nothing(peer: Peer) -> None:
    async with peer.open() as ch:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await ch.shell.send(request())
        assert scope.cancelled_caught
        sent = await ch.shell.send(request())
        assert (await peer.receive("shell"))[1] == sent


async def test_every_listening_stream_gets_every_message(peer: Peer) -> None:
    async with (
        peer.open() as ch,
        ch.subscribe("iopub") as some,
        ch.subscribe() as all_channels,
        anyio.create_task_group() as tasks,
    ):
        received: dict[str, list[Message]] = {}

        async def collect(name: str, stream: Any) -> None:
            received[name] = await take(stream, 20)

        for name, stream in (
            ("main", ch.main),
            ("iopub", ch.iopub),
            ("some", some),
            ("all", all_channels),
        ):
            tasks.start_soon(collect, name, stream)
        while ch.statistics().listeners < 4:
            await anyio.sleep(0.001)
        peer.publish(*numbered(20))
    assert texts(received["iopub"]) == list(range(20))
    for name in ("main", "some", "all"):
        assert received[name] == [("iopub", each) for each in received["iopub"]]


async def test_what_nobody_listened_for_waits_for_the_first_listener(peer: Peer) -> None:
    async with peer.open(b"me") as ch:
        await ch.shell.send(request())
        await peer.receive("shell")
        peer.publish(*numbered(3))
        await arrived(ch, "iopub", 3)
        peer.send("shell", b"me", *numbered(2, start=3))
        await arrived(ch, "shell", 2)
        peer.publish(*numbered(1, start=5))
        await arrived(ch, "iopub", 4)
        assert ch.statistics().backlog == {"shell": 2, "control": 0, "stdin": 0, "iopub": 4}
        # The first stream takes all of it, in the order of arrival; a later one starts from now.
        received = await take(ch.main, 6)
        assert texts([each for _, each in received]) == list(range(6))
        assert ch.statistics().backlog["iopub"] == 0
        with anyio.move_on_after(0.01) as scope:
            await ch.iopub.receive()
        assert scope.cancelled_caught


async def test_what_other_clients_ask_at_their_opening_is_not_kept(peer: Peer) -> None:
    theirs = message("kernel_info_request")
    async with peer.open() as ch:
        peer.publish(
            message("status", theirs, execution_state="busy"),
            message("status", theirs, execution_state="idle"),
            message("stream", theirs, text="0"),
        )
        await arrived(ch, "iopub", 3)
        assert ch.statistics().backlog["iopub"] == 1
        # Who listens gets all of it.
        async with ch.subscribe("iopub") as output:
            peer.publish(message("status", theirs, execution_state="busy"))
            received = [each.msg_type for _, each in await take(output, 2)]
    assert received == ["stream", "status"]


async def test_a_full_backlog_drops_the_oldest_and_says_so(
    peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    async with peer.open(max_backlog_size=10) as ch:
        peer.publish(*numbered(25))
        await arrived(ch, "iopub", 25)
        assert ch.statistics().backlog_dropped == 15
        assert texts(await take(ch.iopub, 10)) == list(range(15, 25))
    assert len(caplog.records) == 1
    assert "nobody listens on iopub" in caplog.text


async def test_two_tasks_cannot_receive_from_one_stream(peer: Peer) -> None:
    async with peer.open() as ch, anyio.create_task_group() as tasks:
        received: list[Message] = []

        async def receive() -> None:
            received.append(await ch.iopub.receive())

        tasks.start_soon(receive)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError, match="receiving from"):
            await ch.iopub.receive()
        peer.publish(*numbered(2))
        with anyio.fail_after(10):
            while not received:
                await anyio.sleep(0.001)
        assert texts([*received, await ch.iopub.receive()]) == [0, 1]


async def test_a_closed_stream_no_longer_holds_up_the_others(peer: Peer) -> None:
    async with peer.open(max_buffer_size=10) as ch:
        async with ch.subscribe("iopub") as fast:
            async with ch.subscribe("iopub"):
                peer.publish(*numbered(100))
                await take(fast, 10)
            received = await take(fast, 90)
        assert texts([each for _, each in received]) == list(range(10, 100))


async def test_a_busy_stream_lets_others_run(peer: Peer) -> None:
    async with peer.open() as ch:
        peer.publish(*numbered(1000))
        await arrived(ch, "iopub", 1000)
        turns = 0

        async def count_turns() -> None:
            nonlocal turns
            while True:
                turns += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(count_turns)
            await take(ch.iopub, 1000)
            tasks.cancel_scope.cancel()
        assert turns >= 1000 // (2 * TURN)


async def test_every_message_is_a_cancellation_point(peer: Peer) -> None:
    async with peer.open() as ch:
        peer.publish(*numbered(100))
        await arrived(ch, "iopub", 100)
        with anyio.CancelScope() as scope:
            async for each in ch.iopub:
                if each.content["text"] == "7":
                    scope.cancel()
        assert texts([await ch.iopub.receive()]) == [8]


async def test_a_closed_channel_is_closed_and_the_others_go_on(peer: Peer) -> None:
    async with peer.open() as ch:
        await ch.shell.aclose()
        with pytest.raises(anyio.ClosedResourceError):
            await ch.shell.send(request())
        with pytest.raises(anyio.ClosedResourceError):
            await ch.shell.receive()
        await ch.main.send("shell", request())
        peer.publish(*numbered(1))
        assert (await ch.main.receive())[0] == "iopub"


async def test_after_send_eof_a_channel_only_receives(peer: Peer) -> None:
    async with peer.open(b"me") as ch:
        await ch.main.send("shell", request())
        await peer.receive("shell")
        await ch.shell.send_eof()
        with pytest.raises(anyio.ClosedResourceError):
            await ch.shell.send(request())
        peer.send("shell", b"me", message("reply"))
        assert (await ch.shell.receive()).msg_type == "reply"


async def test_when_the_block_is_left_every_stream_ends(peer: Peer) -> None:
    seen: list[str] = []

    async def iterate(ch: KernelChannels) -> None:
        async for _, each in ch.main:
            seen.append(each.content["text"])
        seen.append("ended")
        with pytest.raises(anyio.ClosedResourceError):
            await ch.main.receive()

    async with anyio.create_task_group() as tasks:
        async with peer.open() as ch, ch.subscribe() as unread:
            tasks.start_soon(iterate, ch)
            await anyio.wait_all_tasks_blocked()
            peer.publish(*numbered(3))
            await arrived(ch, "iopub", 3)
        assert unread.buffered == 0
    assert seen == ["0", "1", "2", "ended"]
    with pytest.raises(anyio.ClosedResourceError):
        await ch.iopub.receive()
    with pytest.raises(anyio.ClosedResourceError):
        await ch.shell.send(request())
    with pytest.raises(anyio.ClosedResourceError):
        await ch.main.send("shell", request())
    with pytest.raises(anyio.ClosedResourceError):
        async with ch.subscribe():
            pass


@pytest.mark.parametrize(
    "error", [Mine("mine"), ExceptionGroup("the user's", [Mine("inside")]), SystemExit(3)]
)
async def test_the_bodys_exception_leaves_as_itself(peer: Peer, error: BaseException) -> None:
    await leaves_as_itself(peer.open(), error)


async def test_reprs_show_the_state(peer: Peer) -> None:
    async with peer.open() as ch:
        assert repr(ch) == "<KernelChannels shell, control, stdin, iopub open>"
        assert repr(ch.shell) == "<Channel shell not listening yet>"
        peer.publish(*numbered(2))
        await take(ch.main, 1)
        await arrived(ch, "iopub", 2)
        assert repr(ch.main) == "<MainChannel listening, 1 waiting>"
    assert repr(ch) == "<KernelChannels shell, control, stdin, iopub closed>"
    assert repr(ch.iopub) == "<Listener iopub closed>"


async def test_a_block_may_be_left_at_once(peer: Peer) -> None:
    with anyio.fail_after(30):
        for _ in range(100):
            async with peer.open():
                pass


async def test_a_subscription_that_is_cancelled_on_entry_does_not_listen(peer: Peer) -> None:
    async with peer.open() as ch:
        peer.publish(*numbered(3))
        await arrived(ch, "iopub", 3)
        with anyio.CancelScope() as scope:
            scope.cancel()
            async with ch.subscribe():
                pytest.fail("the block was entered")
        assert ch.statistics().listeners == 0
        assert texts(await take(ch.iopub, 3)) == [0, 1, 2]


async def test_closing_a_stream_does_not_replace_an_exception(peer: Peer) -> None:
    error = Mine("mine")
    with anyio.CancelScope() as scope, pytest.raises(Mine) as caught:
        async with peer.open() as ch, ch.subscribe():
            scope.cancel()
            raise error
    assert caught.value is error
    assert error.__context__ is None


async def test_a_channel_named_twice_is_heard_once(peer: Peer) -> None:
    async with peer.open() as ch, ch.subscribe("iopub", "iopub") as output:
        output.listen()
        peer.publish(*numbered(2))
        assert texts([each for _, each in await take(output, 2)]) == [0, 1]
        assert output.buffered == 0


async def test_a_bound_holds_nobody_up_where_nobody_listens(peer: Peer) -> None:
    async with peer.open(max_buffer_size=2) as ch:
        peer.publish(*numbered(100))
        await arrived(ch, "iopub", 100)
        assert ch.statistics().backlog_dropped == 98
        assert texts(await take(ch.iopub, 2)) == [98, 99]
