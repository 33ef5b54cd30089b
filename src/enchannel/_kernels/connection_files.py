"""Connection files on the disk: written for kernels of our own and of others, and found.

The rules:

* A connection file is private (0600), for whoever can read it can run code in the kernel. So is the
  directory of ipc sockets (0700). Both are gone when the kernel is.
* The file lies in Jupyter's runtime directory, where other clients look.
* The ports for a kernel stay bound, without being listened on, until it listens on them itself: nobody
  else is given one meanwhile. Where the system has it otherwise they are released just before.

Source: "Connection files" in "Making kernels for Jupyter", jupyter_client.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import stat
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .._exceptions import ConnectionFileError
from .._protocol.arguments import is_system_text
from .._protocol.connection_info import SOCKETS, ConnectionInfo
from .._transports.zmq_open import new_curve_keys

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "ConnectionFile",
    "by_age",
    "find_connection_file",
    "matching_files",
    "runtime_directory",
    "write_connection_file",
]

FIRST_BYTES = 65_536
"""Of a file, in which it names its ports where it is a connection file."""

IPC_PATH = 90
"""Bytes that the path of an ipc socket may have; the system's limit is 104 to 108."""


class ConnectionFile:
    """The connection file of a kernel that is launched here; removed at the end of its ``with`` block."""

    def __init__(self, kernel_name: str, transport: str, *, encrypted: bool) -> None:
        self.path: Path = runtime_directory() / f"kernel-{uuid.uuid4()}.json"
        self._kernel_name = kernel_name
        self._transport = transport
        self._directory = ""
        self._held: list[socket.socket] = []
        self._data: dict[str, Any] = {}
        self._keys: dict[str, str] = _curve_keys() if encrypted else {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        # What has become of its directory meanwhile is none of the kernel's errors.
        with contextlib.suppress(OSError):
            self.path.unlink()
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def info(self) -> ConnectionInfo:
        """What the file says."""
        return ConnectionInfo.from_dict(self._data, source=f"connection file {self.path}")

    def choose(self, *, hold: bool) -> None:
        """Chooses a fresh address.

        Args:
            hold: Whether to keep its ports for the kernel until :meth:`release`.
        """
        self.release()
        if self._transport == "ipc" and not self._directory:
            self._directory = _short_directory()
        self._data = {
            "transport": self._transport,
            "ip": f"{self._directory}/kernel" if self._directory else "127.0.0.1",
            **(_numbers() if self._directory else self._free_ports()),
            "key": uuid.uuid4().hex,
            "signature_scheme": "hmac-sha256",
            "kernel_name": self._kernel_name,
            **self._keys,
        }
        # Elsewhere two sockets cannot be bound to one port, listening or not.
        if not hold or sys.platform != "linux":
            self.release()

    def hold(self) -> None:
        """Keeps the ports that were chosen for the kernel until :meth:`release`, where the system lets two."""
        self.release()
        if self._directory or sys.platform != "linux":
            return
        for name in SOCKETS:
            self._hold(self._data[f"{name}_port"])

    def write(self) -> None:
        """Writes the file, also where somebody has removed or rewritten it, or removed its directory."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(self.path, self._data)

    def is_named_in(self, text: str) -> bool:
        """Whether `text` names the directory of the ipc sockets."""
        return bool(self._directory) and self._directory in text

    def use_tcp(self) -> None:
        """The next address is one of TCP."""
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)
        self._transport, self._directory = "tcp", ""

    def remove_sockets(self) -> None:
        """Removes the ipc sockets of a kernel that has exited: a child of it may still listen on them.

        Their directory is there behind it: who tidies up temporary files may have removed it.

        Raises:
            OSError: There is no directory of ours where it was.
        """
        if self._directory:
            _make_private(self._directory)
            for path in Path(self._directory).iterdir():
                path.unlink(missing_ok=True)

    def release(self) -> None:
        """Lets go of the ports that were held."""
        for held in self._held:
            held.close()
        self._held.clear()

    def _free_ports(self) -> dict[str, int]:
        return _ports([self._hold(0) for _ in SOCKETS])

    def _hold(self, port: int) -> int:
        held = _bound(port)
        self._held.append(held)
        return int(held.getsockname()[1])


def write_connection_file(
    path: str | os.PathLike[str] | None = None,
    *,
    ip: str = "127.0.0.1",
    transport: Literal["tcp", "ipc"] = "tcp",
    ports: Iterable[int] | None = None,
    key: str | bytes | None = None,
    kernel_name: str = "",
    encrypted: bool = False,
) -> Path:
    """Writes a connection file for a kernel that somebody else starts: a container, a batch system,
    a debugger.

    The file is private, and the caller's to remove. In a container with ``ip="0.0.0.0"`` and chosen
    `ports` the kernel is started with ``docker run -p 9000-9004:9000-9004 -v FILE:/connection.json
    IMAGE python -m ipykernel -f /connection.json``.

    Args:
        path: Where; by default a fresh name in Jupyter's runtime directory, where other clients
            look. What is there is replaced.
        ip: The address that the kernel listens on; with ipc the path that its sockets' names begin
            with.
        transport: What it listens with.
        ports: Those of shell, control, stdin, iopub and the heartbeat, in this order; by default
            five that are free on this machine now. Nobody keeps them free.
        key: What messages are signed with; by default a fresh one.
        kernel_name: The kernelspec's name, for other clients.
        encrypted: Whether there are keys for CurveZMQ in it, for a kernel that knows what they are
            for.

    Returns:
        The path.

    Raises:
        ConnectionFileError: The file cannot be written, or jupyter_core is not installed and no
            path given; or what it would say cannot be used.

    Example:
        .. code-block:: python

            import sys

            path = write_connection_file("connection.json")
            command = [sys.executable, "-m", "ipykernel", "-f", str(path)]
            async with await anyio.open_process(command) as process:
                async with open_kernel_channels(None, path) as ch:
                    print((await ch.run("6 * 7")).text)  # 42
                process.terminate()
    """
    data: dict[str, Any] = {
        "transport": transport,
        "ip": ip,
        **(_chosen(ports) if ports is not None or transport != "ipc" else _numbers()),
        "key": uuid.uuid4().hex if key is None else key,
        "signature_scheme": "hmac-sha256",
        "kernel_name": kernel_name,
    }
    if encrypted:
        data |= _curve_keys()
    data = ConnectionInfo.from_dict(data).to_dict()
    _check_address(ip, transport)
    where = runtime_directory() / f"kernel-{uuid.uuid4()}.json" if path is None else _path(path)
    try:
        if path is None:
            where.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(where, data)
    except OSError as error:
        raise ConnectionFileError(f"connection file {where}: {error.strerror}") from error
    return where


def _is_path(path: object) -> bool:
    """Whether the system could have a file of this name."""
    return is_system_text(os.fspath(path) if isinstance(path, os.PathLike) else path)


def _path(path: object) -> Path:
    if not isinstance(path, (str, os.PathLike)) or not _is_path(path):
        raise ConnectionFileError(f"path is that of a file, not {path!r}")
    return Path(path)


def _check_address(ip: object, transport: str) -> None:
    if not isinstance(ip, str) or not ip:
        raise ConnectionFileError(f"ip is the address that the kernel listens on, not {ip!r}")
    # A relative one would be another place for the kernel.
    if transport == "ipc" and not (Path(ip).is_absolute() and len(os.fsencode(ip)) <= IPC_PATH):
        raise ConnectionFileError(
            f"with ipc, ip is the absolute path that the names of the sockets begin with, of {IPC_PATH} bytes at the "
            f"most, not {ip!r}"
        )


def _write(path: Path, data: dict[str, Any]) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(data, file, indent=2)


def _chosen(ports: Iterable[int] | None) -> dict[str, int]:
    if ports is None:
        with contextlib.ExitStack() as bound:
            # All at once, so that none is given twice.
            free = [bound.enter_context(_bound(0)).getsockname()[1] for _ in SOCKETS]
        return _ports(free)
    several: object = ports
    given = list(several) if isinstance(several, Iterable) else several
    if (
        not isinstance(given, list)
        or not all(type(port) is int for port in given)
        or not len(given) == len(set(given)) == len(SOCKETS)
    ):
        raise ConnectionFileError(
            f"ports are those of {', '.join(SOCKETS)}: {len(SOCKETS)} integers that differ, not {given!r}"
        )
    return _ports(given)


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    # As the kernel does: with it on both sides, it may listen where this one is merely bound.
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(("127.0.0.1", port))
    except OSError:
        bound.close()
        raise
    return bound


def _ports(numbers: Iterable[int]) -> dict[str, int]:
    return {f"{name}_port": number for name, number in zip(SOCKETS, numbers, strict=True)}


def _numbers() -> dict[str, int]:
    return _ports(range(1, len(SOCKETS) + 1))


def _curve_keys() -> dict[str, str]:
    public, secret = new_curve_keys()
    return {"curve_publickey": public.decode(), "curve_secretkey": secret.decode()}


def _short_directory() -> str:
    """A fresh private directory whose path leaves room for the names of sockets."""
    directory = tempfile.mkdtemp(prefix="enchannel-")
    if len(os.fsencode(directory)) > IPC_PATH:
        os.rmdir(directory)
        directory = tempfile.mkdtemp(prefix="enchannel-", dir="/tmp")
    return directory


def _make_private(directory: str) -> None:
    """Makes it where it is gone; somebody else may have made one of that name meanwhile."""
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        found = os.lstat(directory)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise PermissionError(errno.EACCES, "somebody else's", directory) from None


def runtime_directory() -> Path:
    """Jupyter's, where connection files are.

    Raises:
        ConnectionFileError: jupyter_core is not installed, or does not know: there is no home directory, for example.
    """
    try:
        from jupyter_core.paths import jupyter_runtime_dir
    except ImportError as error:
        raise ConnectionFileError(
            'finding connection files needs jupyter_core: pip install "enchannel[kernel]"'
        ) from error
    try:
        # Or it would be another one for a kernel that runs elsewhere.
        return Path(jupyter_runtime_dir()).absolute()
    except (OSError, RuntimeError, KeyError) as error:
        said = f"where Jupyter's runtime directory is cannot be found out: {error}; JUPYTER_RUNTIME_DIR says it"
        raise ConnectionFileError(said) from error


def find_connection_file(name_or_glob: str | os.PathLike[str] | None = None) -> Path:
    """The connection file of a kernel: the one that was changed last, of several.

    A kernel that was killed leaves its file behind, and nobody asks here whether it runs:
    :func:`list_running_kernels` does.

    Args:
        name_or_glob: The path of a file; or a name, a part of one, or a glob (``"kernel-12*"``) in
            Jupyter's runtime directory. By default any kernel's.

    Raises:
        ConnectionFileError: There is none, or jupyter_core is not installed.

    Example:
        .. code-block:: python

            path = find_connection_file(kernel.connection_file.stem)
            async with open_kernel_channels(None, path) as ch:
                print((await ch.run("6 * 7")).text)  # 42
    """
    return matching_files(name_or_glob)[0]


def matching_files(name_or_glob: str | os.PathLike[str] | None) -> list[Path]:
    """All that :func:`find_connection_file` chooses from, the newest first; raises what it does."""
    if name_or_glob is not None:
        if not _is_path(name_or_glob):
            said = f"a connection file is named by a path or a text, not {name_or_glob!r}"
            raise ConnectionFileError(said)
        path = Path(name_or_glob)
        try:
            if path.is_file():
                return [path]
        except OSError as error:
            raise ConnectionFileError(f"{path}: {error.strerror}") from error
    directory = runtime_directory()
    name = "kernel-*.json" if name_or_glob is None else os.fspath(name_or_glob)
    found: list[Path] = []
    for pattern in (name, f"{name}.json", f"*{name}*"):
        # An absolute path or an empty one is no pattern, and was no file.
        if not found and name and not Path(name).is_absolute():
            # Nor is what pathlib refuses: "." or "a**b", and a directory that may not be read has nothing to find.
            with contextlib.suppress(ValueError, IndexError, NotImplementedError, OSError):
                found = [path for path in by_age(directory, pattern) if _is_meant(path, name)]
    if not found:
        what = "no connection file" if name_or_glob is None else f"no connection file {name!r}"
        raise ConnectionFileError(f"{what} in {directory}: is the kernel running?")
    return found


def _is_meant(path: Path, name: str) -> bool:
    """Whether it is a connection file, of use or not, or named in full: servers have files in the runtime directory, too."""
    if path.name in (name, f"{name}.json") or path.match("kernel-*.json"):
        return True
    with contextlib.suppress(OSError), path.open("rb") as file:
        return b'"shell_port"' in file.read(FIRST_BYTES)
    return False


def by_age(directory: Path, pattern: str) -> Iterator[Path]:
    """The files that match, the newest first; they may go while one looks."""
    dated = []
    for path in directory.glob(pattern):
        with contextlib.suppress(OSError):
            if path.is_file():
                dated.append((path.stat().st_mtime, path))
    return (path for _, path in sorted(dated, reverse=True))
