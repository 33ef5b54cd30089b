"""The fake kernel where two things happen at a time, where it is told to fail in between, and where it is told nonsense.

What an ipykernel does in the same place was looked at by hand, where it is no part of ``test_fake_as_real.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from enchannel import (
    KernelChannels,
    KernelDied,
    LocalProtocolError,
    Message,
    NoReply,
    messages,
)
from enchannel.messages import execute_request
from enchannel.testing import (
    FakeComm,
    Request,
    ask,
    display,
    open_fake_kernel,
    page,
    pause,
    result,
    stream,
)
from enchannel.testing._failures import is_failure
from helpers import fails, fails_when_ended
from virtual_clock import virtual_backend as anyio_backend  # noqa: F401

pytestmark = pytest.mark.anyio


async def text_of(ch: KernelChannels, code: str, **options: Any) -> str:
    async with ch.execute(code, **options) as execution:
        await execution.wait()
    return "".join(each.get("text", each.get("ename", "")) for each in execution.outputs)


# At a time.


async def test_control_runs_code_beside_a_cell() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script("long", pause(1), stream("done"))
        kernel.script("short", stream("beside"))
        async with ch.execute("long") as long:
            await kernel.transcript.wait_for("< iopub execute_input")
            assert await text_of(ch, "short", channel="control") == "beside"
            await long.wait()
        assert long.outputs[0]["text"] == "done"


async def test_an_error_on_control_aborts_nothing() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script("fail", pause(0.1), lambda _: {"ename": "E", "evalue": "", "traceback": []})
        for code in ("fail", "x"):
            await ch.main.send("control", execute_request(code))
        await kernel.transcript.wait_for("< control execute_reply", 2)
        replies = kernel.transcript.messages("< control execute_reply")
        assert [each.content["status"] for each in replies] == ["error", "ok"]


async def test_two_shells_ask_one_client_at_a_time() -> None:
    async with open_fake_kernel(subshells=True) as kernel, kernel.open_channels() as ch:
        kernel.script("main", ask("main? "))
        kernel.script("sub", ask("sub? "))
        async with ch.open_subshell() as subshell:
            async with (
                ch.execute("main", on_input=lambda prompt, _: f"for {prompt}") as main,
                subshell.execute("sub", on_input=lambda prompt, _: f"for {prompt}") as sub,
            ):
                await main.wait()
                await sub.wait()
        assert main.outputs[0]["text"] == "for main? "
        assert sub.outputs[0]["text"] == "for sub? "


async def test_the_messages_of_a_comm_have_the_parent_that_is_handled() -> None:
    async with open_fake_kernel(subshells=True) as kernel, kernel.open_channels() as ch:

        async def handler(comm: FakeComm, message: Message) -> None:
            await anyio.sleep(1)
            comm.send({"for": message.msg_id})

        kernel.on_comm("slow", handler)
        async with ch.open_subshell() as subshell:
            await ch.main.send("shell", messages.comm_open("c", "slow"))
            await kernel.transcript.wait_for("< iopub comm_msg")
            for options in ({}, {"subshell_id": subshell.subshell_id}):
                content = {"comm_id": "c", "data": {}}
                await ch.main.send("shell", messages.message("comm_msg", content, **options))
            await kernel.transcript.wait_for("< iopub comm_msg", 3)
        for each in kernel.transcript.messages("< iopub comm_msg"):
            assert each.content["data"]["for"] == each.parent_id


async def test_shells_count_together() -> None:
    async with open_fake_kernel(subshells=True) as kernel, kernel.open_channels() as ch:
        kernel.script("slow", pause(1), result("7"))
        async with ch.open_subshell() as subshell, ch.execute("slow") as slow:
            await kernel.transcript.wait_for("< iopub execute_input")
            await text_of_subshell(subshell)
            reply = await slow.wait()
        assert reply.content["execution_count"] == slow.outputs[0]["execution_count"] == 2


async def text_of_subshell(subshell: Any) -> None:
    async with subshell.execute("x") as execution:
        await execution.wait()


# In between.


async def test_a_step_may_kill_it() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script("crash", lambda request: request.kernel.die("on purpose"), stream("never"))
        with pytest.raises(KernelDied, match="on purpose"):
            await text_of(ch, "crash")
        await kernel.restart()
        async with kernel.open_channels() as again:
            assert await text_of(again, "x") == ""


async def test_silent_in_the_middle_of_a_cell_it_says_no_more_until_it_wakes() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script("a", stream("one"), lambda request: request.kernel.go_silent(), stream("two"))
        async with ch.execute("a") as execution:
            await kernel.transcript.wait_for("* went silent")
            await anyio.sleep(100)
            assert "< shell execute_reply" not in kernel.transcript.lines
            assert len(kernel.transcript.messages("< iopub stream")) == 1
            kernel.wake()
            await execution.wait()
        assert execution.outputs[0]["text"] == "onetwo"


async def test_an_interrupt_waits_until_it_wakes() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script("long", pause(3600))
        async with ch.execute("long") as execution:
            await kernel.transcript.wait_for("< iopub execute_input")
            await anyio.wait_all_tasks_blocked()
            kernel.go_silent()
            await kernel.interrupt()
            await anyio.sleep(100)
            assert kernel.transcript.lines[-1] == "* went silent"
            kernel.wake()
            reply = await execution.wait()
        assert reply.content["ename"] == "KeyboardInterrupt"


async def test_a_restart_ends_its_silence() -> None:
    async with open_fake_kernel() as kernel:
        kernel.go_silent()
        await kernel.restart()
        async with kernel.open_channels() as ch:
            assert (await ch.kernel_info())["implementation"] == "fake"


async def test_a_comm_that_was_closed_is_closed() -> None:
    comms: list[tuple[FakeComm, str]] = []
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.on_comm("it", lambda comm, message: comms.append((comm, message.msg_type)))
        await ch.main.send("shell", messages.comm_open("c", "it"))
        await kernel.transcript.wait_for("< iopub status idle")
        comms[0][0].close()
        await ch.main.send("shell", messages.comm_msg("c", {}))
        info = await ch.request(messages.comm_info_request())
        assert info.content["comms"] == {}
    assert [each for _, each in comms] == ["comm_open"]


async def test_a_transcript_stands_what_is_no_text() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.publish("status", {"execution_state": 5})
        await ch.shell.send({"msg_type": "x", "content": {"execution_state": ["y"]}})
        await kernel.transcript.wait_for("> shell x ['y']")
        assert "< iopub status 5" in kernel.transcript.lines


# As ipykernel.


@pytest.mark.parametrize(
    ("topic", "types"),
    [
        ("stream", {"stream"}),
        ("stream.stderr", set()),
        ("display_data", {"display_data"}),
        ("comm-c", {"comm_close"}),
        ("kernel.", {"execute_input", "execute_result"}),
    ],
)
async def test_what_is_published_has_the_topics_of_ipykernel(topic: str, types: set[str]) -> None:
    async with (
        open_fake_kernel() as kernel,
        kernel.open_channels(subscription=topic) as narrow,
        narrow.subscribe("iopub") as heard,
        kernel.open_channels() as ch,
    ):
        kernel.script("all", stream("x"), display("y"), result("z"))
        await text_of(ch, "all")
        await ch.main.send("shell", messages.comm_open("c", "nothing"))
        await ch.wait_idle()
        found = set()
        with anyio.move_on_after(1):
            async for _, message in heard:
                found.add(message.msg_type)
        assert found - {"status", "kernel_info_reply"} == types


@pytest.mark.parametrize(
    "request_",
    [
        messages.interrupt_request(),
        messages.create_subshell_request(),
        messages.debug_request("debugInfo", seq=1),
        messages.message("execute_request"),
        messages.message("complete_request", {"code": "x"}),
    ],
    ids=lambda request: request.msg_type,
)
async def test_what_ipykernel_does_not_answer_on_shell(request_: Message) -> None:
    async with (
        open_fake_kernel(subshells=True, debugger=True) as kernel,
        kernel.open_channels() as ch,
    ):
        with pytest.raises(NoReply):
            await ch.request(request_, channel="shell")


@pytest.mark.parametrize("expressions", [["a"], "x", 5])
async def test_expressions_without_names_are_not_answered(expressions: Any) -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        content = {"code": "x", "user_expressions": expressions}
        with pytest.raises(NoReply):
            await ch.request(messages.message("execute_request", content), channel="shell")
        assert kernel.execution_count == 1


@pytest.mark.parametrize("expression", [None, 5, {}, ["1"]])
async def test_an_expression_that_is_no_text_has_failed(expression: Any) -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        content = {"code": "x", "user_expressions": {"a": expression}}
        reply = await ch.request(messages.message("execute_request", content), channel="shell")
        assert reply.content["user_expressions"]["a"]["ename"] == "TypeError"


async def test_the_end_of_the_file_fails_who_asks() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script("a", ask("? "))
        assert await text_of(ch, "a", on_input=lambda *_: "\x04") == "EOFError"


# Nonsense.


@pytest.mark.parametrize(
    ("tell", "complaint"),
    [
        (lambda k: k.script("x", "hello"), "each step of the script for 'x' is a function"),
        (lambda k: k.script("x", [stream("a")]), "each step of the script for 'x' is a function"),
        (lambda k: k.script(5, stream("a")), "the code of a script is a str, not 5"),
        (lambda k: k.on("x", {"comms": {}}), "the handler of x is a function"),
        (lambda k: k.on(None, lambda _: None), "the type of a request is a str, not None"),
        (lambda k: k.on_comm("t", None), "the handler of 't' is a function, not None"),
        (lambda k: k.tamper("x"), "what tampers is a function"),
        (lambda k: k.script_expression("a", 5), "data is a MIME bundle or plain text, not 5"),
        (lambda _: display(5), "data is a MIME bundle or plain text, not 5"),
        (lambda _: result(None), "data is a MIME bundle or plain text, not None"),
        (lambda _: page(5), "data is a MIME bundle or plain text, not 5"),
        (lambda _: stream(5), "the text of a stream is a str, not 5"),
        (lambda _: ask(5), "the prompt is a str, not 5"),
    ],
)
async def test_nonsense_is_told_at_the_call(tell: Callable[[Any], object], complaint: str) -> None:
    async with open_fake_kernel() as kernel:
        with pytest.raises(LocalProtocolError, match=complaint):
            tell(kernel)


async def test_a_key_that_is_none_is_told() -> None:
    key: Any = 5
    with pytest.raises(LocalProtocolError, match="a key is text or bytes, not 5"):
        async with open_fake_kernel(key=key):
            pytest.fail("the block was entered")


async def test_what_a_handler_returned_is_named() -> None:
    def wrong(_: Request) -> Any:
        return "abc"

    with pytest.raises(TypeError, match="the handler of x_request returned 'abc'"):
        async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
            kernel.on("x_request", wrong)
            await ch.request("x_request", channel="shell")
    step: Any = pause
    with pytest.raises(TypeError, match="a step of 'x' returned <function"):
        async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
            kernel.script("x", step)
            await text_of(ch, "x")


# What a step raises.


class Verdict(BaseException):
    """As pytest's, which are no ``Exception``."""


