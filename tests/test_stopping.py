"""Executions that are left before they are complete: what is interrupted, when, and what is not."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from enchannel import KernelChannels, KernelDied, LocalProtocolError, Message, open_channels
from enchannel._conversations.stopping import AGAIN
from enchannel.testing import FakeKernel, MemoryKernelEnd, ask, open_fake_kernel, pause, stream
from memory_kernel import Kernel, conversation
from raw_kernel import message
from virtual_clock import virtual_backend  # noqa: F401

pytestmark = pytest.mark.anyio

OTHERS = message("execute_request", session="somebody else")


@asynccontextmanager
async def running(
    *, behind: bool = False, **options: Any
) -> AsyncIterator[tuple[KernelChannels, Kernel, Any]]:
    """A kernel that says what it does, busy with somebody else's cell where ours is to wait behind it."""
    async with conversation(**options) as (ch, kernel, tasks):
        kernel.status(OTHERS, "busy")
        if not behind:
            kernel.status(OTHERS, "idle")
        with anyio.fail_after(10):
            while ch.status != ("busy" if behind else "idle"):
                await anyio.sleep(0.001)
        yield ch, kernel, tasks


def begin(kernel: Kernel, asked: tuple[bytes, Message]) -> None:
    kernel.status(asked[1], "busy")
    kernel.say("execute_input", asked[1], code="1", execution_count=1)


def end(kernel: Kernel, asked: tuple[bytes, Message], status: str = "error") -> None:
    kernel.reply(asked, status=status)
    kernel.status(asked[1], "idle")


async def interrupted(kernel: Kernel) -> None:
    asked = await kernel.asked("control")
    assert asked[1].msg_type == "interrupt_request"
    kernel.reply(asked, "control")


async def is_not_interrupted(ch: KernelChannels, kernel: Kernel) -> None:
    """What comes on control is what is sent there now, and nothing before it."""
    await anyio.wait_all_tasks_blocked()
    await ch.control.send({"header": {"msg_type": "x_request"}})
    asked = "kernel_info_request"
    while asked == "kernel_info_request":
        asked = (await kernel.asked("control"))[1].msg_type
    assert asked == "x_request"


async def test_what_waits_behind_somebody_elses_cell_is_interrupted_when_it_begins() -> None:
    async with running(behind=True) as (ch, kernel, _):
        with anyio.fail_after(1), anyio.CancelScope() as scope:
            async with ch.execute("1", interrupt_on_cancel=True) as execution:
                asked = await kernel.asked()
                scope.cancel()
                await execution.wait()
        assert not execution.complete
        await is_not_interrupted(ch, kernel)
        kernel.status(OTHERS, "idle")
        begin(kernel, asked)
        await interrupted(kernel)
        end(kernel, asked)
        await anyio.wait_all_tasks_blocked()
        assert not len(ch._core.requests)


async def test_it_is_not_where_it_is_over_by_then() -> None:
    async with running(behind=True) as (ch, kernel, _):
        with anyio.CancelScope() as scope:
            async with ch.execute("1", interrupt_on_cancel=True):
                asked = await kernel.asked()
                scope.cancel()
        kernel.status(OTHERS, "idle")
        begin(kernel, asked)
        end(kernel, asked)
        await is_not_interrupted(ch, kernel)


async def test_an_end_that_has_arrived_and_was_not_read_counts() -> None:
    async with running() as (ch, kernel, _):
        async with ch.execute("1", interrupt_on_cancel=True) as execution:
            asked = await kernel.asked()
            begin(kernel, asked)
            await anext(execution)
            end(kernel, asked, "ok")
        assert execution.complete
        await is_not_interrupted(ch, kernel)


