"""Launching: what fails says why, and whatever happens nothing is left behind."""

from __future__ import annotations

import contextlib
import gc
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import pytest

from enchannel import (
    ConnectionInfo,
    Kernel,
    KernelChannels,
    KernelDied,
    KernelLaunchError,
    KernelSpec,
    LocalProtocolError,
    NoReply,
    list_running_kernels,
    open_kernel,
    open_kernel_channels,
)
from enchannel._protocol.connection_info import SOCKETS
from helpers import away, freeze, is_there

pytestmark = pytest.mark.anyio

AddSpec = Callable[..., Path]


IPYKERNEL = ("python", "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f")


NOTICING = """
import os, time
try:
    print("started", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    if ending:
        os._exit(1)
    raise
"""


async def in_flight(ch: KernelChannels, raised: list[KernelDied], *, task_status: Any) -> None:
    """Runs a cell that never ends, says when it runs, and how the wait for it ended."""
    with pytest.raises(KernelDied) as caught:
        # Interrupted, the kernel goes without a reply.
        async with ch.execute(f"ending = True\n{NOTICING}") as execution:
            async for msg in execution:
                # The end of its line may come as a message of its own.
                if msg.content.get("text", "").startswith("started"):
                    task_status.started()
    raised.append(caught.value)


async def run(ch: Any, code: str) -> dict[str, Any]:
    """The user expression x of a cell."""
    async with ch.execute(code, user_expressions={"x": "x"}) as execution:
        reply = await execution.wait()
    return reply.content["user_expressions"]["x"]["data"]["text/plain"]


async def test_a_launched_kernel_is_private_ready_and_gone_afterwards(tmp_path: Path) -> None:
    said = tmp_path / "goodbye"
    async with open_kernel() as kernel:
        path = kernel.connection_file
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert is_there(kernel.pid)
        assert os.getsid(kernel.pid) == kernel.pid
        assert kernel.returncode is None
        assert repr(kernel) == f"<Kernel python3 {kernel.pid} running>"
        async with kernel.open_channels() as one, kernel.open_channels() as two:
            assert await run(one, "x = 1") == await run(two, "pass") == "1"
            assert await run(one, "import os; x = os.environ['JPY_PARENT_PID']") == repr(
                str(os.getpid())
            )
            await run(
                one, f"import atexit, pathlib; atexit.register(pathlib.Path({str(said)!r}).touch)"
            )
    # Asked, and not killed. How else it goes is its own: ipykernel may wait for a thread that has ended, until
    # it is told (SIGTERM), and libzmq may abort it where its threads close one another's sockets (SIGABRT).
    assert said.exists()
    assert kernel.returncode in (0, -signal.SIGTERM, -signal.SIGABRT)
    assert not is_there(kernel.pid)
    assert not path.exists()


async def test_environment_directory_and_placeholders(add_spec: AddSpec, tmp_path: Path) -> None:
    directory = add_spec(
        "mine",
        *IPYKERNEL,
        "{connection_file}",
        "--IPKernelApp.exec_lines=x = '{resource_dir} {prefix} {unknown}'",
        env={"FROM_SPEC": "spec ${HOME}", "BOTH": "spec"},
        language="python",
    )
    async with (
        open_kernel("Mine", cwd=tmp_path, env={"BOTH": "call"}) as kernel,
        kernel.open_channels() as ch,
    ):
        assert await run(ch, "") == repr(f"{directory} {sys.prefix} {{unknown}}")
        assert await run(ch, "import os; x = os.getcwd()") == repr(str(tmp_path))
        code = "x = os.environ['FROM_SPEC'], os.environ['BOTH']"
        assert await run(ch, code) == repr((f"spec {os.environ['HOME']}", "call"))


class Mine(Exception):
    pass


async def test_a_failing_body_leaves_nothing_behind() -> None:
    with pytest.raises(Mine):
        async with open_kernel() as kernel, kernel.open_channels():
            raise Mine
    assert not is_there(kernel.pid)
    assert not kernel.connection_file.exists()


async def test_a_cancelled_body_leaves_nothing_behind() -> None:
    with anyio.CancelScope() as scope:
        async with open_kernel() as kernel, kernel.open_channels() as ch:
            await ch.shell.send(
                {"header": {"msg_type": "execute_request"}, "content": {"code": "while True: pass"}}
            )
            while (await ch.iopub.receive()).msg_type != "execute_input":
                pass
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert not is_there(kernel.pid)
    assert not kernel.connection_file.exists()


