"""Code that is run to its end, by kernels in memory."""

from __future__ import annotations

import gc
import pickle
from typing import Any

import anyio
import attrs
import pytest

from enchannel import LocalProtocolError, ReplyError, messages, user_expression
from enchannel.testing import (
    ask,
    display,
    error,
    open_fake_kernel,
    pause,
    result,
    stream,
    update_display,
)
from memory_kernel import conversation, start

pytestmark = pytest.mark.anyio

TRACEBACK = ["\x1b[0;31mZeroDivisionError\x1b[0m: no", "----> 1 \x1b[38;5;241m1\x1b[39m/0"]


async def test_what_has_run_has_its_reply_and_its_outputs() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script("6 * 7", stream("so "), stream("it is\n"), result("42"))
        done = await ch.run("6 * 7", msg_id="mine")
        assert (done.status, done.execution_count, done.missed) == ("ok", 1, 0)
        assert done.reply.is_child_of(done.request)
        assert (done.request.msg_id, done.request.content["code"]) == ("mine", "6 * 7")
        said, shown = done.outputs
        assert (said["text"], shown["data"]) == ("so it is\n", {"text/plain": "42"})
        assert "outputs=2 of them" in repr(done)
        assert done.text == "so it is\n42\n"


async def test_what_was_refused_meanwhile_is_told() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.send_malformed("iopub")
        while not ch.statistics().dropped:
            await anyio.sleep(0.001)
        async with ch.execute("1") as execution:
            assert execution.refused == 0
            kernel.send_malformed("iopub")
            kernel.send_bad_signature("iopub")
            await execution.wait()
            assert execution.refused == 2
        kernel.send_malformed("iopub")
        done = await ch.run("3")
        assert (done.refused, execution.refused) == (1, 2)
        assert sum(ch.statistics().dropped.values()) == 4


async def test_its_text_is_what_a_terminal_would_show() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script(
            "1",
            stream("to the left", "stderr"),
            display({"text/html": "<b>", "image/png": "x"}),
            display({"image/png": "x", "image/jpeg": "y"}),
            display({}),
            error("E", "why", ["\x1b[31ma", "b"]),
        )
        shown = "to the left<b>\n<image/png, image/jpeg>\n\x1b[31ma\nb\n"
        assert (await ch.run("1")).text == shown
        kernel.script("2", error("E", "why"))
        async with ch.execute("2") as execution:
            await execution.wait()
            assert execution.text == "E: why\n"


async def test_it_has_its_times() -> None:
    async with conversation() as (ch, kernel, _):
        async with ch.execute("1") as execution:
            identity, request = await kernel.asked()
            assert execution.timings.sent == request.date
            assert execution.timings[1:] == (None,) * 4
            for state, second in (("busy", 1), ("idle", 4), ("idle", 5)):
                said = messages.status(state, parent=request)  # type: ignore[arg-type]
                kernel.end.publish(attrs.evolve(said, header={**said.header, **at(second)}))
            reply = messages.execute_reply(1, parent=request)
            metadata = {"started": at(2)["date"]}
            reply = attrs.evolve(reply, header={**reply.header, **at(3)}, metadata=metadata)
            kernel.end.send("shell", identity, reply)
            await execution.wait()
        assert [time.second for time in execution.timings[1:] if time] == [1, 2, 3, 4]
        assert execution.timings.to_metadata() == {
            "iopub.status.busy": "2026-11-27T00:00:01+00:00",
            "shell.execute_reply.started": "2026-11-27T00:00:02+00:00",
            "shell.execute_reply": "2026-11-27T00:00:03+00:00",
            "iopub.status.idle": "2026-11-27T00:00:04+00:00",
        }


def at(second: int) -> dict[str, str]:
    return {"date": f"2026-11-27T00:00:0{second}Z"}


async def test_an_error_is_told_and_raised_where_that_is_asked_for() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script("1/0", stream("about to\n"), error("ZeroDivisionError", "no", TRACEBACK))
        done = await ch.run("1/0")
        assert (done.status, len(done.outputs)) == ("error", 2)
        with pytest.raises(ReplyError) as caught:
            await ch.run("1/0", check=True)
        failure = caught.value
        assert str(failure) == "ZeroDivisionError: no\n\nZeroDivisionError: no\n----> 1 1/0"
        assert (failure.code, failure.traceback) == ("1/0", TRACEBACK)
        assert [each["output_type"] for each in failure.outputs] == ["stream", "error"]
        again = pickle.loads(pickle.dumps(failure))
        assert (str(again), again.code, again.outputs) == (str(failure), "1/0", failure.outputs)


