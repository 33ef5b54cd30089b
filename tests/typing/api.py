"""What type checkers make of the API; checked, never run."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import anyio.abc
import zmq
from typing_extensions import assert_type

from enchannel import (
    Channel,
    ChannelStatistics,
    ConnectionInfo,
    Kernel,
    KernelChannels,
    Listener,
    Message,
    open_channels,
    open_iopub_channel,
    open_kernel,
    open_kernel_channels,
    open_shell_channel,
    wrap_sockets,
)

BODY = {"header": {"msg_type": "execute_request"}, "content": {"code": "1"}}


async def channels(config: dict[str, Any], info: ConnectionInfo) -> None:
    for identity in ("me", b"me", uuid.uuid4(), None):
        async with open_kernel_channels(identity, config) as ch:
            assert_type(ch, KernelChannels)
    open_kernel_channels(None, Path("kernel.json"), subscription=["a", b"b"], connect_timeout=3)
    async with open_kernel_channels(None, info, max_buffer_size=10) as ch:
        assert_type(await ch.main.send("shell", BODY), Message)
        assert_type(await ch.shell.send(Message({"msg_type": "x"})), Message)
        async for channel, msg in ch.main:
            text: str = channel
            assert_type(msg, Message)
            print(text, msg.content)
        async for msg in ch.iopub:
            assert_type(msg, Message)
        async with ch.subscribe("iopub") as output:
            async for channel, msg in output:
                print(channel, msg)
        assert_type(ch.statistics(), ChannelStatistics)
        await an_anyio_function(ch.shell)
        await another(ch.iopub)


async def an_anyio_function(stream: anyio.abc.ObjectStream[Message]) -> None:
    await stream.send(await stream.receive())


async def another(stream: anyio.abc.ObjectReceiveStream[Message]) -> None:
    await stream.receive()


async def the_others(config: str, shell: zmq.Socket[bytes]) -> None:
    async with open_shell_channel("me", config, username="us") as channel:
        assert_type(channel, Channel)
    async with open_iopub_channel("me", config, subscription="topic") as iopub:
        assert_type(iopub, Listener[Message])
    async with open_channels(wrap_sockets({"shell": shell}, key="key"), session="s") as ch:
        assert_type(ch, KernelChannels)
    async with open_kernel("python3", cwd="here") as kernel, kernel.open_channels() as ch:
        assert_type(kernel, Kernel)
        assert_type(kernel.returncode, "int | None")
        assert_type(ch, KernelChannels)
