"""What a server's websocket carries: written right, and read with suspicion."""

from __future__ import annotations

import itertools
import json
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from enchannel import LocalProtocolError, MalformedMessage, Message
from enchannel._protocol.message import CHANNELS
from enchannel._protocol.server_url import ServerUrl
from enchannel._protocol.server_wire import V1, pack, unpack
from enchannel._protocol.wire import Wire

json_objects = st.dictionaries(
    st.text(), st.none() | st.booleans() | st.integers() | st.text(), max_size=4
)
headers = json_objects.map(lambda rest: {**rest, "msg_id": "1", "msg_type": "stream"})
messages = st.builds(
    Message,
    headers,
    json_objects,
    json_objects,
    json_objects,
    st.lists(st.binary(max_size=40), max_size=300).map(tuple),
)
protocols = st.sampled_from([V1, None])
channels = st.sampled_from(CHANNELS)


def written(
    message: Message, channel: Any = "shell", protocol: str | None = V1
) -> tuple[bytes, bool]:
    return pack(channel, Wire().encode(message), protocol)


def read(data: bytes, *, text: bool) -> tuple[str, Message]:
    channel, frames = unpack(data, text=text)
    return channel, Wire().decode(frames)


@given(messages, channels, protocols)
def test_what_is_written_is_read(message: Message, channel: Any, protocol: str | None) -> None:
    data, text = written(message, channel, protocol)
    assert read(data, text=text) == (channel, message)
    assert read(bytearray(data), text=text) == (channel, message)


def as_the_server_reads_v1(data: bytes) -> tuple[str, list[bytes]]:
    """By the specification alone, with nothing of ours."""
    (count,) = struct.unpack_from("<Q", data)
    offsets = struct.unpack_from(f"<{count}Q", data, 8)
    assert offsets[0] == 8 * (1 + count)
    assert offsets[-1] == len(data)
    parts = [data[start:end] for start, end in itertools.pairwise(offsets)]
    return parts[0].decode(), parts[1:]


def as_the_server_reads_the_default(
    data: bytes, *, text: bool
) -> tuple[dict[str, Any], list[bytes]]:
    if text:
        return json.loads(data), []
    (count,) = struct.unpack_from(">I", data)
    offsets = [*struct.unpack_from(f">{count}I", data, 4), len(data)]
    assert offsets[0] == 4 * (1 + count)
    assert offsets == sorted(offsets)
    parts = [data[start:end] for start, end in itertools.pairwise(offsets)]
    return json.loads(parts[0]), parts[1:]


@given(messages, channels)
def test_the_newer_protocol_is_as_specified(message: Message, channel: Any) -> None:
    data, text = written(message, channel)
    assert not text
    said, parts = as_the_server_reads_v1(data)
    assert said == channel
    assert [json.loads(part) for part in parts[:4]] == [
        message.header,
        message.parent_header,
        message.metadata,
        message.content,
    ]
    assert parts[4:] == [bytes(buffer) for buffer in message.buffers]


@given(messages, channels)
def test_the_default_protocol_is_as_specified(message: Message, channel: Any) -> None:
    data, text = written(message, channel, None)
    assert text is (not message.buffers)
    said, buffers = as_the_server_reads_the_default(data, text=text)
    assert said["channel"] == channel
    assert said["header"] == message.header
    assert said["content"] == message.content
    assert buffers == [bytes(buffer) for buffer in message.buffers]


def read_or_refuse(data: bytes, *, text: bool) -> None:
    try:
        channel, frames = unpack(data, text=text)
        assert channel in CHANNELS
        Wire().decode(frames)
    except MalformedMessage:
        pass


GOOD = Message({"msg_id": "1", "msg_type": "stream"}, {}, {}, {"a": 1}, (b"buffer", b""))
"""A message that is cut, and changed, in every way."""


@given(st.binary(max_size=200), st.booleans())
@example(b"", False)
@example(b"", True)
@example(b"\0" * 4, False)
@example(b"\0" * 8, False)
@example(struct.pack("<Q", 1 << 40), False)
@example(struct.pack("<9Q", 8, *[1 << 62] * 8), False)
@example(struct.pack(">I", (1 << 32) - 1), False)
@example(struct.pack(">2I", 1, 0), False)
def test_whatever_arrives_is_a_message_or_malformed(data: bytes, text: bool) -> None:
    read_or_refuse(data, text=text)


@given(st.data(), protocols)
def test_a_message_that_is_changed_is_one_or_malformed(data: st.DataObject, protocol: Any) -> None:
    good, text = written(GOOD, "iopub", protocol)
    at = data.draw(st.integers(0, len(good) - 1))
    some = data.draw(st.binary(max_size=9))
    changed = good[:at] + some + good[at + data.draw(st.integers(0, 9)) :]
    read_or_refuse(changed, text=text)


