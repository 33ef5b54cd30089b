"""Where a kernel's channels are, and how its messages are signed: the connection file.

The rules:

* The five ports must be there. Everything else has the default that the specification gives:
  ``transport`` tcp, ``ip`` 127.0.0.1, no ``key`` (nothing is signed), ``signature_scheme`` hmac-sha256.
* Ports may be strings, and keys that we do not know are ignored: kernels and launchers write both.
* Whatever is wrong is named with its file and its field.
* Keys never show in a ``repr``.

Source: "Connection files" in "Making kernels for Jupyter", jupyter_client.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

import attrs

from .arguments import encoded, is_text
from .errors import ConnectionFileError, LocalProtocolError
from .message import CHANNELS, ChannelName
from .wire import Wire

__all__ = ["CHANNELS", "SOCKETS", "ChannelName", "Config", "ConnectionInfo", "sockets_for"]

SOCKETS = (*CHANNELS, "hb")
"""They, and the heartbeat."""

# A kernel that listens on every interface writes these; a client on its machine connects to loopback.
_EVERY_INTERFACE = {"*": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def sockets_for(channels: Sequence[ChannelName]) -> Sequence[str]:
    """What is to be connected for `channels`.

    Raises:
        LocalProtocolError: They are none that can be opened together.
    """
    given: object = channels
    several = isinstance(given, Collection) and not isinstance(given, str)
    if not (several and channels and all(name in CHANNELS for name in channels)):
        raise LocalProtocolError(
            f"channels are some of {', '.join(CHANNELS)}, such as ('shell', 'iopub'), not {channels!r}"
        )
    names = [name for name in CHANNELS if name in channels]
    if "iopub" not in names:
        return names
    if not {"shell", "control"} & set(names):
        raise LocalProtocolError(
            "iopub goes with shell or control, for only a request can prove that it is live; "
            "open_iopub_channel connects them beside it"
        )
    return [*names, "hb"]


@attrs.frozen
class ConnectionInfo:
    """The contents of a connection file, validated: where a kernel's channels are, and how messages
    are signed.

    Every opener takes one, in the place of the file. Keys never show in its ``repr``.

    Source: "Connection files" in "Making kernels for Jupyter".

    Raises:
        ConnectionFileError: A field has a value that cannot be used.

    Example:
        .. code-block:: python

            info = ConnectionInfo.parse(kernel.connection_file)
            print(info.kernel_name, info.endpoint("shell").partition(":")[0])
            # python3 ipc
            async with open_kernel_channels(None, info) as ch:
                print((await ch.run("6 * 7")).text)  # 42
    """

    shell_port: int
    """The port of shell; with ipc the end of its path."""
    control_port: int
    """The port of control; with ipc the end of its path."""
    stdin_port: int
    """The port of stdin; with ipc the end of its path."""
    iopub_port: int
    """The port of iopub; with ipc the end of its path."""
    hb_port: int
    """The port of the heartbeat."""
    transport: str = "tcp"
    """``"tcp"`` or ``"ipc"``."""
    ip: str = "127.0.0.1"
    """A host name or address; for ipc the path that the socket files' names begin with."""
    key: bytes = attrs.field(default=b"", repr=False)
    """The secret that messages are signed with; empty for unsigned messages."""
    signature_scheme: str = "hmac-sha256"
    """What they are signed by: ``"hmac-"`` and a hash of :mod:`hashlib`."""
    kernel_name: str = ""
    """The kernelspec's name, where the file says it."""
    curve_publickey: bytes = attrs.field(default=b"", repr=False)
    """The kernel's public key for CurveZMQ, in Z85; empty where nothing is encrypted."""
    curve_secretkey: bytes = attrs.field(default=b"", repr=False)
    """The kernel's secret key, which a connection file holds for the kernel; a client has its own."""

    def __attrs_post_init__(self) -> None:
        given = attrs.asdict(self)
        checked = _checked(given, "connection info")
        for name in given:
            # A file may leave out, and write as text, what is filled in and read there; here only an empty field is.
            if given[name] != checked[name] and given[name]:
                wrong = f"{type(given[name]).__name__}, not {type(checked[name]).__name__}"
                raise ConnectionFileError(f"connection info: {name} is {wrong}")

    @classmethod
    def parse(cls, config: Config) -> ConnectionInfo:
        """The connection info that `config` is, holds, or is the path of.

        Args:
            config: A :class:`ConnectionInfo`, a mapping in the form of a connection file, or the
                path of one.

        Raises:
            ConnectionFileError: It cannot be used; the message names the file and the field.
        """
        if isinstance(config, ConnectionInfo):
            return config
        if isinstance(config, Mapping):
            return cls.from_dict(config)
        if isinstance(config, (str, os.PathLike)):
            return cls.from_file(config)
        raise ConnectionFileError(
            "config is a ConnectionInfo, a mapping in the form of a connection file, or the path of one, "
            f"not {type(config).__name__}"
        )

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> ConnectionInfo:
        """The connection info in the file at `path`.

        Args:
            path: Of a connection file.

        Raises:
            ConnectionFileError: The file cannot be read or used.
        """
        source = f"connection file {os.fspath(path)}"
        data, problem = {}, ""
        try:
            with open(path, encoding="utf-8") as file:
                text = file.read(LARGEST + 1)
                if len(text) > LARGEST:
                    problem = "too large"
                else:
                    data = json.loads(text)
        except OSError as error:
            raise ConnectionFileError(f"{source}: {error.strerror}") from error
        except RecursionError:
            problem = "too deep"
        except ValueError as error:
            problem = _where(error)
        if problem:
            # Not in the handler: json's error holds the whole document, and would hang on ours.
            raise ConnectionFileError(f"{source}: no JSON ({problem})")
        return cls.from_dict(data, source=source)

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], *, source: str = "connection info"
    ) -> ConnectionInfo:
        """The connection info in `data`, a mapping in the form of a connection file.

        Args:
            data: The mapping.
            source: What errors call it.

        Raises:
            ConnectionFileError: A port is missing, or a field has a value that cannot be used.
        """
        return cls(**_checked(data, source))

    def to_dict(self) -> dict[str, Any]:
        """The mapping that a connection file holds, keys and all.

        Raises:
            ConnectionFileError: The key is no UTF-8, so that no connection file can hold it.
        """
        data = attrs.asdict(self)
        for name in ("key", "curve_publickey", "curve_secretkey"):
            data[name] = _as_text(name, data[name])
            if not data[name] and name != "key":
                del data[name]
        return data

    @property
    def exposed(self) -> bool:
        """Whether others on the network may speak for the kernel, for want of a key and of encryption."""
        if self.key or self.curve_publickey or self.transport == "ipc":
            return False
        import ipaddress

        try:
            return not ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host != "localhost"

    def endpoint(self, channel: str) -> str:
        """The ZeroMQ endpoint of `channel`.

        Args:
            channel: ``"shell"``, ``"control"``, ``"stdin"``, ``"iopub"`` or ``"hb"``.

        Raises:
            LocalProtocolError: There is no such channel.
        """
        if channel not in SOCKETS:
            raise LocalProtocolError(
                f"unknown channel {channel!r}; a kernel has {', '.join(CHANNELS)} and hb"
            )
        port: int = getattr(self, f"{channel}_port")
        if self.transport == "ipc":
            return f"ipc://{self.ip}-{port}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{port}"

    @property
    def host(self) -> str:
        """The name or address that a client on this machine connects to, without brackets."""
        return _EVERY_INTERFACE.get(self.ip, self.ip).removeprefix("[").removesuffix("]")


