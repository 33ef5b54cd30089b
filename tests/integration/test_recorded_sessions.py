"""A session with a real kernel, recorded, and played again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from enchannel import KernelChannels, open_kernel, read_recording
from enchannel.testing import open_recorded_kernel

pytestmark = pytest.mark.anyio

TARGET = """
def opened(comm, msg):
    @comm.on_msg
    def heard(msg):
        comm.send({"n": msg["content"]["data"]["n"] + 1}, buffers=[bytes(msg["buffers"][0])[::-1]])
    comm.send({"hello": 1})
get_ipython().kernel.comm_manager.register_target("echo", opened)
"""

ROUNDS = 100


async def program(kernel: Any, ch: KernelChannels) -> list[Any]:
    """What a program does with a kernel, and all that it sees."""
    seen: list[Any] = []

    async def run(code: str, **options: Any) -> None:
        async with ch.execute(code, **options) as execution:
            types = [msg.msg_type async for msg in execution if msg.msg_type != "input_request"]
        assert execution.reply is not None
        seen.append((code, types, execution.outputs, execution.reply.content, execution.missed))

    seen.append((await ch.kernel_info())["implementation"])
    await run("import sys; print('out'); print('err', file=sys.stderr); 6 * 7")
    await run("from IPython.display import *; h = display('1', display_id='d')")
    await run("h.update('2')", user_expressions={"x": "1 + 1"})
    await run("1/0")
    await run(
        "print(input('name? '), __import__('getpass').getpass('word? '))",
        on_input=lambda prompt, password: f"{prompt}{password}",
    )
    seen.append((await ch.request("complete_request", {"code": "pri", "cursor_pos": 3})).content)
    await run(TARGET)
    async with ch.open_comm("echo", {"mine": 1}) as comm:
        seen.append((await comm.receive()).content["data"])
        await comm.send({"n": 1}, buffers=[b"buffer"])
        answer = await comm.receive()
        seen.append((answer.content["data"], [bytes(each) for each in answer.buffers]))
    async with ch.execute("print('begun', flush=True)\nwhile True: pass") as execution:
        async for msg in execution:
            if msg.msg_type == "stream":
                await kernel.interrupt()
    seen.append((execution.outputs[0], (await execution.wait()).content["ename"]))
    await kernel.restart()
    await run("'h' in globals()")
    seen.append(ch.statistics().restarts)
    return seen


async def test_a_recorded_session_is_the_same_each_time(tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    async with open_kernel("python3") as kernel, kernel.open_channels() as ch:
        async with ch.record(path) as recording:
            expected = await program(kernel, ch)
    assert recording.count == len(list(read_recording(path)))
    for number in range(ROUNDS):
        async with open_recorded_kernel(path) as recorded, recorded.open_channels() as ch:
            with anyio.fail_after(60):
                assert await program(recorded, ch) == expected, number
            # What closes the comm may come late.
            assert recorded.remaining == []


async def test_a_recording_that_was_cut_off_plays_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "session.jsonl"
    async with open_kernel("python3") as kernel, kernel.open_channels() as ch:
        async with ch.record(path):
            first = await ch.run("print('first')")
            await ch.run("print('second')")
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in range(len(lines[0]), len(whole), 97):
        path.write_bytes(whole[:cut])
        assert len(list(read_recording(path))) == whole[:cut].count(b"\n") - 1
    path.write_bytes(whole[:-10])
    async with open_recorded_kernel(path) as recorded, recorded.open_channels() as ch:
        assert (await ch.run("print('first')")).outputs == first.outputs
