"""What asyncio's loop is asked to watch, and a loop that cannot watch at all."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Iterator
from typing import Any, NoReturn
from unittest import mock

import anyio
import anyio.lowlevel
import pytest
import zmq
import zmq.asyncio

from enchannel import open_channels, wrap_sockets
from enchannel._transports.zmq_link import Link
from helpers import numbered, texts
from raw_kernel import KEY, RawKernel, message, request


@pytest.fixture
def pair() -> Iterator[tuple[zmq.Socket[bytes], zmq.Socket[bytes]]]:
    with (
        zmq.Context() as context,
        context.socket(zmq.PAIR) as ours,
        context.socket(zmq.PAIR) as far,
    ):
        ours.bind("inproc://pair")
        far.connect("inproc://pair")
        yield ours, far


@pytest.mark.anyio
async def test_what_nobody_waits_for_is_found_later_and_keeps_no_loop_busy(
    pair: tuple[zmq.Socket[bytes], zmq.Socket[bytes]], anyio_backend_name: str
) -> None:
    ours, far = pair
    link = Link(ours.context, ours, ["inproc://pair"], monitored=False, owned=False)
    with anyio.fail_after(30):
        for number in range(3):
            with anyio.CancelScope() as scope:
                scope.cancel()
                await link.wait_readable()
            far.send(b"%d" % number)
            descriptor = ours.get(zmq.FD)
            # The loop comes back to a descriptor that is still readable, again and again.
            while anyio_backend_name == "asyncio" and select.select([descriptor], [], [], 0)[0]:
                await anyio.lowlevel.checkpoint()
            await link.wait_readable()
            assert link.receive() == [[b"%d" % number]]
    link.close()


class Loop(asyncio.SelectorEventLoop):
    """As on Windows, where asyncio's loop watches no descriptors."""

    def add_reader(self, *_: object) -> NoReturn:
        raise NotImplementedError

    def remove_reader(self, *_: object) -> NoReturn:
        raise NotImplementedError


def test_a_loop_that_watches_no_descriptors() -> None:
    received: list[Any] = []

    async def main() -> None:
        with RawKernel() as kernel:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(kernel.greet)
                async with kernel.open() as ch:
                    ch.iopub.listen()
                    kernel.publish(*numbered(3))
                    while len(received) < 3:
                        received.append(await ch.iopub.receive())
                tasks.cancel_scope.cancel()

    anyio.run(main, backend="asyncio", backend_options={"loop_factory": Loop})
    assert texts(received) == [0, 1, 2]


def test_a_socket_of_zmq_asyncio_waits_again_when_it_is_back() -> None:
    async def main() -> None:
        with RawKernel() as kernel, zmq.asyncio.Context() as context:
            shell = context.socket(zmq.DEALER)
            shell.connect(kernel.info.endpoint("shell"))

            async def hears() -> bytes:
                await shell.send(b"")
                identity, _ = await kernel.receive_frames("shell")
                receiving = asyncio.ensure_future(shell.recv())
                await anyio.wait_all_tasks_blocked()
                kernel.sockets["shell"].send_multipart([identity, b"heard"])
                return await receiving

            with anyio.fail_after(30):
                assert await hears() == b"heard"
                calls = mock.Mock(side_effect=shell._handle_events)
                shell._handle_events = calls
                transport = wrap_sockets({"shell": shell}, key=KEY)
                before = set(os.listdir("/proc/self/fd"))
                for number in range(100):
                    async with open_channels(transport) as ch:
                        sent = await ch.shell.send(request(number=number))
                        identity, _ = await kernel.receive("shell")
                        kernel.send("shell", identity, message("reply", sent))
                        assert (await ch.shell.receive()).is_child_of(sent)
                        # Meanwhile the socket steps aside: a call of its own would eat our edge.
                        calls.reset_mock()
                        kernel.send("shell", identity, message("reply", sent))
                        assert (await ch.shell.receive()).is_child_of(sent)
                        calls.assert_not_called()
                # ZeroMQ closes on a thread of its own, also what earlier tests have left to it.
                while not set(os.listdir("/proc/self/fd")) <= before:
                    await anyio.sleep(0.001)
                assert await hears() == b"heard"
                await transport.aclose()
            shell.close(linger=0)

    anyio.run(main, backend="asyncio")


class Renamed(zmq.asyncio.Socket):
    """One of a pyzmq that calls it otherwise."""

    @property
    def _init_io_state(self) -> NoReturn:  # type: ignore[override]
        raise AttributeError

    def _get_loop(self) -> Any:
        if self._current_loop is None:
            self._current_loop = asyncio.get_running_loop()
            zmq.asyncio.Socket._init_io_state(self, self._current_loop)
        return self._current_loop


def test_a_socket_of_zmq_asyncio_that_cannot_be_given_back_is_looked_at() -> None:
    async def main() -> None:
        with RawKernel() as kernel, zmq.asyncio.Context() as context:
            shell = context.socket(zmq.DEALER, socket_class=Renamed)
            assert not hasattr(shell, "_init_io_state")
            shell.connect(kernel.info.endpoint("shell"))

            async def hears() -> None:
                await shell.send(b"")
                identity, _ = await kernel.receive_frames("shell")
                receiving = asyncio.ensure_future(shell.recv())
                await anyio.lowlevel.checkpoint()
                kernel.sockets["shell"].send_multipart([identity, b"heard"])
                assert await receiving == b"heard"

            with anyio.fail_after(20):
                await hears()
                transport = wrap_sockets({"shell": shell}, key=KEY)
                for number in range(10):
                    async with open_channels(transport) as ch:
                        sent = await ch.shell.send(request(number=number))
                        identity, _ = await kernel.receive("shell")
                        for turns in range(5):
                            kernel.send("shell", identity, message("reply", sent))
                            for _ in range(turns):
                                await anyio.lowlevel.checkpoint()
                            assert (await ch.shell.receive()).is_child_of(sent)
                await hears()
                await transport.aclose()
            shell.close(linger=0)

    anyio.run(main, backend="asyncio")
