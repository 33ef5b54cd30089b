"""Outages over real sockets: what ZeroMQ's monitors and reconnections come to."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from socket import create_server
from typing import Any

import anyio
import pytest
import zmq

from enchannel import (
    KernelChannels,
    KernelDied,
    Message,
    NoReply,
    open_channels,
    wrap_sockets,
)
from enchannel._open_channels import open_some_channels
from enchannel._transports.addresses import connection_id
from enchannel._transports.zmq_link import Link
from enchannel.testing import open_fake_kernel
from helpers import numbered, texts
from memory_kernel import Task, start
from raw_kernel import KEY, RawKernel, message, request
from virtual_clock import slow_backend  # noqa: F401

pytestmark = pytest.mark.anyio

CHANNELS = ("shell", "control", "stdin", "iopub")


class Answers:
    """Answers every kernel_info_request on control, as a kernel of some session."""

    def __init__(self, kernel: RawKernel, session: str) -> None:
        self.session = session
        self._kernel = kernel

    async def run(self) -> None:
        while True:
            try:
                await self._answer()
            except zmq.ZMQError:  # closed meanwhile, by the test
                await anyio.sleep(0.001)

    async def _answer(self) -> None:
        kernel = self._kernel
        identity, *frames = await kernel.receive_frames("control")
        asked = kernel.wire.decode(frames)
        kernel.publish(self.said("status", asked, execution_state="busy"))
        kernel.send("control", identity, self.said("kernel_info_reply", asked, status="ok"))
        kernel.publish(self.said("status", asked, execution_state="idle"))

    def said(self, msg_type: str, parent: Message, **content: Any) -> Message:
        said = message(msg_type, parent, **content)
        said.header["session"] = self.session
        return said


@contextlib.asynccontextmanager
async def wrapped_iopub(kernel: RawKernel) -> AsyncIterator[KernelChannels]:
    """The same over a socket of the caller's, of whose handshake the monitor has said nothing."""
    with zmq.Context() as context, context.socket(zmq.SUB) as iopub:
        iopub.set(zmq.LINGER, 0)
        iopub.subscribe(b"")
        iopub.connect(kernel.info.endpoint("iopub"))
        while not iopub.poll(10):
            kernel.publish(message("status"))
        async with open_channels(wrap_sockets({"iopub": iopub}, key=KEY)) as ch:
            yield ch


@contextlib.asynccontextmanager
async def in_flight(
    kernel: RawKernel, **options: Any
) -> AsyncIterator[tuple[KernelChannels, Answers, Task, tuple[bytes, Message]]]:
    """Channels whose kernel's session is known, and a request that it has not answered."""
    async with anyio.create_task_group() as tasks:
        answers = Answers(kernel, "first")
        tasks.start_soon(answers.run)
        async with kernel.open("me", **options) as ch:
            with anyio.fail_after(10):
                while ch._core.status.session is None:
                    await ch.request("kernel_info_request", channel="control")
            task = start(tasks, ch.request, "inspect_request", {"code": "x", "cursor_pos": 0})
            asked = await kernel.receive("shell")
            yield ch, answers, task, asked
        tasks.cancel_scope.cancel()


async def come_back(
    kernel: RawKernel, ch: KernelChannels, lost: tuple[str, ...] = CHANNELS
) -> None:
    """Loses connections, and opens the same ports again."""
    for channel in lost:
        kernel.unbind(channel)
    with anyio.fail_after(20):
        while not ch._core.life.away:
            await anyio.sleep(0.001)
        for channel in lost:
            kernel.rebind(channel, kernel.info.endpoint(channel))
        await ch._core.opened()


