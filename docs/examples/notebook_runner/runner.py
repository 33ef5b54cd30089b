"""A small Trio program: runs the cells of a notebook in a kernel and says what they printed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import trio

from enchannel import KernelChannels, open_kernel


class CellFailed(Exception):
    """A cell raised; the message is the kernel's ``ename: evalue``."""


async def run_cell(channels: KernelChannels, code: str) -> str:
    """Runs one cell and returns what it printed."""
    async with channels.execute(code) as execution:
        reply = await execution.wait()
    if reply.content["status"] == "error":
        raise CellFailed(f"{reply.content['ename']}: {reply.content['evalue']}")
    return "".join(output["text"] for output in execution.outputs if "text" in output)


async def run_notebook(channels: KernelChannels, cells: Sequence[str]) -> AsyncIterator[str]:
    """What each cell printed, as soon as it is done."""
    for code in cells:
        yield await run_cell(channels, code)


async def main() -> None:
    async with open_kernel("python3") as kernel, kernel.open_channels() as channels:
        async for printed in run_notebook(channels, ["x = 6", "print(x * 7)"]):
            print(printed, end="")


if __name__ == "__main__":
    trio.run(main)
