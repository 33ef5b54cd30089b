"""Whatever arrives, each frame list either becomes a Message or is counted under exactly one reason, the
reader lives on, and every good message arrives once, in order.

The cases are those that brought a peer down, and what a hostile one would think of. Each goes over real
sockets, on every channel, signed and unsigned, between good messages.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
import zmq
from hypothesis import given, settings
from hypothesis import strategies as st

from enchannel import (
    KernelDied,
    LocalProtocolError,
    Message,
    RemoteProtocolError,
    open_kernel_channels,
    wrap_sockets,
)
from enchannel._protocol.wire import DELIMITER, Wire
from enchannel._transports import zmq_frames
from enchannel.testing import open_fake_kernel
from helpers import numbered, take, texts
from raw_kernel import KEY, RawKernel, message, request

pytestmark = pytest.mark.anyio

IDENTITY = b"the client"
HEADER = b'{"msg_id": "%d", "msg_type": "odd"}'
MALFORMED, INVALID = "MalformedMessage", "InvalidSignature"
FINE = ""
"""The case is a message: odd, and delivered."""

Case = tuple[str, list[bytes], str]


class Cases:
    """The frames of each case, and what becomes of it; fresh ones each time, for a copy is a replay."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()
        self._count = 0

    def signed(self, *parts: bytes) -> list[bytes]:
        joined = b"".join(parts[:4])
        signature = hmac.new(self._key, joined, hashlib.sha256).hexdigest() if self._key else ""
        return [DELIMITER, signature.encode(), *parts]

    def parts(self) -> list[bytes]:
        self._count += 1
        return [HEADER % self._count, b"{}", b"{}", b"{}"]

    def with_part(self, at: int, part: bytes) -> list[bytes]:
        parts = self.parts()
        parts[at] = part
        return self.signed(*parts)

    def content(self, value: bytes) -> list[bytes]:
        return self.with_part(3, b'{"value": %s}' % value)

    def forged(self, signature: bytes) -> list[bytes]:
        frames = self.signed(*self.parts())
        frames[1] = signature
        return frames

    def all(self) -> Iterator[Case]:
        yield from self.signatures()
        yield from self.frame_lists()
        yield from self.documents()
        yield from self.headers()

    def signatures(self) -> Iterator[Case]:
        # Without a key only a signature where none belongs tells that something is wrong.
        bad = INVALID if self._key else FINE
        yield "wrong signature", self.forged(b"0" * 64), INVALID
        yield "empty signature", self.forged(b""), bad
        yield "signature that is no text", self.forged(b"\xff" * 64), INVALID
        yield "signature of 100,000 bytes", self.forged(b"0" * 100_000), INVALID
        good = self.signed(*self.parts())
        # The forgery comes first, with the signature of what follows.
        yield "forged copy", [*good[:-1], b'{"forged": true}'], bad
        yield "its original", good, FINE
        yield "replayed", good, "ReplayedMessage" if self._key else FINE
        frames = self.signed(*self.parts())
        yield "missing signature", [DELIMITER, *frames[2:]], MALFORMED

    def frame_lists(self) -> Iterator[Case]:
        frames = self.signed(*self.parts())
        yield "no delimiter", frames[1:], MALFORMED
        yield "delimiter last", [*frames[1:], DELIMITER], MALFORMED
        yield "delimiter alone", [DELIMITER], MALFORMED
        for length in range(2, 6):
            yield f"{length} frames", self.signed(*self.parts())[:length], MALFORMED
        yield "one empty frame", [b""], MALFORMED
        yield "two empty frames", [b"", b""], MALFORMED
        yield "10,000 frames of nothing", [b""] * 10_000, MALFORMED
        yield "10,000 delimiters", [DELIMITER] * 10_000, INVALID
        yield "10,000 buffers", [*self.signed(*self.parts()), *[b"x"] * 10_000], FINE
        yield "several identities", [b"a", b"b", b"c", *self.signed(*self.parts())], FINE
        yield "a delimiter for a buffer", [*self.signed(*self.parts()), DELIMITER], FINE

    def documents(self) -> Iterator[Case]:
        for at, name in enumerate(("header", "parent", "metadata", "content")):
            for part in (b"", b"{", b"no json", b"[1]", b'"text"', b"1", b"\xff", b'{"a": 1} {}'):
                yield f"{name} {part!r}", self.with_part(at, part), MALFORMED
            for part in (b"null", b"[]"):
                yield f"{name} {part!r}", self.with_part(at, part), FINE if at else MALFORMED
            yield f"{name} of 100,000 brackets", self.with_part(at, b"[" * 100_000), MALFORMED
        yield "100,000 nested objects", self.content(b'{"a":' * 100_000), MALFORMED
        yield "invalid UTF-8 in a string", self.content(b'"\xc3\x28"'), FINE
        yield "invalid UTF-8 outside", self.content(b"\xc3\x28"), MALFORMED
        yield "integer of 5,000 digits", self.content(b"9" * 5_000), MALFORMED
        for value in (
            *(b'"\\ud83d"', b"NaN", b"Infinity", b"-Infinity", b"1e400", b"18446744073709551616"),
            *(b"9" * 4_000, b'{"a": 1, "a": 2}', b'"\\u0000"', b'"' + b"x" * 1_000_000 + b'"'),
        ):
            yield f"value {value[:20]!r}", self.content(value), FINE

    def headers(self) -> Iterator[Case]:
        for field in (b"msg_id", b"msg_type"):
            other = b'"msg_type": "odd"' if field == b"msg_id" else b'"msg_id": "odd"'
            yield f"no {field!r}", self.with_part(0, b"{%s}" % other), MALFORMED
            for value in (b"null", b"1", b"true", b"[]", b"{}"):
                header = b'{%s, "%s": %s}' % (other, field, value)
                yield f"{field!r} {value!r}", self.with_part(0, header), MALFORMED
        for field in (b"session", b"username", b"date", b"version", b"subshell_id"):
            for value in (b"null", b"1e9", b"[[]]", b'{"a": {}}', b"true"):
                header = b'%s, "%s": %s}' % (self.parts()[0][:-1], field, value)
                yield f"{field!r} {value!r}", self.with_part(0, header), FINE
        for parent in (b"null", b'{"msg_id": []}', b'{"msg_id": "x", "session": "other"}'):
            yield f"parent {parent!r}", self.with_part(1, parent), FINE


