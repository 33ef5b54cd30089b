"""Where no descriptor is left: what was to be done is refused, and nothing else suffers."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest

from enchannel import Message
from enchannel.testing import open_fake_kernel

pytestmark = pytest.mark.anyio


@contextmanager
def left(count: int) -> Iterator[None]:
    """Only so many descriptors can be had meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/dev/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 50, hard))
    taken: list[int] = []
    try:
        try:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            for _ in range(count):
                os.close(taken.pop())
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("count", [0, 1])
async def test_the_first_use_of_a_channel(count: int) -> None:
    """It is watched from then on; what nobody reads of that would hold up every kernel of the process."""
    async with (
        open_fake_kernel(transport="tcp") as one,
        one.open_channels() as ch,
        open_fake_kernel(transport="tcp") as another,
        another.open_channels() as others,
    ):
        await others.request("kernel_info_request")
        with left(count), pytest.raises(OSError, match="Too many open files"):
            await ch.request("kernel_info_request")
        one.die("gone")
        with anyio.fail_after(10):
            await others.request("kernel_info_request")


async def test_what_a_reader_has_to_send() -> None:
    async with open_fake_kernel(transport="tcp") as kernel, kernel.open_channels() as ch:
        async with ch.accept_comms("mine"):
            asked = Message({"msg_id": "1", "msg_type": "x", "session": ch.session}, {}, {}, {})
            with left(0):
                # Not ours, and so it is closed, on a channel that was never used.
                opened = {"comm_id": "c", "target_name": "another's", "data": {}}
                kernel.publish("comm_open", opened, parent=asked)
                kernel.publish("stream", {"name": "stdout", "text": "behind"}, parent=asked)
                async with ch.iopub as published:
                    with anyio.fail_after(10):
                        while (await published.receive()).msg_type != "stream":
                            pass
        assert ch.lost is None
        assert (await ch.request("kernel_info_request")).msg_type == "kernel_info_reply"
