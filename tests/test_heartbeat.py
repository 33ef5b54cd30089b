"""The heartbeat reports; only long silence of an idle kernel behind a first beat is a loss."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import anyio
import pytest
import zmq

from enchannel import KernelDied
from enchannel._core.heartbeat import Heartbeat
from helpers import beating
from raw_kernel import RawKernel, message
from virtual_clock import slow_backend  # noqa: F401

pytestmark = pytest.mark.anyio


class Heart:
    """Echoes on the heartbeat's port while it beats."""

    def __init__(self, kernel: RawKernel) -> None:
        self.beating = True
        self._socket = kernel.sockets["hb"] = kernel._context.socket(zmq.ROUTER)
        self._socket.set(zmq.LINGER, 0)
        kernel.config["hb_port"] = self._socket.bind_to_random_port("tcp://127.0.0.1")

    async def run(self) -> None:
        while True:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                await anyio.sleep(0.001)
                continue
            assert frames[1] == b""  # as a REQ socket frames it
            if self.beating:
                self._socket.send_multipart(frames)


@pytest.fixture
async def heart(raw_kernel: RawKernel) -> AsyncIterator[Heart]:
    heart = Heart(raw_kernel)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(heart.run)
        yield heart
        tasks.cancel_scope.cancel()


async def test_the_first_beat_goes_out_as_soon_as_the_connection_is_live(
    raw_kernel: RawKernel, heart: Heart
) -> None:
    async with raw_kernel.open() as ch:
        await anyio.wait_all_tasks_blocked()
        # The next look is three seconds away.
        assert ch._core.heartbeat._sent


async def test_silence_behind_a_first_beat_is_a_loss(
    raw_kernel: RawKernel, heart: Heart, caplog: pytest.LogCaptureFixture
) -> None:
    async with raw_kernel.open(heartbeat_timeout=0.5) as ch:
        await beating(ch)
        raw_kernel.publish(message("status", execution_state="idle"))
        heart.beating = False
        with caplog.at_level(logging.WARNING, "enchannel"):
            with pytest.raises(KernelDied, match="no heartbeat and no message") as caught:
                await ch.shell.receive()
        assert caught.value.reason == "heartbeat"
        assert "unresponsive: it missed 3 heartbeats" in caplog.text


@pytest.mark.parametrize("status", ["busy", "unknown"])
async def test_a_kernel_not_known_to_be_idle_that_misses_beats_is_unresponsive_and_not_dead(
    raw_kernel: RawKernel, heart: Heart, caplog: pytest.LogCaptureFixture, status: str
) -> None:
    async with raw_kernel.open(heartbeat_timeout=0.1) as ch:
        if status == "busy":
            raw_kernel.publish(message("status", execution_state="busy"))
        await beating(ch)
        while ch.status != status:
            await anyio.sleep(0.001)
        heart.beating = False
        while ch.statistics().missed_beats < 20:
            await anyio.sleep(0.001)
        heart.beating = True
        while ch.statistics().missed_beats:
            await anyio.sleep(0.001)
        assert "heartbeat is back" in caplog.text
        assert repr(ch).endswith("open>")


async def test_without_a_first_beat_nothing_is_concluded(
    raw_kernel: RawKernel, heart: Heart
) -> None:
    heart.beating = False
    async with raw_kernel.open(heartbeat_timeout=0.05) as ch:
        with anyio.move_on_after(0.5):
            await ch.shell.receive()
            pytest.fail("nothing was sent")
        assert ch.statistics().missed_beats == 0


def test_a_restart_is_no_silence(caplog: pytest.LogCaptureFixture) -> None:
    heartbeat = Heartbeat(10)
    heartbeat.look(0, 5, echoed=False, idle=True)
    heartbeat.look(3, 5, echoed=True, idle=True)
    for now in (6, 9):
        assert heartbeat.look(now, 5, echoed=False, idle=True) is None
    heartbeat.excuse()
    assert heartbeat.look(100, 5, echoed=False, idle=True) is None
    assert heartbeat.missed == 2
    assert "unresponsive" not in caplog.text


async def test_messages_are_as_good_as_beats(raw_kernel: RawKernel, heart: Heart) -> None:
    async with raw_kernel.open(heartbeat_timeout=1) as ch:
        await beating(ch)
        raw_kernel.publish(message("status", execution_state="idle"))
        while ch.status != "idle":
            await anyio.sleep(0.001)
        heart.beating = False
        while ch.statistics().missed_beats < 10:
            raw_kernel.publish(message("stream", text="here"))
            await anyio.sleep(0.01)
        assert repr(ch).endswith("open>")
