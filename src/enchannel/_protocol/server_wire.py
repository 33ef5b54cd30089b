"""What a server's websocket carries, without any input or output: the frames of one message in one piece of bytes.

Two protocols are spoken, and a server says which it takes; what it sends is read by its kind:

* ``v1.kernel.websocket.jupyter.org``: binary always. Little-endian 64-bit integers, the count of offsets and the offsets
  themselves, then channel, header, parent header, metadata, content and buffers, the kernel's own bytes. The last
  offset is the length of the whole.
* The *default* protocol: a text of JSON; with buffers binary: big-endian 32-bit integers, the count of parts and
  their offsets, then the JSON and the buffers. The server has read and written the JSON anew.

The rules:

* A count or an offset is believed when it lies within what has arrived, and before anything is made of it. Whatever
  arrives is a channel with the frames of a message, or exactly one :class:`MalformedMessage`.
* The frames are those of the wire protocol without a signature, so that they are read by the one
  :class:`~enchannel._protocol.wire.Wire`, with all its leniency.
* What is written is right: a wrong count makes a server take all memory there is.

Source: "Kernel websocket protocols" of Jupyter Server; @jupyterlab/services.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import msgspec

from .connection_info import CHANNELS, ChannelName
from .errors import MalformedMessage
from .wire import CONTENT, DELIMITER, Frame

__all__ = ["V1", "pack", "unpack"]

V1 = "v1.kernel.websocket.jupyter.org"
"""The name of the newer protocol, as a websocket's subprotocol."""

PARTS = ("header", "parent_header", "metadata", "content")
FIRST = CONTENT - len(PARTS) + 1
"""Where the header stands among the frames of a message without an address."""

WITHOUT_BUFFERS = len(PARTS) + 2
"""Offsets of a message without buffers: those of channel and parts, and the end."""

START = 8 * (1 + WITHOUT_BUFFERS)
"""Where the first part of such a message begins."""

_WITHOUT_BUFFERS = struct.Struct(f"<{1 + WITHOUT_BUFFERS}Q")

_CHANNELS: dict[bytes, ChannelName] = {channel.encode(): channel for channel in CHANNELS}


def pack(channel: ChannelName, frames: Sequence[Frame], protocol: str | None) -> tuple[bytes, bool]:
    """What is sent for the `frames` of a message; and whether it is text.

    Args:
        channel: Where the message goes.
        frames: As :meth:`Wire.encode <enchannel._protocol.wire.Wire.encode>` makes them.
        protocol: :data:`V1`, or ``None`` for the default protocol.
    """
    if protocol == V1:
        return _pack_v1([channel.encode(), *frames[FIRST:]]), False
    parts = zip(PARTS, frames[FIRST:], strict=False)
    members = [f'"channel":"{channel}"'.encode()]
    members += [b'"%s":%b' % (name.encode(), bytes(part)) for name, part in parts]
    buffers = frames[CONTENT + 1 :]
    if not buffers:
        return b"{" + b",".join([*members, b'"buffers":[]']) + b"}", True
    several = [b"{" + b",".join(members) + b"}", *buffers]
    first = 4 * (1 + len(several))
    offsets = accumulate(map(len, several[:-1]), initial=first)
    return struct.pack(f"!{1 + len(several)}I", len(several), *offsets) + b"".join(several), False


def _pack_v1(parts: Sequence[Frame]) -> bytes:
    first = 8 * (2 + len(parts))
    offsets = list(accumulate(map(len, parts), initial=first))
    return struct.pack(f"<{1 + len(offsets)}Q", len(offsets), *offsets) + b"".join(parts)


def unpack(data: bytes | bytearray, *, text: bool) -> tuple[ChannelName, Sequence[Frame]]:
    """The channel of a message that has arrived, and its frames; buffers are views of `data`.

    Args:
        data: What a websocket's message holds.
        text: Whether it is text.

    Raises:
        MalformedMessage: It is none.
    """
    if text:
        return _members(bytes(data), ())
    try:
        # Most messages have no buffers. All that is checked is checked in one comparison then, and sliced out of a copy:
        # 1 µs where the general way takes 2.3.
        count, first, header, parent, metadata, content, end = _WITHOUT_BUFFERS.unpack_from(data)
    except struct.error:
        count = first = header = parent = metadata = content = end = -1
    if not (
        count == WITHOUT_BUFFERS
        and START == first <= header <= parent <= metadata <= content <= end == len(data)
    ):
        return _unpack_any(memoryview(data).toreadonly())
    data = bytes(data)
    frames = [
        DELIMITER,
        b"",
        data[header:parent],
        data[parent:metadata],
        data[metadata:content],
        data[content:],
    ]
    return _channel(data[first:header]), frames


