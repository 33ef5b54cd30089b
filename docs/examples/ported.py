"""A program of jupyter_client's, and what became of it.

Before::

    manager, client = start_new_kernel(kernel_name="python3")
    try:
        reply = client.execute_interactive(code, timeout=60, output_hook=show, stdin_hook=answer)
        completions = client.complete("pri", reply=True, timeout=10)["content"]["matches"]
        manager.interrupt_kernel()
        manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=60)
        ...
    finally:
        client.stop_channels()
        manager.shutdown_kernel()

There the reply of a killed kernel is waited for, and so is one that a restart has taken away: the client is told of
neither. Here a time limit is a scope, whoever waits is told, and what was begun is ended.

    python ported.py
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import anyio
import trio

from enchannel import KernelDied, Message, open_kernel
from enchannel.outputs import bundle_text


def show(message: Message) -> None:
    """The ``output_hook``."""
    content = message.content
    if message.msg_type == "stream":
        print(content["text"], end="", file=getattr(sys, content["name"]))
    elif message.msg_type in ("display_data", "execute_result"):
        print(bundle_text(content["data"]))
    elif message.msg_type == "error":
        print("\n".join(content["traceback"]), file=sys.stderr)


async def main(answer: Callable[[str, bool], str], hook: Callable[[Message], None] = show) -> str:
    async with open_kernel("python3") as kernel, kernel.open_channels() as ch:
        with anyio.fail_after(60):
            async with ch.execute("print(f'hello, {input()}')", on_input=answer) as execution:
                async for message in execution:
                    hook(message)
        completions = await ch.request("complete_request", {"code": "pri", "cursor_pos": 3})
        print(completions.content["matches"])
        async with ch.execute("import time; time.sleep(600)") as execution:
            await kernel.restart(now=True)
            try:
                await execution.wait()
            except KernelDied as died:
                print(died)
        return (await ch.run("'as good as new'")).text


if __name__ == "__main__":
    print(trio.run(main, lambda prompt, password: "world"))
