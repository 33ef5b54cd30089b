"""What can be checked of a kernel with sockets of its own only; see ``test_check_kernel.py`` for the rest."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import attrs
import pytest

from enchannel import ConnectionInfo, KernelChannels
from enchannel.testing import FakeKernel, KernelSamples, check_kernel, open_fake_kernel, stream

pytestmark = pytest.mark.anyio

SAMPLES = KernelSamples(stdout="write")
ON_SOCKETS = ["iopub-welcome", "heartbeat", "signatures"]


class Elsewhere:
    """A kernel that is not quite where its connection file says."""

    def __init__(self, kernel: FakeKernel, **changes: Any) -> None:
        self.kernel = kernel
        self.connection_info: ConnectionInfo = attrs.evolve(kernel.connection_info, **changes)

    def open_channels(self) -> AbstractAsyncContextManager[KernelChannels]:
        return self.kernel.open_channels()

    async def restart(self) -> None:
        await self.kernel.restart()


async def outcomes(transport: str, key: bytes = b"secret", **changes: Any) -> dict[str, str]:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Elsewhere]:
        options: Any = {"transport": transport, "key": key}
        async with open_fake_kernel(**options) as kernel:
            kernel.script("write", stream("hello, world"))
            yield Elsewhere(kernel, **changes)

    report = await check_kernel(opened, samples=SAMPLES, only=ON_SOCKETS, patience=2)
    return {each.name: each.seen or each.outcome for each in report.results}


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
async def test_a_kernel_that_does_all(transport: str) -> None:
    assert await outcomes(transport) == dict.fromkeys(ON_SOCKETS, "passed")


async def test_no_heartbeat() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        found = await outcomes("tcp", hb_port=deaf.getsockname()[1])
    assert found["heartbeat"] == "no heartbeat is echoed"


async def test_a_signature_that_is_not_looked_at() -> None:
    # To a kernel with this key, what is forged with it is genuine.
    found = await outcomes("tcp", key=b"not the key")
    assert found["signatures"] == "code was run whose signature is wrong"


async def test_no_key() -> None:
    found = await outcomes("ipc", key=b"")
    assert found["signatures"] == "the connection file has no key"