async def test_an_interrupt_waits_for_the_first_line() -> None:
    async with running() as (ch, kernel, tasks):

        async def obey(asked: tuple[bytes, Message]) -> None:
            # ipykernel ignores what comes between the two.
            kernel.status(asked[1], "busy")
            await anyio.sleep(0.02)
            with pytest.raises(anyio.WouldBlock):
                kernel.end.take("control")
            kernel.say("execute_input", asked[1], code="1", execution_count=1)
            await interrupted(kernel)
            end(kernel, asked)

        with anyio.CancelScope() as scope:
            async with ch.execute("1", interrupt_on_cancel=True) as execution:
                tasks.start_soon(obey, await kernel.asked())
                scope.cancel()
                await execution.wait()
        assert execution.complete


@pytest.mark.parametrize("way", ["break", "exception", "cancellation"])
async def test_it_is_interrupted_in_whatever_way_it_is_left(way: str) -> None:
    async with running() as (ch, kernel, tasks):

        async def obey(asked: tuple[bytes, Message]) -> None:
            await interrupted(kernel)
            end(kernel, asked)

        with anyio.CancelScope() as scope:
            try:
                async with ch.execute("1", interrupt_on_cancel=True) as execution:
                    asked = await kernel.asked()
                    begin(kernel, asked)
                    tasks.start_soon(obey, asked)
                    async for _ in execution:
                        if way == "exception":
                            raise ZeroDivisionError
                        if way == "cancellation":
                            scope.cancel()
                            continue
                        break
            except ZeroDivisionError:
                pass
        assert execution.complete


async def test_an_interrupt_that_is_lost_is_sent_again() -> None:
    async with running() as (ch, kernel, tasks):

        async def obey(asked: tuple[bytes, Message]) -> None:
            for _ in range(2):
                await interrupted(kernel)
            end(kernel, asked)

        async with ch.execute("1", interrupt_on_cancel=True) as execution:
            asked = await kernel.asked()
            begin(kernel, asked)
            tasks.start_soon(obey, asked)
        assert execution.complete


async def test_code_that_has_shown_the_error_of_its_interrupt_is_given_time_to_end() -> None:
    """A kernel that says it slowly would show a second one; code that goes on behind it is interrupted again."""
    sent = []
    async with running() as (ch, kernel, tasks):

        async def obey(asked: tuple[bytes, Message]) -> None:
            for _ in range(2):
                await interrupted(kernel)
                sent.append(anyio.current_time())
                await anyio.sleep(0.75 * AGAIN)
                kernel.say("error", asked[1], ename="KeyboardInterrupt", evalue="", traceback=[])
            end(kernel, asked)

        async with ch.execute("1", interrupt_on_cancel=True):
            asked = await kernel.asked()
            begin(kernel, asked)
            tasks.start_soon(obey, asked)
        while len(ch._core.requests):
            await anyio.sleep(0.1)
    assert 1.7 * AGAIN < sent[1] - sent[0] < 1.8 * AGAIN


async def test_a_subshell_is_not_interrupted_for_that_would_hit_the_main_shell() -> None:
    async with running() as (ch, kernel, _):
        code = {"interrupt_on_cancel": True, "subshell_id": "sub"}
        async with ch.execute("1", **code) as execution:
            asked = await kernel.asked()
            begin(kernel, asked)
            await anext(execution)
        await is_not_interrupted(ch, kernel)


async def never(prompt: str, password: bool) -> str:
    await anyio.sleep_forever()
    return ""


class Refusal(Exception):
    pass


def refuses(prompt: str, password: bool) -> str:
    raise Refusal


def says_nothing(prompt: str, password: bool) -> Any:
    return None


@pytest.mark.parametrize(
    ("on_input", "error"), [(refuses, Refusal), (says_nothing, LocalProtocolError)]
)
async def test_a_prompt_that_gets_no_answer_does_not_hold_up_the_kernel(
    on_input: Any, error: type[Exception]
) -> None:
    async with running() as (ch, kernel, tasks):

        async def ask() -> None:
            asked = await kernel.asked()
            begin(kernel, asked)
            kernel.ask(asked, prompt="?")
            await interrupted(kernel)
            end(kernel, asked)

        tasks.start_soon(ask)
        with pytest.raises(error):
            async with ch.execute("input()", on_input=on_input) as execution:
                await execution.wait()
        assert execution.complete


