"""The kernels that run, as their connection files and they themselves say.

* A kernel that was killed leaves its file behind. Whether anybody listens there is known at once, and of all of them at
  the same time; who does is asked.
* A kernel that is frozen, or has not come to shaking hands, is there: it is not called dead.
* No more is opened at a time than descriptors are left for: those of a kernel that could not be asked say nothing of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import attrs

from .._exceptions import ConnectionFileError, EnchannelError, KernelConnectError
from .._groups import unwrapping_task_group
from .._open_channels import open_some_channels
from .._protocol.connection_info import ConnectionInfo
from .._protocol.message import RequestChannel
from .._transports.zmq_monitor import ACCEPTED
from .connection_files import by_age, runtime_directory

__all__ = ["RunningKernel", "list_running_kernels"]

KNOCK_DEADLINE = 1.0
"""Seconds for somebody to take a connection."""

ANSWER_DEADLINE = 1.0
"""Seconds for a kernel to be connected, and seconds for it to answer."""

BUSY_AFTER = 0.5
"""Seconds after which a kernel that is alive and silent on shell counts as busy."""

AT_ONCE, KNOCKS = 50, 200
"""Kernels that are asked, and doors that are knocked at, at a time."""

DESCRIPTORS = 12
"""That it takes to ask one; a knock takes one, or a few where its host has several addresses."""

SPARE = 40
"""Descriptors that are left to the program."""

_OUR_OWN = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@attrs.frozen
class RunningKernel:
    """A connection file in Jupyter's runtime directory, and what the kernel said when it was asked."""

    connection_file: Path
    kernel_name: str = ""
    """The kernelspec's name, where the file says it."""
    alive: bool = False
    """Whether it is there; a kernel that was killed leaves its file behind."""
    busy: bool | None = None
    """Whether it runs code now; ``None`` where it does not say, since it is frozen, or dead."""
    language: str = ""


async def list_running_kernels() -> list[RunningKernel]:
    """The kernels that have a connection file in Jupyter's runtime directory, the newest first.

    Each is asked, all at once, and given three seconds. A checkpoint; cancellation leaves nothing behind.

    Raises:
        ConnectionFileError: jupyter_core is not installed, or does not find the directory.
    """
    paths = list(by_age(runtime_directory(), "kernel-*.json"))
    known: dict[Path, ConnectionInfo] = {}
    for path in paths:
        with contextlib.suppress(ConnectionFileError):
            known[path] = ConnectionInfo.from_file(path)
    found: dict[Path, RunningKernel] = {}

    async def knock(path: Path) -> None:
        if not await _somebody_listens(known[path]):
            found[path] = RunningKernel(path, known[path].kernel_name)

    async def ask(path: Path) -> None:
        found[path] = await _ask(path, known[path])

    await _for_each(list(known), knock, KNOCKS, 2)
    await _for_each([path for path in known if path not in found], ask, AT_ONCE, DESCRIPTORS)
    return [found.get(path) or RunningKernel(path) for path in paths]


async def _for_each(
    paths: Sequence[Path],
    function: Callable[[Path], Awaitable[None]],
    at_once: int,
    descriptors: int,
) -> None:
    """Calls it for each, so many at once as there are descriptors for."""
    limit = anyio.Semaphore(max(1, min(at_once, _descriptors_left() // descriptors)))

    async def call(path: Path) -> None:
        async with limit:
            await function(path)

    async with unwrapping_task_group() as tasks:
        for path in paths:
            tasks.start_soon(call, path)


def _descriptors_left() -> int:
    if sys.platform == "win32":
        return 10_000
    import resource

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if most == resource.RLIM_INFINITY:
        return 10_000
    try:
        used = len(os.listdir("/dev/fd"))
    except OSError:
        used = 2 * SPARE
    return most - used - SPARE


async def _somebody_listens(info: ConnectionInfo) -> bool:
    """Whether a connection to its shell channel is taken; also where that cannot be found out."""
    kind, _, where = info.endpoint("shell").partition("://")
    with anyio.move_on_after(KNOCK_DEADLINE):
        try:
            if kind == "ipc":
                stream: Any = await anyio.connect_unix(where)
            else:
                host, _, port = where.rpartition(":")
                stream = await anyio.connect_tcp(host.strip("[]"), int(port))
            await stream.aclose()
        except (OSError, ValueError) as error:
            # Of ours, and nothing that the kernel does.
            return isinstance(error, OSError) and error.errno in _OUR_OWN
        return True
    return False


async def _ask(path: Path, info: ConnectionInfo) -> RunningKernel:
    answers: dict[str, dict[str, Any]] = {}
    opening = open_some_channels(info, "shell", "control", connect_timeout=ANSWER_DEADLINE)
    try:
        async with opening as ch, unwrapping_task_group() as tasks:
            tasks.cancel_scope.deadline = anyio.current_time() + ANSWER_DEADLINE

            async def ask(channel: RequestChannel) -> None:
                with contextlib.suppress(EnchannelError):
                    reply = await ch.request("kernel_info_request", channel=channel)
                    answers[channel] = reply.content
                    if len(answers) == 1:
                        tasks.cancel_scope.deadline = anyio.current_time() + BUSY_AFTER
                    else:
                        tasks.cancel_scope.cancel()

            for channel in ("shell", "control"):
                tasks.start_soon(ask, channel)
    except KernelConnectError as error:
        # Frozen, it takes connections and no more; what else takes them says something else, or nothing.
        frozen = all(ACCEPTED in seen for seen in error.unconnected.values())
        return RunningKernel(path, info.kernel_name, alive=frozen and bool(error.unconnected))
    said = next(iter(answers.values()), {}).get("language_info")
    language = said.get("name") if isinstance(said, dict) else None
    return RunningKernel(
        path,
        info.kernel_name,
        # Its sockets have shaken hands: it is there, though it may answer nothing until its cell is done.
        alive=True,
        busy="shell" not in answers,
        language=str(language or ""),
    )