async def test_code_that_was_aborted_is_in_the_text() -> None:
    async with conversation() as (ch, kernel, tasks):

        async def run() -> str:
            with pytest.raises(ReplyError) as caught:
                await ch.run("a = 1\nb = 2", check=True)
            return str(caught.value)

        task = start(tasks, run)
        asked = await kernel.asked()
        kernel.reply(asked, status="aborted")
        kernel.status(asked[1], "idle")
        first, code = (await task.result()).split("\n\n")
        assert first.endswith("not successful: aborted, for what was asked before it failed")
        assert code == "in the code\n    a = 1\n    b = 2"


async def test_a_display_is_updated_for_as_long_as_its_outputs_are_held() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script("show", display("before", display_id="it"))
        kernel.script("change", update_display("behind", "it"))
        shown = await ch.run("show")
        await ch.run("change")
        assert shown.outputs[0]["data"] == {"text/plain": "behind"}


async def test_no_messages_are_kept_whatever_the_bound() -> None:
    count = 1_000
    async with open_fake_kernel() as kernel, kernel.open_channels(max_buffer_size=10) as ch:
        kernel.script("much", *[stream(f"{number}\n") for number in range(count)])
        done = await ch.run("much")
        assert len(done.outputs[0]["text"].splitlines()) == count
        assert ch.statistics().buffer_dropped == 0


async def test_prompts_are_answered_and_else_given_an_empty_text() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script("input()", ask("name? "))
        done = await ch.run("input()", on_input=lambda prompt, password: f"{prompt}{password}")
        assert done.outputs[0]["text"] == "name? False"
        assert (await ch.run("input()")).status == "error"


async def test_cancelled_it_is_interrupted_where_that_is_asked_for() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script("long", pause(1_000))
        with anyio.move_on_after(0.5) as scope:
            await ch.run("long", interrupt_on_cancel=True)
        assert scope.cancelled_caught
        assert (await ch.run("short")).status == "ok"
        kernel.transcript.assert_has("> control interrupt_request")


async def test_a_subshell_runs_code_as_well() -> None:
    async with open_fake_kernel(subshells=True) as kernel, kernel.open_channels() as ch:
        kernel.script("1/0", error("ZeroDivisionError"))
        async with ch.open_subshell() as sub:
            done = await sub.run("2", silent=True)
            assert done.request.header["subshell_id"] == sub.subshell_id
            assert done.request.content["silent"] is True
            with pytest.raises(ReplyError):
                await sub.run("1/0", check=True)


async def test_expressions_have_values() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script_expression("2 * x", "12")
        kernel.script("1/0", error("ZeroDivisionError"))
        expressions = {"double": "2 * x", "half": "y / 2"}
        done = await ch.run("x = 6", user_expressions=expressions)
        assert user_expression(done.reply, "double") == {"text/plain": "12"}
        with pytest.raises(ReplyError, match="NameError"):
            user_expression(done.reply, "half")
        with pytest.raises(LocalProtocolError, match=r"no user expression 'x'; .*double.*half"):
            user_expression(done.reply, "x")
        failed = await ch.run("1/0", user_expressions=expressions)
        with pytest.raises(ReplyError, match="ZeroDivisionError"):
            user_expression(failed.reply, "double")


@pytest.mark.parametrize("msg_id", ["", 5])
async def test_an_id_that_is_none_is_refused(msg_id: Any) -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        with pytest.raises(LocalProtocolError, match="msg_id"):
            await ch.run("1", msg_id=msg_id)


async def test_an_id_in_flight_is_refused() -> None:
    async with conversation() as (ch, kernel, tasks):
        start(tasks, ch.request, "inspect_request", {})
        _, request = await kernel.asked()
        with pytest.raises(LocalProtocolError, match="in flight"):
            await ch.run("1", msg_id=request.msg_id)


INSTEAD = r"write 'async with ch.execute\(...\) as execution:', or 'await ch.run\(...\)'"


async def test_who_awaits_a_block_is_told_what_to_write() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        execute: Any = ch.execute
        with pytest.raises(TypeError, match=INSTEAD):
            await execute("1")
        gc.collect()


async def test_who_enters_no_block_is_told_what_to_write() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        with pytest.warns(RuntimeWarning, match=rf"execute\('1'\) was never entered.*{INSTEAD}"):
            ch.execute("1")


async def test_what_is_refused_at_the_call_was_not_to_be_entered() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        code: Any = 5
        with pytest.raises(LocalProtocolError, match="code is a str, not int"):
            ch.execute(code)
        misspelt: Any = {"slient": True}
        with pytest.raises(TypeError, match="unexpected keyword argument 'slient'"):
            await ch.run("1", **misspelt)
        gc.collect()
