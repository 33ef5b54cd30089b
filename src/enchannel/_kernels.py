"""Kernels of one's own: found by their kernelspec, launched, and stopped on every way out.

The rules:

* The connection file is private, and gone afterwards.
* A kernel runs in a session of its own: a Ctrl-C at our terminal does not reach it, and whatever it
  started can be killed with it. ``JPY_PARENT_PID`` lets it notice when we are gone.
* It is ready when its channels are open and iopub is proven live. Its process is watched meanwhile, so
  one that exits while starting is told at once, with the tail of what it wrote.
* It is asked to shut down, then told to (SIGTERM), then killed, each with its own deadline, shielded
  from cancellation.

Source: "Making kernels for Jupyter" (kernelspecs, connection files), jupyter_client.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import string
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import attrs

from ._channels import KernelChannels
from ._connection_info import CHANNELS, ConnectionInfo
from ._exceptions import EnchannelError, KernelConnectError, KernelDied, KernelLaunchError
from ._groups import unwrapping_task_group
from ._open_channels import (
    Identity,
    OpenOptions,
    Topics,
    open_control_channel,
    open_kernel_channels,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Kernel", "KernelSpec", "open_kernel"]

OUTPUT_TAIL = 16_384
"""Bytes of the kernel process's own output that are kept, to explain a failure."""

SHUTDOWN_DEADLINE, TERMINATE_DEADLINE, KILL_DEADLINE = 5.0, 2.0, 5.0
"""Seconds a kernel has to exit after a shutdown_request, after SIGTERM, and after SIGKILL."""

LAST_WORDS = 0.5
"""Seconds that what a kernel sent before its process exited may take to arrive."""


@attrs.frozen
class KernelSpec:
    """What a ``kernel.json`` says, and where it is."""

    name: str
    argv: Sequence[str]
    resource_dir: Path
    display_name: str = ""
    language: str = ""
    interrupt_mode: str = "signal"
    """``"signal"`` (SIGINT) or ``"message"`` (an interrupt_request on control)."""
    env: Mapping[str, str] = attrs.field(factory=dict, repr=False)

    @classmethod
    def find(cls, name: str) -> KernelSpec:
        """The kernelspec called `name` that comes first on the Jupyter path.

        Raises:
            KernelLaunchError: There is none; the message names those that there are.
        """
        specs = dict(_installed())
        # Names are compared without case, as jupyter_client does.
        directory = specs.get(name.lower())
        if directory is None:
            known = ", ".join(sorted(specs)) or "none at all"
            raise KernelLaunchError(
                f"no kernelspec {name!r} on the Jupyter path; there is {known}. "
                "For Python: pip install ipykernel"
            )
        path = directory / "kernel.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            argv = [str(argument) for argument in data["argv"]]
            env = {str(key): str(value) for key, value in (data.get("env") or {}).items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise KernelLaunchError(f"{path} is no kernelspec: {error!r}") from error
        if not argv:
            raise KernelLaunchError(f"{path} is no kernelspec: its argv is empty")
        return cls(
            name=directory.name,
            argv=argv,
            resource_dir=directory,
            display_name=str(data.get("display_name") or ""),
            language=str(data.get("language") or ""),
            interrupt_mode=str(data.get("interrupt_mode") or "signal"),
            env=env,
        )

    def command(self, connection_file: Path) -> list[str]:
        """The argv with its placeholders filled."""
        values = {
            "connection_file": str(connection_file),
            "resource_dir": str(self.resource_dir),
            "prefix": sys.prefix,
        }
        filled = [
            re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), argument)
            for argument in self.argv
        ]
        # A kernelspec of this environment's ipykernel says just "python"; which one, PATH must not decide.
        if re.fullmatch(r"python(3(\.\d+)?)?", filled[0]):
            filled[0] = sys.executable
        return filled


def _installed() -> Iterator[tuple[str, Path]]:
    """The name and directory of every kernelspec, those that come first on the path last."""
    try:
        from jupyter_core.paths import jupyter_path
    except ImportError as error:
        raise KernelLaunchError(
            'finding kernels needs jupyter_core: pip install "enchannel[kernel]"'
        ) from error
    for root in reversed(jupyter_path("kernels")):
        for path in sorted(Path(root).glob("*/kernel.json")):
            yield path.parent.name.lower(), path.parent


