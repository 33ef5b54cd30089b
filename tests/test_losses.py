"""What the kernel has lost, told by the numbers of what it sends."""

from __future__ import annotations

import contextlib
from typing import Any

import anyio
import pytest

from enchannel import KernelChannels, LocalProtocolError, Message, messages
from enchannel.testing import open_fake_kernel, pause
from memory_kernel import Kernel, conversation
from raw_kernel import message

pytestmark = pytest.mark.anyio


class Numbering:
    """Numbers what the kernel sends, as ipykernel does."""

    def __init__(self, kernel: Kernel, sequence: str = "theirs_1") -> None:
        self.kernel = kernel
        self.number = 0
        self.sequence = sequence

    def made(self, msg_type: str, parent: Message, **content: Any) -> Message:
        made = message(msg_type, parent, **content)
        made.header.update(msg_id=f"{self.sequence}_{self.number}", session="theirs")
        self.number += 1
        return made

    def publish(self, msg_type: str, parent: Message, **content: Any) -> None:
        self.kernel.end.publish(self.made(msg_type, parent, **content))

    def lose(self, count: int = 1) -> None:
        self.number += count

    def status(self, parent: Message, state: str) -> None:
        self.publish("status", parent, execution_state=state)

    def reply(self, asked: tuple[bytes, Message], channel: Any = "shell") -> None:
        kind = asked[1].msg_type.replace("request", "reply")
        self.kernel.end.send(channel, asked[0], self.made(kind, asked[1], status="ok"))

    def ask(self, asked: tuple[bytes, Message]) -> None:
        made = self.made("input_request", asked[1], prompt="", password=False)
        self.kernel.end.send("stdin", asked[0], made)


def somebody_elses(msg_type: str) -> Message:
    asked = message(msg_type)
    asked.header["session"] = "somebody else"
    return asked


async def run(ch: KernelChannels, kernel: Kernel, says: Any) -> tuple[int | None, Numbering]:
    """What was missed of an execution of which the kernel says that."""
    numbering = Numbering(kernel)
    async with ch.execute("1", on_input=lambda *_: "") as execution:
        asked = await kernel.asked()
        assert execution.missed is None
        says(numbering, asked)
        with anyio.fail_after(20):
            await execution.wait()
            # A kernel goes on behind a prompt once that is answered; this one does not wait.
            while not ch._core.all_read():
                await anyio.sleep(0.001)
    return execution.missed, numbering


def outputs(numbering: Numbering, asked: tuple[bytes, Message], count: int = 3) -> None:
    for number in range(count):
        numbering.publish("stream", asked[1], name="stdout", text=str(number))


def nothing(numbering: Numbering, asked: tuple[bytes, Message]) -> None:
    numbering.status(asked[1], "busy")
    outputs(numbering, asked)
    numbering.reply(asked)
    numbering.status(asked[1], "idle")


def some_outputs(numbering: Numbering, asked: tuple[bytes, Message]) -> None:
    numbering.status(asked[1], "busy")
    outputs(numbering, asked)
    numbering.lose(5)
    outputs(numbering, asked)
    numbering.lose(2)
    numbering.reply(asked)
    numbering.status(asked[1], "idle")


def one_beside_a_result(numbering: Numbering, asked: tuple[bytes, Message]) -> None:
    numbering.status(asked[1], "busy")
    numbering.lose()
    numbering.publish("execute_result", asked[1], data={}, metadata={}, execution_count=1)
    numbering.reply(asked)
    numbering.status(asked[1], "idle")


def a_number_that_was_not_needed(numbering: Numbering, asked: tuple[bytes, Message]) -> None:
    numbering.status(asked[1], "busy")
    numbering.lose()
    numbering.publish("display_data", asked[1], data={}, metadata={})
    numbering.reply(asked)
    numbering.status(asked[1], "idle")


def prompts(numbering: Numbering, asked: tuple[bytes, Message]) -> None:
    numbering.status(asked[1], "busy")
    numbering.ask(asked)
    numbering.ask(asked)
    numbering.reply(asked)
    numbering.status(asked[1], "idle")


def others_on_control(numbering: Numbering, asked: tuple[bytes, Message]) -> None:
    numbering.status(asked[1], "busy")
    for _ in range(3):
        other = somebody_elses("kernel_info_request")
        numbering.status(other, "busy")
        numbering.lose()
        numbering.status(other, "idle")
    outputs(numbering, asked)
    numbering.reply(asked)
    numbering.status(asked[1], "idle")


def a_thread_of_an_earlier_cell(numbering: Numbering, asked: tuple[bytes, Message]) -> None:
    numbering.status(asked[1], "busy")
    numbering.publish("stream", message("execute_request"), name="stdout", text="late")
    numbering.lose(4)
    numbering.reply(asked)
    numbering.status(asked[1], "idle")


