"""Operators over streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from enchannel import Message, operators
from enchannel.testing import open_fake_kernel, stream
from raw_kernel import message

pytestmark = pytest.mark.anyio

PARENT = message("execute_request")
MESSAGES = [
    message("status", PARENT, execution_state="busy"),
    message("execute_input", PARENT, code="x", execution_count=4),
    message("stream", PARENT, name="stdout", text="a"),
    message("stream", name="stdout", text="another's"),
    message("input_request", PARENT, prompt="?"),
    message("comm_msg", PARENT, comm_id="c", data={}),
    message("comm_close", comm_id="d", data={}),
    message(
        "update_display_data", PARENT, data={"text/plain": "new"}, transient={"display_id": "1"}
    ),
    message(
        "execute_reply", PARENT, execution_count=4, payload=[{"source": "page"}, {"source": "x"}]
    ),
    message("execute_reply", PARENT, execution_count=None, payload=None),
    message("status", PARENT, execution_state="idle"),
]


async def source(tagged: bool) -> AsyncIterator[Any]:
    for each in MESSAGES:
        yield ("iopub", each) if tagged else each


async def collected(items: Any) -> list[Any]:
    return [item async for item in items]


@pytest.mark.parametrize("tagged", [False, True])
@pytest.mark.parametrize(
    ("operator", "arguments", "picked"),
    [
        (operators.of_type, ("stream", "comm_msg"), [2, 3, 5]),
        (operators.children_of, (PARENT,), [0, 1, 2, 4, 5, 7, 8, 9, 10]),
        (operators.children_of, (PARENT.msg_id,), [0, 1, 2, 4, 5, 7, 8, 9, 10]),
        (operators.of_comm, ("c",), [5]),
        (operators.input_requests, (), [4]),
    ],
)
async def test_picking_keeps_the_items(
    operator: Any, arguments: Any, picked: list[int], tagged: bool
) -> None:
    got = await collected(operator(source(tagged), *arguments))
    messages: list[Message] = [item[1] for item in got] if tagged else got
    assert messages == [MESSAGES[number] for number in picked]


@pytest.mark.parametrize("tagged", [False, True])
@pytest.mark.parametrize(
    ("operator", "derived"),
    [
        (operators.statuses, ["busy", "idle"]),
        (operators.execution_counts, [4, 4]),
        (operators.payloads, [{"source": "page"}, {"source": "x"}]),
        (operators.updated_displays, [MESSAGES[7].content]),
    ],
)
async def test_deriving(operator: Any, derived: list[Any], tagged: bool) -> None:
    assert await collected(operator(source(tagged))) == derived


async def test_operators_compose() -> None:
    of_ours = operators.outputs(operators.children_of(source(tagged=True), PARENT))
    assert [output["text"] for output in await collected(of_ours)] == ["a"]


async def test_cancelling_an_operator_loses_nothing() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script("x", *(stream(f"{number}\n") for number in range(5)))
        texts = operators.outputs(ch.main)
        with anyio.move_on_after(0.01):
            await texts.__anext__()
        await ch.shell.send({"header": {"msg_type": "execute_request"}, "content": {"code": "x"}})
        got = []
        while len(got) < 5:
            with anyio.CancelScope() as scope:
                async for output in texts:
                    got.append(output["text"])
                    scope.cancel()
        assert got == [f"{number}\n" for number in range(5)]
