"""Launching, interrupting, restarting and stopping, on a process that is scripted; with real kernels: ``integration``."""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import shutil
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from enchannel import (
    Kernel,
    KernelChannels,
    KernelDied,
    KernelLaunchError,
    KernelSpec,
    LocalProtocolError,
    ReplyError,
    list_running_kernels,
    messages,
    open_kernel,
    raise_for_status,
)
from helpers import SCRIPT, away, freeze, is_there, scripted
from memory_kernel import start

pytestmark = pytest.mark.anyio


async def says(ch: KernelChannels, code: str) -> str:
    async with ch.execute(code) as execution:
        raise_for_status(await execution.wait())
    return "".join(output["text"] for output in execution.outputs)


def started(note: Path) -> list[int]:
    """The processes that were started: one more where somebody had taken the first one's address."""
    return [int(pid) for pid in note.read_text().split()]


@asynccontextmanager
async def opened(*options: str, mode: str = "signal", **more: Any) -> AsyncIterator[Any]:
    async with open_kernel(scripted(*options, mode=mode), **more) as kernel:
        async with kernel.open_channels() as ch:
            yield kernel, ch


async def test_it_is_ready_private_and_gone_afterwards() -> None:
    async with opened() as (kernel, ch):
        path = kernel.connection_file
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await says(ch, "echo hello") == "hello"
        assert await says(ch, "pid") == str(kernel.pid)
        assert kernel.returncode is None
        assert str(kernel.pid) in repr(kernel)
        assert "running" in repr(kernel)
        listed = [each.connection_file for each in await list_running_kernels()]
        assert path in listed
    assert not path.exists()
    assert kernel.returncode == 0
    assert not is_there(kernel.pid)


async def test_where_it_runs_and_with_what(tmp_path: Path) -> None:
    told = attrs.evolve(scripted(), env={"OF_ITS_OWN": "its own", "TWICE": "its own"})
    env = {"TWICE": "ours"}
    async with open_kernel(told, cwd=tmp_path, env=env) as kernel, kernel.open_channels() as ch:
        assert await says(ch, "cwd") == str(tmp_path)
        assert await says(ch, "env OF_ITS_OWN") == "its own"
        assert await says(ch, "env TWICE") == "ours"
        assert await says(ch, "env JPY_PARENT_PID") == str(os.getpid())


async def test_arguments_of_the_caller_come_last(tmp_path: Path) -> None:
    note = tmp_path / "note"
    arguments = ["--note", str(note)]
    async with open_kernel(scripted(), extra_arguments=arguments) as kernel:
        assert started(note)[-1] == kernel.pid


# The end.


async def test_what_it_started_goes_with_it() -> None:
    async with opened() as (_, ch):
        child = int(await says(ch, "spawn"))
        assert is_there(child)
    with anyio.fail_after(10):
        while is_there(child):  # until its end is noticed by who inherits it
            if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
                break
            await anyio.sleep(0.01)


@pytest.mark.parametrize(
    ("ignored", "returncode"),
    [
        ([], 0),
        (["shutdown"], -signal.SIGTERM),
        (["shutdown", "SIGTERM"], -signal.SIGKILL),
    ],
    ids=["asked", "terminated", "killed"],
)
async def test_it_ends_as_softly_as_it_lets_itself_be(ignored: list[str], returncode: int) -> None:
    options = [option for each in ignored for option in ("--ignore", each)]
    async with opened(*options) as (kernel, _):
        begun = time.monotonic()
    assert kernel.returncode == returncode
    assert time.monotonic() - begun < 10, "the bound that open_kernel gives"


async def test_who_is_on_the_way_out_is_not_interrupted() -> None:
    """It may be saving something, and a process of Python that ends dies of the signal."""
    async with opened("--leaves-for", "1.3") as (kernel, _):
        pass
    assert kernel.returncode == 0


async def test_who_uses_channels_in_another_task_is_told_when_its_block_is_left() -> None:
    """Also where a daemon keeps the connections open."""
    forked = anyio.Event()
    daemons: list[int] = []

    async def use(kernel: Kernel) -> KernelDied:
        async with kernel.open_channels() as ch:
            daemons.append(int(await says(ch, "fork")))
            forked.set()
            return await ch.wait_lost()

    try:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                async with open_kernel(scripted()) as kernel:
                    using = start(tasks, use, kernel)
                    await forked.wait()
                died = await using.result()
        assert (died.reason, str(died)) == ("exited", "the kernel's process exited with status 0")
    finally:
        for daemon in daemons:
            os.kill(daemon, signal.SIGKILL)


