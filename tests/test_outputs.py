"""Outputs as a notebook shows them."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enchannel import LocalProtocolError
from enchannel._protocol.outputs import HeardDisplays
from enchannel.outputs import (
    Displays,
    OutputArea,
    OutputWidgets,
    bundle_text,
    output_of,
    plain_text,
    text_of_outputs,
)
from helpers import calls_of
from raw_kernel import message


def applied(*messages: Any, displays: Displays | None = None) -> OutputArea:
    outputs = OutputArea(displays or Displays())
    for each in messages:
        outputs.apply(each)
    return outputs


def stream(text: str, name: str = "stdout") -> Any:
    return message("stream", name=name, text=text)


def display(text: str, display_id: str | None = None, kind: str = "display_data") -> Any:
    transient = {} if display_id is None else {"display_id": display_id}
    return message(kind, data={"text/plain": text}, metadata={"m": text}, transient=transient)


def shown(text: str) -> dict[str, Any]:
    return {
        "output_type": "display_data",
        "data": {"text/plain": text},
        "metadata": {"m": text},
    }


def test_text_of_one_stream_is_joined_until_something_else_comes() -> None:
    both = applied(stream("a"), stream("b"), stream("e", "stderr"), stream("c"), stream("d"))
    assert [(o["name"], o["text"]) for o in both.outputs] == [
        ("stdout", "ab"),
        ("stderr", "e"),
        ("stdout", "cd"),
    ]


def test_clear_output_clears_at_once() -> None:
    assert applied(stream("a"), message("clear_output", wait=False)).outputs == []


def test_clear_output_may_wait_for_the_next_output() -> None:
    outputs = applied(stream("a"), message("clear_output", wait=True))
    held = outputs.outputs  # the list stays the same
    assert [o["text"] for o in held] == ["a"]
    outputs.apply(message("status", execution_state="busy"))
    assert [o["text"] for o in held] == ["a"]
    outputs.apply(stream("b"))
    assert [o["text"] for o in held] == ["b"]


def test_an_update_changes_every_display_of_its_id_in_every_execution() -> None:
    displays = Displays()
    first = applied(display("1", "x"), display("2", "x"), display("3", "y"), displays=displays)
    second = applied(display("4", "x"), display("5", "x", "update_display_data"), displays=displays)
    assert first.outputs == [shown("5"), shown("5"), shown("3")]
    assert second.outputs == [shown("5")]


def test_an_update_of_what_was_never_shown_or_is_cleared_shows_nothing() -> None:
    outputs = applied(
        display("1", "x"),
        message("clear_output"),
        display("2", "x", "update_display_data"),
        display("3", "nobody", "update_display_data"),
        message("update_display_data", data={}, transient=None),
    )
    assert outputs.outputs == []


def test_displays_are_forgotten_with_their_executions() -> None:
    displays = Displays()
    applied(display("1", "x"), displays=displays)
    gc.collect()
    assert not len(displays._shown)


def test_what_was_heard_is_known_as_long_as_its_message_or_its_outputs_are_held() -> None:
    displays = HeardDisplays()
    heard = [display("1", "x"), display("2", "x", "update_display_data")]
    displays.hear(heard)
    area = OutputArea(displays)
    area.apply(heard[0])
    assert area.outputs == [shown("2")]
    heard.clear()
    displays.hear([display("3", "x", "update_display_data"), display("4", "nobody's")])
    assert area.outputs == [shown("3")]
    del area
    gc.collect()
    assert not len(displays._shown)
    assert not displays._displayed._kept


def test_what_has_arrived_is_told_apart_though_its_ids_are_the_same() -> None:
    displays = HeardDisplays()
    displays.widgets = OutputWidgets(displays)
    captures = comm("comm_open", _model_name="OutputModel", msg_id=CELL.msg_id)
    captured, own = of_cell("x"), of_cell("x")
    own.header["msg_id"] = captured.msg_id
    displays.hear([captures, captured, comm("comm_msg", msg_id=""), own])
    area = OutputArea(displays)
    area.apply(captures, captured, own, own)
    assert area.text == "xx"
    assert displays.widgets.areas["c"].text == "x"
    del captured
    assert not displays._captured._kept


def test_what_was_heard_is_changed_by_nobody_else() -> None:
    displays = HeardDisplays()
    heard = display("1", "x")
    displays.hear([heard])
    area = applied(
        heard, display("2", "x"), display("3", "x", "update_display_data"), displays=displays
    )
    displays.overhear([display("4", "x")])
    assert area.outputs == [shown("1"), shown("1")]


def test_a_list_in_the_hands_of_its_user_harms_nobody() -> None:
    outputs = applied(stream("a"))
    outputs.outputs.clear()
    for each in (stream("b"), display("1", "x"), stream("c")):
        outputs.apply(each)
    outputs.outputs[-1].clear()
    outputs.apply(stream("d"))
    assert outputs.outputs[-1]["text"] == "d"


@pytest.mark.parametrize(
    ("msg", "output"),
    [
        (stream("a"), {"output_type": "stream", "name": "stdout", "text": "a"}),
        (message("stream"), {"output_type": "stream", "name": "stdout", "text": ""}),
        (
            message("execute_result", data={"a": 1}, execution_count=3),
            {
                "output_type": "execute_result",
                "data": {"a": 1},
                "metadata": {},
                "execution_count": 3,
            },
        ),
        (
            message("display_data", data=None, metadata=None, transient=None),
            {"output_type": "display_data", "data": {}, "metadata": {}},
        ),
        (
            message("error", ename="E", evalue="v", traceback="one line"),
            {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["one line"]},
        ),
        (
            message("error", ename=None, traceback=5),
            {"output_type": "error", "ename": "", "evalue": "", "traceback": ["5"]},
        ),
        (
            message("error", ename=5, evalue={"a": 1}, traceback=[1, None, ["x"], "y"]),
            {"output_type": "error", "ename": "5", "evalue": "", "traceback": ["1", "", "", "y"]},
        ),
        (
            message("error", ename=["E"], evalue=1.5, traceback={"a": 1}),
            {"output_type": "error", "ename": "", "evalue": "1.5", "traceback": [""]},
        ),
        (
            message("execute_result", execution_count="x"),
            {
                "output_type": "execute_result",
                "data": {},
                "metadata": {},
                "execution_count": None,
            },
        ),
        (
            message("display_data", data="x", metadata=[1], transient="y"),
            {"output_type": "display_data", "data": {}, "metadata": {}},
        ),
        (message("status"), None),
    ],
)
def test_outputs_have_the_shape_of_nbformat(msg: Any, output: Any) -> None:
    assert output_of(msg) == output


def test_looking_at_each_piece_copies_no_text() -> None:
    """CPython's own: a text that is held once grows in its place."""
    outputs, piece, count = OutputArea(Displays()), "x" * 10_000, 500
    for _ in range(count):
        outputs.apply(message("stream", name="stdout", text=piece))
        assert outputs.outputs[0]["output_type"] == "stream"
    outputs.apply(message("stream", name="stdout", text=piece))
    tracemalloc.start()
    try:
        assert len(outputs.outputs[0]["text"]) == (count + 1) * len(piece)
        # Another copy would take five megabytes.
        assert tracemalloc.get_traced_memory()[1] < 6_000_000
        tracemalloc.reset_peak()
        outputs.apply(message("stream", name="stdout", text=piece))
        assert outputs.outputs
        held, peak = tracemalloc.get_traced_memory()
        assert peak - held < 1_000_000
    finally:
        tracemalloc.stop()


