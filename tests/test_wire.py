from __future__ import annotations

import array
import copy
import hashlib
import hmac
import json
import pickle
import subprocess
import sys
import weakref
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enchannel import (
    InvalidSignature,
    LocalProtocolError,
    MalformedMessage,
    Message,
    MessageTooLarge,
    RemoteProtocolError,
    ReplayedMessage,
)
from enchannel._protocol.wire import DELIMITER, REPLAY_WINDOW, Wire, _ReplayGuard

KEY = b"key"
MESSAGE = Message(
    {"msg_id": "1", "msg_type": "stream"}, {"msg_id": "0"}, {"m": None}, {"text": "ü"}, (b"\0\1",)
)
HMACS = [f"hmac-{name}" for name in ("md5", "sha1", "sha256", "sha512", "sha3_256", "blake2b")]

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # Lone surrogates too: kernels send them, and users may send them back.
    | st.text(st.characters(exclude_categories=())),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=10,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=4)
messages = st.builds(
    Message,
    json_objects.map(lambda header: {**header, "msg_id": "1", "msg_type": "x"}),
    json_objects,
    json_objects,
    json_objects,
    st.lists(st.binary(), max_size=3).map(tuple),
)


@given(messages, st.sampled_from(HMACS), st.binary(max_size=300), st.lists(st.binary(), max_size=2))
def test_what_is_encoded_is_decoded(
    message: Message, scheme: str, key: bytes, prefix: list[bytes]
) -> None:
    prefix = [frame for frame in prefix if frame != DELIMITER]
    frames = [bytes(frame) for frame in Wire(key, scheme).encode(message, prefix)]
    assert Wire(key, scheme).decode(frames) == message


@given(st.binary(max_size=300), st.sampled_from(HMACS))
def test_the_signature_is_the_hmac_of_the_four_parts(key: bytes, scheme: str) -> None:
    delimiter, signature, *parts = Wire(key, scheme).encode(MESSAGE)
    assert delimiter == DELIMITER
    name = scheme.removeprefix("hmac-")
    expected = hmac.new(key, b"".join(parts[:4]), name).hexdigest() if key else ""
    assert bytes(signature).decode() == expected


def test_the_frames_are_those_of_the_specification() -> None:
    frames = Wire(KEY).encode(MESSAGE, [b"topic"])
    assert frames[:2] == [b"topic", b"<IDS|MSG>"]
    assert [json.loads(frame) for frame in frames[3:7]] == [
        MESSAGE.header,
        MESSAGE.parent_header,
        MESSAGE.metadata,
        MESSAGE.content,
    ]
    assert frames[7:] == [b"\0\1"]


def test_a_key_may_be_text() -> None:
    assert Wire("key").decode([bytes(f) for f in Wire(b"key").encode(MESSAGE)]) == MESSAGE


def test_buffers_arrive_as_views_without_a_copy() -> None:
    frames = [bytes(frame) for frame in Wire(KEY).encode(MESSAGE)]
    (buffer,) = Wire(KEY).decode(frames).buffers
    assert isinstance(buffer, memoryview)
    assert buffer.obj is frames[-1]


@pytest.mark.parametrize(
    "buffer",
    [b"ab", bytearray(b"ab"), memoryview(b"ab"), array.array("b", b"ab"), memoryview(b"a-b")[::2]],
)
def test_anything_with_the_buffer_protocol_goes_out(buffer: Any) -> None:
    frames = Wire(KEY).encode(attrs.evolve(MESSAGE, buffers=(buffer,)))
    assert bytes(frames[-1]) == b"ab"


def test_a_buffer_without_the_buffer_protocol_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="buffer protocol .* which str has not"):
        Wire(KEY).encode(attrs.evolve(MESSAGE, buffers=("text",)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, b"bytes", float("nan"), float("inf"), {("a", "b"): 1}],
    ids=lambda value: type(value).__name__,
)
def test_content_that_is_no_json_is_refused(value: Any) -> None:
    with pytest.raises(LocalProtocolError, match="the content is no JSON"):
        Wire(KEY).encode(attrs.evolve(MESSAGE, content={"value": value}))


@pytest.mark.parametrize(
    "scheme", ["hmac-nonsense", "sha256", "", "hmac-shake_128", "hmac-", None, 5]
)
def test_an_unknown_scheme_is_refused(scheme: Any) -> None:
    with pytest.raises(LocalProtocolError, match="unknown signature_scheme"):
        Wire(KEY, scheme)