async def test_a_body_that_fails_or_is_cancelled_leaves_nothing_behind() -> None:
    pids = []
    with pytest.raises(ZeroDivisionError):
        async with opened() as (kernel, _):
            pids.append(kernel.pid)
            raise ZeroDivisionError
    assert kernel.returncode == 0, "it was asked to exit"
    with anyio.CancelScope() as scope:
        async with opened() as (kernel, _):
            pids.append(kernel.pid)
            scope.cancel()
            await anyio.sleep_forever()
    assert kernel.returncode == 0, "it was asked to exit"
    assert not [pid for pid in pids if is_there(pid)]


async def test_who_is_cancelled_already_starts_none(tmp_path: Path) -> None:
    note = tmp_path / "note"
    with anyio.fail_after(10), anyio.CancelScope() as scope:
        scope.cancel()
        async with open_kernel(scripted("--note", str(note))):
            pytest.fail("the block was entered")
    assert scope.cancelled_caught
    assert not any(map(is_there, started(note) if note.exists() else []))


async def test_an_exit_is_told_to_who_waits_and_who_comes_later() -> None:
    async with opened() as (kernel, ch):
        with pytest.raises(KernelDied, match="exited with status 3"):
            await says(ch, "exit 3")
        assert await kernel.wait() == kernel.returncode == 3
        assert "exited with status 3" in repr(kernel)
        with pytest.raises(KernelDied, match="exited with status 3"):
            async with kernel.open_channels():
                pytest.fail("the block was entered")
        with pytest.raises(KernelDied, match="exited with status 3"):
            await kernel.interrupt()


async def test_its_last_words_are_kept() -> None:
    async with opened("--says", "this is the end") as (kernel, ch):
        assert kernel.output == "this is the end"
        with pytest.raises(KernelDied) as caught:
            await says(ch, "exit 3")
        assert caught.value.output == "this is the end"
        assert ch.lost is not None
        assert pickle.loads(pickle.dumps(ch.lost)).output == "this is the end"
        with pytest.raises(KernelDied) as caught:
            await kernel.interrupt()
        assert caught.value.output == "this is the end"


async def test_a_signal_that_ends_it_is_named() -> None:
    async with opened() as (kernel, ch):
        os.kill(kernel.pid, signal.SIGKILL)
        assert await kernel.wait() == -signal.SIGKILL
        with pytest.raises(KernelDied, match="was ended by SIGKILL"):
            await says(ch, "pid")


# The beginning.


async def test_it_is_started_by_a_launcher() -> None:
    async with opened(launcher=["env", "SAID=by the launcher"]) as (_, ch):
        assert await says(ch, "env SAID") == "by the launcher"
    with pytest.raises(LocalProtocolError, match="launcher is a sequence of texts"):
        open_kernel(scripted(), launcher="nice")
    with pytest.raises(KernelLaunchError, match="cannot be started: no-such-program") as caught:
        async with open_kernel(scripted(), launcher=["no-such-program"]):
            pytest.fail("the block was entered")
    assert caught.value.reason == "system"


def test_a_kernelspec_may_lie_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KernelLaunchError, match=r"kernel\.json is no kernelspec") as caught:
        KernelSpec.from_directory(tmp_path)
    assert caught.value.reason == "broken kernelspec"
    (tmp_path / "kernel.json").write_text('{"argv": ["it", "{resource_dir}"], "language": "words"}')
    monkeypatch.chdir(tmp_path.parent)
    found = KernelSpec.from_directory(tmp_path.name)
    assert (found.name, found.language) == (tmp_path.name, "words")
    assert found.command(Path("file")) == ["it", str(tmp_path)]


