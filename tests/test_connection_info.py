from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from enchannel import ConnectionFileError, ConnectionInfo, LocalProtocolError

CONFIG: dict[str, Any] = {
    "transport": "tcp",
    "ip": "127.0.0.1",
    "shell_port": 1,
    "control_port": 2,
    "stdin_port": 3,
    "iopub_port": 4,
    "hb_port": 5,
    "key": "the-secret",
    "signature_scheme": "hmac-sha256",
}


def test_connection_strings_for_tcp() -> None:
    info = ConnectionInfo.parse(CONFIG)
    assert [info.endpoint(name) for name in ("shell", "control", "stdin", "iopub", "hb")] == [
        f"tcp://127.0.0.1:{port}" for port in range(1, 6)
    ]


def test_connection_strings_for_ipc() -> None:
    info = ConnectionInfo.parse({**CONFIG, "transport": "ipc", "ip": "/run/kernel-1"})
    assert info.endpoint("iopub") == "ipc:///run/kernel-1-4"


@pytest.mark.parametrize(
    ("ip", "endpoint"),
    [
        ("::1", "tcp://[::1]:1"),
        ("[::1]", "tcp://[::1]:1"),
        ("fe80::1%eth0", "tcp://[fe80::1%eth0]:1"),
        ("localhost", "tcp://localhost:1"),
        ("*", "tcp://127.0.0.1:1"),
        ("0.0.0.0", "tcp://127.0.0.1:1"),
        ("::", "tcp://[::1]:1"),
    ],
)
def test_hosts(ip: str, endpoint: str) -> None:
    assert ConnectionInfo.parse({**CONFIG, "ip": ip}).endpoint("shell") == endpoint


def test_an_unknown_channel_has_no_endpoint() -> None:
    with pytest.raises(LocalProtocolError, match="unknown channel 'shel'; a kernel has shell"):
        ConnectionInfo.parse(CONFIG).endpoint("shel")


def test_string_ports_and_extra_keys_are_fine() -> None:
    config = {**CONFIG, "shell_port": "1", "kernel_id": "x", "jupyter_session": ""}
    assert ConnectionInfo.parse(config) == ConnectionInfo.parse(CONFIG)


def test_what_may_be_missing_has_the_default_of_the_specification() -> None:
    ports = {name: port for name, port in CONFIG.items() if name.endswith("_port")}
    info = ConnectionInfo.parse(ports)
    assert (info.transport, info.ip) == ("tcp", "127.0.0.1")
    assert (info.key, info.signature_scheme) == (b"", "hmac-sha256")


def test_a_connection_info_is_taken_as_it_is() -> None:
    info = ConnectionInfo.parse(CONFIG)
    assert ConnectionInfo.parse(info) is info


def test_to_dict_is_what_a_connection_file_holds() -> None:
    info = ConnectionInfo.parse(CONFIG)
    assert info.to_dict() == {**CONFIG, "kernel_name": ""}
    assert ConnectionInfo.parse(info.to_dict()) == info


def test_to_dict_has_an_empty_key_and_no_keys_of_curve_where_there_are_none() -> None:
    open_to_all = {**CONFIG, "key": "", "kernel_name": ""}
    assert ConnectionInfo.parse(open_to_all).to_dict() == open_to_all
    encrypted = {**open_to_all, "curve_publickey": "p" * 40, "curve_secretkey": "s" * 40}
    assert ConnectionInfo.parse(encrypted).to_dict() == encrypted


def test_a_file_may_be_named_by_text_or_path(tmp_path: Path) -> None:
    path = tmp_path / "kernel.json"
    path.write_text(json.dumps(CONFIG))
    assert ConnectionInfo.parse(path) == ConnectionInfo.parse(str(path))
    assert ConnectionInfo.parse(path) == ConnectionInfo.parse(CONFIG)


