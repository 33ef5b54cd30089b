"""Servers and kernels that fall silent, on a clock that jumps over the silence."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from enchannel import KernelChannels, KernelDied, NoReply, ServerKernel, open_server
from enchannel.testing import FakeKernel, FakeServer, open_fake_server, result, stream
from virtual_clock import jumping_backend  # noqa: F401

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(
    prepare: Callable[[FakeKernel], object] = lambda _: None,
) -> AsyncIterator[tuple[FakeServer, ServerKernel, KernelChannels]]:
    async with open_fake_server() as fake, open_server(fake.url) as server:
        fake.on_start(prepare)
        async with server.open_kernel() as kernel, kernel.open_channels() as ch:
            yield fake, kernel, ch


def scripted(kernel: FakeKernel) -> None:
    kernel.script("6 * 7", result("42"))


async def test_a_connection_that_is_dead_and_open_is_noticed_and_made_anew() -> None:
    async with opened() as (fake, kernel, ch):
        gate = anyio.Event()

        async def held(request: Any) -> None:
            await gate.wait()

        lines = [stream(f"{number}\n") for number in range(30)]
        fake.kernels[kernel.id].script("lines", *lines[:10], held, *lines[10:])
        async with ch.execute("lines") as execution:
            while len(execution.outputs) < 1 or "9" not in execution.outputs[0]["text"]:
                await execution.__anext__()
            (websocket,) = fake.websockets()
            websocket.freeze()
            gate.set()
            # What the server writes into the dead connection is lost, the reply too; it is asked behind.
            with anyio.fail_after(600):
                await ch.wait_idle()
                with pytest.raises(Exception, match="connection") as caught:
                    await execution.wait()
        assert type(caught.value).__name__ in ("NoReply", "KernelDied")
        assert ch.statistics().gaps == 1


@pytest.mark.parametrize("state", ["idle", "busy", "starting"])
async def test_a_server_that_has_lost_the_way_to_the_kernel_is_asked_for_another(
    state: str,
) -> None:
    """Whatever it believes of the kernel: of one that died at work, that it is busy."""
    async with opened(scripted) as (fake, kernel, ch):
        fake.believe(kernel.id, state)
        (websocket,) = fake.websockets()
        for pipe in websocket._transport.inbound.values():
            pipe.stall()

        async def mend() -> None:
            await websocket.ended.wait()
            for pipe in websocket._transport.inbound.values():
                pipe.resume()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(mend)
            with anyio.fail_after(600):
                assert (await ch.run("6 * 7")).status == "ok"
        assert ch.statistics().outages == 1


@pytest.mark.parametrize("state", ["idle", "busy"])
async def test_a_server_that_hands_out_what_has_lost_the_way_once_more(state: str) -> None:
    async with opened(scripted) as (fake, kernel, ch):
        # It is known that control is answered.
        await ch.control.send({"header": {"msg_type": "kernel_info_request"}, "content": {}})
        await ch.control.receive()
        fake.believe(kernel.id, state)
        (websocket,) = fake.websockets()
        for pipe in websocket._transport.inbound.values():
            pipe.stall()
        with anyio.fail_after(600):
            with pytest.raises((NoReply, KernelDied)):
                await ch.run("6 * 7")
            assert (await ch.run("6 * 7")).status == "ok"


@pytest.mark.parametrize("state", ["idle", "busy"])
async def test_a_kernel_that_says_nothing_however_it_is_reached(state: str) -> None:
    """Idle, it is lost; where it may be busy, its code may hold up control as well, and go on."""
    async with opened(scripted) as (fake, kernel, ch):
        fake.believe(kernel.id, state)
        fake.kernels[kernel.id].go_silent()
        if state == "idle":
            with anyio.fail_after(600), pytest.raises(KernelDied, match="answers nothing"):
                await ch.run("6 * 7")
            return
        async with anyio.create_task_group() as tasks:

            async def wake() -> None:
                await anyio.sleep(600)
                fake.kernels[kernel.id].wake()

            tasks.start_soon(wake)
            assert (await ch.run("6 * 7")).status == "ok"
        assert ch.statistics().outages <= 2


async def test_a_kernel_that_is_gone_while_nothing_is_due_is_noticed() -> None:
    async with opened() as (fake, kernel, ch):
        fake.forget(kernel.id)
        with anyio.fail_after(600):
            died = await ch.wait_lost()
        assert died.reason == "exited"


async def test_an_idle_connection_goes_on() -> None:
    async with opened(scripted) as (_fake, _kernel, ch):
        await anyio.sleep(100)
        assert ch.lost is None
        assert (await ch.run("6 * 7")).status == "ok"
        assert ch.statistics().outages == 0


async def test_a_silent_websocket_may_be_lost_again() -> None:
    async with opened(scripted) as (fake, kernel, ch):
        fake.believe(kernel.id, "busy")
        for times in range(1, 4):
            (websocket,) = fake.websockets()
            await websocket.close()
            with anyio.fail_after(600):
                while ch.statistics().outages < times:
                    await anyio.sleep(1)
            await anyio.sleep(40)
        assert ch.lost is None
        assert (await ch.run("6 * 7")).status == "ok"


async def test_code_that_says_nothing_for_long_goes_on() -> None:
    async def long(request: Any) -> None:
        await anyio.sleep(200)

    async with opened(lambda kernel: kernel.script("long", long)) as (fake, kernel, ch):
        assert (await ch.run("long")).status == "ok"
        assert ch.statistics().outages == 0
        with pytest.raises(KernelDied):
            fake.forget(kernel.id)
            await ch.run("long")


@pytest.mark.parametrize("says", [True, False])
async def test_code_that_lets_nothing_else_run_goes_on(says: bool) -> None:
    """It may do so before the kernel could say that it has begun; then its server calls the kernel idle."""
    async with opened() as (fake, kernel, ch):
        begun, go_on = anyio.Event(), anyio.Event()
        (websocket,) = fake.websockets()

        async def hold(_: Any) -> None:
            begun.set()
            await go_on.wait()

        hosted = fake.kernels[kernel.id]
        hosted.script("x", hold, result("42"))
        if not says:
            fake.believe(kernel.id, "idle")
            websocket._transport.inbound["iopub"].stall()
        answers: list[Any] = []

        async def run() -> None:
            answers.append(await ch.run("x"))

        async def ask() -> None:
            answers.append(await ch.request("kernel_info_request", channel="control"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await begun.wait()
            websocket._transport.outbound["control"].stall()
            tasks.start_soon(ask)
            await anyio.sleep(25)
            assert answers == []
            websocket._transport.outbound["control"].resume()
            websocket._transport.inbound["iopub"].resume()
            go_on.set()
        assert len(answers) == 2
        assert ch.statistics().outages == 0


async def test_an_answer_that_is_lost_with_the_websocket_is_told() -> None:
    async def ask(request: Any) -> None:
        await request.input("name? ")

    async with opened(lambda kernel: kernel.script("ask", ask)) as (fake, _kernel, ch):
        (websocket,) = fake.websockets()

        async def answer(prompt: str, password: bool) -> str:
            # From here on nothing of ours gets there.
            websocket.freeze()
            return "ada"

        with anyio.fail_after(2000), pytest.raises((NoReply, KernelDied)):
            await ch.run("ask", on_input=answer)


async def test_what_is_on_its_way_takes_its_time() -> None:
    """Behind a large message on a slow connection a pong comes late; that is no silence yet."""
    async with opened() as (fake, _kernel, ch):
        (websocket,) = fake.websockets()
        websocket.freeze()
        began = anyio.current_time()
        content = {"comm_id": "c", "data": {}}
        await ch.shell.send(
            {"header": {"msg_type": "comm_msg"}, "content": content, "buffers": [bytes(8_000_000)]}
        )
        with anyio.fail_after(2000):
            while not ch.statistics().outages:
                await anyio.sleep(1)
        # By its size, at the least that a connection is trusted to take; a small one would be over at the next ping.
        assert anyio.current_time() - began > 80


async def test_what_was_answered_is_not_on_its_way() -> None:
    async with opened() as (fake, _kernel, ch):
        for _ in range(10):
            await ch.run("#" + 2_000_000 * "x")
        (websocket,) = fake.websockets()
        # What answers the ping behind them is here as well.
        vigil = ch._core.transport._vigil  # type: ignore[attr-defined]
        # By their size alone they would be on their way for 200 s.
        with anyio.fail_after(100):
            while vigil._through_at > anyio.current_time() + 1:
                await anyio.sleep(0.1)
        websocket.freeze()
        began = anyio.current_time()
        with anyio.fail_after(2000):
            while not ch.statistics().outages:
                await anyio.sleep(1)
        assert anyio.current_time() - began < 100


async def test_what_others_say_is_no_answer_of_ours() -> None:
    """A server that has lost the way of what we send, and goes on to hand out what the kernel publishes."""
    async with open_fake_server() as fake, open_server(fake.url) as server:
        fake.on_start(scripted)
        async with (
            server.open_kernel() as kernel,
            kernel.open_channels() as others,
            kernel.open_channels() as ch,
        ):
            ours = next(each for each in fake.websockets() if each.session == ch.session)
            for name in ("shell", "control", "stdin"):
                ours._transport.outbound[name].drop(1000)

            async def chatter() -> None:
                while True:
                    await others.run("6 * 7")
                    await anyio.sleep(3)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(chatter)
                with anyio.fail_after(600):
                    with pytest.raises((NoReply, KernelDied)):
                        await ch.run("6 * 7")
                    assert (await ch.run("6 * 7")).status == "ok"
                tasks.cancel_scope.cancel()
