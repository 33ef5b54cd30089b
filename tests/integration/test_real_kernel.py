"""The main job against a real ipykernel."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from enchannel import Kernel, KernelChannels, KernelDied, Message, open_kernel_channels

pytestmark = pytest.mark.anyio


def execute(code: str, **content: Any) -> dict[str, Any]:
    return {"header": {"msg_type": "execute_request"}, "content": {"code": code, **content}}


async def conversation(ch: KernelChannels, sent: Message) -> list[tuple[str, Message]]:
    """What `sent` causes on all channels, until both its reply and its idle status are in."""
    seen: list[tuple[str, Message]] = []
    missing = {"execute_reply", "idle"}
    async for channel, msg in ch.main:
        if msg.is_child_of(sent):
            seen.append((channel, msg))
            missing.discard(msg.msg_type)
            missing.discard(msg.content.get("execution_state", ""))
        if not missing:
            return seen
    raise AssertionError("the stream ended before the conversation")


def shape(seen: list[tuple[str, Message]]) -> list[str]:
    """Each message's channel and kind; a kernel may send one line of output in several messages."""
    kinds = [
        f"{channel} {msg.content.get('execution_state') or msg.msg_type}" for channel, msg in seen
    ]
    return [kind for kind, _ in itertools.groupby(kinds)]


def on_iopub(seen: list[tuple[str, Message]]) -> list[str]:
    return shape([each for each in seen if each[0] == "iopub"])


def output(seen: list[tuple[str, Message]]) -> str:
    return "".join(msg.content["text"] for _, msg in seen if msg.msg_type == "stream")


IOPUB = ["iopub busy", "iopub execute_input", "iopub stream", "iopub idle"]


async def test_a_cell_on_the_main_channel(kernel: Kernel) -> None:
    async with kernel.open_channels() as ch:
        sent = await ch.main.send("shell", execute("print('woo')"))
        seen = await conversation(ch, sent)
    assert on_iopub(seen) == IOPUB
    assert "shell execute_reply" in shape(seen)
    assert output(seen) == "woo\n"


async def test_a_cell_on_the_separate_channels(kernel: Kernel) -> None:
    async with kernel.open_channels() as ch:
        sent = await ch.shell.send(execute("print('woo')"))
        reply = await ch.shell.receive()
        assert reply.is_child_of(sent)
        assert reply.content["status"] == "ok"
        seen = []
        async for msg in ch.iopub:
            if msg.is_child_of(sent):
                seen.append(("iopub", msg))
                if msg.content.get("execution_state") == "idle":
                    break
    assert shape(seen) == IOPUB


async def test_a_cell_on_both_at_once(kernel: Kernel) -> None:
    async with kernel.open_channels() as ch:
        heard: list[tuple[str, Message]] = []

        async def listen() -> None:
            async for msg in ch.iopub:
                heard.append(("iopub", msg))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listen)
            while ch.statistics().listeners == 0:
                await anyio.sleep(0.001)
            sent = await ch.main.send("shell", execute("print('woo')"))
            seen = await conversation(ch, sent)
            while "iopub idle" not in shape(heard):
                await anyio.sleep(0.001)
            tasks.cancel_scope.cancel()
    on_main = [(channel, msg) for channel, msg in seen if channel == "iopub"]
    assert on_main == [each for each in heard if each[1].is_child_of(sent)]


async def test_input_is_asked_for_on_stdin_and_answered_there(kernel: Kernel) -> None:
    async with kernel.open_channels() as ch:
        sent = await ch.shell.send(execute("print(input('name? '))", allow_stdin=True))
        asked = await ch.stdin.receive()
        assert asked.msg_type == "input_request"
        assert asked.content["prompt"] == "name? "
        await ch.stdin.send(
            {
                "header": {"msg_type": "input_reply"},
                "parent_header": asked.header,
                "content": {"value": "Ada"},
            }
        )
        seen = await conversation(ch, sent)
    assert output(seen) == "Ada\n"