async def test_a_verdict_in_a_step_is_raised_where_the_block_is_left() -> None:
    def judge(_: Request) -> None:
        try:
            raise ValueError("why")
        except ValueError as error:
            raise Verdict("not expected") from error

    with pytest.raises(Verdict, match="not expected") as told:
        async with open_fake_kernel() as kernel:
            kernel.script("x", judge)
            async with kernel.open_channels() as ch:
                # The channels' own error follows from it.
                await text_of(ch, "x")
    assert told.value is kernel.failure
    assert str(told.value.__cause__) == str(told.value.__context__) == "why"


async def test_exits_and_cancellations_are_no_verdicts() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        try:
            await anyio.lowlevel.checkpoint()
        except anyio.get_cancelled_exc_class() as error:
            cancelled = error
            raise
    for other in (KeyboardInterrupt(), SystemExit(), GeneratorExit(), cancelled):
        assert not is_failure(other)
        assert not is_failure(BaseExceptionGroup("", [Verdict(), other]))
    assert is_failure(ValueError())
    assert is_failure(BaseExceptionGroup("", [ValueError(), Verdict()]))


async def test_a_failure_is_raised_where_its_own_deadline_has_ended_the_block() -> None:
    with pytest.raises(ZeroDivisionError, match="the step's own"):
        with anyio.move_on_after(0.01):
            async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
                kernel.script("x", fails)
                with pytest.raises(KernelDied):
                    await text_of(ch, "x")
                await anyio.sleep_forever()


