"""What a user sees of each fault between a client and a real ipykernel; `docs/robustness.rst` has the table.

However the connection fails, every wait ends: by an answer, or by an error that says what happened.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import anyio.abc
import anyio.to_thread
import pytest
import zmq
from anyio.from_thread import start_blocking_portal

from enchannel import (
    Kernel,
    KernelChannels,
    KernelConnectError,
    KernelDied,
    NoReply,
    NotImplementedByKernel,
    open_kernel,
    open_kernel_channels,
)
from enchannel._protocol.message import CHANNELS
from fault_proxy import combinations, fault_proxy
from helpers import away, beating, freeze

pytestmark = pytest.mark.anyio


@pytest.fixture
async def tcp_kernel(anyio_backend: str) -> AsyncIterator[Kernel]:
    async with open_kernel("python3", transport="tcp") as kernel:
        yield kernel


@pytest.fixture(scope="session")
def running_tcp_kernel() -> Iterator[Kernel]:
    with start_blocking_portal("trio") as portal:
        opening = open_kernel("python3", transport="tcp")
        with portal.wrap_async_context_manager(opening) as kernel:
            yield kernel


async def works(ch: KernelChannels) -> None:
    with anyio.fail_after(30):
        async with ch.execute("print('one')\n2") as execution:
            await execution.wait()
    kinds = [each["output_type"] for each in execution.outputs]
    assert kinds == ["stream", "execute_result"], execution.outputs


async def uses_every_channel(ch: KernelChannels) -> None:
    """From its first use on the loss of a channel is told, also where nothing is asked on it."""
    await works(ch)
    await ch.request("kernel_info_request", channel="control")
    async with ch.execute("input()", on_input=lambda *_: "") as execution:
        await execution.wait()


each_and_all = pytest.mark.parametrize("names", combinations(), ids="-".join)


@each_and_all
async def test_connections_that_are_cut_and_come_back(
    running_tcp_kernel: Kernel, names: tuple[str, ...]
) -> None:
    async with fault_proxy(running_tcp_kernel.connection_info) as proxy:
        async with open_kernel_channels(None, proxy.config, reconnect_timeout=30) as ch:
            await uses_every_channel(ch)
            for number in (1, 2):
                await proxy.cut(*names)
                await away(ch)
                proxy.restore()
                await works(ch)
                assert ch.statistics().outages == number
                assert ch.statistics().restarts == 0


async def test_a_request_whose_reply_falls_into_the_gap_is_told(
    running_tcp_kernel: Kernel,
) -> None:
    async with fault_proxy(running_tcp_kernel.connection_info) as proxy:
        async with open_kernel_channels(None, proxy.config, reconnect_timeout=30) as ch:
            proxy.held = {"shell"}
            async with ch.execute("1") as execution:
                async for msg in execution:
                    if msg.content.get("execution_state") == "idle":
                        break
                await proxy.cut("shell")
                proxy.held = set()
                # At once: of a longer gap it would be told before.
                proxy.restore()
                with anyio.fail_after(10), pytest.raises(NoReply, match="was lost") as caught:
                    await execution.wait()
                assert caught.value.reason == "disconnected"
                assert not isinstance(caught.value, NotImplementedByKernel)
            await works(ch)
            assert (ch.statistics().outages, ch.statistics().restarts) == (1, 0)


async def test_what_is_in_flight_is_told_of_a_longer_gap_and_the_channels_go_on(
    running_tcp_kernel: Kernel,
) -> None:
    async with fault_proxy(running_tcp_kernel.connection_info) as proxy:
        async with open_kernel_channels(None, proxy.config, reconnect_timeout=30) as ch:
            code = "print('running', flush=True)\nimport time; time.sleep(2)"
            async with ch.subscribe("iopub") as output, ch.execute(code) as execution:
                async for msg in execution:
                    if msg.msg_type == "stream":
                        break
                await proxy.cut(*CHANNELS)
                await away(ch)
                with anyio.fail_after(10), pytest.raises(KernelDied) as caught:
                    await execution.wait()
                assert caught.value.reason == "disconnected"
                assert ch.lost is None
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(works, ch)
                    await anyio.wait_all_tasks_blocked()
                    proxy.restore()
                while (await output.receive())[1].content.get("text") != "one\n":
                    pass


@each_and_all
async def test_connections_that_do_not_come_back(
    running_tcp_kernel: Kernel, names: tuple[str, ...]
) -> None:
    async with fault_proxy(running_tcp_kernel.connection_info) as proxy:
        async with open_kernel_channels(None, proxy.config, reconnect_timeout=0.2) as ch:
            await uses_every_channel(ch)
            await proxy.cut(*names)
            with anyio.fail_after(20), pytest.raises(KernelDied) as caught:
                async for _ in ch.main:
                    pass
            assert caught.value.reason == "disconnected"
            assert all(name in str(caught.value) for name in names)


async def test_bytes_that_are_no_zmtp_cost_the_connection_and_no_more(
    running_tcp_kernel: Kernel,
) -> None:
    """ZeroMQ gives such a connection up for good, and we connect anew."""
    async with fault_proxy(running_tcp_kernel.connection_info) as proxy:
        async with open_kernel_channels(None, proxy.config, reconnect_timeout=30) as ch:
            for number, name in enumerate(("shell", "iopub"), 1):
                await works(ch)
                # A command that does not exist, with flags that none has.
                await proxy.inject(name, b"\xff" * 300)
                with anyio.fail_after(10):
                    while ch.statistics().outages < number:
                        await anyio.sleep(0.01)
            await works(ch)


async def test_a_connection_that_zeromq_gave_up_before_its_first_use_is_made_anew(
    running_tcp_kernel: Kernel,
) -> None:
    async with fault_proxy(running_tcp_kernel.connection_info) as proxy:
        async with open_kernel_channels(None, proxy.config) as ch:
            for name in ("control", "stdin"):
                await proxy.inject(name, b"\xff" * 300)
            with anyio.fail_after(10):
                while proxy.connections("control") or proxy.connections("stdin"):
                    await anyio.sleep(0.01)
                await uses_every_channel(ch)


async def test_bytes_one_by_one_arrive_as_they_were(running_tcp_kernel: Kernel) -> None:
    async with fault_proxy(running_tcp_kernel.connection_info) as proxy:
        async with open_kernel_channels(None, proxy.config) as ch:
            proxy.pace = 0
            await works(ch)


async def test_output_that_is_held_up_is_waited_for(running_tcp_kernel: Kernel) -> None:
    """The reply is here, and nothing else is: not what was printed, nor what is asked behind it."""
    async with fault_proxy(running_tcp_kernel.connection_info) as proxy:
        async with open_kernel_channels(None, proxy.config) as ch:
            proxy.held = {"iopub"}
            async with ch.execute("print('late')") as execution:
                with anyio.move_on_after(13) as scope:
                    await execution.wait()
                assert scope.cancelled_caught
                assert execution.reply is not None
                proxy.held = set()
                with anyio.fail_after(10):
                    await execution.wait()
            assert [each["text"] for each in execution.outputs] == ["late\n"]
            assert ch.statistics().outages == 0


async def test_a_reply_that_is_held_up_is_waited_for(running_tcp_kernel: Kernel) -> None:
    async with fault_proxy(running_tcp_kernel.connection_info) as proxy:
        async with (
            open_kernel_channels(None, proxy.config) as ch,
            anyio.create_task_group() as tasks,
        ):
            proxy.held = {"shell"}
            for _ in range(2):
                tasks.start_soon(works, ch)
            await anyio.sleep(5)
            proxy.held = set()


async def test_a_handshake_byte_by_byte_ends_at_the_deadline(running_tcp_kernel: Kernel) -> None:
    async with fault_proxy(running_tcp_kernel.connection_info) as proxy:
        proxy.pace = 1.0
        with pytest.raises(KernelConnectError, match=r"no connection within 0\.5 s"):
            async with open_kernel_channels(None, proxy.config, connect_timeout=0.5):
                pytest.fail("the block was entered")


@pytest.mark.parametrize("launched", [True, False], ids=["launched", "attached"])
async def test_a_frozen_kernel_goes_on_where_it_was(tcp_kernel: Kernel, launched: bool) -> None:
    opening = (
        tcp_kernel.open_channels()
        if launched
        else open_kernel_channels(None, tcp_kernel.connection_info)
    )
    async with opening as ch:
        await works(ch)
        if not launched:
            await beating(ch)
        await freeze(tcp_kernel.pid)
        try:
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(works, ch)
                with anyio.fail_after(30):
                    while not ch.statistics().missed_beats and not launched:
                        await anyio.sleep(0.01)
                assert repr(ch).endswith("open>")
                os.kill(tcp_kernel.pid, signal.SIGCONT)
        finally:
            os.kill(tcp_kernel.pid, signal.SIGCONT)
        await works(ch)
        assert ch.statistics().outages == 0


async def test_a_frozen_idle_kernel_is_lost_at_its_heartbeat_timeout(tcp_kernel: Kernel) -> None:
    info = tcp_kernel.connection_info
    async with open_kernel_channels(None, info, heartbeat_timeout=1) as ch:
        await works(ch)
        await beating(ch)
        # Behind this the control thread is idle as well: the opening may have asked it, too.
        async with ch.subscribe("iopub") as output:
            asked = await ch.control.send({"header": {"msg_type": "kernel_info_request"}})
            async for _, msg in output:
                if msg.is_child_of(asked) and msg.content.get("execution_state") == "idle":
                    break
        await freeze(tcp_kernel.pid)
        try:
            with anyio.fail_after(10), pytest.raises(KernelDied) as caught:
                while True:
                    await ch.main.receive()
            assert caught.value.reason == "heartbeat"
        finally:
            os.kill(tcp_kernel.pid, signal.SIGCONT)


class Resolver:
    """Host names of the tests': ``two.example`` has two addresses, and of ``slow.example`` nobody knows."""

    def __init__(self) -> None:
        self.may_give_up = threading.Event()

    def __call__(self, host: str, *_: Any, **__: Any) -> Any:
        if host == "slow.example":
            self.may_give_up.wait(60)
            raise OSError("temporary failure in name resolution")
        assert host == "two.example"
        return [(None, None, None, "", (address, 0)) for address in ("::1", "127.0.0.1")]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    resolver = Resolver()
    monkeypatch.setattr("enchannel._transports.addresses.getaddrinfo", resolver)
    yield resolver
    resolver.may_give_up.set()


