"""``python -m benchmarks``: every figure as a ratio within one run, with its spread.

The machine may be shared and its clock may drift: what counts are ratios of clients that took turns, with
their median and the smallest and the largest of all repetitions.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import trio
import zmq

from enchannel import KernelChannels, Message, open_kernel_channels, open_shell_channel
from enchannel._protocol.wire import Wire

from . import clients
from .clients import Client, Config
from .day import day
from .figures import spread
from .instructions import SUBJECTS, instructions
from .kernel import KEY, Driver, stand_in
from .memory import memory
from .server import server

FLOOD = 10_000
SLOW_FLOOD = 4_000
"""Messages for the clients that take five times as long."""

KERNELS = 10
"""Processes among which the channels of many kernels are spread."""

BACKENDS = ("trio", "asyncio")


def flood(repetitions: int, *, waiting: bool) -> None:
    """Messages of one flood delivered a second."""
    ours = {
        f"enchannel {name} on {backend}": clients.enchannel(consume, backend)
        for backend in BACKENDS
        for name, consume in (
            ("ch.iopub", clients.iopub),
            ("ch.main", clients.main),
            ("execution", clients.execution),
            ("1,000 in flight", clients.with_requests_in_flight),
        )
    }
    peers: dict[str, Client] = {}
    if importlib.util.find_spec("jupyter_client"):
        peers["jupyter_client"] = clients.jupyter_client
    if importlib.util.find_spec("zmq_anyio"):
        peers["zmq-anyio"] = clients.zmq_anyio
    if not waiting and clients.node_command():
        peers["enchannel-zmq-backend"] = clients.enchannel_zmq_backend
    rates: dict[str, list[float]] = {name: [] for name in (*ours, *peers)}
    times_bare: dict[str, list[float]] = {name: [] for name in rates}
    slow = ("jupyter_client", "zmq-anyio")
    with stand_in() as (config, driver):
        for _ in range(repetitions):
            for name, client in {**ours, **peers}.items():
                # Right before, for a shared machine is twice as fast in one second as in another.
                bare = clients.bare(config, driver, FLOOD, waiting)
                count = SLOW_FLOOD if name in slow else FLOOD
                rates[name].append(client(config, driver, count, waiting))
                times_bare[name].append(rates[name][-1] / bare)
    where = "waiting in the socket" if waiting else "live from another process"
    print(f"\nFlood {where}: messages a second, and how many times a bare blocking loop's")
    for name, rate in rates.items():
        print(f"  {name:34} {statistics.median(rate):9,.0f} {spread(times_bare[name])}")
    first, *_ = ours
    for name in peers:
        print(f"  {first} to {name:22} {spread(ratios(times_bare[first], times_bare[name]))}")
    for backend in BACKENDS:
        one, many = (
            times_bare[f"enchannel {name} on {backend}"] for name in ("ch.iopub", "1,000 in flight")
        )
        print(f"  cost per message, 1,000 to 0 in flight, {backend:8}  {spread(ratios(one, many))}")


def ratios(ours: Iterable[float], theirs: Iterable[float]) -> list[float]:
    return [our / their for our, their in zip(ours, theirs, strict=True)]


def round_trips(repetitions: int, count: int = 100, turns: int = 5) -> None:
    """A kernel_info_request and its reply, one after the other.

    The clients take short turns: what a machine gives to two processes that wake one another changes
    from one second to the next, by more than what the clients differ in.
    """
    kernels: list[tuple[str, Callable[[], Any], int]] = [
        ("shell alone", stand_in, 1),
        ("shell, with iopub read beside it", stand_in, 4),
    ]
    if importlib.util.find_spec("jupyter_client"):
        kernels.append(("an ipykernel's shell, with iopub read beside it", real_kernel, 4))
    for what, kernel, channels in kernels:
        took: dict[str, list[list[float]]] = {
            name: [] for name in ("bare", *BACKENDS, "Trio and nothing else")
        }
        with kernel() as (config, _):
            for _ in range(repetitions):
                pooled: dict[str, list[float]] = {name: [] for name in took}
                for _ in range(turns):
                    pooled["bare"] += bare_round_trips(config, count, channels)
                    pooled["Trio and nothing else"] += trio_round_trips(config, count, channels)
                    for name in BACKENDS:
                        args = (config, count, channels)
                        pooled[name] += anyio.run(our_round_trips, *args, backend=name)
                for name, runs in took.items():
                    runs.append(sorted(pooled[name]))
        print(f"\nRound trip of a kernel_info_request, {what}: µs, and times the blocking loop's")
        for name, runs in took.items():
            for percent in (50, 99):
                mine, bare = (
                    [run[len(run) * percent // 100] * 1e6 for run in each]
                    for each in (runs, took["bare"])
                )
                ratio = spread(ratios(mine, bare))
                print(f"  {name:21} p{percent} {statistics.median(mine):7.0f} {ratio}")


@contextlib.contextmanager
def real_kernel() -> Iterator[tuple[Config, None]]:
    """A running ipykernel: its connection file's content."""
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(stderr=subprocess.DEVNULL)
    try:
        yield manager.get_connection_info(), None
    finally:
        manager.shutdown_kernel(now=True)


