"""Requests and executions against a kernel that answers as the test says, in memory."""

from __future__ import annotations

import gc
import time
from typing import Any

import anyio
import pytest

from enchannel import (
    KernelDied,
    LocalProtocolError,
    ReplyError,
    messages,
    open_channels,
    raise_for_status,
)
from enchannel.testing import Request, memory_transport_pair, open_fake_kernel, stream
from memory_kernel import Kernel, conversation, executed, start
from raw_kernel import message

pytestmark = pytest.mark.anyio


async def test_each_of_many_requests_gets_its_own_reply() -> None:
    async with conversation() as (ch, kernel, tasks):
        waiting = [start(tasks, ch.request, messages.inspect_request(str(n))) for n in range(50)]
        asked = [await kernel.asked() for _ in waiting]
        replies = {r[1].content["code"]: kernel.reply(r) for r in reversed(asked)}
        for number, task in enumerate(waiting):
            assert (await task.result()).msg_id == replies[str(number)].msg_id


@pytest.mark.parametrize("idle_first", [True, False])
async def test_reply_and_idle_come_in_either_order(idle_first: bool) -> None:
    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, executed, ch, "1")
        asked = await kernel.asked()
        kernel.status(asked[1], "busy")
        if idle_first:
            kernel.status(asked[1], "idle")
            await anyio.wait_all_tasks_blocked()
            assert not task.done.is_set()
        reply = kernel.reply(asked, execution_count=7)
        if not idle_first:
            await anyio.wait_all_tasks_blocked()
            assert not task.done.is_set()
            kernel.status(asked[1], "idle")
        execution, seen = await task.result()
        assert seen == ["status", "status"]
        assert execution.reply.msg_id == reply.msg_id
        assert (execution.execution_count, execution.complete) == (7, True)


async def test_a_reply_of_another_type_on_another_channel_is_the_reply() -> None:
    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, ch.request, messages.interrupt_request())
        identity, request = await kernel.asked("control")
        odd = message("none", request)
        kernel.end.send("shell", identity, odd)
        assert (await task.result()).msg_id == odd.msg_id


async def test_what_nobody_asked_for_answers_nothing() -> None:
    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, ch.request, "inspect_request", {})
        asked = await kernel.asked()
        stranger = message("inspect_request")
        kernel.end.send("shell", asked[0], message("inspect_reply", stranger))
        kernel.end.send("shell", asked[0], message("comm_open", asked[1], comm_id="c"))
        kernel.status(stranger, "idle")
        await anyio.wait_all_tasks_blocked()
        assert not task.done.is_set()
        assert (await ch.shell.receive()).parent_id == stranger.msg_id
        reply = kernel.reply(asked)
        assert (await task.result()).msg_id == reply.msg_id


async def test_interleaved_conversations_stay_apart() -> None:
    async with conversation() as (ch, kernel, tasks):
        running = [start(tasks, executed, ch, code) for code in "ab"]
        asked = {r[1].content["code"]: r for r in [await kernel.asked(), await kernel.asked()]}
        for text in "123":
            for code, (_, request) in asked.items():
                kernel.say("stream", request, name="stdout", text=code + text)
        for request in asked.values():
            kernel.reply(request)
            kernel.status(request[1], "idle")
        outputs = [(await task.result())[0].outputs for task in running]
        assert [output["text"] for (output,) in outputs] == ["a1a2a3", "b1b2b3"]


async def test_output_behind_the_idle_is_reachable() -> None:
    async with conversation() as (ch, kernel, _):
        async with ch.execute("thread()") as execution:
            asked = await kernel.asked()
            kernel.reply(asked)
            kernel.status(asked[1], "idle")
            assert [msg.msg_type async for msg in execution] == ["status"]
            kernel.say("stream", asked[1], name="stdout", text="late")
            await anyio.wait_all_tasks_blocked()
            assert [msg.content["text"] async for msg in execution] == ["late"]
            assert execution.outputs[0]["text"] == "late"
        kernel.say("stream", asked[1], name="stdout", text="later")
        assert (await ch.iopub.receive()).content["text"] == "later"


