"""A creator for every message that a client may send, each on its channel."""

from __future__ import annotations

import contextlib
import typing
from typing import Any

import pytest

from enchannel import (
    LocalProtocolError,
    Message,
    ReplyError,
    messages,
    open_channels,
    raise_for_status,
)
from enchannel.testing import memory_transport_pair
from raw_kernel import message

CREATED: list[tuple[Message, str, str, dict[str, Any]]] = [
    (
        messages.execute_request("1"),
        "shell",
        "execute_request",
        {
            "code": "1",
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": True,
        },
    ),
    (
        messages.inspect_request("é𝒳x"),
        "shell",
        "inspect_request",
        {"code": "é𝒳x", "cursor_pos": 3, "detail_level": 0},
    ),
    (
        messages.complete_request("pri", 2),
        "shell",
        "complete_request",
        {"code": "pri", "cursor_pos": 2},
    ),
    (
        messages.history_range_request(0, 1, 5),
        "shell",
        "history_request",
        {
            "hist_access_type": "range",
            "session": 0,
            "start": 1,
            "stop": 5,
            "output": False,
            "raw": True,
        },
    ),
    (
        messages.history_tail_request(3, output=True),
        "shell",
        "history_request",
        {"hist_access_type": "tail", "n": 3, "output": True, "raw": True},
    ),
    (
        messages.history_search_request("a*", 3, unique=True),
        "shell",
        "history_request",
        {
            "hist_access_type": "search",
            "pattern": "a*",
            "n": 3,
            "unique": True,
            "output": False,
            "raw": True,
        },
    ),
    (messages.is_complete_request("if"), "shell", "is_complete_request", {"code": "if"}),
    (messages.connect_request(), "shell", "connect_request", {}),
    (messages.comm_info_request(), "shell", "comm_info_request", {}),
    (messages.comm_info_request("t"), "shell", "comm_info_request", {"target_name": "t"}),
    (messages.kernel_info_request(), "shell", "kernel_info_request", {}),
    (
        messages.shutdown_request(restart=True),
        "control",
        "shutdown_request",
        {"restart": True},
    ),
    (messages.interrupt_request(), "control", "interrupt_request", {}),
    (
        messages.debug_request("attach", {}, seq=2),
        "control",
        "debug_request",
        {"type": "request", "seq": 2, "command": "attach", "arguments": {}},
    ),
    (messages.create_subshell_request(), "control", "create_subshell_request", {}),
    (
        messages.delete_subshell_request("s"),
        "control",
        "delete_subshell_request",
        {"subshell_id": "s"},
    ),
    (messages.list_subshell_request(), "control", "list_subshell_request", {}),
    (
        messages.comm_open("c", "t", {"a": 1}),
        "shell",
        "comm_open",
        {"comm_id": "c", "target_name": "t", "data": {"a": 1}},
    ),
    (messages.comm_msg("c"), "shell", "comm_msg", {"comm_id": "c", "data": {}}),
    (messages.comm_close("c"), "shell", "comm_close", {"comm_id": "c", "data": {}}),
    (
        messages.input_reply("v", message("input_request")),
        "stdin",
        "input_reply",
        {"value": "v", "status": "ok"},
    ),
]


@pytest.mark.parametrize(("made", "channel", "msg_type", "content"), CREATED)
def test_what_is_created(made: Message, channel: str, msg_type: str, content: Any) -> None:
    assert (made.channel, made.msg_type, made.content) == (channel, msg_type, content)


REQUEST = message("execute_request")
SHOWN = {"text/plain": "1"}
FAILED = messages.error("E", "why", ["t"])

SAID: list[tuple[Message, str, dict[str, Any]]] = [
    (messages.stream("x", parent=REQUEST), "stream", {"name": "stdout", "text": "x"}),
    (messages.stream("x", "stderr", parent=REQUEST), "stream", {"name": "stderr", "text": "x"}),
    (
        messages.display_data(SHOWN, parent=REQUEST),
        "display_data",
        {"data": SHOWN, "metadata": {}, "transient": {}},
    ),
    (
        messages.update_display_data(SHOWN, "d", metadata={"m": 1}, parent=REQUEST),
        "update_display_data",
        {"data": SHOWN, "metadata": {"m": 1}, "transient": {"display_id": "d"}},
    ),
    (
        messages.execute_result(SHOWN, 3, parent=REQUEST),
        "execute_result",
        {"data": SHOWN, "metadata": {}, "transient": {}, "execution_count": 3},
    ),
    (
        messages.error("E", "why", ["t"], parent=REQUEST),
        "error",
        {"ename": "E", "evalue": "why", "traceback": ["t"]},
    ),
    (messages.clear_output(wait=True, parent=REQUEST), "clear_output", {"wait": True}),
    (
        messages.execute_input("x", 3, parent=REQUEST),
        "execute_input",
        {"code": "x", "execution_count": 3},
    ),
    (messages.status("busy", parent=REQUEST), "status", {"execution_state": "busy"}),
    (
        messages.execute_reply(3, user_expressions={"x": {"status": "ok"}}, parent=REQUEST),
        "execute_reply",
        {
            "status": "ok",
            "execution_count": 3,
            "payload": [],
            "user_expressions": {"x": {"status": "ok"}},
        },
    ),
    (
        messages.execute_reply(3, failed=FAILED, parent=REQUEST),
        "execute_reply",
        {
            "status": "error",
            "execution_count": 3,
            "ename": "E",
            "evalue": "why",
            "traceback": ["t"],
        },
    ),
]


