"""Finding kernels that run already, and joining them, encrypted ones too."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import Process

from enchannel import (
    ConnectionFileError,
    KernelConnectError,
    KernelLaunchError,
    find_connection_file,
    list_running_kernels,
    open_kernel,
    open_kernel_channels,
)
from helpers import beating
from raw_kernel import RawKernel

pytestmark = pytest.mark.anyio

AddSpec = Callable[..., Path]


def test_the_newest_of_those_that_match(runtime: Path) -> None:
    for age, name in enumerate(("kernel-b.json", "kernel-a.json", "kernel-ab.json", "other.json")):
        (runtime / name).write_text("{}")
        os.utime(runtime / name, (1e9 - age, 1e9 - age))
    assert find_connection_file().name == "kernel-b.json"
    assert find_connection_file("kernel-a*").name == "kernel-a.json"
    assert find_connection_file("kernel-ab").name == "kernel-ab.json"
    assert find_connection_file("other.json").name == "other.json"
    assert find_connection_file("b").name == "kernel-b.json"
    assert find_connection_file(runtime / "kernel-a.json") == runtime / "kernel-a.json"


@pytest.mark.parametrize(
    "name", [None, "nowhere", "nowhere-*", "**", ".", "/nowhere/kernel.json", "", "[", "../*"]
)
def test_nothing_found_is_said(runtime: Path, name: str | None) -> None:
    with pytest.raises(ConnectionFileError, match="no connection file"):
        find_connection_file(name)
    wrong: Any = 3
    with pytest.raises(ConnectionFileError, match="named by a path or a text, not 3"):
        find_connection_file(wrong)


async def test_those_that_run_are_listed(runtime: Path) -> None:
    (runtime / "kernel-odd.json").write_text("no JSON")
    async with open_kernel(transport="tcp") as idle, open_kernel(transport="ipc") as busy:
        dead = json.loads(idle.connection_file.read_text())
        dead |= {f"{name}_port": 1 for name in ("shell", "control", "stdin", "iopub", "hb")}
        (runtime / "kernel-dead.json").write_text(json.dumps(dead))
        for age, name in enumerate(("kernel-dead.json", "kernel-odd.json")):
            os.utime(runtime / name, (1e9 - age, 1e9 - age))
        async with busy.open_channels() as ch:
            async with ch.execute("import time; print(1); time.sleep(60)") as execution:
                async for msg in execution:
                    if msg.msg_type == "stream":
                        break
                listed = await list_running_kernels()
            await ch.interrupt()
    by_file = {each.connection_file.name: each for each in listed}
    assert [each.connection_file.name for each in listed[2:]] == [
        "kernel-dead.json",
        "kernel-odd.json",
    ]
    said = by_file[idle.connection_file.name]
    assert (said.alive, said.busy, said.language, said.kernel_name) == (
        True,
        False,
        "python",
        "python3",
    )
    said = by_file[busy.connection_file.name]
    assert (said.alive, said.busy) == (True, True)
    assert not by_file["kernel-dead.json"].alive
    assert by_file["kernel-dead.json"].kernel_name == "python3"
    assert not by_file["kernel-odd.json"].alive


async def test_a_kernel_that_answers_nothing_until_its_cell_is_done_is_listed_as_busy(
    runtime: Path, raw_kernel: RawKernel
) -> None:
    (runtime / "kernel-silent.json").write_text(json.dumps(raw_kernel.config))
    (said,) = await list_running_kernels()
    assert (said.alive, said.busy) == (True, True)


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
async def test_an_encrypted_kernel(transport: str) -> None:
    async with open_kernel(encryption="required", transport=transport) as kernel:
        config = json.loads(kernel.connection_file.read_text())
        assert config["curve_publickey"] != config["curve_secretkey"]
        for secret in (config["curve_publickey"], config["curve_secretkey"], config["key"]):
            assert secret not in repr(kernel.connection_info)
        async with open_kernel_channels(None, config, heartbeat_timeout=5) as ch:
            async with ch.execute("6 * 7") as execution:
                await execution.wait()
            assert execution.outputs[0]["data"]["text/plain"] == "42"
            await beating(ch)
        # Who has not the key gets nowhere, and not for ever.
        bare = {name: value for name, value in config.items() if not name.startswith("curve")}
        with pytest.raises(KernelConnectError):
            async with open_kernel_channels(None, bare, connect_timeout=0.5):
                pytest.fail("the block was entered")
        await kernel.restart()
        async with kernel.open_channels() as ch, ch.execute("1") as execution:
            await execution.wait()


async def test_what_is_encrypted_by_default(add_spec: AddSpec) -> None:
    async with open_kernel(transport="tcp") as kernel:
        assert kernel.connection_info.curve_publickey
    async with open_kernel(transport="tcp", encryption="off") as kernel:
        assert not kernel.connection_info.curve_publickey
    add_spec("plain", "python", "-m", "ipykernel_launcher", "-f", "{connection_file}")
    async with open_kernel("plain", transport="tcp") as kernel:
        assert not kernel.connection_info.curve_publickey
    with pytest.raises(KernelLaunchError, match="'plain' declares no encryption"):
        open_kernel("plain", encryption="required")


def test_without_curve_in_libzmq(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zmq.has", lambda _: False)
    with pytest.raises(KernelLaunchError, match="without CurveZMQ"):
        open_kernel(encryption="required")


async def test_an_encrypted_kernel_of_jupyter_client(runtime: Path, tmp_path: Path) -> None:
    pytest.importorskip("jupyter_client", minversion="8.9")
    script = """
import sys
from jupyter_client import KernelManager
manager = KernelManager(kernel_name="python3", transport_encryption="required")
manager.start_kernel()
print(manager.connection_file, flush=True)
sys.stdin.read()
manager.shutdown_kernel(now=True)
"""
    import sys

    process: Process
    async with await anyio.open_process([sys.executable, "-c", script], stderr=None) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        path = (await process.stdout.receive()).decode().strip()
        assert "curve_publickey" in json.loads(Path(path).read_text())
        async with open_kernel_channels(None, path, connect_timeout=30) as ch:
            async with ch.execute("6 * 7") as execution:
                await execution.wait()
            assert execution.outputs[0]["data"]["text/plain"] == "42"
        await process.stdin.aclose()
        await process.wait()
