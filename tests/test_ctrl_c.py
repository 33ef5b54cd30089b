"""Ctrl-C on Trio, which raises KeyboardInterrupt wherever the program is."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from enchannel import open_server
from enchannel._kernels.rest import Rest
from enchannel._transports import zmq_carrier
from enchannel.testing import open_fake_server
from raw_kernel import RawKernel, message, request


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As in a program: a test runner may have had SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@asynccontextmanager
async def greeting_kernel() -> AsyncIterator[RawKernel]:
    with RawKernel() as kernel:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(kernel.greet)
            yield kernel
            nursery.cancel_scope.cancel()


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_within_a_send_leaves_no_half_message(monkeypatch: pytest.MonkeyPatch) -> None:
    pressed = 0
    send_frame = zmq_carrier.send_frame

    def press_and_send(*args: Any, **kwargs: Any) -> None:
        nonlocal pressed
        pressed += 1
        if pressed == 5:
            signal.raise_signal(signal.SIGINT)
        send_frame(*args, **kwargs)

    async def main() -> None:
        async with greeting_kernel() as raw_kernel:
            async with raw_kernel.open() as ch:
                monkeypatch.setattr(zmq_carrier, "send_frame", press_and_send)
                with pytest.raises(KeyboardInterrupt):
                    await ch.shell.send({**request("first_request"), "buffers": [b"x"] * 20})
                    await trio.lowlevel.checkpoint()
                monkeypatch.undo()
                await ch.shell.send(request("next_request"))
                with trio.fail_after(20):
                    _, first = await raw_kernel.receive("shell")
                    assert (first.msg_type, len(first.buffers)) == ("first_request", 20)
                    assert (await raw_kernel.receive("shell"))[1].msg_type == "next_request"

    trio.run(main)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_while_a_stream_takes_its_next_batch_loses_none_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with greeting_kernel() as raw_kernel:
            async with raw_kernel.open() as ch, ch.subscribe("iopub") as stream:
                for number in range(100):
                    raw_kernel.publish(message("stream", number=number))
                with trio.fail_after(20):
                    while stream.buffered < 100:
                        await trio.sleep(0.001)
                batches = stream._feed._batches
                receive_nowait = type(batches).receive_nowait

                def press_and_receive(taken_from: Any) -> Any:
                    batch = receive_nowait(taken_from)
                    signal.raise_signal(signal.SIGINT)
                    return batch

                monkeypatch.setattr(type(batches), "receive_nowait", press_and_receive)
                seen = []
                with pytest.raises(KeyboardInterrupt):
                    while True:
                        seen.append((await stream.receive())[1])
                monkeypatch.undo()
                while len(seen) < 100:
                    seen.append((await stream.receive())[1])
                assert [msg.content["number"] for msg in seen] == list(range(100))

    trio.run(main)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_ctrl_c_while_a_server_starts_or_deletes_a_kernel_leaves_none(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pressed = 0
    ask = Rest.ask

    async def press_and_ask(rest: Rest, asked: str, *args: Any, **options: Any) -> Any:
        nonlocal pressed
        if asked == method:
            pressed += 1
            signal.raise_signal(signal.SIGINT)
        return await ask(rest, asked, *args, **options)

    async def main() -> None:
        async with open_fake_server() as fake:
            with pytest.raises(KeyboardInterrupt):
                async with open_server(fake.url) as server:
                    monkeypatch.setattr(Rest, "ask", press_and_ask)
                    async with server.open_kernel():
                        pass
                    await trio.lowlevel.checkpoint()
            monkeypatch.undo()
            assert fake.kernels == {}
            # It was heard by the main task alone, and nothing was begun anew.
            assert pressed == [asked for asked, _ in fake.requests].count(method) == 1

    trio.run(main)
