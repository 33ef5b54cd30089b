from __future__ import annotations

import array
import copy
import pickle
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import pytest

from enchannel import LocalProtocolError, Message, messages
from enchannel._protocol.message import prepare

HEADER = {"msg_id": "1", "msg_type": "status", "session": "s", "username": "u", "extra": 1}


def test_the_short_cuts_read_the_headers() -> None:
    message = Message(HEADER, {"msg_id": "0", "msg_type": "execute_request"})
    assert (message.msg_id, message.msg_type, message.parent_id, message.session) == (
        "1",
        "status",
        "0",
        "s",
    )
    assert message.header["extra"] == 1


def test_a_child_is_told_by_its_parents_msg_id_alone() -> None:
    parent = Message({"msg_id": "p", "msg_type": "x", "date": "then"})
    child = Message(HEADER, {"msg_id": "p", "msg_type": "x", "date": "rewritten"})
    assert child.is_child_of(parent)
    assert child.is_child_of("p")
    assert not child.is_child_of(child)


@pytest.mark.parametrize("other", ["", Message({"msg_type": "x"})])
def test_a_message_without_parent_is_nobodys_child(other: Message | str) -> None:
    assert not Message(HEADER).is_child_of(other)


def test_a_message_cannot_be_changed() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Message(HEADER).content = {}  # type: ignore[misc]


def test_the_repr_shows_no_content() -> None:
    shown = repr(Message(HEADER, {"msg_id": "0"}, {}, {"code": "password"}))
    assert shown == "<Message status 1 child of 0>"
    assert repr(Message(HEADER)) == "<Message status 1>"


def test_messages_are_told_apart_by_their_hashes() -> None:
    assert len({hash(Message({"msg_id": str(number)})) for number in range(100)}) > 90


@pytest.mark.parametrize(
    ("text", "date"),
    [
        ("2026-06-06T17:21:30.123456Z", datetime(2026, 6, 6, 17, 21, 30, 123456, UTC)),
        ("2026-06-06T17:21:30.123456789+00:00", datetime(2026, 6, 6, 17, 21, 30, 123456, UTC)),
        ("2026-06-06T17:21+0000", datetime(2026, 6, 6, 17, 21, tzinfo=UTC)),
        ("2026-06-06T17:21:30", datetime(2026, 6, 6, 17, 21, 30, tzinfo=UTC)),
        (
            "2026-06-06T17:21:30.1+02:00[Europe/Rome]",
            datetime(2026, 6, 6, 17, 21, 30, 100000, timezone(timedelta(hours=2))),
        ),
        (
            "2026-06-06 17:21:30-05",
            datetime(2026, 6, 6, 17, 21, 30, 0, timezone(timedelta(hours=-5))),
        ),
        (
            "2026-06-06t17:21:30z",
            datetime(2026, 6, 6, 17, 21, 30, tzinfo=UTC),
        ),
        (
            "2026-06-06T17:21:30-05:30",
            datetime(2026, 6, 6, 17, 21, 30, 0, timezone(-timedelta(hours=5, minutes=30))),
        ),
        ("2026-02-31T00:00:00Z", None),
        ("2026-02-01T00:00:00+99:00", None),
        ("yesterday", None),
        ("", None),
        (None, None),
        (20260606, None),
    ],
)
def test_dates_are_read_leniently(text: Any, date: datetime | None) -> None:
    parsed = Message({"date": text}).date
    assert parsed == date
    assert parsed is None or parsed.utcoffset() == date.utcoffset()  # type: ignore[union-attr]


def test_to_dict_and_from_dict_are_inverse() -> None:
    message = Message(HEADER, {"msg_id": "0"}, {"m": 1}, {"c": 2}, (b"buffer",))
    data = message.to_dict()
    assert data["msg_type"] == "status"
    assert data["msg_id"] == "1"
    assert Message.from_dict(data) == message


def test_the_type_may_stand_beside_the_header() -> None:
    message = Message.from_dict({"msg_type": "x", "content": {}})
    assert message.header == {"msg_type": "x"}


# The seed's header filling.


def test_session_and_username_override_the_body() -> None:
    sent = prepare({"header": HEADER}, session="ours", username="us")
    assert (sent.header["session"], sent.header["username"]) == ("ours", "us")
    assert sent.header["extra"] == 1