def a_child_with_numbers_of_its_own(numbering: Numbering, asked: tuple[bytes, Message]) -> None:
    numbering.status(asked[1], "busy")
    child = Numbering(numbering.kernel, "theirs_2")
    child.number = 1000
    outputs(child, asked)
    numbering.reply(asked)
    numbering.status(asked[1], "idle")


def an_id_that_ends_in_more_digits_than_python_counts(
    numbering: Numbering, asked: tuple[bytes, Message]
) -> None:
    numbering.status(asked[1], "busy")
    odd = message("stream", asked[1], name="stdout", text="odd")
    odd.header.update(msg_id=f"{numbering.sequence}_{'1' * 4_301}", session="theirs")
    numbering.kernel.end.publish(odd)
    outputs(numbering, asked)
    numbering.reply(asked)
    numbering.status(asked[1], "idle")


def out_of_order(numbering: Numbering, asked: tuple[bytes, Message]) -> None:
    numbering.status(asked[1], "busy")
    first = numbering.made("stream", asked[1], name="stdout", text="1")
    second = numbering.made("stream", asked[1], name="stdout", text="2")
    numbering.reply(asked)
    idle = numbering.made("status", asked[1], execution_state="idle")
    behind = numbering.made("stream", asked[1], name="stdout", text="3")
    for each in (second, first, behind, idle):
        numbering.kernel.end.publish(each)


CASES = [
    (nothing, 0),
    (some_outputs, 7),
    (one_beside_a_result, 1),
    (a_number_that_was_not_needed, 0),
    (prompts, 0),
    (others_on_control, 0),
    (a_thread_of_an_earlier_cell, 4),
    (a_child_with_numbers_of_its_own, 0),
    (an_id_that_ends_in_more_digits_than_python_counts, 0),
    (out_of_order, 0),
]