async def test_a_host_whose_first_address_leads_nowhere(
    running_tcp_kernel: Kernel, resolver: Resolver
) -> None:
    config = {**running_tcp_kernel.connection_info.to_dict(), "ip": "two.example"}
    async with open_kernel_channels(None, config) as ch:
        await works(ch)
        # What ZeroMQ still says of the other address is not about this connection.
        await anyio.sleep(0.5)
        await works(ch)
        assert ch.statistics().outages == 0


async def test_a_slow_resolver_holds_nobody_up(
    running_tcp_kernel: Kernel, resolver: Resolver
) -> None:
    info = running_tcp_kernel.connection_info
    async with open_kernel_channels(None, info) as ch, anyio.create_task_group() as tasks:

        async def fail(seconds: float) -> None:
            with pytest.raises(KernelConnectError, match="still being resolved"):
                config = {**info.to_dict(), "ip": "slow.example"}
                async with open_kernel_channels(None, config, connect_timeout=seconds):
                    pytest.fail("the block was entered")

        for number in range(5):
            tasks.start_soon(fail, 2 + number / 10)
        await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(10):
            await works(ch)
        with anyio.fail_after(10):
            async with open_kernel_channels(None, info) as second:
                await works(second)


async def test_a_lost_kernel_is_let_go_then_and_there(tcp_kernel: Kernel) -> None:
    """Nobody connects to its ports any more, and leaving its block takes no time."""
    info = tcp_kernel.connection_info
    async with contextlib.AsyncExitStack() as stack:
        async with open_kernel_channels(None, info, reconnect_timeout=0.2) as ch:
            await works(ch)
            os.kill(tcp_kernel.pid, signal.SIGKILL)
            with anyio.fail_after(20):
                assert (await ch.wait_lost()).reason == "disconnected"
            assert (ch.status, ch.lost is None) == ("dead", False)
            # Whoever launched it is connected to it as well, until it exits.
            await tcp_kernel.wait()
            await anyio.sleep(0.2)
            listening = [
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                for port in (info.shell_port, info.control_port, info.stdin_port, info.iopub_port)
            ]
            await anyio.sleep(0.5)
            for each in listening:
                each.setblocking(False)
                with pytest.raises(BlockingIOError):
                    each.accept()
            left = time.monotonic()
        assert time.monotonic() - left < 5


