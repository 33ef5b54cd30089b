"""The fake kernel, in memory and over real sockets."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import pytest

from enchannel import KernelChannels, KernelDied, LocalProtocolError, Message
from enchannel.testing import (
    FakeKernel,
    Request,
    ask,
    clear_output,
    display,
    error,
    open_fake_kernel,
    pause,
    result,
    stream,
    update_display,
)
from helpers import beating

pytestmark = pytest.mark.anyio

TRANSPORTS: list[Any] = ["memory", "inproc", "ipc", "tcp"]
everywhere = pytest.mark.parametrize("transport", TRANSPORTS)


def body(msg_type: str, **content: Any) -> dict[str, Any]:
    return {"header": {"msg_type": msg_type}, "content": content}


async def conversation(ch: KernelChannels, sent: Message) -> tuple[Message, list[Message]]:
    """The reply to `sent`, and what iopub says of it down to the idle."""
    reply, output, idle = None, [], False
    async for channel, msg in ch.main:
        if not msg.is_child_of(sent):
            continue
        if channel == "iopub":
            output.append(msg)
            idle = msg.content.get("execution_state") == "idle"
        else:
            reply = msg
        if reply is not None and idle:
            return reply, output
    raise AssertionError("the stream ended")


async def execute(ch: KernelChannels, code: str, **content: Any) -> tuple[Message, list[Message]]:
    sent = await ch.main.send("shell", body("execute_request", code=code, **content))
    return await conversation(ch, sent)


def kinds(output: list[Message]) -> list[str]:
    return [msg.content.get("execution_state") or msg.msg_type for msg in output]


@everywhere
async def test_a_scripted_cell(transport: Any) -> None:
    async with open_fake_kernel(transport=transport) as kernel, kernel.open_channels() as ch:
        kernel.script(
            "go",
            stream("out\n"),
            stream("err\n", "stderr"),
            display({"image/png": "aGk="}, display_id="d"),
            update_display("later", "d"),
            clear_output(wait=True),
            result("42"),
        )
        reply, output = await execute(ch, "go")
        assert kinds(output) == [
            "busy",
            "execute_input",
            "stream",
            "stream",
            "display_data",
            "update_display_data",
            "clear_output",
            "execute_result",
            "idle",
        ]
        assert reply.content["status"] == "ok"
        assert reply.content["execution_count"] == kernel.execution_count == 1
        assert output[4].content["transient"] == {"display_id": "d"}
        assert output[-2].content["data"] == {"text/plain": "42"}
        # Code that was not scripted outputs nothing.
        reply, output = await execute(ch, "pass")
        assert kinds(output) == ["busy", "execute_input", "idle"]


async def test_an_error_ends_the_cell(fake_kernel: FakeKernel) -> None:
    fake_kernel.script("1/0", error("ZeroDivisionError", "division by zero"), stream("never"))
    async with fake_kernel.open_channels() as ch:
        reply, output = await execute(ch, "1/0")
    assert kinds(output) == ["busy", "execute_input", "error", "idle"]
    assert reply.content["status"] == "error"
    assert reply.content["ename"] == "ZeroDivisionError"


@everywhere
async def test_input_is_asked_for_and_written(transport: Any) -> None:
    async with open_fake_kernel(transport=transport) as kernel, kernel.open_channels() as ch:
        kernel.script("input()", ask("name? ", password=True))
        request = body("execute_request", code="input()", allow_stdin=True)
        sent = await ch.main.send("shell", request)
        asked = await ch.stdin.receive()
        assert asked.content == {"prompt": "name? ", "password": True}
        assert asked.is_child_of(sent)
        await ch.stdin.send({**body("input_reply", value="Ada"), "parent_header": asked.header})
        _, output = await conversation(ch, sent)
        assert output[2].content == {"name": "stdout", "text": "Ada"}
        reply, _ = await execute(ch, "input()")
        assert reply.content["ename"] == "StdinNotImplementedError"


async def test_an_interrupt_ends_a_cell(kernel_channels: KernelChannels) -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script("sleep", pause(3600))
        sent = await ch.shell.send(body("execute_request", code="sleep"))
        await kernel.transcript.wait_for("< iopub execute_input")
        await ch.control.send(body("interrupt_request"))
        reply, output = await conversation(ch, sent)
        assert reply.content["ename"] == "KeyboardInterrupt"
        assert "error" in kinds(output)


@pytest.mark.parametrize(
    ("msg_type", "content", "expected"),
    [
        ("kernel_info_request", {}, {"status": "ok", "implementation": "fake"}),
        ("complete_request", {"code": "x", "cursor_pos": 1}, {"matches": [], "cursor_end": 1}),
        ("inspect_request", {"code": "x", "cursor_pos": 1}, {"found": False}),
        ("history_request", {"hist_access_type": "tail"}, {"history": []}),
        ("is_complete_request", {"code": "x"}, {"status": "complete"}),
        ("comm_info_request", {}, {"comms": {}}),
    ],
)
async def test_every_request_is_answered_between_busy_and_idle(
    fake_kernel: FakeKernel, msg_type: str, content: dict[str, Any], expected: dict[str, Any]
) -> None:
    async with fake_kernel.open_channels() as ch:
        sent = await ch.main.send("shell", body(msg_type, **content))
        reply, output = await conversation(ch, sent)
    assert reply.msg_type == msg_type.replace("request", "reply")
    assert reply.content.items() >= expected.items()
    assert kinds(output) == ["busy", "idle"]
    reply_line = f"< shell {reply.msg_type}"
    fake_kernel.transcript.assert_is(
        f"> shell {msg_type}", "< iopub status busy", reply_line, "< iopub status idle"
    )


async def test_what_it_does_not_know_gets_busy_and_idle_alone(fake_kernel: FakeKernel) -> None:
    async with fake_kernel.open_channels() as ch:
        await ch.shell.send(body("mystery_request"))
        await ch.shell.send(body("comm_open", comm_id="1", target_name="t", data={}))
        with anyio.fail_after(30):
            await fake_kernel.transcript.wait_for("< iopub status idle", 2)
    fake_kernel.transcript.assert_is(
        "> shell mystery_request",
        "< iopub status busy",
        "< iopub status idle",
        "> shell comm_open",
        "< iopub status busy",
        "< iopub comm_close",
        "< iopub status idle",
    )


async def test_handlers_may_be_plain_or_async_and_may_send_no_reply(
    fake_kernel: FakeKernel,
) -> None:
    async def inspect(request: Request) -> dict[str, Any]:
        await anyio.lowlevel.checkpoint()
        return {"found": True, "data": {"text/plain": request.content["code"]}}

    fake_kernel.on("complete_request", lambda _: {"matches": ["a"]})
    fake_kernel.on("inspect_request", inspect)
    fake_kernel.on("history_request", lambda _: None)
    async with fake_kernel.open_channels() as ch:
        sent = await ch.shell.send(body("history_request"))
        sent = await ch.shell.send(body("complete_request"))
        reply, _ = await conversation(ch, sent)
        assert reply.content == {"status": "ok", "matches": ["a"]}
        sent = await ch.shell.send(body("inspect_request", code="x"))
        reply, _ = await conversation(ch, sent)
        assert reply.content["data"] == {"text/plain": "x"}
    assert fake_kernel.transcript.messages("< shell history_reply") == []


async def test_control_is_answered_while_shell_is_busy(fake_kernel: FakeKernel) -> None:
    fake_kernel.script("sleep", pause(3600))
    async with fake_kernel.open_channels() as ch:
        await ch.shell.send(body("execute_request", code="sleep"))
        await ch.control.send(body("kernel_info_request"))
        with anyio.fail_after(30):
            assert (await ch.control.receive()).msg_type == "kernel_info_reply"


@everywhere
async def test_several_clients_get_their_own_replies_and_all_output(transport: Any) -> None:
    async with (
        open_fake_kernel(transport=transport) as kernel,
        kernel.open_channels() as one,
        kernel.open_channels(subscription=f"kernel.{kernel.session}.status") as two,
        two.subscribe("iopub") as heard,
    ):
        kernel.script("go", stream("x"))
        await execute(one, "go")
        for _ in range(2):
            _, msg = await heard.receive()
            assert msg.msg_type == "status"
        # What its own opening asked reaches no stream, and what others asked does not reach it.
        assert two.statistics().backlog["shell"] == 0


@everywhere
async def test_its_death_is_noticed(transport: Any) -> None:
    async with (
        open_fake_kernel(transport=transport) as kernel,
        kernel.open_channels(reconnect_timeout=0.2) as ch,
    ):
        await execute(ch, "pass")
        kernel.die()
        with anyio.fail_after(30), pytest.raises(KernelDied):
            await ch.main.receive()
        with pytest.raises(RuntimeError, match="dead and cannot send 'stream'"):
            kernel.publish("stream", {})


@everywhere
async def test_a_restart_brings_a_new_session_at_the_same_place(transport: Any) -> None:
    if transport == "inproc":
        pytest.skip("inproc does not reconnect")
    async with open_fake_kernel(transport=transport) as kernel, kernel.open_channels() as ch:
        before, _ = await execute(ch, "pass")
        await kernel.restart()
        with anyio.fail_after(10):
            # Until the connections are back, a request or its output may be lost.
            while True:
                with anyio.move_on_after(0.3):
                    after, _ = await execute(ch, "pass")
                    break
        assert after.session == kernel.session != before.session


@everywhere
async def test_requests_from_before_a_restart_are_gone(transport: Any) -> None:
    if transport == "inproc":
        pytest.skip("inproc does not reconnect")
    async with (
        open_fake_kernel(transport=transport) as kernel,
        kernel.open_channels(reconnect_timeout=0.2) as ch,
    ):
        kernel.go_silent()
        first, *_ = [await ch.shell.send(body("execute_request", code="x")) for _ in range(3)]

        def die(request: Request) -> None:
            kernel.die()

        kernel.on("execute_request", die)
        kernel.wake()
        with pytest.raises(KernelDied):
            async for _ in ch.main:
                pass
        await kernel.restart()
        async with kernel.open_channels() as ch2:
            sent = await ch2.shell.send(body("kernel_info_request"))
            with anyio.fail_after(30):
                await conversation(ch2, sent)
        assert kernel.transcript.messages("> shell execute_request") == [first]


async def test_it_comes_back_from_the_dead() -> None:
    async with open_fake_kernel() as kernel:
        async with kernel.open_channels() as ch:
            kernel.die("on purpose")
            with pytest.raises(KernelDied, match="on purpose"):
                await ch.main.receive()
        await kernel.restart()
        async with kernel.open_channels() as ch:
            assert (await execute(ch, "pass"))[0].content["status"] == "ok"


async def test_shutdown_requests_are_obeyed(fake_kernel: FakeKernel) -> None:
    session = fake_kernel.session
    async with fake_kernel.open_channels() as ch:
        await ch.control.send(body("shutdown_request", restart=True))
        reply = await ch.control.receive()
        assert reply.content == {"status": "ok", "restart": True}
        await fake_kernel.transcript.wait_for("* restarted")
        await execute(ch, "pass")
        assert fake_kernel.session != session
        await ch.control.send(body("shutdown_request", restart=False))
        with pytest.raises(KernelDied, match="shut down"):
            async for _ in ch.main:
                pass


@everywhere
async def test_silence(transport: Any) -> None:
    async with open_fake_kernel(transport=transport) as kernel, kernel.open_channels() as ch:
        kernel.go_silent()
        sent = await ch.shell.send(body("execute_request", code="x"))
        with anyio.move_on_after(0.05) as scope:
            await ch.main.receive()
        assert scope.cancelled_caught
        assert kernel.transcript.messages("> shell execute_request") == []
        kernel.wake()
        with anyio.fail_after(30):
            await conversation(ch, sent)


@everywhere
async def test_bad_messages_are_sent_and_counted(transport: Any) -> None:
    async with open_fake_kernel(transport=transport) as kernel, kernel.open_channels() as ch:
        kernel.send_malformed()
        kernel.send_bad_signature()
        await execute(ch, "pass")
        assert ch.statistics().dropped == {"MalformedMessage": 1, "InvalidSignature": 1}


async def test_what_is_no_message_is_noted(fake_kernel: FakeKernel) -> None:
    async with fake_kernel.open_channels() as ch:
        fake_kernel.clients[0].give("shell", [b"nonsense"])
        await execute(ch, "pass")
    assert "* refused what came on shell: no <IDS|MSG> delimiter" in fake_kernel.transcript.lines


async def test_a_connection_file_needs_sockets() -> None:
    async with open_fake_kernel() as kernel:
        with pytest.raises(LocalProtocolError, match='transport="tcp" or "ipc"'):
            _ = kernel.connection_info
    with pytest.raises(LocalProtocolError, match="not 'udp'"):
        async with open_fake_kernel(transport="udp"):  # type: ignore[arg-type]
            pass


# In a process of its own, for jupyter_client leaves event loops unclosed in every thread that it runs in.
TALK = """
import json, sys
from jupyter_client import BlockingKernelClient