@pytest.mark.parametrize("count", [7, 8, 1 << 20, 1 << 40, (1 << 64) - 1])
def test_a_wrong_count_takes_no_memory(count: int) -> None:
    for data in (
        struct.pack("<Q", count) + b"\1" * 100,
        struct.pack(">I", count % (1 << 32)) + b"\1" * 100,
    ):
        tracemalloc.start()
        with pytest.raises(MalformedMessage):
            unpack(data, text=False)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 20_000


def test_a_count_whose_lowest_byte_is_zero_is_read() -> None:
    message = Message({"msg_id": "1", "msg_type": "x"}, {}, {}, {}, tuple([b"x"] * 250))
    data, text = written(message)
    assert data[:2] == b"\0\1"
    assert read(data, text=text) == ("shell", message)


@pytest.mark.parametrize("value", ["NaN", '"\\ud800"', "1e999", str(2**70)])
def test_json_that_kernels_send_and_that_is_none_is_read(value: str) -> None:
    text = (
        f'{{"channel":"iopub","header":{{"msg_id":"1","msg_type":"x"}},"content":{{"v":{value}}}}}'
    )
    channel, message = read(text.encode(), text=True)
    assert channel == "iopub"
    assert "v" in message.content


def test_text_that_is_no_utf_8_is_read_with_replacement() -> None:
    text = b'{"channel":"iopub","header":{"msg_id":"1","msg_type":"x"},"content":{"v":"\xff"}}'
    assert read(text, text=True)[1].content == {"v": "\N{REPLACEMENT CHARACTER}"}


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "1",
        "{",
        '{"channel":"iopub"}',
        '{"channel":"nowhere","header":{"msg_id":"1","msg_type":"x"}}',
        '{"channel":["iopub"],"header":{"msg_id":"1","msg_type":"x"}}',
        '{"channel":"iopub","header":NaN}',
        "[" * 100_000,
    ],
)
def test_text_that_is_no_message_is_malformed(text: str) -> None:
    with pytest.raises(MalformedMessage):
        read(text.encode(), text=True)


def test_buffers_are_views_that_nobody_can_change() -> None:
    data, text = written(GOOD)
    _, message = read(bytearray(data), text=text)
    assert message.buffers[0].readonly


# Where a server is.


@pytest.mark.parametrize(
    ("url", "base", "token"),
    [
        ("http://host", "http://host", None),
        ("http://host:80/", "http://host", None),
        ("https://HOST:443", "https://host", None),
        ("http://host:8888/lab?token=abc", "http://host:8888", "abc"),
        ("http://host:8888/?token=abc", "http://host:8888", "abc"),
        ("http://host:8888/tree/a/b.ipynb?token=a%20b#x", "http://host:8888", "a b"),
        ("http://hub:8000/user/ada/lab", "http://hub:8000/user/ada", None),
        ("http://hub:8000/user/a%40b/", "http://hub:8000/user/a%40b", None),
        ("http://host:8888/notebooks/a.ipynb", "http://host:8888", None),
        ("http://host:8888/user/ada/doc/tree/a", "http://host:8888/user/ada", None),
        ("http://host:8888/api/kernels", "http://host:8888", None),
        ("http://host:8888/api/jupyter", "http://host:8888/api/jupyter", None),
        ("http://[::1]:8888", "http://[::1]:8888", None),
        ("http://host?token=", "http://host", None),
    ],
)
def test_a_url_is_taken_apart(url: str, base: str, token: str | None) -> None:
    parsed = ServerUrl.parse(url)
    assert str(parsed) == base
    assert parsed.token == token
    assert "abc" not in repr(parsed)


@pytest.mark.parametrize(
    "url",
    ["", "host", "host:8888", "ws://host", "http://", "http://host:x", "http://host:99999",
     "http://u:p@host", "http://ho st", "http://host/a\nb", 5, None],
)  # fmt: skip
def test_what_is_no_url_of_a_server_is_refused(url: Any) -> None:
    with pytest.raises(LocalProtocolError, match="the URL of a server"):
        ServerUrl.parse(url)


def test_a_url_that_is_refused_is_not_shown_with_its_token() -> None:
    with pytest.raises(LocalProtocolError) as caught:
        ServerUrl.parse("http://host:x/?token=abc")
    assert "abc" not in str(caught.value)


def test_the_path_of_a_websocket_is_quoted() -> None:
    url = ServerUrl.parse("http://host/user/ada")
    assert url.channels_path("a/b", "s?") == (
        "/user/ada/api/kernels/a%2Fb/channels?session_id=s%3F"
    )