async def test_another_session_is_a_restart(raw_kernel: RawKernel) -> None:
    async with (
        in_flight(raw_kernel) as (ch, answers, task, _),
        ch.subscribe("iopub") as output,
    ):
        answers.session = "second"
        await come_back(raw_kernel, ch)
        with pytest.raises(KernelDied) as caught:
            await task.result()
        assert caught.value.reason == "restarted"
        raw_kernel.publish(*numbered(3))
        received: list[Message] = []
        while len(received) < 3:
            _, msg = await output.receive()
            received += [msg] if msg.msg_type == "stream" else []
        assert texts(received) == [0, 1, 2]
        statistics = ch.statistics()
        assert (statistics.restarts, statistics.outages) == (1, 0)


async def test_the_same_session_goes_on(raw_kernel: RawKernel) -> None:
    async with in_flight(raw_kernel) as (ch, _, task, (identity, asked)):
        await come_back(raw_kernel, ch)
        assert (ch.statistics().restarts, ch.statistics().outages) == (0, 1)
        assert not task.done.is_set()
        # The kernel answers late, over the connection that is there now.
        raw_kernel.sockets["shell"].set(zmq.ROUTER_MANDATORY, 1)
        sent = False
        while not sent:
            # The kernel's socket may not know yet who it is that it has shaken hands with.
            with contextlib.suppress(zmq.ZMQError):
                raw_kernel.send("shell", identity, message("inspect_reply", asked))
                sent = True
            await anyio.sleep(0.001)
        assert (await task.result()).msg_type == "inspect_reply"


@pytest.mark.parametrize("lost", [("shell",), CHANNELS])
async def test_a_reply_that_was_lost_in_the_gap_is_told(
    raw_kernel: RawKernel, lost: tuple[str, ...]
) -> None:
    async with in_flight(raw_kernel) as (ch, _, task, _asked):
        await come_back(raw_kernel, ch, lost)
        # Later requests on the same channel are answered, and this one is not.
        assert not task.done.is_set()
        async with anyio.create_task_group() as tasks:

            async def answer() -> None:
                while True:
                    identity, *frames = await raw_kernel.receive_frames("shell")
                    asked = raw_kernel.wire.decode(frames)
                    assert asked.msg_type == "kernel_info_request"
                    reply = message("kernel_info_reply", asked, status="ok")
                    reply.header["session"] = "first"
                    raw_kernel.send("shell", identity, reply)

            tasks.start_soon(answer)
            with pytest.raises(NoReply) as caught:
                await task.result()
            tasks.cancel_scope.cancel()
        assert caught.value.reason == "disconnected"
        assert repr(ch).endswith("open>")


async def test_control_and_stdin_go_with_the_others_and_are_awaited(
    raw_kernel: RawKernel,
) -> None:
    async with in_flight(raw_kernel) as (ch, *_):
        for channel in CHANNELS:
            raw_kernel.unbind(channel)
        with anyio.fail_after(20):
            while not ch._core.life.away:
                await anyio.sleep(0.001)
            for channel in ("shell", "control", "iopub"):
                raw_kernel.rebind(channel, raw_kernel.info.endpoint(channel))
            while set(ch._core.transport.unconnected()) != {"stdin"}:
                await anyio.sleep(0.001)
            assert ch._core.life.away
            raw_kernel.rebind("stdin", raw_kernel.info.endpoint("stdin"))
            await ch._core.opened()
            await ch.main.send("stdin", {"header": {"msg_type": "input_reply"}})
            assert (await raw_kernel.receive("stdin"))[1].msg_type == "input_reply"


@pytest.mark.parametrize("lost", ["control", "stdin"])
async def test_a_channel_that_is_used_is_watched_by_itself(
    raw_kernel: RawKernel, lost: str
) -> None:
    async with in_flight(raw_kernel) as (ch, *_):
        await ch.request("kernel_info_request", channel="control")
        await ch.shell.send(request(allow_stdin=True))
        await come_back(raw_kernel, ch, (lost,))
        assert ch.statistics().outages == 1


async def until_its_connection_is_gone(ch: KernelChannels, channel: str) -> None:
    """Unseen: nothing is expected of `channel` yet."""
    link = ch._core.transport._links[channel]
    with anyio.fail_after(20):
        while connection_id(link._descriptor) == link._connection:
            await anyio.sleep(0.001)
    assert not ch._core.life.away