def test_the_ipykernel_of_our_own_environment_needs_no_kernelspec(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ENV_JUPYTER_PATH", "SYSTEM_JUPYTER_PATH"):
        monkeypatch.setattr(f"jupyter_core.paths.{name}", [])
    for name in ("JUPYTER_PATH", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    found = KernelSpec.find("Python3")
    assert [found] == KernelSpec.installed()
    assert found.command(Path("file"))[:3] == [sys.executable, "-m", "ipykernel_launcher"]
    assert found.speaks_ipc
    assert (found.resource_dir / "logo-64x64.png").exists()
    with pytest.raises(KernelLaunchError, match="no kernelspec 'julia'") as caught:
        KernelSpec.find("julia")
    assert caught.value.reason == "no kernelspec"


async def test_an_exit_while_it_starts_is_told_with_its_last_words() -> None:
    with pytest.raises(KernelLaunchError, match="exited with status 5 while starting") as caught:
        async with open_kernel(scripted("--exits", "5", "--says", "no licence")):
            pytest.fail("the block was entered")
    assert "no licence" in str(caught.value)
    assert caught.value.reason == "exited"


async def test_one_that_answers_nothing_is_told_and_ended(tmp_path: Path) -> None:
    note = tmp_path / "note"
    told = scripted("--mute", "--note", str(note))
    # Long enough for the process to be there, whatever else the machine does.
    answers_none = "not ready within 6 s: it answers no kernel_info"
    with pytest.raises(KernelLaunchError, match=answers_none) as caught:
        async with open_kernel(told, startup_timeout=6):
            pytest.fail("the block was entered")
    assert caught.value.reason == "not ready"
    assert not any(map(is_there, started(note)))


async def test_a_taken_address_is_followed_by_another(tmp_path: Path) -> None:
    note = tmp_path / "note"
    says_so = "cannot bind: Address already in use"
    told = scripted("--says", says_so, "--exits", "1", "--note", str(note))
    with pytest.raises(KernelLaunchError, match="exited with status 1 while starting"):
        async with open_kernel(told):
            pytest.fail("the block was entered")
    assert len(started(note)) > 1, "it was tried once only"


async def test_a_launch_that_is_cancelled_leaves_no_process(tmp_path: Path) -> None:
    note = tmp_path / "note"
    async with anyio.create_task_group() as tasks:

        async def launch() -> None:
            async with open_kernel(scripted("--mute", "--note", str(note))):
                pytest.fail("the block was entered")

        tasks.start_soon(launch)
        while not (note.exists() and note.read_text()):
            await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()
    assert not any(map(is_there, started(note)))


# Between.


async def interrupted(kernel: Kernel, ch: KernelChannels) -> None:
    async with ch.execute("run") as execution:
        async for message in execution:
            if message.msg_type == "stream":
                await kernel.interrupt()
    assert execution.reply is not None
    with pytest.raises(ReplyError, match="KeyboardInterrupt"):
        raise_for_status(execution.reply)


async def test_an_interrupt_is_a_signal_where_its_spec_says_so() -> None:
    async with opened() as (kernel, ch):
        await interrupted(kernel, ch)
        assert await says(ch, "echo again") == "again"


async def test_interrupts_between_cells_do_no_harm() -> None:
    async with opened() as (kernel, ch):
        for number in range(50):
            await kernel.interrupt()
            async with ch.execute("echo x") as execution:
                await execution.wait()
            assert execution.reply is not None, number
        assert kernel.returncode is None


async def test_an_interrupt_is_a_message_where_its_spec_says_so() -> None:
    async with opened(mode="message") as (kernel, ch):
        await kernel.interrupt()
        assert await says(ch, "echo again") == "again"


@pytest.mark.parametrize(("how", "reason"), [("restart", "restarted"), ("shut_down", "exited")])
async def test_who_interrupts_by_message_is_told_that_it_is_stopped(how: str, reason: str) -> None:
    async with (
        open_kernel(scripted(mode="message")) as kernel,
        anyio.create_task_group() as tasks,
    ):
        await freeze(kernel.pid)
        interrupting = start(tasks, kernel.interrupt)
        await anyio.wait_all_tasks_blocked()
        if how == "restart":
            await kernel.restart(now=True)
        else:
            with anyio.move_on_after(0.1):
                await kernel.shut_down()
        with pytest.raises(KernelDied) as caught:
            await interrupting.result()
        assert caught.value.reason == reason


@pytest.mark.parametrize("who", ["kernel", "channels"])
async def test_who_is_on_the_way_out_is_not_interrupted_by_anybody(who: str) -> None:
    async with opened("--leaves-for", "1.3") as (kernel, ch), anyio.create_task_group() as tasks:
        leaving = start(tasks, kernel.shut_down)
        with anyio.fail_after(20):
            while "saving" not in kernel.output:
                await anyio.sleep(0.01)
        await (kernel if who == "kernel" else ch).interrupt()
        assert await leaving.result() == 0


async def test_open_channels_outlive_a_restart(tmp_path: Path) -> None:
    note = tmp_path / "note"
    async with opened("--note", str(note)) as (kernel, ch):
        first = kernel.pid
        await kernel.restart()
        assert kernel.pid != first
        assert await says(ch, "pid") == str(kernel.pid)
        assert ch.statistics().restarts == 1
    assert started(note)[-2:] == [first, kernel.pid]
    assert not is_there(first)


async def test_what_runs_at_a_restart_is_told(tmp_path: Path) -> None:
    # It would be interrupted, and have an answer, were it not deaf to that.
    async with opened("--ignore", "SIGINT", "--ignore", "shutdown") as (kernel, ch):
        told: list[KernelDied] = []

        async def run(*, task_status: Any) -> None:
            with pytest.raises(KernelDied) as caught:
                async with ch.execute("run") as execution:
                    async for message in execution:
                        if message.msg_type == "stream":
                            task_status.started()
            told.append(caught.value)

        async with anyio.create_task_group() as tasks:
            await tasks.start(run)
            await kernel.restart()
        assert "restart" in str(told[0])
        assert await says(ch, "echo again") == "again"


@pytest.mark.parametrize("channels", [("shell",), ("control",), ("shell", "iopub")])
async def test_some_of_its_channels_outlive_a_restart(channels: Any) -> None:
    async with open_kernel(scripted()) as kernel, kernel.open_channels(channels=channels) as ch:
        await kernel.restart()
        asked = channels[0]
        assert (await ch.request("kernel_info_request", channel=asked)).content["status"] == "ok"
        await kernel.kill()
        assert (await ch.wait_lost()).reason == "exited"


async def test_one_whose_directories_were_tidied_up_can_be_restarted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    async with opened(transport="ipc") as (kernel, ch):
        sockets = Path(kernel.connection_info.ip).parent
        for directory in (sockets, tmp_path / "runtime"):
            shutil.rmtree(directory)
        await kernel.restart()
        assert (await ch.run("pid")).text == f"{kernel.pid}"
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700


async def test_a_directory_that_is_somebody_elses_by_now_is_not_used(tmp_path: Path) -> None:
    async with open_kernel(scripted(), transport="ipc") as kernel:
        sockets = Path(kernel.connection_info.ip).parent
        shutil.rmtree(sockets)
        sockets.symlink_to(tmp_path)
        with pytest.raises(KernelLaunchError, match="cannot hold its address: .*somebody else"):
            await kernel.restart()
        sockets.unlink()
        await kernel.restart()
        assert kernel.returncode is None


async def test_one_that_has_exited_can_be_restarted() -> None:
    async with opened() as (kernel, ch):
        with pytest.raises(KernelDied):
            await says(ch, "exit 3")
        await kernel.restart()
        async with kernel.open_channels() as again:
            assert await says(again, "echo here") == "here"


async def test_it_is_killed_and_started_again() -> None:
    async with opened() as (kernel, ch):
        assert await kernel.kill() == kernel.returncode == -signal.SIGKILL
        assert ch.lost is not None
        assert ch.lost.reason == "exited"
        assert await kernel.kill() == -signal.SIGKILL
        with pytest.raises(KernelDied, match="was ended by SIGKILL"):
            kernel.signal(signal.SIGTERM)
        await kernel.restart()
        async with kernel.open_channels() as again:
            assert await says(again, "echo here") == "here"


async def test_it_is_shut_down_and_started_again() -> None:
    async with opened() as (kernel, ch):
        assert await kernel.shut_down() == kernel.returncode == 0
        assert ch.lost is not None
        assert ch.lost.reason == "exited"
        assert await kernel.shut_down() == 0
        await kernel.restart()
        async with kernel.open_channels() as again:
            assert await says(again, "echo here") == "here"


async def test_who_does_not_react_is_replaced_now() -> None:
    deaf = ("--ignore", "SIGINT", "--ignore", "shutdown", "--ignore", "SIGTERM")
    async with opened(*deaf) as (kernel, ch):
        before = kernel.pid
        begun = time.monotonic()
        await kernel.restart(now=True)
        assert kernel.pid != before
        assert await says(ch, "echo again") == "again"
        assert time.monotonic() - begun < 4.5, "what asking such a kernel would take"
        await kernel.kill()


async def test_it_is_killed_where_its_shutting_down_is_cancelled_before_it_has_begun() -> None:
    async with opened() as (kernel, _):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await kernel.shut_down()
        assert await kernel.wait() == -signal.SIGKILL


async def test_it_is_killed_where_its_shutting_down_is_cancelled_behind_a_restart() -> None:
    async with opened("--ignore", "shutdown") as (kernel, ch), anyio.create_task_group() as tasks:
        process = kernel._running.process
        restarting = start(tasks, kernel.restart)
        await away(ch)
        with anyio.move_on_after(0.1):
            await kernel.shut_down()
        await restarting.result()
        assert process.returncode == -signal.SIGKILL, "it would have been SIGTERM"
        assert await says(ch, "pid") == str(kernel.pid)


@pytest.mark.parametrize("how", ["restart", "kill"])
async def test_who_opens_channels_holds_up_neither_a_restart_nor_a_death(how: str) -> None:
    async with opened() as (kernel, ch), anyio.create_task_group() as tasks:
        await freeze(kernel.pid)

        async def use() -> str:
            async with kernel.open_channels(connect_timeout=math.inf) as late:
                return await says(late, "pid")

        using = start(tasks, use)
        while not kernel._opening:
            await anyio.sleep(0)
        with anyio.fail_after(20):
            if how == "kill":
                restarting = start(tasks, kernel.restart)
                await away(ch)
                await kernel.kill()
                await restarting.result()
            else:
                await kernel.restart(now=True)
        # They are those of the next kernel.
        assert await using.result() == str(kernel.pid)
        assert await says(ch, "pid") == str(kernel.pid)


async def test_a_kernel_that_is_killed_while_it_is_started_again_is_not() -> None:
    async with opened() as (kernel, _), anyio.create_task_group() as tasks:
        first = kernel.pid
        restarting = start(tasks, kernel.restart)
        while kernel.pid == first:
            await anyio.sleep(0)
        assert await kernel.kill() == -signal.SIGKILL
        with pytest.raises(KernelLaunchError, match="was ended by SIGKILL"):
            await restarting.result()


async def test_it_is_signalled() -> None:
    async with opened() as (kernel, _):
        kernel.signal(signal.SIGTERM)
        assert await kernel.wait() == -signal.SIGTERM
        wrong: Any
        for wrong, said in (
            (1000, "there is no signal 1000"),
            (0, "there is no signal 0"),
            ("TERM", "signal.SIGTERM and the like, not 'TERM'"),
            (True, "and the like, not True"),
            ([], r"and the like, not \[\]"),
        ):
            with pytest.raises(LocalProtocolError, match=said):
                kernel.signal(wrong)


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="there are no signals without a name")
async def test_a_signal_without_a_name_is_one() -> None:
    async with opened() as (kernel, _):
        kernel.signal(signal.SIGRTMIN + 1)
        assert await kernel.wait() == -(signal.SIGRTMIN + 1)


async def test_behind_its_block_nothing_begins() -> None:
    async with opened() as (kernel, _):
        pass
    with pytest.raises(anyio.ClosedResourceError, match="the block of the kernel was left"):
        await kernel.restart()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"extra_arguments": ["a\0b"]}, "extra_arguments is a sequence of texts, without NUL"),
        ({"launcher": ["a\0b"]}, "launcher is a sequence of texts, without NUL"),
        ({"env": {"A": "b\0"}}, "env maps names of variables to texts, without NUL"),
        ({"cwd": "/tmp\0"}, "cwd is the path of a directory"),
        ({"cwd": "/\ud800"}, "cwd is the path of a directory"),
        ({"launcher": ["\ud800"]}, "launcher is a sequence of texts, without NUL"),
        ({"env": {"A": "\ud800"}}, "env maps names of variables to texts, without NUL"),
        ({"env": {"": "b"}}, "a name in env is not empty, and has no = in it"),
        ({"env": {"A=B": "b"}}, "a name in env is not empty, and has no = in it"),
        ({"startup_timeout": True}, "startup_timeout is seconds, above 0, not True"),
        ({"startup_timeout": math.nan}, "startup_timeout is seconds, above 0, not nan"),
    ],
)
def test_what_the_system_would_refuse_is_told_at_the_call(options: Any, said: str) -> None:
    with pytest.raises(LocalProtocolError, match=said):
        open_kernel(scripted(), **options)