@pytest.mark.parametrize("kind", ["bytes", "bytearray"])
async def test_what_was_sent_goes_out_before_the_program_ends(
    kind: str, anyio_backend: str
) -> None:
    script = f"""
import sys, anyio
from enchannel import ConnectionInfo, open_shell_channel
async def main(port, size):
    async with open_shell_channel(None, ConnectionInfo(*[port] * 5)) as shell:
        await shell.send({{"header": {{"msg_type": "comm_msg"}}, "buffers": [{kind}(size)]}})
anyio.run(main, int(sys.argv[1]), int(sys.argv[2]), backend={anyio_backend!r})
"""
    for size in (4_000_000, 80_000_000):
        with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
            port = router.bind_to_random_port("tcp://127.0.0.1")
            router.rcvtimeo = 60_000
            command = [sys.executable, "-c", script, str(port), str(size)]
            async with await anyio.open_process(command, stderr=None) as program:
                *_, buffer = await anyio.to_thread.run_sync(router.recv_multipart)
                assert (len(buffer), await program.wait()) == (size, 0)
            router.close(linger=0)


async def answer_http(stream: anyio.abc.SocketStream) -> None:
    with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError, OSError):
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


async def test_a_port_that_an_http_server_has(running_tcp_kernel: Kernel) -> None:
    config = running_tcp_kernel.connection_info.to_dict()
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, answer_http)
        config["control_port"] = listener.extra(anyio.abc.SocketAttribute.local_port)
        with pytest.raises(KernelConnectError) as caught:
            async with open_kernel_channels(None, config, connect_timeout=1):
                pytest.fail("the block was entered")
        assert list(caught.value.unconnected) == ["control"]
        tasks.cancel_scope.cancel()


