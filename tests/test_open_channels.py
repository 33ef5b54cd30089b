"""Opening: connected for real, iopub proven live, never a hang."""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from enchannel import KernelConnectError, Message, get_username, open_kernel_channels
from enchannel._protocol.message import CHANNELS
from enchannel._protocol.wire import Wire
from enchannel._transports.addresses import is_its_own_peer
from enchannel._transports.zmq_link import Link
from enchannel._transports.zmq_open import connect_endpoints, connect_zmq
from helpers import numbered
from raw_kernel import RawKernel, message, request
from virtual_clock import slow_backend  # noqa: F401

pytestmark = pytest.mark.anyio


class Probed:
    """Answers a client's kernel_info requests as the test says, and keeps them."""

    def __init__(self, kernel: RawKernel) -> None:
        kernel.greeting = False
        self.kernel = kernel
        self.requests: list[tuple[str, bytes, Message]] = []

    async def next(self, channel: str) -> Message:
        identity, *frames = await self.kernel.receive_frames(channel)
        asked = self.kernel.wire.decode(frames)
        assert asked.msg_type == "kernel_info_request"
        assert asked.header["version"]
        self.requests.append((channel, identity, asked))
        # On a loaded machine the subscription may come behind the question, and miss what answers it.
        while not self.kernel.topics:
            await anyio.sleep(0.001)
        return asked

    def answer(self, *, reply_on: str | None = None, status: bool = True) -> None:
        channel, identity, asked = self.requests[-1]
        if status:
            self.kernel.publish(message("status", asked, execution_state="busy"))
        self.kernel.send(reply_on or channel, identity, message("kernel_info_reply", asked))
        if status:
            self.kernel.publish(message("status", asked, execution_state="idle"))


async def nothing_of_the_probe_is_seen(kernel: RawKernel, ch: Any) -> None:
    """Only what is published now is in the streams, behind all that the probes caused."""
    await ch.shell.send(request())
    identity, _ = await kernel.receive("shell")
    for channel in ("shell", "control"):
        kernel.send(channel, identity, message("last"))
    kernel.publish(message("last"))
    seen = [await ch.main.receive() for _ in range(3)]
    assert {(channel, each.msg_type) for channel, each in seen} == {
        ("shell", "last"),
        ("control", "last"),
        ("iopub", "last"),
    }


async def test_a_status_that_answers_on_control_proves_iopub(raw_kernel: RawKernel) -> None:
    probed = Probed(raw_kernel)

    async def answer() -> None:
        await probed.next("control")
        probed.answer()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        async with raw_kernel.open() as ch:
            assert ch.statistics().iopub_proven
            await nothing_of_the_probe_is_seen(raw_kernel, ch)
    assert [channel for channel, _, _ in probed.requests] == ["control"]


async def test_shell_is_asked_as_well_for_control_may_stay_silent(raw_kernel: RawKernel) -> None:
    probed = Probed(raw_kernel)

    async def answer() -> None:
        await probed.next("control")
        await probed.next("shell")
        probed.answer()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        async with raw_kernel.open() as ch:
            assert ch.statistics().iopub_proven
            await nothing_of_the_probe_is_seen(raw_kernel, ch)
    assert [channel for channel, _, _ in probed.requests] == ["control", "shell"]


async def test_a_kernel_that_publishes_nothing_for_control_is_joined(raw_kernel: RawKernel) -> None:
    probed = Probed(raw_kernel)

    async def answer(channel: str) -> None:
        while True:
            await probed.next(channel)
            probed.answer(status=channel == "shell")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer, "shell")
        tasks.start_soon(answer, "control")
        async with raw_kernel.open() as ch:
            assert ch.statistics().iopub_proven
        tasks.cancel_scope.cancel()


async def test_a_reply_on_the_other_channel_is_a_reply(raw_kernel: RawKernel) -> None:
    probed = Probed(raw_kernel)

    async def answer() -> None:
        await probed.next("shell")
        await probed.next("control")
        probed.answer(reply_on="shell", status=False)
        # Answered, so control is asked again and shell is left alone.
        await probed.next("control")
        probed.answer(reply_on="shell")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        async with raw_kernel.open() as ch:
            await ch.shell.send(request())
            _, *frames = await raw_kernel.receive_frames("shell")
            assert raw_kernel.wire.decode(frames).msg_type == "execute_request"
            await nothing_of_the_probe_is_seen(raw_kernel, ch)


async def test_a_status_lost_to_a_late_subscription_is_asked_for_again(
    raw_kernel: RawKernel,
) -> None:
    probed = Probed(raw_kernel)

    async def answer() -> None:
        for number in range(4):
            await probed.next("control")
            probed.answer(status=number == 3)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        async with raw_kernel.open() as ch:
            assert ch.statistics().iopub_proven
            await nothing_of_the_probe_is_seen(raw_kernel, ch)
    assert len({asked.msg_id for _, _, asked in probed.requests}) == 4