# Channels that outlive the death of their kernel.


async def test_channels_may_outlive_the_death_of_their_kernel() -> None:
    async with (
        open_kernel(scripted("--says", "last words")) as kernel,
        kernel.open_channels(outlive_death=True) as ch,
        kernel.open_channels() as mortal,
        anyio.create_task_group() as tasks,
    ):
        async with ch.subscribe("iopub") as output:
            with pytest.raises(KernelDied) as caught:
                await ch.run("exit 3")
            assert (caught.value.reason, "last words" in caught.value.output) == ("exited", True)
            assert "status 3" in str(caught.value)
            assert ch.lost is None
            assert await kernel.wait() == 3
            with pytest.raises(KernelDied):
                await mortal.run("pid")
            # What is sent meanwhile waits.
            running = start(tasks, ch.run, "pid")
            await anyio.wait_all_tasks_blocked()
            await kernel.restart()
            assert (await running.result()).text == str(kernel.pid)
            assert ch.statistics().restarts == 1
            # The streams go on.
            texts = []
            while str(kernel.pid) not in texts:
                _, msg = await output.receive()
                texts.append(msg.content.get("text"))
        with pytest.raises(KernelDied):
            await ch.run("exit 4")
        await kernel.restart()
        assert await says(ch, "echo again") == "again"
        assert ch.statistics().restarts == 2


