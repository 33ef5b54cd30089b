"""A small Trio program: runs the cells of a notebook in a kernel and says what they printed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import trio

from enchannel import KernelChannels, open_kernel


class CellFailed(Exception):
    """A cell raised; the message is the kernel's ``ename: evalue``."""


async def run_cell(channels: KernelChannels, code: str) -> str:
    """Runs one cell and returns what it printed."""
    sent = await channels.main.send(
        "shell",
        {
            "header": {"msg_type": "execute_request"},
            "content": {"code": code, "allow_stdin": False},
        },
    )
    printed: list[str] = []
    error = ""
    missing = {"reply", "idle"}
    async for channel, msg in channels.main:
        if not msg.is_child_of(sent):
            continue
        if msg.msg_type == "stream":
            printed.append(msg.content["text"])
        elif msg.msg_type == "error":
            error = f"{msg.content['ename']}: {msg.content['evalue']}"
        elif channel == "shell":
            missing.discard("reply")
        elif msg.content.get("execution_state") == "idle":
            missing.discard("idle")
        if not missing:
            break
    if error:
        raise CellFailed(error)
    return "".join(printed)


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