async def test_opening_can_be_cancelled(add_spec: AddSpec, tmp_path: Path) -> None:
    script = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(99)"
    pid_file = tmp_path / "pid"
    add_spec("slow", "python", "-c", script, str(pid_file))
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:

            async def cancel() -> None:
                while not (pid_file.exists() and pid_file.read_text()):
                    await anyio.sleep(0.01)
                scope.cancel()

            tasks.start_soon(cancel)
            async with open_kernel("slow"):
                pytest.fail("the block was entered")
    assert scope.cancelled_caught
    assert not is_there(int(pid_file.read_text()))


async def test_what_a_kernel_started_goes_with_it() -> None:
    async with open_kernel() as kernel, kernel.open_channels() as ch:
        # An ipykernel that is asked to shut down ends its children itself; a killed one does not.
        code = "import subprocess; x = subprocess.Popen(['sleep', '99']).pid"
        child = int(await run(ch, code))
        assert is_there(child)
        os.kill(kernel.pid, signal.SIGKILL)
    with anyio.fail_after(10):
        while is_there(child) and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
            await anyio.sleep(0.01)


async def test_a_kernel_that_ignores_shutdown_and_sigterm_is_killed(tmp_path: Path) -> None:
    told = tmp_path / "told"
    async with open_kernel() as kernel, kernel.open_channels() as ch:
        code = f"""
import pathlib, signal, time
told = pathlib.Path({str(told)!r})
x = signal.signal(signal.SIGTERM, lambda *_: told.write_text(str(time.monotonic()))) and 1
get_ipython().kernel.do_shutdown = lambda restart: time.sleep(99)
"""
        await run(ch, code)
        left = time.monotonic()
    assert kernel.returncode == -9
    # The system's clock is the same in every process.
    assert 2.4 < float(told.read_text()) - left < 8
    assert time.monotonic() - left < 20


@pytest.mark.parametrize("name", ["no-such-kernel", "../python3", ""])
def test_an_unknown_kernelspec_is_told_at_the_call(name: str) -> None:
    with pytest.raises(KernelLaunchError, match=f"no kernelspec '{name}' .*there is .*python3"):
        open_kernel(name)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"argv": 5}', '{"argv": []}', '{"env": {}}'])
def test_a_broken_kernelspec_is_named(add_spec: AddSpec, text: str) -> None:
    directory = add_spec("broken", "python")
    (directory / "kernel.json").write_text(text)
    with pytest.raises(KernelLaunchError, match=r"broken/kernel\.json is no kernelspec"):
        KernelSpec.find("broken")


async def test_a_missing_executable_is_named(add_spec: AddSpec) -> None:
    add_spec("gone", "/no/such/executable", "{connection_file}")
    with pytest.raises(KernelLaunchError, match="/no/such/executable: No such file"):
        async with open_kernel("gone"):
            pytest.fail("the block was entered")


async def test_an_exit_while_starting_is_told_with_its_last_words(add_spec: AddSpec) -> None:
    # As soon as it can: also before anybody looks at it.
    add_spec("exits", "/bin/sh", "-c", "echo no license; exit 1")
    with (
        anyio.fail_after(10),
        pytest.raises(KernelLaunchError, match="exited with status 1 while starting") as caught,
    ):
        async with open_kernel("exits"):
            pytest.fail("the block was entered")
    assert caught.value.stderr == "no license"
    assert "no license" in str(caught.value)