def _unpack_any(view: memoryview) -> tuple[ChannelName, Sequence[Frame]]:
    try:
        return _unpack_v1(view)
    except MalformedMessage as error:
        # What a proxy has agreed to is not always what the server behind it speaks. The one is never taken for the other:
        # the count of a message of the default protocol is too large for one of the newer by far.
        if bytes(view[:1]) != b"\0":
            raise
        try:
            return _unpack_default(view)
        except MalformedMessage:
            raise error from None


def _unpack_v1(view: memoryview) -> tuple[ChannelName, Sequence[Frame]]:
    offsets = _offsets(view, "<", "Q", 8)
    if len(offsets) < WITHOUT_BUFFERS:
        raise MalformedMessage(f"{len(offsets)} offsets, and no message has so few")
    if offsets[-1] != len(view):
        raise MalformedMessage(
            f"{len(view)} bytes, and the last offset says that they are {offsets[-1]}"
        )
    channel, *parts = (view[start:end] for start, end in pairwise(offsets))
    # A view would keep the whole alive for as long as anybody has its parent header, and is slower to look at.
    small = [bytes(part) for part in parts[: len(PARTS)]]
    return _channel(bytes(channel)), [DELIMITER, b"", *small, *parts[len(PARTS) :]]


def _unpack_default(view: memoryview) -> tuple[ChannelName, Sequence[Frame]]:
    offsets = _offsets(view, ">", "I", 4)
    if not offsets:
        raise MalformedMessage("no parts")
    first, *buffers = (view[start:end] for start, end in pairwise([*offsets, len(view)]))
    return _members(bytes(first), buffers)


def _offsets(view: memoryview, order: str, kind: str, size: int) -> Sequence[int]:
    """The offsets that stand before the parts: each within `view`, none before the one before it."""
    if len(view) < size:
        raise MalformedMessage(f"{len(view)} bytes are no message")
    (count,) = struct.unpack_from(order + kind, view)
    # Before anything of that size is made.
    if count > len(view) // size - 1:
        raise MalformedMessage(f"{count} offsets in {len(view)} bytes")
    offsets: tuple[int, ...] = struct.unpack_from(f"{order}{count}{kind}", view, size)
    ordered = all(one <= other for one, other in pairwise(offsets))
    if offsets and not (ordered and (1 + count) * size <= offsets[0] and offsets[-1] <= len(view)):
        raise MalformedMessage("offsets that are not in order, or not in the message")
    return offsets


class _Said(msgspec.Struct):
    """The JSON of the default protocol, each part as its bytes."""

    header: msgspec.Raw
    parent_header: msgspec.Raw = msgspec.Raw(b"{}")
    metadata: msgspec.Raw = msgspec.Raw(b"{}")
    content: msgspec.Raw = msgspec.Raw(b"{}")
    channel: Any = None


_decode = msgspec.json.Decoder(_Said).decode


def _members(data: bytes, buffers: Sequence[Frame]) -> tuple[ChannelName, Sequence[Frame]]:
    try:
        said = _decode(data)
    except (ValueError, RecursionError):
        channel, parts = _members_leniently(data)
    else:
        channel, parts = said.channel, [bytes(getattr(said, name)) for name in PARTS]
    name = channel.encode(errors="replace") if isinstance(channel, str) else b""
    return _channel(name), [DELIMITER, b"", *parts, *buffers]


def _members_leniently(data: bytes) -> tuple[Any, list[bytes]]:
    """By the standard library, for what msgspec refuses (``NaN``, bytes that are no UTF-8)."""
    try:
        said = json.loads(str(data, "utf-8", "replace"))
        if not isinstance(said, dict) or "header" not in said:
            raise MalformedMessage("a text that is no object with a header")
        parts = [json.dumps(said.get(name, {})).encode() for name in PARTS]
    except (ValueError, RecursionError) as error:
        if isinstance(error, MalformedMessage):
            raise
        raise MalformedMessage("a part is no JSON") from None
    return said.get("channel"), parts


def _channel(name: bytes) -> ChannelName:
    channel = _CHANNELS.get(name)
    if channel is None:
        raise MalformedMessage("there is no such channel")
    return channel
