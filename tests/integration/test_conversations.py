"""Conversations with real kernels: ipykernel, xeus-python (C++) and bash_kernel."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from enchannel import (
    Execution,
    Kernel,
    KernelChannels,
    KernelLaunchError,
    NotImplementedByKernel,
    ReplyError,
    messages,
    open_kernel,
    open_kernel_channels,
    raise_for_status,
    user_expression,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def ch(anyio_backend: str, running_kernel: Kernel) -> AsyncIterator[KernelChannels]:
    async with open_kernel_channels(None, running_kernel.connection_file) as ch:
        yield ch
    # Shown where the test fails: a handler that raised in the kernel is logged there and nowhere else.
    print(running_kernel.output)


async def outputs(ch: KernelChannels, code: str, **options: Any) -> list[dict[str, Any]]:
    return (await ch.run(code, **options)).outputs


async def test_an_error_has_the_kernels_traceback_and_values_are_values(ch: KernelChannels) -> None:
    with pytest.raises(ReplyError) as caught:
        await ch.run("print('first')\n1/0", check=True)
    said = str(caught.value)
    assert said.startswith("ZeroDivisionError: division by zero\n\n-----")
    assert "----> 2 1/0" in said
    assert "\x1b" not in said
    assert caught.value.outputs[0]["text"] == "first\n"
    done = await ch.run("x = 6", user_expressions={"double": "2 * x", "wrong": "1/0"})
    assert user_expression(done.reply, "double")["text/plain"] == "12"
    with pytest.raises(ReplyError, match="ZeroDivisionError"):
        user_expression(done.reply, "wrong")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (messages.inspect_request("print"), "found"),
        (messages.complete_request("pri"), "matches"),
        (messages.history_range_request(0, 0, 5), "history"),
        (messages.history_tail_request(3), "history"),
        (messages.history_search_request("*", 3), "history"),
        (messages.is_complete_request("for"), "status"),
        (messages.comm_info_request(), "comms"),
        (messages.kernel_info_request(), "banner"),
        (messages.connect_request(), "shell_port"),
        (messages.interrupt_request(), "status"),
        (messages.list_subshell_request(), "subshell_id"),
    ],
)
async def test_each_request_is_answered(ch: KernelChannels, request_: Any, field: str) -> None:
    with anyio.fail_after(20):
        reply = await ch.request(request_)
    assert reply.msg_type == request_.msg_type.replace("request", "reply")
    assert field in raise_for_status(reply).content


async def test_completion_counts_code_points(ch: KernelChannels) -> None:
    code = "x𝒳é = 1; x𝒳"
    await outputs(ch, "x𝒳é = 1")
    reply = await ch.request(messages.complete_request(code))
    assert reply.content["cursor_end"] == len(code)


async def test_two_hundred_concurrent_executions(ch: KernelChannels) -> None:
    got: dict[int, Any] = {}

    async def execute(number: int) -> None:
        got[number] = await outputs(ch, f"print({number})")

    with anyio.fail_after(100):
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(execute, number)
    stream = {"output_type": "stream", "name": "stdout"}
    assert got == {number: [{**stream, "text": f"{number}\n"}] for number in range(200)}


async def test_rich_display(ch: KernelChannels) -> None:
    first = ch.execute(
        "from IPython.display import display, clear_output, HTML\n"
        "print('gone'); clear_output(wait=True)\n"
        "display(HTML('<b>'), display_id='d'); display(1); 2"
    )
    async with first as execution:
        await execution.wait()
        html, one, two = execution.outputs
        assert html["data"]["text/html"] == "<b>"
        assert one["data"] == {"text/plain": "1"}
        assert (two["output_type"], two["data"]) == ("execute_result", {"text/plain": "2"})
        assert await outputs(ch, "_ = display(HTML('<i>'), display_id='d', update=True)") == []
        assert html["data"]["text/html"] == "<i>"


async def test_an_error_is_an_output_and_a_reply(ch: KernelChannels) -> None:
    async with ch.execute("1/0") as execution:
        reply = await execution.wait()
    (error,) = execution.outputs
    assert (error["output_type"], error["ename"]) == ("error", "ZeroDivisionError")
    assert (reply.content["status"], reply.content["ename"]) == ("error", "ZeroDivisionError")


async def test_input_and_password(ch: KernelChannels) -> None:
    async def answer(prompt: str, password: bool) -> str:
        await anyio.sleep(0)
        return f"{prompt}{password}"

    code = "import getpass; print(input('name? '), getpass.getpass('word? '))"
    (printed,) = await outputs(ch, code, on_input=answer)
    assert printed["text"] == "name? False word? True\n"


async def test_code_may_not_ask_where_nobody_answers(ch: KernelChannels) -> None:
    (error,) = await outputs(ch, "input()")
    assert error["ename"] == "StdinNotImplementedError"


ECHO = """
from comm import get_comm_manager
def target(comm, opening):
    @comm.on_msg
    def echo(msg):
        comm.send({"echo": msg["content"]["data"]}, buffers=msg["buffers"])