async def test_a_busy_kernel_is_joined_at_once(kernel: Kernel) -> None:
    async with kernel.open_channels() as ch:
        # Before the code itself runs, a signal is lost, and may take the reply with it.
        sent = await ch.shell.send(execute("import time; print('running'); time.sleep(60)"))
        # The end of its line may come as a message of its own.
        while not (await ch.iopub.receive()).content.get("text", "").startswith("running"):
            pass
        with anyio.fail_after(10):
            async with kernel.open_channels() as late:
                assert late.statistics().iopub_proven
                assert late.status != "idle"
        assert ch.status == "busy"
        # The second client's probe shows up as another client's traffic, and disturbs nothing.
        await anyio.to_thread.run_sync(os.kill, kernel.pid, signal.SIGINT)
        reply = await ch.shell.receive()
        assert reply.is_child_of(sent)


async def test_thirty_fresh_clients_that_send_at_once_miss_nothing(kernel: Kernel) -> None:
    complete: list[int] = []

    async def client(number: int) -> None:
        async with open_kernel_channels(None, kernel.connection_info) as ch:
            sent = await ch.main.send("shell", execute(f"print({number})"))
            seen = await conversation(ch, sent)
        assert on_iopub(seen) == IOPUB
        assert output(seen) == f"{number}\n"
        complete.append(number)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            for number in range(30):
                tasks.start_soon(client, number)
    assert sorted(complete) == list(range(30))


async def test_a_killed_kernel_ends_the_iteration(kernel: Kernel) -> None:
    with anyio.fail_after(20), pytest.raises(KernelDied, match="did not come back within 10 s"):
        # Not through kernel.open_channels, which also watches the process.
        async with open_kernel_channels(None, kernel.connection_info) as ch:
            await ch.shell.send(execute("import time; time.sleep(20)"))
            async for _, msg in ch.main:
                if msg.msg_type == "execute_input":
                    os.kill(kernel.pid, signal.SIGKILL)


async def test_the_exit_of_a_kernel_of_our_own_is_told_with_its_status(kernel: Kernel) -> None:
    seen: list[tuple[str, Message]] = []
    with anyio.fail_after(10), pytest.raises(KernelDied, match="process was ended by SIGKILL"):
        async with kernel.open_channels() as ch:
            # The kernel sends its output from another thread, which the pause lets do so.
            code = "print('last words'); import os, time; time.sleep(0.5); os.kill(os.getpid(), 9)"
            sent = await ch.shell.send(execute(code))
            async for channel, msg in ch.main:
                if msg.is_child_of(sent):
                    seen.append((channel, msg))
    assert output(seen) == "last words\n"
    assert kernel.returncode == -signal.SIGKILL
    with pytest.raises(KernelDied, match="process was ended by SIGKILL"):
        async with kernel.open_channels():
            pytest.fail("the block was entered")


UNBOUNDED = """
import zmq
publisher = get_ipython().kernel.iopub_thread
def unbound():
    socket = publisher.socket
    endpoint = socket.get(zmq.LAST_ENDPOINT)
    socket.unbind(endpoint)
    socket.set(zmq.SNDHWM, 0)
    socket.bind(endpoint.rstrip(b"\\0"))
publisher.schedule(unbound)
"""
"""Or the kernel drops what a busy machine does not send in time; for those who connect from then on."""

FLOOD = """
import pathlib
from IPython.display import display
for number in range(2_000):
    display({"text/plain": str(number)}, raw=True)
pathlib.Path(%r).touch()
"""


async def test_a_consumer_that_blocks_the_event_loop_gets_all_of_a_flood(
    kernel: Kernel, tmp_path: Path
) -> None:
    done = tmp_path / "done"
    async with kernel.open_channels() as ch:
        await ch.run(UNBOUNDED, check=True)
    async with kernel.open_channels() as ch:
        sent = await ch.shell.send(execute(FLOOD % str(done)))
        while not done.exists():
            time.sleep(0.01)  # not only this task: nothing else runs either
        numbers = []
        with anyio.fail_after(60):
            async for _, msg in ch.main:
                if msg.is_child_of(sent) and msg.msg_type == "display_data":
                    numbers.append(int(msg.content["data"]["text/plain"]))
                if msg.is_child_of(sent) and msg.content.get("execution_state") == "idle":
                    break
        assert numbers == list(range(2_000))