async def test_outputs_need_not_be_kept() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script("much", *[stream(f"{number}\n") for number in range(100)])
        async with ch.execute("much", keep_outputs=False) as execution:
            told = [msg.content["text"] async for msg in execution if msg.msg_type == "stream"]
            assert (await execution.wait()).content["status"] == "ok"
        assert len(told) == 100
        assert (execution.outputs, execution.text) == ([], "")
        with pytest.raises(LocalProtocolError, match="keep_outputs is True or False"):
            ch.execute("much", keep_outputs=0)  # type: ignore[arg-type]


async def test_several_tasks_may_wait_for_one_execution() -> None:
    async with conversation() as (ch, kernel, tasks):
        async with ch.execute("1") as execution:
            waiting = [start(tasks, execution.wait) for _ in range(3)]
            asked = await kernel.asked()
            await anyio.wait_all_tasks_blocked()
            kernel.status(asked[1], "idle")
            reply = kernel.reply(asked)
            for task in waiting:
                assert (await task.result()).msg_id == reply.msg_id


async def test_a_lost_kernel_is_told_to_every_waiter() -> None:
    async with conversation() as (ch, kernel, tasks):
        waiting = [start(tasks, ch.request, "inspect_request", {}) for _ in range(10)]
        waiting += [start(tasks, executed, ch, "1"), start(tasks, ch.wait_idle)]
        await anyio.wait_all_tasks_blocked()
        kernel.end.vanish("gone")
        for task in waiting:
            with pytest.raises(KernelDied, match="gone"):
                await task.result()


async def test_a_reply_that_is_in_is_returned_though_the_kernel_died() -> None:
    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, ch.request, "shutdown_request", {"restart": False})
        reply = kernel.reply(await kernel.asked("control"), "control")
        kernel.end.vanish("gone")
        assert (await task.result()).msg_id == reply.msg_id


async def test_leaving_the_block_ends_who_waits() -> None:
    transport, _ = memory_transport_pair()
    async with anyio.create_task_group() as tasks:
        async with open_channels(transport) as ch:
            task = start(tasks, ch.request, "inspect_request", {})
            await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.ClosedResourceError):
            await task.result()


async def test_a_cancelled_request_leaves_nothing_behind() -> None:
    async with conversation() as (ch, _, _tasks):
        for _ in range(3):
            with anyio.move_on_after(0.01):
                await ch.request("inspect_request", {})
        assert len(ch._core.requests) == 0


async def test_idles_behind_their_replies_do_not_pile_up() -> None:
    async with conversation() as (ch, kernel, tasks):
        for _ in range(5):
            task = start(tasks, ch.request, "inspect_request", {})
            asked = await kernel.asked()
            kernel.status(asked[1], "busy")
            kernel.reply(asked)
            await task.result()
            kernel.status(asked[1], "idle")
            await anyio.wait_all_tasks_blocked()
        assert set(ch.statistics().backlog.values()) == {0}
        assert ch.status == "idle"


@pytest.mark.parametrize("asynchronous", [True, False])
async def test_prompts_are_answered_with_their_header(asynchronous: bool) -> None:
    asked_for = []

    def answer(prompt: str, password: bool) -> str:
        asked_for.append((prompt, password))
        return "me"

    async def answer_later(prompt: str, password: bool) -> str:
        await anyio.sleep(0)
        return answer(prompt, password)

    async with conversation() as (ch, kernel, tasks):
        on_input = answer_later if asynchronous else answer
        task = start(tasks, lambda: executed(ch, "input()", on_input=on_input))
        identity, request = await kernel.asked()
        assert request.content["allow_stdin"] is True
        for content in ({"prompt": "who?"}, {"prompt": None, "password": True}):
            prompt = message("input_request", request, **content)
            kernel.end.send("stdin", identity, prompt)
            _, reply = await kernel.asked("stdin")
            assert reply.parent_header == prompt.header
            assert reply.content == {"status": "ok", "value": "me"}
        kernel.reply((identity, request))
        kernel.status(request, "idle")
        await task.result()
    assert asked_for == [("who?", False), ("", True)]


