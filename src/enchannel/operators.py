"""Operators over streams of messages, each for ``async for``.

An operator takes an async iterable of messages, or of ``(channel, message)`` as ``ch.main`` gives them, and
is one itself, so they compose::

    async for text in outputs(children_of(ch.main, sent)):
        ...

Those that *pick* give the items as they came; those that *derive* give what they find in a message. They
hold no task and no buffer of messages: cancelling an iteration cancels that of the stream below, which loses
nothing, and an operator may be dropped at any time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._protocol.message import Message
from ._protocol.outputs import output_of

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "Operator",
    "children_of",
    "execution_counts",
    "input_requests",
    "of_comm",
    "of_type",
    "outputs",
    "payloads",
    "statuses",
    "updated_displays",
]

T = TypeVar("T")
Item = TypeVar("Item")


class Operator(AsyncIterator[T], Generic[T]):
    """An async iterator over what `derive` makes of each item of `source`."""

    def __init__(self, source: AsyncIterable[Any], derive: Callable[[Any], Iterable[T]]) -> None:
        self._source = source.__aiter__()
        self._derive = derive
        self._derived: deque[T] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """The next one. Cancellation loses nothing that the stream below does not lose."""
        while not self._derived:
            self._derived.extend(self._derive(await self._source.__anext__()))
        return self._derived.popleft()


def _message(item: Any) -> Message:
    return item if isinstance(item, Message) else item[1]


def _pick(source: AsyncIterable[Item], wanted: Callable[[Message], bool]) -> Operator[Item]:
    return Operator(source, lambda item: (item,) if wanted(_message(item)) else ())


def of_type(source: AsyncIterable[Item], *msg_types: str) -> Operator[Item]:
    """Picks the messages of these types."""
    return _pick(source, lambda message: message.msg_type in msg_types)


def children_of(source: AsyncIterable[Item], parent: Message | str) -> Operator[Item]:
    """Picks the messages that `parent` (a message, or its id) caused."""
    return _pick(source, lambda message: message.is_child_of(parent))


def of_comm(source: AsyncIterable[Item], comm_id: str) -> Operator[Item]:
    """Picks the ``comm_open``, ``comm_msg`` and ``comm_close`` of one comm."""
    return _pick(
        of_type(source, "comm_open", "comm_msg", "comm_close"),
        lambda message: message.content.get("comm_id") == comm_id,
    )


def input_requests(source: AsyncIterable[Item]) -> Operator[Item]:
    """Picks the kernel's requests for input."""
    return of_type(source, "input_request")


def outputs(source: AsyncIterable[Any]) -> Operator[dict[str, Any]]:
    """Derives each output, in nbformat's shape: stream, display_data, execute_result and error.

    One output for each message; ``execution.outputs`` has them merged as a notebook shows them.
    """

    def derive(item: Any) -> Iterable[dict[str, Any]]:
        output = output_of(_message(item))
        return () if output is None else (output,)

    return Operator(source, derive)


def updated_displays(source: AsyncIterable[Any]) -> Operator[dict[str, Any]]:
    """Derives the contents of ``update_display_data``: ``data``, ``metadata`` and ``transient``."""
    return Operator(of_type(source, "update_display_data"), lambda item: (_message(item).content,))


def payloads(source: AsyncIterable[Any]) -> Operator[dict[str, Any]]:
    """Derives the payloads of successful execute replies, one by one."""

    def derive(item: Any) -> Iterable[dict[str, Any]]:
        found = _message(item).content.get("payload")
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else ()

    return Operator(of_type(source, "execute_reply"), derive)


def execution_counts(source: AsyncIterable[Any]) -> Operator[int]:
    """Derives the number of each execution, when it begins and again when it is replied to."""

    def derive(item: Any) -> Iterable[int]:
        count = _message(item).content.get("execution_count")
        return (count,) if isinstance(count, int) else ()

    return Operator(of_type(source, "execute_input", "execute_reply"), derive)


def statuses(source: AsyncIterable[Any]) -> Operator[str]:
    """Derives the kernel's states: ``"busy"``, ``"idle"``, ``"starting"``."""

    def derive(item: Any) -> Iterable[str]:
        state = _message(item).content.get("execution_state")
        return (state,) if isinstance(state, str) else ()

    return Operator(of_type(source, "status"), derive)