async def test_a_kernel_that_never_opens_its_ports_is_told(add_spec: AddSpec) -> None:
    add_spec("silent", "python", "-u", "-c", "print('thinking'); import time; time.sleep(99)")
    with pytest.raises(KernelLaunchError, match=r"not ready within 0\.5 s: no conn") as caught:
        async with open_kernel("silent", startup_timeout=0.5):
            pytest.fail("the block was entered")
    assert caught.value.stderr == "thinking"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"transport": "pigeon"}, "transport is one of auto, ipc, tcp, not 'pigeon'"),
        ({"encryption": True}, "encryption is one of auto, required, off, not True"),
        ({"env": {"A": 1}}, "env maps names of variables to texts"),
        ({"extra_arguments": "--debug"}, "extra_arguments is a sequence of texts"),
        ({"startup_timeout": 0}, "startup_timeout is seconds, above 0, not 0"),
    ],
)
def test_wrong_arguments_are_told_at_the_call(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(LocalProtocolError, match=complaint):
        open_kernel(**options)


async def test_a_missing_directory_is_named() -> None:
    with pytest.raises(KernelLaunchError, match="/no/such/directory: No such file"):
        async with open_kernel(cwd="/no/such/directory"):
            pytest.fail("the block was entered")


def test_what_is_installed_is_listed(add_spec: AddSpec, caplog: pytest.LogCaptureFixture) -> None:
    add_spec("b-mine", "true", display_name="Mine", language="x")
    (add_spec("a-broken", "true") / "kernel.json").write_text("{")
    specs = {spec.name: spec for spec in KernelSpec.installed()}
    assert specs["b-mine"].display_name == "Mine"
    assert "python3" in specs
    assert "a-broken" not in specs
    assert "a-broken/kernel.json is no kernelspec" in caplog.text


async def test_ipc_sockets_are_private_and_gone_afterwards() -> None:
    async with open_kernel(transport="ipc") as kernel, kernel.open_channels() as ch:
        directory = Path(kernel.connection_info.ip).parent
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert await run(ch, "x = 1") == "1"
        # The heartbeat's thread takes its time.
        with anyio.fail_after(20):
            while len(list(directory.iterdir())) < 5:
                await anyio.sleep(0.01)
    assert not directory.exists()


HESITANT = """
import pathlib, runpy, sys, time

begun, may_go_on, sys.argv[1:3] = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), []
begun.touch()
while not may_go_on.exists():
    time.sleep(0.01)
runpy.run_module("ipykernel_launcher", run_name="__main__")
"""


def bound_here() -> set[tuple[str, int]]:
    """The addresses that sockets of this process are bound to."""
    addresses = set()
    for name in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(name).st_mode):
                with socket.socket(fileno=os.dup(name)) as one:
                    if one.family == socket.AF_INET:
                        addresses.add(one.getsockname())
    return addresses


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere two sockets share no port")
async def test_ports_are_held_until_the_kernel_has_them(add_spec: AddSpec, tmp_path: Path) -> None:
    begun, may_go_on = tmp_path / "begun", tmp_path / "go"
    argv = (sys.executable, "-c", HESITANT, str(begun), str(may_go_on), "-f", "{connection_file}")
    add_spec("hesitant", *argv)
    held = list[set[tuple[str, int]]]()

    async def let_it_go_on() -> None:
        while not begun.exists():
            await anyio.sleep(0.01)
        held.append(bound_here())
        begun.unlink()
        may_go_on.touch()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(let_it_go_on)
        async with open_kernel("hesitant", transport="tcp") as kernel:
            info = kernel.connection_info
            ports = {("127.0.0.1", getattr(info, f"{name}_port")) for name in SOCKETS}
            assert ports <= held[0]
            may_go_on.unlink()
            tasks.start_soon(let_it_go_on)
            await kernel.restart()
            assert ports <= held[1]
            assert not ports & bound_here()


def test_ipc_is_for_those_that_speak_it() -> None:
    assert KernelSpec("a", IPYKERNEL, Path()).speaks_ipc
    assert not KernelSpec("b", ("python", "-m", "bash_kernel"), Path()).speaks_ipc


RELAY = """
import asyncio, json, signal, socket, sys

async def main(mine, its, closed):
    config = json.load(open(mine))
    ports = {name: port for name, port in config.items() if name.endswith("_port")}
    for name in ports:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            config[name] = free.getsockname()[1]
    json.dump(config, open(its, "w"))
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", its]
    kernel = await asyncio.create_subprocess_exec(*command)

    async def forward(source, target):
        while data := await source.read(65536):
            target.write(data)

    async def relay(name, reader, writer):
        while True:
            try:
                there, to_kernel = await asyncio.open_connection("127.0.0.1", config[name])
                break
            except OSError:
                await asyncio.sleep(0.02)
        back = asyncio.create_task(forward(there, writer))
        try:
            await forward(reader, to_kernel)
        except OSError:
            pass
        print(name, file=closed, flush=True)
        to_kernel.close()

    for name, port in ports.items():
        accept = lambda reader, writer, name=name: relay(name, reader, writer)
        await asyncio.start_server(accept, "127.0.0.1", port)
    await kernel.wait()

# It is for the kernel, which gets it as well.
signal.signal(signal.SIGINT, lambda *_: None)
asyncio.run(main(sys.argv[1], sys.argv[2], open(sys.argv[3], "a")))
"""