# What arrives.


def signed(*parts: bytes, key: bytes = KEY, buffers: tuple[bytes, ...] = ()) -> list[bytes]:
    signature = hmac.new(key, b"".join(parts[:4]), hashlib.sha256).hexdigest().encode()
    return [b"topic", DELIMITER, signature, *parts, *buffers]


HEADER = b'{"msg_id": "1", "msg_type": "status"}'


@pytest.mark.parametrize("empty", [b"null", b"[]", b" [ ] ", b"{}"])
def test_what_stands_for_an_empty_map_is_one(empty: bytes) -> None:
    message = Wire(KEY).decode(signed(HEADER, empty, empty, empty))
    assert (message.parent_header, message.metadata, message.content) == ({}, {}, {})
    # The standard library reads the header, and so all of them.
    header = HEADER.replace(b"}", b', "n": NaN}')
    assert Wire(KEY).decode(signed(header, empty, empty, empty)).content == {}


@pytest.mark.parametrize("at", range(4), ids=["header", "parent_header", "metadata", "content"])
def test_bytes_that_are_no_utf_8_are_replaced_and_counted(at: int) -> None:
    parts = [HEADER, b"{}", b"{}", b"{}"]
    parts[at] = HEADER.replace(b"}", b', "text": "caf\xe9", "\xff": 1}')
    wire = Wire(KEY)
    frames = signed(*parts, buffers=(b"\xff",))
    message = wire.decode(frames)
    part = attrs.astuple(message, recurse=False)[at]
    expected = {"msg_id": "1", "msg_type": "status", "text": "caf\ufffd", "\ufffd": 1}
    assert part == expected
    assert message.buffers == (b"\xff",)
    assert wire.repaired == 1
    with pytest.raises(ReplayedMessage):
        wire.decode(frames)
    wire.decode(signed(*parts[:3], b'{"n": NaN, "text": "\xe9"}'))
    assert wire.repaired == 2
    wire.decode(signed(*[HEADER, b"{}", b"{}", b'{"n": NaN}']))
    assert wire.repaired == 2


@given(st.binary())
def test_replaced_is_what_is_no_utf_8_and_nothing_else(data: bytes) -> None:
    # What a JSON string may not hold as it is has another meaning, or none.
    data = bytes(byte for byte in data if byte >= 0x20 and byte not in b'"\\')
    wire = Wire()
    frames = [DELIMITER, b"", HEADER, b"{}", b"{}", b'{"text": "%s"}' % data]
    content = wire.decode(frames).content
    text = data.decode(errors="replace")
    assert content == {"text": text}
    assert wire.repaired == (text.encode() != data)


def test_the_signature_is_that_of_the_bytes_as_they_came() -> None:
    wire = Wire(KEY)
    came = b'{"text": "\xff"}'
    frames = signed(HEADER, b"{}", b"{}", came.decode(errors="replace").encode())
    frames[-1] = came
    with pytest.raises(InvalidSignature):
        wire.decode(frames)
    assert wire.repaired == 0


def test_so_is_the_size() -> None:
    frames = signed(HEADER, b"{}", b"{}", b'{"text": "%s"}' % (b"\xff" * 100))
    size = sum(map(len, frames))
    assert Wire(KEY, max_size=size).decode(frames).content == {"text": "\ufffd" * 100}
    with pytest.raises(MessageTooLarge):
        Wire(KEY, max_size=size - 1).decode(frames)


def test_frames_without_content_count_as_well() -> None:
    """ZeroMQ takes 64 bytes for each."""
    wire = Wire(KEY)
    frames = [bytes(each) for each in wire.encode(attrs.evolve(MESSAGE, buffers=[b""] * 300_000))]
    with pytest.raises(MessageTooLarge, match="in 300006 frames"):
        Wire(KEY, max_size=10_000).decode(frames)
    assert len(Wire(KEY, max_size=10_000).decode(frames[:100]).buffers) == 94
    assert len(Wire(KEY).decode(frames).buffers) == 300_000