class Kernel:
    """A running kernel; made by :func:`open_kernel`.

    Attributes:
        spec: The kernelspec it was launched from.
        connection_info: How to reach it.
        connection_file: The file that says so, for other clients; removed when the kernel is stopped.
    """

    def __init__(
        self,
        spec: KernelSpec,
        info: ConnectionInfo,
        connection_file: Path,
        process: anyio.abc.Process,
    ) -> None:
        self.spec = spec
        self.connection_info = info
        self.connection_file = connection_file
        self._process = process
        self._output = bytearray()
        self._output_ended = anyio.Event()
        self._exited = anyio.Event()
        self._open: set[KernelChannels] = set()
        self._was_ready = False

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; ``None`` while the process runs."""
        return self._process.returncode

    @asynccontextmanager
    async def open_channels(
        self,
        identity: Identity = None,
        *,
        subscription: Topics = b"",
        **options: Unpack[OpenOptions],
    ) -> AsyncIterator[KernelChannels]:
        """Opens the channels of this kernel, any number of times.

        Like :func:`~enchannel.open_kernel_channels`; when the kernel's process exits, the streams know
        at once.

        Raises:
            KernelDied: The process has exited already.
            KernelConnectError: A channel did not answer in time.
        """
        if self.returncode is not None:
            raise KernelDied(f"the kernel's process {_exit_text(self.returncode)}")
        opening = open_kernel_channels(
            identity, self.connection_info, subscription=subscription, **options
        )
        async with opening as channels:
            self._open.add(channels)
            if self.spec.interrupt_mode == "signal":
                channels._interrupter = self._interrupt
            try:
                yield channels
            finally:
                self._open.discard(channels)

    def __repr__(self) -> str:
        state = "running" if self.returncode is None else _exit_text(self.returncode)
        return f"<Kernel {self.spec.name} {self.pid} {state}>"

    # Its life, which open_kernel drives.

    async def _keep_output(self) -> None:
        """Reads what the process itself writes, so that it never blocks, and keeps the tail."""
        assert self._process.stdout is not None
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            while True:
                self._output += await self._process.stdout.receive()
                del self._output[:-OUTPUT_TAIL]
        self._output_ended.set()

    async def _wait_exit(self) -> None:
        await self._process.wait()
        self._exited.set()
        async with unwrapping_task_group() as tasks:
            for channels in tuple(self._open):
                tasks.start_soon(self._tell_exit, channels)

    async def _tell_exit(self, channels: KernelChannels) -> None:
        with anyio.move_on_after(LAST_WORDS):
            await channels._transport.wait_disconnected()
        channels._lose(KernelDied(f"the kernel's process {_exit_text(self.returncode)}"))

    async def _become_ready(self, startup_timeout: float) -> None:
        proven = False
        failure: KernelConnectError | None = None
        async with unwrapping_task_group() as tasks:

            async def stop_waiting() -> None:
                await self._exited.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(stop_waiting)
            try:
                info = self.connection_info
                async with open_kernel_channels(None, info, connect_timeout=startup_timeout) as ch:
                    proven = ch.statistics().iopub_proven
            except KernelConnectError as error:
                failure = error
            tasks.cancel_scope.cancel()
        if self._exited.is_set():
            with anyio.move_on_after(LAST_WORDS):
                await self._output_ended.wait()
            raise self._launch_error(f"{_exit_text(self.returncode)} while starting")
        if failure is not None or not proven:
            raise self._launch_error(
                f"was not ready within {startup_timeout:g} s"
                + (f": {failure}" if failure else ": it answers no kernel_info_request")
            ) from failure
        self._was_ready = True

    def _launch_error(self, what: str) -> KernelLaunchError:
        tail = self._output.decode(errors="replace").strip()
        return KernelLaunchError(f"kernel {self.spec.name!r} {what}", tail)

    async def _stop(self) -> None:
        """Ends the process and all that it started; bounded, and to be called shielded."""
        try:
            if self.returncode is None and self._was_ready:
                with anyio.move_on_after(SHUTDOWN_DEADLINE):
                    await self._shut_down()
            if self.returncode is None:
                self._signal(signal.SIGTERM)
                with anyio.move_on_after(TERMINATE_DEADLINE):
                    await self._process.wait()
        finally:
            # Also when the kernel is gone: what it left behind in its session goes with it.
            self._signal(signal.SIGKILL)
        with anyio.move_on_after(KILL_DEADLINE):
            await self._process.wait()

    def _interrupt(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGINT)

    async def _shut_down(self) -> None:
        if self.spec.interrupt_mode == "signal":
            # ipykernel answers a shutdown_request while a cell runs, and exits only behind the cell.
            self._interrupt()
        async with unwrapping_task_group() as tasks:
            tasks.start_soon(self._ask_to_shut_down)
            await self._process.wait()
            tasks.cancel_scope.cancel()

    async def _ask_to_shut_down(self) -> None:
        body = {"header": {"msg_type": "shutdown_request"}, "content": {"restart": False}}
        # An error means that it went away meanwhile, or cannot be reached: the signals end it.
        with contextlib.suppress(EnchannelError):
            async with open_control_channel(None, self.connection_info) as control:
                await control.send(body)
                await control.receive()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def open_kernel(
    name: str = "python3",
    *,
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    startup_timeout: float = 60.0,
) -> AbstractAsyncContextManager[Kernel]:
    """Launches a kernel, and stops it when the block is left.

    ::

        async with open_kernel("python3") as kernel, kernel.open_channels() as ch:
            ...

    On entry the kernel is ready. On every way out it is stopped, with everything that it started; that
    is shielded from cancellation and takes 12 seconds at the very most.

    Args:
        name: The name of an installed kernelspec.
        cwd: The directory to run it in, by default ours.
        env: Variables to set in its environment, beside ours and the kernelspec's.
        startup_timeout: Seconds that the kernel may take to become ready (a JVM may take 35).

    Raises:
        KernelLaunchError: There is no such kernelspec (raised at the call), or the kernel could not be
            started (raised on entry, with the tail of what it wrote).
    """
    return _opened(KernelSpec.find(name), cwd, env or {}, startup_timeout)


@asynccontextmanager
async def _opened(
    spec: KernelSpec,
    cwd: str | os.PathLike[str] | None,
    env: Mapping[str, str],
    startup_timeout: float,
) -> AsyncIterator[Kernel]:
    with _connection_file(spec.name) as (path, info):
        command = spec.command(path)
        try:
            process = await anyio.open_process(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=_environment(spec, env),
                start_new_session=True,
            )
        except OSError as error:
            raise KernelLaunchError(
                f"kernel {spec.name!r} cannot be started: {command[0]}: {error.strerror}"
            ) from error
        kernel = Kernel(spec, info, path, process)
        try:
            async with unwrapping_task_group() as tasks:
                try:
                    tasks.start_soon(kernel._keep_output, name="enchannel kernel output")
                    tasks.start_soon(kernel._wait_exit, name="enchannel kernel exit")
                    await kernel._become_ready(startup_timeout)
                    yield kernel
                finally:
                    with anyio.CancelScope(shield=True):
                        await kernel._stop()
                    tasks.cancel_scope.cancel()
        finally:
            # What the kernel started may still hold the other end of its output.
            with anyio.move_on_after(KILL_DEADLINE, shield=True):
                await process.aclose()


def _environment(spec: KernelSpec, env: Mapping[str, str]) -> dict[str, str]:
    merged = dict(os.environ)
    for name, value in spec.env.items():
        merged[name] = string.Template(value).safe_substitute(os.environ)
    return {**merged, "JPY_PARENT_PID": str(os.getpid()), **env}


@contextmanager
def _connection_file(kernel_name: str) -> Iterator[tuple[Path, ConnectionInfo]]:
    """A fresh connection file in Jupyter's runtime directory, where other clients find it."""
    from jupyter_core.paths import jupyter_runtime_dir

    data = {
        "transport": "tcp",
        "ip": "127.0.0.1",
        **_free_ports(),
        "key": uuid.uuid4().hex,
        "signature_scheme": "hmac-sha256",
        "kernel_name": kernel_name,
    }
    directory = Path(jupyter_runtime_dir())
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / f"kernel-{uuid.uuid4()}.json"
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(data, file, indent=2)
        yield path, ConnectionInfo.from_dict(data, source=f"connection file {path}")
    finally:
        path.unlink(missing_ok=True)


def _free_ports() -> dict[str, int]:
    with contextlib.ExitStack() as stack:
        ports = {}
        for name in (*CHANNELS, "hb"):
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports[f"{name}_port"] = probe.getsockname()[1]
        return ports


def _exit_text(returncode: int | None) -> str:
    if returncode is None or returncode >= 0:
        return f"exited with status {returncode}"
    try:
        return f"was ended by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"was ended by signal {-returncode}"
