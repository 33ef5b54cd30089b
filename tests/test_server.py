"""Kernels behind a server that does what the test says: the same channels, and what can go wrong on the way to them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
import struct
import subprocess
import sys
import textwrap
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.abc
import pytest
import trustme
from anyio.streams.tls import TLSStream
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from conversation import text_of
from enchannel import (
    KernelChannels,
    KernelConnectError,
    KernelDied,
    KernelLaunchError,
    LocalProtocolError,
    Message,
    NoReply,
    Server,
    ServerError,
    ServerKernel,
    Transport,
    messages,
    open_channels,
    open_server,
)
from enchannel._conversations import replies
from enchannel._kernels import server_kernel
from enchannel._kernels.rest import Rest
from enchannel._protocol.server_url import ServerUrl
from enchannel._protocol.server_wire import V1, pack
from enchannel._protocol.wire import Wire
from enchannel._transports.byte_stream import connect_bytes
from enchannel._transports.vigil import Vigil
from enchannel._transports.websocket import open_websocket
from enchannel.testing import (
    FakeKernel,
    FakeServer,
    KernelEnd,
    MemoryKernelEnd,
    Request,
    ask,
    check_transport,
    open_fake_server,
    pause,
    result,
    stream,
)
from raw_kernel import message
from server_proxy import server_proxy
from virtual_clock import jumping_backend  # noqa: F401

pytestmark = pytest.mark.anyio

LINES = 300

HOST = "enchannel kernel of a server"
"""The task that starts it, and deletes it."""


def scripted(kernel: FakeKernel) -> None:
    kernel.script("6 * 7", result("42"))
    kernel.script("lines", *(stream(f"{number}\n") for number in range(LINES)))
    kernel.script("ask", ask("name? "))
    kernel.script("sleep", pause(1000))


@asynccontextmanager
async def opened(
    **options: Any,
) -> AsyncIterator[tuple[FakeServer, Server, ServerKernel, KernelChannels]]:
    channel_options = {
        name: options.pop(name) for name in tuple(options) if name not in ("token", "base", "v1")
    }
    async with open_fake_server(**options) as fake:
        fake.on_start(scripted)
        async with (
            open_server(fake.url, token=fake.token) as server,
            server.open_kernel("python3") as kernel,
            kernel.open_channels(**channel_options) as ch,
        ):
            yield fake, server, kernel, ch


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's, with its certificate, and that of who trusts it."""
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return serving, trusting


@pytest.fixture(params=[True, False], ids=["v1", "default"])
def v1(request: pytest.FixtureRequest) -> bool:
    return request.param


ALL_LINES = "".join(f"{number}\n" for number in range(LINES))


async def counted(ch: KernelChannels, what: str, times: int = 1) -> None:
    with anyio.fail_after(10):
        while getattr(ch.statistics(), what) < times:
            await anyio.sleep(0.005)


# What is the same as everywhere.


async def test_the_transport_keeps_the_rules(v1: bool) -> None:
    class Vanishing(MemoryKernelEnd):
        """Takes the way to it along."""

        def vanish(self, reason: str = "") -> None:
            tasks.start_soon(self.cut)

        async def cut(self) -> None:
            fake.refuse(404, times=100)
            for websocket in fake.websockets():
                await websocket.cut()

    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Transport, KernelEnd]]:
        end = Vanishing()
        async with open_server(fake.url) as server:
            transport = await server.connect(fake.host(end))
            try:
                yield transport, end
            finally:
                await transport.aclose()
                fake._refusals.clear()

    async with anyio.create_task_group() as tasks:
        async with open_fake_server(v1=v1) as fake:
            await check_transport(make)


async def test_a_conversation_of_each_kind(v1: bool) -> None:
    async with opened(v1=v1) as (fake, _, kernel, ch):
        fake_kernel = fake.kernels[kernel.id]
        fake_kernel.on_comm(
            "echo", lambda comm, said: comm.send(said.content["data"], buffers=said.buffers)
        )
        done = await ch.run("6 * 7")
        assert done.outputs[0]["data"] == {"text/plain": "42"}
        assert (await ch.request("complete_request", {"code": "x", "cursor_pos": 1})).content
        done = await ch.run("ask", on_input=lambda prompt, password: f"ada at {prompt}")
        assert done.status == "ok"
        async with ch.open_comm("echo", {}) as comm:
            await comm.send({"a": 1}, buffers=[b"\0" * 5_000_000])
            with anyio.fail_after(20):
                while not (received := await comm.receive()).buffers:
                    pass
        assert bytes(received.buffers[0]) == b"\0" * 5_000_000
        async with ch.execute("sleep") as execution:
            async for said in execution:
                if said.msg_type == "execute_input":
                    await ch.interrupt()
        assert (await execution.wait()).content["status"] == "error"
        await kernel.restart()
        assert (await ch.run("6 * 7")).execution_count == 1
        assert ch.statistics().restarts == 1
        assert ch.statistics().outages == 0
        assert (await ch.kernel_info())["status"] == "ok"


async def test_the_session_is_that_of_the_websocket() -> None:
    async with opened(session="ours") as (fake, _, kernel, ch):
        sent = await ch.shell.send(messages.kernel_info_request())
        assert sent.session == "ours"
        assert fake.websockets()[0].session == "ours"
        with pytest.raises(LocalProtocolError, match="ASCII"):
            async with kernel.open_channels("ü"):
                pass


async def test_a_transport_alone() -> None:
    async with open_fake_server() as fake, open_server(fake.url) as server:
        fake.on_start(scripted)
        kernel_id = await fake.start_kernel()
        transport = await server.connect(kernel_id, channels=("shell", "iopub"))
        for _ in range(2):
            async with open_channels(transport) as ch:
                assert (await ch.run("6 * 7")).status == "ok"
                with pytest.raises(LocalProtocolError):
                    await ch.control.send(messages.kernel_info_request())
        with pytest.raises(LocalProtocolError, match="session"):
            async with open_channels(transport, session="another"):
                pass
        await transport.aclose()
        with pytest.raises(ServerError, match="has no kernel"):
            await server.connect("nowhere")


async def test_what_is_sent_last_in_a_block_goes_out_before_the_next_one() -> None:
    """However large it is, and what is sent there goes out as well."""
    async with open_fake_server() as fake, open_server(fake.url) as server:
        kernel_id = await fake.start_kernel()
        transport = await server.connect(kernel_id)
        seen: list[int] = []

        async def note(request: Any) -> None:
            seen.append(len(request.message.content["code"]))

        codes = [f"#{'x' * size}" for size in (7_000_000, 8_000_000, 9_000_000)]
        for code in codes:
            fake.kernels[kernel_id].script(code, note)
        for code in codes:
            async with open_channels(transport) as ch:
                await ch.shell.send(messages.execute_request(code))
        async with open_channels(transport) as ch:
            with anyio.fail_after(30):
                assert (await ch.kernel_info())["status"] == "ok"
        assert seen == list(map(len, codes))
        await transport.aclose()


async def test_a_transport_whose_kernel_is_gone() -> None:
    async with open_fake_server() as fake, open_server(fake.url) as server:
        kernel_id = await fake.start_kernel()
        transport = await server.connect(kernel_id)
        fake.forget(kernel_id)
        for _ in range(2):
            with anyio.fail_after(9), pytest.raises(KernelDied, match="gone"):
                async with open_channels(transport) as ch:
                    await ch.request("kernel_info_request", {})
        await transport.aclose()


async def test_a_kernel_of_somebody_else_is_left_running() -> None:
    async with open_fake_server() as fake, open_server(fake.url) as server:
        fake.on_start(scripted)
        kernel_id = await fake.start_kernel()
        async with server.attach(kernel_id) as kernel, kernel.open_channels() as ch:
            assert kernel.name == "python3"
            assert (await ch.run("6 * 7")).status == "ok"
        (model,) = await server.list_kernels()
        assert model.id == kernel_id
        assert model.last_activity is not None
        with pytest.raises(ServerError, match="has no kernel nothing") as caught:
            async with server.attach("nothing"):
                pass
        assert caught.value.status == 404


