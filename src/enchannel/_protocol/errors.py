"""What is wrong with a message, or with a connection file.

Blame decides the branch: a *local* error is raised at the call that caused it; a *remote* one says what is
wrong with what arrived, and never reaches a user's stream. :mod:`enchannel._exceptions` has the whole tree.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ConnectionFileError",
    "EnchannelError",
    "InvalidSignature",
    "LocalProtocolError",
    "MalformedMessage",
    "MessageTooLarge",
    "ProtocolError",
    "RecordingError",
    "RemoteProtocolError",
    "ReplayedMessage",
    "text_of",
]


def text_of(value: object) -> str:
    """What a kernel wrote where text belongs; ``""`` for ``null``, lists and objects.

    Not :class:`str` of those: one that is nested deeply enough exhausts the stack of whoever reads it.
    """
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, (int, float)) else ""


class EnchannelError(Exception):
    """The base of all errors of this library; they can be copied and pickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Past __init__, which would be called with `args`: they need not be what it takes.
        return type(self).__new__, (type(self),), {"args": self.args, **self.__dict__}


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


class RecordingError(EnchannelError, ValueError):
    """A file is no recording; the message names it and the line."""