def kernel_info() -> dict[str, Any]:
    return {"header": {"msg_type": "kernel_info_request"}, "content": {}}


def bare_round_trips(config: Config, count: int, channels: int) -> list[float]:
    wire, took = Wire(config["key"]), []
    with (
        zmq.Context() as context,
        context.socket(zmq.DEALER) as socket,
        clients.subscriber(context, config) as iopub,
    ):
        socket.connect(f"tcp://127.0.0.1:{config['shell_port']}")
        if channels == 1:
            iopub.close()
        poller = zmq.Poller()
        for each in (socket, iopub)[:channels]:
            poller.register(each, zmq.POLLIN)
        for _ in range(count + 1):
            start = time.perf_counter()
            msg_id = clients.send_bare(wire, socket)
            ready: dict[Any, int] = {}
            while channels > 1 and socket not in ready:
                ready = dict(poller.poll())
                if iopub in ready:
                    wire.decode(iopub.recv_multipart())
            assert wire.decode(socket.recv_multipart()).is_child_of(msg_id)
            took.append(time.perf_counter() - start)
    # The first is the time that it takes to connect.
    return took[1:]


def trio_round_trips(config: Config, count: int, channels: int) -> list[float]:
    """What Trio takes: a task that reads each socket as plainly as can be, and one that asks."""
    wire, took = Wire(config["key"]), []
    replies, received = trio.open_memory_channel[Message](math.inf)

    async def read(socket: zmq.Socket[bytes], handle: Callable[[Message], object]) -> None:
        while True:
            with contextlib.suppress(zmq.Again):
                while True:
                    handle(wire.decode(socket.recv_multipart(zmq.DONTWAIT)))
            await trio.lowlevel.wait_readable(socket)

    async def main() -> None:
        with (
            zmq.Context() as context,
            context.socket(zmq.DEALER) as shell,
            clients.subscriber(context, config) as iopub,
        ):
            shell.connect(f"tcp://127.0.0.1:{config['shell_port']}")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read, shell, replies.send_nowait)
                if channels > 1:
                    nursery.start_soon(read, iopub, lambda _: None)
                for _ in range(count + 1):
                    start = time.perf_counter()
                    msg_id = clients.send_bare(wire, shell)
                    # To send may have eaten the edge that the reader waits for.
                    while shell.get(zmq.EVENTS) & zmq.POLLIN:
                        replies.send_nowait(wire.decode(shell.recv_multipart()))
                    assert (await received.receive()).is_child_of(msg_id)
                    took.append(time.perf_counter() - start)
                nursery.cancel_scope.cancel()

    trio.run(main)
    return took[1:]


async def our_round_trips(config: Config, count: int, channels: int) -> list[float]:
    took = []
    async with contextlib.AsyncExitStack() as stack:
        if channels == 1:
            shell = await stack.enter_async_context(open_shell_channel(None, config))
        else:
            shell = (await stack.enter_async_context(open_kernel_channels(None, config))).shell
        for _ in range(count + 1):
            start = time.perf_counter()
            sent = await shell.send(kernel_info())
            assert (await shell.receive()).is_child_of(sent)
            took.append(time.perf_counter() - start)
    return took[1:]


