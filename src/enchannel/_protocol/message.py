"""Jupyter messages as values.

A :class:`Message` is what travels in both directions. Its five parts are the ones of the specification
(`header`, `parent_header`, `metadata`, `content`, `buffers`); the four dicts keep every key that came,
known to us or not, because kernels send more than the specification names.

Reading is lenient: an unknown type is a value like any other, a missing or odd date is ``None``.
Writing is strict: :func:`prepare` completes a body to a whole message and refuses what a kernel would
drop without a word (no ``msg_type``, a misspelt part).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import attrs

from .errors import LocalProtocolError, MalformedMessage, text_of

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["CHANNELS", "PROTOCOL_VERSION", "Body", "ChannelName", "Message"]

ChannelName: TypeAlias = Literal["shell", "control", "stdin", "iopub"]
"""What a channel is called."""
RequestChannel: TypeAlias = Literal["shell", "control"]
"""The channels that requests are sent on."""
CHANNELS: tuple[ChannelName, ...] = ("shell", "control", "stdin", "iopub")
"""The four channels that carry messages."""

ABORTED = ("aborted", "abort")
"""The status of a reply to a request that was not run, because one before it failed."""

PROTOCOL_VERSION = "5.4"
"""What the header of a sent message says where the body names no version.

Example:
    .. code-block:: python

        sent = await ch.shell.send(kernel_info_request())
        print(sent.header["version"] == PROTOCOL_VERSION)  # True