def test_that_something_is_shown_is_told_when_it_is_the_first() -> None:
    told: list[int] = []
    displays = Displays(lambda: told.append(1))
    first = applied(display("1", "x"), displays=displays)
    assert told == [1]
    applied(display("2", "x"), display("3", "y"), displays=displays)
    assert told == [1]
    assert first.text == "2\n"


def test_what_is_displayed_again_changes_what_is_there() -> None:
    """As in notebooks."""
    outputs = applied(display("1", "x"), display("2", "x"))
    assert outputs.outputs == [shown("2"), shown("2")]
    assert {name: len(each) for name, each in outputs.displays.items()} == {"x": 2}


@pytest.mark.parametrize("areas", [1, 10])
def test_the_same_display_again_and_again_costs_the_same_each_time(areas: int) -> None:
    def show(count: int) -> None:
        displays = Displays()
        several = [OutputArea(displays) for _ in range(areas)]
        for number in range(count):
            several[number % areas].apply(display("1", "x"))
            several[number % areas].apply(display("2", "x", "update_display_data"))
        assert sum(len(each.outputs) for each in several) == count

    assert calls_of(lambda: show(400)) < 5 * calls_of(lambda: show(100))


def test_what_is_cleared_is_changed_no_more_and_what_its_user_has_changed_is_his() -> None:
    displays = Displays()
    first, second = (applied(display("1", "x"), displays=displays) for _ in range(2))
    (held,) = first.outputs
    first.apply(message("clear_output"))
    own = second.outputs[0]["data"] = {"text/plain": "own"}
    third = applied(display("2", "x"), displays=displays)
    assert held == shown("1")
    assert second.outputs[0]["data"] is own
    assert own == {"text/plain": "own"}
    assert third.outputs == [shown("2")]


