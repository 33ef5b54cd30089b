"""What type checkers make of the API; checked, never run."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any, Literal, assert_type

import anyio.abc
import zmq

from enchannel import (
    Channel,
    ChannelStatistics,
    Comm,
    CompletedExecution,
    ConnectionInfo,
    Execution,
    Kernel,
    KernelChannels,
    KernelDied,
    KernelModel,
    Listener,
    Message,
    Server,
    ServerKernel,
    ServerKernelSpec,
    messages,
    open_channels,
    open_iopub_channel,
    open_kernel,
    open_kernel_channels,
    open_server,
    open_shell_channel,
    operators,
    raise_for_status,
    user_expression,
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
        assert_type(ch.status, Literal["unknown", "starting", "busy", "idle", "dead"])
        async for status in ch.statuses():
            word: str = status
            print(word)
        assert_type(ch.lost, KernelDied | None)
        if (await ch.wait_lost()).reason == "exited":
            print("or a typo would be told")
        await ch.wait_idle()
        await ch.interrupt()
        await an_anyio_function(ch.shell)
        await another(ch.iopub)


async def conversations(ch: KernelChannels) -> None:
    reply = await ch.request("inspect_request", {"code": "x", "cursor_pos": 1})
    assert_type(raise_for_status(reply), Message)
    assert_type(await ch.request(messages.complete_request("x")), Message)
    async with ch.execute("x", on_input=lambda prompt, password: prompt) as execution:
        assert_type(execution, Execution)
        async for msg in execution:
            assert_type(msg, Message)
        assert_type(await execution.wait(), Message)
        assert_type(execution.outputs, list[dict[str, Any]])
    done = await ch.run("x", check=True, silent=True, subshell_id="s")
    assert_type(done, CompletedExecution)
    assert_type(done.reply, Message)
    assert_type(user_expression(done.reply, "name"), dict[str, Any])
    assert_type(messages.content(done.reply, messages.ExecuteReply), messages.ExecuteReply)
    info = await ch.kernel_info()
    features: list[str] = info.get("supported_features", [])
    async with ch.open_comm("target") as comm, ch.accept_comms("target") as incoming:
        assert_type(await comm.receive(), Message)
        assert_type(await incoming.receive(), Comm)
    async with ch.open_subshell() as sub, ch.open_debug_session() as debug:
        assert_type(await sub.request("x_request"), Message)
        assert_type(await debug.request("threads"), dict[str, Any])
    async for output in operators.outputs(operators.children_of(ch.main, reply)):
        print(output, features)
    async for msg in operators.of_type(ch.iopub, "stream"):
        assert_type(msg, Message)


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
    async with open_server("http://localhost:8888", token="t") as server:
        assert_type(server, Server)
        assert_type(await server.kernelspecs(), list[ServerKernelSpec])
        assert_type(await server.list_kernels(), list[KernelModel])
        async with server.open_kernel("python3") as there, there.open_channels() as ch:
            assert_type(there, ServerKernel)
            assert_type(ch, KernelChannels)
        async with open_channels(await server.connect("id"), owned=True) as ch:
            assert_type(ch, KernelChannels)