def test_msg_id_date_and_version_are_kept() -> None:
    header = {**HEADER, "date": "1999", "version": "5.0"}
    sent = prepare({"header": header}, session="", username="")
    assert (sent.msg_id, sent.header["date"], sent.header["version"]) == ("1", "1999", "5.0")


def test_missing_parts_are_made() -> None:
    sent = prepare({"header": {"msg_type": "x"}}, session="", username="")
    other = prepare({"header": {"msg_type": "x"}}, session="", username="")
    assert sent.msg_id
    assert sent.msg_id != other.msg_id
    assert sent.header["version"] == "5.4"
    assert sent.date is not None
    assert abs(datetime.now(UTC) - sent.date) < timedelta(minutes=1)
    assert (sent.parent_header, sent.metadata, sent.content, sent.buffers) == ({}, {}, {}, ())


def test_the_body_is_not_changed() -> None:
    body = {"header": {"msg_type": "input_reply"}, "content": {"value": "x"}}
    sent = prepare(body, session="", username="")
    assert sent.content == {"value": "x", "status": "ok"}
    assert body == {"header": {"msg_type": "input_reply"}, "content": {"value": "x"}}


def test_a_message_is_a_body_too() -> None:
    message = Message(HEADER, {"msg_id": "0"}, {"m": 1}, {"c": 2}, (b"buffer",))
    sent = prepare(message, session="ours", username="us")
    assert sent.is_child_of("0")
    assert (sent.metadata, sent.content, sent.buffers) == ({"m": 1}, {"c": 2}, (b"buffer",))


def test_a_datetime_is_written_as_text() -> None:
    date = datetime(2026, 1, 2, tzinfo=UTC)
    sent = prepare({"header": {"msg_type": "x", "date": date}}, session="", username="")
    assert sent.header["date"] == "2026-01-02T00:00:00+00:00"


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({}, "needs a message type"),
        ({"header": {"msg_type": ""}}, "needs a message type"),
        ({"header": {"msg_type": 7}}, "needs a message type"),
        ({"header": {"msg_type": "x", "msg_id": 7}}, "msg_id of a header is a str, not int"),
        ({"header": {"msg_type": "x", "version": 5.3}}, "version of a header is a str, not float"),
        ({"header": {"msg_type": "x"}, "msg_type": "y"}, "says msg_type 'y', its header 'x'"),
        ({"header": {"msg_type": "x"}, "contents": {}}, "'contents' is no part of a message"),
        ({"header": {"msg_type": "x"}, "content": [1]}, "content of a body is a dict, not list"),
        ({"header": "x"}, "header of a body is a dict, not str"),
        ({"header": {"msg_type": "x"}, "buffers": b"x"}, "buffers is a list of buffers"),
        ({"header": {"msg_type": "x"}, "buffers": 5}, "buffers is a list of buffers, not int"),
        ({"header": {"msg_type": "x"}, "buffers": [5]}, "a buffer has the buffer protocol"),
        ("execute_request", "a body is a dict or a Message, not str"),
    ],
)
def test_a_wrong_body_is_refused_with_the_reason(body: Any, complaint: str) -> None:
    with pytest.raises(LocalProtocolError, match=complaint):
        prepare(body, session="", username="")


@pytest.mark.parametrize("buffers", [5, b"x", None])
def test_buffers_are_several(buffers: Any) -> None:
    with pytest.raises(LocalProtocolError, match="buffers is a list of buffers, not"):
        Message({}, buffers=buffers)
    with pytest.raises(LocalProtocolError, match="buffers is a list of buffers, not"):
        messages.comm_msg("c", buffers=buffers)


def test_buffers_are_views_and_outlive_a_pickle() -> None:
    several = [b"ab", bytearray(b"c"), array.array("d", [1.5]), memoryview(b"a-b")[::2]]
    made = Message({"msg_id": "1", "msg_type": "x"}, buffers=several)
    assert [type(each) for each in made.buffers] == [memoryview] * 4
    copied = pickle.loads(pickle.dumps(made))
    assert copied == copy.copy(made) == made
    assert [bytes(each) for each in copied.buffers] == [bytes(each) for each in several]
