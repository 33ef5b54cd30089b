"""Some of a kernel's channels, and not the others."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from enchannel import (
    KernelChannels,
    LocalProtocolError,
    open_control_channel,
    open_iopub_channel,
    open_kernel_channels,
    open_shell_channel,
)
from enchannel.messages import kernel_info_request
from enchannel.testing import ask, open_fake_kernel, pause, stream

pytestmark = pytest.mark.anyio

CONFIG = {
    "transport": "ipc",
    "ip": "nowhere",
    "key": "",
    **{f"{name}_port": 1 for name in ("shell", "control", "stdin", "iopub", "hb")},
}


async def test_those_are_opened_and_the_others_say_so() -> None:
    async with open_fake_kernel(transport="tcp") as kernel:
        kernel.script("1", stream("one"))
        config = kernel.connection_info
        async with open_kernel_channels(None, config, channels=("iopub", "shell")) as ch:
            done = await ch.run("1")
            assert done.outputs[0]["text"] == "one"
            assert set(ch.statistics().received) == {"shell", "iopub"}
            for use in (
                ch.control.receive(),
                ch.stdin.send({"header": {"msg_type": "x"}}),
                ch.interrupt(),
            ):
                with pytest.raises(
                    LocalProtocolError, match=r"(control|stdin).*; there are shell, iopub"
                ):
                    await use
            with pytest.raises(LocalProtocolError, match="on_input answers on the stdin channel"):
                await ch.run("1", on_input=lambda *_: "x")
        async with open_kernel_channels(None, config, channels=["control"]) as ch:
            assert (await ch.kernel_info())["status"] == "ok"
            assert set(ch.statistics().received) == {"control"}


async def test_nobody_waits_for_what_comes_on_a_channel_that_is_not_there() -> None:
    async with open_fake_kernel(transport="tcp") as kernel:
        config = kernel.connection_info
        async with open_kernel_channels(None, config, channels=("shell",)) as ch:
            with anyio.fail_after(15):
                # Not a second each until the idle status is given up.
                for _ in range(20):
                    assert (await ch.run("1")).status == "ok"


async def test_single_channels_may_share_an_identity() -> None:
    """As sockets do in other clients; a kernel hears one of two that have the same."""
    async with open_fake_kernel(transport="tcp") as kernel:
        config = kernel.connection_info
        async with (
            open_iopub_channel("me", config),
            open_shell_channel("me", config) as shell,
            open_control_channel("me", config) as control,
        ):
            for channel in (shell, control):
                sent = await channel.send(kernel_info_request())
                with anyio.fail_after(10):
                    while not (await channel.receive()).is_child_of(sent):
                        pass
        with pytest.raises(LocalProtocolError, match="identity is 1 to 255 bytes"):
            open_iopub_channel("", config)


async def test_where_nothing_says_what_runs_nobody_elses_cell_is_interrupted() -> None:
    async with open_fake_kernel(transport="tcp") as kernel, anyio.create_task_group() as tasks:
        kernel.script("long", stream("begun"), pause(1))
        config = kernel.connection_info
        done: list[str] = []

        async def run(others: KernelChannels) -> None:
            done.append((await others.run("long")).status)

        async with (
            open_kernel_channels(None, config) as others,
            open_kernel_channels(None, config, channels=("shell", "control")) as ch,
            others.subscribe("iopub") as published,
        ):
            tasks.start_soon(run, others)
            async for _, message in published:
                if message.msg_type == "stream":
                    break
            with anyio.move_on_after(0.2):
                await ch.run("1", interrupt_on_cancel=True)
            await others.wait_idle()
        assert done == ["ok"]


async def test_without_control_what_is_asked_in_vain_is_given_an_empty_text() -> None:
    async with open_fake_kernel(transport="tcp") as kernel:
        kernel.script("ask", ask("name? "))
        channels: Any = ("shell", "stdin", "iopub")
        async with open_kernel_channels(None, kernel.connection_info, channels=channels) as ch:

            def fail(prompt: str, password: bool) -> str:
                raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await ch.run("ask", on_input=fail)
            with anyio.fail_after(10):
                assert (await ch.run("1")).status == "ok"
            with pytest.raises(LocalProtocolError, match="interrupt_on_cancel needs the control"):
                await ch.run("1", interrupt_on_cancel=True)


async def test_stdin_alone_answers_nothing() -> None:
    async with open_fake_kernel(transport="tcp") as kernel:
        config = kernel.connection_info
        async with open_kernel_channels(None, config, channels=("stdin",)) as ch:
            with pytest.raises(LocalProtocolError, match="unknown channel 'shell'"):
                await ch.kernel_info()


@pytest.mark.parametrize(
    ("channels", "complaint"),
    [
        ("shell", "some of shell, control, stdin, iopub, such as .*, not 'shell'"),
        ((), r"not \(\)"),
        (5, "not 5"),
        ([[]], r"not \[\[\]\]"),
        (("shell", "hb"), "not .*'hb'"),
        (("iopub",), "iopub goes with shell or control"),
        (("stdin", "iopub"), "iopub goes with shell or control"),
    ],
)
def test_what_cannot_be_opened_is_told_at_the_call(channels: Any, complaint: str) -> None:
    with pytest.raises(LocalProtocolError, match=complaint):
        open_kernel_channels(None, CONFIG, channels=channels)