async def test_without_a_handler_a_prompt_is_a_message() -> None:
    async with conversation() as (ch, kernel, _):
        async with ch.execute("input()") as execution:
            identity, request = await kernel.asked()
            assert request.content["allow_stdin"] is False
            kernel.ask((identity, request), prompt="?")
            prompt = await execution.__anext__()
            await ch.main.send("stdin", messages.input_reply("me", prompt))
            _, reply = await kernel.asked("stdin")
            assert reply.parent_header["msg_id"] == prompt.msg_id


async def test_a_handler_that_fails_fails_the_execution() -> None:
    def fail(prompt: str, password: bool) -> str:
        raise ZeroDivisionError

    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, lambda: executed(ch, "input()", on_input=fail))
        asked = await kernel.asked()
        kernel.ask(asked)
        with pytest.raises(ZeroDivisionError):
            await task.result()


async def test_a_handler_is_cancelled_with_its_execution() -> None:
    cancelled = anyio.Event()

    async def ponder(prompt: str, password: bool) -> str:
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    async with conversation() as (ch, kernel, _):
        async with ch.execute("input()", on_input=ponder):
            asked = await kernel.asked()
            kernel.ask(asked)
            await anyio.wait_all_tasks_blocked()
            assert not cancelled.is_set()
        assert cancelled.is_set()


@pytest.mark.parametrize("end", ["reply", "idle", "loss"])
async def test_a_handler_is_cancelled_when_its_code_is_over(end: str) -> None:
    """A late answer would be another cell's."""
    asked_for, given_up = [], anyio.Event()

    async def ponder(prompt: str, password: bool) -> str:
        asked_for.append(prompt)
        try:
            await anyio.sleep_forever()
        finally:
            given_up.set()

    async with conversation() as (ch, kernel, _):
        async with ch.execute("input()", on_input=ponder):
            asked = await kernel.asked()
            kernel.ask(asked, prompt="?")
            await anyio.wait_all_tasks_blocked()
            if end == "reply":
                kernel.reply(asked, status="error")
            elif end == "idle":
                kernel.status(asked[1], "idle")
            else:
                kernel.end.vanish()
            with anyio.fail_after(10):
                await given_up.wait()
            kernel.ask(asked, prompt="late")
            await anyio.wait_all_tasks_blocked()
    assert asked_for == ["?"]


async def test_cancellation_interrupts_where_asked() -> None:
    async with conversation() as (ch, kernel, tasks):
        with anyio.CancelScope() as scope:

            async def obey() -> None:
                asked = await kernel.asked()
                scope.cancel()
                interrupt = await kernel.asked("control")
                assert interrupt[1].msg_type == "interrupt_request"
                kernel.reply(interrupt, "control")
                kernel.reply(asked, status="error")
                kernel.status(asked[1], "idle")

            tasks.start_soon(obey)
            async with ch.execute("while True: pass", interrupt_on_cancel=True) as execution:
                await execution.wait()
        assert scope.cancelled_caught
        assert execution.complete


async def test_a_program_that_is_cancelled_hears_the_answer_to_its_interrupt() -> None:
    # What is cancelled encloses the channels as well: they live until their block is left.
    transport, end = memory_transport_pair("key")
    kernel = Kernel(end)
    async with anyio.create_task_group() as tasks:
        program = anyio.CancelScope()

        async def obey() -> None:
            asked = await kernel.asked()
            program.cancel()
            kernel.reply(await kernel.asked("control"), "control")
            kernel.reply(asked, status="error")
            kernel.status(asked[1], "idle")

        tasks.start_soon(obey)
        with program:
            async with open_channels(transport) as ch:
                async with ch.execute("while True: pass", interrupt_on_cancel=True) as execution:
                    await execution.wait()
        assert program.cancelled_caught
        assert execution.complete


async def test_code_that_asks_anew_has_given_up_its_first_question() -> None:
    given_up = anyio.Event()

    async def answer(prompt: str, password: bool) -> str:
        if prompt == "first":
            try:
                await anyio.sleep_forever()
            finally:
                given_up.set()
        return f"answer to {prompt}"

    async with conversation() as (ch, kernel, _):
        async with ch.execute("input()", on_input=answer):
            identity, asked = await kernel.asked()
            for prompt in ("first", "second"):
                question = message("input_request", asked, prompt=prompt, password=False)
                kernel.end.send("stdin", identity, question)
                await anyio.wait_all_tasks_blocked()
            assert given_up.is_set()
            assert (await kernel.asked("stdin"))[1].content["value"] == "answer to second"