async def test_only_the_channels_that_are_wanted() -> None:
    async with open_fake_server() as fake, open_server(fake.url) as server:
        async with server.open_kernel() as kernel:
            async with kernel.open_channels(channels=("control",)) as ch:
                reply = await ch.request("kernel_info_request", channel="control")
                assert reply.content["status"] == "ok"
            with pytest.raises(LocalProtocolError, match="channels are some of"):
                async with kernel.open_channels(channels=("hb",)):  # type: ignore[arg-type]
                    pass


async def test_without_a_quick_acknowledgement_a_pong_carries_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in ("byte_stream", "websocket"):
        monkeypatch.setattr(f"enchannel._transports.{module}.QUICKACK", None)
    seen: list[Opcode] = []
    receive = ServerProtocol.recv_frame

    def look(self: ServerProtocol, frame: Frame) -> None:
        seen.append(frame.opcode)
        receive(self, frame)

    monkeypatch.setattr(ServerProtocol, "recv_frame", look)
    async with opened() as (_, _, _, ch):
        assert (await ch.run("6 * 7")).status == "ok"
        assert Opcode.PONG in seen


async def test_every_address_of_a_host_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(host: str) -> list[str]:
        # One that refuses, and one that says nothing.
        return ["::1", "127.0.0.1"] if host == "two.example" else ["127.0.0.9"]

    monkeypatch.setattr("enchannel._transports.byte_stream.resolve", resolve)
    async with open_fake_server() as fake:
        port = urlsplit(fake.url).port
        assert port is not None
        stream = await connect_bytes("two.example", port, None)
        stream.close()
        stream.close()
        with pytest.raises(OSError, match="refused"):
            await connect_bytes("another.example", port, None)


# The connection goes.

Cut = Callable[[Any], Awaitable[None]]