# Its lives.


async def test_what_has_failed_is_dead_and_is_not_restarted() -> None:
    with pytest.raises(ZeroDivisionError, match="the step's own"):
        async with open_fake_kernel() as kernel, anyio.create_task_group() as tasks:
            kernel.script("x", fails)
            tasks.start_soon(kernel.wait_dead)
            async with kernel.open_channels() as ch:
                with pytest.raises(KernelDied):
                    await text_of(ch, "x")
            with pytest.raises(RuntimeError, match="comes back no more: what it does has") as told:
                await kernel.restart()
            assert isinstance(told.value.__cause__, ZeroDivisionError)


async def test_a_failure_ends_a_restart_that_is_under_way() -> None:
    with pytest.raises(ZeroDivisionError, match="in the way"):
        async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
            kernel.script("x", fails_when_ended)
            await ch.shell.send(execute_request("x"))
            await kernel.transcript.wait_for("< iopub execute_input")
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(RuntimeError, match="comes back no more"):
                await kernel.restart()


async def test_behind_its_block_it_is_not_restarted() -> None:
    async with open_fake_kernel() as kernel:
        pass
    with pytest.raises(RuntimeError, match="comes back no more: its block was left"):
        await kernel.restart()


@pytest.mark.parametrize("later", range(6))
async def test_what_is_killed_while_it_restarts_is_dead(later: int) -> None:
    begun = anyio.Event()

    async def restart() -> None:
        begun.set()
        await kernel.restart()

    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(restart)
            await begun.wait()
            for _ in range(later):
                await anyio.lowlevel.checkpoint()
            kernel.die("killed again")
        assert "killed again" in str(await ch.wait_lost())
        with pytest.raises(KernelDied):
            await text_of(ch, "x")
        assert repr(kernel) == "<FakeKernel over memory dead>"
        await kernel.restart()
        async with kernel.open_channels() as again:
            assert await text_of(again, "x") == ""


async def test_a_death_is_told_however_soon_it_comes_back() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.die("for a moment")
        await kernel.restart()
        assert "for a moment" in str(await ch.wait_lost())


async def test_who_waits_for_it_to_wake_is_woken_by_a_restart() -> None:
    async with open_fake_kernel() as kernel, anyio.create_task_group() as tasks:
        kernel.go_silent()
        tasks.start_soon(kernel.wait_awake)
        await anyio.wait_all_tasks_blocked()
        await kernel.restart()