def big_buffers(repetitions: int, size: int = 256 << 20) -> None:
    """One message with a big buffer."""
    rates: dict[str, list[float]] = {"bare": [], **{backend: [] for backend in BACKENDS}}
    with stand_in() as (config, driver):
        for _ in range(repetitions):
            for name in rates:
                if name == "bare":
                    seconds = bare_buffer(config, driver, size)
                else:
                    seconds = anyio.run(our_buffer, config, driver, size, backend=name)
                rates[name].append(size / seconds / 1e6)
    print(f"\nOne buffer of {size >> 20} MiB: MB/s, and how many times the blocking loop's")
    for name, rate in rates.items():
        print(f"  {name:10} {statistics.median(rate):7.0f} {spread(ratios(rate, rates['bare']))}")


def bare_buffer(config: Config, driver: Driver, size: int) -> float:
    with zmq.Context() as context, clients.subscriber(context, config) as socket:
        socket.recv_multipart()
        start = time.perf_counter()
        driver.command(f"buffer {size}")
        while len(socket.recv_multipart(copy=False)) < 8:
            pass
        seconds = time.perf_counter() - start
        driver.wait()
    return seconds


async def our_buffer(config: Config, driver: Driver, size: int) -> float:
    async with open_kernel_channels(None, config) as ch:
        start = time.perf_counter()
        driver.command(f"buffer {size}")
        async for msg in ch.iopub:
            if msg.buffers:
                break
        seconds = time.perf_counter() - start
        driver.wait()
    return seconds


def fairness() -> None:
    """The worst gap between two turns of a task that only takes turns, beside a flood."""

    async def run(config: Config, driver: Driver) -> tuple[float, float]:
        async with open_kernel_channels(None, config) as ch, anyio.create_task_group() as tasks:
            gaps: list[float] = []

            async def take_turns() -> None:
                last = time.perf_counter()
                while True:
                    await anyio.lowlevel.checkpoint()
                    now = time.perf_counter()
                    gaps.append(now - last)
                    last = now

            clock = clients.Clock(driver, FLOOD, waiting=True)
            tasks.start_soon(take_turns)
            await clients.iopub(ch, clock)
            tasks.cancel_scope.cancel()
        return statistics.median(gaps), max(gaps)

    print(f"\nA task that only takes turns, beside a flood of {FLOOD}: ms between two of them")
    for backend in BACKENDS:
        with stand_in() as (config, driver):
            usual, worst = anyio.run(run, config, driver, backend=backend)
        print(f"  {backend:10} usually {usual * 1e3:.2f}, at worst {worst * 1e3:.2f}")


