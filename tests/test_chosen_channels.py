"""Some of a kernel's channels, and not the others."""

from __future__ import annotations

from typing import Any

import pytest

from enchannel import LocalProtocolError, open_kernel_channels
from enchannel.testing import open_fake_kernel, stream

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


@pytest.mark.parametrize(
    ("channels", "complaint"),
    [
        ("shell", "some of shell, control, stdin, iopub, such as .*, not 'shell'"),
        ((), r"not \(\)"),
        (("shell", "hb"), "not .*'hb'"),
        (("iopub",), "iopub goes with shell or control"),
        (("stdin", "iopub"), "iopub goes with shell or control"),
    ],
)
def test_what_cannot_be_opened_is_told_at_the_call(channels: Any, complaint: str) -> None:
    with pytest.raises(LocalProtocolError, match=complaint):
        open_kernel_channels(None, CONFIG, channels=channels)