async def test_a_service_that_keeps_its_kernel_alive() -> None:
    async with (
        open_kernel(scripted()) as kernel,
        kernel.open_channels(outlive_death=True) as ch,
        anyio.create_task_group() as tasks,
    ):
        back = anyio.Event()

        async def keep_alive() -> None:
            nonlocal back
            while True:
                await kernel.wait()
                await kernel.restart()
                back.set()

        tasks.start_soon(keep_alive)
        pids = set()
        for _ in range(3):
            pids.add(await says(ch, "pid"))
            kernel.signal(signal.SIGKILL)
            with contextlib.suppress(KernelDied):
                await ch.run("run")
            # It answers before it is known to be ready, and is not to be killed then.
            await back.wait()
            back = anyio.Event()
        pids.add(await says(ch, "pid"))
        assert len(pids) == 4
        tasks.cancel_scope.cancel()


async def test_behind_the_block_of_the_kernel_nothing_waits_for_another() -> None:
    opened, killed = anyio.Event(), anyio.Event()

    async def use(kernel: Kernel) -> None:
        async with kernel.open_channels(outlive_death=True) as ch:
            opened.set()
            await killed.wait()
            assert ch.lost is None
            await ch.run("pid")

    async with anyio.create_task_group() as tasks:
        async with open_kernel(scripted()) as kernel:
            using = start(tasks, use, kernel)
            await opened.wait()
            await kernel.kill()
            killed.set()
            await anyio.wait_all_tasks_blocked()
            assert not using.done.is_set()
        with pytest.raises(KernelDied, match="block of the kernel was left"):
            await using.result()