async def test_becoming_ready_closes_no_connection(add_spec: AddSpec, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    argv = ("{connection_file}", str(tmp_path / "its.json"), str(closed))
    add_spec("relayed", "python", "-c", RELAY, *argv)
    async with open_kernel("relayed", transport="tcp") as kernel:
        # It is seen a moment later.
        await anyio.sleep(0.5)
        assert closed.read_text() == ""
        async with kernel.open_channels() as ch:
            assert await run(ch, "x = 1") == "1"
            assert closed.read_text() == ""
        with anyio.fail_after(10):
            while not closed.read_text():
                await anyio.sleep(0.01)


async def test_a_taken_address_is_noticed_and_another_tried(
    add_spec: AddSpec, tmp_path: Path
) -> None:
    # Listens where the kernel wants to, once, and only then starts the kernel.
    script = """
import json, os, pathlib, socket, subprocess, sys
once = pathlib.Path(sys.argv[2])
if not once.exists():
    once.touch()
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", json.load(open(sys.argv[1]))["iopub_port"]))
    taken.listen()
    sys.exit(subprocess.call([sys.executable, "-m", "ipykernel_launcher", "-f", sys.argv[1]]))
os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", "-f", sys.argv[1]])
"""
    add_spec("late", "python", "-c", script, "{connection_file}", str(tmp_path / "once"))
    async with open_kernel("late", transport="tcp") as kernel, kernel.open_channels() as ch:
        assert await run(ch, "x = 1") == "1"
    assert (tmp_path / "once").exists()


async def test_interrupt_by_signal_reaches_what_the_kernel_started(kernel: Any) -> None:
    code = "import subprocess, sys\nprint('started', flush=True)\nsubprocess.run(['sleep', '60'])"
    async with kernel.open_channels() as ch, ch.execute(code) as execution:
        async for msg in execution:
            if msg.content.get("text", "").startswith("started"):
                await kernel.interrupt()
                # Where a kernel loses the reply with it, whoever waits is told so.
                assert "interrupted" in execution._run.hit
        assert execution.reply.content["ename"] == "KeyboardInterrupt"


async def test_the_line_of_who_launched_a_kernel_is_sent_no_output(kernel: Kernel) -> None:
    async with kernel.open_channels() as ch:
        line = kernel._running.line._core
        assert line is not None
        before = line.received["iopub"]
        async with ch.execute("for i in range(100): print(i, flush=True)") as execution:
            await execution.wait()
        await ch.request("kernel_info_request", channel="control")
        assert line.received["iopub"] == before


async def test_interrupt_by_message(add_spec: AddSpec) -> None:
    add_spec("polite", *IPYKERNEL, "{connection_file}", interrupt_mode="message")
    async with open_kernel("polite") as kernel, kernel.open_channels() as ch:
        async with ch.execute(f"ending = False\n{NOTICING}") as execution:
            async for msg in execution:
                if msg.content.get("text", "").startswith("started"):
                    await kernel.interrupt()
                    assert "interrupted" in execution._run.hit
        assert execution.reply is not None
        assert execution.reply.content["ename"] == "KeyboardInterrupt"


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
async def test_open_channels_outlive_a_restart(transport: str) -> None:
    raised: list[KernelDied] = []
    async with (
        open_kernel(transport=transport) as kernel,
        kernel.open_channels() as one,
        kernel.open_channels() as two,
        anyio.create_task_group() as tasks,
    ):
        first, info = kernel.pid, ConnectionInfo.from_file(kernel.connection_file)
        async with one.subscribe("iopub") as output:
            await run(one, "x = 'old'; display(x)")
            await tasks.start(lambda **kwargs: in_flight(one, raised, **kwargs))
            await kernel.restart()
            assert [(died.reason, str(died)) for died in raised] == [
                ("restarted", "the kernel was restarted")
            ]
            assert kernel.pid != first
            assert not is_there(first)
            # ipykernel writes it anew, in its own words.
            again = ConnectionInfo.from_file(kernel.connection_file)
            assert attrs.evolve(again, kernel_name="") == attrs.evolve(info, kernel_name="")
            # At once, complete, on each of them, and with the streams that there were.
            for ch in (one, two):
                async with ch.execute("'x' in globals()") as execution:
                    reply = await execution.wait()
                assert execution.outputs[0]["data"]["text/plain"] == "False"
                assert reply.content["status"] == "ok"
                assert ch.statistics().restarts == 1
            texts = set()
            while "'old'" not in texts or "False" not in texts:
                _, msg = await output.receive()
                texts.add(msg.content.get("data", {}).get("text/plain"))
        assert (await one.kernel_info())["status"] == "ok"


async def test_what_is_sent_during_a_restart_waits_for_the_new_kernel(kernel: Any) -> None:
    async with kernel.open_channels() as ch, anyio.create_task_group() as tasks:
        await run(ch, "x = 'old'")
        tasks.start_soon(kernel.restart)
        await away(ch)
        assert await run(ch, "x = 'x' in globals()") == "False"


async def test_a_restart_that_fails_is_told_to_everybody(add_spec: AddSpec, tmp_path: Path) -> None:
    once = tmp_path / "once"
    script = f"[ -e {once} ] && echo broken now && exit 3; touch {once}; exec {sys.executable} "
    add_spec(
        "brittle", "/bin/sh", "-c", script + "-m ipykernel_launcher -f $0", "{connection_file}"
    )
    async with open_kernel("brittle") as kernel, kernel.open_channels() as ch:
        with pytest.raises(
            KernelLaunchError, match=r"exited with status 3 while starting\nbroken now"
        ):
            await kernel.restart()
        with pytest.raises(KernelDied, match="could not be restarted"):
            async for _ in ch.main:
                pass
        assert await kernel.wait() == 3
        # Mended, it can be started again.
        once.unlink()
        await kernel.restart()
        async with kernel.open_channels() as again:
            assert await run(again, "x = 1") == "1"


async def test_a_cancelled_restart_leaves_the_kernel_stopped(kernel: Any) -> None:
    async with kernel.open_channels() as ch:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kernel.restart)
                await away(ch)
                scope.cancel()
        with pytest.raises(KernelDied):
            await ch.request("kernel_info_request")
    assert kernel.returncode is not None
    assert not is_there(kernel.pid)


