"""A request, as what a fake kernel does by itself sees it, and the headers of what it sends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from .._protocol.message import Message

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Answering", "Asked", "Reply", "kernel_header"]

Reply: TypeAlias = "Mapping[str, Any] | None"
Answering: TypeAlias = "Callable[[Any], Reply | Awaitable[Reply]]"
"""A handler, of whatever class its request is."""


class _Publisher(Protocol):
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
    def kernel(self) -> _Publisher:
        """Who is asked."""
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