def test_a_display_may_be_updated_by_its_own_data() -> None:
    area = applied(display("1", "x"))
    data = area.outputs[0]["data"]
    data["text/plain"] = "2"
    area.apply(
        message(
            "update_display_data",
            data=data,
            metadata=area.outputs[0]["metadata"],
            transient={"display_id": "x"},
        )
    )
    assert area.outputs == [{**shown("1"), "data": {"text/plain": "2"}}]


@pytest.mark.parametrize("looked_at", [False, True])
def test_halves_of_a_character_in_two_messages_are_one(looked_at: bool) -> None:
    outputs = OutputArea()
    for text in ("a\ud83d", "\ude00b\ud83d", "", "\ude00", "\ud83d", "c", "\ude00"):
        outputs.apply(stream(text))
        assert not looked_at or outputs.outputs
    assert outputs.text == "a\U0001f600b\U0001f600\ud83dc\ude00"


def test_halves_in_two_streams_stay_halves() -> None:
    outputs = applied(stream("\ud83d"), stream("\ude00", "stderr"))
    assert [each["text"] for each in outputs.outputs] == ["\ud83d", "\ude00"]


def test_the_text_of_old_streams_is_read() -> None:
    assert output_of(message("stream", name="stderr", data="x")) == {
        "output_type": "stream",
        "name": "stderr",
        "text": "x",
    }


def comm(kind: str, comm_id: str = "c", **state: Any) -> Any:
    name = {"target_name": "jupyter.widget"} if kind == "comm_open" else {}
    data = {"method": "update", "state": state}
    return message(kind, comm_id=comm_id, data=data, **name)


CELL = message("execute_request")


def of_cell(text: str) -> Any:
    return message("stream", CELL, name="stdout", text=text)


def with_widgets(on_change: Any = None) -> tuple[OutputArea, OutputWidgets]:
    displays = Displays()
    displays.widgets = widgets = OutputWidgets(displays, on_change)
    area = OutputArea(displays)
    for comm_id in "cd":
        area.apply(comm("comm_open", comm_id, _model_name="OutputModel", msg_id="", outputs=[]))
    return area, widgets


def test_what_a_widget_has_captured_is_its_own() -> None:
    area, widgets = with_widgets()
    area.apply(of_cell("1"))
    area.apply(comm("comm_msg", msg_id=CELL.msg_id))
    area.apply(of_cell("2"))
    area.apply(comm("comm_msg", "d", msg_id=CELL.msg_id))
    area.apply(of_cell("3"))
    area.apply(comm("comm_msg", "d", msg_id=""))
    area.apply(of_cell("4"))
    area.apply(message("status", CELL, execution_state="idle"))
    area.apply(stream("somebody else's"))
    area.apply(comm("comm_msg", msg_id=""))
    area.apply(of_cell("5"))
    assert area.text == "1somebody else's5"
    assert {comm_id: each.text for comm_id, each in widgets.areas.items()} == {"c": "24", "d": "3"}


def test_who_looks_after_widgets_is_told_once_for_a_batch() -> None:
    told: list[Any] = []
    area, widgets = with_widgets(lambda comm_id, outputs: told.append((comm_id, [*outputs])))
    area.apply(comm("comm_msg", msg_id=CELL.msg_id))
    for each in (of_cell("a"), of_cell("b")):
        area.apply(each)
    widgets.tell()
    widgets.tell()
    area.apply(message("clear_output", CELL))
    widgets.tell()
    assert told == [("c", [{"output_type": "stream", "name": "stdout", "text": "ab"}]), ("c", [])]


def test_the_kernel_may_set_what_a_widget_shows() -> None:
    told: list[Any] = []
    area, widgets = with_widgets(lambda *changed: told.append(changed))
    given = {"output_type": "stream", "name": "stdout", "text": "given "}
    area.apply(comm("comm_msg", outputs=[given, "odd"]))
    area.apply(comm("comm_msg", msg_id=CELL.msg_id))
    widgets.tell()
    assert told == []
    area.apply(of_cell("more"))
    assert widgets.areas["c"].text == "given more"
    assert given["text"] == "given "