@pytest.mark.parametrize("subshell_id", [None, "sub"])
async def test_code_that_was_left_and_asks_does_not_hold_up_the_kernel(
    subshell_id: str | None,
) -> None:
    async with running() as (ch, kernel, _):
        async with ch.execute("input()", on_input=refuses, subshell_id=subshell_id):
            asked = await kernel.asked()
        begin(kernel, asked)
        kernel.ask(asked, prompt="?")
        if subshell_id is None:
            await interrupted(kernel)
        else:
            assert (await kernel.asked("stdin"))[1].content["value"] == ""
        end(kernel, asked)
        await anyio.wait_all_tasks_blocked()
        assert not len(ch._core.requests)


async def test_of_two_prompts_in_one_batch_the_last_counts() -> None:
    prompts = []

    def answer(prompt: str, password: bool) -> str:
        prompts.append(prompt)
        return prompt

    async with running() as (ch, kernel, _):
        async with ch.execute("input()", on_input=answer):
            identity, asked = await kernel.asked()
            for prompt in ("stale", "fresh"):
                kernel.ask((identity, asked), prompt=prompt)
            assert (await kernel.asked("stdin"))[1].content["value"] == "fresh"
            end(kernel, (identity, asked))
    assert prompts == ["fresh"]


@pytest.mark.parametrize("what", ["execution", "request"])
async def test_what_answers_something_that_was_left_waits_for_nobody(what: str) -> None:
    async with running() as (ch, kernel, _):
        with anyio.CancelScope() as scope:
            if what == "execution":
                async with ch.execute("1"):
                    asked = await kernel.asked()
            else:
                async with anyio.create_task_group() as group:
                    group.start_soon(ch.request, "is_complete_request")
                    asked = await kernel.asked()
                    scope.cancel()
        begin(kernel, asked)
        end(kernel, asked)
        another = (asked[0], message("x_request"))
        kernel.reply(another)
        kernel.say("stream", another[1], text="other")
        # Whoever listens gets all of it; here nobody does.
        await anyio.wait_all_tasks_blocked()
        assert (await ch.shell.receive()).msg_type == "x_reply"
        while (msg := await ch.iopub.receive()).msg_type == "status":
            assert msg.parent_id != asked[1].msg_id
        assert msg.content["text"] == "other"


async def test_code_that_is_over_in_a_moment_is_not_interrupted() -> None:
    """An interrupt would cross its end, and hit what runs next."""
    async with running(behind=True) as (ch, kernel, _):
        with anyio.CancelScope() as scope:
            async with ch.execute("1", interrupt_on_cancel=True) as execution:
                asked = await kernel.asked()
                scope.cancel()
                await execution.wait()
        kernel.status(OTHERS, "idle")
        received = ch.statistics().received["iopub"]
        begin(kernel, asked)
        while ch.statistics().received["iopub"] < received + 2:
            await anyio.lowlevel.checkpoint()
        end(kernel, asked, "ok")
        await anyio.sleep(0.2)
        await is_not_interrupted(ch, kernel)


@pytest.mark.parametrize("begun", [True, False])
async def test_code_on_control_is_not_interrupted_for_that_would_hit_the_main_shell(
    begun: bool,
) -> None:
    async with running(behind=True) as (ch, kernel, _):
        with anyio.CancelScope() as scope:
            executing = ch.execute("1", channel="control", interrupt_on_cancel=True)
            async with executing as execution:
                asked = await kernel.asked("control")
                if begun:
                    begin(kernel, asked)
                    await anyio.wait_all_tasks_blocked()
                scope.cancel()
                await execution.wait()
        await anyio.sleep(0.3)
        await is_not_interrupted(ch, kernel)


