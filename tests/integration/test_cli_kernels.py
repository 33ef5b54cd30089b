"""``enchannel kernels``: what is listed, what is called dead, and what is removed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from enchannel import ConnectionFileError, find_connection_file, list_running_kernels, open_kernel
from terminal import DEADLINE, Terminal, enchannel

pytestmark = pytest.mark.anyio

NAMES = ("shell", "control", "stdin", "iopub", "hb")

Left = Callable[..., Path]


def age(path: Path) -> None:
    """Makes it a file of yesterday."""
    yesterday = time.time() - 86_400
    os.utime(path, (yesterday, yesterday))


@pytest.fixture
def left(runtime: Path) -> Iterator[Left]:
    """Writes the connection file of a kernel that was killed."""
    # Bound and not listened on: whoever connects is refused, and nobody else gets the number.
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]

        def left(name: str, **fields: Any) -> Path:
            path = runtime / f"kernel-{name}.json"
            said = {f"{channel}_port": port for channel in NAMES}
            said |= {"ip": "127.0.0.1", "transport": "tcp", "key": "k", "kernel_name": "gone"}
            path.write_text(json.dumps({**said, "signature_scheme": "hmac-sha256", **fields}))
            age(path)
            return path

        yield left


async def test_what_was_left_behind_costs_no_time(left: Left, anyio_backend: str) -> None:
    for number in range(1000):
        left(str(number))
    async with open_kernel() as kernel:
        # One after the other, or in turns of 50 that wait for an answer, would be minutes.
        with anyio.fail_after(30):
            found = await list_running_kernels()
        assert len(found) == 1001
        assert [each.connection_file for each in found if each.alive] == [kernel.connection_file]


async def test_nothing_is_said_of_those_for_whom_there_was_no_time(
    left: Left, anyio_backend: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for number in range(1000):
            left(str(number), shell_port=port)
        async with open_kernel() as newest:
            with anyio.fail_after(30):
                found = await list_running_kernels()
    assert not any(each.gone for each in found)
    assert sum(each.alive for each in found) < len(found) == 1001
    assert found[0].connection_file == newest.connection_file
    assert found[0].alive


async def test_odd_files_are_dead_and_hide_nothing(
    runtime: Path, left: Left, anyio_backend: str
) -> None:
    left("surrogate", ip="\ud800")
    left("nul", ip="a\0b")
    left("nameless", ip="a..b")
    left("keyless", key="\ud800")
    left("unencrypted", curve_publickey="\ud800")
    left("nowhere", ip="no.such.host.invalid")
    left("socket", transport="ipc", ip="/nowhere/at/all")
    (runtime / "kernel-deep.json").write_text("[" * 100_000)
    (runtime / "kernel-list.json").write_text("[]")
    (runtime / "kernel-empty.json").write_text("")
    (runtime / "kernel-directory.json").mkdir()
    (runtime / "kernel-link.json").symlink_to(runtime / "nothing")
    with (runtime / "kernel-huge.json").open("wb") as file:
        file.truncate(3 << 30)
    async with open_kernel() as kernel:
        with anyio.fail_after(DEADLINE):
            found = await list_running_kernels()
    assert [each.connection_file for each in found if each.alive] == [kernel.connection_file]
    assert {"kernel-deep.json", "kernel-surrogate.json", "kernel-nowhere.json"} <= {
        each.connection_file.name for each in found
    }


async def test_only_who_is_refused_is_gone(runtime: Path, left: Left, anyio_backend: str) -> None:
    gone = left("gone")
    starting = left("starting")
    os.utime(starting)
    for name in ("deep", "unknown"):
        (runtime / f"kernel-{name}.json").write_text("[" * 1000)
        age(runtime / f"kernel-{name}.json")
    left("nowhere", ip="no.such.host.invalid")
    found = await list_running_kernels()
    assert len(found) == 5
    assert not any(each.alive for each in found)
    assert [each.connection_file for each in found if each.gone] == [gone]


async def test_a_kernel_stays_frozen_however_often_it_is_looked_at(
    runtime: Path, left: Left, anyio_backend: str
) -> None:
    # As a frozen one has it: connections are taken, until too many wait.
    with socket.create_server(("127.0.0.1", 0), backlog=2) as silent:
        port = silent.getsockname()[1]
        for number in range(200):
            left(str(number), **{f"{name}_port": port for name in NAMES})
        with anyio.fail_after(DEADLINE):
            seen = set()
            # A look takes two seconds, and says nothing of those for whom there was no time.
            while seen != {(True, False, None)}:
                seen = {(each.alive, each.gone, each.busy) for each in await list_running_kernels()}
                assert seen <= {(True, False, None), (False, False, None)}


def freeze(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)


async def test_a_frozen_kernel_is_not_dead(runtime: Path, anyio_backend: str) -> None:
    async with open_kernel() as kernel:
        freeze(kernel.pid)
        try:
            (found,) = await list_running_kernels()
        finally:
            os.kill(kernel.pid, signal.SIGCONT)
    assert (found.alive, found.busy) == (True, None)


async def test_somebody_else_at_the_port_is_no_kernel(left: Left, anyio_backend: str) -> None:
    import threading

    with socket.create_server(("127.0.0.1", 0)) as other:

        def greet() -> None:
            while True:
                try:
                    stream, _ = other.accept()
                except OSError:
                    return
                with stream:
                    stream.sendall(b"220 mail.example ESMTP\r\n" * 10)

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        port = other.getsockname()[1]
        left("other", **{f"{name}_port": port for name in NAMES})
        (found,) = await list_running_kernels()
        assert not found.alive
        other.shutdown(socket.SHUT_RDWR)
    thread.join()


LISTS = """
import json, sys, trio
from enchannel import list_running_kernels
found = trio.run(list_running_kernels)
print(json.dumps([each.alive for each in found]))
"""


def test_few_descriptors_make_no_kernel_dead(runtime: Path) -> None:
    async def main() -> subprocess.CompletedProcess[str]:
        async with open_kernel() as kernel:
            content = kernel.connection_file.read_bytes()
            for number in range(60):
                (runtime / f"kernel-copy-{number}.json").write_bytes(content)

            return await anyio.to_thread.run_sync(
                lambda: subprocess.run(
                    ["/bin/sh", "-c", 'ulimit -n 80; exec "$@"', "sh", sys.executable, "-c", LISTS],
                    capture_output=True,
                    text=True,
                    timeout=DEADLINE,
                    check=False,
                )
            )

    result = anyio.run(main, backend="trio")
    assert result.stderr == ""
    assert json.loads(result.stdout) == [True] * 61


# On the command line.


def test_what_the_columns_say_can_be_used(left: Left, runtime: Path) -> None:
    left("12345678-1234-1234-1234-123456789012")
    with Terminal("kernels", env={"COLUMNS": "40"}) as terminal:
        terminal.resize(40)
        assert terminal.wait() == 0
    lines = terminal.shown.replace("\x1b[0m", "").splitlines()
    assert any("--existing" in line for line in lines)
    assert any("kernel-12345678-1234-1234-1234-123456789012.json" in line for line in lines)
    assert any(str(runtime) in line for line in lines)


def test_only_what_is_alive(left: Left) -> None:
    left("1")
    assert "kernel-1.json" in enchannel("kernels").stdout
    assert enchannel("kernels", "--alive").stdout.endswith("No kernels are running.\n")
    assert json.loads(enchannel("kernels", "--alive", "--json").stdout)["running"] == []


def test_what_was_started_while_it_was_asked_stays(left: Left) -> None:
    path, other = left("1"), left("2")
    with Terminal("kernels", "--clean") as terminal:
        terminal.expect(r"Remove these 2 files\? \[y/N\] ")
        # Somebody has written it anew, and may be about to listen.
        os.utime(path)
        terminal.type("y\n")
        terminal.expect("1 removed")
        assert terminal.wait() == 0
    assert path.exists()
    assert not other.exists()


def test_what_is_dead_is_removed_when_that_is_wanted(left: Left) -> None:
    path, other = left("1"), left("2")
    refused = enchannel("kernels", "--clean")
    assert (
        refused.stderr == "Error: nobody is there to be asked; --yes removes them without asking\n"
    )
    assert refused.returncode == 2
    with Terminal("kernels", "--clean") as terminal:
        terminal.expect(r"No kernel is there\. Remove these 2 files\? \[y/N\] ")
        terminal.type("\n")
        assert terminal.wait() == 1
    assert path.exists()
    with Terminal("kernels", "--clean") as terminal:
        terminal.expect(r"\[y/N\] ")
        terminal.type("y\n")
        terminal.expect("2 removed")
        assert terminal.wait() == 0
    assert not path.exists()
    assert not other.exists()


async def test_who_is_alive_is_left_alone(left: Left, anyio_backend: str) -> None:
    path = left("1")
    async with open_kernel() as kernel:
        freeze(kernel.pid)
        result = await anyio.to_thread.run_sync(enchannel, "kernels", "--clean", "--yes")
        os.kill(kernel.pid, signal.SIGCONT)
        assert (result.stdout, result.returncode) == (f"{path}\n1 removed.\n", 0)
        assert kernel.connection_file.exists()
    assert enchannel("kernels", "--clean", "--yes").stdout == "There is nothing to remove.\n"


async def test_only_one_that_runs_is_meant(left: Left, runtime: Path, anyio_backend: str) -> None:
    left("1")

    async def run(name: str) -> Any:
        return await anyio.to_thread.run_sync(enchannel, "run", "--existing", name, "print('here')")

    dead = await run("kernel-1*")
    assert dead.stderr.startswith("Error: kernel-1.json: that kernel is dead")
    assert dead.returncode == 2
    async with open_kernel() as kernel:
        # The dead one is not meant, though its file is one of those that match.
        assert (await run("kernel-*")).stdout == "here\n"
        async with open_kernel() as other:
            several = await run("kernel-*")
            assert "may be any of 2 kernels" in several.stderr
            assert other.connection_file.name in several.stderr
            assert several.returncode == 2
        path = str(kernel.connection_file)
        expanded = await anyio.to_thread.run_sync(enchannel, "run", path)
    assert "is a connection file, and no code" in expanded.stderr
    assert kernel.connection_info.key.decode() not in expanded.stdout + expanded.stderr


# Finding files.


async def test_what_others_have_in_the_directory_is_of_no_kernel(
    runtime: Path, anyio_backend: str
) -> None:
    (runtime / "jpserver-1.json").write_text('{"pid": 1, "port": 8888, "token": "t"}')
    (runtime / "jpserver-1-open.html").write_text("<html></html>")
    with pytest.raises(ConnectionFileError, match="no connection file 'jpserver' in"):
        find_connection_file("jpserver")
    async with open_kernel() as kernel:
        assert find_connection_file(".") == kernel.connection_file
        result = await anyio.to_thread.run_sync(
            enchannel, "run", "--existing", ".", "print('here')"
        )
    assert (result.stdout, result.stderr) == ("here\n", "")


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "kernel-12*", "", "/nowhere", "x" * 5000])
def test_what_no_file_is_called_finds_none(runtime: Path, name: str) -> None:
    with pytest.raises(ConnectionFileError):
        find_connection_file(name)


def test_the_runtime_directory_is_the_same_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", "here")
    (tmp_path / "elsewhere").mkdir()

    async def main() -> None:
        began = time.monotonic()
        async with open_kernel(cwd="elsewhere") as kernel, kernel.open_channels() as ch:
            assert kernel.connection_file.parent == tmp_path / "here"
            assert (await ch.run("1")).status == "ok"
        assert time.monotonic() - began < DEADLINE
        assert os.listdir(tmp_path / "here") == []

    anyio.run(main, backend="trio")
