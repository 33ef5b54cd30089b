"""What stands beside a good message on the wire cannot lose, corrupt or reorder it.

Each example sends well-formed messages between everything that is none, and what arrives is compared with
what :meth:`Wire.decode` says of each message alone, as if every frame had been asked whether it is the
last one. Signed channels are read by the shape of a message, unsigned ones frame by frame.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
import zmq
from hypothesis import example, given, settings
from hypothesis import strategies as st

from enchannel import MalformedMessage, Message, RemoteProtocolError, wrap_sockets
from enchannel._protocol.connection_info import ChannelName
from enchannel._protocol.wire import DELIMITER, Wire
from enchannel._transports.zmq import ZmqTransport
from enchannel._transports.zmq_carrier import BATCH
from enchannel._transports.zmq_frames import COPIED, TOPICS
from raw_kernel import KEY, message

FRAMES = [b"", b"{}", b"null", b"[]", DELIMITER, b"topic", b"f" * 64, b"\xff" * COPIED]
odd_frames = st.lists(st.sampled_from(FRAMES), min_size=1, max_size=9)
prefixes = st.sampled_from(
    [
        [],
        [],
        [b"topic"],
        [b"topic"],
        [b""],
        [b"{}"],
        [b"a", b"b"],
        [DELIMITER],
        [b"topic", DELIMITER],
    ]
)
buffers = st.lists(st.sampled_from([b"", b"data", DELIMITER, b"z" * COPIED]), max_size=2)

# How a whole message is spoilt, and by how much; what is none of these stays a good message.
kinds = st.sampled_from(["good", "good", "cut", "cut", "forged", "replayed", "headless"])
arrivals = st.lists(
    st.tuples(kinds, prefixes, buffers, st.integers(1, 8)) | odd_frames, min_size=1, max_size=12
)


def frames_of(arrival: Any, wire: Wire, earlier: list[list[Any]]) -> list[Any]:
    if isinstance(arrival, list):
        return arrival
    kind, prefix, extra, cut = arrival
    if kind == "replayed" and earlier:
        return earlier[cut % len(earlier)]
    header = {"msg_id": str(next(numbers)), "msg_type": "stream"}
    if kind == "headless":
        del header["msg_id"]
    frames = wire.encode(Message(header, {}, {}, {"text": "x" * cut}, extra), prefix)
    signature = len(prefix) + 1
    if kind == "forged":
        frames[signature] = b"0" * 64
    # Before the content, the last frame that is not asked: what is left is a message in no way.
    return frames[: min(cut, signature + 4)] if kind == "cut" else frames


def never_alone(frames: list[Any], topics: set[bytes]) -> list[Any]:
    # A topic alone, and behind it a message without one, make up a message: see Reader.read_by_shape().
    return [*frames, b"{}"] if len(frames) == 1 and bytes(frames[0]) in topics else frames


numbers = itertools.count()


def judged(wire: Wire, sent: list[list[Any]]) -> Iterator[Message | RemoteProtocolError]:
    for frames in sent:
        try:
            yield wire.decode(frames)
        except RemoteProtocolError as error:
            # The signature says where it begins.
            saved = wire.decode_last(frames) if wire.signed else None
            yield error if saved is None else MalformedMessage()
            if saved is not None:
                yield saved


def parts(messages: list[Message]) -> list[Any]:
    return [
        (m.header, m.parent_header, m.metadata, m.content, [bytes(b) for b in m.buffers])
        for m in messages
    ]


@contextlib.contextmanager
def connection(key: str, channel: ChannelName) -> Iterator[tuple[zmq.Socket[bytes], ZmqTransport]]:
    """The kernel's socket, and the client's transport."""
    context = zmq.Context.instance()
    with context.socket(zmq.PAIR) as kernel, context.socket(zmq.PAIR) as client:
        # A fresh name each time: ZeroMQ frees one some time after its socket is closed.
        kernel.bind(f"inproc://{next(numbers)}")
        client.connect(kernel.last_endpoint)
        transport = wrap_sockets({channel: client}, key=key)
        transport.begin()
        yield kernel, transport


def drained(transport: ZmqTransport, channel: ChannelName) -> list[Message]:
    received: list[Message] = []
    with contextlib.suppress(anyio.WouldBlock):
        while True:
            received += transport.receive_nowait(channel)
    return received


@pytest.mark.parametrize("key", [KEY, ""])
@settings(deadline=None, max_examples=200)
@given(arrivals, arrivals)
@example([[b"topic", DELIMITER], ("good", [b"topic"], [], 1)], [])
@example([[DELIMITER, DELIMITER], ("good", [], [DELIMITER], 1)], [])
@example([("cut", [b"topic"], [], 6), ("good", [b"{}"], [b"data"], 1)], [])
@example([("cut", [], [], 1), ("forged", [], [], 1), ("good", [], [], 1)], [])
@example([("good", [b"topic", DELIMITER], [], 1), ("good", [b"topic"], [], 1)], [])
@example([("good", [b"topic"], [], 1), [b"", DELIMITER]], [("good", [DELIMITER], [], 1)])
@example([[b""], ("good", [], [], 1), [b""], ("good", [b"topic"], [], 1)], [])
@example([("good", [], [], 1)], [("good", [b""], [], 1), [b""], ("good", [], [], 1)])
@example([("cut", [b"topic"], [], 3)] * 3, [("good", [b"a", b"b"], [b"data"], 1)])
def test_good_messages_arrive_whatever_stands_beside_them(
    key: str, first: Any, second: Any
) -> None:
    signer, judge = Wire(key), Wire(key)
    with connection(key, "shell") as (kernel, transport):
        dropped: Counter[str] = Counter()
        spoilt = False
        drawn = [each[1] for each in (*first, *second) if isinstance(each, tuple)]
        topics = {prefix[0] for prefix in drawn if len(prefix) == 1}
        for arrived in first, second:
            sent: list[list[Any]] = []
            for arrival in arrived:
                sent.append(never_alone(frames_of(arrival, signer, sent), topics))
            for frames in sent:
                kernel.send_multipart(frames)
            verdicts = list(judged(judge, sent))
            assert parts(drained(transport, "shell")) == parts(
                [v for v in verdicts if isinstance(v, Message)]
            )
            refused = Counter(type(v).__name__ for v in verdicts if not isinstance(v, Message))
            counted = Counter(transport.dropped()) - dropped
            # Where a malformed message was read past its end for the first time, how many malformed
            # ones are behind it is not known; from then on each is counted for what it is.
            if spoilt or not key:
                assert counted == refused
            assert bool(counted) == bool(refused)
            spoilt = spoilt or bool(refused)
            dropped = Counter(transport.dropped())


@pytest.mark.parametrize("key", [KEY, ""])
@pytest.mark.parametrize(
    "bad", [[b""], [b"topic", DELIMITER], [b"x"] * 2_000, [b"t", DELIMITER, b""]]
)
def test_each_bad_message_among_good_ones_counts_once(key: str, bad: list[bytes]) -> None:
    wire, count = Wire(key), BATCH + 8
    with connection(key, "iopub") as (kernel, transport):
        for number in range(count):
            kernel.send_multipart(bad)
            kernel.send_multipart(wire.encode(message("stream", text=str(number)), [b"topic"]))
        assert [m.content["text"] for m in drained(transport, "iopub")] == [
            str(number) for number in range(count)
        ]
        assert transport.dropped() == {"MalformedMessage": count}


@pytest.mark.parametrize("bad", [[b"topic"], [b"topic", b"topic"], [b"topic", b""], [b"topic"] * 9])
def test_a_topic_that_is_known_is_no_message(bad: list[bytes]) -> None:
    wire = Wire(KEY)
    with connection(KEY, "iopub") as (kernel, transport):
        kernel.send_multipart(wire.encode(message("stream", text="first"), [b"topic"]))
        kernel.send_multipart(bad)
        kernel.send_multipart(wire.encode(message("stream", text="second"), [b"topic"]))
        assert [m.content["text"] for m in drained(transport, "iopub")] == ["first", "second"]
        assert transport.dropped() == {"MalformedMessage": 1}
        kernel.send_multipart([b"topic"])
        assert drained(transport, "iopub") == []
        assert transport.dropped() == {"MalformedMessage": 2}


def test_any_number_of_topics_is_read() -> None:
    wire, count = Wire(KEY), 3 * TOPICS
    with connection(KEY, "iopub") as (kernel, transport):
        for number in (*range(count), *range(count)):
            topic = b"topic %d" % number
            kernel.send_multipart(wire.encode(message("stream", text=str(number)), [topic]))
        assert len(drained(transport, "iopub")) == 2 * count
        assert transport.dropped() == {}
