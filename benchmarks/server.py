"""Kernels behind a server: a flood beside a bare loop, round trips beside a peer, and many websockets of one process.

The server is a stand-in in a process of its own, or a real one that is named.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import anyio
import msgspec.json
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from enchannel import KernelChannels, Message, open_server
from enchannel._core.stream import native_checkpoint_if_cancelled
from enchannel._protocol.server_wire import V1, pack, unpack
from enchannel._protocol.wire import Wire

from .figures import spread
from .memory import look

FLOOD = 20_000
WIRE = Wire()
OFTEN = 60
"""Round trips of one turn."""


def said(msg_type: str, content: dict[str, Any], parent: dict[str, Any], number: int) -> Message:
    header = {"msg_id": f"k_1_{number}", "msg_type": msg_type, "session": "k", "username": "kernel",
              "date": "2026-01-01T00:00:00.000000Z", "version": "5.4"}  # fmt: skip
    return Message(header, parent, {}, content)


def framed(channel: Any, message: Message) -> bytes:
    """One unmasked frame of a websocket."""
    return Frame(Opcode.BINARY, pack(channel, WIRE.encode(message), V1)[0]).serialize(mask=False)


# The stand-in.


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    target = head.split(b" ", 2)[1].decode()
    if "/channels" not in target:
        body = json.dumps(
            {"version": "1", "id": "k", "name": "k", "execution_state": "idle"}
        ).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        writer.write(body)
        writer.close()
        return
    protocol = ServerProtocol(subprotocols=[V1], max_size=None)  # type: ignore[list-item]
    protocol.receive_data(head)
    for event in protocol.events_received():
        protocol.send_response(protocol.accept(event))  # type: ignore[arg-type]
    writer.writelines(protocol.data_to_send())
    while protocol.state is State.OPEN:
        data = await reader.read(1 << 18)
        if not data:
            break
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Frame) and event.opcode is Opcode.BINARY:
                reply(writer, event.data)
        writer.writelines(each for each in protocol.data_to_send() if each)
        await writer.drain()
    writer.close()


def reply(writer: asyncio.StreamWriter, data: Any) -> None:
    channel, frames = unpack(data, text=False)
    asked = WIRE.decode(frames)
    code = asked.content.get("code", "")
    parts = [framed("iopub", said("status", {"execution_state": "busy"}, asked.header, 1))]
    if code.startswith("flood "):
        count = int(code[6:])
        parts += [
            framed(
                "iopub", said("stream", {"name": "stdout", "text": f"{n}\n"}, asked.header, n + 2)
            )
            for n in range(count)
        ]
    content = {"status": "ok", "execution_count": 1, "protocol_version": "5.4"}
    name = asked.msg_type.replace("_request", "_reply")
    parts.append(framed(channel, said(name, content, asked.header, len(parts) + 2)))
    parts.append(
        framed("iopub", said("status", {"execution_state": "idle"}, asked.header, len(parts) + 2))
    )
    writer.write(b"".join(parts))


async def serve() -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


@contextlib.contextmanager
def stand_in() -> Iterator[int]:
    command = [sys.executable, "-m", "benchmarks.server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


# What is compared.


def bare(port: int, count: int) -> float:
    """A loop that reads, splits and decodes, and does nothing else; messages a second."""
    uri = parse_uri(f"ws://127.0.0.1:{port}/api/kernels/k/channels?session_id=s")
    protocol = ClientProtocol(uri, subprotocols=[V1], max_size=None)  # type: ignore[list-item]
    protocol.send_request(protocol.connect())
    decode = msgspec.json.decode
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"".join(protocol.data_to_send()))
        while protocol.state is State.CONNECTING:
            protocol.receive_data(sock.recv(1 << 18))
        protocol.events_received()
        request = Message(
            {"msg_id": "1", "msg_type": "execute_request"}, {}, {}, {"code": f"flood {count}"}
        )
        protocol.send_binary(pack("shell", WIRE.encode(request), V1)[0])
        sock.sendall(b"".join(protocol.data_to_send()))
        seen, start = 0, 0.0
        while seen < count:
            protocol.receive_data(sock.recv(1 << 18))
            start = start or time.perf_counter()
            for event in protocol.events_received():
                data = event.data  # type: ignore[union-attr]
                offsets = memoryview(data)[8 : 8 * (1 + int.from_bytes(data[:8], "little"))].cast(
                    "Q"
                )
                parts = [bytes(data[a:b]) for a, b in pairwise(offsets[1:])]
                header, _, _, _ = map(decode, parts[:4])
                seen += header["msg_type"] == "stream"
        return count / (time.perf_counter() - start)


async def ours(port: int, count: int) -> float:
    async with (
        open_server(f"http://127.0.0.1:{port}") as server,
        server.attach("k") as kernel,
        kernel.open_channels() as ch,
        ch.subscribe("iopub") as stream,
    ):
        request = {"header": {"msg_type": "execute_request"}, "content": {"code": f"flood {count}"}}
        await ch.shell.send(request)
        seen, start = 0, 0.0
        async for _, msg in stream:
            start = start or time.perf_counter()
            seen += msg.msg_type == "stream"
            if seen == count:
                break
        return count / (time.perf_counter() - start)


async def looks(count: int) -> float:
    """Nothing but the look for a cancellation that each receive has, and a bare loop has not; a second."""
    look = native_checkpoint_if_cancelled()
    start = time.perf_counter()
    for _ in range(count):
        await look()
    return count / (time.perf_counter() - start)


def flood(repetitions: int) -> None:
    ratios: dict[str, list[float]] = {"trio": [], "asyncio": []}
    of_looks: dict[str, list[float]] = {"trio": [], "asyncio": []}
    with stand_in() as port:
        for _ in range(repetitions):
            for backend, found in ratios.items():
                before = bare(port, FLOOD)
                rate = anyio.run(ours, port, FLOOD, backend=backend)
                fastest = max(before, bare(port, FLOOD))
                found.append(fastest / rate)
                of_looks[backend].append(fastest / anyio.run(looks, FLOOD, backend=backend))
    for backend, found in ratios.items():
        print(
            f"  {backend:8} takes {spread(found, 'x')} the time of a bare sans-IO loop, {spread(of_looks[backend], 'x')} of "
            "which to look for a cancellation at each receive"
        )


async def round_trips(ch: KernelChannels) -> list[float]:
    taken = []
    for _ in range(OFTEN):
        start = time.perf_counter()
        await ch.request("kernel_info_request", {})
        taken.append(1e3 * (time.perf_counter() - start))
    return taken


async def trips_of_ours(url: str, token: str) -> list[float]:
    async with (
        open_server(url, token=token) as server,
        server.open_kernel(env={"KERNEL_USERNAME": "ada"}) as kernel,
        kernel.open_channels() as ch,
    ):
        await round_trips(ch)
        return await round_trips(ch)


def trips_of_the_peer(url: str, token: str) -> list[float]:
    import jupyter_kernel_client as peer

    manager = peer.KernelHttpManager(server_url=url, token=token)
    manager.start_kernel(name="python3")
    client = manager.client
    client.start_channels()
    try:
        taken = []
        for _ in range(OFTEN):
            start = time.perf_counter()
            client.kernel_info()
            client.get_shell_msg(timeout=10)
            taken.append(1e3 * (time.perf_counter() - start))
        return taken
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def trips(url: str, token: str, repetitions: int) -> None:
    found: dict[str, list[float]] = {"trio": [], "asyncio": [], "jupyter-kernel-client": []}
    for _ in range(repetitions):
        for backend in ("trio", "asyncio"):
            taken = anyio.run(trips_of_ours, url, token, backend=backend)
            found[backend].append(statistics.median(taken))
        if importlib.util.find_spec("jupyter_kernel_client"):
            found["jupyter-kernel-client"].append(statistics.median(trips_of_the_peer(url, token)))
    for name, medians in found.items():
        if medians:
            print(f"  {name:22} round trip p50 {spread(medians, 'ms')}")


async def many(ports: Sequence[int], counts: Sequence[int], busy: int) -> None:
    async with (
        open_server(f"http://127.0.0.1:{ports[0]}") as first,
        contextlib.AsyncExitStack() as stack,
    ):
        servers = [first]
        for port in ports[1:]:
            servers += [await stack.enter_async_context(open_server(f"http://127.0.0.1:{port}"))]
        held: list[KernelChannels] = []
        done = anyio.Event()

        async def hold(number: int, limiter: anyio.CapacityLimiter) -> None:
            async with contextlib.AsyncExitStack() as opening:
                async with limiter:
                    kernel = await opening.enter_async_context(
                        servers[number % len(servers)].attach("k")
                    )
                    held.append(
                        await opening.enter_async_context(kernel.open_channels(connect_timeout=60))
                    )
                await done.wait()

        async with anyio.create_task_group() as tasks:
            limiter = anyio.CapacityLimiter(50)
            start_memory, start_files = 0.0, 0.0
            for count in counts:
                start = time.perf_counter()
                for number in range(len(held), count):
                    tasks.start_soon(hold, number, limiter)
                while len(held) < count:  # noqa: ASYNC110
                    await anyio.sleep(0.05)
                opened = time.perf_counter() - start
                if not start_files:
                    start_memory, start_files, _ = look()
                taken: list[float] = []

                async def ask(ch: KernelChannels, taken: list[float] = taken) -> None:
                    taken.extend(await round_trips(ch))

                one: list[float] = await round_trips(held[0])
                async with anyio.create_task_group() as asking:
                    for ch in held[:busy]:
                        asking.start_soon(ask, ch)
                more = max(len(held) - counts[0], 1)
                memory, files, _ = look()
                print(
                    f"  {count:5} websockets: opened in {opened:5.1f} s, "
                    f"{1.024 * (memory - start_memory) / more:6.1f} kB and "
                    f"{(files - start_files) / more:4.1f} descriptors each more; round trip p50 "
                    f"{statistics.median(one):.2f} ms alone, {statistics.median(taken):.2f} ms with {min(busy, count)} busy"
                )
            done.set()


def websockets(backend: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    with stand_in() as one, stand_in() as other:
        anyio.run(many, (one, other), (10, 100, 1000), 50, backend=backend)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def server(repetitions: int, url: str | None, token: str) -> None:
    print("20,000 small messages from a stand-in that sends as fast as it can")
    flood(repetitions)
    if url is not None:
        print(f"kernel_info, {OFTEN} times in each turn, against {url}")
        trips(url, token, repetitions)
    for backend in ("trio", "asyncio"):
        print(f"many websockets in one process, {backend}")
        websockets(backend)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())