async def test_nothing_is_interrupted_for_what_was_not_sent() -> None:
    async with conversation() as (ch, kernel, _):
        with pytest.raises(LocalProtocolError, match="metadata is no JSON"):
            async with ch.execute("1", metadata={"x": object()}, interrupt_on_cancel=True):
                pytest.fail("the block was entered")
        await ch.control.send({"header": {"msg_type": "x_request"}})
        assert (await kernel.asked("control"))[1].msg_type == "x_request"


async def test_who_waits_for_an_execution_whose_block_was_left_is_told() -> None:
    async with conversation() as (ch, _, tasks):
        async with ch.execute("1") as execution:
            waiting = start(tasks, execution.wait)
            await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.ClosedResourceError):
            await waiting.result()
        with pytest.raises(anyio.ClosedResourceError):
            await execution.wait()


async def test_waiting_takes_no_message_from_who_iterates() -> None:
    async with conversation() as (ch, kernel, tasks):
        async with ch.execute("1") as execution:
            waiting = start(tasks, execution.wait)
            asked = await kernel.asked()
            for number in range(10):
                kernel.say("stream", asked[1], name="stdout", text=str(number))
            kernel.reply(asked)
            kernel.status(asked[1], "idle")
            await waiting.result()
            texts = [msg.content.get("text") async for msg in execution]
            assert texts == [*map(str, range(10)), None]


async def test_facts_that_were_refused_are_asked_for_again() -> None:
    async with conversation() as (ch, kernel, tasks):
        first = start(tasks, ch.kernel_info)
        kernel.reply(await kernel.asked(), status="aborted")
        with pytest.raises(ReplyError):
            await first.result()
        second = start(tasks, ch.kernel_info)
        kernel.reply(await kernel.asked(), banner="hello")
        assert (await second.result())["banner"] == "hello"


def test_replies_that_are_no_success_can_be_raised() -> None:
    assert raise_for_status(reply := message("execute_reply")) is reply
    failed = message("execute_reply", status="error", ename="E", evalue="why", traceback=["t"])
    with pytest.raises(ReplyError, match=r"^E: why\n\nt$") as caught:
        raise_for_status(failed)
    assert (caught.value.ename, caught.value.traceback) == ("E", ["t"])
    with pytest.raises(ReplyError, match="not successful: aborted"):
        raise_for_status(message("execute_reply", status="aborted"))


@pytest.mark.parametrize(
    ("arguments", "options", "complaint"),
    [
        ((3,), {}, "a request is a message type or a Message, not int"),
        (("input_request",), {}, "goes to stdin, where nothing replies"),
        ((message("status"),), {}, "goes to iopub, where nothing replies"),
        ((message("inspect_request"), {}), {}, "content goes with a message type"),
        (("inspect_request",), {"channel": "nowhere"}, "unknown channel 'nowhere'"),
        (("inspect_request",), {"channel": []}, r"unknown channel \[\]"),
        (("inspect_request",), {"channel": ""}, "unknown channel ''"),
    ],
)
async def test_what_is_no_request_is_refused(arguments: Any, options: Any, complaint: str) -> None:
    async with conversation() as (ch, _, _tasks):
        with pytest.raises(LocalProtocolError, match=complaint):
            with anyio.fail_after(10):
                await ch.request(*arguments, **options)


async def test_code_that_is_no_text_is_refused_at_the_call() -> None:
    async with conversation() as (ch, _, _tasks):
        with pytest.raises(LocalProtocolError, match="code is a str, not bytes"):
            ch.execute(b"1")  # type: ignore[arg-type]


@pytest.mark.parametrize("subshell_id", ["", 5, ["s"]])
async def test_a_subshell_that_is_none_is_refused_at_the_call(subshell_id: Any) -> None:
    async with conversation() as (ch, _, _tasks):
        with pytest.raises(LocalProtocolError, match="subshell_id is a text that is not empty, or"):
            ch.execute("1", subshell_id=subshell_id)