def test_the_key_does_not_show() -> None:
    assert "the-secret" not in repr(ConnectionInfo.parse(CONFIG))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"shell_port": None}, "shell_port is a port"),
        ({"shell_port": 0}, "shell_port is a port"),
        ({"shell_port": 65536}, "shell_port is a port"),
        ({"shell_port": 1.5}, "shell_port is a port"),
        ({"shell_port": True}, "shell_port is a port"),
        ({"hb_port": "five"}, "hb_port is a port"),
        ({"hb_port": "1_2"}, "hb_port is a port"),
        ({"hb_port": " \u0663 "}, "hb_port is a port"),
        ({"hb_port": "+5"}, "hb_port is a port"),
        ({"hb_port": "9" * 10_000}, "hb_port is a port"),
        ({"transport": "udp"}, "transport is 'udp'"),
        ({"transport": 1}, "transport is text"),
        ({"signature_scheme": "hmac-none"}, "unknown signature_scheme 'hmac-none'"),
        ({"key": 5}, "key is text"),
        ({"transport": "ipc", "ip": ""}, "ip is missing"),
        ({"key": "the-secret\ud800"}, "key is text or bytes, and half a surrogate pair is no"),
        ({"curve_publickey": "\ud800"}, "curve_publickey is no key: a Z85"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(
    tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    path = tmp_path / "kernel.json"
    path.write_text(json.dumps({**CONFIG, **change}))
    with pytest.raises(ConnectionFileError, match=complaint) as caught:
        ConnectionInfo.parse(path)
    assert str(path) in str(caught.value)
    assert "the-secret" not in str(caught.value)


def test_a_key_that_no_file_can_hold_is_named_and_not_shown() -> None:
    info = ConnectionInfo.parse({**CONFIG, "key": b"the-secret\xff"})
    with pytest.raises(ConnectionFileError, match="key is no UTF-8") as caught:
        info.to_dict()
    assert caught.value.__context__ is None
    assert "the-secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["shell", "control", "stdin", "iopub", "hb"])
def test_a_missing_port_is_named(name: str) -> None:
    config = {key: value for key, value in CONFIG.items() if key != f"{name}_port"}
    with pytest.raises(ConnectionFileError, match=f"connection info: {name}_port is missing"):
        ConnectionInfo.parse(config)


@pytest.mark.parametrize("text", ["{'key': 'the-secret'", "", "\x00", "[1]", "null"])
def test_a_file_that_is_no_json_object_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kernel.json"
    path.write_text(text)
    with pytest.raises(ConnectionFileError, match=str(path)) as caught:
        ConnectionInfo.parse(path)
    # The document with its key must not hang on the exception either.
    assert caught.value.__context__ is None
    assert "the-secret" not in str(caught.value)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "kernel.json"
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConnectionFileError, match=r"kernel\.json: no JSON \(not UTF-8\)"):
        ConnectionInfo.parse(path)


def test_a_file_that_python_does_not_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "kernel.json"
    path.write_text(f'{{"shell_port": {"9" * 10_000}}}')
    with pytest.raises(ConnectionFileError, match=r"kernel\.json: no JSON \(unreadable\)"):
        ConnectionInfo.parse(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConnectionFileError, match=r"nowhere\.json: No such file"):
        ConnectionInfo.parse(tmp_path / "nowhere.json")


def test_anything_else_is_refused() -> None:
    with pytest.raises(ConnectionFileError, match="config is a ConnectionInfo, .*, not int"):
        ConnectionInfo.parse(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "exposed"),
    [
        ({}, False),
        ({"key": "", "ip": "127.1.2.3"}, False),
        ({"key": "", "ip": "localhost"}, False),
        ({"key": "", "ip": "[::1]"}, False),
        ({"key": "", "ip": "*"}, False),
        ({"key": "", "ip": "/tmp/kernel", "transport": "ipc"}, False),
        ({"key": "", "ip": "192.0.2.1"}, True),
        ({"key": "", "ip": "kernels.example"}, True),
        ({"key": "", "ip": "192.0.2.1", "curve_publickey": "x" * 40}, False),
    ],
)
def test_kernels_that_anybody_may_speak_for(changes: dict[str, Any], exposed: bool) -> None:
    assert ConnectionInfo.parse({**CONFIG, **changes}).exposed is exposed


@pytest.mark.parametrize("key", ["short", "x" * 39 + "\n", 55555, "x" * 41, "'" * 40])
def test_a_curve_key_that_is_none_is_named_and_not_shown(key: Any) -> None:
    with pytest.raises(ConnectionFileError, match="curve_publickey is no key: a Z85") as caught:
        ConnectionInfo.parse({**CONFIG, "curve_publickey": key})
    assert str(key) not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"shell_port": 70_000}, "shell_port"),
        ({"iopub_port": "5"}, "iopub_port"),
        ({"key": "text"}, "key is str, not bytes"),
        ({"transport": "udp"}, "transport is 'udp'"),
        ({"signature_scheme": "hmac-nonsense"}, "nonsense"),
    ],
)
def test_one_that_is_made_by_hand_is_checked_as_well(wrong: dict[str, Any], said: str) -> None:
    ports = {f"{name}_port": 1 for name in ("shell", "control", "stdin", "iopub", "hb")}
    with pytest.raises(ConnectionFileError, match=said):
        ConnectionInfo(**{**ports, **wrong})
