"""What opening does not wait for, on a clock that stands still."""

from __future__ import annotations

import anyio
import pytest
import zmq

from enchannel import Message
from raw_kernel import RawKernel
from virtual_clock import frozen_backend as anyio_backend  # noqa: F401

pytestmark = pytest.mark.anyio

PATIENCE = 10_000
"""Milliseconds, by another clock."""


async def first_on(kernel: RawKernel, channel: str) -> Message:
    socket = kernel.sockets[channel]
    socket.set(zmq.RCVTIMEO, PATIENCE)
    _, *frames = await anyio.to_thread.run_sync(socket.recv_multipart)
    return kernel.wire.decode(frames)


@pytest.mark.parametrize("channel", ["control", "shell"])
async def test_both_are_asked_at_once_for_either_may_stay_silent(channel: str) -> None:
    async def open_it() -> None:
        async with kernel.open():
            pass

    with RawKernel() as kernel:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(open_it)
            try:
                assert (await first_on(kernel, channel)).msg_type == "kernel_info_request"
            finally:
                tasks.cancel_scope.cancel()