def test_a_widget_that_is_closed_captures_nothing_more() -> None:
    area, widgets = with_widgets()
    area.apply(comm("comm_msg", msg_id=CELL.msg_id))
    area.apply(comm("comm_close"))
    area.apply(of_cell("1"))
    assert area.text == "1"
    assert list(widgets.areas) == ["d"]


def test_other_comms_are_left_alone() -> None:
    area, widgets = with_widgets()
    for each in (
        message("comm_open", comm_id="e", target_name="mine", data={"state": {"msg_id": "x"}}),
        message("comm_open", comm_id="e", target_name="jupyter.widget", data=None),
        comm("comm_open", "f", _model_name="IntSliderModel"),
        message("comm_msg", comm_id=5, data={"state": {}}),
        message("comm_msg", comm_id="c", data={"method": "custom", "state": {"msg_id": "x"}}),
        comm("comm_msg", "e", msg_id=CELL.msg_id),
        comm("comm_msg", msg_id=7),
    ):
        area.apply(each)
    area.apply(of_cell("1"))
    assert area.text == "1"
    assert list(widgets.areas) == ["c", "d"]


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain\n", "plain\n"),
        ("10%\r20%\r100%\n", "100%\n"),
        ("long line\rshort", "shortline"),
        ("a\r\nb\r\n", "a\nb\n"),
        ("abc\b\bX\r_", "_Xc"),
        ("\b\ba", "a"),
        ("\x1b[31mred\x1b[0m \x1b]0;title\x07and \x1b[5C\x1bMmore\x1b(B\x9b0m", "red and more"),
        ("long line here\r\x1b[Kshort", "short"),
        ("100%\r\x1b[2K", ""),
        ("abc\x1b[1Kd", "   d"),
        ("abc\b\b\x1b[0K", "a"),
        ("", ""),
    ],
)
def test_text_as_it_looks_in_the_end(text: str, seen: str) -> None:
    assert plain_text(text) == seen


PIECES = ("a", "bc", "\r", "\b", "\x1b[K", "\x1b[1K", "\x1b[2K", "\x1b[31m")


@given(st.lists(st.sampled_from(PIECES)))
def test_any_line_looks_as_cell_by_cell(pieces: list[str]) -> None:
    cells, at, erased = dict[int, str](), 0, False
    for piece in pieces:
        if piece.isalpha():
            for letter in piece:
                cells[at] = letter
                at += 1
        elif piece in "\r\b":
            at = max(at - 1, 0) if piece == "\b" else 0
        elif piece.endswith("K"):
            erased = True
            kept = {"\x1b[K": range(at), "\x1b[1K": range(at, 1000)}.get(piece, range(0))
            cells = {place: cells[place] for place in kept if place in cells}
    seen = "".join(cells.get(place, " ") for place in range(max(cells, default=-1) + 1))
    shown = plain_text("".join(pieces))
    assert (shown.rstrip(" ") if erased else shown) == seen


def test_a_line_that_is_erased_again_and_again_costs_no_more_than_its_length() -> None:
    """Where each erasure took the whole line these would take minutes."""
    count = 200_000
    assert plain_text("x" * count + "\x1b[1K" * count + "y") == " " * count + "y"
    assert plain_text("x" * count + "\b\x1b[1Ky" * count) == " " * (count - 1) + "y"


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ({"output_type": "stream", "name": "stdout", "text": ["a\n", "b"]}, "a\nb"),
        ({"output_type": "error", "ename": "E", "evalue": "v"}, "E: v\n"),
        ({"output_type": "of tomorrow"}, ""),
        ({}, ""),
    ],
)
def test_outputs_of_a_file_have_a_text(output: Any, text: str) -> None:
    assert text_of_outputs([output]) == text


def test_what_is_no_output_is_told() -> None:
    wrong: Any
    for wrong in (("iopub", stream("a")), {}, None):
        with pytest.raises(LocalProtocolError, match="a Message is applied, and no "):
            OutputArea().apply(wrong)
    wrong = ["x"]
    with pytest.raises(LocalProtocolError, match="text is a str, not list"):
        plain_text(wrong)
    with pytest.raises(LocalProtocolError, match="a MIME bundle maps types to data"):
        bundle_text(wrong)
    with pytest.raises(LocalProtocolError, match="a Displays, and no list"):
        OutputArea(wrong)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"text/plain": ["a\n", "b"], "text/html": "<b>"}, "a\nb"),
        ({"text/markdown": "# a"}, "# a"),
        ({"image/png": "…", "x/y": 1}, "<image/png, x/y>"),
    ],
)
def test_a_bundle_has_a_text(data: Any, text: str) -> None:
    assert bundle_text(data) == text