async def test_those_who_wait_go_on_behind_a_restart_that_fails(tmp_path: Path) -> None:
    script = tmp_path / SCRIPT.name
    script.write_bytes(SCRIPT.read_bytes())
    argv = (sys.executable, str(script), "{connection_file}")
    async with (
        open_kernel(KernelSpec("scripted", argv, tmp_path)) as kernel,
        kernel.open_channels(outlive_death=True) as ch,
    ):
        async with kernel.open_channels() as mortal:
            await kernel.kill()
            content = script.read_bytes()
            script.unlink()
            with pytest.raises(KernelLaunchError):
                await kernel.restart()
            with pytest.raises(KernelDied):
                await mortal.run("pid")
        assert ch.lost is None
        script.write_bytes(content)
        await kernel.restart()
        assert await says(ch, "pid") == str(kernel.pid)


async def test_those_who_wait_go_on_behind_a_next_one_that_dies_at_once() -> None:
    options: Any = {"channels": ("shell",), "outlive_death": True, "reconnect_timeout": 0.1}
    async with (
        open_kernel(scripted()) as kernel,
        kernel.open_channels(**options) as ch,
        anyio.create_task_group() as tasks,
    ):
        await kernel.kill()
        # A single channel is there for the next kernel before that is known to be ready, which it never is.
        crashing = start(tasks, ch.request, messages.execute_request("exit 3"))
        with contextlib.suppress(KernelLaunchError):
            await kernel.restart()
            await kernel.wait()
        with pytest.raises(KernelDied) as caught:
            await crashing.result()
        assert caught.value.reason == "exited"
        assert ch.lost is None
        await kernel.restart()
        assert (await ch.request("kernel_info_request")).content["status"] == "ok"