client, outputs = BlockingKernelClient(), []
client.load_connection_file(sys.argv[1])
client.start_channels()
client.wait_for_ready(timeout=20)
replies = {
    "execute": client.execute_interactive(
        "go", timeout=20, output_hook=outputs.append, stdin_hook=lambda _: client.input("Ada")
    ),
    "complete": client.complete("x", reply=True, timeout=20),
    "info": client.kernel_info(reply=True, timeout=20),
    "error": client.execute("1/0", reply=True, timeout=20),
    "shutdown": client.shutdown(reply=True, timeout=20),
}
client.stop_channels()
contents = {name: reply["content"] for name, reply in replies.items()}
print(json.dumps([contents, [[each["msg_type"], each["content"]] for each in outputs]]))
"""


async def test_another_client_gets_right_answers(tmp_path: Path) -> None:
    """The fake is verified: jupyter_client's blocking client takes it for a kernel."""
    pytest.importorskip("jupyter_client")
    async with open_fake_kernel(transport="tcp") as kernel:
        kernel.script("go", stream("hello\n"), ask("name? "), display("shown"), result("42"))
        kernel.script("1/0", error("ZeroDivisionError", "division by zero"))
        connection_file = tmp_path / "kernel.json"
        connection_file.write_text(json.dumps(kernel.connection_info.to_dict()))
        with anyio.fail_after(60):
            talk = await anyio.run_process([sys.executable, "-c", TALK, str(connection_file)])
    replies, outputs = json.loads(talk.stdout)
    assert replies["execute"]["status"] == "ok"
    assert replies["complete"]["matches"] == []
    assert replies["info"]["implementation"] == "fake"
    assert replies["error"]["ename"] == "ZeroDivisionError"
    assert replies["shutdown"] == {"status": "ok", "restart": False}
    assert [
        content.get("text") or content["data"]["text/plain"]
        for kind, content in outputs
        if kind in ("stream", "display_data", "execute_result")
    ] == ["hello\n", "Ada", "shown", "42"]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_thousand_fake_kernels_leave_nothing_behind() -> None:
    before = descriptors(), threading.active_count()
    for _ in range(1000):
        async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
            await ch.shell.send(body("kernel_info_request"))
            await ch.shell.receive()
    # Sockets of earlier tests may have been closed meanwhile.
    assert descriptors() <= before[0]
    assert threading.active_count() <= before[1]


async def test_over_sockets_the_descriptors_come_back_too() -> None:
    async def cycle() -> None:
        async with open_fake_kernel(transport="ipc") as kernel, kernel.open_channels() as ch:
            await execute(ch, "pass")

    await cycle()  # the context and its threads stay
    before = descriptors()
    for _ in range(20):
        await cycle()
    with anyio.fail_after(10):
        while descriptors() > before:  # a thread of ZeroMQ's closes them
            await anyio.sleep(0.01)


async def test_its_silence_is_noticed_by_the_heartbeat() -> None:
    async with (
        open_fake_kernel(transport="tcp") as kernel,
        kernel.open_channels(heartbeat_timeout=1.0) as ch,
    ):
        await ch.wait_idle()
        # Of a kernel that has never echoed nothing is concluded.
        await beating(ch)
        kernel.go_silent()
        with anyio.fail_after(60):
            lost = await ch.wait_lost()
    assert lost.reason == "heartbeat"