async def answer_next(kernel: RawKernel, channel: str, msg_type: str, **content: Any) -> None:
    """Answers whatever comes next, questions of the client's own among it."""
    identity, *frames = await kernel.receive_frames(channel)
    kernel.send(channel, identity, message(msg_type, kernel.wire.decode(frames), **content))


@pytest.mark.parametrize("lost", ["shell", "control"])
async def test_a_channel_that_went_before_its_first_use_is_whole_at_it(
    raw_kernel: RawKernel, lost: str
) -> None:
    async with (
        raw_kernel.open("me", reconnect_timeout=30) as ch,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(2):
            raw_kernel.unbind(lost)
            raw_kernel.rebind(lost, raw_kernel.info.endpoint(lost))
        await until_its_connection_is_gone(ch, lost)
        task = start(tasks, partial(ch.request, channel=lost), "is_complete_request")
        with anyio.fail_after(20):
            await answer_next(raw_kernel, lost, "is_complete_reply", status="complete")
            assert (await task.result()).content["status"] == "complete"
        assert ch.statistics().outages == 1
        tasks.cancel_scope.cancel()


async def test_a_channel_that_held_until_its_first_use_is_used_at_once(
    raw_kernel: RawKernel,
) -> None:
    async with raw_kernel.open("me") as ch:
        transport = ch._core.transport
        assert transport.followed == ("iopub",)
        for channel in ("shell", "control", "stdin"):
            transport.watch(channel)
        assert not transport.unconnected()
        assert not ch._core.life.away


async def test_where_connections_cannot_be_told_apart_all_are_watched(
    raw_kernel: RawKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enchannel._transports.zmq_link.connection_id", lambda _: None)
    async with raw_kernel.open("me", reconnect_timeout=30) as ch:
        for channel in ("shell", "control", "stdin"):
            await come_back(raw_kernel, ch, (channel,))
        assert ch.statistics().outages == 3


@pytest.mark.parametrize("channels", [("shell", "iopub"), ("control", "iopub")])
async def test_bounded_streams_see_that_the_kernel_is_gone_before_any_channel_is_used(
    raw_kernel: RawKernel, channels: tuple[str, ...]
) -> None:
    opening = open_some_channels(
        raw_kernel.config, *channels, max_buffer_size=2, reconnect_timeout=0.2
    )
    async with opening as ch, ch.subscribe("iopub") as stream:
        for number in range(5000):
            raw_kernel.publish(message("stream", number=number, text="x" * 10_000))
        await anyio.wait_all_tasks_blocked()
        raw_kernel.vanish()
        with anyio.fail_after(20):
            while ch._core.lost is None:
                await anyio.sleep(0.001)
        with pytest.raises(KernelDied):
            while True:
                await stream.receive()


@pytest.mark.parametrize("lost", ["shell", "control"])
async def test_a_channel_that_went_before_its_first_use_and_stays_away_is_told(
    raw_kernel: RawKernel, lost: str
) -> None:
    async with raw_kernel.open("me", reconnect_timeout=0.2) as ch:
        raw_kernel.unbind(lost)
        await until_its_connection_is_gone(ch, lost)
        said = f"connection of {lost}"
        with anyio.fail_after(20), pytest.raises(KernelDied, match=said) as caught:
            await ch.request("kernel_info_request", channel=lost)
        assert caught.value.reason == "disconnected"


@pytest.mark.parametrize("waits", ["wait_idle", "send"])
async def test_the_first_use_of_shell_waits_for_a_connection_that_is_away(
    raw_kernel: RawKernel, waits: str
) -> None:
    async with (
        raw_kernel.open("me", reconnect_timeout=30) as ch,
        anyio.create_task_group() as tasks,
    ):
        raw_kernel.unbind("shell")
        await until_its_connection_is_gone(ch, "shell")
        call = [ch.wait_idle] if waits == "wait_idle" else [ch.shell.send, request()]
        task = start(tasks, *call)
        await anyio.wait_all_tasks_blocked()
        assert not task.done.is_set()
        raw_kernel.rebind("shell", raw_kernel.info.endpoint("shell"))
        with anyio.fail_after(20):
            await answer_next(raw_kernel, "shell", "kernel_info_reply", status="ok")
            await task.result()
        tasks.cancel_scope.cancel()


async def test_what_had_not_gone_out_is_not_for_the_next_kernel(raw_kernel: RawKernel) -> None:
    endpoint = raw_kernel.info.endpoint("shell")
    raw_kernel.unbind("shell")
    # It takes one, and the network holds some megabytes more.
    raw_kernel.rebind("shell", endpoint, most_waiting=1)
    async with in_flight(raw_kernel) as (ch, _, _, _):
        for _ in range(25):
            await ch.shell.send({**request(), "buffers": [bytes(2**21)]})
        await come_back(raw_kernel, ch, ("shell",))
        await ch.shell.send(request("is_complete_request"))
        assert (await raw_kernel.receive("shell"))[1].msg_type == "is_complete_request"


async def test_what_has_arrived_outlives_a_connection_that_is_taken_back(
    raw_kernel: RawKernel,
) -> None:
    def wait_arrived(transport: Any, channel: str) -> None:
        # libzmq has a SUB socket that is looked at hold the first frame in its hand.
        give_up = time.monotonic() + 10
        while not transport.has_arrived(channel) and time.monotonic() < give_up:
            time.sleep(0.001)

    cores: list[Any] = []
    async with (
        open_some_channels(raw_kernel.config, *CHANNELS, on_made=cores.append) as ch,
        ch.subscribe("iopub", "shell") as stream,
    ):
        (core,) = cores
        sent = await ch.shell.send(request())
        identity, *_ = await raw_kernel.receive_frames("shell")
        raw_kernel.publish(*numbered(5))
        raw_kernel.send("shell", identity, message("inspect_reply", sent, status="ok"))
        # The event loop stands still, and with it the readers.
        for channel in ("iopub", "shell"):
            wait_arrived(core.transport, channel)
        core.transport.reconnect(("iopub", "shell"))
        with anyio.fail_after(10):
            got = [await stream.receive() for _ in range(6)]
        assert texts([said for channel, said in got if channel == "iopub"]) == [0, 1, 2, 3, 4]
        assert [said.msg_type for channel, said in got if channel == "shell"] == ["inspect_reply"]


async def test_a_callers_socket_that_was_away_when_it_was_left_is_used_again(
    raw_kernel: RawKernel,
) -> None:
    endpoint = raw_kernel.info.endpoint("shell")
    with zmq.Context() as context, context.socket(zmq.DEALER) as shell:
        shell.linger = 0
        shell.connect(endpoint)
        transport = wrap_sockets({"shell": shell}, key=KEY)
        async with open_channels(transport) as ch:
            await ch.shell.send(request())
            await raw_kernel.receive("shell")
            raw_kernel.unbind("shell")
            with anyio.fail_after(20):
                while not ch._core.life.away:
                    await anyio.sleep(0.001)
        raw_kernel.rebind("shell", endpoint)
        # It is connected again, which nobody has seen.
        shell.send(b"")
        await raw_kernel.receive_frames("shell")
        with anyio.fail_after(20):
            async with open_channels(transport) as ch:
                await ch.shell.send(request("is_complete_request"))
                assert (await raw_kernel.receive("shell"))[1].msg_type == "is_complete_request"


async def test_what_is_refused_behind_an_outage_proves_nothing(raw_kernel: RawKernel) -> None:
    other = message("execute_request")

    async def publish_until_proven() -> None:
        while True:
            raw_kernel.publish(message("stream", other), topic=b"not subscribed to")
            await anyio.sleep(0.01)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publish_until_proven)
        async with raw_kernel.open(subscription="wanted") as ch:
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True), anyio.fail_after(20):
                raw_kernel.unbind("iopub")
                while not ch._core.life.away:
                    await anyio.sleep(0.001)
                raw_kernel.rebind("iopub", raw_kernel.info.endpoint("iopub"))
                while not ch.statistics().dropped:
                    raw_kernel.publish_frames([b"topic", b"<IDS|MSG>", b"wrong", *[b"{}"] * 4])
                    await anyio.sleep(0.001)
                await anyio.wait_all_tasks_blocked()
                assert not ch._core.iopub_proven
                assert ch._core.life.away