async def test_another_clients_traffic_proves_iopub_and_is_kept(raw_kernel: RawKernel) -> None:
    probed = Probed(raw_kernel)
    other = message("execute_request")

    async def publish() -> None:
        await probed.next("control")
        raw_kernel.publish(message("stream", other, text="somebody else's"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publish)
        async with raw_kernel.open() as ch:
            assert ch.statistics().iopub_proven
            assert (await ch.iopub.receive()).content == {"text": "somebody else's"}


async def test_a_bad_message_proves_nothing(raw_kernel: RawKernel) -> None:
    probed = Probed(raw_kernel)

    async def publish() -> None:
        await probed.next("control")
        raw_kernel.publish_frames([b"topic", b"nonsense"])
        await anyio.sleep(0.1)
        probed.answer()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publish)
        async with raw_kernel.open() as ch:
            assert ch.statistics().dropped == {"MalformedMessage": 1}
            assert ch.statistics().received["iopub"] >= 1


@pytest.mark.parametrize("key", ["another key", ""])
async def test_where_all_is_refused_the_block_is_not_entered(key: str) -> None:
    said = r"all that arrives is refused \(\d+ InvalidSignature\): is the connection file"
    with RawKernel(key=key) as raw_kernel:
        raw_kernel.wire = Wire("the kernel's key")
        raw_kernel.greeting = False
        async with anyio.create_task_group() as tasks:

            async def publish() -> None:
                while True:
                    raw_kernel.publish(*numbered(1))
                    await anyio.sleep(0.01)

            tasks.start_soon(publish)
            with pytest.raises(KernelConnectError, match=said):
                async with raw_kernel.open(connect_timeout=2) as ch:
                    pytest.fail(f"the block was entered: {ch.statistics()}")
            tasks.cancel_scope.cancel()


async def test_a_kernel_too_busy_for_a_proof_is_joined_with_a_warning(
    raw_kernel: RawKernel, caplog: pytest.LogCaptureFixture
) -> None:
    probed = Probed(raw_kernel)
    async with raw_kernel.open(connect_timeout=2) as ch:
        assert not ch.statistics().iopub_proven
        assert "iopub could not be proven live within 2 s" in caplog.text
        # A kernel that gets to it at last finds one request on each channel, not a heap of them.
        for channel in ("control", "shell"):
            await probed.next(channel)
            probed.answer()
        await nothing_of_the_probe_is_seen(raw_kernel, ch)
        assert ch.statistics().iopub_proven


async def test_a_narrow_subscription_is_proven_by_what_it_does_not_cover(
    raw_kernel: RawKernel,
) -> None:
    probed = Probed(raw_kernel)
    other = message("execute_request")

    async def answer() -> None:
        await probed.next("control")
        raw_kernel.publish(message("stream", other, text="kept"), topic=b"wanted")
        raw_kernel.publish(message("stream", other, text="not subscribed to"), topic=b"other")
        probed.answer()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(answer)
        async with raw_kernel.open(subscription="wanted") as ch:
            assert ch.statistics().iopub_proven
            raw_kernel.publish(message("stream", other, text="last"), topic=b"wanted")
            texts = [(await ch.iopub.receive()).content["text"] for _ in range(2)]
    assert texts == ["kept", "last"]


@pytest.mark.parametrize("transport", ["tcp", "ipc"])
async def test_nobody_listening_is_told_in_time(transport: str, tmp_path: Path) -> None:
    ports = {f"{name}_port": 0 for name in ("shell", "control", "stdin", "iopub")}
    sockets = [socket.socket() for _ in ports]
    for name, each in zip(ports, sockets, strict=True):
        each.bind(("127.0.0.1", 0))  # taken, but nobody listens
        ports[name] = each.getsockname()[1]
    ip = "127.0.0.1" if transport == "tcp" else str(tmp_path / "kernel")
    config = {"transport": transport, "ip": ip, "hb_port": 1, **ports}
    start = time.monotonic()
    with pytest.raises(KernelConnectError, match=r"no connection within 0\.3 s") as caught:
        async with open_kernel_channels(None, config, connect_timeout=0.3):
            pytest.fail("the block was entered")
    assert 0.3 <= time.monotonic() - start < 30
    assert isinstance(caught.value, TimeoutError)
    assert set(caught.value.unconnected) == {"shell", "control", "stdin", "iopub"}
    separator = ":" if transport == "tcp" else "-"
    for channel in ("shell", "control", "stdin", "iopub"):
        endpoint = f"{channel} at {transport}://{ip}{separator}{ports[f'{channel}_port']}"
        assert endpoint in str(caught.value)
    for each in sockets:
        each.close()


