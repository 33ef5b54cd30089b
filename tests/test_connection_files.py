"""Connection files that are written for kernels of others."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from enchannel import (
    ConnectionFileError,
    ConnectionInfo,
    find_connection_file,
    open_kernel_channels,
    write_connection_file,
)

SCRIPT = Path(__file__).with_name("scripted_kernel.py")


def test_it_is_private_and_has_what_a_kernel_wants(tmp_path: Path) -> None:
    path = write_connection_file(tmp_path / "mine.json", kernel_name="ir")
    assert path == tmp_path / "mine.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    info = ConnectionInfo.from_file(path)
    assert (info.ip, info.transport, info.kernel_name) == ("127.0.0.1", "tcp", "ir")
    assert len(info.key) == 32
    ports = [port for name, port in json.loads(path.read_text()).items() if name.endswith("_port")]
    assert len(set(ports)) == 5


def test_what_is_there_is_replaced_and_not_followed(tmp_path: Path) -> None:
    other, path = tmp_path / "other", tmp_path / "mine.json"
    other.write_text("kept")
    path.symlink_to(other)
    write_connection_file(path, ports=range(9000, 9005), ip="0.0.0.0", key="")
    assert other.read_text() == "kept"
    info = ConnectionInfo.from_file(path)
    assert info.endpoint("shell") == "tcp://127.0.0.1:9000"
    assert info.endpoint("hb") == "tcp://127.0.0.1:9004"
    assert info.key == b""


def test_with_ipc_the_sockets_are_numbered(tmp_path: Path) -> None:
    path = write_connection_file(tmp_path / "c.json", transport="ipc", ip=f"{tmp_path}/kernel")
    assert ConnectionInfo.from_file(path).endpoint("iopub") == f"ipc://{tmp_path}/kernel-4"


def test_there_may_be_keys_to_encrypt_with(tmp_path: Path) -> None:
    info = ConnectionInfo.from_file(write_connection_file(tmp_path / "c.json", encrypted=True))
    assert len(info.curve_publickey) == len(info.curve_secretkey) == 40


def test_by_default_it_is_where_other_clients_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    path = write_connection_file()
    assert find_connection_file() == path
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"ports": [1, 2, 3]}, "5 integers that differ, not"),
        ({"ports": [1, 2, 3, 4, 4]}, "5 integers that differ, not"),
        ({"ports": ["1", "2", "3", "4", "5"]}, "5 integers that differ, not"),
        ({"ports": 9000}, "5 integers that differ, not 9000"),
        ({"ports": [0, 1, 2, 3, 4]}, "shell_port is a port from 1"),
        ({"transport": "udp"}, "transport is 'udp'"),
        ({"ip": ""}, "ip is the address"),
        ({"ip": None}, "ip is the address"),
        ({"transport": "ipc"}, "absolute path"),
        ({"transport": "ipc", "ip": "/" + "x" * 200}, "of 90 bytes at the most"),
        ({"kernel_name": 5}, "kernel_name is text"),
        ({"key": 5}, "key is text"),
        ({"key": "\udcff"}, "half a surrogate pair"),
        ({"key": b"\xff"}, "key is no UTF-8"),
        ({"ip": "/\ud800", "transport": "ipc"}, "ip holds what no text does"),
    ],
)
def test_wrong_ones_are_not_written(tmp_path: Path, options: Any, said: str) -> None:
    path = tmp_path / "c.json"
    with pytest.raises(ConnectionFileError, match=said):
        write_connection_file(path, **options)
    assert not path.exists()


def test_where_it_cannot_be_written_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFileError, match=r"nowhere.c\.json: No such file"):
        write_connection_file(tmp_path / "nowhere" / "c.json")


@pytest.mark.anyio
async def test_a_kernel_started_with_it_is_reached(tmp_path: Path) -> None:
    path = write_connection_file(tmp_path / "c.json")
    async with await anyio.open_process([sys.executable, str(SCRIPT), str(path)]) as process:
        async with open_kernel_channels(None, path) as ch:
            assert (await ch.run("pid")).text == f"{process.pid}"
        process.kill()
