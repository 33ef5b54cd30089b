"""The kernels that run, as their connection files and they themselves say.

* A kernel that was killed leaves its file behind. Whether anybody listens there is known at once, and of all of them at
  the same time; who does is asked.
* A kernel that is frozen, or has not come to shaking hands, is there: it is not called dead. Nor is one that may still be
  starting, or whose file says nothing of use: only who is refused where a kernel was knows that it is gone.
* All of it takes three seconds. The newest come first, and who was not asked by then is what is known of him.
* No more is opened at a time than descriptors are left for: those of a kernel that could not be asked say nothing of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import anyio
import anyio.abc
import attrs

from .._exceptions import ConnectionFileError, EnchannelError, KernelConnectError
from .._groups import unwrapping_task_group
from .._open_channels import open_some_channels
from .._protocol.connection_info import ConnectionInfo
from .._protocol.message import RequestChannel
from .connection_files import by_age, runtime_directory

__all__ = ["RunningKernel", "list_running_kernels"]

DEADLINE, KNOCK_DEADLINE = 3.0, 1.0
"""Seconds for all of them, and for somebody to take a connection."""

STARTING = 60.0
"""Seconds in which who writes a connection file may come to listen there."""

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

GREETINGS = (b"\xff", b"\x01")
"""What ZeroMQ says first of all, of its own accord, in version 2 of ZMTP and later, and before.

Source: RFC 23, "The Greeting"; RFC 13."""

_OUR_OWN = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@attrs.frozen
class RunningKernel:
    """A connection file in Jupyter's runtime directory, and what the kernel said when it was asked.

    By :func:`list_running_kernels`.

    Example:
        .. code-block:: python

            for running in await list_running_kernels():
                if running.alive and running.busy is False:
                    print(running.kernel_name, running.language)  # python3 python
    """

    connection_file: Path
    """The path of its connection file, for :func:`open_kernel_channels`."""
    kernel_name: str = ""
    """The kernelspec's name, where the file says it."""
    alive: bool = False
    """Whether it is there; a kernel that was killed leaves its file behind."""
    gone: bool = False
    """Whether nobody listens where it did, and its file is no new one. Neither alive nor gone is who may be starting, or
    cannot be reached from here, for whom there was no time, and whose file is of no use."""
    busy: bool | None = None
    """Whether it runs code now; ``None`` where it does not say, since it is frozen, or dead."""
    language: str = ""
    """What its code is written in, where it has said so."""


async def list_running_kernels() -> list[RunningKernel]:
    """The kernels that have a connection file in Jupyter's runtime directory, the newest first.

    All are asked at once, within three seconds. A checkpoint; cancellation leaves nothing behind.

    Raises:
        ConnectionFileError: jupyter_core is not installed, or does not find the directory.

    Example:
        .. code-block:: python

            running = [each for each in await list_running_kernels() if each.alive]
            async with open_kernel_channels(None, running[0].connection_file) as ch:
                done = await ch.run("6 * 7")
                print(done.text)  # 42
    """
    paths = list(by_age(runtime_directory(), "kernel-*.json"))
    known: dict[Path, ConnectionInfo] = {}
    for path in paths:
        with contextlib.suppress(ConnectionFileError):
            known[path] = ConnectionInfo.from_file(path)
    found: dict[Path, RunningKernel] = {}
    taken: dict[Path, None] = {}

    async def knock(path: Path) -> None:
        info = known[path]
        heard = await _knock(info)
        if heard == "taken":
            taken[path] = None
        else:
            frozen = heard == "nothing" and _is_here(info)
            gone = heard == "refused" and not _is_new(path)
            found[path] = RunningKernel(path, info.kernel_name, alive=frozen, gone=gone)

    async def ask(path: Path) -> None:
        found[path] = await _ask(path, known[path])

    deadline = anyio.current_time() + DEADLINE
    with anyio.CancelScope(deadline=deadline - ANSWER_DEADLINE):
        await _for_each(list(known), knock, KNOCKS, 2)
    with anyio.CancelScope(deadline=deadline):
        await _for_each(list(taken), ask, AT_ONCE, DESCRIPTORS)
    for path, info in known.items():
        # There was no time to ask, or not even to knock.
        found.setdefault(path, RunningKernel(path, info.kernel_name, alive=path in taken))
    return [found.get(path) or RunningKernel(path) for path in paths]


async def _for_each(
    paths: Sequence[Path],
    function: Callable[[Path], Awaitable[None]],
    at_once: int,
    descriptors: int,
) -> None:
    """Calls it for each in turn, so many at once as there are descriptors for."""
    limit = anyio.Semaphore(max(1, min(at_once, _descriptors_left() // descriptors)))

    async def call(path: Path) -> None:
        try:
            await function(path)
        finally:
            limit.release()

    async with unwrapping_task_group() as tasks:
        for path in paths:
            # Not in the task: Trio may begin tasks in the opposite order.
            await limit.acquire()
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


async def _knock(info: ConnectionInfo) -> Literal["taken", "refused", "nothing", "unknown"]:
    """What comes of a connection to its shell channel."""
    kind, _, where = info.endpoint("shell").partition("://")
    with anyio.move_on_after(KNOCK_DEADLINE):
        try:
            if kind == "ipc":
                stream: anyio.abc.ByteStream = await anyio.connect_unix(where)
            else:
                host, _, port = where.rpartition(":")
                stream = await anyio.connect_tcp(host.strip("[]"), int(port))
        except (ConnectionRefusedError, FileNotFoundError):
            return "refused"
        except BlockingIOError:
            # As Linux says of an ipc socket at which too many wait.
            return "nothing"
        except (OSError, ValueError) as error:
            return "taken" if getattr(error, "errno", 0) in _OUR_OWN else _refusal(error)
        async with stream:
            try:
                greeting = await stream.receive(1)
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return "unknown"
            return "taken" if greeting in GREETINGS else "unknown"
    return "nothing"


def _refusal(error: Exception) -> Literal["refused", "unknown"]:
    """Of several addresses each may have refused."""
    cause = error.__cause__
    each = cause.exceptions if isinstance(cause, BaseExceptionGroup) else [cause]
    return "refused" if all(isinstance(one, ConnectionRefusedError) for one in each) else "unknown"


def _is_here(info: ConnectionInfo) -> bool:
    """Whether it is on this machine, where nothing gets lost on the way."""
    return info.transport == "ipc" or info.host == "localhost" or info.host.startswith("127.")


def _is_new(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < STARTING
    except OSError:
        return True


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
    except KernelConnectError:
        # It has greeted, and no more.
        return RunningKernel(path, info.kernel_name, alive=True)
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