async def test_only_the_channel_that_is_missing_is_named(raw_kernel: RawKernel) -> None:
    raw_kernel.unbind("stdin")
    with pytest.raises(KernelConnectError) as caught:
        async with raw_kernel.open(connect_timeout=0.3):
            pytest.fail("the block was entered")
    assert list(caught.value.unconnected) == ["stdin"]


async def test_a_connection_with_itself_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # ZeroMQ takes the address of our own end before the semicolon.
    endpoint = f"tcp://127.0.0.1:{port};127.0.0.1:{port}"
    transport = connect_endpoints({"shell": [endpoint]}, Wire(""), b"me")
    told, met, reconnect = [], 0, Link.reconnect

    def meet(link: Link) -> None:
        nonlocal met
        met += 1
        reconnect(link)

    monkeypatch.setattr(Link, "reconnect", meet)

    async def read() -> None:
        while True:
            await transport.wait_readable("shell")

    async with anyio.create_task_group() as tasks:
        transport.follow(lambda event, *_: told.append(event), tasks.start_soon)
        tasks.start_soon(read)
        with anyio.fail_after(30):
            while met < 3:
                await anyio.sleep(0.001)
                assert "shell" in transport.unconnected()
            await bound(port)
        tasks.cancel_scope.cancel()
    await transport.aclose()
    assert told == []


async def bound(port: int) -> None:
    """Waits until a kernel could have the port: behind a common end the system would keep it for a minute."""
    while True:
        with socket.socket() as kernel, contextlib.suppress(OSError):
            return kernel.bind(("127.0.0.1", port))
        await anyio.sleep(0.001)


def test_a_number_that_another_socket_has_by_now_is_no_connection_with_itself() -> None:
    # The two ends have the same name: none.
    for one in socket.socketpair():
        with one:
            assert not is_its_own_peer(one.fileno())


async def test_a_peer_that_is_no_zeromq_is_told_apart(raw_kernel: RawKernel) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        raw_kernel.config["control_port"] = server.getsockname()[1]
        with pytest.raises(KernelConnectError, match="control at .* but no ZeroMQ handshake came"):
            async with raw_kernel.open(connect_timeout=0.3):
                pytest.fail("the block was entered")


async def test_what_does_not_verify_connects_nothing(raw_kernel: RawKernel) -> None:
    async def speak(server: socket.socket, clients: contextlib.ExitStack) -> None:
        while True:
            await anyio.wait_readable(server)
            client = clients.enter_context(server.accept()[0])
            # ZMTP 1.0, as what anything says may be read: no identity, and two messages.
            client.send(b"\x01\x00" + 2 * b"\x05\x00junk")

    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        contextlib.ExitStack() as clients,
    ):
        raw_kernel.config["control_port"] = server.getsockname()[1]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(speak, server, clients)
            with pytest.raises(KernelConnectError) as caught:
                async with raw_kernel.open(connect_timeout=0.5):
                    pytest.fail("the block was entered")
            tasks.cancel_scope.cancel()
    assert list(caught.value.unconnected) == ["control"]


async def test_a_message_that_is_read_before_the_handshake_is_seen(raw_kernel: RawKernel) -> None:
    transport = await connect_zmq(raw_kernel.info, b"me", channels=["iopub"])
    link = transport._links["iopub"]
    try:
        with anyio.fail_after(30):
            # Nobody follows it: that it was accepted is all that was seen.
            link.accepted = True
            while not link.has_arrived():
                raw_kernel.publish(message("stream"))
                await anyio.sleep(0.001)
        assert transport.receive_nowait("iopub")
        assert link.connected
        assert not link.shakes_no_hands
    finally:
        await transport.aclose()


async def test_an_endpoint_that_zeromq_refuses_is_named(raw_kernel: RawKernel) -> None:
    raw_kernel.config |= {"transport": "ipc", "ip": "/" + "x" * 200}
    with pytest.raises(KernelConnectError, match="cannot connect shell to ipc:///xxx"):
        async with raw_kernel.open():
            pytest.fail("the block was entered")


@pytest.mark.parametrize("host", ["a..b", f"{'x' * 64}.org"])
async def test_a_host_that_nobody_can_be_called_is_named(raw_kernel: RawKernel, host: str) -> None:
    raw_kernel.config |= {"ip": host}
    with pytest.raises(KernelConnectError, match=f"{host} has no address: no host") as caught:
        async with raw_kernel.open():
            pytest.fail("the block was entered")
    assert "shell" in caught.value.unconnected