async def test_a_connection_that_comes_and_goes_before_anybody_looks(raw_kernel: RawKernel) -> None:
    async with in_flight(raw_kernel) as (ch, *_):
        endpoint = raw_kernel.info.endpoint("shell")
        raw_kernel.unbind("shell")
        with anyio.fail_after(20):
            # The others were doubted, and found connected.
            while not ch._core.life.away or set(ch._core.transport.unconnected()) != {"shell"}:
                await anyio.sleep(0.001)
            # Nothing else runs meanwhile, and the monitor has all of this to say at once.
            raw_kernel.rebind("shell", endpoint)
            time.sleep(0.3)
            raw_kernel.unbind("shell")
            time.sleep(0.1)
            await anyio.sleep(0.2)
            assert ch._core.life.away
            raw_kernel.rebind("shell", endpoint)
            await ch._core.opened()
            await ch.shell.send(request("is_complete_request"))
            assert (await raw_kernel.receive("shell"))[1].msg_type == "is_complete_request"


HELD = """
import socket, sys
import anyio, zmq
from enchannel import open_channels, wrap_sockets

async def main():
    with socket.create_server(("127.0.0.1", 0)) as listener, zmq.Context() as context:
        listener.settimeout(30)
        with context.socket(zmq.DEALER) as shell:
            shell.set(zmq.LINGER, 0)
            shell.set(zmq.RECONNECT_IVL, 1)
            shell.connect("tcp://127.0.0.1:%d" % listener.getsockname()[1])
            async with open_channels(wrap_sockets({"shell": shell}), reconnect_timeout=60):
                await anyio.wait_all_tasks_blocked()
                for _ in range(1000):
                    listener.accept()[0].close()

anyio.run(main, backend=sys.argv[1])
"""
"""The program holds the event loop for as long as its kernel comes and goes: three events each time."""


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_what_the_monitor_says_while_the_loop_is_held_hangs_nobody(backend: str) -> None:
    # What hangs in libzmq holds the interpreter as well: in a process of its own.
    program = [sys.executable, "-c", HELD, backend]
    held = subprocess.run(program, capture_output=True, text=True, timeout=30)
    assert (held.returncode, held.stderr) == (0, "")


