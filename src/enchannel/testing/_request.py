"""A request, as what a fake kernel does by itself sees it, and the headers of what it sends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from .._protocol.message import Message

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Answering", "Asked", "Reply", "kernel_header", "kernel_message", "topic_of"]

Reply: TypeAlias = "Mapping[str, Any] | None"
Answering: TypeAlias = "Callable[[Any], Reply | Awaitable[Reply]]"
"""A handler, of whatever class its request is."""


class _Asked(Protocol):
    async def wait_awake(self) -> None: ...

    def publish(
        self,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        parent: Message | None = None,
        buffers: Sequence[Buffer] = (),
    ) -> Message: ...


class Asked(Protocol):
    """A request."""

    @property
    def kernel(self) -> _Asked:
        """Who is asked."""
        ...

    @property
    def channel(self) -> str:
        """Where it came."""
        ...

    @property
    def message(self) -> Message:
        """What came."""
        ...

    @property
    def content(self) -> dict[str, Any]:
        """What it says."""
        ...

    @property
    def payload(self) -> list[Mapping[str, Any]]:
        """What the reply to an execution carries as its payload."""
        ...

    def publish(
        self, msg_type: str, content: Mapping[str, Any], buffers: Sequence[Buffer] = ()
    ) -> Message:
        """Publishes an iopub message with this request as its parent."""
        ...


def kernel_header(msg_type: str, msg_id: str, session: str) -> dict[str, Any]:
    """The header of a message that a fake kernel sends now."""
    return {
        "msg_id": msg_id,
        "msg_type": msg_type,
        "session": session,
        "username": "kernel",
        "date": datetime.now(UTC).isoformat(),
        "version": "5.4",
    }


def kernel_message(
    msg_id: str,
    session: str,
    msg_type: str,
    content: Mapping[str, Any],
    parent: Message | None,
    buffers: Sequence[Buffer],
) -> Message:
    """A message that a fake kernel sends now."""
    header = kernel_header(msg_type, msg_id, session)
    return Message(header, dict(parent.header) if parent else {}, {}, dict(content), buffers)


def topic_of(message: Message) -> bytes:
    """The topic that ipykernel publishes `message` under."""
    kind, content = message.msg_type, message.content
    if kind == "stream":
        return f"stream.{content.get('name')}".encode()
    if kind in ("display_data", "update_display_data", "clear_output"):
        return b"display_data"
    if kind.startswith("comm_"):
        return f"comm-{content.get('comm_id')}".encode()
    return f"kernel.{message.session}.{kind}".encode()