@pytest.mark.parametrize(("made", "msg_type", "content"), SAID)
def test_what_a_kernel_says_is_created(made: Message, msg_type: str, content: Any) -> None:
    assert (made.msg_type, made.content) == (msg_type, content)
    assert made.parent_header == REQUEST.header
    assert made.channel == ("shell" if msg_type == "execute_reply" else "iopub")


def test_what_belongs_to_no_request_has_no_parent() -> None:
    assert messages.status("starting").parent_header == {}


@pytest.mark.anyio
async def test_what_is_created_is_what_a_kernel_says() -> None:
    transport, end = memory_transport_pair("key")
    async with open_channels(transport) as ch, ch.execute("1") as execution:
        identity, request = await end.receive("shell")
        end.publish(messages.status("busy", parent=request))
        end.publish(messages.display_data(SHOWN, display_id="d", parent=request))
        end.publish(messages.update_display_data({"text/plain": "2"}, "d", parent=request))
        end.publish(messages.error("E", "why", ["t"], parent=request))
        end.send("shell", identity, messages.execute_reply(1, failed=FAILED, parent=request))
        end.publish(messages.status("idle", parent=request))
        with pytest.raises(ReplyError, match="^E: why"):
            raise_for_status(await execution.wait())
        assert [each["output_type"] for each in execution.outputs] == ["display_data", "error"]
        assert execution.outputs[0]["data"] == {"text/plain": "2"}


def test_a_silent_execution_stays_out_of_the_history() -> None:
    assert messages.execute_request("1", silent=True).content["store_history"] is False
    request = messages.execute_request("1", silent=True, store_history=True)
    assert request.content["store_history"] is True


def test_a_subshell_is_named_in_the_header() -> None:
    assert messages.execute_request("1", subshell_id="s").header["subshell_id"] == "s"


def test_an_input_reply_carries_the_header_of_its_prompt() -> None:
    prompt = message("input_request")
    assert messages.input_reply("v", prompt).parent_header == prompt.header


def test_metadata_and_buffers_go_along() -> None:
    made = messages.comm_msg("c", {}, metadata={"m": 1}, buffers=[b"b"])
    assert (made.metadata, made.buffers) == ({"m": 1}, (b"b",))


@pytest.mark.parametrize(
    ("msg_type", "channel"),
    [
        ("shutdown_reply", "control"),
        ("interrupt_reply", "control"),
        ("create_subshell_reply", "control"),
        ("execute_reply", "shell"),
        ("input_request", "stdin"),
        ("stream", "iopub"),
        ("debug_event", "iopub"),
        ("status", "iopub"),
        ("something_new", "shell"),
    ],
)
def test_a_message_knows_its_channel(msg_type: str, channel: str) -> None:
    assert message(msg_type).channel == channel


@pytest.mark.parametrize(
    ("msg_type", "kind"),
    [
        ("execute_reply", messages.ExecuteReply),
        ("execute_reply", messages.Reply),
        ("kernel_info_reply", messages.KernelInfoReply),
        ("update_display_data", messages.DisplayData),
        ("iopub_welcome", messages.Welcome),
        ("interrupt_request", messages.Empty),
        ("comm_open", messages.CommOpen),
        ("stream", messages.Stream),
    ],
)
def test_a_content_has_the_type_of_its_message(msg_type: str, kind: Any) -> None:
    made = message(msg_type, some="thing")
    assert messages.content(made, kind) is made.content


def test_every_message_has_a_type_for_its_content() -> None:
    made = [each for each, *_ in (*CREATED, *SAID)]
    kinds = [getattr(messages, name) for name in messages.__all__]
    kinds = [kind for kind in kinds if typing.is_typeddict(kind)]

    def fits(each: Message, kind: Any) -> bool:
        with contextlib.suppress(LocalProtocolError):
            return messages.content(each, kind) is each.content
        return False

    assert [each.msg_type for each in made if not any(fits(each, kind) for kind in kinds)] == []


@pytest.mark.parametrize(("msg_type", "kind"), [("stream", "Reply"), ("x_reply", "ExecuteReply")])
def test_a_content_of_another_type_is_told(msg_type: str, kind: str) -> None:
    with pytest.raises(LocalProtocolError, match=f"the content of {msg_type} is no {kind}"):
        messages.content(message(msg_type), getattr(messages, kind))


def test_every_name_is_there() -> None:
    for name in messages.__all__:
        assert getattr(messages, name) is not None
    assert typing.is_typeddict(messages.KernelInfoReply)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        messages.nothing  # noqa: B018