@pytest.mark.parametrize("opening", [RawKernel.open, wrapped_iopub])
async def test_what_had_arrived_before_does_not_count_for_a_connection_that_is_only_accepted(
    raw_kernel: RawKernel, opening: Callable[[RawKernel], AbstractAsyncContextManager[Any]]
) -> None:
    async with opening(raw_kernel) as ch, ch.subscribe("iopub") as output:
        await anyio.wait_all_tasks_blocked()
        # The loop is held, so that nothing is read until somebody else listens there, who shakes no hands.
        raw_kernel.publish(*numbered(500))
        raw_kernel.close("iopub", linger=10_000)
        raw_kernel.unbind("iopub")
        with create_server(("127.0.0.1", raw_kernel.config["iopub_port"])) as listener:
            listener.settimeout(30)
            accepted, _ = listener.accept()
            with accepted, anyio.fail_after(20):
                received: list[Message] = []
                while len(received) < 500:
                    _, msg = await output.receive()
                    received += [msg] if msg.msg_type == "stream" else []
                await anyio.wait_all_tasks_blocked()
                assert texts(received) == list(range(500))
                assert list(ch._core.transport.unconnected()) == ["iopub"]
                assert ch._core.life.away
        raw_kernel.rebind("iopub", raw_kernel.info.endpoint("iopub"))
        with anyio.fail_after(20):
            while ch._core.transport.unconnected():
                await anyio.sleep(0.001)