@pytest.mark.parametrize("way", ["reset", "cut", "close"])
async def test_what_is_in_flight_goes_on_behind_a_lost_websocket(
    way: str, v1: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(v1=v1) as (fake, _, kernel, ch):
        steps = [stream(f"{number}\n") for number in range(LINES)]
        gate = anyio.Event()

        async def held(request: Any) -> None:
            await gate.wait()

        fake.kernels[kernel.id].script("lines", *steps[:100], held, *steps[100:])
        async with ch.execute("lines") as execution:
            with anyio.fail_after(10):
                while not text_of(execution.outputs).endswith("99\n"):
                    await execution.__anext__()
            await getattr(fake.websockets()[0], way)()
            gate.set()
            with anyio.fail_after(20):
                reply = await execution.wait()
        assert reply.content["status"] == "ok"
        assert text_of(execution.outputs) == ALL_LINES
        statistics = ch.statistics()
        assert statistics.outages == 1
        # What a server has closed in order lacks nothing; of the others nobody knows.
        assert statistics.gaps == (0 if way == "close" else 1)
        said = "was kept" if way == "close" else "may be lost"
        assert any(said in record.message for record in caplog.records)


@pytest.mark.parametrize("secure", [False, True])
async def test_a_send_that_fails_loses_nothing_that_had_arrived(secure: bool) -> None:
    """Nor the close frame behind it, which says that it was all."""
    serving, trusting = contexts() if secure else (None, None)
    async with open_fake_server(ssl_context=serving) as fake:
        url = ServerUrl.parse(fake.url)
        path = url.channels_path(await fake.start_kernel(), "ours")
        ours = await open_websocket(url, path, token=None, tls=trusting)
        (theirs,) = await fake.wait_websockets(1)
        # As few as TCP sends before anything is acknowledged.
        said = [b"%d" % number for number in range(5)]
        for each in said:
            await theirs.send_raw(each)
        await theirs.close()
        with anyio.fail_after(20):
            # The first is answered by a reset, of which the next hears.
            while not ours.cut_off:
                ours.send_nowait(b"x", text=False)
                await anyio.sleep(0)
        arrived: list[bytes] = []
        while not ours.ended:
            arrived += [bytes(data) for data, _ in ours.receive_nowait()]
        assert arrived == said
        assert ours.closed_in_order
        await ours.aclose()


async def test_a_prompt_outlives_the_websocket() -> None:
    async with opened() as (fake, _, _, ch):

        async def answer(prompt: str, password: bool) -> str:
            (websocket,) = fake.websockets()
            await websocket.reset()
            return "ada"

        with anyio.fail_after(20):
            done = await ch.run("ask", on_input=answer)
        assert done.status == "ok"


async def test_where_somebody_else_was_connected_something_may_be_lost() -> None:
    async with opened() as (fake, _, kernel, ch), kernel.open_channels() as other:
        await other.run("6 * 7")
        mine = next(each for each in fake.websockets() if each.session == ch._core.session)
        await mine.close()
        await counted(ch, "outages")
        assert ch.statistics().gaps == 1
        assert (await ch.run("6 * 7")).status == "ok"


async def test_the_server_is_tried_again_where_it_is_away_for_a_moment() -> None:
    async with opened() as (fake, _, _, ch):
        for status in (502, 503, 504):
            fake.refuse(status, "<html><title>Bad Gateway</title></html>")
        await fake.websockets()[0].reset()
        with anyio.fail_after(20):
            assert (await ch.run("6 * 7")).status == "ok"
        assert fake._refusals == []


REFUSALS: dict[int, tuple[str, str]] = {
    404: ("exited", "has no kernel"),
    403: ("disconnected", "refuses the token"),
    401: ("disconnected", "refuses the token"),
    302: ("disconnected", "redirects to hub/login"),
}


@pytest.mark.parametrize("status", REFUSALS)
async def test_a_refusal_ends_it_at_once(status: int) -> None:
    reason, said = REFUSALS[status]
    async with opened(token="the-token") as (fake, _, _, ch):
        fake.refuse(status, times=50, headers={"Location": "http://hub/login?next=the-token"})
        with anyio.fail_after(30):
            await fake.websockets()[0].reset()
            with pytest.raises(KernelDied, match=said) as caught:
                await ch.run("6 * 7")
            assert (await ch.wait_lost()).reason == reason
        assert caught.value.reason == reason
        assert ch.status == "dead"
        fake._refusals.clear()


async def test_a_server_that_does_not_come_back_is_given_up() -> None:
    async with opened(reconnect_timeout=0.5) as (fake, _, _, ch):
        fake.refuse(502, times=1000)
        await fake.websockets()[0].reset()
        with (
            anyio.fail_after(30),
            pytest.raises(KernelDied, match="did not come back within 0.5 s"),
        ):
            await ch.run("6 * 7")
        fake._refusals.clear()


async def test_a_message_that_is_larger_than_the_server_takes_is_not_sent() -> None:
    async with opened(max_sent_size=100_000) as (_, _, _, ch):
        with pytest.raises(LocalProtocolError, match="more than a server takes"):
            await ch.run("#" * 100_000)
        assert (await ch.run("6 * 7")).status == "ok"
        assert ch.statistics().outages == 0


async def test_what_a_kernel_says_may_be_more_than_can_be_said_back() -> None:
    large = "x" * 100_000

    def step(request: Request) -> None:
        state = {"_model_name": "OutputModel", "msg_id": request.message.msg_id, "outputs": []}
        widget = {"target_name": "jupyter.widget", "data": {"state": state}}
        request.publish("comm_open", {"comm_id": "out", **widget})
        request.publish("comm_open", {"comm_id": large, "target_name": "nobody's", "data": {}})
        request.publish("stream", {"name": "stdout", "text": large})

    async with opened(max_sent_size=100_000) as (fake, _, kernel, ch):
        fake.kernels[kernel.id].script("x", step)
        async with ch.accept_comms("target"), ch.open_output_widgets() as widgets:
            assert (await ch.run("x")).status == "ok"
            assert widgets.areas["out"].text == large
            assert (await ch.run("6 * 7")).status == "ok"
        assert ch.lost is None


# The kernel goes, and the websocket stays.


async def test_a_kernel_that_is_gone_without_a_word_is_asked_for() -> None:
    async with opened() as (fake, _, kernel, ch):
        fake.forget(kernel.id)
        with anyio.fail_after(15), pytest.raises(KernelDied, match="the kernel is gone") as caught:
            await ch.run("6 * 7")
        assert caught.value.reason == "exited"


async def test_a_kernel_that_says_that_it_exits_is_gone_soon() -> None:
    async with opened() as (fake, _, kernel, ch):
        fake.kernels[kernel.id].publish("shutdown_reply", {"status": "ok", "restart": False})
        fake.forget(kernel.id)
        with anyio.fail_after(15):
            assert (await ch.wait_lost()).reason == "exited"


async def test_a_restart_that_the_server_refuses_is_none() -> None:
    async with opened() as (fake, _, kernel, ch), ch.execute("sleep") as execution:
        async for said in execution:
            if said.msg_type == "execute_input":
                break
        fake.refuse(403, {"message": "not today"})
        with pytest.raises(ServerError, match="not today"):
            await kernel.restart()
        await ch.interrupt()
        with anyio.fail_after(10):
            assert (await execution.wait()).content["ename"] == "KeyboardInterrupt"
        assert ch.statistics().restarts == 0


class Refusing:
    """Holds back the next restart, and refuses it when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._ask = Rest.ask
        self.asked, self.refuse = anyio.Event(), anyio.Event()
        monkeypatch.setattr(Rest, "ask", lambda *args, **options: self._hold(*args, **options))

    async def _hold(self, rest: Rest, method: str, path: str, *args: Any, **options: Any) -> Any:
        if path.endswith("/restart"):
            self.asked.set()
            await self.refuse.wait()
            raise ServerError("not today", 403)
        return await self._ask(rest, method, path, *args, **options)


async def away(ch: KernelChannels) -> None:
    with anyio.fail_after(20):
        while not ch._core.outage.lost:
            await ch._core.changed.wait()


@pytest.mark.parametrize("way", ["refuses", "hangs", "forgets"])
async def test_an_interrupt_that_a_server_cannot_do_is_no_reply(way: str) -> None:
    """Who interrupts over the channels knows nothing of servers."""
    async with opened() as (fake, _, kernel, ch):
        if way == "refuses":
            fake.refuse(500, {"message": "busy"}, times=2)
        elif way == "hangs":
            fake.hangs = "/interrupt"
        else:
            fake.forget(kernel.id)
            with pytest.raises(KernelDied, match="is gone"):
                await ch.interrupt()
            return
        said = "refuses .busy" if way == "refuses" else "has not answered within 5 s"
        with anyio.fail_after(6), pytest.raises(NoReply, match=said) as caught:
            await ch.interrupt()
        assert isinstance(caught.value.__cause__, ServerError)
        if way == "refuses":
            with pytest.raises(ServerError, match="busy"):
                await kernel.interrupt()
        fake.resume()
        assert (await ch.run("6 * 7")).status == "ok"


def test_an_interrupt_through_a_server_takes_no_longer_than_any_other() -> None:
    assert server_kernel.INTERRUPT_REPLY == replies.INTERRUPT_REPLY == 5


@pytest.mark.parametrize("is_away_before", [False, True])
async def test_an_outage_during_a_restart_that_is_refused_is_an_outage(
    is_away_before: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refusing = Refusing(monkeypatch)
    async with opened() as (fake, _, kernel, ch), anyio.create_task_group() as tasks:
        # The request is lost with the websocket.
        fake.websockets()[0]._transport.outbound["shell"].drop()

        async def ask() -> None:
            with anyio.fail_after(20), pytest.raises(NoReply) as caught:
                await ch.request("inspect_request", {"code": "", "cursor_pos": 0})
            assert caught.value.reason == "disconnected"

        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        if is_away_before:
            fake.hangs = True
            await fake.websockets()[0].reset()
            await away(ch)
        tasks.start_soon(fails_to_restart, kernel, ServerError, "not today")
        await refusing.asked.wait()
        if is_away_before:
            fake.resume()
        else:
            await fake.websockets()[0].reset()
        await away(ch)
        with anyio.fail_after(20):
            while ch._core.transport.unconnected():
                await ch._core.changed.wait()
        assert ch.statistics().outages == 0
        refusing.refuse.set()
    statistics = ch.statistics()
    assert (statistics.outages, statistics.gaps, statistics.restarts) == (1, 1, 0)
    assert any("had it back after" in record.message for record in caplog.records)


async def test_a_connection_that_a_refused_restart_leaves_away_is_waited_for_as_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusing, timeout = Refusing(monkeypatch), 0.5
    async with opened(reconnect_timeout=timeout) as (fake, _, kernel, ch):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fails_to_restart, kernel, ServerError, "not today")
            await refusing.asked.wait()
            fake.hangs = True
            await fake.websockets()[0].reset()
            await anyio.sleep(2 * timeout)
            assert ch.lost is None
            refusing.refuse.set()
        refused = anyio.current_time()
        with anyio.fail_after(20), pytest.raises(KernelDied, match="did not come back within"):
            await ch.run("6 * 7")
        assert anyio.current_time() - refused > 0.8 * timeout
        fake.resume()


async def test_a_kernel_that_dies_during_a_restart_that_is_refused_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusing = Refusing(monkeypatch)
    async with opened() as (fake, _, kernel, ch), anyio.create_task_group() as tasks:

        async def run() -> None:
            with anyio.fail_after(20), pytest.raises(KernelDied) as caught:
                await ch.run("sleep")
            assert caught.value.reason == "restarted"

        tasks.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(fails_to_restart, kernel, ServerError, "not today")
        await refusing.asked.wait()
        fake.kernels[kernel.id].die()
        with anyio.fail_after(20):
            while ch._core.outage.death is None:
                await ch._core.changed.wait()
        refusing.refuse.set()
        with anyio.fail_after(20):
            assert (await ch.run("6 * 7")).status == "ok"
        assert (ch.statistics().restarts, ch.statistics().outages) == (1, 0)


async def test_what_a_kernel_says_while_its_websocket_is_closed_is_kept() -> None:
    async with opened() as (fake, _, kernel, ch):
        hosted, ids = fake.kernels[kernel.id], [str(number) for number in range(300)]
        hosted.script("x", *(step for each in ids for step in (stream(f"{each} "), pause(0))))
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                assert text_of((await ch.run("x")).outputs).split() == ids

            tasks.start_soon(run)
            for received in (50, 150):
                while ch.statistics().received["iopub"] < received:
                    await anyio.sleep(0)
                await fake.websockets()[0].close()
                await fake.wait_websockets(1)


async def test_a_restart_that_reaches_nobody_is_none() -> None:
    async with (
        open_fake_server() as fake,
        server_proxy(fake.url) as proxy,
        open_server(proxy.url) as server,
        server.open_kernel() as kernel,
        kernel.open_channels() as ch,
    ):
        go_on = anyio.Event()

        async def held(_: Any) -> None:
            await go_on.wait()

        fake.kernels[kernel.id].script("x", stream("begun"), held, stream(" done"))
        async with ch.execute("x") as execution:
            async for said in execution:
                if said.msg_type == "stream":
                    break
            await proxy.go()
            with pytest.raises(ServerError, match="no answer"):
                await kernel.restart()
            await proxy.come()
            go_on.set()
            with anyio.fail_after(20):
                assert (await execution.wait()).content["status"] == "ok"
        assert text_of(execution.outputs) == "begun done"
        assert ch.statistics().restarts == 0


async def test_a_server_that_is_away_is_not_waited_for_long_to_delete_a_kernel() -> None:
    async with (
        open_fake_server() as fake,
        server_proxy(fake.url) as proxy,
        open_server(proxy.url) as server,
    ):
        async with server.open_kernel():
            await proxy.go()
            began = anyio.current_time()
        assert anyio.current_time() - began < 15


async def test_what_a_server_keeps_of_the_kernel_before_is_dropped() -> None:
    async with opened() as (fake, _, kernel, ch):
        before = fake.websockets()[0]._transport
        await kernel.restart()
        await fake.wait_websockets(1)
        assert (await ch.run("6 * 7")).status == "ok"
        assert fake.websockets()[0]._transport is not before
        # It is the routing id of the server's sockets too, and the one before may still have something to say.
        assert fake.websockets()[0].session != ch._core.session


async def test_a_server_that_takes_every_websocket_and_ends_it_is_not_stormed() -> None:
    async with opened() as (fake, _, _, ch):
        fake.ends_websockets = True
        handshakes = len([path for _, path in fake.requests if path.endswith("/channels")])
        await fake.websockets()[0].close()
        await anyio.sleep(2)
        more = len([path for _, path in fake.requests if path.endswith("/channels")]) - handshakes
        assert 2 <= more <= 12
        fake.ends_websockets = False
        with anyio.fail_after(20):
            assert (await ch.run("6 * 7")).status == "ok"


async def test_a_lost_request_is_told_however_often_the_websocket_goes() -> None:
    async with opened() as (fake, _, _, ch), anyio.create_task_group() as tasks:
        fake.websockets()[0]._transport.outbound["shell"].drop()

        async def ask() -> None:
            with pytest.raises(NoReply):
                await ch.request("inspect_request", {"code": "", "cursor_pos": 0})
            tasks.cancel_scope.cancel()

        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(20):
            while True:
                await fake.wait_websockets(1)
                await fake.websockets()[0].reset()
                await anyio.sleep(0.4)


async def test_a_restart_that_the_server_fails_at_or_never_ends() -> None:
    async with opened(reconnect_timeout=0.5) as (fake, _, kernel, ch):
        fake.refuse(500, {"message": "Exception restarting kernel"})
        with pytest.raises(ServerError, match="Exception restarting kernel"):
            await kernel.restart()
        with anyio.fail_after(10):
            assert (await ch.run("6 * 7")).status == "ok"
        fake.hangs = True
        with anyio.move_on_after(0.2) as scope:
            await kernel.restart()
        assert scope.cancelled_caught
        fake.resume()
        with anyio.fail_after(20):
            assert (await ch.run("6 * 7")).status == "ok"


def restarts_asked(fake: FakeServer) -> int:
    return len([path for _, path in fake.requests if path.endswith("/restart")])


async def test_a_restart_that_is_cancelled_goes_on_and_the_next_one_waits_for_it() -> None:
    """Servers lose a kernel between two restarts."""
    async with opened() as (fake, _, kernel, ch), anyio.create_task_group() as tasks:
        fake.hangs = "/restart"
        with anyio.move_on_after(0.2):
            await kernel.restart()
        tasks.start_soon(kernel.restart)
        while not restarts_asked(fake):
            await anyio.sleep(0.01)
        await anyio.sleep(0.2)
        assert restarts_asked(fake) == 1
        fake.resume()
        with anyio.fail_after(20):
            assert (await ch.run("6 * 7")).status == "ok"
        assert restarts_asked(fake) == ch.statistics().restarts == 2


async def test_all_who_have_a_kernel_of_one_server_take_turns_to_restart_it() -> None:
    async with opened() as (fake, server, mine, ch):
        async with server.attach(mine.id) as other, other.open_channels() as other_ch:
            fake.hangs = "/restart"
            async with anyio.create_task_group() as both:
                both.start_soon(other.restart)
                while not restarts_asked(fake):
                    await anyio.sleep(0.005)
                both.start_soon(mine.restart)
                # Who waits for another's is told at once that his block is left.
                with anyio.fail_after(10):
                    async with anyio.create_task_group() as waiting:
                        async with server.attach(mine.id) as third:
                            left = anyio.ClosedResourceError, "was left"
                            waiting.start_soon(fails_to_restart, third, *left)
                            await anyio.wait_all_tasks_blocked()
                assert restarts_asked(fake) == 1
                fake.resume()
            assert restarts_asked(fake) == 2
            with anyio.fail_after(20):
                assert (await ch.run("6 * 7")).status == "ok"
                assert (await other_ch.run("6 * 7")).status == "ok"


async def fails_to_restart(kernel: ServerKernel, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        await kernel.restart()


async def test_a_shutdown_waits_for_no_restart_and_ends_them_all() -> None:
    async with opened() as (fake, _, kernel, ch), anyio.create_task_group() as tasks:
        fake.hangs = "/restart"
        for _ in range(3):
            tasks.start_soon(fails_to_restart, kernel, KernelDied, "was shut down")
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(10):
            await kernel.shut_down()
            assert (await ch.wait_lost()).reason == "exited"
        assert fake.kernels == {}
        assert restarts_asked(fake) == 1


async def test_a_shutdown_that_fails_ends_no_restart() -> None:
    async with opened() as (fake, _, kernel, ch), anyio.create_task_group() as tasks:
        fake.hangs = "/restart"
        tasks.start_soon(kernel.restart)
        while not restarts_asked(fake):
            await anyio.sleep(0.01)
        fake.refuse(403, {"message": "not today"})
        with pytest.raises(ServerError, match="not today"):
            await kernel.shut_down()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await kernel.shut_down()
        fake.resume()
        with anyio.fail_after(10):
            assert (await ch.run("6 * 7")).status == "ok"


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("attached", [False, True])
async def test_a_restart_whose_block_is_left_is_given_up(attached: bool, cancelled: bool) -> None:
    error, match = (anyio.ClosedResourceError, "was left") if attached else (KernelDied, "was shut")
    async with (
        open_fake_server() as fake,
        open_server(fake.url) as server,
        server.open_kernel() as mine,
        anyio.create_task_group() as tasks,
    ):
        fake.hangs = "/restart"
        block = server.attach(mine.id) if attached else server.open_kernel()
        with anyio.CancelScope() as scope:
            async with block as kernel, kernel.open_channels():
                for _ in range(2):
                    tasks.start_soon(fails_to_restart, kernel, error, match)
                while not restarts_asked(fake):
                    await anyio.sleep(0.01)
                if cancelled:
                    scope.cancel()
        with anyio.fail_after(10):
            await fails_to_restart(kernel, error, match)


async def test_a_restart_that_is_shielded_takes_place_in_a_block_that_is_cancelled() -> None:
    async with open_fake_server() as fake, open_server(fake.url) as server:
        with anyio.CancelScope() as scope:
            async with server.open_kernel() as kernel:
                scope.cancel()
                with anyio.CancelScope(shield=True):
                    await kernel.restart()
        assert restarts_asked(fake) == 1


async def test_a_kernel_that_dies_is_restarted_and_that_is_told() -> None:
    async with opened() as (fake, _, kernel, ch), ch.subscribe("iopub") as published:
        async with ch.execute("sleep") as execution:
            await published.receive()
            fake.kernels[kernel.id].die()
            with anyio.fail_after(30), pytest.raises(KernelDied, match="starts it again") as caught:
                await execution.wait()
        assert caught.value.reason == "restarted"
        with anyio.fail_after(10):
            assert (await ch.run("6 * 7")).execution_count == 1
        statistics = ch.statistics()
        assert (statistics.restarts, statistics.outages) == (1, 0)
        # What the server said of it is none of the kernel's statuses.
        with anyio.move_on_after(0.1):
            async for _, said in published:
                assert said.content.get("execution_state") != "restarting"


async def test_a_kernel_that_dies_again_and_again_is_dead() -> None:
    async with opened() as (fake, _, kernel, ch):
        for times in range(1, 6):
            fake.kernels[kernel.id].die()
            await counted(ch, "restarts", times)
            with anyio.fail_after(10):
                assert (await ch.run("6 * 7")).status == "ok"
        fake.kernels[kernel.id].die()
        with anyio.fail_after(30):
            died = await ch.wait_lost()
        assert died.reason == "exited"
        assert "dead" in str(died)


async def test_a_kernel_that_cannot_be_deleted_just_now_is_in_a_moment() -> None:
    async with opened() as (fake, _, kernel, _):
        fake.refuse(500, {"message": "Unhandled error"}, times=2)
        await kernel.shut_down()
        assert fake.kernels == {}


async def test_waiting_for_a_kernel_whose_channels_know_that_it_is_gone() -> None:
    async with opened() as (fake, _, kernel, ch):
        await fake.websockets()[0].say_status("dead")
        await ch.wait_lost()
        asked = len(fake.requests)
        with anyio.fail_after(30):
            await kernel.wait()
        assert len(fake.requests) - asked <= 2


async def test_leaving_the_block_of_a_kernel_tells_the_channels_of_others() -> None:
    async with open_fake_server() as fake, open_server(fake.url) as server:
        told = anyio.Event()

        async def read(ch: KernelChannels) -> None:
            with pytest.raises(KernelDied, match="was shut down"):
                await ch.shell.receive()
            told.set()

        async def use(kernel: ServerKernel, opened: anyio.Event) -> None:
            async with kernel.open_channels() as ch:
                opened.set()
                await read(ch)

        async with anyio.create_task_group() as tasks:
            async with server.open_kernel() as kernel:
                opening = anyio.Event()
                tasks.start_soon(use, kernel, opening)
                await opening.wait()
            with anyio.fail_after(30):
                await told.wait()
        assert "was shut down" in repr(kernel)
        with pytest.raises(KernelDied):
            await kernel.restart()


async def test_a_server_behind_its_block() -> None:
    async with open_fake_server() as fake:
        async with open_server(fake.url) as server:
            pass
        with pytest.raises(anyio.ClosedResourceError, match="the block of the server was left"):
            await server.list_kernels()


ODD: dict[str, Any] = {
    "null": "null",
    "number": "5",
    "list": "[1]",
    "deep": "[" * 100_000,
    "types": '{"id": 5, "name": [], "kernelspecs": 3, "version": {}}',
    "bytes": b"\xff\xfe",
}


@pytest.mark.parametrize("case", ODD)
@pytest.mark.parametrize("status", [200, 404, 500])
async def test_odd_answers(case: str, status: int) -> None:
    body = ODD[case] if isinstance(ODD[case], str) else ODD[case].decode("latin-1")
    async with open_fake_server() as fake, open_server(fake.url) as server:
        for call in (
            server.kernelspecs,
            server.list_kernels,
            lambda: server.open_kernel().__aenter__(),
            lambda: server.attach("an-id").__aenter__(),
        ):
            fake.refuse(status, body, times=2, headers={"Location": "http://[bad"})
            with contextlib.suppress(ServerError, KernelLaunchError):
                await call()
            fake._refusals.clear()


@pytest.mark.parametrize("status", [500, 503])
async def test_a_kernel_is_looked_for_where_nobody_knows_whether_it_is_started(status: int) -> None:
    async with open_fake_server() as fake, open_server(fake.url) as server:
        # The list of kernelspecs, and the start.
        fake.refuse(status, {"message": "no"}, times=2)
        with pytest.raises(ServerError):
            async with server.open_kernel():
                pass
        deleted = [method for method, _ in fake.requests].count("DELETE")
        assert deleted == 1 if status == 500 else deleted > 1


async def test_what_leaves_the_body_is_the_bodys() -> None:
    async with open_fake_server() as fake, open_server(fake.url) as server:
        with pytest.raises(ZeroDivisionError):
            async with server.open_kernel():
                fake.refuse(301, "", headers={"Location": "http://[bad"})
                raise ZeroDivisionError
        with pytest.raises(LocalProtocolError, match="path is text"):
            async with server.open_kernel(path="\udcff"):
                pass
        for wrong in (5, None, "", "..", "a/b", "\udcff", "x" * 5_000):
            with pytest.raises(LocalProtocolError, match="id of a kernel"):
                await server.connect(wrong)  # type: ignore[arg-type]
        with pytest.raises(LocalProtocolError, match="connect_timeout"):
            await server.connect("an-id", connect_timeout=-1)


async def test_a_close_that_comes_with_the_end_of_the_handshake() -> None:
    async with opened() as (fake, _, _, ch):
        fake.ends_websockets = True
        handshakes = len(fake.requests)
        await fake.websockets()[0].close()
        with anyio.fail_after(10):
            while len(fake.requests) < handshakes + 4:
                await anyio.sleep(0.01)
        fake.ends_websockets = False
        with anyio.fail_after(20):
            # The one that is open now may be about to be ended.
            with contextlib.suppress(NoReply):
                await ch.run("6 * 7")
            assert (await ch.run("6 * 7")).status == "ok"


async def test_a_handshake_that_is_cut_is_begun_once_more() -> None:
    """Also the first one, in which a kernel becomes ready."""
    cuts = 2
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with open_fake_server() as fake, listener, anyio.create_task_group() as tasks:
        port = int(fake.url.rsplit(":", 1)[1])

        async def pipe(source: Any, to: Any) -> None:
            nonlocal cuts
            with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                async for data in source:
                    if b"/channels" in data and cuts:
                        cuts -= 1
                        break
                    await to.send(data)
            await source.aclose()
            await to.aclose()

        async def serve(client: Any) -> None:
            server = await anyio.connect_tcp("127.0.0.1", port)
            async with client, server, anyio.create_task_group() as both:
                both.start_soon(pipe, client, server)
                both.start_soon(pipe, server, client)

        tasks.start_soon(listener.serve, serve)
        url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        async with open_server(url) as server, server.open_kernel() as kernel:
            assert kernel.id in fake.kernels
        assert not cuts
        tasks.cancel_scope.cancel()


async def test_much_that_was_lost_with_the_websocket_holds_up_nobody() -> None:
    """Nobody is pinged behind it, and no task goes round and round."""

    class Away:
        socket = None

    async def look() -> None:
        return None

    vigil = Vigil(Away(), look)  # type: ignore[arg-type]
    vigil.sent("shell", 5_000_000)
    with anyio.move_on_after(0.1) as scope:
        await vigil.ping()
    assert scope.cancelled_caught


async def test_a_command_to_a_websocket_that_has_ended() -> None:
    async with opened() as (fake, _, _, ch):
        (websocket,) = fake.websockets()
        await websocket.reset()
        await counted(ch, "outages")
        with pytest.raises(LocalProtocolError, match="has ended"):
            await websocket.reset()
        with pytest.raises(LocalProtocolError, match="has ended"):
            await websocket.say_rate_limit()


async def test_a_block_that_is_left_while_the_server_says_that_the_kernel_is_dead(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for way in ("dead", "forgotten"):
        async with opened() as (fake, _, kernel, ch):
            async with ch.execute("sleep") as execution:
                if way == "dead":
                    await fake.websockets()[0].say_status("dead")
                else:
                    await ch.shell.send(
                        {"header": {"msg_type": "x"}, "buffers": [b"1" * 9_000_000]}
                    )
                    fake.forget(kernel.id)
                with anyio.fail_after(30), pytest.raises(KernelDied):
                    await execution.wait()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_options_that_mean_nothing_there() -> None:
    async with open_fake_server() as fake, open_server(fake.url) as server:
        async with server.open_kernel() as kernel:
            with pytest.raises(TypeError, match="no option 'subscription'; there are username"):
                async with kernel.open_channels(subscription=b""):  # type: ignore[call-arg]
                    pass


async def test_waiting_for_the_end_of_a_kernel() -> None:
    async with opened() as (fake, _, kernel, _):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kernel.wait)
            await anyio.wait_all_tasks_blocked()
            fake.forget(kernel.id)
        with pytest.raises(KernelDied):
            await kernel.interrupt()
        with pytest.raises(KernelDied):
            async with kernel.open_channels():
                pass


async def test_a_kernel_that_is_shut_down_ends_its_channels() -> None:
    async with opened() as (fake, server, kernel, ch):
        await kernel.shut_down()
        await kernel.shut_down()
        await kernel.wait()
        assert fake.kernels == {}
        with pytest.raises(KernelDied, match="was shut down"):
            await ch.run("6 * 7")
        assert await server.list_kernels() == []


# What a server says in the kernel's name.


async def test_a_rate_limit_is_counted_and_no_output(caplog: pytest.LogCaptureFixture) -> None:
    async with opened() as (fake, _, _, ch):
        async with ch.execute("sleep") as execution:
            async for said in execution:
                if said.msg_type == "execute_input":
                    break
            for _ in range(3):
                await fake.websockets()[0].say_rate_limit(execution.request.header)
            await ch.interrupt()
            await execution.wait()
        assert not any(output["output_type"] == "stream" for output in execution.outputs)
        assert ch.statistics().rate_limited == 3
        warned = [record for record in caplog.records if "rate exceeded" in record.message]
        assert len(warned) == 1


async def test_the_one_output_that_a_server_has_dropped_is_missed() -> None:
    async with opened() as (fake, _, kernel, ch):
        hosted = fake.kernels[kernel.id]

        async def limited(request: Any) -> None:
            await fake.websockets()[0].say_rate_limit(request.message.header)

        hosted.script("x", stream("much"), limited)
        hosted.tamper(lambda _, said: [] if said.msg_type == "stream" else [said])
        assert (await ch.run("x")).missed == 1
        hosted.script("y", stream("much"))
        # It may be the number of an expression that shows itself, where nobody says anything.
        assert (await ch.run("y")).missed == 0


async def test_what_a_kernel_prints_that_looks_like_one_is_output() -> None:
    async with opened() as (fake, _, kernel, ch):
        fake.kernels[kernel.id].script("x", stream("IOPub message rate exceeded.\n", "stderr"))
        done = await ch.run("x")
        assert text_of(done.outputs) == "IOPub message rate exceeded.\n"
        assert ch.statistics().rate_limited == 0


# What is no message.


def wrong_frames(v1: bool) -> list[tuple[bytes, bool]]:
    good, text = pack("iopub", Wire().encode(message("stream", text="bad")), V1 if v1 else None)
    wrong = [(b"", False), (b"\0", False), (b"\0" * 4, False), (b"[]", True), (b"{", True)]
    wrong += [
        (struct.pack("<Q", count) + good, False) for count in (0, 5, 1 << 20, 1 << 40, 1 << 63)
    ]
    wrong += [(struct.pack(">I", count) + good, False) for count in (0, 5, 1 << 20, 1 << 31)]
    for number in range(30 if not text else 10):
        wrong.append((good[: number * len(good) // 40], text))
    return [*wrong, *[(b'{"header": %d}' % number, True) for number in range(20)]][:40]


async def test_what_is_no_message_costs_no_other(v1: bool) -> None:
    async with opened(v1=v1) as (fake, _, _kernel, ch), ch.subscribe("iopub") as published:
        (websocket,) = fake.websockets()
        for number, (data, text) in enumerate(wrong_frames(v1)):
            await websocket.send_raw(data, text=text)
            said = {"name": "stdout", "text": f"{number}"}
            good = Wire().encode(Message(message("stream").header, {}, {}, said))
            await websocket.send_raw(*_packed(good, v1))
        for number in range(40):
            with anyio.fail_after(10):
                while (got := (await published.receive())[1]).msg_type != "stream":
                    pass
            assert got.content["text"] == f"{number}"
        assert ch.statistics().dropped == {"MalformedMessage": 40}
        assert (await ch.run("6 * 7")).status == "ok"
        assert ch.statistics().outages == 0


def _packed(frames: Any, v1: bool) -> tuple[bytes]:
    return (pack("iopub", frames, V1)[0],)


async def test_a_connection_that_is_no_websocket_any_more_is_made_anew() -> None:
    async with opened() as (fake, _, _, ch):
        await fake.websockets()[0].send_bytes(b"\xff\xff\xff\xff\xff")
        await counted(ch, "outages")
        assert (await ch.run("6 * 7")).status == "ok"


async def test_a_message_in_pieces_and_one_that_is_cut() -> None:
    async with opened() as (fake, _, _, ch), ch.subscribe("iopub") as published:
        (websocket,) = fake.websockets()
        data, _ = pack("iopub", Wire().encode(message("stream", text="whole")), V1)
        first, second = data[:10], data[10:]
        await websocket.send_bytes(bytes([0x02, len(first)]) + first)
        await websocket.send_bytes(bytes([0x89, 0]))
        await websocket.send_bytes(bytes([0x80, 126]) + struct.pack(">H", len(second)) + second)
        with anyio.fail_after(30):
            while (await published.receive())[1].content.get("text") != "whole":
                pass
        await websocket.send_bytes(bytes([0x02, len(first)]) + first)
        await websocket.cut()
        await counted(ch, "outages")
        assert (await ch.run("6 * 7")).status == "ok"
        assert ch.statistics().dropped == {}


async def test_a_message_that_is_too_large_is_dropped_alone(v1: bool) -> None:
    async with opened(v1=v1, max_message_size=50_000) as (fake, _, kernel, ch):
        fake.kernels[kernel.id].script("x", stream("x" * 100_000), stream("small"))
        done = await ch.run("x")
        assert (text_of(done.outputs), done.refused) == ("small", 1)
        assert ch.statistics().dropped == {"MessageTooLarge": 1}


async def test_streams_with_a_bound_hold_up_the_server_and_lose_nothing() -> None:
    async with opened(max_buffer_size=10) as (fake, _, kernel, ch):
        fake.kernels[kernel.id].script("x", *(stream(f"{n}\n") for n in range(5_000)))
        async with ch.subscribe("iopub") as published, anyio.create_task_group() as tasks:
            tasks.start_soon(ch.run, "x")
            seen = 0
            with anyio.fail_after(60):
                while seen < 5_000:
                    _, said = await published.receive()
                    seen += said.msg_type == "stream"


async def jammed(ch: KernelChannels) -> None:
    """Waits until so much waits here that nothing more is read."""
    with anyio.fail_after(30):
        while not ch._core.transport.jammed:
            await anyio.sleep(0.005)


async def test_a_connection_that_ends_while_much_waits_here_is_noticed_by_who_sends() -> None:
    async with opened(max_buffer_size=10) as (fake, _, kernel, ch):
        fake.kernels[kernel.id].script("x", *(stream(f"{n}\n") for n in range(5_000)))
        async with ch.subscribe("iopub"):
            await ch.shell.send(messages.execute_request("x"))
            await jammed(ch)
            await fake.websockets()[0].reset()
            comm = {"header": {"msg_type": "comm_msg"}, "content": {"comm_id": "c", "data": {}}}
            with anyio.fail_after(20):
                for _ in range(3):
                    await ch.control.send(comm)
                await counted(ch, "outages")


@pytest.mark.parametrize("told", [True, False])
async def test_the_end_of_a_kernel_comes_behind_what_is_unread_of_it(told: bool) -> None:
    """Its server says so to the channels, or to who shuts it down."""
    lines = 3_000
    async with opened(max_buffer_size=10) as (fake, _, kernel, ch):
        fake.kernels[kernel.id].script("x", *(stream(f"{n}\n") for n in range(lines)))
        async with ch.subscribe("iopub") as published, kernel.open_channels() as other:
            await other.run("x")
            await jammed(ch)
            for websocket in fake.websockets():
                while websocket._has_more_to_say():
                    await anyio.sleep(0.005)
            if told:
                await published.receive()
                fake.forget(kernel.id)
                await ch.shell.send(messages.kernel_info_request())
                with anyio.fail_after(30):
                    await ch.wait_lost()
            else:
                await kernel.shut_down()
            texts = []
            with anyio.fail_after(30), pytest.raises(KernelDied):
                while True:
                    _, said = await published.receive()
                    texts += [said.content["text"]] if said.msg_type == "stream" else []
        assert texts == [f"{n}\n" for n in range(lines)]


async def test_who_waits_for_a_reply_behind_a_full_stream_of_his_own_has_it_at_once() -> None:
    """All come over one connection, from which nothing more is read when too much waits."""
    async with opened(max_buffer_size=10) as (fake, _, kernel, ch):
        fake.kernels[kernel.id].script("x", *(stream(f"{n}\n") for n in range(7_000)))
        async with ch.subscribe("iopub") as published:
            await ch.shell.send(messages.execute_request("x"))
            await ch.request("is_complete_request", {"code": ""})
            # It would be by then, had it been waited for.
            assert not any(held.stalled for held in ch._core.bound._held)
            assert ch.statistics().buffer_dropped
            said: dict[str, Any] = {}
            with anyio.fail_after(60):
                while said.get("execution_state") != "idle":
                    said = (await published.receive())[1].content


# Opening, and what a server refuses.


async def test_a_server_that_is_none() -> None:
    async with open_fake_server() as fake:
        fake.refuse(200, "<html>hello</html>")
        with pytest.raises(ServerError, match="no Jupyter Server's API"):
            async with open_server(fake.url):
                pass
    with pytest.raises(ServerError, match="Is it running"):
        async with open_server(fake.url):
            pass


SAID: dict[str, tuple[int, Any, str]] = {
    "no token": (403, {"message": "Forbidden", "reason": None}, "wants a token"),
    "no xsrf": (403, {"message": "'_xsrf' argument missing from POST"}, "wants a token"),
    "gateway": (401, {"message": "", "reason": "Unauthorized"}, "wants a token"),
    "login": (302, "", "redirects to hub/login: is its base URL right"),
    "page": (404, "<html><title>Jupyter Server</title></html>", "nothing at /api"),
    # Where each were looked at to the end it would take minutes.
    "unended": (404, "<title>" * 75_000, "nothing at /api"),
    "limit": (403, {"reason": "Resource Limit", "message": "no more"}, "refuses .Resource Limit: no more"),
    "proxy": (502, "<title>502 Bad\n Gateway</title>", "through what is before it .502 Bad Gateway"),
    "method": (405, {"message": "Method Not Allowed"}, "does not offer that"),
    "silence": (500, "", "with status 500, without a word"),
}  # fmt: skip


@pytest.mark.parametrize("case", SAID)
async def test_each_refusal_says_what_to_do(case: str) -> None:
    status, body, said = SAID[case]
    async with open_fake_server() as fake:
        fake.refuse(status, body, headers={"Location": "http://hub/login?next=x"})
        with pytest.raises(ServerError, match=said) as caught:
            async with open_server(fake.url):
                pass
        assert caught.value.status == status


async def test_a_kernelspec_that_is_not_there() -> None:
    async with open_fake_server() as fake, open_server(fake.url) as server:
        with pytest.raises(ServerError, match=r"no kernelspec 'ruby'; it has python3"):
            async with server.open_kernel("ruby"):
                pass
        (spec,) = await server.kernelspecs()
        assert (spec.name, spec.language, spec.is_default) == ("python3", "python", True)
        assert not any(method == "POST" for method, _ in fake.requests)


async def test_a_kernel_that_exits_while_it_starts() -> None:
    async with open_fake_server() as fake, open_server(fake.url) as server:

        def vanish(kernel: FakeKernel) -> None:
            kernel.on("kernel_info_request", lambda request: gone())

        def gone() -> None:
            for kernel_id in tuple(fake.kernels):
                fake.forget(kernel_id)

        fake.on_start(vanish)
        with (
            anyio.fail_after(10),
            pytest.raises(KernelLaunchError, match="exited before") as caught,
        ):
            async with server.open_kernel():
                pass
        assert caught.value.reason == "exited"


async def test_a_kernel_that_is_never_ready() -> None:
    async with open_fake_server() as fake, open_server(fake.url) as server:
        fake.on_start(lambda kernel: kernel.go_silent())
        with anyio.fail_after(10), pytest.raises(KernelLaunchError, match="not ready within 0.5 s"):
            async with server.open_kernel(startup_timeout=0.5):
                pass
        assert fake.kernels == {}


async def test_a_handshake_that_hangs() -> None:
    async with open_fake_server() as fake, open_server(fake.url) as server:
        kernel_id = await fake.start_kernel()
        fake.hangs = True
        with (
            anyio.fail_after(8),
            pytest.raises(KernelConnectError, match=f"within 0.3 s.*{kernel_id}"),
        ):
            await server.connect(kernel_id, connect_timeout=0.3)
        with anyio.fail_after(8), pytest.raises(ServerError, match="has not answered within 0.3 s"):
            async with open_server(fake.url, connect_timeout=0.3):
                pass


def test_what_needs_the_extra_says_so_and_nothing_else_needs_it() -> None:
    program = """
import sys
sys.modules["websockets"] = sys.modules["httpx2"] = None
from enchannel import *
from enchannel.testing import *
import enchannel, enchannel._cli.commands, inspect
inspect.getmembers(enchannel)
for call in (lambda: enchannel.open_server("http://host"), open_fake_server):
    try:
        call()
    except LocalProtocolError as error:
        assert 'pip install "enchannel[server]"' in str(error)
    else:
        raise AssertionError(call)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


async def test_a_server_that_hangs_delays_no_other() -> None:
    async with (
        open_fake_server() as hanging,
        open_server(hanging.url) as hung,
        opened() as (_, _, _, ch),
        anyio.create_task_group() as tasks,
    ):
        hanging.hangs = True
        for _ in range(20):
            tasks.start_soon(hung.list_kernels)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(20):
            for _ in range(20):
                assert (await ch.run("6 * 7")).status == "ok"
        tasks.cancel_scope.cancel()


async def test_a_start_that_is_cancelled_leaves_no_kernel() -> None:
    async with open_fake_server() as fake, open_server(fake.url) as server:
        for steps in range(60):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as tasks:

                    async def cancel(steps: int = steps, scope: anyio.CancelScope = scope) -> None:
                        for _ in range(steps):
                            await anyio.sleep(0)
                        scope.cancel()

                    tasks.start_soon(cancel)
                    async with server.open_kernel() as kernel, kernel.open_channels():
                        await anyio.sleep_forever()
            assert fake.kernels == {}, f"behind {steps} steps"
        assert await fake.wait_websockets(0) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"url": 5}, "the URL of a server is a str"),
        ({"url": "http://host", "token": "a\nb"}, "a token is text"),
        ({"url": "http://host", "token": 5}, "a token is text"),
        ({"url": "http://host", "token": " the-secret "}, "no space at its beginning or its end"),
        ({"url": "http://host?token=the-secret%20"}, "no space at its beginning or its end"),
        ({"url": "http://host", "token": " "}, "no space at its beginning or its end"),
        ({"url": "http://host", "ssl_context": "ca.pem"}, "ssl_context is"),
        ({"url": "http://host", "connect_timeout": 0}, "connect_timeout is seconds"),
    ],
)
def test_wrong_arguments_are_told_at_the_call(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(LocalProtocolError, match=said) as caught:
        open_server(**arguments)
    assert "the-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": ""}, "name is text"),
        ({"path": 5}, "path is text"),
        ({"env": {"A": 1}}, "env maps"),
        ({"env": {"": "b"}}, "a name in env is not empty, and has no = in it"),
        ({"env": {"A=B": "b"}}, "a name in env is not empty, and has no = in it"),
        ({"startup_timeout": -1}, "startup_timeout is seconds"),
    ],
)
async def test_wrong_arguments_of_a_kernel(arguments: dict[str, Any], said: str) -> None:
    async with open_fake_server() as fake, open_server(fake.url) as server:
        with pytest.raises(LocalProtocolError, match=said):
            async with server.open_kernel(**arguments):
                pass


