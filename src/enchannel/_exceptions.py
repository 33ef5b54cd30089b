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
    ├── NotImplementedByKernel      idle, but no reply
    └── ReplyError                  a reply that is no success, where you asked for an exception

Blame decides the branch: a *local* error is raised at the call that caused it, a *remote* one never
reaches a user's stream: the message is dropped, counted and logged (see ``statistics()``).
The states of a stream use AnyIO's own words: ``ClosedResourceError``, ``EndOfStream``,
``BusyResourceError``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio

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
    "NotImplementedByKernel",
    "ProtocolError",
    "RemoteProtocolError",
    "ReplayedMessage",
    "ReplyError",
]


def text_of(value: object) -> str:
    """What a kernel wrote where text belongs; ``""`` for ``null``, lists and objects.

    Not :class:`str` of those: one that is nested deeply enough exhausts the stack of whoever reads it.
    """
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, (int, float)) else ""


class EnchannelError(Exception):
    """The base of all errors of this library."""


class ProtocolError(EnchannelError):
    """Somebody broke the Jupyter messaging protocol."""


class LocalProtocolError(ProtocolError, ValueError):
    """Your call broke the protocol; nothing was sent and the channel works on."""


class RemoteProtocolError(ProtocolError):
    """What the kernel sent is no Jupyter message."""


class MalformedMessage(RemoteProtocolError):
    """Frames without delimiter, too few of them, or parts that are not the JSON objects they must be."""


class MessageTooLarge(RemoteProtocolError):
    """More bytes than ``max_message_size`` allows."""


class InvalidSignature(RemoteProtocolError):
    """The HMAC signature does not belong to the message."""


class ReplayedMessage(RemoteProtocolError):
    """The signature was seen before: the very same message came a second time."""


class ConnectionFileError(EnchannelError, ValueError):
    """A connection file (or a mapping of its form) that cannot be used; names the file and the field."""


class KernelConnectError(EnchannelError, TimeoutError):
    """The kernel could not be reached before ``connect_timeout``.

    Attributes:
        unconnected: For each channel that did not answer, its endpoint and what was seen of it.
    """

    def __init__(self, message: str, unconnected: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.unconnected: dict[str, str] = dict(unconnected or {})


class KernelDied(EnchannelError, anyio.BrokenResourceError):
    """The kernel is lost, or was restarted under a request; the message says how that was noticed.

    Attributes:
        reason: ``"exited"`` (its process, which was launched here), ``"disconnected"`` (its sockets, which
            did not come back), ``"heartbeat"`` (it fell silent), ``"restarted"`` (the request is lost, the
            channels go on), or ``"error"`` (a channel could not be used).
    """

    def __init__(self, message: str, reason: str = "error") -> None:
        super().__init__(message, reason)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[0])


class KernelLaunchError(EnchannelError):
    """A kernel could not be started.

    Attributes:
        stderr: The tail of what the kernel wrote to its standard output and standard error.
    """

    def __init__(self, message: str, stderr: str = "") -> None:
        super().__init__(f"{message}\n{stderr}" if stderr else message)
        self.stderr = stderr


class NotImplementedByKernel(EnchannelError):
    """The kernel went idle for a request and sent no reply, or does not announce what was asked for."""


class ReplyError(EnchannelError):
    """A reply whose status is no success; raised by :func:`enchannel.raise_for_status` only.

    Attributes:
        reply: The reply's content.
        ename: The name of the exception in the kernel, ``""`` where it says none.
        evalue: Its text.
        traceback: Its traceback, line by line, most often with colours for a terminal.
    """

    def __init__(self, reply: Mapping[str, Any]) -> None:
        self.reply: dict[str, Any] = dict(reply)
        self.ename: str = text_of(reply.get("ename"))
        self.evalue: str = text_of(reply.get("evalue"))
        traceback = reply.get("traceback") or []
        self.traceback: list[str] = (
            traceback if isinstance(traceback, list) else [text_of(traceback)]
        )
        super().__init__(
            f"{self.ename}: {self.evalue}"
            if self.ename
            else f"the request was not successful: {text_of(reply.get('status'))}"
        )
