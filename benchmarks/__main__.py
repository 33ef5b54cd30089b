"""How fast messages that wait in a socket are delivered, beside a bare blocking loop in the same run.

Ratios within one run are what counts: the machine may be shared, and absolute figures drift.
"""

from __future__ import annotations

import statistics
import time
import uuid
from collections.abc import Callable

import anyio
import zmq

from enchannel import Message, open_channels, wrap_sockets
from enchannel._wire import Wire

KEY = b"the key of the benchmarks"
COUNT = 20_000
REPETITIONS = 5


def flooded(context: zmq.Context) -> zmq.Socket:
    """A subscriber in whose queue distinct, signed messages wait."""
    wire, publisher, subscriber = Wire(KEY), context.socket(zmq.PUB), context.socket(zmq.SUB)
    publisher.set(zmq.SNDHWM, 0)
    subscriber.set(zmq.RCVHWM, 0)
    endpoint = f"inproc://{uuid.uuid4()}"
    publisher.bind(endpoint)
    subscriber.subscribe(b"")
    subscriber.connect(endpoint)
    parent = {"msg_id": str(uuid.uuid4()), "msg_type": "execute_request", "version": "5.4"}
    for number in range(COUNT):
        header = {"msg_id": f"{uuid.uuid4()}_{number}", "msg_type": "stream", "version": "5.4"}
        content = {"name": "stdout", "text": f"line {number}\n"}
        message = Message(header, parent, {}, content)
        publisher.send_multipart(wire.encode(message, [b"kernel.stream"]))
    publisher.close()
    return subscriber


def bare_loop(subscriber: zmq.Socket) -> float:
    """Receives, verifies and decodes in a blocking loop."""
    decode = Wire(KEY).decode
    start = time.perf_counter()
    for _ in range(COUNT):
        decode(subscriber.recv_multipart())
    return time.perf_counter() - start


def enchannel(backend: str) -> Callable[[zmq.Socket], float]:
    """An ``async for`` over ``ch.iopub``."""

    async def consume(subscriber: zmq.Socket) -> float:
        transport = wrap_sockets({"iopub": subscriber}, key=KEY)
        start = time.perf_counter()
        async with open_channels(transport) as ch:
            count = 0
            async for _ in ch.iopub:
                count += 1
                if count == COUNT:
                    return time.perf_counter() - start
        raise AssertionError("the stream ended")

    return lambda subscriber: anyio.run(consume, subscriber, backend=backend)


def main() -> None:
    """Prints one line for each way, as a ratio to the bare loop of the same repetition."""
    ways = {"trio": enchannel("trio"), "asyncio": enchannel("asyncio")}
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPETITIONS):
        with zmq.Context() as context, flooded(context) as subscriber:
            bare = bare_loop(subscriber)
        for name, way in ways.items():
            with zmq.Context() as context, flooded(context) as subscriber:
                ratios[name].append(bare / way(subscriber))
    print(f"{COUNT} messages waiting in the socket, speed against a bare blocking loop:")
    for name, values in ratios.items():
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(f"  ch.iopub on {name:8} {statistics.median(values):.2f} x   ({spread})")


if __name__ == "__main__":
    main()
