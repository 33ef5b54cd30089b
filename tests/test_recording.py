"""Recording a conversation, reading it, and playing it, without a real kernel."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from enchannel import (
    KernelChannels,
    KernelDied,
    LocalProtocolError,
    Message,
    NoReply,
    Recorded,
    RecordingError,
    read_recording,
)
from enchannel._protocol.recording import line_of
from enchannel.testing import (
    FakeKernel,
    RecordingMismatch,
    ask,
    error,
    open_fake_kernel,
    open_recorded_kernel,
    result,
    stream,
)
from memory_kernel import start
from raw_kernel import message

pytestmark = pytest.mark.anyio

FIRST = '{"format": "enchannel recording", "version": 1}\n'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.jsonl"


@contextlib.asynccontextmanager
async def recorded_fake(
    path: Path, **options: Any
) -> AsyncIterator[tuple[FakeKernel, KernelChannels]]:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script("greet", stream("hello\n"), result("1"))
        kernel.script("fail", error("E", "v"))
        kernel.script("ask", ask("name? "))
        async with ch.record(path, **options):
            yield kernel, ch


def kinds(path: Path) -> list[str]:
    return [
        f"{each.kind} {each.channel} {each.message.msg_type}" if each.message else each.kind
        for each in read_recording(path)
    ]


async def test_all_that_a_program_sends_and_receives_is_written(path: Path) -> None:
    async with recorded_fake(path) as (_, ch):
        await ch.run("greet")
        # What is asked for this is not the program's.
        await ch.wait_idle()
        written = kinds(path)
        # What comes on different channels comes in any order.
        written.remove("received shell execute_reply")
        assert written == [
            "sent shell execute_request",
            "received iopub status",
            "received iopub execute_input",
            "received iopub stream",
            "received iopub execute_result",
            "received iopub status",
        ]
        await ch.interrupt()
    times = [each.time for each in read_recording(path)]
    assert times == sorted(times)
    assert kinds(path)[7:9] == ["interrupted", "sent control interrupt_request"]
    first = json.loads(path.read_text().splitlines()[0])
    assert (first["version"], first["session"]) == (1, ch.session)


async def test_what_is_read_is_what_was_there(path: Path) -> None:
    content = {"half": "\ud83d", "much": 10**30, "nested": [{}, None]}
    async with recorded_fake(path) as (kernel, ch):
        kernel.publish("odd", content, buffers=[b"\0\xff", bytearray(3)])
        async with ch.subscribe("iopub") as output:
            _, received = await output.receive()
    (recorded,) = read_recording(path)
    assert recorded.message is not None
    assert recorded.message.buffers == (b"\0\xff", b"\0\0\0")
    assert recorded.message.content == content
    assert recorded.message.header == received.header


def test_numbers_that_json_has_not_are_kept(path: Path) -> None:
    recorded = Recorded(1.5, "sent", "shell", message("odd", n=[math.inf, -math.inf]))
    path.write_text(FIRST + line_of(recorded))
    assert list(read_recording(path)) == [recorded]


async def test_who_redacts_says_what_is_written(path: Path) -> None:
    def redact(message: Message) -> Message | None:
        if message.msg_type == "status":
            return None
        return attrs.evolve(message, content={**message.content, "code": "secret"})

    async with recorded_fake(path, redact=redact) as (_, ch):
        done = await ch.run("greet")
        assert done.text == "hello\n1\n"
    text = path.read_text()
    assert "greet" not in text
    assert '"secret"' in text
    assert "received iopub status" not in kinds(path)


async def test_a_failure_to_write_harms_nobody_until_the_end(path: Path) -> None:
    def redact(message: Message) -> Message | None:
        raise KeyError("of the caller")

    with pytest.raises(KeyError, match="of the caller"):
        async with recorded_fake(path, redact=redact) as (_, ch):
            assert (await ch.run("greet")).status == "ok"
            assert (await ch.run("greet")).status == "ok"
    with pytest.raises(OSError, match="nowhere"):
        async with recorded_fake(path / "nowhere"):
            pytest.fail("the block was entered")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no recording"),
        ('{"format": "another"}\n', "no recording"),
        ("no JSON\n", "line 1 holds no JSON"),
        ('{"format": "enchannel recording", "version": 2}\n', "version 2; this enchannel reads 1"),
        (FIRST + "[]\n", "line 2 holds no JSON object"),
        (FIRST + '{"kind": "lost"}\n', "line 2 has no time"),
        (FIRST + '{"time": 1, "kind": "sent", "channel": "x"}\n', "line 2 has no channel"),
        (FIRST + '{"time": 1, "kind": "sent", "channel": "shell"}\n', "line 2 holds no message"),
        (
            FIRST
            + '{"time": 1, "kind": "sent", "channel": "shell", "message": {"header": {}, "parent_header": {}, '
            '"metadata": {}, "content": {}, "buffers": ["?"]}}\n',
            "line 2 holds no message",
        ),
    ],
)
def test_what_is_no_recording_is_told(path: Path, text: str, said: str) -> None:
    path.write_text(text)
    with pytest.raises(RecordingError, match=said) as caught:
        list(read_recording(path))
    assert str(path) in str(caught.value)


def test_what_a_reader_does_not_know_it_leaves_out(path: Path) -> None:
    path.write_text(
        f'{FIRST}{{"kind": "of tomorrow"}}\n{{"kind": "lost", "time": 2, "more": 1}}\n{{'
    )
    assert list(read_recording(path)) == [Recorded(2.0, "lost")]


@pytest.mark.parametrize("transport", ["memory", "tcp"])
async def test_a_recorded_kernel_answers_as_recorded(path: Path, transport: Any) -> None:
    async with recorded_fake(path) as (_, ch):
        first = await ch.run("greet")
        asked = await ch.run("ask", on_input=lambda *_: "me")
        failed = await ch.run("fail")
        again = await ch.run("greet")
    async with open_recorded_kernel(path, transport=transport, in_order=False) as kernel:
        async with kernel.open_channels() as ch:
            # In whatever order, and with others between.
            assert (await ch.run("fail")).outputs == failed.outputs
            assert (await ch.run("greet")).execution_count == first.execution_count
            await ch.wait_idle()
            assert (await ch.run("ask", on_input=lambda *_: "me")).reply.content == (
                asked.reply.content
            )
            assert len(kernel.remaining) == 1
            assert (await ch.run("greet")).execution_count == again.execution_count
            assert kernel.remaining == []
            assert repr(kernel) == f"<RecordedKernel over {transport} running>"


async def test_another_question_is_told_with_the_difference(path: Path) -> None:
    async with recorded_fake(path) as (_, ch):
        await ch.run("greet")
        await ch.request("inspect_request", {"code": "a", "cursor_pos": 1})
    with pytest.raises(RecordingMismatch) as caught:
        async with open_recorded_kernel(path) as kernel, kernel.open_channels() as ch:
            await ch.run("greet me")
    assert '-  "code": "greet",' in str(caught.value)
    assert '+  "code": "greet me",' in str(caught.value)
    with pytest.raises(RecordingMismatch, match="goes on with\n    execute_request on shell"):
        async with open_recorded_kernel(path) as kernel, kernel.open_channels() as ch:
            await ch.request("history_request", {"hist_access_type": "tail"})
    with pytest.raises(RecordingMismatch, match="it is at its end"):
        async with open_recorded_kernel(path) as kernel, kernel.open_channels() as ch:
            await ch.run("greet")
            await ch.request("inspect_request", {"code": "a", "cursor_pos": 1})
            await ch.request("comm_info_request")


async def test_another_order_is_told_but_for_what_was_under_way_together(path: Path) -> None:
    async with recorded_fake(path) as (_, ch):
        async with anyio.create_task_group() as tasks:
            for code in ("greet", "fail"):
                tasks.start_soon(ch.run, code)
        await ch.run("last")
    async with open_recorded_kernel(path) as kernel, kernel.open_channels() as ch:
        for code in ("fail", "greet", "last"):
            await ch.run(code)
    with pytest.raises(RecordingMismatch, match="whose reply it had by then"):
        async with open_recorded_kernel(path) as kernel, kernel.open_channels() as ch:
            await ch.run("greet")
            await ch.run("last")


async def test_what_waits_for_a_restart_is_said(path: Path) -> None:
    async with recorded_fake(path) as (kernel, ch):
        await kernel.restart()
        await ch.run("greet")
    with pytest.raises(RecordingMismatch, match="goes on behind a restart"):
        async with open_recorded_kernel(path) as recorded, recorded.open_channels() as ch:
            await ch.run("greet")


async def test_wrong_arguments_are_told_at_the_call(path: Path) -> None:
    wrong: Any
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        for wrong in (3, None):
            with pytest.raises(LocalProtocolError, match=f"path is that of a file, not {wrong}"):
                ch.record(wrong)
        wrong = "password"
        with pytest.raises(LocalProtocolError, match="redact is called with each message"):
            ch.record(path, redact=wrong)
        with pytest.raises(LocalProtocolError, match="another recording is being written"):
            async with ch.record(path), ch.record(path.parent / "." / path.name):
                pytest.fail("the block was entered")

        def not_so(message: Message) -> str:
            return message.msg_type

        wrong = not_so
        with pytest.raises(LocalProtocolError, match="redact returns a Message, or None, and no"):
            async with ch.record(path, redact=wrong):
                await ch.run("1")
        async with ch.record(path):
            pass
    wrong = 3
    with pytest.raises(LocalProtocolError, match="match is called with two messages"):
        await open_recorded_kernel(path, match=wrong).__aenter__()
    path.write_bytes(b"\x80\n")
    with pytest.raises(RecordingError, match="no JSON"):
        list(read_recording(path))


async def test_the_caller_may_say_what_is_the_same(path: Path) -> None:
    async with recorded_fake(path) as (_, ch):
        await ch.run("greet")

    def match(recorded: Message, asked: Message) -> bool:
        return bool(asked.content["code"].startswith(recorded.content["code"]))

    async with open_recorded_kernel(path, match=match) as kernel, kernel.open_channels() as ch:
        assert (await ch.run("greet me")).text == "hello\n1\n"


async def test_it_dies_where_the_recorded_one_was_lost(path: Path) -> None:
    async with recorded_fake(path) as (kernel, ch):
        kernel.on("execute_request", lambda _: kernel.die())
        with pytest.raises(KernelDied):
            await ch.run("greet")
    assert kinds(path)[-1] == "lost"
    async with open_recorded_kernel(path) as recorded, recorded.open_channels() as ch:
        with pytest.raises(KernelDied, match="was lost here"):
            await ch.run("greet")


def run_until_interrupted(kernel: FakeKernel) -> None:
    ended = anyio.Event()

    async def wait(request: Any) -> Any:
        await ended.wait()
        return {"status": "error", "ename": "KeyboardInterrupt"}

    kernel.on("execute_request", wait)
    kernel.on("interrupt_request", lambda _: ended.set() or {})


async def check_that_it_waits(ch: KernelChannels, recorded: FakeKernel, before: int = 0) -> None:
    """Endless code ends behind an interrupt; `before` other cells were run."""
    async with anyio.create_task_group() as tasks:
        running = start(tasks, ch.run, "endless")
        await recorded.transcript.wait_for("> shell execute_request", before + 1)
        await anyio.wait_all_tasks_blocked()
        assert not running.done.is_set()
        await ch.interrupt()
        assert (await running.result()).status == "error"


async def test_what_comes_behind_an_interrupt_waits_for_one(path: Path) -> None:
    async with recorded_fake(path) as (kernel, ch):
        run_until_interrupted(kernel)
        async with anyio.create_task_group() as tasks:
            running = start(tasks, ch.run, "endless")
            await kernel.transcript.wait_for("> shell execute_request")
            await ch.interrupt()
            assert (await running.result()).status == "error"
    async with open_recorded_kernel(path) as recorded, recorded.open_channels() as ch:
        await check_that_it_waits(ch, recorded)


async def test_an_interrupt_is_for_what_ran_and_not_for_what_waited(path: Path) -> None:
    async with recorded_fake(path) as (kernel, ch):
        run_until_interrupted(kernel)
        async with anyio.create_task_group() as tasks:
            for code in ("runs", "waits"):
                tasks.start_soon(ch.run, code)
                await kernel.transcript.wait_for("> shell execute_request")
                await anyio.wait_all_tasks_blocked()
            await ch.interrupt()
    async with open_recorded_kernel(path) as recorded, recorded.open_channels() as ch:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ch.run, "runs")
                await recorded.transcript.wait_for("> shell execute_request")
                await ch.interrupt()
            # Later than in the recording.
            await ch.run("waits")


async def open_a_comm_and_die(ch: KernelChannels, kernel: FakeKernel) -> None:
    async with ch.open_comm("nobody's"):
        pass
    await ch.main.send("shell", {"msg_type": "execute_request", "content": {"code": "dead"}})
    await kernel.transcript.wait_for("> shell execute_request")
    await kernel.restart()
    await ch.request("is_complete_request", {"code": "1"})


async def test_neither_a_comm_nor_a_dead_kernel_is_what_an_interrupt_was_for(path: Path) -> None:
    async with recorded_fake(path) as (kernel, ch):
        run_until_interrupted(kernel)
        await open_a_comm_and_die(ch, kernel)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ch.run, "endless")
            await kernel.transcript.wait_for("> shell execute_request", 2)
            await anyio.wait_all_tasks_blocked()
            await ch.interrupt()
    async with open_recorded_kernel(path) as recorded, recorded.open_channels() as ch:
        await open_a_comm_and_die(ch, recorded)
        await check_that_it_waits(ch, recorded, before=1)


async def test_what_was_over_without_a_reply_is_not_what_an_interrupt_was_for(path: Path) -> None:
    async def ask_for_nothing(ch: KernelChannels) -> None:
        with pytest.raises(NoReply):
            await ch.request("x_request", channel="shell")

    async with recorded_fake(path) as (kernel, ch):
        run_until_interrupted(kernel)
        kernel.on("x_request", lambda _: None)
        await ask_for_nothing(ch)
        await check_that_it_waits(ch, kernel)
    async with open_recorded_kernel(path) as recorded, recorded.open_channels() as ch:
        await ask_for_nothing(ch)
        await check_that_it_waits(ch, recorded)


async def test_what_waits_on_the_main_shell_waits_for_its_turn(path: Path) -> None:
    async with recorded_fake(path) as (_, ch):
        async with anyio.create_task_group() as tasks:
            asking = start(tasks, lambda: ch.run("ask", on_input=lambda *_: "me"))
            await anyio.wait_all_tasks_blocked()
            await ch.run("greet")
            await asking.result()
    answer = anyio.Event()

    async def wait(prompt: str, password: bool) -> str:
        await answer.wait()
        return "me"

    async with open_recorded_kernel(path) as recorded, recorded.open_channels() as ch:
        async with anyio.create_task_group() as tasks:
            start(tasks, lambda: ch.run("ask", on_input=wait))
            await recorded.transcript.wait_for("< stdin input_request")
            waiting = start(tasks, ch.run, "greet")
            await recorded.transcript.wait_for("> shell execute_request", 2)
            await anyio.wait_all_tasks_blocked()
            assert not waiting.done.is_set()
            answer.set()
            assert (await waiting.result()).text == "hello\n1\n"


@contextlib.contextmanager
def broken_when_closed(path: Path) -> Iterator[Callable[[], None]]:
    """A place that can be written to until it breaks, as a disk does that is full."""
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, reader)
        yield stack.close


async def test_what_cannot_be_written_replaces_no_error_of_the_body(path: Path) -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        with broken_when_closed(path) as break_it:
            with pytest.raises(KeyError, match="the body's"):
                async with ch.record(path):
                    break_it()
                    await ch.run("1")
                    raise KeyError("the body's")
        path.unlink()
        with broken_when_closed(path) as break_it, anyio.move_on_after(0.1) as scope:
            async with ch.record(path):
                break_it()
                await ch.run("1")
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        path.unlink()
        with broken_when_closed(path) as break_it, pytest.raises(BrokenPipeError):
            async with ch.record(path):
                break_it()
                await ch.run("1")


async def test_what_others_did_is_said_when_its_time_has_come(path: Path) -> None:
    async with recorded_fake(path) as (kernel, ch):
        await ch.run("greet")
        other = message("execute_request")
        kernel.publish("stream", {"name": "stdout", "text": "others"}, parent=other)
        async with ch.subscribe("iopub") as output:
            while (await output.receive())[1].content.get("text") != "others":
                pass
    async with open_recorded_kernel(path) as recorded, recorded.open_channels() as ch:
        async with ch.subscribe("iopub") as output:
            await anyio.wait_all_tasks_blocked()
            assert recorded.transcript.messages("< iopub stream") == []
            await ch.run("greet")
            texts = []
            while "others" not in texts:
                texts.append((await output.receive())[1].content.get("text"))
            assert "hello\n" in texts


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("transport", ["memory", "tcp"])
async def test_what_was_only_watched_is_played_to_the_first_client(
    path: Path, transport: Any, dies: bool
) -> None:
    async with (
        recorded_fake(path) as (kernel, ch),
        kernel.open_channels() as other,
        ch.subscribe("iopub") as output,
    ):
        await other.run("greet")
        said = [(await output.receive())[1].msg_type for _ in range(5)]
        if dies:
            kernel.die()
            await ch.wait_lost()
    assert said == ["status", "execute_input", "stream", "execute_result", "status"]
    async with open_recorded_kernel(path, transport=transport) as recorded:
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(20):
            async with recorded.open_channels(reconnect_timeout=0.1) as ch:
                for msg_type in said:
                    assert (await ch.iopub.receive()).msg_type == msg_type
                if dies:
                    await ch.wait_lost()
                else:
                    await ch.wait_idle()


async def test_what_was_only_watched_behind_a_restart_is_played_there(path: Path) -> None:
    async with recorded_fake(path) as (kernel, ch), ch.subscribe("iopub") as output:
        await kernel.restart()
        async with kernel.open_channels() as other:
            await other.run("greet")
        while (await output.receive())[1].msg_type != "stream":
            pass
    for transport in ("memory", "tcp"):
        async with (
            open_recorded_kernel(path, transport=transport) as recorded,
            recorded.open_channels() as ch,
            ch.subscribe("iopub") as output,
        ):
            await recorded.restart()
            with anyio.fail_after(20):
                while (await output.receive())[1].msg_type != "stream":
                    pass


async def test_comms_keep_their_ids_apart(path: Path) -> None:
    def echo(comm: Any, message: Message) -> None:
        if message.msg_type == "comm_msg":
            comm.send({"for": message.content["data"]})

    async def program(ch: KernelChannels) -> list[Any]:
        async with ch.open_comm("echo") as one, ch.open_comm("echo") as two:
            await two.send({"n": 2})
            await one.send({"n": 1})
            return [(await each.receive()).content["data"] for each in (one, two)]

    async with recorded_fake(path) as (kernel, ch):
        kernel.on_comm("echo", echo)
        expected = await program(ch)
    async with open_recorded_kernel(path) as recorded, recorded.open_channels() as ch:
        assert await program(ch) == expected == [{"for": {"n": 1}}, {"for": {"n": 2}}]
