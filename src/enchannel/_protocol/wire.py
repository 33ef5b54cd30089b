"""Frames to messages and back: the wire protocol, without any input or output.

A message on the wire is a list of frames::

    [identity or topic, ..., b"<IDS|MSG>", signature, header, parent_header, metadata, content, buffer, ...]

The rules, in order, for what arrives:

* More bytes than the caller allows, in all frames together, are too many; so are more frames than would fit there.
* Frames without a delimiter, or with fewer than five frames behind it, are malformed.
* The signature is the hex HMAC of the four JSON parts as they stand on the wire; buffers are outside it.
  With an empty key nothing is signed. What arrives is unsigned too, or signed with the empty key, as IRkernel does
  it; with any other signature the kernel has a key that the caller has not, and hears nothing that is sent to it.
* Only a signature that verified is remembered, so that a forged copy that comes first cannot make the
  genuine message look like a replay.
* Bytes that are no UTF-8, which R prints, are read as U+FFFD, and the message is counted. The signature is
  that of the bytes as they came.
* The ``header`` must be a JSON object with a ``msg_id`` and a ``msg_type``. The other parts must be objects
  too, or what kernels write for an empty one: ``null``, and ``[]`` (in PHP, Lua and R).

Whatever arrives becomes either a :class:`Message` or exactly one :class:`RemoteProtocolError`.

JSON is read by msgspec, which is five times faster than the standard library and keeps integers beyond
64 bits exact; what it refuses and kernels do send (``NaN``, lone surrogates) is read by the standard
library. JSON is written by the standard library, because msgspec writes much that is no JSON value of
the caller's (``nan`` becomes ``null``, ``bytes`` become text) without a word.

Source: "The Wire Protocol" of the Jupyter messaging specification.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec.json

from .arguments import checked_size, encoded
from .errors import (
    InvalidSignature,
    LocalProtocolError,
    MalformedMessage,
    MessageTooLarge,
    RemoteProtocolError,
    ReplayedMessage,
)
from .message import Message, received

if TYPE_CHECKING:
    pass

Frame: TypeAlias = "bytes | memoryview"
"""One frame on the wire: a view where it is large, of bytes either way."""

DELIMITER = b"<IDS|MSG>"
CONTENT = 5
"""Where the content stands in what is encoded; buffers are behind it."""
STARTS = 16
"""Delimiters behind which a message is looked for, where the first is of none."""
FRAMES = 64
"""Frames that a message may have, however small the size that is allowed."""
FRAME = 64
"""Bytes that ZeroMQ takes for a frame, even an empty one: no more frames than fit into the size that is allowed."""
REPLAY_WINDOW = 8_192
"""How many of the newest signatures are remembered, at least. They take 1.6 MB at the most; 65,536 took 12.7."""


class Wire:
    """Signs and encodes, verifies and decodes the messages of one kernel.

    Args:
        key: The connection file's key; empty for unsigned messages.
        signature_scheme: ``"hmac-"`` and the name of a hash that :mod:`hashlib` has.
        max_size: Bytes that a message which arrives may have.

    Attributes:
        repaired: How many messages were decoded whose JSON parts were not all UTF-8.

    Raises:
        LocalProtocolError: An unknown scheme, or a key or a size that is none.
    """

    def __init__(
        self,
        key: str | bytes = b"",
        signature_scheme: str = "hmac-sha256",
        max_size: float = math.inf,
    ) -> None:
        # None where there is no bound: adding up the frames takes 0.4 µs a message.
        self._max_size = None if checked_size(max_size) == math.inf else max_size
        key = encoded("key", key)
        # With OpenSSL behind it, which takes 4 ms to load: a fifth of importing the whole package.
        from .signing import Signer, compare_digest

        self._signer = Signer(key, signature_scheme)
        self._signed = bool(key)
        self._same = compare_digest
        self._replays = _ReplayGuard(REPLAY_WINDOW)
        self.repaired: int = 0
        # All that a request brings has the same parent: that of a flood of outputs is decoded once, and held once.
        self._parent_part: Frame = b"null"
        self._parent_header: Any = None

    def encode(self, message: Message, prefix: Iterable[bytes] = ()) -> list[Frame]:
        """The frames of `message`, behind the routing or topic frames in `prefix`.

        Raises:
            LocalProtocolError: A part that is no JSON.
        """
        parts = [
            _to_json("header", message.header),
            _to_json("parent_header", message.parent_header),
            _to_json("metadata", message.metadata),
            _to_json("content", message.content),
        ]
        signature = self._signer.sign(parts) if self._signed else b""
        buffers = [_flat(buffer) for buffer in message.buffers]
        return [*prefix, DELIMITER, signature, *parts, *buffers]

    @property
    def signed(self) -> bool:
        """Whether messages are signed."""
        return self._signed

    def decode(self, frames: Sequence[Frame]) -> Message:
        """The message in `frames`; its buffers are views of them, and its topic is the first that stands before it.

        Raises:
            MessageTooLarge: More bytes than are allowed.
            MalformedMessage: No delimiter, too few frames, or parts that are not what they must be.
            InvalidSignature: The signature does not belong to the four JSON parts, or there is one and no key.
            ReplayedMessage: A message with this signature was decoded before.
        """
        if self._max_size is not None:
            self._check_size(frames, self._max_size)
        try:
            start = frames.index(DELIMITER) + 1
        except ValueError:
            raise MalformedMessage("no <IDS|MSG> delimiter") from None
        if len(frames) < start + 5:
            raise MalformedMessage(f"{len(frames) - start} frames behind the delimiter, not 5")
        parts = frames[start + 1 : start + 5]
        if self._signed:
            self._verify(self._signer.sign(parts), frames[start])
        elif frames[start] and not self._same(self._signer.sign(parts), frames[start]):
            raise InvalidSignature("the message is signed, and the key is empty")
        topic = frames[0] if start > 1 else b""
        try:
            header, content = _decode(parts[0]), _decode(parts[3])
            if parts[1] != self._parent_part:
                self._parent_header, self._parent_part = _decode(parts[1]), parts[1]
            parent_header = self._parent_header
            metadata = _decode(parts[2]) if parts[2] != b"{}" else {}
        except (ValueError, RecursionError):
            return self._decode_leniently(parts, frames[start + 5 :], topic)
        size = len(parts[3])
        if len(frames) == start + 5:
            return received(header, parent_header, metadata, content, (), size, topic)
        buffers = frames[start + 5 :]
        size += sum(map(len, buffers))
        return received(header, parent_header, metadata, content, _views(buffers), size, topic)

    def _check_size(self, frames: Sequence[Frame], most: float) -> None:
        size = sum(map(len, frames))
        if size > most or len(frames) > max(FRAMES, most / FRAME):
            raise MessageTooLarge(f"{size} bytes in {len(frames)} frames")

    def decode_last(self, frames: Sequence[Frame]) -> Message | None:
        """The message that `frames` end with, where the remains of malformed ones stand before it.

        The first delimiter is theirs. Where the message begins, its signature tells.
        """
        starts = (at for at, frame in enumerate(frames) if frame == DELIMITER)
        for at in itertools.islice(starts, 1, STARTS):
            with contextlib.suppress(RemoteProtocolError):
                return self.decode(frames[at:])
        return None

    def _decode_leniently(
        self, parts: Sequence[Frame], buffers: Sequence[Frame], topic: Frame
    ) -> Message:
        """By the standard library, for what msgspec refuses."""
        repaired = 0
        try:
            texts = [str(part, "utf-8") for part in parts]
        except UnicodeDecodeError:
            texts = [str(part, "utf-8", "replace") for part in parts]
            repaired = 1
        header, parent_header, metadata, content = map(_from_json, texts)
        size = len(parts[3]) + sum(map(len, buffers))
        message = received(header, parent_header, metadata, content, _views(buffers), size, topic)
        self.repaired += repaired
        return message

    def _verify(self, signature: bytes, said: Frame) -> None:
        # In constant time, so that the time taken tells nothing of the right signature.
        if not self._same(signature, said):
            raise InvalidSignature("the signature does not belong to the message")
        if not self._replays.add(signature):
            raise ReplayedMessage("a message with this signature came before")


class _ReplayGuard:
    """Remembers at least the `window` newest signatures, and at most twice as many, by 61 bits of each.

    Two generations: forgetting a whole one at a time costs nothing per message.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._young: set[int] = set()
        self._old: set[int] = set()

    def add(self, signature: bytes) -> bool:
        """Remembers `signature`; false where it is known already."""
        known, young = hash(signature), self._young
        if known in young or known in self._old:
            return False
        young.add(known)
        if len(young) >= self._window:
            self._young, self._old = set(), young
        return True


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedMessage("a part is no JSON") from None


def _views(buffers: Sequence[Frame]) -> Sequence[memoryview]:
    return tuple(memoryview(buffer) for buffer in buffers)


_decode = msgspec.json.Decoder().decode

# json.dumps() with arguments makes one for every call, which is a third of its time.
_encoder = json.JSONEncoder(allow_nan=False, separators=(",", ":"))


def _to_json(name: str, part: dict[str, Any]) -> bytes:
    # Two of the four most often: 3.5 of the 9 µs that a message takes to encode.
    if part == {}:
        return b"{}"
    try:
        return _encoder.encode(part).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise LocalProtocolError(f"the {name} is no JSON: {error}") from error


def _flat(view: memoryview) -> Frame:
    # Whoever sends bytes need not ask whether somebody can change them.
    return view.obj if isinstance(view.obj, bytes) and view.nbytes == len(view.obj) else view