async def test_a_port_that_a_socket_of_the_wrong_type_has(running_tcp_kernel: Kernel) -> None:
    config = running_tcp_kernel.connection_info.to_dict()
    with zmq.Context() as context, context.socket(zmq.PUSH) as socket:
        config["shell_port"] = socket.bind_to_random_port("tcp://127.0.0.1")
        with pytest.raises(KernelConnectError) as caught:
            async with open_kernel_channels(None, config, connect_timeout=1):
                pytest.fail("the block was entered")
        assert list(caught.value.unconnected) == ["shell"]
        socket.close(linger=0)


async def test_a_second_client_with_the_same_identity(running_tcp_kernel: Kernel) -> None:
    """The kernel answers the second alone, and nothing tells the first."""
    info = running_tcp_kernel.connection_info
    async with open_kernel_channels("twin", info) as first:
        await works(first)
        async with open_kernel_channels("twin", info) as second:
            with anyio.move_on_after(2) as scope:
                await first.request("kernel_info_request")
            assert scope.cancelled_caught
            await works(second)


async def test_a_restart_by_somebody_else_on_the_same_ports(tcp_kernel: Kernel) -> None:
    info = tcp_kernel.connection_info
    async with open_kernel_channels(None, info, reconnect_timeout=30) as ch:
        await works(ch)
        await tcp_kernel.restart()
        await works(ch)
        assert ch.statistics().restarts == 1