async def test_behind_a_narrow_subscription_only_what_is_seen_to_run_is_interrupted() -> None:
    end = MemoryKernelEnd(b"key")
    transport = end.connect(topics=(b"stream",))
    async with open_channels(transport, owned=True) as ch:
        kernel = Kernel(end)
        with anyio.CancelScope() as scope:
            async with ch.execute("1", interrupt_on_cancel=True) as execution:
                asked = await kernel.asked()
                scope.cancel()
                await execution.wait()
        await anyio.sleep(0.3)
        await is_not_interrupted(ch, kernel)
        end.publish(message("stream", asked[1], name="stdout", text="x"), b"stream")
        await interrupted(kernel)


async def test_a_question_that_may_be_lost_interrupts_nobody_elses_cell() -> None:
    async with running(behind=True) as (ch, kernel, _):
        async with ch.execute("input()", on_input=lambda *_: ""):
            asked = await kernel.asked()
            kernel.client.cut("stdin")
            kernel.client.mend("stdin")
            await anyio.wait_all_tasks_blocked()
        await anyio.sleep(0.3)
        await is_not_interrupted(ch, kernel)
        kernel.status(OTHERS, "idle")
        begin(kernel, asked)
        await interrupted(kernel)


async def test_behind_an_outage_that_may_have_taken_its_end_it_is_interrupted_when_heard_of() -> (
    None
):
    async with running() as (ch, kernel, _):
        with anyio.CancelScope() as scope:
            async with ch.execute("1", interrupt_on_cancel=True) as execution:
                asked = await kernel.asked()
                begin(kernel, asked)
                await anyio.wait_all_tasks_blocked()
                # Control and stdin hold: it is the same kernel.
                kernel.client.cut("shell", "iopub")
                kernel.client.mend("shell", "iopub")
                with anyio.fail_after(10):
                    while ch._core.life.away:
                        kernel.status(OTHERS, "busy")
                        await anyio.sleep(0.01)
                scope.cancel()
                await execution.wait()
        await anyio.sleep(0.3)
        await is_not_interrupted(ch, kernel)
        kernel.say("stream", asked[1], name="stdout", text="x")
        await interrupted(kernel)


async def test_who_leaves_behind_the_channels_is_told_of_nothing_else() -> None:
    async with anyio.create_task_group() as tasks:
        left = anyio.Event()

        async def execute(ch: KernelChannels, entered: anyio.Event) -> None:
            with pytest.raises(ZeroDivisionError):
                async with ch.execute("1", interrupt_on_cancel=True):
                    entered.set()
                    await left.wait()
                    raise ZeroDivisionError

        async with running() as (ch, kernel, _):
            entered = anyio.Event()
            tasks.start_soon(execute, ch, entered)
            await entered.wait()
            begin(kernel, await kernel.asked())
            await anyio.wait_all_tasks_blocked()
        left.set()


async def test_the_channels_wait_until_code_that_is_left_with_them_was_interrupted() -> None:
    async with anyio.create_task_group() as tasks:
        async with conversation() as (ch, kernel, _):
            with anyio.CancelScope() as scope:
                async with ch.execute("1", interrupt_on_cancel=True) as execution:
                    asked = await kernel.asked()
                    begin(kernel, asked)
                    await anyio.wait_all_tasks_blocked()

                    async def answer() -> None:
                        await interrupted(kernel)
                        end(kernel, asked)

                    tasks.start_soon(answer)
                    scope.cancel()
                    await execution.wait()
            assert execution.reply is not None


async def away(kernel: FakeKernel, *, after: float, seconds: float) -> None:
    await anyio.sleep(after)
    kernel.clients[0].cut()
    await anyio.sleep(seconds)
    kernel.clients[0].mend()


def interrupts(kernel: FakeKernel) -> int:
    return len(kernel.transcript.messages("> control interrupt_request"))