get_comm_manager().register_target("echo", target)
"""


async def test_ten_megabytes_over_a_comm_and_back(ch: KernelChannels) -> None:
    data = os.urandom(10_000_000)
    assert await outputs(ch, ECHO) == []
    async with ch.open_comm("echo") as comm:
        await comm.send({"n": 1}, buffers=[data])
        with anyio.fail_after(20):
            echoed = await comm.receive()
        assert echoed.content["data"] == {"echo": {"n": 1}}
        assert [bytes(each) for each in echoed.buffers] == [data]


async def test_a_comm_to_nothing_is_closed_by_the_kernel(ch: KernelChannels) -> None:
    async with ch.open_comm("nobody") as comm:
        with anyio.fail_after(20), pytest.raises(anyio.EndOfStream):
            await comm.receive()
        assert comm.closing is not None


async def test_comms_that_the_kernel_opens(ch: KernelChannels) -> None:
    code = "from comm import create_comm; c, d = create_comm('mine'), create_comm('other')"
    async with ch.accept_comms("mine") as incoming:
        assert await outputs(ch, code) == []
        comm = await incoming.receive()
        assert comm.target_name == "mine"
        (closed,) = await outputs(ch, "d._closed")
        assert closed["data"]["text/plain"] == "True"


async def test_a_subshell_answers_while_the_main_shell_is_busy(
    ch: KernelChannels, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    code = f"import os, time\nwhile not os.path.exists({str(release)!r}): time.sleep(0.01)"
    async with ch.execute(code) as sleeping, ch.open_subshell() as sub:
        listed = await ch.request(messages.list_subshell_request())
        assert listed.content["subshell_id"] == [sub.subshell_id]
        async with sub.execute("2 + 2") as execution:
            with anyio.fail_after(20):
                await execution.wait()
        assert [each["data"] for each in execution.outputs] == [{"text/plain": "4"}]
        assert (await sub.request("is_complete_request", {"code": "1"})).content["status"]
        assert not sleeping.complete
        release.touch()
        await sleeping.wait()
    listed = await ch.request(messages.list_subshell_request())
    assert listed.content["subshell_id"] == []


@contextlib.asynccontextmanager
async def running_cell(ch: KernelChannels, release: Path) -> AsyncIterator[Execution]:
    """A cell that has begun, and ends when `release` is there."""
    code = "import os, time\nprint('begun', flush=True)\n"
    code += f"while not os.path.exists({str(release)!r}): time.sleep(0.01)"
    async with ch.execute(code) as execution:
        try:
            async for msg in execution:
                if msg.content.get("text", "").startswith("begun"):
                    break
            yield execution
        finally:
            release.touch()
        await execution.wait()


async def test_the_kernel_says_what_it_is_beside_a_running_cell(
    running_kernel: Kernel, tmp_path: Path
) -> None:
    async with (
        open_kernel_channels(None, running_kernel.connection_file) as ch,
        running_cell(ch, tmp_path / "release") as cell,
    ):
        # Whoever runs it, and whoever joins.
        async with open_kernel_channels(None, running_kernel.connection_file) as late:
            for each in (ch, late):
                with anyio.fail_after(10):
                    assert (await each.kernel_info())["language_info"]["name"] == "python"
        assert not cell.complete


async def test_a_busy_kernel_that_is_joined_is_not_idle(
    running_kernel: Kernel, tmp_path: Path
) -> None:
    release = tmp_path / "release"
    async with (
        open_kernel_channels(None, running_kernel.connection_file) as ch,
        running_cell(ch, release) as cell,
        open_kernel_channels(None, running_kernel.connection_file) as late,
    ):
        with anyio.fail_after(10):
            assert (await late.kernel_info())["status"] == "ok"
        with anyio.move_on_after(0.5):
            await late.wait_idle()
            pytest.fail("it is busy")
        # What is said for the questions on control says nothing of the cell.
        assert (late.status, ch.status) == ("unknown", "busy")
        async with anyio.create_task_group() as tasks:
            for each in (ch, late):
                tasks.start_soon(each.wait_idle)
            await anyio.wait_all_tasks_blocked()
            release.touch()
            with anyio.fail_after(10):
                await cell.wait()
        assert (late.status, ch.status) == ("idle", "idle")


async def test_a_breakpoint_is_hit(kernel: Kernel) -> None:
    code = "a = 1\nb = a + 1\nc = b + 1"
    with anyio.fail_after(60):
        async with kernel.open_channels() as ch, ch.open_debug_session() as debug:
            path = (await debug.request("dumpCell", {"code": code}))["sourcePath"]
            source = {"source": {"path": path}, "breakpoints": [{"line": 2}]}
            (breakpoint_,) = (await debug.request("setBreakpoints", source))["breakpoints"]
            assert breakpoint_["verified"]
            await debug.request("configurationDone")
            async with ch.execute(code) as execution:
                async for event in debug:
                    if event.content["event"] == "stopped":
                        break
                thread = {"threadId": event.content["body"]["threadId"]}
                frames = (await debug.request("stackTrace", thread))["stackFrames"]
                assert frames[0]["line"] == 2
                await debug.request("continue", thread)
                assert (await execution.wait()).content["status"] == "ok"


@pytest.mark.parametrize("launched", [True, False])
async def test_cancelling_an_endless_cell_leaves_the_kernel_usable(
    kernel: Kernel, tmp_path: Path, launched: bool
) -> None:
    # A kernel that we launched gets the signal that it wants, another one is asked on control.
    opened = (
        kernel.open_channels() if launched else open_kernel_channels(None, kernel.connection_file)
    )
    async with opened as ch:
        await interrupted(ch, tmp_path)


async def interrupted(ch: KernelChannels, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    code = f"open({str(begun)!r}, 'w').close()\nwhile True: pass"
    async with ch.subscribe("shell") as replies:
        with anyio.CancelScope() as scope:
            async with ch.execute(code, interrupt_on_cancel=True) as execution:
                while not begun.exists():
                    await anyio.sleep(0.01)
                scope.cancel()
                await execution.wait()
        # Its block is left behind two seconds, whatever a slow kernel is at. And not its last output: where that is slow to
        # show the error, a second interrupt finds it doing so, and it says that on stderr.
        with anyio.fail_after(60):
            _, reply = await replies.receive()
    assert reply.is_child_of(execution.request)
    assert reply.content["ename"] == "KeyboardInterrupt"
    with anyio.fail_after(60):
        (printed,) = await outputs(ch, "print('usable')")
    assert printed["text"] == "usable\n"


async def test_what_ipykernel_does_not_implement_is_told(ch: KernelChannels) -> None:
    with pytest.raises(
        NotImplementedByKernel, match="done with the nonsense_request, and no reply"
    ):
        await ch.request("nonsense_request")


@pytest.fixture
async def other(
    anyio_backend: str, request: pytest.FixtureRequest, add_spec: Callable[..., Path]
) -> AsyncIterator[KernelChannels]:
    """The channels of a kernel that is not ipykernel."""
    pytest.importorskip({"bash": "bash_kernel", "xpython": "xpython"}[request.param])
    if request.param == "bash":
        argv = (sys.executable, "-m", "bash_kernel", "-f", "{connection_file}")
        add_spec("bash", *argv, language="bash")
    try:
        kernel = open_kernel(request.param)
    except KernelLaunchError as error:
        pytest.skip(str(error))
    async with kernel as running, running.open_channels() as ch:
        yield ch


# On one backend: what differs here is the kernel, and one of them takes five seconds to be stopped.
on_trio = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
both = pytest.mark.parametrize(
    ("other", "hello", "fail", "prefix"),
    [
        ("xpython", "print('hello')", "1/0", "pri"),
        ("bash", "echo hello", "no-such-command", "ech"),
    ],
    indirect=["other"],
)


@on_trio
@both
async def test_other_kernels(other: KernelChannels, hello: str, fail: str, prefix: str) -> None:
    with anyio.fail_after(60):
        info = await other.kernel_info()
        assert info["language_info"]["name"] in ("python", "bash")
        async with other.execute(hello) as execution:
            reply = await execution.wait()
        assert reply.content["status"] == "ok"
        assert "".join(o["text"] for o in execution.outputs) == "hello\n"
        async with other.execute(fail) as execution:
            reply = await execution.wait()
        assert reply.content["status"] == "error"
        reply = await other.request(messages.complete_request(prefix))
        assert any(match.startswith(prefix) for match in reply.content["matches"])
        with pytest.raises(NotImplementedByKernel):
            await other.request("nonsense_request")