async def test_wait_gives_the_exit_status_and_does_not_notice_a_restart(kernel: Any) -> None:
    statuses: list[int] = []

    async def wait() -> None:
        statuses.append(await kernel.wait())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await kernel.restart()
        assert statuses == []
        os.kill(kernel.pid, signal.SIGKILL)
    assert statuses == [-signal.SIGKILL]
    with pytest.raises(KernelDied, match="was ended by SIGKILL") as caught:
        async with kernel.open_channels():
            pytest.fail("the block was entered")
    assert caught.value.reason == "exited"


@pytest.mark.parametrize("attached", [False, True])
async def test_a_kernel_killed_in_a_cell_is_told_to_every_waiter(
    kernel: Any, attached: bool
) -> None:
    raised: list[KernelDied] = []
    opening = (
        open_kernel_channels(None, kernel.connection_file, reconnect_timeout=2)
        if attached
        else kernel.open_channels()
    )
    async with opening as ch, anyio.create_task_group() as tasks:

        async def ask() -> None:
            with pytest.raises(KernelDied) as caught:
                await ch.request("history_request", {"hist_access_type": "tail", "n": 1})
            raised.append(caught.value)

        async def listen() -> None:
            with pytest.raises(KernelDied) as caught:
                async for _ in ch.main:
                    pass
            raised.append(caught.value)

        await tasks.start(lambda **kwargs: in_flight(ch, raised, **kwargs))
        tasks.start_soon(ask)
        tasks.start_soon(listen)
        await anyio.wait_all_tasks_blocked()
        os.kill(kernel.pid, signal.SIGKILL)
        # Where nobody knows of the process, whoever listens waits for somebody to restart it.
        for seconds, count in ((1.5, 2), (5, 3)):
            with anyio.fail_after(seconds):
                while len(raised) < count:
                    await anyio.sleep(0.01)
        assert (await ch.wait_lost()).reason == ("disconnected" if attached else "exited")
        assert ch.lost is not None
        assert ch.status == "dead"
    assert {died.reason for died in raised} == {ch.lost.reason}