@pytest.mark.parametrize(("says", "missed"), CASES, ids=lambda each: getattr(each, "__name__", ""))
async def test_what_the_numbers_say(
    says: Any, missed: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with conversation() as (ch, kernel, _):
        for _ in range(2):
            assert (await run(ch, kernel, says))[0] == missed
        assert ch.statistics().missed == 2 * missed
        assert not ch._core.observers
    assert caplog.text.count("the kernel lost") == (1 if missed else 0)


async def test_a_kernel_that_numbers_nothing_says_nothing() -> None:
    async with conversation() as (ch, kernel, _), ch.execute("1") as execution:
        asked = await kernel.asked()
        kernel.status(asked[1], "busy")
        kernel.reply(asked)
        kernel.status(asked[1], "idle")
        await execution.wait()
        assert execution.missed is None


async def test_what_somebody_else_is_asked_meanwhile_nobody_knows() -> None:
    async with conversation() as (ch, kernel, _), ch.execute("1") as execution:
        asked = await kernel.asked()
        numbering = Numbering(kernel)
        numbering.status(asked[1], "busy")
        other = somebody_elses("execute_request")
        numbering.status(other, "busy")
        numbering.lose(10)
        numbering.reply(asked)
        numbering.status(asked[1], "idle")
        await execution.wait()
        assert execution.missed is None


async def test_where_somebody_else_runs_code_in_a_subshell_nobody_knows() -> None:
    async with conversation() as (ch, kernel, _):
        theirs = somebody_elses("execute_request")
        theirs.header["subshell_id"] = "s"
        # Long before ours begins, and its end is behind ours.
        kernel.status(theirs, "busy")
        with anyio.fail_after(20):
            while not ch._core.all_read():
                await anyio.sleep(0.001)

        def asks_in_between(numbering: Numbering, asked: tuple[bytes, Message]) -> None:
            numbering.status(asked[1], "busy")
            numbering.lose(3)
            numbering.reply(asked)
            numbering.status(asked[1], "idle")

        assert (await run(ch, kernel, asks_in_between))[0] is None


async def test_what_we_gave_up_in_a_subshell_is_not_somebody_elses() -> None:
    async with open_fake_kernel(subshells=True) as kernel, kernel.open_channels() as ch:
        kernel.script("slow", pause(1))
        async with ch.open_subshell() as subshell:
            with anyio.move_on_after(0.5):
                await subshell.run("slow")
            await kernel.transcript.wait_for("< shell execute_reply")
        assert (await ch.run("1")).missed == 0


async def test_a_request_of_ours_that_began_before_has_its_reply_before() -> None:
    async with conversation() as (ch, kernel, tasks):
        numbering = Numbering(kernel)
        tasks.start_soon(ch.request, messages.interrupt_request())
        before = await kernel.asked("control")
        async with ch.execute("1") as execution:
            asked = await kernel.asked()
            numbering.status(before[1], "busy")
            numbering.reply(before, "control")
            numbering.status(asked[1], "busy")
            numbering.status(before[1], "idle")
            numbering.lose(3)
            numbering.reply(asked)
            numbering.status(asked[1], "idle")
            await execution.wait()
            while not ch.statistics().received["control"]:
                await anyio.sleep(0.001)
        assert execution.missed == 3


async def test_what_was_dropped_here_was_not_lost_by_the_kernel() -> None:
    async with conversation() as (ch, kernel, _), ch.execute("1") as execution:
        asked = await kernel.asked()
        numbering = Numbering(kernel)
        numbering.status(asked[1], "busy")
        for _ in range(4):
            refused = numbering.made("stream", asked[1], name="stdout", text="x")
            frames = kernel.end.wire.encode(refused, [b"topic"])
            kernel.end.give("iopub", [*frames[:2], b"0" * 64, *frames[3:]])
        numbering.lose(2)
        numbering.reply(asked)
        numbering.status(asked[1], "idle")
        await execution.wait()
        assert execution.missed == 2
        assert ch.statistics().dropped == {"InvalidSignature": 4}


async def test_any_number_in_flight_is_followed_at_the_same_cost() -> None:
    async with conversation() as (ch, kernel, _), contextlib.AsyncExitStack() as stack:
        numbering, asked, executions = Numbering(kernel), [], []
        for _ in range(50):
            executions.append(await stack.enter_async_context(ch.execute("1")))
            asked.append(await kernel.asked())
        for each in asked:
            numbering.status(each[1], "busy")
            numbering.lose(2)
            numbering.reply(each)
            numbering.status(each[1], "idle")
        for execution in executions:
            await execution.wait()
        assert [execution.missed for execution in executions] == [2] * 50
        # Each reply is remembered once, and not for each that is in flight.
        assert len(ch._conversations.losses._elsewhere) == 50
        # What is complete is not looked at for ever, though its block is open.
        for _ in range(100):
            numbering.status(asked[0][1], "busy")
        async with ch.execute("1"):
            numbering.status((await kernel.asked())[1], "busy")
            await anyio.wait_all_tasks_blocked()
            assert len(ch._conversations.losses._begun) == 1
        assert [execution.missed for execution in executions] == [2] * 50


async def test_an_id_that_is_refused_takes_nothing_from_the_one_in_flight() -> None:
    async with conversation() as (ch, kernel, _), ch.execute("1", msg_id="mine") as execution:
        asked = await kernel.asked()
        numbering = Numbering(kernel)
        numbering.status(asked[1], "busy")
        with pytest.raises(LocalProtocolError, match="in flight"):
            await ch.run("2", msg_id="mine")
        numbering.lose(7)
        numbering.reply(asked)
        numbering.status(asked[1], "idle")
        await execution.wait()
        assert execution.missed == 7


async def test_beginnings_and_ends_that_were_lost_count() -> None:
    async with conversation() as (ch, kernel, _), ch.execute("1") as first, ch.execute("2") as last:
        numbering = Numbering(kernel)
        nothing(numbering, await kernel.asked())
        await first.wait()
        asked = await kernel.asked()
        numbering.lose(4)
        outputs(numbering, asked)
        numbering.lose()
        numbering.reply(asked)
        numbering.status(asked[1], "idle")
        await last.wait()
        assert (first.missed, last.missed) == (0, 5)


async def test_what_is_asked_behind_a_lost_end_is_not_beside_it() -> None:
    async with conversation() as (ch, kernel, _), ch.execute("1") as execution:
        numbering = Numbering(kernel)
        asked = await kernel.asked()
        numbering.status(asked[1], "busy")
        outputs(numbering, asked)
        numbering.lose(7)
        numbering.reply(asked)
        numbering.lose()
        for channel in ("control", "shell"):
            _, question = await kernel.asked(channel)
            numbering.status(question, "busy")
            # Its reply is on its way on another connection.
            numbering.lose()
            numbering.status(question, "idle")
        await execution.wait()
        assert execution.missed == 8


async def test_what_is_no_longer_waited_for_is_not_counted() -> None:
    async with conversation() as (ch, kernel, _):
        async with ch.execute("1"):
            asked = await kernel.asked()
            numbering = Numbering(kernel)
            numbering.status(asked[1], "busy")
            numbering.lose(10)
            numbering.reply(asked)
            await anyio.wait_all_tasks_blocked()
        assert ch.statistics().missed == 0