async def test_those_who_wait_go_on_behind_a_restart_that_was_cancelled() -> None:
    async with (
        open_kernel(scripted()) as kernel,
        kernel.open_channels(outlive_death=True, reconnect_timeout=0.1) as ch,
        anyio.create_task_group() as tasks,
    ):
        await freeze(kernel.pid)

        async def use() -> None:
            async with kernel.open_channels():
                await anyio.sleep_forever()

        start(tasks, use)
        while not kernel._opening:
            await anyio.sleep(0)
        running = start(tasks, ch.run, "pid")
        while not ch.statistics().sent["shell"]:
            await anyio.sleep(0)
        with anyio.move_on_after(0.1):
            await kernel.restart(now=True)
        with pytest.raises(KernelDied):
            await running.result()
        running = start(tasks, ch.run, "pid")
        await kernel.restart()
        assert (await running.result()).text == str(kernel.pid)
        tasks.cancel_scope.cancel()


async def test_what_its_process_writes_can_be_followed() -> None:
    async with opened() as (kernel, ch):
        texts: list[str] = []

        async def follow() -> None:
            async for text in kernel.stream_output():
                texts.append(text)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            await says(ch, "write one é")
            while "".join(texts) != "one é\n":
                await anyio.sleep(0.01)
            await says(ch, "write two")
            await kernel.kill()
        # It ends with the process.
        assert "".join(texts) == "one é\ntwo\n"


async def test_it_ends_with_the_process_whatever_that_has_left_behind() -> None:
    async with opened() as (kernel, ch):
        left = int(await says(ch, "daemon"))
        try:
            ended = anyio.Event()

            async def follow() -> None:
                async for _ in kernel.stream_output():
                    pass
                ended.set()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow)
                await anyio.wait_all_tasks_blocked()
                await kernel.kill()
                with anyio.fail_after(20):
                    await ended.wait()
        finally:
            os.kill(left, signal.SIGKILL)


@pytest.mark.parametrize("how", ["kill", "shut_down"])
async def test_who_ends_a_kernel_waits_for_no_other(how: str) -> None:
    async with open_kernel(scripted()) as kernel, anyio.create_task_group() as tasks:

        async def keep_alive() -> None:
            while True:
                await kernel.wait()
                await kernel.restart()

        tasks.start_soon(keep_alive)
        for _ in range(3):
            with anyio.fail_after(20):
                status = await getattr(kernel, how)()
            assert status in (0, -signal.SIGKILL)
            # One that is starting again would be killed as well, and its restart fail.
            while kernel.returncode is not None or kernel.restarting:
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("stanza", [{"provisioner_name": "yarn-provisioner", "config": {}}, None])
async def test_a_kernel_that_somebody_else_starts_is_refused(
    stanza: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if stanza is None:
        monkeypatch.setenv("JUPYTER_DEFAULT_PROVISIONER_NAME", "yarn-provisioner")
    spec = attrs.evolve(scripted(), metadata={"kernel_provisioner": stanza})
    with pytest.raises(KernelLaunchError, match=r"'yarn-provisioner'.*through a server") as caught:
        open_kernel(spec)
    assert caught.value.reason == "provisioner"


@pytest.mark.parametrize("stanza", [{"provisioner_name": "local-provisioner"}, {}, [], "x", None])
async def test_a_kernel_of_this_machine_is_not(stanza: Any) -> None:
    async with open_kernel(attrs.evolve(scripted(), metadata={"kernel_provisioner": stanza})):
        pass
