"""Ctrl-C on Trio, which raises KeyboardInterrupt wherever the program is."""

from __future__ import annotations

import _weakrefset
import signal
import sys
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
import trio

from enchannel import KernelPool, open_kernel, open_kernel_pool, open_server
from enchannel._kernels import server_kernel
from enchannel._kernels.rest import Rest
from enchannel._transports import zmq_carrier
from enchannel.testing import open_fake_server
from helpers import is_there, scripted
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


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_while_a_restart_at_a_server_begins_leaves_the_channels_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin_restart = server_kernel.begin_restart

    def press_and_begin(*args: Any) -> None:
        begin_restart(*args)
        signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        async with (
            open_fake_server() as fake,
            open_server(fake.url) as server,
            server.open_kernel() as kernel,
            kernel.open_channels() as ch,
        ):
            monkeypatch.setattr(server_kernel, "begin_restart", press_and_begin)
            with pytest.raises(KeyboardInterrupt):
                await kernel.restart()
            monkeypatch.undo()
            with trio.fail_after(20):
                assert (await ch.run("6 * 7")).status == "ok"
                await kernel.restart()
            assert [path.rpartition("/")[2] for _, path in fake.requests].count("restart") == 2

    trio.run(main)


SWALLOWED = (weakref.__file__, _weakrefset.__file__)
"""Where Python swallows what is raised, whoever runs: in what is called when something is freed."""


def press_at_call(number: int, task: trio.lowlevel.Task) -> Any:
    """Presses Ctrl-C when a function begins in `task` for the time `number`, outside of this module; a profiler."""
    calls = 0

    def profile(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls
        in_task = trio.lowlevel.in_trio_task() and trio.lowlevel.current_task() is task
        elsewhere = frame.f_code.co_filename not in (__file__, *SWALLOWED)
        if event == "call" and in_task and elsewhere:
            calls += 1
            if calls == number:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGINT)

    return profile


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_at_any_call_leaves_no_kernel_at_a_server() -> None:
    async def use_until(number: int) -> bool:
        """Whether it was pressed by then."""
        with trio.fail_after(20):
            async with open_fake_server() as fake:
                pressed = False
                try:
                    async with open_server(fake.url) as server:
                        sys.setprofile(press_at_call(number, trio.lowlevel.current_task()))
                        async with server.open_kernel() as kernel, kernel.open_channels():
                            await kernel.restart()
                        pressed = sys.getprofile() is None
                        sys.setprofile(None)
                        await trio.lowlevel.checkpoint()
                except KeyboardInterrupt:
                    pressed = True
                assert fake.kernels == {}, number
        return pressed

    before = sys.getprofile()
    number = 1
    try:
        while trio.run(use_until, number):
            number += 89
    finally:
        sys.setprofile(before)
    assert number > 1000


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_while_a_kernel_is_lent_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    ready_member = KernelPool._ready_member

    async def press_and_lend(pool: KernelPool, key: object) -> Any:
        member = await ready_member(pool, key)
        signal.raise_signal(signal.SIGINT)
        return member

    async def main() -> None:
        async with open_kernel_pool(scripted(), max_kernels=1) as pool:
            monkeypatch.setattr(KernelPool, "_ready_member", press_and_lend)
            with pytest.raises(KeyboardInterrupt):
                async with pool.lease("ada"):
                    await trio.lowlevel.checkpoint()
            monkeypatch.undo()
            assert "0 in use" in repr(pool)

    trio.run(main)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_as_soon_as_the_block_of_a_kernel_is_left_leaves_none() -> None:
    async def main() -> None:
        with pytest.raises(KeyboardInterrupt):
            async with open_kernel(scripted()) as kernel:
                pid = kernel.pid
                pressing = SimpleNamespace(cancel=lambda: signal.raise_signal(signal.SIGINT))
                kernel._restarting = pressing  # type: ignore[assignment]
        with trio.fail_after(20):
            while is_there(pid):
                await trio.sleep(0.01)

    trio.run(main)