def importing(repetitions: int) -> None:
    """What importing enchannel adds to its dependencies."""
    code = (
        "import time, anyio, zmq, attrs, msgspec\n"
        "start = time.perf_counter()\nimport enchannel\nprint(time.perf_counter() - start)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    took = []
    for _ in range(repetitions + 1):
        command = [sys.executable, "-c", code]
        output = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
        took.append(float(output) * 1e3)
    # The first may have compiled.
    print("\nimport enchannel, behind anyio, zmq, attrs and msgspec")
    print(f"  {spread(took[1:], 'ms')}")


def opening(repetitions: int) -> None:
    """Opening the channels of a running kernel until the first request may be sent, and closing them."""

    async def ours(config: Config) -> None:
        async with open_kernel_channels(None, config):
            pass

    async def theirs(config: Config) -> None:
        from jupyter_client.asynchronous import AsyncKernelClient

        client = AsyncKernelClient()
        client.load_connection_info({**config, "key": KEY.encode()})
        client.start_channels(hb=False)
        await client.wait_for_ready()
        client.stop_channels()
        client.context.destroy(linger=0)

    ways: dict[str, tuple[Any, str]] = {backend: (ours, backend) for backend in BACKENDS}
    if importlib.util.find_spec("jupyter_client"):
        ways["jupyter_client"] = (theirs, "asyncio")
    took: dict[str, list[float]] = {name: [] for name in ways}
    with stand_in() as (config, _):
        for _ in range(repetitions):
            for name, (way, backend) in ways.items():
                start = time.perf_counter()
                anyio.run(way, config, backend=backend)
                took[name].append((time.perf_counter() - start) * 1e3)
    print("\nOpening the channels until they are ready, and closing them")
    for name, values in took.items():
        print(f"  {name:16} {spread(values, 'ms')}")


def many_kernels() -> None:
    """What the open channels of a kernel take, in a process of their own for each number."""
    print("\nChannels of many kernels open in one process: per kernel")
    for backend in BACKENDS:
        for count in (50, 100, 200):
            with contextlib.ExitStack() as stack:
                configs = [stack.enter_context(stand_in())[0] for _ in range(KERNELS)]
                command = [sys.executable, "-m", "benchmarks", "--hold", str(count), backend]
                given = json.dumps(configs).encode()
                output = subprocess.run(command, input=given, capture_output=True, check=True)
            figures = json.loads(output.stdout)
            print(
                f"  {backend:8} {count:4}: {figures['kB'] / count:6.0f} kB, "
                f"{figures['descriptors'] / count:.1f} descriptors, "
                f"{figures['tasks'] / count:.0f} tasks; "
                f"{figures['threads']} threads in all; "
                f"opened in {figures['seconds'] / count * 1e3:.1f} ms each"
            )


async def hold(configs: list[Config], count: int) -> dict[str, float]:
    """Opens `count` kernels' channels; how much more this process holds then."""

    def now() -> dict[str, float]:
        lines = Path("/proc/self/status").read_text().splitlines()
        status = dict(line.split(":", 1) for line in lines)
        return {
            "kB": int(status["VmRSS"].split()[0]),
            "threads": int(status["Threads"]),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "tasks": len(anyio.get_running_tasks()),
            "seconds": time.perf_counter(),
        }

    async with anyio.create_task_group() as tasks:

        async def one(config: Config, *, task_status: anyio.abc.TaskStatus[KernelChannels]) -> None:
            async with open_kernel_channels(None, config) as ch:
                task_status.started(ch)
                # As a user would, or the others' greetings would pile up.
                async for _ in ch.main:
                    pass

        before = now()
        for number in range(count):
            await tasks.start(one, configs[number % len(configs)])
        after = now()
        tasks.cancel_scope.cancel()
    return {name: after[name] - before[name] for name in after}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    runs: dict[str, Callable[[int], object]] = {
        "waiting": lambda repetitions: flood(repetitions, waiting=True),
        "live": lambda repetitions: flood(repetitions, waiting=False),
        "round-trips": round_trips,
        "buffers": big_buffers,
        "fairness": lambda _: fairness(),
        "import": importing,
        "opening": opening,
        "many": lambda _: many_kernels(),
        "memory": lambda _: memory(),
        "server": lambda repetitions: server(
            repetitions, os.environ.get("JUPYTER_SERVER_URL"), os.environ.get("JUPYTER_TOKEN", "")
        ),
        "day": lambda _: [day(backend=backend) for backend in BACKENDS],
        "instructions": lambda _: instructions(arguments.subjects),
    }
    parser.add_argument(
        "runs", nargs="*", help=f"of {', '.join(runs)}; by default all but the last two"
    )
    parser.add_argument("--repetitions", type=int, default=9)
    subjects = f"whose instructions to count, of {', '.join(SUBJECTS)}; by default all"
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, metavar="SUBJECT", help=subjects)
    parser.add_argument("--hold", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.hold:
        count, backend = arguments.hold
        figures = anyio.run(hold, json.load(sys.stdin), int(count), backend=backend)
        print(json.dumps(figures))
        return
    unknown = set(arguments.runs) - set(runs)
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(runs)}")
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} CPUs")
    # A day takes half an hour, and counting a quarter of one.
    for name in arguments.runs or [name for name in runs if name not in ("day", "instructions")]:
        runs[name](arguments.repetitions)


if __name__ == "__main__":
    main()
