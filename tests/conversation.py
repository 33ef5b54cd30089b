"""One program for every way to a kernel: each kind of conversation, on real kernels and on a fake one."""

from __future__ import annotations

from typing import Any, Protocol

import anyio

from enchannel import KernelChannels
from enchannel.testing import FakeKernel, ask, pause, stream

LARGE = bytes(range(256)) * 20_000
"""Five megabytes."""

ENDLESS = "import time\nwhile True: time.sleep(0.01)"

REGISTER = """
def echo(comm, opened):
    @comm.on_msg
    def answer(said):
        comm.send({"echo": True}, buffers=said["buffers"])
get_ipython().kernel.comm_manager.register_target("echo", echo)
"""

ASK = "print('hello', input('name? '))"


class Restartable(Protocol):
    """What a kernel of any kind can do."""

    async def interrupt(self) -> None: ...
    async def restart(self) -> None: ...


def prepare(kernel: FakeKernel, count: int) -> None:
    """Has a fake kernel do what a real one does with the program."""
    for number in range(count):
        kernel.script(f"print({number})", stream(f"{number}\n"))
    kernel.script(ASK, ask("name? "), stream("hello ada\n"))
    kernel.script(ENDLESS, pause(100_000))
    kernel.script("print('again')", stream("again\n"))

    def echo(comm: Any, said: Any) -> None:
        if said.msg_type == "comm_msg":
            comm.send({"echo": True}, buffers=said.buffers)

    kernel.on_comm("echo", echo)


def text_of(outputs: Any) -> str:
    return "".join(output.get("text", "") for output in outputs)


async def converse(ch: KernelChannels, kernel: Restartable, count: int) -> None:
    """Says everything there is to say."""
    for number in range(count):
        done = await ch.run(f"print({number})")
        assert text_of(done.outputs) == f"{number}\n", done.outputs

    async def run(number: int) -> None:
        done = await ch.run(f"print({number})")
        assert text_of(done.outputs) == f"{number}\n", done.outputs

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(run, number)
    done = await ch.run(ASK, on_input=lambda prompt, password: "ada")
    assert "hello ada\n" in text_of(done.outputs)
    for interrupt in (kernel.interrupt, ch.interrupt):
        async with ch.execute(ENDLESS) as execution:
            async for said in execution:
                if said.msg_type == "execute_input":
                    break
            # ipykernel loses what comes before the first line.
            await anyio.sleep(0.2)
            await interrupt()
            reply = await execution.wait()
        assert reply.content["ename"] == "KeyboardInterrupt"
    await ch.run(REGISTER)
    async with ch.open_comm("echo", {}) as comm:
        await comm.send({}, buffers=[LARGE, b""])
        received = await comm.receive()
        assert [bytes(buffer) for buffer in received.buffers] == [LARGE, b""]
    info = await ch.kernel_info()
    if "kernel subshells" in info.get("supported_features", []):
        async with ch.open_subshell() as subshell, ch.execute(ENDLESS) as busy:
            done = await subshell.run("print(1)")
            assert text_of(done.outputs) == "1\n"
            async for said in busy:
                if said.msg_type == "execute_input":
                    break
            await anyio.sleep(0.2)
            await ch.interrupt()
            await busy.wait()
    restarts = ch.statistics().restarts
    await kernel.restart()
    with anyio.fail_after(30):
        done = await ch.run("print('again')")
    assert text_of(done.outputs) == "again\n"
    assert ch.statistics().restarts == restarts + 1
    assert ch.statistics().dropped == {}