@pytest.mark.parametrize("check", ["no", 1, None])
async def test_whether_an_error_is_raised_is_said_in_python(check: Any) -> None:
    async with conversation() as (ch, kernel, _tasks):
        with pytest.raises(LocalProtocolError, match=f"check is True or False, not {check!r}"):
            with anyio.fail_after(10):
                await ch.run("1", check=check)
        sent = await ch.shell.send(message("x_request"))
        assert (await kernel.asked())[1] == sent


@pytest.mark.parametrize("name", ["silent", "stop_on_error", "interrupt_on_cancel"])
@pytest.mark.parametrize("value", ["yes", 1, None])
async def test_yes_and_no_are_said_in_python(name: str, value: Any) -> None:
    async with conversation() as (ch, _, _tasks):
        options: Any = {name: value}
        with pytest.raises(LocalProtocolError, match=f"{name} is True or False, not {value!r}"):
            ch.execute("1", **options)


async def test_the_kernel_is_asked_for_its_facts_once_a_session() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        info = await ch.kernel_info()
        assert await ch.kernel_info() == info
        assert len(kernel.transcript.messages("> control kernel_info_request")) == 1
        await kernel.restart()
        await ch.request("is_complete_request", {"code": "1"})
        assert ch.statistics().restarts == 1
        await ch.kernel_info()
        # One of them asked whether it was there again.
        assert len(kernel.transcript.messages("> control kernel_info_request")) == 3


async def test_everybody_has_his_own_copy_of_the_kernels_facts() -> None:
    nested: list[Any] = []
    for _ in range(450):
        nested = [nested]
    facts = {"supported_features": ["kernel subshells"], "banner": nested}
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.on("kernel_info_request", lambda request: facts)
        info: Any = await ch.kernel_info()
        same: Any = await ch.kernel_info()
        assert info == same
        assert info["banner"] is not same["banner"]
        info["supported_features"].clear()
        del info["banner"]
        assert await ch.kernel_info() == same


async def test_a_program_that_was_away_has_missed_no_answer() -> None:
    async with conversation() as (ch, kernel, tasks):
        for _ in range(2):
            async with ch.execute("1") as execution:
                task = start(tasks, execution.wait)
                asked = await kernel.asked()
                kernel.reply(asked)
                while execution.reply is None:
                    await anyio.sleep(0.001)
                kernel.status(asked[1], "idle")
                # Longer than the kernel's silence would mean anything.
                time.sleep(1.3)
                await task.result()
                assert execution._run.idle
            with pytest.raises(anyio.WouldBlock):
                kernel.end.take("control")


async def test_who_iterates_takes_no_question_from_who_answers() -> None:
    async with conversation() as (ch, kernel, tasks):
        task = start(tasks, lambda: executed(ch, "input()", on_input=lambda *_: "me"))
        identity, request = await kernel.asked()
        for _ in range(50):
            # Both at once: who iterates may run before who answers.
            kernel.ask((identity, request), prompt="?")
            kernel.say("stream", request, name="stdout", text="")
            with anyio.fail_after(30):
                _, reply = await kernel.asked("stdin")
            assert reply.content["value"] == "me"
        kernel.reply((identity, request))
        kernel.status(request, "idle")
        await task.result()


async def test_a_cancelled_wait_leaves_the_question_to_the_next() -> None:
    async with conversation() as (ch, kernel, tasks), ch.execute("input()") as execution:
        identity, request = await kernel.asked()
        kernel.ask((identity, request), prompt="who?")
        await anyio.wait_all_tasks_blocked()
        # Nothing can be sent, so that the answer waits.
        kernel.client.cut("control")
        with anyio.move_on_after(0.05):
            await execution.wait()
        kernel.client.mend("control")
        waiting = start(tasks, execution.wait)
        _, reply = await kernel.asked("stdin")
        assert reply.content["value"] == ""
        kernel.reply((identity, request))
        kernel.status(request, "idle")
        await waiting.result()