@pytest.mark.parametrize("left_at", [1.3, 1000])
@pytest.mark.parametrize("seconds", [0.6, 2])
async def test_an_outage_is_no_end_of_the_code(left_at: float, seconds: float) -> None:
    """Whether it was told or not, and whether the block was left in it, behind it or because of it."""
    async with (
        open_fake_kernel() as kernel,
        kernel.open_channels() as ch,
        anyio.create_task_group() as tasks,
    ):
        kernel.script("long", *(10_000 * [pause(1), stream("tick\n")]))
        tasks.start_soon(partial(away, kernel, after=1, seconds=seconds))
        with contextlib.suppress(KernelDied), anyio.move_on_after(left_at):
            await ch.run("long", interrupt_on_cancel=True)
        with anyio.fail_after(60):
            await ch.wait_idle()
        assert interrupts(kernel) == 1
        assert ch.statistics().outages == 1


@pytest.mark.parametrize("in_flight", ["asked", "asks"])
async def test_code_that_asks_is_let_go_behind_an_outage(in_flight: str) -> None:
    """Whether its question had come, or is lost in the outage: who would answer was told that the kernel may be gone."""
    async with (
        open_fake_kernel() as kernel,
        kernel.open_channels() as ch,
        anyio.create_task_group() as tasks,
    ):
        kernel.script("ask", pause(0.5 if in_flight == "asked" else 1.5), ask("name? "))
        tasks.start_soon(partial(away, kernel, after=1, seconds=2))
        with pytest.raises(KernelDied):
            await ch.run("ask", on_input=never)
        with anyio.fail_after(60):
            assert (await ch.run("1")).status == "ok"


@pytest.mark.parametrize("channels", [("shell",), ("iopub",), ()])
async def test_an_empty_text_that_waits_in_an_outage_is_sent_behind_it(channels: Any) -> None:
    """For code in a subshell, which no interrupt reaches; and once."""
    async with open_fake_kernel(subshells=True) as kernel, kernel.open_channels() as ch:
        kernel.script("ask", ask("name? "))
        async with ch.open_subshell() as sub:
            async with sub.execute("ask", on_input=never):
                await kernel.transcript.wait_for("< stdin input_request")
                await anyio.wait_all_tasks_blocked()
                kernel.clients[0].cut(*channels)
            kernel.clients[0].mend(*channels)
            with anyio.fail_after(60):
                # Who leaves waits so long that the subshell's user was told of the outage.
                assert (await ch.run("1", subshell_id=sub.subshell_id)).status == "ok"
        assert len(kernel.transcript.messages("> stdin input_reply")) == 1


async def test_code_whose_question_is_lost_is_interrupted_once_that_is_told() -> None:
    async with (
        open_fake_kernel() as kernel,
        kernel.open_channels() as ch,
        anyio.create_task_group() as tasks,
    ):
        kernel.script("ask", pause(1), ask("name? "))

        async def cut() -> None:
            await anyio.sleep(0.95)
            kernel.clients[0].cut("stdin")
            await anyio.sleep(0.1)
            kernel.clients[0].mend("stdin")

        tasks.start_soon(cut)
        with pytest.raises(KernelDied, match="may be lost"):
            await ch.run("ask", on_input=never)
        with anyio.fail_after(60):
            await ch.wait_idle()
        assert interrupts(kernel) == 1


async def test_a_full_stream_does_not_hide_the_end_of_the_code() -> None:
    """Where it did, somebody else's cell was interrupted."""
    async with (
        open_fake_kernel() as kernel,
        kernel.open_channels(max_buffer_size=2) as ch,
        kernel.open_channels() as others,
        anyio.create_task_group() as tasks,
    ):
        kernel.script("ours", pause(0.1), *(20 * [stream("x")]))
        kernel.script("theirs", pause(5))

        async def read_slowly() -> None:
            async for _ in ch.main:
                await anyio.sleep(0.3)

        async def left() -> None:
            with anyio.move_on_after(1):
                await ch.run("ours", interrupt_on_cancel=True)

        tasks.start_soon(read_slowly)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(left)
        await kernel.transcript.wait_for("< shell execute_reply")
        assert (await others.run("theirs")).status == "ok"
        assert not interrupts(kernel)
        tasks.cancel_scope.cancel()
