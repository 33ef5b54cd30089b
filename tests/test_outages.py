"""A connection that is lost: what is told to whom, and what goes on."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
import zmq

from enchannel import KernelChannels, KernelDied, Message
from enchannel._core.probe import Probe
from enchannel.testing import FakeKernel, MemoryTransport, open_fake_kernel
from helpers import arrived, deadlines_passed, numbered, texts
from raw_kernel import RawKernel, message, request

pytestmark = pytest.mark.anyio


class Answers:
    """Answers every kernel_info_request on control, as a kernel of some session."""

    def __init__(self, kernel: RawKernel, session: str | None) -> None:
        self.session = session
        self.ends = True
        """Whether it says that it is done."""
        self.may = anyio.Event()
        self.may.set()
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
        await self.may.wait()
        kernel.publish(self.said("status", asked, execution_state="busy"))
        kernel.send("control", identity, self.said("kernel_info_reply", asked, status="ok"))
        if self.ends:
            kernel.publish(self.said("status", asked, execution_state="idle"))

    def said(self, msg_type: str, parent: Message, **content: Any) -> Message:
        said = message(msg_type, parent, **content)
        # Many kernels write their client's.
        said.header["session"] = self.session or parent.session
        return said


@contextlib.asynccontextmanager
async def answering(kernel: RawKernel, session: str | None) -> AsyncIterator[Answers]:
    answers = Answers(kernel, session)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answers.run)
        yield answers
        tasks.cancel_scope.cancel()


@contextlib.asynccontextmanager
async def in_flight(ch: KernelChannels) -> AsyncIterator[list[BaseException | str]]:
    """A request that is in flight within the block, and what came of it."""
    outcome: list[BaseException | str] = []

    async def ask() -> None:
        try:
            outcome.append((await ch.request("inspect_request", {"code": "x"})).msg_type)
        except KernelDied as died:
            outcome.append(died)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        yield outcome


CHANNELS = ("shell", "control", "stdin", "iopub")


async def come_back(
    kernel: RawKernel, ch: KernelChannels, lost: tuple[str, ...] = CHANNELS
) -> None:
    """Loses connections, and opens the same ports again."""
    for channel in lost:
        kernel.unbind(channel)
    while not ch._outages.current:
        await anyio.sleep(0.001)
    for channel in lost:
        kernel.rebind(channel, kernel.info.endpoint(channel))
    with anyio.fail_after(20):
        await ch._outages.wait_over()


async def session_known(ch: KernelChannels) -> None:
    """The welcome opened the channels: the status that answers the probe may have been too early."""
    with anyio.fail_after(10):
        await ch.request("kernel_info_request", channel="control")
        while ch._kernel.session is None:
            await anyio.sleep(0.001)


async def the(outcome: list[Any]) -> Any:
    with anyio.fail_after(5):
        while not outcome:
            await anyio.sleep(0.001)
    return outcome[0]


async def test_another_session_is_a_restart(raw_kernel: RawKernel) -> None:
    async with (
        answering(raw_kernel, "first") as answers,
        raw_kernel.open(reconnect_timeout=30) as ch,
        ch.subscribe("iopub") as output,
        in_flight(ch) as outcome,
    ):
        answers.session = "second"
        await come_back(raw_kernel, ch)
        died = await the(outcome)
        assert isinstance(died, KernelDied)
        assert died.reason == "restarted"
        raw_kernel.publish(*numbered(3))
        received: list[Message] = []
        while len(received) < 3:
            _, msg = await output.receive()
            received += [msg] if msg.msg_type == "stream" else []
        assert texts(received) == [0, 1, 2]
        statistics = ch.statistics()
        assert (statistics.restarts, statistics.outages) == (1, 0)


async def test_the_same_session_goes_on_and_the_gap_is_reported(
    raw_kernel: RawKernel, caplog: pytest.LogCaptureFixture
) -> None:
    async with (
        answering(raw_kernel, "first"),
        raw_kernel.open("me", reconnect_timeout=30) as ch,
        in_flight(ch) as outcome,
    ):
        _, asked = await raw_kernel.receive("shell")
        await session_known(ch)
        with caplog.at_level(logging.WARNING, "enchannel"):
            await come_back(raw_kernel, ch)
        assert outcome == []
        # The kernel answers late, over the connection that is there now.
        raw_kernel.sockets["shell"].set(zmq.ROUTER_MANDATORY, 1)
        raw_kernel.send("shell", b"me", message("inspect_reply", asked))
        assert await the(outcome) == "inspect_reply"
        statistics = ch.statistics()
        assert (statistics.restarts, statistics.outages) == (0, 1)
        assert statistics.outage_seconds > 0
        assert "lost the connection to the kernel and had it back" in caplog.text


@pytest.mark.parametrize("lost", [("shell",), ("shell", "control", "stdin", "iopub")])
async def test_a_reply_that_was_lost_in_the_gap_is_told(
    raw_kernel: RawKernel, lost: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enchannel._core.outages.SESSION_GRACE", 0.2)
    async with (
        answering(raw_kernel, "first"),
        raw_kernel.open("me", reconnect_timeout=30) as ch,
        in_flight(ch) as outcome,
    ):
        await raw_kernel.receive("shell")
        await session_known(ch)
        await come_back(raw_kernel, ch, lost)
        # A later request on the same channel is answered, and this one is not.
        identity, *frames = await raw_kernel.receive_frames("shell")
        asked = raw_kernel.wire.decode(frames)
        assert asked.msg_type == "kernel_info_request"
        assert outcome == []
        raw_kernel.send("shell", identity, message("kernel_info_reply", asked, status="ok"))
        raw_kernel.publish(message("status", asked, execution_state="idle"))
        died = await the(outcome)
        assert isinstance(died, KernelDied)
        assert "reply to the inspect_request was lost with the connection" in str(died)
        assert died.reason == "disconnected"
        # The channels go on.
        assert repr(ch).endswith("open>")


async def test_a_kernel_that_hides_its_session_counts_as_restarted(
    raw_kernel: RawKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enchannel._core.outages.SESSION_GRACE", 0.05)
    async with (
        answering(raw_kernel, None),
        raw_kernel.open(reconnect_timeout=30) as ch,
        in_flight(ch) as outcome,
    ):
        await come_back(raw_kernel, ch)
        died = await the(outcome)
        assert isinstance(died, KernelDied)
        assert "does not say whether it was restarted" in str(died)
        assert ch.statistics().restarts == 1


async def test_one_channel_that_comes_back_is_the_same_kernel(raw_kernel: RawKernel) -> None:
    async with raw_kernel.open() as ch, in_flight(ch) as outcome:
        identity, asked = await raw_kernel.receive("shell")
        raw_kernel.unbind("stdin")
        while not ch._outages.current:
            await anyio.sleep(0.001)
        raw_kernel.rebind("stdin", raw_kernel.info.endpoint("stdin"))
        with anyio.fail_after(5):
            await ch._outages.wait_over()
        assert outcome == []
        assert ch.statistics().outages == 1
        raw_kernel.send("shell", identity, message("inspect_reply", asked))
        assert await the(outcome) == "inspect_reply"


@pytest.mark.parametrize("back_before", [True, False])
async def test_a_channel_that_is_lost_while_iopub_is_proven_again(
    raw_kernel: RawKernel, monkeypatch: pytest.MonkeyPatch, back_before: bool
) -> None:
    monkeypatch.setattr("enchannel._core.outages.SESSION_GRACE", 0.2)

    async def answer_on_shell() -> None:
        while True:
            identity, *frames = await raw_kernel.receive_frames("shell")
            asked = raw_kernel.wire.decode(frames)
            raw_kernel.send("shell", identity, message("kernel_info_reply", asked, status="ok"))

    async with (
        answering(raw_kernel, "first") as answers,
        raw_kernel.open("me", reconnect_timeout=30) as ch,
        in_flight(ch) as outcome,
    ):
        await raw_kernel.receive("shell")
        await session_known(ch)
        raw_kernel.greeting, answers.may = False, anyio.Event()
        raw_kernel.unbind("iopub")
        with anyio.fail_after(20):
            while ch._iopub_proven.is_set():
                if raw_kernel.sockets["iopub"].closed and ch._outages.current:
                    raw_kernel.rebind("iopub", raw_kernel.info.endpoint("iopub"))
                await anyio.sleep(0.001)
            shell = ch._transport._links["shell"]  # type: ignore[attr-defined]
            raw_kernel.unbind("shell")
            await shell.disconnected.wait()
            if not back_before:
                answers.may.set()
                await ch._iopub_proven.wait()
                await anyio.wait_all_tasks_blocked()
                assert ch._outages.current
            raw_kernel.rebind("shell", raw_kernel.info.endpoint("shell"))
            await shell.connected.wait()
            answers.may.set()
            await ch._outages.wait_over()
        assert outcome == []
        assert ch.statistics().outages == 1
        assert ch._outages.of == {"iopub": 1, "shell": 1}
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer_on_shell)
            died = await the(outcome)
            tasks.cancel_scope.cancel()
        assert isinstance(died, KernelDied)
        assert "lost with the connection" in str(died)


@pytest.mark.parametrize("session", ["first", "second"])
async def test_nothing_counts_as_not_implemented_in_an_outage(
    raw_kernel: RawKernel, monkeypatch: pytest.MonkeyPatch, session: str
) -> None:
    monkeypatch.setattr("enchannel._core.ending.GRACE", 0.05)
    monkeypatch.setattr("enchannel._core.outages.SESSION_GRACE", 0.2)
    async with (
        answering(raw_kernel, "first") as answers,
        raw_kernel.open("me", reconnect_timeout=30) as ch,
        in_flight(ch) as outcome,
    ):
        _, asked = await raw_kernel.receive("shell")
        await session_known(ch)
        raw_kernel.publish(answers.said("status", asked, execution_state="idle"))
        identity, *frames = await raw_kernel.receive_frames("shell")
        other = raw_kernel.wire.decode(frames)
        raw_kernel.greeting, answers.may = False, anyio.Event()
        raw_kernel.unbind("shell")
        raw_kernel.unbind("iopub")
        with anyio.fail_after(20):
            while not ch._outages.current:
                await anyio.sleep(0.001)
            for name in ("shell", "iopub"):
                raw_kernel.rebind(name, raw_kernel.info.endpoint(name))
            while ch._iopub_proven.is_set():
                await anyio.sleep(0.001)
            # What was asked behind the request is answered over the connection that is there now.
            received = ch.statistics().received["shell"]
            raw_kernel.send("shell", identity, message("kernel_info_reply", other, status="ok"))
            await arrived(ch, "shell", received + 1)
            await anyio.wait_all_tasks_blocked()
            assert outcome == []
            answers.session = session
            answers.may.set()
            died = await the(outcome)
        assert isinstance(died, KernelDied)
        assert died.reason == ("disconnected" if session == "first" else "restarted")


async def test_an_idle_of_ours_that_was_lost_keeps_no_kernel_busy(raw_kernel: RawKernel) -> None:
    raw_kernel.greeting = False
    async with (
        answering(raw_kernel, "first") as answers,
        raw_kernel.open(reconnect_timeout=30) as ch,
    ):
        await session_known(ch)
        answers.ends = False
        Probe(ch, "control")
        with anyio.fail_after(10):
            while ch.status != "busy":
                await anyio.sleep(0.001)
        answers.ends = True
        await come_back(raw_kernel, ch)
        with anyio.fail_after(10):
            await ch.wait_idle()


@pytest.mark.parametrize("asked_before", [True, False])
async def test_no_execution_ends_because_nobody_can_be_asked(
    raw_kernel: RawKernel, monkeypatch: pytest.MonkeyPatch, asked_before: bool
) -> None:
    monkeypatch.setattr("enchannel._core.ending.GRACE", 0.02)
    monkeypatch.setattr("enchannel._core.ending.ANSWER_DEADLINE", 0.2)
    async with raw_kernel.open(reconnect_timeout=30) as ch:
        async with ch.execute("1") as execution, anyio.create_task_group() as tasks:
            tasks.start_soon(execution.wait)
            identity, asked = await raw_kernel.receive("shell")
            with anyio.fail_after(10):
                # The probe of the opening is there as well.
                await raw_kernel.receive_frames("control")
                reply = message("execute_reply", asked, status="ok")
                if asked_before:
                    raw_kernel.publish(message("status", asked, execution_state="busy"))
                    raw_kernel.send("shell", identity, reply)
                    await raw_kernel.receive_frames("control")
                raw_kernel.unbind("control")
                while not ch._outages.current:
                    await anyio.sleep(0.001)
                if not asked_before:
                    raw_kernel.publish(message("status", asked, execution_state="busy"))
                    raw_kernel.send("shell", identity, reply)
            await deadlines_passed(execution)
            assert not execution.complete
            raw_kernel.publish(message("status", asked, execution_state="idle"))


async def test_what_does_not_come_back_is_named(raw_kernel: RawKernel) -> None:
    async with raw_kernel.open(reconnect_timeout=0.05) as ch:
        raw_kernel.unbind("control")
        with pytest.raises(KernelDied, match=r"gone: control at tcp://.* within 0\.05 s") as caught:
            await ch.shell.receive()
        assert caught.value.reason == "disconnected"
        with pytest.raises(KernelDied):
            await ch.shell.send(request())


@pytest.mark.parametrize("transport", ["memory", "tcp", "ipc"])
async def test_a_fake_kernel_that_restarts(transport: Any) -> None:
    async with open_fake_kernel(transport=transport) as kernel, kernel.open_channels() as ch:
        never(kernel)
        async with ch.open_comm("target") as comm, in_flight(ch) as outcome:
            await kernel.transcript.wait_for("> shell inspect_request")
            await kernel.restart()
            with anyio.fail_after(10):
                died = await the(outcome)
                assert isinstance(died, KernelDied)
                assert died.reason == "restarted"
                with pytest.raises(KernelDied, match="restarted"):
                    await comm.receive()
                with pytest.raises(KernelDied, match="restarted"):
                    await comm.send({})
                # What comes after works.
                kernel.on("inspect_request", lambda _: {"found": False})
                assert (await ch.request("inspect_request", {})).content["found"] is False


async def test_a_transport_that_cannot_tell_has_lost_every_channel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lost = MemoryTransport.take_lost

    def cannot_tell(transport: MemoryTransport) -> None:
        lost(transport)

    monkeypatch.setattr(MemoryTransport, "take_lost", cannot_tell)
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        never(kernel)
        async with in_flight(ch) as outcome:
            await kernel.transcript.wait_for("> shell inspect_request")
            await kernel.restart()
            died = await the(outcome)
            assert died.reason == "restarted"
        with anyio.fail_after(5):
            await ch.kernel_info()


def never(kernel: FakeKernel) -> None:
    async def wait(_: Any) -> None:
        await anyio.sleep_forever()

    kernel.on("inspect_request", wait)
    kernel.on("comm_open", lambda _: None)