async def test_what_does_not_come_back_is_named(raw_kernel: RawKernel) -> None:
    async with raw_kernel.open(reconnect_timeout=0.05) as ch:
        raw_kernel.unbind("iopub")
        with pytest.raises(KernelDied, match=r"iopub .* within 0\.05 s") as caught:
            await ch.shell.receive()
        assert caught.value.reason == "disconnected"
        with pytest.raises(KernelDied):
            await ch.shell.send(request())


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
async def test_a_fake_kernel_that_restarts(transport: Any) -> None:
    async def never(_: Any) -> None:
        await anyio.sleep_forever()

    async with open_fake_kernel(transport=transport) as kernel, kernel.open_channels() as ch:
        kernel.on("inspect_request", never)
        kernel.on("comm_open", lambda _: None)
        async with ch.open_comm("target") as comm, anyio.create_task_group() as tasks:
            task = start(tasks, ch.request, "inspect_request", {})
            await kernel.transcript.wait_for("> shell inspect_request")
            await kernel.restart()
            with anyio.fail_after(10):
                with pytest.raises(KernelDied) as caught:
                    await task.result()
                assert caught.value.reason == "restarted"
                with pytest.raises(KernelDied, match="restarted"):
                    await comm.receive()
                # What comes after works.
                kernel.on("inspect_request", lambda _: {"found": False})
                assert (await ch.request("inspect_request", {})).content["found"] is False


async def test_a_lost_kernel_is_let_go_then_and_there(raw_kernel: RawKernel) -> None:
    async with raw_kernel.open(reconnect_timeout=0.05) as ch:
        raw_kernel.vanish()
        with pytest.raises(KernelDied):
            await ch.shell.receive()
        links = ch._core.transport._links.values()  # type: ignore[attr-defined]
        assert all(link.socket.closed and link._monitor is None for link in links)


async def test_a_channel_that_sends_is_connected_once_at_a_time(
    raw_kernel: RawKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A ROUTER that hands no identity over would ignore the second connection for good."""
    disconnect = Link._disconnect

    endpoint = raw_kernel.info.endpoint("shell")

    def disconnect_late(link: Link) -> None:
        # As on a loaded machine: the kernel is back, and ZeroMQ's own thread has all the time that it wants.
        monkeypatch.undo()
        raw_kernel.rebind("shell", endpoint)
        time.sleep(0.2)
        disconnect(link)

    monkeypatch.setattr(Link, "_disconnect", disconnect_late)
    async with in_flight(raw_kernel) as (ch, *_):
        raw_kernel.unbind("shell")
        with anyio.fail_after(20):
            while not ch._core.life.away:
                await anyio.sleep(0.001)
            await ch.shell.send(request("is_complete_request"))
        with anyio.fail_after(10):
            assert (await raw_kernel.receive("shell"))[1].msg_type == "is_complete_request"


async def test_what_is_away_for_long_is_tried_less_often(raw_kernel: RawKernel) -> None:
    async with raw_kernel.open("me", reconnect_timeout=600) as ch:
        await ch.control.send(request("kernel_info_request"))
        link = ch._core.transport._links["control"]
        raw_kernel.unbind("control")
        with anyio.fail_after(20):
            while not link._retried:
                await anyio.sleep(0.001)
        assert link._patience() < 0.5
        link._away_since -= 60
        assert link._patience() == 0.5
        # It is had back all the same.
        raw_kernel.rebind("control", raw_kernel.info.endpoint("control"))
        with anyio.fail_after(20):
            await ch._core.opened()
            while "control" in ch._core.transport.unconnected():
                await anyio.sleep(0.001)
