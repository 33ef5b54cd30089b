"""Kernels behind real servers: a Jupyter Server, a Kernel Gateway, an Enterprise Gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from conversation import converse, prepare, text_of
from enchannel import (
    Execution,
    KernelChannels,
    KernelDied,
    KernelLaunchError,
    NoReply,
    Server,
    ServerError,
    ServerKernel,
    open_kernel,
    open_server,
)
from enchannel.testing import open_fake_kernel, open_fake_server
from real_servers import ENTERPRISE_GATEWAY, JUPYTER_SERVER, KERNEL_GATEWAY, TOKEN, Running, running
from server_proxy import server_proxy
from terminal import Terminal, enchannel

pytestmark = pytest.mark.anyio

COUNT = 100
"""Executions one after the other."""


@pytest.fixture(scope="module")
def jupyter_server() -> Iterator[Running]:
    with running(*JUPYTER_SERVER) as server:
        yield server


@asynccontextmanager
async def opened(
    server: Running, **options: Any
) -> AsyncIterator[tuple[Server, ServerKernel, KernelChannels]]:
    await server.wait_ready()
    env = {"KERNEL_USERNAME": "ada"}
    async with (
        open_server(server.url, token=TOKEN) as client,
        client.open_kernel("python3", env=env) as kernel,
        kernel.open_channels(**options) as ch,
    ):
        yield client, kernel, ch


# One program, however the kernel is reached.


async def test_a_conversation_over_zeromq() -> None:
    async with open_kernel("python3") as kernel, kernel.open_channels() as ch:
        await converse(ch, kernel, COUNT)


async def test_a_conversation_in_memory() -> None:
    async with open_fake_kernel(subshells=True) as kernel, kernel.open_channels() as ch:
        prepare(kernel, COUNT)
        await converse(ch, kernel, COUNT)


async def test_a_conversation_with_a_fake_server() -> None:
    async with open_fake_server() as fake, open_server(fake.url) as server:
        fake.on_start(lambda kernel: prepare(kernel, COUNT))
        async with server.open_kernel() as kernel, kernel.open_channels() as ch:
            await converse(ch, kernel, COUNT)


async def test_a_conversation_with_a_jupyter_server(jupyter_server: Running) -> None:
    async with opened(jupyter_server) as (_, kernel, ch):
        await converse(ch, kernel, COUNT)


async def test_a_conversation_with_a_kernel_gateway() -> None:
    with running(*KERNEL_GATEWAY) as gateway:
        async with opened(gateway) as (server, kernel, ch):
            await converse(ch, kernel, COUNT)
            with pytest.raises(ServerError, match="does not list its kernels"):
                await server.list_kernels()


async def test_a_conversation_with_an_enterprise_gateway() -> None:
    home = os.environ.get("ENCHANNEL_ENTERPRISE_GATEWAY")
    if not home:
        pytest.skip("ENCHANNEL_ENTERPRISE_GATEWAY names no directory of its programs")
    with running(*ENTERPRISE_GATEWAY, home=home) as gateway:
        async with opened(gateway) as (server, kernel, ch):
            assert server.is_gateway
            await converse(ch, kernel, COUNT)


# What can happen to a kernel, and to the way to it.

BUSY = "print(1); import time; time.sleep(100)"


async def begun(execution: Execution) -> None:
    async for said in execution:
        if said.msg_type == "stream":
            return


async def ended(execution: Execution) -> None:
    """Waits for the end of what runs in a kernel that its server ends.

    The server interrupts it first. So the cell may have been told to be interrupted, by its reply
    or (where the kernel ended before that was sent) by its last status alone.
    """
    with anyio.fail_after(30), contextlib.suppress(NoReply):
        assert (await execution.wait()).content["status"] == "error"


async def test_a_kernel_that_somebody_deletes(jupyter_server: Running) -> None:
    async with opened(jupyter_server) as (server, kernel, ch):
        async with ch.execute(BUSY) as execution:
            await begun(execution)
            async with server.attach(kernel.id) as somebody:
                await somebody.shut_down()
            with pytest.raises(KernelDied) as caught:
                await ended(execution)
                with anyio.fail_after(10):
                    await ch.run("1")
        assert caught.value.reason == "exited"


async def test_a_kernel_that_somebody_restarts(jupyter_server: Running) -> None:
    async with opened(jupyter_server) as (server, kernel, ch):
        await ch.run("x = 1")
        async with ch.execute(BUSY) as execution:
            await begun(execution)
            async with server.attach(kernel.id) as somebody:
                await somebody.restart()
            with contextlib.suppress(KernelDied):
                await ended(execution)
        with anyio.fail_after(20):
            # What is sent before the restart was seen here is told of it as well.
            with contextlib.suppress(KernelDied):
                await ch.run("1")
            done = await ch.run("'x' in globals()")
        assert done.outputs[0]["data"]["text/plain"] == "False"
        assert ch.statistics().restarts == 1


async def test_restarts_that_are_given_up(jupyter_server: Running) -> None:
    """A server that is asked for several at once loses the kernel between them."""
    async with opened(jupyter_server) as (_, kernel, ch):
        for seconds in (0.05, 0.3, 0.6, 0.1):
            with anyio.move_on_after(seconds):
                await kernel.restart()
        with anyio.fail_after(50):
            assert (await ch.run("1")).status == "ok"


async def test_a_kernel_that_is_killed_again_and_again(jupyter_server: Running) -> None:
    async with opened(jupyter_server) as (_, _, ch):
        with anyio.fail_after(200):
            while ch.lost is None:
                # A server that restarts a kernel may lose what is sent to it at that moment.
                with contextlib.suppress(KernelDied, NoReply):
                    await ch.run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
        assert ch.lost.reason == "exited"
        assert ch.statistics().restarts >= 4


async def test_a_request_to_a_dead_kernel_costs_the_next_one_nothing() -> None:
    """A server's socket with a word for the dead kernel lingers, and would take the next one's answers."""
    with running(*JUPYTER_SERVER, "--KernelRestarter.restart_limit=50") as server:
        async with opened(server) as (_, _, ch):
            for death in range(1, 7):
                pid = int((await ch.run("import os; os.getpid()")).text)
                os.kill(pid, signal.SIGKILL)
                with anyio.fail_after(100):
                    while ch.statistics().restarts < death:
                        await ch.shell.send(
                            {"header": {"msg_type": "kernel_info_request"}, "content": {}}
                        )
                        await anyio.sleep(0.1)
                    assert (await ch.run("1")).status == "ok"
                assert ch.statistics().outages == 0


async def test_a_server_that_is_stopped() -> None:
    with running(*JUPYTER_SERVER) as server:
        with pytest.raises(KernelDied) as caught:
            async with opened(server, reconnect_timeout=2) as (_, _, ch):
                async with ch.execute(BUSY) as execution:
                    await begun(execution)
                    server.process.terminate()
                    await ended(execution)
                    with anyio.fail_after(30):
                        await ch.run("1")
        assert caught.value.reason in ("exited", "disconnected")


async def test_a_kernel_that_cannot_start(jupyter_server: Running, tmp_path: Path) -> None:
    await jupyter_server.wait_ready()
    async with open_server(jupyter_server.url, token=TOKEN) as server:
        with pytest.raises(ServerError, match="no kernelspec 'nothing'"):
            async with server.open_kernel("nothing"):
                pass
    with pytest.raises(ServerError, match="refuses the token"):
        async with open_server(jupyter_server.url, token="wrong") as server:
            await server.list_kernels()
    with pytest.raises(ServerError, match="base URL"):
        async with open_server(f"{jupyter_server.url}/nowhere", token=TOKEN):
            pass


async def test_a_kernel_that_exits_at_once(tmp_path: Path) -> None:
    for name, program in (("exits", "false"), ("missing", "no-such-program")):
        directory = tmp_path / "kernels" / name
        directory.mkdir(parents=True)
        spec = {"argv": [program], "display_name": name}
        (directory / "kernel.json").write_text(json.dumps(spec))
    with running(*JUPYTER_SERVER, env={"JUPYTER_PATH": str(tmp_path)}) as server:
        await server.wait_ready()
        async with open_server(server.url, token=TOKEN) as client:
            assert "exits" in [spec.name for spec in await client.kernelspecs()]
            with anyio.fail_after(70), pytest.raises(KernelLaunchError, match="exited") as caught:
                async with client.open_kernel("exits"):
                    pass
            assert caught.value.reason == "exited"
            with anyio.fail_after(70), pytest.raises(ServerError, match="program may be missing"):
                async with client.open_kernel("missing"):
                    pass


async def test_the_command_line(jupyter_server: Running) -> None:
    await jupyter_server.wait_ready()
    env = {**os.environ, "JUPYTER_TOKEN": TOKEN, "JUPYTER_SERVER_URL": jupyter_server.url}
    program = [sys.executable, "-m", "enchannel"]

    async def said(*arguments: str) -> tuple[int, str]:
        done = await anyio.run_process(
            [*program, *arguments], env=env, check=False, stderr=subprocess.STDOUT
        )
        return done.returncode, done.stdout.decode()

    assert await said("run", "print(6 * 7)", "print('again')") == (0, "42\nagain\n")
    assert (await said("run", "1/0"))[0] == 1
    status, listed = await said("kernels", "--json")
    assert status == 0
    assert "python3" in [spec["name"] for spec in json.loads(listed)["installed"]]
    async with (
        open_server(jupyter_server.url, token=TOKEN) as server,
        server.open_kernel() as kernel,
    ):
        status, listed = await said("kernels")
        assert kernel.id in listed
        assert await said("run", "--existing", kernel.id, "print('there')") == (0, "there\n")
        endless = ("--existing", kernel.id, "--timeout", "1", "while True: pass")
        assert (await said("run", *endless))[0] == 124
    status, told = await said("run", "--server", "http://127.0.0.1:1", "1")
    assert (status, "Is it running" in told) == (2, True)
    async with await anyio.open_process(
        [*program, "run", "input()"], env=env, stdin=subprocess.PIPE
    ) as process:
        assert TOKEN not in Path(f"/proc/{process.pid}/cmdline").read_text()
        process.terminate()


async def test_lines_over_a_connection_that_is_reset_at_random_moments(
    jupyter_server: Running,
) -> None:
    await jupyter_server.wait_ready()
    code = "import sys, time\nfor n in range(300):\n    print(n, flush=True); time.sleep(0.002)"
    expected = "".join(f"{number}\n" for number in range(300))
    async with (
        server_proxy(jupyter_server.url) as proxy,
        open_server(proxy.url, token=TOKEN) as server,
        server.open_kernel("python3") as kernel,
        kernel.open_channels() as ch,
    ):
        for _ in range(5):
            with anyio.fail_after(60):
                async with ch.execute(code) as execution:
                    await anyio.sleep(random.uniform(0, 0.8))
                    await proxy.reset()
                    reply = await execution.wait()
            assert reply.content["status"] == "ok"
            text = text_of(execution.outputs)
            lines = [int(line) for line in text.split()]
            assert lines == sorted(set(lines)), "lines are doubled, or out of order"
            if text != expected:
                assert execution.missed != 0, "lines are missing, and nobody says so"


# On the command line.


def test_a_servers_kernel_is_checked_watched_and_runs_a_notebook(
    jupyter_server: Running, tmp_path: Path
) -> None:
    import nbformat
    from nbformat.v4 import new_code_cell, new_notebook

    anyio.run(jupyter_server.wait_ready)
    env = {**os.environ, "JUPYTER_TOKEN": TOKEN, "JUPYTER_SERVER_URL": jupyter_server.url}
    checks = ("--only", "stdout", "--only", "restart", "--only", "heartbeat", "--only", "shutdown")
    checked = enchannel("check", "python3", *checks, env=env)
    assert re.search(r"python3 \(.*\): 3 passed, 0 failed, 1 not offered\n$", checked.stdout)
    assert checked.returncode == 0
    unknown = enchannel("check", "cobol", env=env)
    assert "has no kernelspec 'cobol'" in unknown.stderr
    assert (unknown.stdout, unknown.returncode) == ("", 2)
    path = tmp_path / "notebook.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("6 * 7")]), path)
    assert enchannel("run", str(path), "--inplace", env=env).stdout == "42\n"
    (cell,) = nbformat.read(path, as_version=4).cells
    assert cell.outputs[0].data["text/plain"] == "42"

    async def watch() -> None:
        async with opened(jupyter_server) as (_, kernel, ch):
            command = [sys.executable, "-m", "enchannel", "watch", "--existing", kernel.id]
            process = await anyio.open_process(command, env=env, stderr=None)
            async with process:
                assert process.stdout is not None
                said = b""
                with anyio.fail_after(60):
                    while b"watching" not in said:
                        said += await process.stdout.receive()
                    await ch.run("'woo'")
                    while b"= 'woo'" not in said:
                        said += await process.stdout.receive()
                    await kernel.shut_down()
                    assert await process.wait() == 0

    anyio.run(watch, backend="trio")


def test_a_kernel_whose_task_asyncio_cancels_with_all_others_is_deleted(
    jupyter_server: Running,
) -> None:
    started: list[str] = []

    async def hold() -> None:
        async with open_server(jupyter_server.url, token=TOKEN) as server:
            async with server.open_kernel("python3") as kernel:
                started.append(kernel.id)
                await asyncio.sleep(600)

    async def main() -> None:
        await jupyter_server.wait_ready()
        holding = asyncio.create_task(hold())
        while not started:
            await asyncio.sleep(0.05)
            assert not holding.done()

    asyncio.run(main())

    async def left() -> list[str]:
        async with open_server(jupyter_server.url, token=TOKEN) as server:
            return [model.id for model in await server.list_kernels()]

    assert started[0] not in anyio.run(left)


SURVIVES = "import signal, time; signal.signal(2, signal.SIG_IGN); print('be' + 'gun', flush=True); time.sleep(600)"


async def test_a_second_ctrl_c_leaves_nothing_that_goes_on(jupyter_server: Running) -> None:
    await jupyter_server.wait_ready()
    env = {"JUPYTER_TOKEN": TOKEN, "JUPYTER_SERVER_URL": jupyter_server.url}

    def interrupt() -> int:
        with Terminal("run", SURVIVES, env=env) as terminal:
            terminal.expect("begun")
            terminal.type("\x03")
            terminal.expect("interrupted; Ctrl-C again stops")
            terminal.type("\x03")
            return terminal.wait()

    async with open_server(jupyter_server.url, token=TOKEN) as client:
        before = {model.id for model in await client.list_kernels()}
        assert await anyio.to_thread.run_sync(interrupt) == 130
        # The server asks the kernel first, for as long as it likes.
        with anyio.fail_after(60):
            while not {model.id for model in await client.list_kernels()} <= before:
                await anyio.sleep(0.1)