"""

SUBSHELL_VERSION = "5.5"
"""The same beside a ``subshell_id``, which came with that version (JEP 91)."""


_ON_CONTROL = frozenset(
    (
        "shutdown",
        "interrupt",
        "debug",
        "usage",
        "create_subshell",
        "delete_subshell",
        "list_subshell",
    )
)
_ON_IOPUB = frozenset(
    (
        "stream",
        "display_data",
        "update_display_data",
        "execute_input",
        "execute_result",
        "error",
        "status",
        "clear_output",
        "debug_event",
        "iopub_welcome",
    )
)


def channel_of_type(msg_type: str) -> ChannelName:
    """The channel that a message of this type is sent on; see :attr:`Message.channel`."""
    if msg_type in _ON_IOPUB:
        return "iopub"
    if msg_type in ("input_request", "input_reply"):
        return "stdin"
    stem = msg_type.removesuffix("_request").removesuffix("_reply")
    return "control" if stem in _ON_CONTROL and stem != msg_type else "shell"


def _as_views(buffers: Iterable[Buffer]) -> Sequence[memoryview]:
    given: object = buffers
    if isinstance(given, (str, bytes, bytearray, memoryview)) or not isinstance(given, Iterable):
        raise LocalProtocolError(f"buffers is a list of buffers, not {type(given).__name__}")
    return tuple(map(_as_view, buffers))


def _as_view(buffer: Buffer) -> memoryview:
    """The bytes of `buffer`; one whose bytes do not lie side by side is copied."""
    try:
        view = memoryview(buffer)
    except TypeError:
        raise LocalProtocolError(
            "a buffer has the buffer protocol (bytes, memoryview, array, ...), "
            f"which {type(buffer).__name__} has not"
        ) from None
    if view.format == "B" and view.ndim == 1 and view.c_contiguous:
        return view
    # A view without content has no shape to cast.
    return view.cast("B") if view.c_contiguous and view.nbytes else memoryview(view.tobytes())


class _Draft:
    """A message before it is whole, and frozen."""

    __slots__ = (
        "__weakref__",
        "buffers",
        "content",
        "header",
        "metadata",
        "parent_header",
        "size",
        "topic",
    )


@attrs.frozen(repr=False)
class Message(_Draft):
    """One Jupyter message, as it was received or sent.

    Streams give them, :meth:`Channel.send` and :meth:`KernelChannels.request` return them, and the
    creators of :mod:`enchannel.messages` make some. Immutable to its users: replace a part with
    :func:`attrs.evolve`, leave the dicts as they are, since several streams may hold the same
    message.

    Source: "General Message Format" of the Jupyter messaging specification.

    Example:
        .. code-block:: python

            sent = await ch.shell.send(messages.inspect_request("print"))
            reply = await ch.shell.receive()
            print(reply.msg_type, reply.is_child_of(sent))  # inspect_reply True
            print(reply.content["found"])  # True
    """

    header: dict[str, Any]
    """``msg_id``, ``msg_type``, ``session``, ``username``, ``date``, ``version`` and whatever else came."""
    parent_header: dict[str, Any] = attrs.field(factory=dict)
    """The header of the request that caused this message; empty where nothing did. What arrives for one request may
    have one dict."""
    metadata: dict[str, Any] = attrs.field(factory=dict)
    """Rarely used; here as in the other parts, ``null`` and ``[]`` from a kernel are ``{}``."""
    content: dict[str, Any] = attrs.field(factory=dict)
    """What the message says; its fields depend on ``msg_type``."""
    buffers: Sequence[memoryview] = attrs.field(default=(), converter=_as_views)
    """Binary frames behind the JSON parts. Made of anything with the buffer protocol, and looked at when it is sent."""
    size: int = attrs.field(default=0, eq=False)
    """Bytes that its content and its buffers had on the wire; 0 for one that did not arrive."""
    topic: bytes = attrs.field(default=b"", eq=False)
    """What an iopub message was published under, by which subscriptions choose; kernels agree on no form."""

    def __hash__(self) -> int:
        return hash(self.msg_id)

    def __reduce__(self) -> tuple[Any, ...]:
        # A view cannot be pickled.
        buffers = [bytes(buffer) for buffer in self.buffers]
        parts = (self.header, self.parent_header, self.metadata, self.content)
        return Message, (*parts, buffers, self.size, self.topic)

    @property
    def msg_id(self) -> str:
        """The id that replies and outputs carry as their parent's; not unique in every kernel."""
        return text_of(self.header.get("msg_id"))

    @property
    def msg_type(self) -> str:
        """For example ``"execute_reply"``; unknown types are delivered like known ones."""
        return text_of(self.header.get("msg_type"))

    @property
    def parent_id(self) -> str:
        """The ``msg_id`` of the request that caused this message, ``""`` where nothing did."""
        return text_of(self.parent_header.get("msg_id"))

    @property
    def channel(self) -> ChannelName:
        """The channel that a message of this type is sent on, by the specification.

        Unknown types belong to shell. A ``comm_*`` is sent on shell by clients and on iopub by kernels.
        """
        return channel_of_type(self.msg_type)

    @property
    def session(self) -> str:
        """The session of the sender; in a kernel's header it is often the client's."""
        return text_of(self.header.get("session"))

    @property
    def date(self) -> datetime | None:
        """When the message was made, always with a time zone (UTC where it names none).

        ``None`` where the date is missing or no ISO 8601. Kernels disagree on dates: never order by them.
        """
        return parse_date(self.header.get("date"))

    def is_child_of(self, other: Message | str) -> bool:
        """Whether this message answers `other`: a reply, an output, a status.

        Args:
            other: A message, or its ``msg_id``.
        """
        msg_id = other if isinstance(other, str) else other.msg_id
        return bool(msg_id) and self.parent_id == msg_id

    def to_dict(self) -> dict[str, Any]:
        """The nested-dict shape that jupyter_client uses, JSON-ready but for ``buffers``."""
        return {
            "header": self.header,
            "msg_id": self.msg_id,
            "msg_type": self.msg_type,
            "parent_header": self.parent_header,
            "metadata": self.metadata,
            "content": self.content,
            "buffers": list(self.buffers),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Message:
        """A message from the nested-dict shape; ``msg_id`` and ``msg_type`` may stand beside the
        header.

        Args:
            data: What :meth:`to_dict` gives, or a part of it.

        Raises:
            LocalProtocolError: `data` has no ``msg_type``, a part of the wrong type, or a key that
                is no part of a message.
        """
        return cls(*_parts(data))

    def __repr__(self) -> str:
        # Content stays out: a repr ends up in logs.
        parent = f" child of {self.parent_id}" if self.parent_header else ""
        return f"<Message {self.msg_type} {self.msg_id}{parent}>"


def received(
    header: Any,
    parent_header: Any,
    metadata: Any,
    content: Any,
    buffers: Sequence[Buffer],
    size: int,
    topic: bytes | memoryview,
) -> Message:
    """The message that arrived with these values as its parts.

    Raises:
        MalformedMessage: They are not what they must be.
    """
    if type(header) is not dict:
        raise MalformedMessage("the header is no JSON object")
    if type(header.get("msg_id")) is not str or type(header.get("msg_type")) is not str:
        raise MalformedMessage("the header has no msg_id or no msg_type")
    if type(parent_header) is not dict or type(metadata) is not dict or type(content) is not dict:
        parent_header = _as_map("parent_header", parent_header)
        metadata = _as_map("metadata", metadata)
        content = _as_map("content", content)
    # What a frozen class does to set its own fields takes four times as long: 7 of 97 thousand instructions a message.
    draft: Any = _Draft()
    draft.header = header
    draft.parent_header = parent_header
    draft.metadata = metadata
    draft.content = content
    draft.buffers = buffers
    draft.size = size
    draft.topic = topic
    draft.__class__ = Message
    message: Message = draft
    return message


def _as_map(name: str, value: Any) -> dict[str, Any]:
    if value is None or value == []:
        return {}
    if type(value) is not dict:
        raise MalformedMessage(f"the {name} is no JSON object")
    return value


Body: TypeAlias = "Message | Mapping[str, Any]"
"""What may be sent: a :class:`Message`, or the dict of the Jupyter documentation.

Example:
    .. code-block:: python

        body: Body = {"header": {"msg_type": "kernel_info_request"}, "content": {}}
        sent = await ch.main.send("shell", body)
"""

_DICT_PARTS = ("header", "parent_header", "metadata", "content")
# Those behind "buffers" are written by jupyter_client and Jupyter Server; they say nothing that the parts
# do not.
_KEYS = frozenset((*_DICT_PARTS, "buffers", "msg_id", "msg_type", "channel", "tracker"))

_Parts: TypeAlias = (
    "tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any], Sequence[Buffer]]"
)


def _parts(body: Body) -> _Parts:
    """The parts that `body` has or leaves empty, in the order of :class:`Message`; the dicts are copies."""
    named: Iterable[object]
    beside: Mapping[str, Any] = {}
    if isinstance(body, Message):
        named = (body.header, body.parent_header, body.metadata, body.content)
        buffers = body.buffers
    elif isinstance(body, Mapping):
        if not body.keys() <= _KEYS:
            unknown = next(key for key in body if key not in _KEYS)
            raise LocalProtocolError(
                f"{unknown!r} is no part of a message; the parts are header, parent_header, metadata, "
                "content and buffers"
            )
        named = map(body.get, _DICT_PARTS)
        buffers = () if body.get("buffers") is None else body["buffers"]
        beside = body
    else:
        raise LocalProtocolError(f"a body is a dict or a Message, not {type(body).__name__}")
    header, parent_header, metadata, content = map(_copied, _DICT_PARTS, named)
    for name in ("msg_id", "msg_type"):
        value = beside.get(name)
        if value is not None and value != header.get(name):
            if header.get(name) is not None:
                raise LocalProtocolError(
                    f"the body says {name} {value!r}, its header {header[name]!r}"
                )
            header[name] = value
    msg_type = header.get("msg_type")
    if not isinstance(msg_type, str) or not msg_type:
        raise LocalProtocolError(
            "the body needs a message type: "
            '{"header": {"msg_type": "execute_request"}, "content": {...}}'
        )
    return header, parent_header, metadata, content, buffers


def _copied(name: str, part: object) -> dict[str, Any]:
    if part is None:
        return {}
    # The abstract class alone takes 0.8 µs a message.
    if not isinstance(part, (dict, Mapping)):
        raise LocalProtocolError(f"the {name} of a body is a dict, not {type(part).__name__}")
    return dict(part)


def prepare(body: Body, *, session: str, username: str) -> Message:
    """The whole message that `body` stands for.

    ``session`` and ``username`` override what the body says; ``msg_id``, ``date`` and ``version`` are
    kept where it has them and made where it has not.

    Raises:
        LocalProtocolError: See :meth:`Message.from_dict`.
    """
    header, parent_header, metadata, content, buffers = _parts(body)
    header["msg_id"] = _text(header, "msg_id") or new_id()
    header["session"] = session
    header["username"] = username
    date = header.get("date") or datetime.now(UTC)
    header["date"] = date.isoformat() if isinstance(date, datetime) else date
    newest = SUBSHELL_VERSION if "subshell_id" in header else PROTOCOL_VERSION
    header["version"] = _text(header, "version") or newest
    if header["msg_type"] == "input_reply":
        # One kernel fails on an input_reply without a status, none minds it.
        content.setdefault("status", "ok")
    return Message(header, parent_header, metadata, content, buffers)


def new_id() -> str:
    """An id that nobody else has: 128 random bits in hex.

    ``str(uuid.uuid4())`` takes 3.8 µs, this 0.7, and ``uuid`` need not be imported.
    """
    return os.urandom(16).hex()


def _text(header: Mapping[str, Any], name: str) -> str | None:
    value = header.get(name)
    if value is not None and not isinstance(value, str):
        raise LocalProtocolError(f"the {name} of a header is a str, not {type(value).__name__}")
    return value


# Met in the field: nanoseconds, a zone name in brackets, no seconds, an offset without a colon, no zone.
_DATE = (
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?"
    r"\s*(Z|([+-])(\d\d):?(\d\d)?)?(?:\[.*\])?$"
)
_FLAGS = re.IGNORECASE | re.ASCII


def parse_date(text: object) -> datetime | None:
    """The time that a kernel wrote, with a zone; ``None`` where it is none."""
    match = re.match(_DATE, text.strip(), _FLAGS) if isinstance(text, str) else None
    if match is None:
        return None
    *numbers, fraction, _, sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    microsecond = int((fraction or "0")[:6].ljust(6, "0"))
    try:
        zone = timezone(-offset if sign == "-" else offset)
        year, month, day, hour, minute, second = (int(number or 0) for number in numbers)
        return datetime(year, month, day, hour, minute, second, microsecond, zone)
    except ValueError:  # a 31st of February, an offset of 99 hours
        return None
