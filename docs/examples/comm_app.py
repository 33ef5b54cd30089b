"""A program with a kernel behind it: both send what they have when they have it, over a comm.

The kernel watches a signal that it makes up; the program shows it, and changes how it is made.

    python comm_app.py
"""

from __future__ import annotations

from array import array
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio
import trio

from enchannel import Comm, KernelChannels, open_kernel

IN_KERNEL = """
import array, math, threading

class Signal:
    def __init__(self, comm, opening):
        self.comm, self.step, self.stopped = comm, opening["content"]["data"]["step"], threading.Event()
        comm.on_msg(self.change)
        comm.on_close(lambda _: self.stopped.set())
        threading.Thread(target=self.run, daemon=True).start()

    def change(self, message):
        self.step = message["content"]["data"]["step"]

    def run(self):
        x = 0.0
        while not self.stopped.wait(0.05):
            points = array.array("d", (math.sin(x + n * self.step) for n in range(100)))
            x += 100 * self.step
            self.comm.send({"step": self.step}, buffers=[points])

get_ipython().kernel.comm_manager.register_target("signal", Signal)
"""


@asynccontextmanager
async def open_signal(ch: KernelChannels, step: float) -> AsyncIterator[Comm]:
    """The signal, in pieces of 100 points; the kernel stops when the block is left."""
    await ch.run(IN_KERNEL, check=True, silent=True)
    async with ch.open_comm("signal", {"step": step}) as comm:
        yield comm


async def show(comm: Comm, pieces: int, draw: Callable[[float, array[float]], None]) -> None:
    """Shows some pieces, and has the kernel take longer steps after half of them."""
    count = 0
    async for message in comm:
        points = array("d", bytes(message.buffers[0]))
        draw(message.content["data"]["step"], points)
        count += 1
        if count == pieces // 2:
            await comm.send({"step": 2 * message.content["data"]["step"]})
        if count == pieces:
            return


def draw_line(step: float, points: array[float]) -> None:
    print(f"step {step:g}: " + "".join(" .-*"[int((point + 1) * 1.99)] for point in points[::2]))


async def main() -> None:
    async with open_kernel("python3") as kernel, kernel.open_channels() as ch:
        async with open_signal(ch, 0.05) as comm:
            with anyio.fail_after(60):
                await show(comm, 10, draw_line)


if __name__ == "__main__":
    trio.run(main)