async def test_tls() -> None:
    serving, trusting = contexts()
    async with open_fake_server(ssl_context=serving) as fake:
        fake.on_start(scripted)
        assert fake.url.startswith("https://")
        async with open_server(fake.url, ssl_context=trusting) as server:
            async with server.open_kernel() as kernel, kernel.open_channels() as ch:
                done = await ch.run("lines")
                assert text_of(done.outputs) == ALL_LINES
                large = {"header": {"msg_type": "x"}, "buffers": [b"\1" * 5_000_000]}
                await ch.shell.send(large)
                await fake.websockets()[0].reset()
                assert (await ch.run("6 * 7")).status == "ok"
        with pytest.raises(ServerError, match="certificate"):
            async with open_server(fake.url):
                pass


async def test_what_is_no_tls_costs_nothing_that_stood_before_it() -> None:
    serving, trusting = contexts()
    async with open_fake_server(ssl_context=serving) as fake:
        url = ServerUrl.parse(fake.url)
        path = url.channels_path(await fake.start_kernel(), "ours")
        ours = await open_websocket(url, path, token=None, tls=trusting)
        (theirs,) = await fake.wait_websockets(1)
        await theirs.send_raw(b"whole")
        assert isinstance(theirs._stream, TLSStream)
        await theirs._stream.transport_stream.send(b"no record of TLS")
        arrived: list[bytes] = []
        with anyio.fail_after(20):
            while not ours.ended:
                await ours.wait_readable()
                arrived += [bytes(data) for data, _ in ours.receive_nowait()]
        assert arrived == [b"whole"]
        assert "wrong version" in ours.ended.lower().replace("_", " ")
        await ours.aclose()