@pytest.mark.parametrize("key", [KEY, ""], ids=["signed", "unsigned"])
@pytest.mark.parametrize("channel", ["shell", "control", "stdin", "iopub"])
async def test_each_case_between_good_messages(channel: Any, key: str) -> None:
    with RawKernel(key=key) as kernel:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kernel.greet)
            async with kernel.open(IDENTITY) as ch, ch.subscribe(channel) as stream:
                if channel != "iopub":
                    # The kernel's socket learns who the client is from what it sends.
                    await ch.main.send(channel, {"header": {"msg_type": "hello"}})
                    while (await kernel.receive(channel))[1].msg_type != "hello":
                        pass
                prefix = b"topic" if channel == "iopub" else IDENTITY
                send = kernel.sockets[channel].send_multipart
                expected: Counter[str] = Counter()
                for number, (name, frames, reason) in enumerate(Cases(key).all()):
                    # A topic is the first frame that arrives; an identity stays with the socket.
                    send([prefix, *frames] if channel != "iopub" else frames)
                    (good,) = numbered(1, start=number)
                    send(kernel.wire.encode(good, [prefix]))
                    expected[reason] += 1
                    received = await until(stream, good.msg_id)
                    assert len(received) == (2 if reason == FINE else 1), name
                    assert ch.statistics().dropped.get(reason, 0) == expected[reason] * bool(
                        reason
                    ), name
                fine = expected.pop(FINE)
                assert ch.statistics().dropped == expected
                assert ch.statistics().received[channel] >= fine + sum(expected.values())
                assert repr(ch).endswith("open>")
            tasks.cancel_scope.cancel()


async def until(stream: Any, msg_id: str) -> list[Message]:
    """What arrives until the message of that id."""
    received: list[Message] = []
    with anyio.fail_after(30):
        while not received or received[-1].msg_id != msg_id:
            received.append((await stream.receive())[1])
    return received


json_texts = st.recursive(
    st.sampled_from([b"null", b"1", b"1e400", b"NaN", b'"\\ud83d"', b'"x"', b"\xff", b"", b"tru"]),
    lambda parts: (
        st.lists(parts, max_size=3).map(lambda each: b"[%s]" % b",".join(each))
        | st.lists(parts, max_size=3).map(
            lambda each: b"{%s}" % b",".join(b'"msg_id": %s' % part for part in each)
        )
    ),
    max_leaves=6,
)
documents = json_texts | st.just(HEADER % 1) | st.just(b"{}") | st.binary(max_size=20)


@settings(max_examples=500)
@given(st.lists(documents, min_size=4, max_size=6), st.booleans(), st.lists(st.binary(max_size=9)))
def test_any_document_is_a_message_or_one_error(
    parts: list[bytes], signed: bool, prefix: list[bytes]
) -> None:
    cases = Cases(KEY if signed else "")
    frames = [*(frame for frame in prefix if frame != DELIMITER), *cases.signed(*parts)]
    wire = Wire(KEY if signed else "")
    try:
        assert isinstance(wire.decode(frames), Message)
    except RemoteProtocolError:
        pass