async def test_a_kernel_that_holds_the_interpreter_is_not_dead(kernel: Any) -> None:
    # A regular expression that backtracks for seconds, in C and without letting go.
    code = (
        "import re, time\nt = time.monotonic()\nn = 20\n"
        "while time.monotonic() - t < 4:\n    re.match('(a|a)*b', 'a' * n)\n    n += 1\nx = 'alive'"
    )
    async with open_kernel_channels(
        None, kernel.connection_file, heartbeat_timeout=0.5, reconnect_timeout=0.2
    ) as ch:
        assert await run(ch, code) == "'alive'"


async def test_twenty_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    pids: list[int] = []

    async def one(ready: anyio.Event, stop: anyio.Event, number: int) -> None:
        # Half of them on ports.
        transport = "tcp" if number % 2 else "ipc"
        async with open_kernel(transport=transport) as kernel, kernel.open_channels() as ch:
            assert await run(ch, f"x = {number}") == str(number)
            pids.append(kernel.pid)
            if len(pids) == 20:
                ready.set()
            await stop.wait()

    ready, stop = anyio.Event(), anyio.Event()
    # The first kernel leaves ZeroMQ's context behind, and on asyncio a watcher of processes.
    async with open_kernel() as kernel, kernel.open_channels():
        pass
    before = len(os.listdir("/proc/self/fd"))
    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(one, ready, stop, number)
        await ready.wait()
        assert len(set(pids)) == 20
        assert sum(each.alive for each in await list_running_kernels()) == 20
        stop.set()
    assert not any(map(is_there, pids))
    assert list(tmp_path.iterdir()) == []
    # ZeroMQ closes sockets on a thread of its own; a process's pipes are closed with it.
    with anyio.fail_after(10):
        while len(os.listdir("/proc/self/fd")) > before:
            await anyio.sleep(0.01)


