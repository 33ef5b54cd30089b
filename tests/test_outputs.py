"""Outputs as a notebook shows them."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest

from enchannel._protocol.outputs import Displays, OutputList, output_of
from raw_kernel import message


def applied(*messages: Any, displays: Displays | None = None) -> OutputList:
    outputs = OutputList(displays or Displays())
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
    outputs, piece, count = OutputList(Displays()), "x" * 10_000, 500
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
    first = OutputList(displays)
    displays.add(first.outputs)
    assert told == [1]
    second = OutputList(displays)
    displays.add(second.outputs)
    assert told == [1]