@pytest.mark.parametrize(
    "parts",
    [
        (b'{"msg_type": "x"}', b"{}", b"{}", b'{"a": "\xff"}'),
        (HEADER, b"{}", b"{}", b'["\xff"]'),
        (HEADER, b"{}", b"{}", b"\xff"),
        (HEADER, b"{}", b"{}", b'{"a": \xff}'),
        (HEADER, b"{}", b'"\xff"', b"{}"),
        (HEADER, b"\xff" * 10, b"{}", b"{"),
        (HEADER, b'{"a": "\xff"}', b"{}", b"[" * 100_000),
    ],
)
def test_what_is_no_message_is_not_counted_as_a_repaired_one(parts: tuple[bytes, ...]) -> None:
    wire = Wire(KEY)
    with pytest.raises(MalformedMessage):
        wire.decode(signed(*parts))
    assert wire.repaired == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"18446744073709551616", 2**64),
        (b"1" * 40, int("1" * 40)),
        (b"-9223372036854775809", -(2**63) - 1),
        (b"Infinity", float("inf")),
        (b"1e400", float("inf")),
        (b'"\\ud83d"', "\ud83d"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
    ],
)
def test_values_come_out_exact(text: bytes, value: Any) -> None:
    message = Wire(KEY).decode(signed(HEADER, b"{}", b"{}", b'{"value": %s}' % text))
    assert message.content == {"value": value}


def test_nan_is_read() -> None:
    value = Wire(KEY).decode(signed(HEADER, b"{}", b"{}", b'{"value": NaN}')).content["value"]
    assert value != value


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b""],
        [b"topic"],
        [DELIMITER],
        [b"topic", DELIMITER, b"signature", HEADER, b"{}", b"{}"],
        signed(b"{}", b"{}", b"{}", b"{}"),
        signed(b'{"msg_id": "1"}', b"{}", b"{}", b"{}"),
        signed(b'{"msg_type": "x"}', b"{}", b"{}", b"{}"),
        signed(b'{"msg_id": 1, "msg_type": "x"}', b"{}", b"{}", b"{}"),
        signed(b'{"msg_id": "1", "msg_type": []}', b"{}", b"{}", b"{}"),
        signed(b"[]", b"{}", b"{}", b"{}"),
        signed(b"null", b"{}", b"{}", b"{}"),
        *(
            signed(*parts)
            for value in (b"[1]", b"[[]]", b"[null]", b"1", b"0", b"false", b'""', b'"text"')
            for parts in (
                (HEADER, value, b"{}", b"{}"),
                (HEADER, b"{}", value, b"{}"),
                (HEADER, b"{}", b"{}", value),
            )
        ),
        signed(HEADER, b"{}", b"{}", b""),
        signed(HEADER, b"{}", b"{}", b"{"),
        signed(HEADER, b"{}", b"{}", b"[" * 100_000),
        signed(HEADER, b"{}", b"{}", b'{"a": %s}' % (b"9" * 5000)),
    ],
)
def test_what_is_no_message_is_malformed(frames: list[bytes]) -> None:
    with pytest.raises(MalformedMessage):
        Wire(KEY).decode(frames)


@pytest.mark.parametrize("signature", [b"", b"0" * 64, b"\xff", b"0" * 10_000])
def test_a_wrong_signature_is_told(signature: bytes) -> None:
    frames = signed(HEADER, b"{}", b"{}", b"{}")
    frames[2] = signature
    with pytest.raises(InvalidSignature):
        Wire(KEY).decode(frames)


def test_what_is_decoded_is_a_message_like_any_other() -> None:
    decoded = Wire(KEY).decode(signed(HEADER, b"{}", b"{}", b'{"a": 1}'))
    made = Message(json.loads(HEADER), {}, {}, {"a": 1})
    assert (type(decoded), decoded, hash(decoded)) == (Message, made, hash(made))
    assert pickle.loads(pickle.dumps(decoded)) == copy.copy(decoded) == decoded
    assert attrs.evolve(decoded, content={}).content == {}
    assert weakref.ref(decoded)() is decoded
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        decoded.content = {}  # type: ignore[misc]


def test_buffers_are_outside_the_signature() -> None:
    message = Wire(KEY).decode(signed(HEADER, b"{}", b"{}", b"{}", buffers=(b"x",)))
    assert message.buffers == (b"x",)