@pytest.mark.parametrize("when", ["starting", "running", "raising"])
async def test_of_ten_that_are_given_up_nothing_is_left(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    ready: list[int] = []

    async def one() -> None:
        async with (
            open_kernel(env={"ENCHANNEL_TEST": str(tmp_path)}) as kernel,
            kernel.open_channels() as ch,
        ):
            # Every other one ignores a shutdown_request.
            deaf = "get_ipython().kernel.do_shutdown = lambda restart: time.sleep(99)"
            await run(ch, f"import time; x = 1; {deaf if kernel.pid % 2 else 'pass'}")
            ready.append(kernel.pid)
            await anyio.sleep_forever()

    with contextlib.suppress(ExceptionGroup):
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(one)
            while len(marked(str(tmp_path)) if when == "starting" else ready) < 10:
                await anyio.sleep(0.01)
            if when == "raising":
                raise Mine
            tasks.cancel_scope.cancel()
    assert list(tmp_path.iterdir()) == []
    assert marked(str(tmp_path)) == []


@pytest.mark.parametrize("backend", ["trio", "asyncio"])
def test_a_launch_that_is_cancelled_meanwhile_leaves_no_process(
    backend: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Once the loop is closed asyncio complains of processes that it was to wait for.
    real = anyio.open_process

    async def launch(passes: int) -> None:
        entered = anyio.Event()

        async def open_process(*args: Any, **kwargs: Any) -> Any:
            entered.set()
            return await real(*args, **kwargs)

        async def stay() -> None:
            async with open_kernel():
                await anyio.sleep_forever()

        monkeypatch.setattr(anyio, "open_process", open_process)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stay)
            await entered.wait()
            for _ in range(passes):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()

    for passes in range(8):
        anyio.run(launch, passes, backend=backend)
        gc.collect()
    assert caplog.messages == []


def marked(text: str) -> list[str]:
    """The processes with `text` in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"ENCHANNEL_TEST={text}".encode() in path.read_bytes():
                found.append(path.parent.name)
        except OSError:
            pass
    return found


async def test_the_block_is_left_while_the_kernel_is_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    closed: list[str] = []
    async with anyio.create_task_group() as outside:

        async def restart(kernel: Kernel) -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await kernel.restart()
            closed.append("restart")

        for moment in range(4):
            env = {"ENCHANNEL_TEST": str(tmp_path)}
            async with open_kernel(env=env) as kernel, kernel.open_channels() as ch:
                first = kernel.pid
                outside.start_soon(restart, kernel)
                await away(ch)
                # As the old process goes, when it has gone, and when the new one has come.
                while moment and kernel.returncode is None and kernel.pid == first:
                    await anyio.sleep(0)
                while moment > 1 and kernel.pid == first:
                    await anyio.sleep(0)
                if moment > 2:
                    await anyio.sleep(0.05)
            assert list(tmp_path.iterdir()) == []
            assert marked(str(tmp_path)) == []
            with pytest.raises(anyio.ClosedResourceError):
                await kernel.restart()
            assert list(tmp_path.iterdir()) == []
    assert len(closed) == 4


@pytest.mark.parametrize("after", [0.0, 0.2, 0.5])
async def test_a_kernel_that_dies_as_soon_as_it_is_back_is_told(
    after: float, add_spec: AddSpec, tmp_path: Path
) -> None:
    once = tmp_path / "once"
    dying = (
        f"import os, threading; once = {str(once)!r}; "
        f"os.path.exists(once) and threading.Timer({after}, os._exit, [7]).start(); open(once, 'w')"
    )
    lines = f"--IPKernelApp.exec_lines={dying}"
    add_spec("fleeting", *IPYKERNEL, "{connection_file}", lines)
    async with open_kernel("fleeting") as kernel, kernel.open_channels() as ch:
        # ipykernel answers on control before it runs those lines, and on shell behind them.
        await run(ch, "x = 1")
        with anyio.fail_after(20):
            with contextlib.suppress(KernelLaunchError):
                await kernel.restart()
            # By the restart or behind it.
            assert await kernel.wait() == 7
            with pytest.raises(KernelDied):
                async for _ in ch.main:
                    pass


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
async def test_a_child_that_keeps_the_old_sockets_hinders_no_restart(transport: str) -> None:
    code = """
import os, signal, time
x = os.fork()
if not x:
    os.setsid()
    for name in os.listdir('/proc/self/fd'):
        try:
            listens = transport == 'tcp' and 'socket' in os.readlink('/proc/self/fd/' + name)
            if listens and __import__('socket').socket(fileno=int(name)).getsockopt(1, 30):
                os.close(int(name))  # or nobody could ever bind its port
        except OSError:
            pass
    time.sleep(60)
    os._exit(0)
"""
    async with open_kernel(transport=transport) as kernel, kernel.open_channels() as ch:
        child = int(await run(ch, f"transport = {transport!r}\n{code}"))
        try:
            with anyio.fail_after(20):
                await kernel.restart()
                assert await run(ch, "x = 1") == "1"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


async def test_channels_that_are_opened_beside_restarts(kernel: Kernel) -> None:
    restarts = 0

    async def restart() -> None:
        nonlocal restarts
        await kernel.restart()
        restarts += 1

    async def use() -> None:
        async with kernel.open_channels() as ch:
            while restarts < 2:
                # In flight at one of them it may fail, or find that what it said is forgotten.
                with contextlib.suppress(KernelDied):
                    async with ch.execute("x = 1") as execution:
                        await execution.wait()
            assert await run(ch, "x = 2") == "2"

    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(use)
            tasks.start_soon(restart)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(use)


async def test_a_kernel_that_dies_while_its_channels_are_opened_is_told_at_once(
    kernel: Kernel,
) -> None:
    await freeze(kernel.pid)
    async with anyio.create_task_group() as tasks:

        async def kill() -> None:
            await anyio.wait_all_tasks_blocked()
            os.kill(kernel.pid, signal.SIGKILL)

        tasks.start_soon(kill)
        with anyio.fail_after(20), pytest.raises(KernelDied, match="was ended by SIGKILL"):
            async with kernel.open_channels():
                pytest.fail("the block was entered")


async def test_an_interrupt_waits_for_the_end_of_a_restart(kernel: Kernel) -> None:
    first = kernel.pid
    async with kernel.open_channels() as ch, anyio.create_task_group() as tasks:
        tasks.start_soon(kernel.restart)
        await away(ch)
        await kernel.interrupt()
        assert kernel.pid != first
        assert kernel.returncode is None
        # One that comes while ipykernel turns to a request ends it.
        with contextlib.suppress(KernelDied):
            assert await run(ch, "x = 1") == "1"


async def test_an_interrupt_request_that_is_not_answered_is_told(
    add_spec: AddSpec,
) -> None:
    add_spec("deaf", *IPYKERNEL, "{connection_file}", interrupt_mode="message")
    async with open_kernel("deaf") as kernel, kernel.open_channels() as ch:
        code = "x = get_ipython().kernel.control_handlers.pop('interrupt_request') and 1"
        assert await run(ch, code) == "1"
        for interrupt in (kernel.interrupt, ch.interrupt):
            with anyio.fail_after(6), pytest.raises(NoReply, match="the interrupt_request"):
                await interrupt()


async def test_what_belonged_to_the_old_kernel_does_not_reach_the_new(kernel: Kernel) -> None:
    async with kernel.open_channels() as ch, anyio.create_task_group() as tasks:
        await run(ch, "x = get_ipython().kernel.comm_manager.register_target('t', print)")
        async with ch.open_comm("t") as comm:
            tasks.start_soon(kernel.restart)
            await away(ch)
            # Held back, and then refused; a fresh one goes to the kernel that comes.
            with pytest.raises(KernelDied, match="restarted"):
                await comm.send({"for": "the old one"})
        async with ch.open_comm("t") as fresh:
            with pytest.raises(anyio.EndOfStream):
                await fresh.receive()


async def test_what_the_old_kernel_has_not_read_is_not_for_the_new(
    kernel: Kernel, tmp_path: Path
) -> None:
    marker = tmp_path / "run"
    raised: list[KernelDied] = []

    async def ask(code: str) -> None:
        with pytest.raises(KernelDied) as caught:
            async with ch.execute(code) as execution:
                await execution.wait()
        raised.append(caught.value)

    async with kernel.open_channels() as ch:
        await freeze(kernel.pid)
        async with anyio.create_task_group() as tasks:
            # More than any buffer between the two takes, and behind it what it is about.
            for code in (f"#{'x' * 50_000_000}", f"open({str(marker)!r}, 'w').close()"):
                tasks.start_soon(ask, code)
                await anyio.wait_all_tasks_blocked()
            await kernel.restart()
        assert [died.reason for died in raised] == ["restarted", "restarted"]
        assert await run(ch, "x = 1") == "1"
        await anyio.sleep(0.5)
    assert not marker.exists()


async def test_a_complaint_of_another_address_is_no_reason_to_start_anew(
    add_spec: AddSpec, tmp_path: Path
) -> None:
    script = (
        "echo start >> $1; echo 'Address already in use: port 4040, trying 4041'; sleep 1.5; "
        f"exec {sys.executable} -m ipykernel_launcher -f $0"
    )
    starts = tmp_path / "starts"
    add_spec("spark", "/bin/sh", "-c", script, "{connection_file}", str(starts))
    async with open_kernel("spark", transport="tcp") as kernel, kernel.open_channels() as ch:
        assert await run(ch, "x = 1") == "1"
    assert starts.read_text().count("start") == 1


# A /tmp of one's own.


def unshared(directory: Path) -> list[str]:
    """A launcher for who sees another directory there than we do."""
    script = f'mount -t tmpfs none {directory} && exec "$@"'
    return ["unshare", "--mount", "sh", "-c", script, "sh"]


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    # Not pytest's, whose paths are too long for a socket.
    directory = Path(tempfile.mkdtemp())
    launcher = unshared(directory)
    if (
        shutil.which("unshare") is None
        or subprocess.run([*launcher, "true"], check=False).returncode
    ):
        pytest.skip("nobody may have directories of their own here")
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    yield launcher
    shutil.rmtree(directory)


async def test_a_kernel_with_a_tmp_of_its_own_is_reached_all_the_same(hidden: list[str]) -> None:
    with anyio.fail_after(30):
        async with open_kernel(launcher=hidden) as kernel, kernel.open_channels() as ch:
            assert kernel.connection_info.transport == "tcp"
            assert (await ch.run("6 * 7")).text == "42\n"
            await kernel.restart()
            assert (await ch.run("6 * 7")).text == "42\n"


async def test_a_kernel_that_is_to_be_reached_by_ipc_and_cannot_be(hidden: list[str]) -> None:
    with (
        anyio.fail_after(30),
        pytest.raises(KernelLaunchError, match="its /tmp may be another") as caught,
    ):
        async with open_kernel(launcher=hidden, transport="ipc"):
            pass
    assert caught.value.reason == "address hidden"


async def test_a_tmp_beyond_ascii(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / ("ж" * 40)
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    async with open_kernel(transport="ipc") as kernel, kernel.open_channels() as ch:
        assert (await ch.run("6 * 7")).text == "42\n"
