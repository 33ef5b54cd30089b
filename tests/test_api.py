"""What the names of the package are, say and refuse, apart from any conversation."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

import enchannel
from enchannel import (
    LocalProtocolError,
    Message,
    open_channels,
    open_kernel,
    open_kernel_channels,
)
from enchannel.messages import create_subshell_request, message
from enchannel.testing import memory_transport_pair, open_fake_kernel

INFO = dict.fromkeys(("shell_port", "control_port", "stdin_port", "iopub_port", "hb_port"), 1)


def test_the_version_is_that_of_the_distribution() -> None:
    assert enchannel.__version__ == version("enchannel")


def test_what_is_not_there_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'opne_kernel'"):
        enchannel.opne_kernel  # type: ignore[attr-defined]  # noqa: B018


def test_a_message_may_be_in_a_set() -> None:
    one = Message({"msg_id": "1", "msg_type": "status"})
    same = attrs.evolve(one, header=dict(one.header))
    other = attrs.evolve(one, content={"execution_state": "busy"})
    assert len({one, same, other}) == 2


@pytest.mark.parametrize("msg_type", ["usage_request", "create_subshell_request", "debug_request"])
def test_what_control_is_for(msg_type: str) -> None:
    assert Message({"msg_type": msg_type}).channel == "control"


@pytest.mark.parametrize("subscription", [None, 5, [None], object()])
def test_a_subscription_is_a_prefix_or_several(subscription: Any) -> None:
    with pytest.raises(LocalProtocolError, match="subscription is a topic prefix"):
        open_kernel_channels(None, INFO, subscription=subscription)


@pytest.mark.parametrize("name", [None, 5, Path("python3")])
def test_a_kernel_has_a_name(name: Any) -> None:
    with pytest.raises(LocalProtocolError, match=f"not {type(name).__name__}"):
        open_kernel(name)


def test_a_program_that_configures_no_logging_hears_nothing() -> None:
    code = "from enchannel._log import logger; logger().warning('said')"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stderr == ""
    configured = f"import logging; logging.basicConfig(); {code}"
    said = subprocess.run(
        [sys.executable, "-c", configured], capture_output=True, text=True, check=True
    )
    assert "said" in said.stderr


@pytest.mark.anyio
async def test_what_is_held_says_what_it_is() -> None:
    async with open_fake_kernel() as kernel:
        assert repr(kernel) == "<FakeKernel over memory running>"
        async with kernel.open_channels() as ch:
            async with ch.execute("1") as execution:
                assert repr(execution) == "<Execution running>"
                await execution.wait()
                assert repr(execution) == "<Execution [1] complete>"
            await ch.shell.send(message("inspect_request", {"code": "x", "cursor_pos": 0}))
        with pytest.raises(anyio.ClosedResourceError, match="block of the channels was left"):
            await ch.request("kernel_info_request")
        with pytest.raises(anyio.ClosedResourceError, match="block of the channels was left"):
            await ch.control.receive()


@pytest.mark.anyio
async def test_what_a_subshell_is_to_handle_says_the_version_that_has_subshells() -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        plain = await ch.control.send(create_subshell_request())
        assert plain.header["version"] == "5.4"
        sub = await ch.shell.send(message("inspect_request", {}, subshell_id="1"))
        assert sub.header["version"] == "5.5"


@pytest.mark.anyio
async def test_a_transport_carries_one_block_of_channels_at_a_time() -> None:
    transport, _ = memory_transport_pair()
    async with open_channels(transport):
        with pytest.raises(LocalProtocolError, match="over this transport already"):
            async with open_channels(transport):
                pytest.fail("the block was entered")
    async with open_channels(transport):
        pass


RECEIVED = {"aclose", "buffered", "close", "closed", "extra", "extra_attributes", "receive"}


@pytest.mark.parametrize(
    ("what", "more"),
    [
        (enchannel.Listener, {"channels", "listen"}),
        (enchannel.Comm, {"closing", "comm_id", "opening", "send", "target_name"}),
        (enchannel.IncomingComms, set()),
        (enchannel.DebugSession, {"request"}),
    ],
)
def test_a_stream_shows_its_user_nothing_of_its_other_end(what: type, more: set[str]) -> None:
    assert {name for name in dir(what) if not name.startswith("_")} == RECEIVED | more