def test_a_replay_is_told() -> None:
    wire = Wire(KEY)
    frames = signed(HEADER, b"{}", b"{}", b"{}")
    wire.decode(frames)
    with pytest.raises(ReplayedMessage):
        wire.decode(frames)


def test_a_forged_copy_does_not_make_the_genuine_message_a_replay() -> None:
    wire = Wire(KEY)
    frames = signed(HEADER, b"{}", b"{}", b"{}")
    forged = [*frames[:-1], b'{"forged": true}']
    with pytest.raises(InvalidSignature):
        wire.decode(forged)
    assert wire.decode(frames).content == {}


def test_what_has_the_same_parent_holds_it_once() -> None:
    wire, parents = Wire(b""), [b'{"msg_id": "1"}', b'{"msg_id": "1"}', b'{"msg_id": "2"}', b"{}"]
    first, second, third, none = [
        wire.decode([DELIMITER, b"", HEADER, parent, b"{}", b"{}"]).parent_header
        for parent in parents
    ]
    assert first is second
    assert (first, third, none) == ({"msg_id": "1"}, {"msg_id": "2"}, {})


@pytest.mark.parametrize("parent", [b"", b"{", b"7", b'{"msg_id": "1"} {}'])
def test_a_parent_that_is_none_is_refused_each_time(parent: bytes) -> None:
    wire = Wire(b"")
    for _ in range(2):
        with pytest.raises(MalformedMessage):
            wire.decode([DELIMITER, b"", HEADER, parent, b"{}", b"{}"])
    assert wire.decode([DELIMITER, b"", HEADER, b"null", b"{}", b"{}"]).parent_header == {}


def test_without_a_key_what_is_unsigned_may_come_again() -> None:
    wire = Wire(b"")
    frames = [DELIMITER, b"", HEADER, b"{}", b"{}", b"{}"]
    assert wire.decode(frames) == wire.decode(frames)


def test_without_a_key_a_signature_is_that_of_the_empty_key() -> None:
    # IRkernel signs with it.
    parts = [HEADER, b"{}", b"{}", b"{}"]
    by_empty = hmac.new(b"", b"".join(parts), hashlib.sha256).hexdigest().encode()
    assert Wire(b"").decode([DELIMITER, by_empty, *parts]).content == {}
    with pytest.raises(InvalidSignature, match="the key is empty"):
        Wire(b"").decode(signed(*parts))


def test_the_replay_guard_remembers_a_window_and_no_more_than_two() -> None:
    guard = _ReplayGuard(10)
    digests = [bytes([n]) for n in range(100)]
    for n, digest in enumerate(digests):
        assert guard.add(digest)
        assert not any(guard.add(known) for known in digests[max(0, n - 9) : n + 1])
        assert len(guard._young) + len(guard._old) <= 20
    assert REPLAY_WINDOW == 8_192


@given(st.lists(st.binary(max_size=20) | st.just(DELIMITER) | st.just(HEADER), max_size=9))
def test_whatever_arrives_is_a_message_or_one_error(frames: list[bytes]) -> None:
    for key in (b"", KEY):
        try:
            assert isinstance(Wire(key).decode(frames), Message)
        except RemoteProtocolError:
            pass


def test_the_wire_needs_no_sockets_and_no_event_loop() -> None:
    code = (
        "import sys, types; "
        # The package itself without running its __init__, which imports everything.
        "import importlib.util as u; "
        "spec = u.find_spec('enchannel'); "
        "package = types.ModuleType('enchannel'); "
        "package.__path__ = spec.submodule_search_locations; "
        "sys.modules['enchannel'] = package; "
        "import enchannel._protocol.wire; "
        "print(sorted({'zmq', 'trio', 'asyncio', 'socket'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("prefix", "topic"),
    [([], b""), ([b"kernel.1.stream"], b"kernel.1.stream"), ([b"a", b"b"], b"a")],
)
@pytest.mark.parametrize("content", [b"{}", b'{"n": NaN}'])
def test_the_topic_is_what_stands_before_the_delimiter(
    prefix: list[bytes], topic: bytes, content: bytes
) -> None:
    frames = signed(HEADER, b"{}", b"{}", content)
    frames = frames[frames.index(DELIMITER) :]
    message = Wire(KEY).decode([*prefix, *frames])
    assert message.topic == topic
    assert pickle.loads(pickle.dumps(message)).topic == topic