# What a message may say, where it is one.


def deepest() -> int:
    """How deeply nested a list may be that is read at all."""
    wire, cases = Wire(), Cases("")
    low, high = 1, 100_000
    while high - low > 1:
        middle = (low + high) // 2
        try:
            wire.decode(cases.content(b"[" * middle + b"]" * middle))
            low = middle
        except RemoteProtocolError:
            high = middle
    return low


FIELDS = (
    *("execution_state", "name", "text", "data", "metadata", "transient", "wait", "ename"),
    *("evalue", "traceback", "execution_count", "comm_id", "target_name", "status", "prompt"),
)
TYPES = (
    *("status", "stream", "display_data", "update_display_data", "execute_result", "error"),
    *("clear_output", "execute_input", "comm_open", "comm_msg", "comm_close", "debug_event"),
    *("iopub_welcome", "shutdown_reply", "unheard_of"),
)


async def test_whatever_a_message_says_the_readers_live_on() -> None:
    depth = deepest()
    nested = [b"[" * n + b"]" * n for n in (depth // 2, *range(max(1, depth - 60), depth, 4))]
    values = [b"null", b"7", b"true", b'"x"', b"[]", b"{}", b'[{"a": []}]', b'{"display_id": []}']
    async with open_fake_kernel(transport="tcp", key=KEY) as kernel:
        kernel.script("1", lambda request: None)
        async with (
            kernel.open_channels() as ch,
            ch.accept_comms("target"),
            ch.open_comm("other"),
            ch.execute("1") as execution,
        ):
            parent = b'{"msg_id": "%s"}' % execution.request.msg_id.encode()
            cases = Cases(KEY)
            sent = 0
            for kind in TYPES:
                for value in (*values, *(nested if kind in ("status", "stream", "error") else [])):
                    parts = cases.parts()
                    parts[0] = parts[0].replace(b"odd", kind.encode())
                    fields = b", ".join(b'"%s": %s' % (f.encode(), value) for f in FIELDS)
                    for content in (b"{%s}" % fields, b"{}"):
                        for parents in (parent, b'{"msg_id": %s, "session": %s}' % (value, value)):
                            parts[1], parts[3] = parents, content
                            parts[2] = b'{"n": %d}' % sent
                            kernel._end.give("iopub", [b"topic", *cases.signed(*parts)])
                            sent += 1
            kernel.publish("stream", {"name": "stdout", "text": "good"})
            with anyio.fail_after(60):
                while True:
                    msg = await ch.iopub.receive()
                    if msg.content.get("text") == "good":
                        break
            assert repr(ch).endswith("open>")
            assert ch.statistics().dropped == {}
            kernel.publish("stream", {"name": "stdout", "text": "last"}, parent=execution.request)
            with anyio.fail_after(10):
                while not execution.outputs or execution.outputs[-1].get("text") != "last":
                    await anyio.sleep(0.001)
            assert (await ch.request("kernel_info_request")).content["status"] == "ok"


# Size.


@pytest.mark.parametrize("size", [0, -1, "1", True, float("nan")])
def test_a_size_that_is_none_is_refused(size: Any, raw_kernel_config: dict[str, Any]) -> None:
    with pytest.raises(LocalProtocolError, match="max_message_size is a number of bytes"):
        open_kernel_channels(None, raw_kernel_config, max_message_size=size)
    with pytest.raises(LocalProtocolError, match="max_message_size is a number of bytes"):
        wrap_sockets({}, max_message_size=size)


@pytest.fixture
def raw_kernel_config() -> Iterator[dict[str, Any]]:
    with RawKernel() as kernel:
        yield kernel.config


def sized(count: int, number: int) -> Message:
    (each,) = numbered(1, start=number)
    return Message(each.header, {}, {}, each.content, (bytes(count),))


@pytest.mark.parametrize("key", [KEY, ""], ids=["signed", "unsigned"])
async def test_a_message_that_is_too_large_costs_no_other(key: str) -> None:
    with RawKernel(key=key) as kernel:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kernel.greet)
            async with kernel.open(max_message_size=1 << 20) as ch, ch.subscribe("iopub") as stream:
                for number in range(60):
                    kernel.publish(sized(1 << 20 if number % 3 == 1 else 1000, number))
                received = [msg for _, msg in await take(stream, 40)]
                assert texts(received) == [n for n in range(60) if n % 3 != 1]
                assert ch.statistics().dropped == {"MessageTooLarge": 20}
            tasks.cancel_scope.cancel()


async def test_a_buffer_of_one_gibibyte(raw_kernel: RawKernel) -> None:
    async with raw_kernel.open(max_message_size=1 << 20) as ch:
        (first, last) = numbered(2)
        raw_kernel.publish(first)
        frames = raw_kernel.wire.encode(message("stream", text="huge"), [b"topic"])
        raw_kernel.sockets["iopub"].send_multipart([*frames, bytes(1 << 30)], copy=False)
        raw_kernel.publish(last)
        with anyio.fail_after(60):
            assert texts(await take(ch.iopub, 2)) == [0, 1]
        assert ch.statistics().dropped == {"MessageTooLarge": 1}


async def test_bounded_streams_bound_the_queues_below_them(raw_kernel: RawKernel) -> None:
    async with (
        raw_kernel.open(reconnect_timeout=0.2) as free,
        raw_kernel.open(max_buffer_size=10, reconnect_timeout=0.2) as bounded,
        free.subscribe("iopub") as everything,
        bounded.subscribe("iopub") as held_up,
    ):
        for number in range(1000):
            raw_kernel.publish(message("stream", text=str(number), more="x" * 100_000))
        # By then 100 MB would be in the other's queues as well, if they were not bounded.
        with anyio.fail_after(60):
            assert len(await take(everything, 1000)) == 1000
        assert held_up.buffered == 10
        # What the connection held arrives all the same, and nothing is missing before its end.
        raw_kernel.vanish()
        received: list[Message] = []
        with anyio.fail_after(60), pytest.raises(KernelDied):
            while True:
                received.append((await held_up.receive())[1])
        assert texts(received) == list(range(len(received)))
        assert 10 < len(received) < 500


async def test_a_context_with_a_bound_costs_the_connection_for_a_moment(
    raw_kernel: RawKernel,
) -> None:
    """ZeroMQ gives it up for good, and we connect anew."""

    async def prove_iopub() -> None:
        while True:
            _, *frames = await raw_kernel.receive_frames("control")
            asked = raw_kernel.wire.decode(frames)
            raw_kernel.publish(message("status", asked, execution_state="busy"))

    with zmq.Context() as context:
        context.setsockopt(zmq.MAXMSGSIZE, 1 << 20)
        async with (
            raw_kernel.open(context=context, reconnect_timeout=30) as ch,
            ch.subscribe("iopub") as stream,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(prove_iopub)
            raw_kernel.publish(*numbered(1))
            raw_kernel.publish(sized(1 << 21, 1))
            assert texts([msg for _, msg in await take(stream, 1)]) == [0]
            with anyio.fail_after(30):
                while not ch.statistics().outages:
                    await anyio.sleep(0.01)
            raw_kernel.publish(*numbered(1, start=2))
            assert texts([msg for _, msg in await take(stream, 1)]) == [2]
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("bound", "size", "count"),
    [
        ({"max_buffer_bytes": 1_000_000}, 100_000, 500),
        ({"max_buffer_size": 10}, 100_000, 500),
        ({"max_buffer_size": 1}, 100_000, 500),
        ({}, 4_000_000, 50),
    ],
    ids=str,
)
async def test_sending_to_a_kernel_that_reads_nothing_is_bounded(
    raw_kernel: RawKernel, bound: Any, size: int, count: int
) -> None:
    endpoint = raw_kernel.info.endpoint("shell")
    raw_kernel.unbind("shell")
    # It takes one, and the network holds some megabytes more.
    raw_kernel.rebind("shell", endpoint, most_waiting=1)
    async with raw_kernel.open(**bound) as ch:
        sent: list[str] = []

        async def send() -> None:
            for number in range(count):
                message = await ch.shell.send({**request(number=number), "buffers": [bytes(size)]})
                sent.append(message.msg_id)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            before = -1
            while len(sent) > before:
                before = len(sent)
                await anyio.sleep(0.5)
            # The network holds some 10 MB.
            assert len(sent) < count / 2
            # Who waits may be cancelled, and it goes on when the kernel reads.
            with anyio.move_on_after(0.01) as scope:
                await ch.shell.send(request("cancelled"))
            assert scope.cancelled_caught
            received = [(await raw_kernel.receive("shell"))[1] for _ in range(count)]
        assert [each.msg_id for each in received] == sent


async def test_without_pyzmqs_private_names_all_works(
    raw_kernel: RawKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("zmq.backend.Socket", raising=True)
    monkeypatch.setattr("enchannel._transports.zmq_frames._send_frame", zmq_frames.find_send())
    async with raw_kernel.open() as ch:
        await ch.shell.send({**request(), "buffers": [b"x", bytes(1 << 21)]})
        _, received = await raw_kernel.receive("shell")
        assert [len(each) for each in received.buffers] == [1, 1 << 21]