LARGEST = 1 << 20
"""Characters of a connection file; one has some hundred."""

Config: TypeAlias = "ConnectionInfo | Mapping[str, Any] | str | os.PathLike[str]"
"""What names a kernel to connect to: a :class:`ConnectionInfo`, a mapping in the form of a
connection file, or the path of one."""


def _checked(data: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The fields of a connection file, of which errors speak as `source`."""
    if not isinstance(data, Mapping):
        raise ConnectionFileError(f"{source}: holds no JSON object")
    ports = {f"{name}_port": _port(data, f"{name}_port", source) for name in SOCKETS}
    transport = _text(data, "transport", source) or "tcp"
    if transport not in ("tcp", "ipc"):
        raise ConnectionFileError(
            f"{source}: transport is {transport!r}; enchannel knows 'tcp' and 'ipc'"
        )
    ip = _text(data, "ip", source)
    if transport == "ipc" and not ip:
        raise ConnectionFileError(
            f"{source}: ip is missing; with ipc it is the path of the sockets"
        )
    scheme = _text(data, "signature_scheme", source) or "hmac-sha256"
    try:
        key = encoded("key", data.get("key") or b"")
        Wire(key, scheme)
    except LocalProtocolError as error:
        raise ConnectionFileError(f"{source}: {error}") from None
    return dict(
        transport=transport,
        ip=ip or "127.0.0.1",
        key=key,
        signature_scheme=scheme,
        kernel_name=_text(data, "kernel_name", source) or "",
        curve_publickey=_curve_key(data, "curve_publickey", source),
        curve_secretkey=_curve_key(data, "curve_secretkey", source),
        **ports,
    )


def _port(data: Mapping[str, Any], field: str, source: str) -> int:
    if field not in data:
        raise ConnectionFileError(f"{source}: {field} is missing")
    value = data[field]
    # As text, because int() would take 1.5, True and "1_2" for ports.
    port = int(value) if re.fullmatch("[0-9]{1,5}", str(value)) else 0
    if not 0 < port < 65536:
        raise ConnectionFileError(f"{source}: {field} is a port from 1 to 65535, not {value!r}")
    return port


def _text(data: Mapping[str, Any], field: str, source: str) -> str | None:
    value = data.get(field)
    if value is not None and not isinstance(value, str):
        raise ConnectionFileError(f"{source}: {field} is text, not {type(value).__name__}")
    if value is not None and ("\0" in value or not is_text(value)):
        # No address, no path and no name has one.
        raise ConnectionFileError(f"{source}: {field} holds what no text does: {value!r}")
    return value


def _as_text(field: str, key: bytes) -> str:
    with contextlib.suppress(UnicodeDecodeError):
        return key.decode()
    # Not in the handler: the codec's error holds the key, and would hang on ours.
    raise ConnectionFileError(
        f"connection info: {field} is no UTF-8, and a connection file is text"
    )


def _curve_key(data: Mapping[str, Any], field: str, source: str) -> bytes:
    key = data.get(field) or b""
    key = key.decode("latin-1") if isinstance(key, bytes) else key
    # 40 characters of Z85 (RFC 32) are the 32 bytes of a key.
    if not isinstance(key, str) or (
        key and not re.fullmatch(r"[0-9a-zA-Z.\-:+=^!/*?&<>()[\]{}@%$#]{40}", key)
    ):
        raise ConnectionFileError(f"{source}: {field} is no key: a Z85 text of 40 characters")
    return key.encode()


def _where(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg}, line {error.lineno} column {error.colno}"
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else "unreadable"
