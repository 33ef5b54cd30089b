"""Answers that are late and answers that never come, on a clock that jumps over the waiting."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import weakref
from typing import Any

import anyio
import attrs
import pytest

from enchannel import (
    Execution,
    KernelChannels,
    KernelDied,
    LocalProtocolError,
    Message,
    NoReply,
    NotImplementedByKernel,
    messages,
    open_channels,
)
from enchannel._core.bound import STALLED
from enchannel._core.life import Event
from enchannel._core.questions import KERNELS
from enchannel.testing import memory_transport_pair, open_fake_kernel, stream
from memory_kernel import Kernel, Task, answer_questions, conversation, executed, start
from raw_kernel import message
from virtual_clock import virtual_backend  # noqa: F401

pytestmark = pytest.mark.anyio


def never_asked(kernel: Kernel, channel: Any = "control") -> bool:
    """Whether the kernel has been asked nothing more."""
    with contextlib.suppress(anyio.WouldBlock):
        return not kernel.end.take(channel)
    return True


async def replied(kernel: Kernel) -> tuple[tuple[bytes, Message], tuple[bytes, Message]]:
    """Answers an execution but for its idle status, and returns it, and what the kernel is asked then."""
    asked = await kernel.asked()
    kernel.status(asked[1], "busy")
    kernel.reply(asked)
    return asked, await kernel.asked("control")


async def idled(kernel: Kernel) -> tuple[tuple[bytes, Message], tuple[bytes, Message]]:
    """Answers a request but for its reply, and returns it, and what the kernel is asked then."""
    asked = await kernel.asked()
    kernel.status(asked[1], "busy")
    kernel.status(asked[1], "idle")
    other = await kernel.asked()
    assert other[1].msg_type == "kernel_info_request"
    return asked, other


async def finished(task: Task) -> Any:
    with anyio.fail_after(1000):
        await task.done.wait()
    return await task.result()


async def replied_without_idle(kernel: Kernel, task: Task) -> tuple[bytes, Message]:
    """Answers what `task` asks but for the idle status, and returns it when that is done."""
    asked = await kernel.asked()
    kernel.status(asked[1], "busy")
    await anyio.wait_all_tasks_blocked()
    kernel.reply(asked)
    await finished(task)
    return asked


async def test_what_was_asked_of_a_subshell_is_forgotten_when_it_is_answered() -> None:
    async with conversation() as (ch, kernel, tasks):
        newest = ch._core.requests.questions.newest
        for subshell in ("a", "b"):
            request = messages.message("inspect_request", {}, subshell_id=subshell)
            task = start(tasks, ch.request, request)
            asked = await kernel.asked()
            other = await kernel.asked()
            assert other[1].header["subshell_id"] == subshell
            assert newest("shell", subshell) is not None
            for each in (asked, other):
                kernel.status(each[1], "busy")
                kernel.reply(each)
                kernel.status(each[1], "idle")
            await finished(task)
            await anyio.wait_all_tasks_blocked()
            del task
            gc.collect()
            assert newest("shell", subshell) is None


# An execution that has its reply, and not its idle status.


async def test_an_aborted_execution_ends_behind_its_reply() -> None:
    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, executed, ch, "1")
        kernel.status(message("other_request"), "busy")
        kernel.reply(await kernel.asked(), status="aborted")
        execution, _ = await finished(task)
        assert execution.reply.content["status"] == "aborted"
        assert never_asked(kernel)


async def test_what_is_still_on_its_way_behind_a_reply_is_waited_for() -> None:
    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, executed, ch, "1")
        asked, other = await replied(kernel)
        kernel.reply(other, "control")
        await anyio.sleep(25)
        assert not task.done.is_set()
        kernel.say("stream", asked[1], name="stdout", text="late")
        kernel.status(asked[1], "idle")
        execution, seen = await finished(task)
        assert seen == ["status", "stream", "status"]
        assert execution._run.idle
        # What answers that reaches no stream.
        assert ch.statistics().backlog["control"] == 0


async def test_an_idle_that_a_later_one_overtakes_never_comes() -> None:
    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, executed, ch, "1")
        _, other = await replied(kernel)
        assert not task.done.is_set()
        kernel.status(other[1], "busy")
        execution, seen = await finished(task)
        assert (seen, execution._run.idle, execution.complete) == (["status"], False, True)
        kernel.status(other[1], "idle")
        kernel.reply(other, "control")
        on_shell = await kernel.asked()
        kernel.reply(on_shell)
        kernel.status(on_shell[1], "idle")
        await anyio.wait_all_tasks_blocked()
        assert len(ch._core.requests._filed) == 0


@pytest.mark.parametrize("channel", ["control", "shell"])
async def test_a_kernel_that_publishes_nothing_for_control_is_asked_on_shell(channel: Any) -> None:
    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, executed, ch, "1")
        _, other = await replied(kernel)
        if channel == "shell":
            kernel.reply(other, "control")
            other = await kernel.asked()
        began = anyio.current_time()
        kernel.status(other[1], "busy")
        assert (await finished(task))[0].complete
        assert anyio.current_time() - began < 1


async def test_iopub_that_falls_silent_for_good_has_an_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with conversation() as (ch, kernel, tasks):
        async with ch.execute("1") as execution:
            task = start(tasks, execution.wait)
            asked = await kernel.asked()
            kernel.status(asked[1], "busy")
            await anyio.wait_all_tasks_blocked()
            kernel.client.inbound["iopub"].stall()
            kernel.reply(asked)
            tasks.start_soon(answer_questions, kernel, "shell", "control")
            began = anyio.current_time()
            with caplog.at_level(logging.WARNING, "enchannel"):
                await finished(task)
            assert 30 < anyio.current_time() - began < 33
            assert execution.complete
            assert "outputs may be incomplete" in caplog.text


async def test_the_first_execution_waits_for_iopub_though_no_status_was_seen_before() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script("1", stream("out"))
        iopub = kernel.clients[0].inbound["iopub"]
        iopub.stall()
        async with ch.execute("1") as execution, anyio.create_task_group() as tasks:
            task = start(tasks, execution.wait)
            await anyio.sleep(4)
            assert not task.done.is_set()
            iopub.resume()
            await finished(task)
            assert [output["text"] for output in execution.outputs] == ["out"]


async def test_where_no_status_can_be_seen_none_is_waited_for() -> None:
    transport, end = memory_transport_pair("key")
    transport.sees_everything = False
    kernel = Kernel(end)
    async with open_channels(transport) as ch, anyio.create_task_group() as tasks:
        task = start(tasks, executed, ch, "1")
        asked = await kernel.asked()
        kernel.say("stream", asked[1], name="stdout", text="out")
        kernel.reply(asked)
        began = anyio.current_time()
        assert (await finished(task))[1] == ["stream"]
        assert anyio.current_time() - began < 2
        assert never_asked(kernel)


async def test_a_kernel_that_answers_nothing_else_is_done() -> None:
    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, executed, ch, "1")
        _, other = await replied(kernel)
        began = anyio.current_time()
        execution, _ = await finished(task)
        assert 10 <= anyio.current_time() - began < 11
        assert execution.complete
        assert never_asked(kernel)
        # It keeps nothing of the execution, and what answers in the end reaches no stream.
        gone = weakref.ref(execution)
        del execution, task
        await anyio.sleep(1)
        gc.collect()
        assert gone() is None
        kernel.reply(other, "control")
        kernel.status(other[1], "busy")
        kernel.status(other[1], "idle")
        await anyio.wait_all_tasks_blocked()
        assert set(ch.statistics().backlog.values()) == {0}


async def test_what_is_never_answered_does_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("enchannel._core.questions.EXCLUSIVE", 3)
    async with conversation() as (ch, kernel, _):
        for _ in range(5):
            ch._core.requests.questions.ask("control")
        asked = [(await kernel.asked("control"))[1].msg_id for _ in range(5)]
        assert list(ch._core.requests._filed) == asked[-3:]


async def test_what_a_kernel_long_gone_was_asked_is_forgotten() -> None:
    async with conversation() as (ch, kernel, _):
        requests = ch._core.requests
        requests.questions.ask("control")
        _, asked = await kernel.asked("control")
        for _ in range(KERNELS - 1):
            ch._core.happen(Event.NEW_SESSION)
            # Its answer may still be on the way.
            assert (len(requests.questions), [*requests._filed]) == (1, [asked.msg_id])
        ch._core.happen(Event.NEW_SESSION)
        assert (len(requests.questions), [*requests._filed]) == (0, [])


async def test_that_control_is_silent_holds_nobody_up_who_waits_for_shell() -> None:
    async with conversation() as (ch, kernel, tasks):
        requests = ch._core.requests
        for channel in ("control", "shell"):
            requests.questions.ask(channel)
        shell = start(tasks, requests.questions.all_answered, "shell")
        control = start(tasks, requests.questions.all_answered, "control")
        tasks.start_soon(answer_questions, kernel, "shell")
        await shell.result()
        await anyio.wait_all_tasks_blocked()
        assert not control.done.is_set()


async def test_a_kernel_that_drops_what_it_published_is_asked_again() -> None:
    async with conversation() as (ch, kernel, tasks):
        async with ch.execute("2") as execution:
            task = start(tasks, execution.wait)
            _, other = await replied(kernel)
            kernel.reply(other, "control")
            await anyio.sleep(20)
            assert not task.done.is_set()
            assert never_asked(kernel)
            # Something else is here, and nothing behind it: the kernel may have dropped what answers.
            kernel.say("stream", message("other_request"), name="stdout", text="other")
            kernel.reply(await kernel.asked("control"), "control")
            # What answers the first comes behind it as well, however long that took.
            kernel.say("stream", execution.request, name="stdout", text="late")
            await anyio.wait_all_tasks_blocked()
            kernel.status(other[1], "busy")
            await finished(task)
            assert [each["text"] for each in execution.outputs] == ["late"]


async def polled(execution: Execution) -> Message:
    while True:
        with anyio.move_on_after(0.01):
            return await execution.wait()


@pytest.mark.parametrize("waiters", [1, 3])
async def test_however_many_wait_and_how_shortly_the_kernel_is_asked_once(waiters: int) -> None:
    async with conversation() as (ch, kernel, tasks):
        async with ch.execute("1") as execution:
            polling = [start(tasks, polled, execution) for _ in range(waiters)]
            await replied(kernel)
            for task in polling:
                assert (await finished(task)).msg_type == "execute_reply"
            assert never_asked(kernel)


async def waiting_on_shell(kernel: Kernel) -> list[tuple[bytes, Message]]:
    asked = []
    with anyio.move_on_after(0.1):
        while True:
            asked.append(await kernel.end.receive("shell"))
    return asked


def questions_among(asked: list[tuple[bytes, Message]]) -> int:
    return sum(each.msg_type == "kernel_info_request" for _, each in asked)


async def test_a_kernel_that_is_busy_for_long_finds_no_heap_of_questions() -> None:
    async with conversation() as (ch, kernel, tasks):
        waiting = start(tasks, ch.wait_idle)
        for _ in range(500):
            with anyio.move_on_after(2):
                await ch.request("complete_request", {"code": "x", "cursor_pos": 1})
        asked = await waiting_on_shell(kernel)
        assert len(asked) - questions_among(asked) == 500
        assert 2 < questions_among(asked) < 15
        for each in asked:
            kernel.reply(each)
        tasks.start_soon(answer_questions, kernel, "shell")
        await finished(waiting)


async def test_nor_does_it_where_iopub_goes_on_and_control_says_nothing_there() -> None:
    async with conversation() as (ch, kernel, tasks):
        executing = start(tasks, executed, ch, "1")
        asked, first = await replied(kernel)
        kernel.reply(first, "control")
        tasks.start_soon(functools.partial(answer_questions, kernel, "control", publishes=False))
        for _ in range(500):
            kernel.say("stream", message("other_request"), name="stdout", text="other")
            await anyio.sleep(0.5)
        waiting = await waiting_on_shell(kernel)
        assert 2 < questions_among(waiting) == len(waiting) < 15
        assert not executing.done.is_set()
        kernel.status(asked[1], "idle")
        await finished(executing)


async def test_a_question_for_one_that_asks_for_no_more_than_the_reply_waits_for_whoever_listens() -> (
    None
):
    async with conversation() as (ch, kernel, tasks):
        request = messages.execute_request("input()", allow_stdin=True)
        asking = start(tasks, ch.request, request)
        asked = await kernel.asked()
        kernel.ask(asked, prompt="name")
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(10):
            assert (await ch.stdin.receive()).content["prompt"] == "name"
        kernel.reply(asked)
        await finished(asking)


async def test_one_question_answers_for_all_that_are_silent() -> None:
    async with conversation() as (ch, kernel, tasks):
        waiting = [start(tasks, executed, ch, str(number)) for number in range(50)]
        for _ in waiting:
            asked = await kernel.asked()
            kernel.status(asked[1], "busy")
            kernel.reply(asked)
        other = await kernel.asked("control")
        kernel.status(other[1], "busy")
        for task in waiting:
            await finished(task)
        assert never_asked(kernel)


async def test_each_message_postpones_the_question() -> None:
    async with conversation() as (ch, kernel, tasks):
        async with ch.execute("1") as execution:
            task = start(tasks, execution.wait)
            asked = await kernel.asked()
            kernel.reply(asked)
            for _ in range(5):
                await anyio.sleep(0.9)
                kernel.say("stream", asked[1], name="stdout", text="more")
            assert never_asked(kernel)
            kernel.status(asked[1], "idle")
            await finished(task)


# A request that has its idle status, and not its reply.


async def test_a_request_that_is_not_implemented_raises() -> None:
    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, ch.request, "history_request", {"hist_access_type": "tail"})
        _, other = await idled(kernel)
        await anyio.wait_all_tasks_blocked()
        assert not task.done.is_set()
        kernel.reply(other)
        with pytest.raises(NotImplementedByKernel, match="history_request, and no reply came"):
            await finished(task)
        assert set(ch.statistics().backlog.values()) == {0}


@pytest.mark.parametrize("seconds", [2, 4, 8])
async def test_the_first_reply_of_a_connection_may_be_late(seconds: float) -> None:
    async with conversation() as (ch, kernel, tasks):
        async with ch.execute("2", subshell_id="sub") as execution:
            task = start(tasks, execution.wait)
            asked, other = await idled(kernel)
            assert other[1].header["subshell_id"] == "sub"
            await anyio.sleep(seconds)
            reply = kernel.reply(asked)
            kernel.reply(other)
            assert (await finished(task)).msg_id == reply.msg_id


async def test_a_reply_on_the_other_channel_is_not_overtaken() -> None:
    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, ch.request, "history_request", {})
        asked, other = await idled(kernel)
        reply = kernel.reply(asked, "control")
        kernel.reply(other)
        assert (await finished(task)).msg_id == reply.msg_id


async def test_a_kernel_that_answers_nothing_at_all_has_an_end() -> None:
    async with conversation() as (ch, kernel, tasks):
        async with ch.execute("1") as execution:
            polling = [start(tasks, polled, execution) for _ in range(3)]
            await idled(kernel)
            for task in polling:
                with pytest.raises(NoReply):
                    await finished(task)


async def outcome_of(ch: KernelChannels, kernel: Kernel, request: Message) -> NoReply:
    """What is said of a request with an idle status and no reply."""
    async with anyio.create_task_group() as tasks:
        task = start(tasks, ch.request, request)
        _, other = await idled(kernel)
        kernel.reply(other)
        with pytest.raises(NoReply) as caught:
            await finished(task)
    return caught.value


async def test_what_every_kernel_implements_was_lost() -> None:
    async with conversation() as (ch, kernel, _):
        lost = await outcome_of(ch, kernel, messages.execute_request("1"))
        assert type(lost) is NoReply
        assert "lose it when they are interrupted" in str(lost)


async def test_a_request_that_lacks_a_field_is_told_which() -> None:
    async with conversation() as (ch, kernel, _):
        lost = await outcome_of(ch, kernel, messages.message("complete_request", {"code": "x"}))
        assert type(lost) is NoReply
        assert "its content has no cursor_pos" in str(lost)


async def test_a_reply_that_was_dropped_here_is_told() -> None:
    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, ch.request, "history_request", {})
        asked = await kernel.asked()
        kernel.end.give("shell", [asked[0], b"<IDS|MSG>", b"cut off"])
        kernel.status(asked[1], "idle")
        kernel.reply(await kernel.asked())
        with pytest.raises(NoReply, match=r"dropped here \(MalformedMessage\)") as caught:
            await finished(task)
        assert caught.value.reason == "dropped"


async def test_a_reply_that_an_interrupt_took_is_told() -> None:
    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, ch.request, "history_request", {})
        asked = await kernel.asked()
        kernel.status(asked[1], "busy")
        interrupting = start(tasks, ch.interrupt)
        kernel.reply(await kernel.asked("control"), "control")
        await finished(interrupting)
        kernel.status(asked[1], "idle")
        kernel.reply(await kernel.asked())
        with pytest.raises(NoReply, match="interrupted meanwhile") as caught:
            await finished(task)
        assert caught.value.reason == "interrupted"


async def test_a_reply_that_is_lost_is_told_to_who_waits_for_it_and_to_no_body() -> None:
    async def ponder(prompt: str, password: bool) -> str:
        await anyio.sleep(60)
        return "too late"

    async with conversation() as (ch, kernel, _):
        async with ch.execute("input()", on_input=ponder) as execution:
            identity, asked = await kernel.asked()
            kernel.status(asked, "busy")
            kernel.ask((identity, asked), prompt="?")
            await anyio.wait_all_tasks_blocked()
            # It was interrupted.
            kernel.status(asked, "idle")
            kernel.reply(await kernel.asked())
            await anyio.sleep(120)
            with pytest.raises(NoReply):
                await execution.wait()
        with pytest.raises(anyio.WouldBlock):
            kernel.end.take("stdin")


# A request of which nothing at all is here.


async def test_a_request_with_neither_reply_nor_status_has_an_end() -> None:
    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, ch.request, "unheard_of_request", {})
        tasks.start_soon(answer_questions, kernel, "shell", "control")
        began = anyio.current_time()
        with pytest.raises(NotImplementedByKernel):
            await finished(task)
        assert 10 <= anyio.current_time() - began < 12


async def test_it_has_one_where_iopub_is_silent_as_well() -> None:
    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, ch.request, "unheard_of_request", {})
        tasks.start_soon(
            functools.partial(answer_questions, kernel, "shell", "control", publishes=False)
        )
        began = anyio.current_time()
        with pytest.raises(NotImplementedByKernel):
            await finished(task)
        assert 30 <= anyio.current_time() - began < 35


async def test_a_request_that_has_begun_and_says_no_more_has_an_end() -> None:
    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, ch.request, "unheard_of_request", {})
        kernel.status((await kernel.asked())[1], "busy")
        tasks.start_soon(answer_questions, kernel, "shell", "control")
        began = anyio.current_time()
        with pytest.raises(NotImplementedByKernel):
            await finished(task)
        assert 60 <= anyio.current_time() - began < 62


async def test_code_that_has_begun_runs_for_any_time() -> None:
    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, ch.request, "execute_request", {"code": "1"})
        asked = await kernel.asked()
        kernel.status(asked[1], "busy")
        # Beside it, for that matter.
        tasks.start_soon(answer_questions, kernel, "shell", "control")
        await anyio.sleep(3600)
        kernel.reply(asked)
        await finished(task)


async def test_code_that_was_left_and_catches_interrupts_gets_them_for_as_long_as_it_runs() -> None:
    async with conversation() as (ch, kernel, tasks):
        with anyio.CancelScope() as scope:
            async with ch.execute("1", interrupt_on_cancel=True) as execution:
                kernel.status((await kernel.asked())[1], "busy")
                await anext(execution)
                scope.cancel()
        # What is asked beside it is answered; of the code nothing is said any more.
        tasks.start_soon(answer_questions, kernel, "shell", "control")
        await anyio.sleep(150)
        asked = [each.msg_type for _, each in kernel.asked_on["control"]]
        # Each after twice as long: 1 s, 2 s, ... 64 s.
        assert asked.count("interrupt_request") == 8


async def test_a_request_on_control_waits_behind_one_that_the_kernel_is_at() -> None:
    """Though control has answered nothing yet: it is no kernel that never does."""
    async with conversation() as (ch, kernel, tasks):
        first = start(tasks, functools.partial(ch.request, channel="control"), "x_request", {})
        asked = await kernel.asked("control")
        kernel.status(asked[1], "busy")
        second = start(tasks, functools.partial(ch.request, channel="control"), "x_request", {})
        other = await kernel.asked("control")
        await anyio.sleep(3600)
        assert not second.done.is_set()
        for each, task in ((asked, first), (other, second)):
            kernel.reply(each, "control")
            await finished(task)


async def test_a_request_that_waits_its_turn_waits_for_ever() -> None:
    async with conversation() as (ch, kernel, tasks):
        # Another client's cell runs, of which nothing was seen; control is answered.
        tasks.start_soon(answer_questions, kernel, "control")
        task = start(tasks, ch.request, "inspect_request", {})
        asked = await kernel.asked()
        await anyio.sleep(3600)
        assert not task.done.is_set()
        (other,) = [await kernel.asked()]
        reply = kernel.reply(asked)
        kernel.reply(other)
        assert (await finished(task)).msg_id == reply.msg_id


async def test_a_status_that_is_held_up_says_that_a_silent_request_has_begun() -> None:
    async with conversation() as (ch, kernel, tasks):
        # Handles several requests at a time, and iopub is slow.
        tasks.start_soon(answer_questions, kernel, "shell", "control")
        kernel.client.inbound["iopub"].stall()
        task = start(tasks, ch.request, "inspect_request", {})
        await anyio.sleep(20)
        asked, *questions = kernel.asked_on["shell"]
        # One behind the request, and one behind what was published, which may come on either.
        assert (len(questions), len(kernel.asked_on["control"])) == (2, 1)
        # Sent before what answers the question, as far as the slow connection is concerned.
        kernel.client.inbound["iopub"].clear()
        kernel.status(asked[1], "busy")
        kernel.client.inbound["iopub"].resume()
        await anyio.sleep(50)
        assert not task.done.is_set()
        kernel.reply(asked)
        await finished(task)


async def test_an_interrupt_reply_may_be_empty_and_come_on_shell() -> None:
    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, ch.interrupt)
        identity, asked = await kernel.asked("control")
        reply = message("interrupt_reply", asked)
        kernel.end.send("shell", identity, attrs.evolve(reply, content=None))
        await finished(task)


async def test_an_interrupt_that_nobody_answers_has_an_end() -> None:
    async with conversation() as (ch, _, _tasks):
        with anyio.fail_after(6), pytest.raises(NoReply, match="interrupt_request"):
            await ch.interrupt()


async def test_an_interrupt_on_the_way_out_is_bounded() -> None:
    async with conversation() as (ch, _, _tasks):
        with anyio.fail_after(5), pytest.raises(ZeroDivisionError):
            async with ch.execute("while True: pass", interrupt_on_cancel=True):
                raise ZeroDivisionError


# Filing.


async def test_one_id_is_in_flight_once() -> None:
    async with conversation() as (ch, kernel, tasks):
        sent = await ch.shell.send(messages.inspect_request("x"))
        await kernel.asked()
        again = message("inspect_request", code="y")
        again.header["msg_id"] = sent.msg_id
        first = start(tasks, ch.request, again)
        asked = await kernel.asked()
        with pytest.raises(LocalProtocolError, match="is in flight already"):
            await ch.request(sent)
        kernel.reply(asked)
        await finished(first)


async def test_who_reads_a_bounded_stream_may_ask_in_between() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels(max_buffer_size=1) as ch:
        kernel.script("chatty", *[stream(str(number)) for number in range(20)])
        await ch.main.send("shell", messages.execute_request("chatty"))
        with anyio.fail_after(100):
            for _ in range(20):
                await ch.main.receive()
                await ch.request("is_complete_request", {"code": "1"})


# Idle, or not.


async def test_a_kernel_whose_idle_was_lost_is_idle_all_the_same() -> None:
    async with conversation() as (ch, kernel, tasks):
        kernel.status(message("execute_request"), "busy")
        while ch.status != "busy":
            await anyio.sleep(0.01)
        waiting = start(tasks, ch.wait_idle)
        asked = await kernel.asked()
        await anyio.sleep(100)
        assert not waiting.done.is_set()
        kernel.reply(asked)
        await finished(waiting)
        assert ch.status == "idle"


@pytest.mark.parametrize("comes", [True, False])
async def test_statuses_may_be_a_moment_behind_the_replies(comes: bool) -> None:
    async with conversation() as (ch, kernel, tasks):
        waiting = start(tasks, ch.wait_idle)
        asked = await kernel.asked()
        other = message("execute_request")
        kernel.status(other, "busy")
        kernel.reply(asked)
        await anyio.sleep(0.1)
        assert not waiting.done.is_set()
        if comes:
            kernel.status(other, "idle")
            kernel.status(asked[1], "busy")
            kernel.status(asked[1], "idle")
        with anyio.fail_after(1):
            await finished(waiting)
        assert ch.status == ("idle" if comes else "busy")


async def test_a_kernel_that_is_done_with_a_later_request_is_done_with_the_earlier_one() -> None:
    async with conversation() as (ch, kernel, _):
        kernel.status(message("execute_request"), "busy")
        other = message("execute_request")
        kernel.status(other, "busy")
        while ch.status != "busy":
            await anyio.sleep(0.01)
        # The idle of the first was lost.
        kernel.status(other, "idle")
        await anyio.wait_all_tasks_blocked()
        assert ch.status == "idle"


async def test_the_idle_of_our_own_question_may_never_come() -> None:
    async with conversation() as (ch, kernel, tasks):
        waiting = start(tasks, ch.wait_idle)
        await replied_without_idle(kernel, waiting)
        assert ch.status == "idle"


async def test_a_busy_kernel_that_is_joined_is_not_idle() -> None:
    async with conversation() as (ch, kernel, tasks):
        tasks.start_soon(answer_questions, kernel, "control")
        await ch.request("kernel_info_request", channel="control")
        kernel.status(message("kernel_info_request"), "busy")
        kernel.status(message("kernel_info_request"), "idle")
        waiting = start(tasks, ch.wait_idle)
        await anyio.sleep(100)
        assert ch.status != "idle"
        assert not waiting.done.is_set()
        kernel.reply(await kernel.asked())
        await finished(waiting)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("lost", [True, False])
async def test_who_waits_for_idle_is_told_of_the_end(lost: bool, alone: bool) -> None:
    transport, end = memory_transport_pair("key")
    async with anyio.create_task_group() as tasks:
        async with open_channels(transport) as ch:
            waiting = start(tasks, ch.wait_idle)
            await anyio.wait_all_tasks_blocked()
            if not alone:
                with anyio.move_on_after(0.1):
                    await ch.wait_idle()
            if lost:
                end.vanish("gone")
                with pytest.raises(KernelDied, match="gone"):
                    await finished(waiting)
                assert ch.status == "dead"
                assert (await ch.wait_lost()) is ch.lost
                with pytest.raises(KernelDied):
                    await ch.wait_idle()
        if not lost:
            with pytest.raises(anyio.ClosedResourceError):
                await finished(waiting)
        for call in (ch.wait_idle, ch.kernel_info):
            with pytest.raises(anyio.ClosedResourceError):
                await call()


async def test_a_request_that_is_over_is_busy_no_longer() -> None:
    async with conversation() as (ch, kernel, tasks):
        kernel.status(message("execute_request"), "busy")
        task = start(tasks, ch.request, "inspect_request", {})
        asked = await replied_without_idle(kernel, task)
        # What the main shell had begun before is over with it.
        assert ch.status == "idle"
        kernel.status(asked[1], "busy")
        await anyio.wait_all_tasks_blocked()
        assert ch.status == "idle"


async def test_who_waits_for_idle_again_and_again_asks_once() -> None:
    async with conversation() as (ch, kernel, tasks):

        async def polled_idle() -> None:
            while True:
                with anyio.move_on_after(0.01):
                    return await ch.wait_idle()

        waiting = [start(tasks, polled_idle) for _ in range(3)]
        asked = await kernel.asked()
        await anyio.sleep(10)
        assert never_asked(kernel, "shell")
        kernel.reply(asked)
        # From now on it answers at once: each call asks behind everything that came before it.
        tasks.start_soon(answer_questions, kernel, "shell")
        for task in waiting:
            await finished(task)


async def test_a_question_that_was_put_off_is_asked_for_whoever_waits_for_it_then() -> None:
    async with conversation() as (ch, kernel, tasks):
        questions = ch._core.requests.questions
        questions.ask("shell")
        put_off = questions.inquire("shell", None, anyio.current_time())
        assert not put_off.sent
        # Nobody waits for it any more, so that nobody looks.
        await anyio.sleep(5)
        assert not ch._core.ticking
        waiting = start(tasks, ch.wait_idle)
        tasks.start_soon(answer_questions, kernel, "shell")
        await finished(waiting)


async def test_a_question_that_an_interrupt_took_is_asked_again() -> None:
    async with conversation() as (ch, kernel, tasks):
        waiting = start(tasks, ch.wait_idle)
        request = start(tasks, ch.request, "inspect_request", {"code": "x", "cursor_pos": 0})
        await anyio.sleep(5)
        assert questions_among(await waiting_on_shell(kernel))
        start(tasks, ch.interrupt)
        tasks.start_soon(answer_questions, kernel, "shell")
        await finished(waiting)
        with pytest.raises(NoReply, match="interrupted"):
            await finished(request)


async def test_what_is_asked_already_does_not_stand_for_what_came_later() -> None:
    async with conversation() as (ch, kernel, tasks):
        with anyio.move_on_after(0.1):
            await ch.wait_idle()
        first = await kernel.asked()
        waiting = start(tasks, ch.wait_idle)
        await anyio.sleep(1)
        assert never_asked(kernel, "shell")
        kernel.reply(first)
        second = await kernel.asked()
        await anyio.sleep(1)
        assert not waiting.done.is_set()
        kernel.reply(second)
        await finished(waiting)


async def test_an_idle_status_does_where_the_answer_was_dropped_here() -> None:
    async with conversation() as (ch, kernel, tasks):
        waiting = start(tasks, ch.wait_idle)
        asked = await kernel.asked()
        kernel.status(asked[1], "busy")
        kernel.end.give("shell", [asked[0], b"<IDS|MSG>", b"cut off"])
        kernel.status(asked[1], "idle")
        await finished(waiting)


async def test_what_is_over_says_nothing_of_the_next_kernel() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        async with ch.execute("1") as execution:
            await execution.wait()
            kernel.go_silent()
            ch._core.happen(Event.NEW_SESSION)
            assert ch.status == "unknown"
        assert ch.status == "unknown"


async def test_a_control_channel_on_which_nothing_ever_answers_has_an_end() -> None:
    async with conversation() as (ch, kernel, tasks):
        tasks.start_soon(answer_questions, kernel, "shell")
        task = start(tasks, ch.request, messages.create_subshell_request())
        began = anyio.current_time()
        with pytest.raises(NotImplementedByKernel):
            await finished(task)
        assert anyio.current_time() - began < 15


async def test_what_is_over_there_is_given_up_soon() -> None:
    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, ch.request, messages.create_subshell_request())
        asked = await kernel.asked("control")
        kernel.status(asked[1], "busy")
        kernel.status(asked[1], "idle")
        began = anyio.current_time()
        with pytest.raises(NotImplementedByKernel):
            await finished(task)
        assert 2 <= anyio.current_time() - began < 3


async def test_who_iterates_an_execution_is_told_that_the_channels_were_left() -> None:
    async with anyio.create_task_group() as tasks:
        async with conversation() as (ch, kernel, _):
            iterating = start(tasks, executed, ch, "1")
            await kernel.asked()
            await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.ClosedResourceError):
            await finished(iterating)


@pytest.mark.parametrize("size", [1, 10])
@pytest.mark.parametrize("name", ["main", "iopub"])
async def test_who_reads_a_bounded_stream_may_run_code_in_between(name: str, size: int) -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels(max_buffer_size=size) as ch:
        kernel.script("chatty", *[stream(str(number)) for number in range(50)])
        reading = getattr(ch, name)
        await ch.shell.send(messages.execute_request("chatty"))
        with anyio.fail_after(1000):
            await reading.receive()
            for _ in range(5):
                async with ch.execute("chatty") as execution:
                    await execution.wait()
                assert len(execution.outputs) == 1
                await reading.receive()
                await ch.wait_idle()


async def test_a_stream_that_nobody_reads_holds_up_nobody_again_and_again() -> None:
    async with conversation(max_buffer_size=3) as (ch, kernel, tasks), ch.subscribe("iopub"):
        task = start(tasks, executed, ch, "1")
        asked = await kernel.asked()
        for number in range(20):
            kernel.say("stream", asked[1], name="stdout", text="x")
            await anyio.wait_all_tasks_blocked()
            if number == 4:
                await anyio.sleep(2 * STALLED)
            elif number > 4:
                # It is known to be full, and that it holds up nobody.
                assert ch.statistics().received["iopub"] == number + 1
        kernel.reply(asked)
        kernel.status(asked[1], "idle")
        execution, _ = await finished(task)
        assert execution.outputs[0]["text"] == "x" * 20


async def test_the_reply_of_the_next_kernel_tells_of_it_before_any_status() -> None:
    async with conversation() as (ch, kernel, tasks):
        for _ in range(3):
            task = start(tasks, ch.request, "inspect_request", {})
            asked = await kernel.asked()
            kernel.status(asked[1], "busy")
            kernel.status(asked[1], "idle")
            await anyio.wait_all_tasks_blocked()
            kernel.reply(asked)
            await task.result()
        lost = start(tasks, ch.request, "inspect_request", {})
        await kernel.asked()
        answered = start(tasks, ch.request, "complete_request", {})
        kernel.reply(await kernel.asked(), session="the next one's")
        with pytest.raises(KernelDied) as caught:
            await lost.result()
        assert caught.value.reason == "restarted"
        assert ch.statistics().restarts == 1
        assert (await answered.result()).msg_type == "complete_reply"
