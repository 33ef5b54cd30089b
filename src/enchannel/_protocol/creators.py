"""What every creator of a message stands on; public in :mod:`enchannel.messages`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import LocalProtocolError
from .message import Message

if TYPE_CHECKING:
    from typing_extensions import Buffer


__all__ = ["mapping", "message"]


def mapping(name: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    """What may be left out, as a dict; what looks like one to ``dict()`` and is none would be sent as something else."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise LocalProtocolError(f"{name} is a mapping, not {type(value).__name__}")
    return dict(value)


def message(
    msg_type: str,
    content: Mapping[str, Any] | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    buffers: Sequence[Buffer] = (),
    subshell_id: str | None = None,
) -> Message:
    """A message of any type, to be completed when it is sent.

    Args:
        msg_type: For example ``"execute_request"``.
        content: What it says.
        metadata: Beside the content.
        buffers: Binary data.
        subshell_id: The subshell that is to handle it; none for the main shell.

    Raises:
        LocalProtocolError: `content` or `metadata` is no mapping, `buffers` are none, or
            `subshell_id` is no text.

    Example:
        .. code-block:: python

            request = message("is_complete_request", {"code": "for x in y:"})
            reply = await ch.request(request)
            print(reply.content["status"])  # incomplete
    """
    header: dict[str, Any] = {"msg_type": msg_type}
    if subshell_id is not None:
        if not (subshell_id and isinstance(subshell_id, str)):
            raise LocalProtocolError(
                f"subshell_id is a text that is not empty, or None, not {subshell_id!r}"
            )
        header["subshell_id"] = subshell_id
    parts = mapping("metadata", metadata), mapping("content", content)
    return Message(header, {}, *parts, buffers)
