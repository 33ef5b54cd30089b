"""Every exception that enchannel raises of its own.

::

    EnchannelError
    ├── ProtocolError
    │   ├── LocalProtocolError      your call broke the protocol; nothing was sent  (also ValueError)
    │   └── RemoteProtocolError     the kernel's frames are wrong
    │       ├── MalformedMessage
    │       ├── InvalidSignature
    │       ├── MessageTooLarge
    │       └── ReplayedMessage
    ├── ConnectionFileError         names the file and the field                    (also ValueError)
    ├── KernelConnectError          names what did not answer                       (also TimeoutError)
    ├── KernelDied                  says how it was noticed         (also anyio.BrokenResourceError)
    ├── KernelLaunchError           with the tail of the kernel's stderr
    ├── NoReply                     the kernel is done with the request and no reply came: why
    │   └── NotImplementedByKernel
    ├── RecordingError              a file is no recording                          (also ValueError)
    ├── ReplyError                  a reply that is no success, where you asked for an exception
    └── ServerError                 what a server refused, with its status and its words

Blame decides the branch: a *local* error is raised at the call that caused it, a *remote* one never
reaches a user's stream: the message is dropped, counted and logged (see ``statistics()``).
The states of a stream use AnyIO's own words: ``ClosedResourceError``, ``EndOfStream``,
``BusyResourceError``. All of them can be copied and pickled.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from textwrap import indent
from typing import Any, Literal, TypeAlias

import anyio

from ._protocol.errors import (
    ConnectionFileError,
    EnchannelError,
    InvalidSignature,
    LocalProtocolError,
    MalformedMessage,
    MessageTooLarge,
    ProtocolError,
    RecordingError,
    RemoteProtocolError,
    ReplayedMessage,
    text_of,
)
from ._protocol.message import ABORTED

__all__ = [
    "ConnectionFileError",
    "EnchannelError",
    "InvalidSignature",
    "KernelConnectError",
    "KernelDied",
    "KernelLaunchError",
    "LocalProtocolError",
    "MalformedMessage",
    "MessageTooLarge",
    "NoReply",
    "NotImplementedByKernel",
    "ProtocolError",
    "RecordingError",
    "RemoteProtocolError",
    "ReplayedMessage",
    "ReplyError",
    "ServerError",
]


LossReason: TypeAlias = Literal["exited", "disconnected", "heartbeat", "restarted", "error"]
"""How a :class:`KernelDied` was noticed."""
LaunchFailure: TypeAlias = Literal[
    "no kernelspec",
    "broken kernelspec",
    "no encryption",
    "provisioner",
    "system",
    "address taken",
    "address hidden",
    "exited",
    "not ready",
]
"""Why there is a :class:`KernelLaunchError`."""
NoReplyReason: TypeAlias = Literal[
    "unknown", "disconnected", "interrupted", "dropped", "not implemented"
]
"""Why there is a :class:`NoReply`, as far as that is known."""


class KernelConnectError(EnchannelError, TimeoutError):
    """The kernel could not be reached before ``connect_timeout``. Also a ``TimeoutError``.

    Raised on entry of a block of channels. Where something answered that does not verify, the
    message says that the key is another one.

    Attributes:
        unconnected: For each channel that did not answer, its endpoint and what was seen of it.

    Example:
        .. code-block:: python

            ports = ("shell_port", "control_port", "stdin_port", "iopub_port", "hb_port")
            nobody = dict.fromkeys(ports, 1)
            try:
                async with open_kernel_channels(None, nobody, connect_timeout=0.5):
                    ...
            except KernelConnectError as error:
                print(error.unconnected["shell"])
                # tcp://127.0.0.1:1 (refused or dropped the connection)
    """

    def __init__(self, message: str, unconnected: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.unconnected: dict[str, str] = dict(unconnected or {})


class KernelDied(EnchannelError, anyio.BrokenResourceError):
    """The kernel is lost, or was restarted under a request; the message says how that was noticed.

    Raised by whatever waits for the kernel, behind all that it managed to send. Also an
    ``anyio.BrokenResourceError``. :attr:`KernelChannels.lost` is the one that ended a connection.

    Attributes:
        reason: ``"exited"`` (its process, as whoever launched it says, be it a server),
            ``"disconnected"`` (its sockets, which did not come back in time), ``"heartbeat"`` (it
            fell silent), ``"restarted"`` (the request is lost, the channels go on), or ``"error"``
            (a channel could not be used).
        output: The tail of what its process wrote to its standard output and standard error, for a
            kernel that was launched here and has exited; else ``""``.

    Example:
        .. code-block:: python

            try:
                await ch.run("import os; os._exit(1)")
            except KernelDied as died:
                print(died.reason)  # exited
                print(died)  # the kernel's process exited with status 1
    """

    def __init__(self, message: str, reason: LossReason = "error", output: str = "") -> None:
        super().__init__(message)
        self.reason: LossReason = reason
        self.output = output


class KernelLaunchError(EnchannelError):
    """A kernel could not be found, read, prepared or started; the message says what to do about it.

    Attributes:
        stderr: The tail of what the kernel wrote to its standard output and standard error; it is
            in the message as well.
        reason: ``"no kernelspec"``, ``"broken kernelspec"``, ``"no encryption"`` (where it is
            required), ``"provisioner"`` (it is another one's to start), ``"system"`` (which refused
            something: its program, its directory, an address), ``"address taken"`` (five times, or
            by somebody else where it was), ``"address hidden"`` (it does not get at its ipc
            sockets), ``"exited"`` or ``"not ready"`` (in time).

    Example:
        .. code-block:: python

            from pathlib import Path

            exits = ["python", "-c", "raise SystemExit('no licence')"]
            try:
                async with open_kernel(KernelSpec("broken", exits, Path())):
                    ...
            except KernelLaunchError as error:
                print(error.reason)  # exited
                print(error.stderr)  # no licence
    """

    def __init__(
        self, message: str, stderr: str = "", reason: LaunchFailure = "no kernelspec"
    ) -> None:
        super().__init__(f"{message}\n{stderr}" if stderr else message)
        self.stderr = stderr
        self.reason: LaunchFailure = reason


class NoReply(EnchannelError):
    """The kernel is done with a request, and no reply came.

    Raised by :meth:`KernelChannels.request`, :meth:`KernelChannels.run` and the like, once the
    kernel has answered what it was asked behind the request; so it is no time limit. Code that was
    run may have had its effects.

    Attributes:
        reason: ``"unknown"``, ``"disconnected"`` (the connection was gone for a moment while it was
            in flight), ``"interrupted"`` (so was the kernel interrupted; some lose the reply then),
            ``"dropped"`` (something that arrived on its channel meanwhile was no message, or too
            large), or ``"not implemented"`` (see :class:`NotImplementedByKernel`).

    Example:
        .. code-block:: python

            async with kernel.open_channels(max_message_size=100_000) as ch:
                try:
                    await ch.run("1", user_expressions={"large": "'x' * 200_000"})
                except NoReply as error:
                    print(error.reason)  # dropped
    """

    def __init__(self, message: str, reason: NoReplyReason = "unknown") -> None:
        super().__init__(message)
        self.reason: NoReplyReason = reason


class NotImplementedByKernel(NoReply):
    """The kernel does not implement the request, or does not announce what was asked for.

    Of a request it is raised where nothing else explains that no reply came, and of
    :meth:`KernelChannels.open_subshell` and :meth:`KernelChannels.open_debug_session` where the
    kernel does not say that it has them. Its ``reason`` is ``"not implemented"``.

    Example:
        .. code-block:: python

            try:
                await ch.request("usage_please_request", {})
            except NotImplementedByKernel as error:
                print(error.reason)  # not implemented
    """

    def __init__(self, message: str, reason: NoReplyReason = "not implemented") -> None:
        super().__init__(message, reason)


class ReplyError(EnchannelError):
    """A reply whose status is no success; raised where you ask for it.

    By :func:`enchannel.raise_for_status`, and by ``run(check=True)``. Its text has the kernel's
    traceback, without colours. Everywhere else such a reply is a reply like any other.

    Attributes:
        reply: The reply's content.
        ename: The name of the exception in the kernel, ``""`` where it says none.
        evalue: Its text.
        traceback: Its traceback, line by line, most often with colours for a terminal.
        code: What was run, where it was code that was run; else ``None``.
        outputs: What it had shown until then, in nbformat's shape.

    Example:
        .. code-block:: python

            try:
                await ch.run("print('so far'); 1 / 0", check=True)
            except ReplyError as error:
                print(error.ename, error.evalue)  # ZeroDivisionError division by zero
                print(error.outputs[0]["text"])  # so far
    """

    def __init__(
        self,
        reply: Mapping[str, Any],
        code: str | None = None,
        outputs: Sequence[dict[str, Any]] = (),
    ) -> None:
        self.reply: dict[str, Any] = dict(reply)
        self.ename: str = text_of(reply.get("ename"))
        self.evalue: str = text_of(reply.get("evalue"))
        traceback = reply.get("traceback") or []
        lines = traceback if isinstance(traceback, list) else [traceback]
        self.traceback: list[str] = [text_of(line) for line in lines]
        self.code = code
        self.outputs: list[dict[str, Any]] = list(outputs)
        said = self.evalue or text_of(reply.get("status"))
        if said in ABORTED:
            said = f"{said}, for what was asked before it failed"
        text = (
            f"{self.ename}: {self.evalue}"
            if self.ename
            else f"the request was not successful: {said}"
        )
        super().__init__("\n\n".join([text, *self._details()]))

    def _details(self) -> list[str]:
        if self.traceback:
            return [_COLOURS.sub("", "\n".join(self.traceback))]
        return [] if self.code is None else [f"in the code\n{indent(self.code, '    ')}"]


_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")


class ServerError(EnchannelError):
    """A server of kernels has refused something, or cannot be reached.

    The message says what to do, where that is known, and never has the token in it.

    Attributes:
        status: What it answered, as a status of HTTP; 0 where it did not.
        said: Its own words.
        reached: Whether a connection came about; where none did, nothing was asked and nothing done.

    Example:
        .. code-block:: python

            from enchannel.testing import open_fake_server

            async with open_fake_server(token="secret") as fake:
                try:
                    async with open_server(fake.url, token="a guess"):
                        ...
                except ServerError as error:
                    print(error.status, error.said)  # 403 Forbidden
    """

    def __init__(
        self, message: str, status: int = 0, said: str = "", *, reached: bool = True
    ) -> None:
        super().__init__(message)
        self.status = status
        self.said = said
        self.reached = reached
