"""A connection that is lost: what is told to whom and when, and what goes on.

In memory on a clock that jumps; :mod:`test_reconnecting` does the like over real sockets.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import anyio
import pytest

from enchannel import KernelChannels, KernelDied, Message, NoReply
from enchannel._core.proof import prove_answering
from enchannel._protocol.connection_info import CHANNELS, ChannelName
from enchannel.testing import FakeKernel, ask, open_fake_kernel, pause
from memory_kernel import Kernel, conversation, executed, start
from raw_kernel import message, request
from virtual_clock import virtual_backend  # noqa: F401

pytestmark = pytest.mark.anyio


class Answers:
    """Answers every kernel_info_request on control and shell, as a kernel of some session."""

    def __init__(self, kernel: Kernel, session: str | None) -> None:
        self.session = session
        self.may = anyio.Event()
        self.may.set()
        self.busy = anyio.Event()
        self.busy.set()
        self.asked: list[tuple[bytes, Message]] = []
        self._kernel = kernel

    async def run(self, channel: Any) -> None:
        while True:
            identity, asked = await self._kernel.end.receive(channel)
            if asked.msg_type != "kernel_info_request":
                self.asked.append((identity, asked))
                continue
            await self.may.wait()
            if channel == "shell":
                await self.busy.wait()
            self.publish("status", asked, execution_state="busy")
            reply = self.said("kernel_info_reply", asked, status="ok")
            self._kernel.end.send(channel, identity, reply)
            self.publish("status", asked, execution_state="idle")

    def publish(self, msg_type: str, parent: Message, **content: Any) -> None:
        self._kernel.end.publish(self.said(msg_type, parent, **content))

    def said(self, msg_type: str, parent: Message, **content: Any) -> Message:
        said = message(msg_type, parent, **content)
        # Many kernels write their client's.
        said.header["session"] = self.session or parent.session
        return said


@contextlib.asynccontextmanager
async def connected(
    session: str | None = "first", **options: Any
) -> AsyncIterator[tuple[KernelChannels, Kernel, Answers, anyio.abc.TaskGroup]]:
    """Channels to a kernel of this session, which it has said."""
    async with conversation(**options) as (ch, kernel, tasks):
        answers = Answers(kernel, session)
        for channel in ("shell", "control"):
            tasks.start_soon(answers.run, channel)
        await ch.request("kernel_info_request", channel="control")
        await anyio.wait_all_tasks_blocked()
        yield ch, kernel, answers, tasks


async def in_flight(ch: KernelChannels, tasks: Any) -> Any:
    """A request that the kernel has, and has not answered."""
    task = start(tasks, ch.request, "inspect_request", {"code": "x", "cursor_pos": 0})
    await anyio.wait_all_tasks_blocked()
    return task


async def told(task: Any) -> KernelDied:
    with pytest.raises(KernelDied) as caught:
        with anyio.fail_after(1000):
            await task.done.wait()
        await task.result()
    return caught.value


async def test_a_connection_that_goes_before_anybody_is_told_is_noticed() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.clients[0].cut()
        with anyio.fail_after(60), pytest.raises(KernelDied) as caught:
            await ch.run("1")
        assert caught.value.reason == "disconnected"


async def test_what_a_starting_kernel_is_asked_is_asked_again_where_that_was_lost() -> None:
    async with conversation() as (ch, kernel, tasks):
        proving = start(tasks, prove_answering, ch._core)
        await kernel.asked()
        kernel.client.cut("shell", "control")
        kernel.client.mend("shell", "control")
        with anyio.fail_after(60):
            kernel.reply(await kernel.asked())
            await proving.result()


async def test_another_session_is_a_restart() -> None:
    async with connected() as (ch, kernel, answers, tasks), ch.subscribe("iopub") as output:
        task = await in_flight(ch, tasks)
        answers.session = "second"
        kernel.client.blink()
        assert (await told(task)).reason == "restarted"
        kernel.say("stream", message("other_request"), name="stdout", text="goes on")
        while True:
            _, msg = await output.receive()
            if msg.msg_type == "stream":
                break
        assert (ch.statistics().restarts, ch.statistics().outages) == (1, 0)


async def test_a_session_that_changes_without_a_disconnection_is_a_restart() -> None:
    async with connected() as (ch, _, answers, tasks):
        async with ch.open_comm("target") as comm:
            task = await in_flight(ch, tasks)
            cell = start(tasks, executed, ch, "1")
            await anyio.wait_all_tasks_blocked()
            answers.session = "second"
            answers.publish("status", message("execute_request"), execution_state="busy")
            assert (await told(task)).reason == "restarted"
            assert (await told(cell)).reason == "restarted"
            with pytest.raises(KernelDied, match="restarted"):
                await comm.receive()
        assert ch.statistics().restarts == 1
        assert (await ch.request("kernel_info_request")).content["status"] == "ok"


async def test_a_kernel_without_a_steady_session_is_not_restarted_all_the_time() -> None:
    async with connected() as (ch, kernel, answers, tasks):
        task = await in_flight(ch, tasks)
        for number in range(10):
            fresh = message("status", execution_state="idle")
            fresh.header["session"] = f"fresh {number}"
            kernel.end.publish(fresh)
            answers.session = "first"
            answers.publish("status", message("execute_request"), execution_state="idle")
        await anyio.wait_all_tasks_blocked()
        assert not task.done.is_set()
        assert ch.statistics().restarts == 0


async def test_the_same_session_goes_on_and_the_gap_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with connected() as (ch, kernel, answers, tasks):
        task = start(tasks, executed, ch, "1")
        await anyio.wait_all_tasks_blocked()
        answers.publish("status", answers.asked[0][1], execution_state="busy")
        await anyio.wait_all_tasks_blocked()
        with caplog.at_level(logging.WARNING, "enchannel"):
            kernel.client.cut("iopub")
            await anyio.sleep(0.5)
            kernel.client.mend("iopub")
            await anyio.sleep(0.1)
        assert "iopub lost the connection to the kernel and had it back after 0.50 s" in caplog.text
        assert ch.statistics().outages == 1
        assert ch.statistics().outage_seconds == pytest.approx(0.5, abs=0.1)
        assert not task.done.is_set()
        # The kernel answers late, over the connection that is there now.
        kernel.reply(answers.asked[0])
        answers.publish("status", answers.asked[0][1], execution_state="idle")
        execution, _ = await task.result()
        assert execution.complete


@pytest.mark.parametrize("lost", [("shell",), ("shell", "control", "stdin", "iopub")])
async def test_a_reply_that_was_lost_in_the_gap_is_told(lost: Any) -> None:
    async with connected() as (ch, kernel, _, tasks):
        task = await in_flight(ch, tasks)
        kernel.client.cut(*lost)
        await anyio.sleep(0.3)
        kernel.client.mend(*lost)
        began = anyio.current_time()
        with pytest.raises(NoReply, match="lost while the connection was away") as caught:
            with anyio.fail_after(100):
                await task.done.wait()
            await task.result()
        assert caught.value.reason == "disconnected"
        assert anyio.current_time() - began < 3
        assert repr(ch).endswith("open>")


async def test_what_the_kernel_is_busy_with_is_not_lost_with_shell() -> None:
    async with connected() as (ch, kernel, answers, tasks):
        task = await in_flight(ch, tasks)
        answers.publish("status", answers.asked[0][1], execution_state="busy")
        await anyio.wait_all_tasks_blocked()
        kernel.client.cut("shell")
        kernel.client.mend("shell")
        await anyio.sleep(50)
        assert not task.done.is_set()
        kernel.reply(answers.asked[0])
        assert (await task.result()).msg_type == "inspect_reply"


@pytest.mark.parametrize("lost", [("stdin",), CHANNELS])
async def test_code_whose_question_may_be_lost_does_not_wait_without_end(
    lost: tuple[ChannelName, ...],
) -> None:
    async with connected() as (ch, kernel, answers, tasks):
        task = start(tasks, partial(executed, on_input=lambda *_: ""), ch, "input()")
        await anyio.wait_all_tasks_blocked()
        ((_, asked),) = answers.asked
        answers.publish("status", asked, execution_state="busy")
        # It waits for the answer, and nothing else is done meanwhile.
        answers.busy = anyio.Event()
        await anyio.wait_all_tasks_blocked()
        kernel.client.cut(*lost)
        kernel.client.mend(*lost)
        began = anyio.current_time()
        await task.done.wait()
        with pytest.raises(KernelDied, match="what it asked may be lost"):
            await task.result()
        assert 300 <= anyio.current_time() - began < 303


async def test_code_that_says_something_has_not_lost_its_question() -> None:
    async with connected() as (ch, kernel, answers, tasks):
        task = start(tasks, partial(executed, on_input=lambda *_: ""), ch, "input()")
        await anyio.wait_all_tasks_blocked()
        ((identity, asked),) = answers.asked
        answers.publish("status", asked, execution_state="busy")
        kernel.client.cut("stdin")
        kernel.client.mend("stdin")
        for _ in range(10):
            await anyio.sleep(250)
            answers.publish("stream", asked, name="stdout", text="x")
        kernel.reply((identity, asked))
        answers.publish("status", asked, execution_state="idle")
        execution, _ = await task.result()
        assert execution.outputs[0]["text"] == "x" * 10


async def test_a_kernel_that_hides_its_session_counts_as_restarted() -> None:
    async with connected(None) as (ch, kernel, _answers, tasks):
        task = await in_flight(ch, tasks)
        kernel.client.blink()
        assert (await told(task)).reason in ("restarted", "disconnected")
        await ch.request("kernel_info_request")
        assert ch.statistics().restarts == 1


async def test_one_channel_that_comes_back_is_the_same_kernel() -> None:
    async with connected(None) as (ch, kernel, answers, tasks):
        task = await in_flight(ch, tasks)
        kernel.client.cut("stdin")
        await anyio.sleep(0.1)
        kernel.client.mend("stdin")
        await anyio.sleep(0.1)
        assert ch.statistics().outages == 1
        kernel.reply(answers.asked[0])
        assert (await task.result()).msg_type == "inspect_reply"


@pytest.mark.parametrize("during", ["away", "unproven"])
async def test_what_is_in_flight_is_told_before_a_second_has_passed(during: str) -> None:
    async with connected() as (ch, kernel, answers, tasks):
        async with ch.open_comm("target") as comm:
            task = await in_flight(ch, tasks)
            cell = start(tasks, executed, ch, "1")
            reading = start(tasks, ch.shell.receive)
            await anyio.wait_all_tasks_blocked()
            answers.may = anyio.Event()
            began = anyio.current_time()
            kernel.client.cut()
            if during == "unproven":
                kernel.client.mend()
            for each in (task, cell):
                died = await told(each)
                assert died.reason == "disconnected"
                assert "is not back yet" in str(died)
            assert 0.5 < anyio.current_time() - began <= 0.9
            with pytest.raises(KernelDied):
                await comm.receive()
        # Streams and senders wait.
        later = start(tasks, executed, ch, "2")
        await anyio.sleep(3)
        assert not reading.done.is_set()
        answers.session = "second"
        answers.may.set()
        kernel.client.mend()
        await anyio.sleep(0.1)
        sent = next(asked for asked in answers.asked if asked[1].content.get("code") == "2")
        answers.publish("status", sent[1], execution_state="busy")
        kernel.reply(sent, session="second")
        answers.publish("status", sent[1], execution_state="idle")
        assert (await later.result())[0].complete
        assert (await reading.result()).msg_type == "execute_reply"
        assert ch.statistics().restarts == 1


async def test_what_does_not_come_back_is_given_up_and_named() -> None:
    async with connected() as (ch, kernel, _, tasks):
        reading = start(tasks, ch.shell.receive)
        sending = start(tasks, executed, ch, "1")
        await anyio.wait_all_tasks_blocked()
        began = anyio.current_time()
        kernel.client.cut("control")
        waiting = start(tasks, ch.wait_lost)
        await anyio.sleep(9)
        assert ch.lost is None
        died = await told(reading)
        assert str(died) == (
            "the connection of control to the kernel was lost, and did not come back within 10 s"
        )
        assert died.reason == "disconnected"
        assert anyio.current_time() - began == pytest.approx(10, abs=0.1)
        assert str(await waiting.result()) == str(died)
        assert (await told(sending)).reason == "disconnected"
        assert ch.status == "dead"
        with pytest.raises(KernelDied):
            await ch.shell.send(message("inspect_request"))


async def test_a_short_patience_is_kept() -> None:
    async with connected(reconnect_timeout=0.05) as (ch, kernel, _, tasks):
        task = await in_flight(ch, tasks)
        kernel.client.cut()
        assert "within 0.05 s" in str(await told(task))


async def test_patience_is_for_the_connection_and_not_for_the_kernel() -> None:
    async with connected(reconnect_timeout=1) as (ch, kernel, answers, _tasks):
        answers.may = anyio.Event()
        kernel.client.blink()
        await anyio.sleep(4)
        assert ch.lost is None
        answers.may.set()
        assert (await ch.request("kernel_info_request")).content["status"] == "ok"


async def test_iopub_that_blinks_behind_its_proof_is_proven_anew() -> None:
    async with connected() as (ch, kernel, answers, _tasks):
        answers.may = anyio.Event()
        kernel.client.cut()
        kernel.client.mend()
        await anyio.sleep(1)
        # Proof, and the kernel's word that it is the same one is awaited.
        kernel.say("stream", message("execute_request"))
        await anyio.sleep(0.1)
        kernel.client.cut("iopub")
        kernel.client.mend("iopub")
        await anyio.sleep(3)
        assert ch._core.life.away
        answers.may.set()
        await ch.request("kernel_info_request")


async def test_a_channel_that_is_lost_while_iopub_is_proven_again() -> None:
    async with connected() as (ch, kernel, answers, tasks):
        task = await in_flight(ch, tasks)
        answers.may = anyio.Event()
        kernel.client.cut("iopub")
        kernel.client.mend("iopub")
        await anyio.sleep(0.1)
        kernel.client.cut("shell")
        await anyio.sleep(0.1)
        answers.may.set()
        await anyio.sleep(0.1)
        assert ch.statistics().outages == 0
        kernel.client.mend("shell")
        with anyio.fail_after(100), pytest.raises(NoReply, match="lost while"):
            await task.result()
        assert ch.statistics().outages == 1


@pytest.mark.parametrize("session", ["first", "second"])
async def test_nothing_is_concluded_in_an_outage(session: str) -> None:
    async with connected() as (ch, kernel, answers, tasks):
        task = await in_flight(ch, tasks)
        answers.may = anyio.Event()
        answers.publish("status", answers.asked[0][1], execution_state="idle")
        # It has been asked behind that, and has not answered.
        await anyio.sleep(2)
        kernel.client.cut("shell", "iopub")
        await anyio.sleep(0.2)
        answers.session = session
        kernel.client.mend()
        await anyio.sleep(0.2)
        assert not task.done.is_set()
        answers.may.set()
        with pytest.raises((KernelDied, NoReply)) as caught:
            await task.result()
        if session == "first":
            assert isinstance(caught.value, NoReply)
            assert caught.value.reason == "disconnected"
        else:
            assert isinstance(caught.value, KernelDied)
            assert caught.value.reason == "restarted"


async def test_a_status_that_was_lost_in_an_outage_keeps_no_kernel_busy() -> None:
    async with connected() as (ch, kernel, answers, _tasks):
        answers.publish("status", message("execute_request"), execution_state="busy")
        await anyio.wait_all_tasks_blocked()
        assert ch.status == "busy"
        kernel.client.cut("iopub")
        kernel.client.mend("iopub")
        await anyio.sleep(0.5)
        # The main shell has answered since, to what was asked whether iopub is there.
        assert ch.status == "idle"


async def test_a_kernel_that_answers_nothing_is_not_waited_for_for_ever() -> None:
    async with connected() as (ch, kernel, answers, tasks):
        answers.may = anyio.Event()
        kernel.client.blink()
        sending = start(tasks, ch.shell.send, message("inspect_request"))
        with anyio.fail_after(8):
            await sending.done.wait()
        await sending.result()


def never(kernel: FakeKernel) -> None:
    async def wait(_: Any) -> None:
        await anyio.sleep_forever()

    kernel.on("inspect_request", wait)
    kernel.on("comm_open", lambda _: None)


async def test_a_fake_kernel_that_restarts() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        never(kernel)
        async with anyio.create_task_group() as tasks, ch.open_comm("target") as comm:
            task = await in_flight(ch, tasks)
            await kernel.restart()
            assert (await told(task)).reason == "restarted"
            with pytest.raises(KernelDied, match="restarted"):
                await comm.receive()
            with pytest.raises(KernelDied, match="restarted"):
                await comm.send({})
            # What comes after works.
            kernel.on("inspect_request", lambda _: {"found": False})
            assert (await ch.request("inspect_request", {})).content["found"] is False


async def test_what_waits_when_the_block_is_left_in_an_outage_is_told() -> None:
    sending: Any = None
    async with anyio.create_task_group() as outer:
        async with connected() as (ch, kernel, _, _tasks):
            kernel.client.cut()
            sending = start(outer, ch.shell.send, message("inspect_request"))
            await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.ClosedResourceError):
            await sending.result()


async def test_another_session_is_a_restart_however_little_the_first_was_said() -> None:
    async with conversation() as (ch, kernel, tasks):
        answers = Answers(kernel, "first")
        for channel in ("shell", "control"):
            tasks.start_soon(answers.run, channel)
        answers.publish("status", message("execute_request"), execution_state="idle")
        await anyio.wait_all_tasks_blocked()
        answers.session = "second"
        kernel.client.blink()
        await anyio.sleep(3)
        assert (ch.statistics().restarts, ch.statistics().outages) == (1, 0)


async def test_what_runs_behind_a_short_outage_is_waited_for_however_long() -> None:
    async with connected() as (ch, kernel, answers, tasks):
        task = start(tasks, executed, ch, "long")
        await anyio.wait_all_tasks_blocked()
        running = answers.asked[0]
        answers.publish("status", running[1], execution_state="busy")
        await anyio.wait_all_tasks_blocked()
        # Its shell answers nothing until the cell is done.
        answers.busy = anyio.Event()
        kernel.client.blink()
        await anyio.sleep(100)
        assert ch.statistics().outages == 1
        assert not task.done.is_set()
        kernel.reply(running)
        answers.publish("status", running[1], execution_state="idle")
        answers.busy.set()
        execution, _ = await task.result()
        assert execution.complete


async def test_a_kernel_that_is_lost_while_it_is_asked_is_asked_anew() -> None:
    async with connected() as (ch, kernel, answers, _tasks):
        answers.may = anyio.Event()
        kernel.client.blink()
        await anyio.sleep(0.5)
        # Another one is there before the first has answered, and what that was asked is lost.
        kernel.client.cut()
        answers.may.set()
        await anyio.sleep(0.1)
        kernel.client.mend()
        with anyio.fail_after(3):
            assert (await ch.request("kernel_info_request")).content["status"] == "ok"


@pytest.mark.parametrize("blinks", [1, 3])
async def test_a_kernel_that_is_slow_to_answer_behind_its_outages_is_had_back(blinks: int) -> None:
    """Behind ``reconnect_timeout`` as well: that is for the connection, and each blink is over at once."""
    async with open_fake_kernel() as kernel, kernel.open_channels(reconnect_timeout=5) as ch:
        await ch.run("1")
        kernel.go_silent()
        for _ in range(blinks):
            kernel.clients[0].cut()
            kernel.clients[0].mend()
            await anyio.sleep(4)
        await anyio.sleep(4)
        kernel.wake()
        with anyio.fail_after(60):
            assert (await ch.run("1")).status == "ok"


@pytest.mark.parametrize("restarts", [1, 2, 3])
async def test_a_kernel_that_was_restarted_more_than_once_is_another_one(restarts: int) -> None:
    """Though the connection may have come back to one of those between."""
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script("long", pause(3600))
        async with ch.execute("long") as execution:
            await kernel.transcript.wait_for("< iopub execute_input")
            for _ in range(restarts):
                await kernel.restart()
            with anyio.fail_after(60), pytest.raises(KernelDied) as caught:
                await execution.wait()
        assert caught.value.reason == "restarted"
        assert ch.statistics().restarts == 1


async def test_a_connection_that_was_had_back_has_its_time_anew() -> None:
    """Though the kernel had said nothing yet, so that it was one outage."""
    async with open_fake_kernel() as kernel, kernel.open_channels(reconnect_timeout=8) as ch:
        await ch.run("1")
        kernel.go_silent()
        kernel.clients[0].cut()
        await anyio.sleep(4)
        kernel.clients[0].mend()
        await anyio.sleep(0.5)
        kernel.clients[0].cut()
        await anyio.sleep(7)
        kernel.clients[0].mend()
        kernel.wake()
        with anyio.fail_after(60):
            assert (await ch.run("1")).status == "ok"


async def test_what_one_outage_has_put_in_doubt_another_does_not_take_back() -> None:
    """Though the kernel had said that it is busy with it: that was before the first."""
    async with (
        open_fake_kernel() as kernel,
        kernel.open_channels() as ch,
        kernel.open_channels() as other,
        anyio.create_task_group() as tasks,
    ):
        kernel.script("mine", pause(2))
        kernel.script("other", pause(600))
        mine = start(tasks, ch.run, "mine")
        await kernel.transcript.wait_for("< iopub execute_input")
        others = start(tasks, other.run, "other")
        await anyio.sleep(1.8)
        # It ends meanwhile, and the other one begins.
        kernel.clients[0].cut()
        await anyio.sleep(0.5)
        kernel.clients[0].mend()
        await anyio.sleep(100)
        kernel.clients[0].cut("shell")
        kernel.clients[0].mend("shell")
        with anyio.fail_after(700):
            await others.done.wait()
            await mine.done.wait()
        with pytest.raises(NoReply, match="while the connection was away"):
            await mine.result()
        assert ch.statistics().outages == 2


async def test_a_kernel_that_was_silent_behind_one_outage_is_known_behind_the_next() -> None:
    """It counted as restarted, and is the one that it was: its session is none of an earlier one."""
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        await ch.run("1")
        kernel.go_silent()
        kernel.clients[0].blink()
        await anyio.sleep(8)
        kernel.wake()
        await ch.run("2")
        assert ch.statistics().restarts == 1
        kernel.script("long", pause(2))
        for outages in (1, 2, 3):
            async with ch.execute("long") as execution:
                await anyio.sleep(0.2)
                kernel.clients[0].blink()
                with anyio.fail_after(60):
                    await execution.wait()
            assert (ch.statistics().restarts, ch.statistics().outages) == (1, outages)


async def test_a_kernel_that_goes_again_before_the_connection_is_complete_is_told_as_well() -> None:
    async with connected() as (ch, kernel, answers, _), ch.accept_comms("target") as comms:
        kernel.client.cut()
        kernel.client.mend("iopub")
        for session, restarts in (("second", 1), ("third", 2)):
            answers.session = session
            starting = answers.said("status", message(""), execution_state="starting")
            starting.parent_header.clear()
            kernel.end.publish(starting)
            if restarts == 1:
                content = {"comm_id": "second", "target_name": "target", "data": {}}
                answers.publish("comm_open", ch._core.prepare(request()), **content)
                comm = await comms.receive()
            await anyio.wait_all_tasks_blocked()
            assert ch.statistics().restarts == restarts
        kernel.client.mend()
        with pytest.raises(KernelDied, match="restarted"):
            await comm.send({})
        await ch.request("kernel_info_request")
        assert ch.statistics().restarts == 2


async def test_code_that_has_asked_and_was_answered_since_runs_for_any_time() -> None:
    """What it may have asked in an outage of stdin is none that it waits for any more."""
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script("code", pause(5), ask("name"), pause(3600))
        async with ch.execute("code", on_input=lambda *_: "ada") as execution:
            await kernel.transcript.wait_for("< iopub execute_input")
            kernel.clients[0].cut("stdin")
            kernel.clients[0].mend("stdin")
            assert (await execution.wait()).content["status"] == "ok"
