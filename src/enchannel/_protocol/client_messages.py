"""The creators of what a client sends and nobody replies to; public in :mod:`enchannel.messages`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .creators import mapping, message
from .message import Message

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from .sent_contents import CommClose, CommMsg, CommOpen, InputReply

__all__ = ["comm_close", "comm_msg", "comm_open", "input_reply"]


def comm_open(
    comm_id: str,
    target_name: str,
    data: Mapping[str, Any] | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    buffers: Sequence[Buffer] = (),
) -> Message:
    """Opens a comm to what is registered under `target_name`.

    See "Opening a Comm" of the specification. No reply comes; a kernel without that target closes
    the comm. :meth:`enchannel.KernelChannels.open_comm` is a comm as a scope.

    Args:
        comm_id: One that nobody has.
        target_name: What the kernel registered.
        data: What the other side is to know.
        metadata: Beside the content.
        buffers: Binary data.

    Raises:
        LocalProtocolError: `data` or `metadata` is no mapping, or one of `buffers` is nothing with
            bytes.

    Example:
        .. code-block:: python

            await ch.shell.send(comm_open("c", "counter", {"from": 1}))
            async for msg in operators.of_comm(ch.iopub, "c"):
                print(msg.msg_type)  # comm_close
                break
    """
    content: CommOpen = {
        "comm_id": comm_id,
        "target_name": target_name,
        "data": mapping("data", data),
    }
    return message("comm_open", content, metadata=metadata, buffers=buffers)


def comm_msg(
    comm_id: str,
    data: Mapping[str, Any] | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    buffers: Sequence[Buffer] = (),
) -> Message:
    """A message of an open comm. See "Comm Messages" of the specification.

    No reply comes, for none is owed; what goes to no comm the kernel passes over.

    Args:
        comm_id: Of the comm.
        data: What it says.
        metadata: Beside the content.
        buffers: Binary data.

    Raises:
        LocalProtocolError: `data` or `metadata` is no mapping, or one of `buffers` is nothing with
            bytes.

    Example:
        .. code-block:: python

            await ch.shell.send(comm_msg("c", {"n": 1}, buffers=[b"data"]))
    """
    content: CommMsg = {"comm_id": comm_id, "data": mapping("data", data)}
    return message("comm_msg", content, metadata=metadata, buffers=buffers)


def comm_close(
    comm_id: str,
    data: Mapping[str, Any] | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    buffers: Sequence[Buffer] = (),
) -> Message:
    """Closes a comm. See "Tearing Down Comms" of the specification.

    Args:
        comm_id: Of the comm.
        data: What the other side is to know.
        metadata: Beside the content.
        buffers: Binary data.

    Raises:
        LocalProtocolError: `data` or `metadata` is no mapping, or one of `buffers` is nothing with
            bytes.

    Example:
        .. code-block:: python

            await ch.shell.send(comm_close("c"))
    """
    content: CommClose = {"comm_id": comm_id, "data": mapping("data", data)}
    return message("comm_close", content, metadata=metadata, buffers=buffers)


def input_reply(value: str, request: Message) -> Message:
    """The answer to an ``input_request``, whose header becomes its parent.

    See "Messages on the stdin (ROUTER/DEALER) channel" of the specification.

    Args:
        value: What was typed; a ``chr(4)`` for the end of the file.
        request: The ``input_request``.

    Example:
        .. code-block:: python

            request = execute_request("input('name?')", allow_stdin=True)
            await ch.shell.send(request)
            async for prompt in operators.input_requests(ch.stdin):
                await ch.stdin.send(input_reply("ada", prompt))
                break
    """
    content: InputReply = {"value": value, "status": "ok"}
    return Message({"msg_type": "input_reply"}, request.header, {}, dict(content))