async def test_a_certificate_that_a_server_wants_of_us_and_we_have_not() -> None:
    """With TLS 1.3 it refuses behind our end of the handshake, where the first answer is waited for."""
    serving, trusting = contexts()
    serving.verify_mode = ssl.CERT_REQUIRED

    async def refuse(client: anyio.abc.ByteStream) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = serving.wrap_bio(incoming, outgoing, server_side=True)
        async with client:
            with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                while True:
                    incoming.write(await client.receive())
                    # An SSLError, or what an earlier call in this thread has left in errno.
                    with contextlib.suppress(OSError):
                        tls.do_handshake()
                    await client.send(outgoing.read())

    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, refuse)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        with pytest.raises(ServerError, match=r"certificate required|CERTIFICATE_REQUIRED"):
            async with open_server(f"https://127.0.0.1:{port}", ssl_context=trusting):
                pass
        tasks.cancel_scope.cancel()


# What the documentation says.


async def test_the_test_that_the_documentation_shows() -> None:
    said = (Path(__file__).parents[1] / "docs" / "guide" / "servers.rst").read_text()
    blocks = re.findall(r"^\.\. code-block:: python\n\n((?:    .*\n|\n)+)", said, re.MULTILINE)
    (shown,) = [textwrap.dedent(block) for block in blocks if "def test_" in block]
    names: dict[str, Any] = {}
    exec(shown, names)
    await names["test_my_front_end"]()


