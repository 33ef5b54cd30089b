"""The Output widgets of ipywidgets, which somebody looks after, against a kernel in memory."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from enchannel import KernelChannels, KernelDied, LocalProtocolError, Message
from enchannel._protocol.signing import Signer
from enchannel._protocol.wire import DELIMITER
from enchannel.outputs import OutputArea, OutputWidgets
from enchannel.testing import Request, open_fake_kernel
from memory_kernel import Kernel, conversation, start
from raw_kernel import message

pytestmark = pytest.mark.anyio


def widget(kernel: Kernel, parent: Message, comm_id: str = "out", **state: Any) -> None:
    """The kernel opens an Output widget, or says what has become of it."""
    opened = {"_model_name": "OutputModel"}.keys() <= state.keys()
    kind = "comm_open" if opened else "comm_msg"
    target = {"target_name": "jupyter.widget"} if opened else {}
    data = {"method": "update", "state": state}
    kernel.say(kind, parent, comm_id=comm_id, data=data, **target)


async def pressed(ch: KernelChannels, kernel: Kernel, comm_id: str) -> Message:
    """A request whose outputs that widget captures."""
    sent = await ch.shell.send({"header": {"msg_type": "comm_msg"}, "content": {}})
    await kernel.asked()
    widget(kernel, sent, comm_id, _model_name="OutputModel", msg_id=sent.msg_id)
    return sent


def display_nan(kernel: Kernel, parent: Message) -> None:
    """As kernels do, whose JSON has it bare."""
    shown = message("display_data", parent, data={"application/json": "NaN"})
    frames = [bytes(frame).replace(b'"NaN"', b"NaN") for frame in kernel.end.wire.encode(shown)]
    start = frames.index(DELIMITER) + 1
    frames[start] = Signer(b"key", "hmac-sha256").sign(frames[start + 1 :])
    kernel.end.give("iopub", [b"topic", *frames])


async def captured(widgets: OutputWidgets, comm_id: str, count: int) -> None:
    """Waits until the widget shows so many characters, or displays."""
    with anyio.fail_after(10):
        while True:
            shown = widgets.areas[comm_id].outputs if comm_id in widgets.areas else []
            if sum(len(each.get("text", "x")) for each in shown) == count:
                return
            await anyio.sleep(0.001)


async def test_the_kernel_is_told_what_a_widget_shows_before_anything_else() -> None:
    async with conversation() as (ch, kernel, tasks), ch.open_output_widgets() as widgets:
        running = start(tasks, ch.run, "with out: ...")
        asked = await kernel.asked()
        _, cell = asked
        kernel.status(cell, "busy")
        widget(kernel, cell, _model_name="OutputModel", msg_id="", outputs=[])
        kernel.say("stream", cell, name="stdout", text="mine ")
        widget(kernel, cell, msg_id=cell.msg_id)
        kernel.say("stream", cell, name="stdout", text="captured")
        widget(kernel, cell, msg_id="")
        kernel.say("stream", cell, name="stdout", text="again")
        kernel.reply(asked)
        kernel.status(cell, "idle")
        done = await running.result()
        assert done.text == "mine again"
        assert widgets.areas["out"].text == "captured"
        start(tasks, ch.run, "out.outputs")
        _, told = await kernel.asked()
        assert told.content == {
            "comm_id": "out",
            "data": {
                "method": "update",
                "state": {
                    "outputs": [{"output_type": "stream", "name": "stdout", "text": "captured"}]
                },
                "buffer_paths": [],
            },
        }
        assert (await kernel.asked())[1].content["code"] == "out.outputs"


async def test_what_is_captured_while_the_connection_is_away_is_told_later() -> None:
    async with (
        open_fake_kernel() as kernel,
        kernel.open_channels() as ch,
        ch.open_output_widgets() as widgets,
    ):
        shown = anyio.Event()

        async def step(request: Request) -> None:
            state = {"_model_name": "OutputModel", "msg_id": request.message.msg_id, "outputs": []}
            opened = {"comm_id": "c", "target_name": "jupyter.widget", "data": {"state": state}}
            request.publish("comm_open", opened)
            while "c" not in widgets.areas:
                await anyio.sleep(0.01)
            kernel.clients[0].cut("shell")
            request.publish("stream", {"name": "stdout", "text": "woo"})
            await shown.wait()
            kernel.clients[0].mend("shell")

        kernel.script("x", step)
        async with ch.execute("x") as execution:
            with anyio.fail_after(10):
                while "c" not in widgets.areas or not widgets.areas["c"].text:
                    await anyio.sleep(0.01)
                shown.set()
                await execution.wait()
                while not kernel.transcript.messages("> shell comm_msg"):
                    await anyio.sleep(0.01)
        (told,) = kernel.transcript.messages("> shell comm_msg")
        assert told.content["data"]["state"]["outputs"][0]["text"] == "woo"


@pytest.mark.parametrize("away", [False, True])
async def test_what_can_never_be_told_costs_its_update_and_no_other(
    away: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with conversation() as (ch, kernel, _), ch.open_output_widgets() as widgets:
        first = await pressed(ch, kernel, "odd")
        second = await pressed(ch, kernel, "good")
        for count in (1, 2):
            if away:
                kernel.client.cut("shell")
            display_nan(kernel, first)
            kernel.say("stream", second, name="stdout", text="x")
            await captured(widgets, "odd", count)
            await captured(widgets, "good", count)
            if away:
                kernel.client.mend("shell")
            _, told = await kernel.asked()
            assert told.content["comm_id"] == "good"
        kernel.say("clear_output", first)
        assert (await kernel.asked())[1].content["comm_id"] == "odd"
        assert ch.lost is None
    assert caplog.text.count("what the Output widget odd shows cannot be told") == 1


async def test_what_is_captured_again_while_the_connection_is_away_is_told_once() -> None:
    async with conversation() as (ch, kernel, _), ch.open_output_widgets() as widgets:
        parent = await pressed(ch, kernel, "out")
        kernel.client.cut("shell")
        for count in (1, 2, 3):
            kernel.say("stream", parent, name="stdout", text="x")
            await captured(widgets, "out", count)
        kernel.client.mend("shell")
        _, told = await kernel.asked()
        assert told.content["data"]["state"]["outputs"][0]["text"] == "xxx"
        await ch.shell.send({"header": {"msg_type": "comm_msg"}, "content": {"mine": True}})
        assert (await kernel.asked())[1].content["mine"]
        assert ch.lost is None


async def test_what_a_button_does_is_captured_as_well() -> None:
    async with conversation() as (ch, kernel, _), ch.open_output_widgets() as widgets:
        kernel.say("stream", await pressed(ch, kernel, "out"), name="stdout", text="pressed")
        assert (await kernel.asked())[1].content["comm_id"] == "out"
        assert widgets.areas["out"].text == "pressed"


async def test_behind_the_block_outputs_are_the_cells_own() -> None:
    async with conversation() as (ch, kernel, tasks):
        async with ch.open_output_widgets():
            with pytest.raises(LocalProtocolError, match="already"):
                await ch.open_output_widgets().__aenter__()
        async with ch.open_output_widgets():
            pass
        running = start(tasks, ch.run, "with out: ...")
        asked = await kernel.asked()
        _, cell = asked
        widget(kernel, cell, _model_name="OutputModel", msg_id=cell.msg_id)
        kernel.say("stream", cell, name="stdout", text="mine")
        kernel.reply(asked)
        kernel.status(cell, "idle")
        assert (await running.result()).text == "mine"


@pytest.mark.parametrize("keep_outputs", [True, False])
async def test_an_area_of_ones_own_has_what_no_widget_had_captured_when_it_came(
    keep_outputs: bool,
) -> None:
    async with conversation() as (ch, kernel, _), ch.open_output_widgets() as widgets:
        areas = [OutputArea(ch.displays) for _ in range(2)]
        async with ch.execute("with out: ...", keep_outputs=keep_outputs) as execution:
            asked = await kernel.asked()
            _, cell = asked
            kernel.status(cell, "busy")
            widget(kernel, cell, _model_name="OutputModel", msg_id=cell.msg_id, outputs=[])
            kernel.say("stream", cell, name="stdout", text="captured")
            widget(kernel, cell, msg_id="")
            kernel.say("stream", cell, name="stdout", text="mine")
            kernel.reply(asked)
            kernel.status(cell, "idle")
            await execution.wait()
            async for msg in execution:
                for area in areas:
                    area.apply(msg)
        assert [area.text for area in areas] == ["mine"] * 2
        assert execution.text == ("mine" if keep_outputs else "")
        assert widgets.areas["out"].text == "captured"
        _, told = await kernel.asked()
        assert told.content["data"]["state"]["outputs"][0]["text"] == "captured"
        await ch.shell.send({"header": {"msg_type": "comm_msg"}, "content": {"mine": True}})
        assert (await kernel.asked())[1].content["mine"]


DISPLAY_ID = {"display_id": "bar"}


def show(kernel: Kernel, parent: Message, *percents: int) -> None:
    """Displays the first, and updates it."""
    for at, percent in enumerate(percents):
        kind = "update_display_data" if at else "display_data"
        data = {"text/plain": f"{percent} %"}
        kernel.say(kind, parent, data=data, transient=DISPLAY_ID)


async def test_what_an_area_of_ones_own_shows_late_is_the_newest_and_sets_nobody_back() -> None:
    async with conversation() as (ch, kernel, _):
        area = OutputArea(ch.displays)
        async with ch.execute("bar") as execution:
            asked = await kernel.asked()
            show(kernel, asked[1], 0, 10, 100)
            kernel.reply(asked)
            kernel.status(asked[1], "idle")
            await execution.wait()
            async for msg in execution:
                area.apply(msg)
                assert execution.text == "100 %\n"
                assert area.text == "100 %\n"
                break


async def test_an_area_of_ones_own_is_up_to_date_with_what_came_before_it() -> None:
    """Nobody else shows it, and nobody had asked for what outputs share."""
    async with conversation() as (ch, kernel, _), ch.subscribe("iopub") as listener:
        sent = await ch.shell.send({"header": {"msg_type": "execute_request"}, "content": {}})
        await kernel.asked()
        show(kernel, sent, 0, 10, 100)
        with anyio.fail_after(10):
            seen = [(await listener.receive())[1] for _ in range(3)]
            area = OutputArea(ch.displays)
            area.apply(seen.pop(0))
            assert area.text == "100 %\n"
            # Given to nobody.
            kernel.say(
                "update_display_data", sent, data={"text/plain": "done"}, transient=DISPLAY_ID
            )
            await listener.receive()
        assert area.text == "done\n"
        area.apply(*seen)
        assert area.text == "done\n"


async def test_an_output_area_of_ones_own_takes_part() -> None:
    async with conversation() as (ch, kernel, tasks):
        area = OutputArea(ch.displays)
        area.apply(message("display_data", data={"text/plain": "1"}, transient=DISPLAY_ID))
        running = start(tasks, ch.run, "update_display(...)")
        asked = await kernel.asked()
        data = {"text/plain": "2"}
        kernel.say("update_display_data", asked[1], data=data, transient=DISPLAY_ID)
        kernel.reply(asked)
        kernel.status(asked[1], "idle")
        await running.result()
        assert area.text == "2\n"


async def test_it_needs_a_kernel() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.die()
        await ch.wait_lost()
        with pytest.raises(KernelDied):
            await ch.open_output_widgets().__aenter__()
    with pytest.raises(anyio.ClosedResourceError):
        await ch.open_output_widgets().__aenter__()
