"""Launching: what fails says why, and whatever happens nothing is left behind."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from enchannel import KernelLaunchError, KernelSpec, open_kernel

pytestmark = pytest.mark.anyio

AddSpec = Callable[..., Path]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


IPYKERNEL = ("python", "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f")


async def run(ch: Any, code: str) -> dict[str, Any]:
    """The user expression x of a cell."""
    async with ch.execute(code, user_expressions={"x": "x"}) as execution:
        reply = await execution.wait()
    return reply.content["user_expressions"]["x"]["data"]["text/plain"]


async def test_a_launched_kernel_is_private_ready_and_gone_afterwards() -> None:
    async with open_kernel() as kernel:
        path = kernel.connection_file
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert alive(kernel.pid)
        assert os.getsid(kernel.pid) == kernel.pid
        assert kernel.returncode is None
        assert repr(kernel) == f"<Kernel python3 {kernel.pid} running>"
        async with kernel.open_channels() as one, kernel.open_channels() as two:
            assert await run(one, "x = 1") == await run(two, "pass") == "1"
            assert await run(one, "import os; x = os.environ['JPY_PARENT_PID']") == repr(
                str(os.getpid())
            )
    assert kernel.returncode == 0
    assert not alive(kernel.pid)
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
    assert not alive(kernel.pid)
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
    assert not alive(kernel.pid)
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
    assert not alive(int(pid_file.read_text()))


async def test_what_a_kernel_started_goes_with_it() -> None:
    async with open_kernel() as kernel, kernel.open_channels() as ch:
        # An ipykernel that is asked to shut down ends its children itself; a killed one does not.
        code = "import subprocess; x = subprocess.Popen(['sleep', '99']).pid"
        child = int(await run(ch, code))
        assert alive(child)
        os.kill(kernel.pid, signal.SIGKILL)
    with anyio.fail_after(10):
        while alive(child) and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
            await anyio.sleep(0.01)


async def test_a_kernel_that_ignores_shutdown_and_sigterm_is_killed(
    add_spec: AddSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("enchannel._kernels.SHUTDOWN_DEADLINE", 0.3)
    monkeypatch.setattr("enchannel._kernels.TERMINATE_DEADLINE", 0.3)
    async with open_kernel() as kernel, kernel.open_channels() as ch:
        code = (
            "import signal, time; x = signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "get_ipython().kernel.do_shutdown = lambda restart: time.sleep(99)"
        )
        await run(ch, code)
    assert kernel.returncode == -9


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