async def test_a_kernel_that_comes_late_is_waited_for() -> None:
    with RawKernel() as kernel:
        endpoint = kernel.info.endpoint("shell")
        kernel.unbind("shell")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kernel.greet)

            async def bind() -> None:
                await anyio.sleep(0.2)
                kernel.rebind("shell", endpoint)

            tasks.start_soon(bind)
            async with kernel.open() as ch:
                sent = await ch.shell.send(request())
                assert (await kernel.receive("shell"))[1] == sent
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize("seconds", [0, 0.001, 0.05])
async def test_opening_can_be_cancelled(raw_kernel: RawKernel, seconds: float) -> None:
    raw_kernel.greeting = False
    with anyio.move_on_after(seconds) as scope:
        async with raw_kernel.open():
            pytest.fail("the block was entered")
    assert scope.cancelled_caught
    # The identity is free again, and nothing disturbs the next client.
    raw_kernel.greeting = True
    async with raw_kernel.open() as ch:
        assert ch.statistics().iopub_proven


async def test_ipc() -> None:
    with RawKernel("ipc") as kernel:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kernel.greet)
            async with kernel.open() as ch:
                sent = await ch.shell.send(request())
                assert (await kernel.receive("shell"))[1] == sent
            tasks.cancel_scope.cancel()


async def test_without_a_key_nothing_is_signed() -> None:
    with RawKernel(key="") as kernel:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kernel.greet)
            async with kernel.open() as ch:
                await ch.shell.send(request())
                frames = [b""] * 4
                while b"execute_request" not in frames[3]:
                    frames = await kernel.receive_frames("shell")
                    assert frames[1:3] == [b"<IDS|MSG>", b""]
                kernel.publish(message("status"))
                assert (await ch.iopub.receive()).msg_type == "status"
            tasks.cancel_scope.cancel()


NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


@pytest.mark.parametrize("number", range(4))
def test_the_first_variable_that_is_set_names_the_user(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for position, name in enumerate(NAMES):
        # Set but empty is not set.
        monkeypatch.setenv(name, f"from {name}" if position >= number else "")
    assert get_username() == f"from {NAMES[number]}"


def test_without_any_variable_the_user_is_called_username(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    assert get_username() == "username"


@contextlib.contextmanager
def silent(host: str, port: int) -> Iterator[None]:
    """An address that answers nothing: its queue of connections is full, and nobody takes any from it."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind((host, port))
        listening.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((host, port))
        yield


@pytest.fixture
def two_addresses(raw_kernel: RawKernel, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The kernel's connection file, with a host that has another address before the kernel's."""

    def addresses(host: str, *_: Any, **__: Any) -> list[Any]:
        assert host == "two.invalid"
        return [(None, None, None, "", (address, 0)) for address in ("127.0.0.2", "127.0.0.1")]

    monkeypatch.setattr("enchannel._transports.addresses.getaddrinfo", addresses)
    return {**raw_kernel.config, "ip": "two.invalid"}


@pytest.mark.skipif(sys.platform != "linux", reason="another loopback address, and a full queue")
async def test_an_address_that_never_answers_is_followed_by_the_next(
    raw_kernel: RawKernel, two_addresses: dict[str, Any]
) -> None:
    with contextlib.ExitStack() as stack:
        # Not the heartbeat's, which is the same one in every test.
        for name in CHANNELS:
            stack.enter_context(silent("127.0.0.2", two_addresses[f"{name}_port"]))
        async with open_kernel_channels(None, two_addresses) as ch:
            sent = await ch.shell.send(request())
            identity, _ = await raw_kernel.receive("shell")
            raw_kernel.send("shell", identity, message("reply", sent))
            assert (await ch.shell.receive()).is_child_of(sent)


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL".ljust(54, b"\0")
READY = b"\x05READY\x0bSocket-Type\x00\x00\x00\x04PULL"


@pytest.mark.skipif(sys.platform != "linux", reason="another loopback address")
async def test_an_address_of_another_kind_of_socket_is_followed_by_the_next(
    raw_kernel: RawKernel, two_addresses: dict[str, Any]
) -> None:
    met: list[int] = []

    async def serve(client: anyio.abc.SocketStream) -> None:
        met.append(client.extra(anyio.abc.SocketAttribute.local_port))
        with contextlib.suppress(anyio.EndOfStream, anyio.BrokenResourceError):
            async with client:
                await client.send(GREETING + b"\x04" + bytes([len(READY)]) + READY)
                while True:
                    await client.receive()

    ports = sorted(two_addresses[f"{name}_port"] for name in CHANNELS)
    async with contextlib.AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        for port in ports:
            listener = await anyio.create_tcp_listener(local_host="127.0.0.2", local_port=port)
            tasks.start_soon((await stack.enter_async_context(listener)).serve, serve)
        async with open_kernel_channels(None, two_addresses) as ch:
            assert not ch._core.transport.unconnected()
        # ZeroMQ has given each up at once.
        assert sorted(met) == ports
        tasks.cancel_scope.cancel()