# The token.


async def test_the_token_is_in_the_header_and_nowhere_else(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "the-secret-token"
    monkeypatch.setenv("JUPYTER_TOKEN", secret)
    shown: list[object] = []
    async with open_fake_server(token=secret) as fake:
        async with open_server(f"{fake.url}/lab") as server, server.open_kernel() as kernel:
            async with kernel.open_channels() as ch:
                shown += [server, kernel, ch, ch.statistics(), vars(server), vars(kernel)]
                fake.refuse(403, f"not {secret}", times=2)
                await fake.websockets()[0].reset()
                with pytest.raises(KernelDied) as died:
                    await ch.run("6 * 7")
                shown.append(died.value)
            fake._refusals.clear()
            escaped = secret.replace("s", "\\u0073")
            for status, body, location in (
                (500, f"not {secret}", ""),
                (500, f'{{"message": "not {escaped}"}}', ""),
                (200, f"<html>{secret}", ""),
                (302, "", f"http://hub/{secret}/login"),
            ):
                if location:
                    # httpcore logs what a server says, and this one says it.
                    logged = caplog.text
                fake.refuse(status, body, headers={"Location": location})
                with pytest.raises(ServerError) as caught:
                    await server.list_kernels()
                shown += [caught.value, vars(caught.value), repr(caught.value.__context__)]
                assert caught.value.__context__ is None
            caplog.clear()
        monkeypatch.delenv("JUPYTER_TOKEN")
        async with open_server(f"{fake.url}/?token={secret}") as server:
            shown += [server, await server.kernelspecs()]
    assert all(secret not in path for _, path in fake.requests)
    assert secret not in "".join(map(repr, shown)) + "".join(map(str, shown))
    assert secret not in logged + caplog.text


# What goes wrong between us and a server.


async def test_a_start_whose_answer_is_lost_leaves_no_kernel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = uuid.UUID(int=7)
    async with open_fake_server() as fake, open_server(fake.url) as server:
        # What stands before the server says that it is not there; the kernel is.
        await fake.start_kernel(kernel_id=str(chosen))
        monkeypatch.setattr(uuid, "uuid4", lambda: chosen)
        fake.refuse(504, "Gateway Timeout", times=2)
        with pytest.raises(ServerError, match="through what is before it"):
            async with server.open_kernel():
                pass
        assert fake.kernels == {}


def deletions(fake: FakeServer) -> int:
    return [method for method, _ in fake.requests].count("DELETE")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(("times", "is_deleted"), [(1, True), (3, True), (4, False)])
async def test_who_cancels_every_task_while_a_kernel_is_deleted(
    times: int, is_deleted: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """As asyncio does behind a second Ctrl-C."""
    async with open_fake_server() as fake, open_server(fake.url) as server:
        entered, leave = asyncio.Event(), asyncio.Event()

        async def use() -> None:
            async with server.open_kernel():
                entered.set()
                await leave.wait()

        using = asyncio.create_task(use())
        await entered.wait()
        fake.hangs = "/".join(("", *fake.kernels))
        leave.set()
        for number in range(1, times + 1):
            with anyio.fail_after(20):
                while deletions(fake) < number:
                    await asyncio.sleep(0.005)
            (host,) = (t for t in asyncio.all_tasks() if t.get_name() == HOST)
            host.cancel()
        if not is_deleted:
            with anyio.fail_after(20), contextlib.suppress(asyncio.CancelledError):
                await using
            (kernel_id,) = fake.kernels
            (told,) = (each.message for each in caplog.records if each.levelname == "WARNING")
            assert f"the kernel {kernel_id} could not be deleted: cut off by Cancelled" in told
        fake.resume()
        with anyio.fail_after(20), contextlib.suppress(asyncio.CancelledError):
            await using
        assert bool(fake.kernels) is not is_deleted
        assert deletions(fake) == times + is_deleted


async def test_a_kernel_is_deleted_behind_the_block_of_its_server() -> None:
    async with open_fake_server() as fake:
        async with AsyncExitStack() as kernels:
            async with open_server(fake.url) as server:
                await kernels.enter_async_context(server.open_kernel())
            assert len(fake.kernels) == 1
        assert fake.kernels == {}


async def test_a_token_that_a_server_repeats_is_not_cut_in_two() -> None:
    token = "0123456789abcdefghijklmnopqrstuvwxyz"
    async with open_fake_server(token=token) as fake, open_server(fake.url, token=token) as server:
        for before in range(470, 500):
            fake.refuse(500, f"{'x' * before}{token}")
            with pytest.raises(ServerError) as caught:
                await server.list_kernels()
            assert token[:8] not in f"{caught.value} {caught.value.said}"


async def test_a_token_that_is_refused_is_told_by_every_question() -> None:
    async with opened() as (fake, server, kernel, _):
        forbidden = {"message": "Forbidden", "reason": None}
        fake.refuse(403, forbidden, times=2)
        with pytest.raises(ServerError, match="wants a token"):
            await server.list_kernels()
        fake.refuse(403, forbidden)
        with pytest.raises(ServerError, match="wants a token"), anyio.fail_after(20):
            await kernel.wait()


async def test_an_answer_has_a_bound() -> None:
    async with open_fake_server() as fake:
        fake.refuse(200, "x" * (17 << 20))
        with pytest.raises(ServerError, match="larger than 16 MiB"):
            async with open_server(fake.url):
                pass


async def test_a_proxy_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "foo://127.0.0.1:1")
    with pytest.raises(LocalProtocolError, match="that the environment names"):
        async with open_server("http://127.0.0.1:1"):
            pass


async def test_a_host_in_other_letters() -> None:
    async with open_fake_server() as fake:
        url = fake.url.replace("127.0.0.1", "127。0。0。1")
        async with open_server(url) as server, server.open_kernel() as kernel:
            async with kernel.open_channels() as ch:
                assert (await ch.kernel_info())["status"] == "ok"