@pytest.mark.parametrize("iterated", [True, False])
async def test_a_kernel_that_asks_although_it_may_not(
    iterated: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with conversation() as (ch, kernel, tasks), ch.execute("input()") as execution:
        identity, request = await kernel.asked()
        if iterated:
            iterating = start(tasks, execution.__anext__)
            await anyio.wait_all_tasks_blocked()
        waiting = start(tasks, execution.wait)
        with caplog.at_level("WARNING", "enchannel"):
            kernel.ask((identity, request), prompt="who?")
            await anyio.wait_all_tasks_blocked()
        if iterated:
            assert (await iterating.result()).msg_type == "input_request"
            assert caplog.text == ""
        else:
            _, reply = await kernel.asked("stdin")
            assert reply.content["value"] == ""
            assert "although it may not ('who?')" in caplog.text
        kernel.reply((identity, request))
        kernel.status(request, "idle")
        await waiting.result()


async def test_an_empty_text_that_waits_is_not_sent_once_the_code_is_over() -> None:
    """It would be taken for an answer to what asks then."""
    async with conversation() as (ch, kernel, tasks), ch.execute("input()") as execution:
        identity, request = await kernel.asked()
        kernel.ask((identity, request), prompt="who?")
        await anyio.wait_all_tasks_blocked()
        # Nothing can be sent.
        kernel.client.cut("control")
        waiting = start(tasks, execution.wait)
        await anyio.wait_all_tasks_blocked()
        kernel.reply((identity, request), status="error")
        kernel.status(request, "idle")
        await waiting.result()
        kernel.client.mend("control")
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.WouldBlock):
            kernel.end.take("stdin")


async def test_a_kernel_that_asks_although_it_may_not_behind_a_break(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with conversation() as (ch, kernel, tasks), ch.execute("input()") as execution:
        identity, request = await kernel.asked()
        kernel.end.send("iopub", b"stream", message("stream", request, name="stdout", text="woo"))
        async for _ in execution:
            break
        waiting = start(tasks, execution.wait)
        kernel.ask((identity, request), prompt="who?")
        _, reply = await kernel.asked("stdin")
        assert reply.content["value"] == ""
        kernel.reply((identity, request))
        kernel.status(request, "idle")
        await waiting.result()


@pytest.mark.parametrize("how", ["dies", "away"])
async def test_nobody_is_asked_for_a_kernel_that_is_gone(how: str) -> None:
    asked = []

    async def answer(prompt: str, password: bool) -> str:
        asked.append(prompt)
        if how == "dies":
            fake.die("killed")
            await anyio.sleep(0.1)
        return "ada"

    async def step(request: Request) -> None:
        if how == "away":
            # The prompt arrives all the same.
            fake.clients[0].cut("shell", "control", "iopub")
        await request.input("name? ")

    async with open_fake_kernel() as fake, fake.open_channels() as ch:
        fake.script("x", step)
        with pytest.raises(KernelDied):
            async with ch.execute("x", on_input=answer) as execution:
                # It does something else meanwhile.
                await anyio.sleep(2)
                await execution.wait()
    assert asked == ["name? "]


async def test_a_display_is_updated_from_anywhere_while_somebody_holds_it() -> None:
    async with conversation() as (ch, kernel, _):
        async with ch.execute("1") as execution:
            asked = await kernel.asked()
            for text in ("old", "old"):
                shown = {"data": {"text/plain": text}, "metadata": {}}
                kernel.say("display_data", asked[1], **shown, transient={"display_id": "x"})
            kernel.reply(asked)
            kernel.status(asked[1], "idle")
            await execution.wait()
            outputs = execution.outputs
        del execution
        gc.collect()
        for parent in (message("execute_request"), asked[1], message("comm_msg")):
            kernel.say(
                "update_display_data",
                parent,
                data={"text/plain": parent.msg_id},
                metadata={},
                transient={"display_id": "x"},
            )
            with anyio.fail_after(10):
                while outputs[1]["data"] != {"text/plain": parent.msg_id}:
                    await anyio.sleep(0.001)
            assert outputs[0]["data"] == outputs[1]["data"]
        registered = ch._conversations.displays._shown
        assert len(registered) == 1
        del outputs
        gc.collect()
        assert not len(registered)
