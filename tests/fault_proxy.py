"""A proxy on loopback between a client and a kernel, with faults on command."""

from __future__ import annotations

import contextlib
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
import anyio.abc

from enchannel import ConnectionInfo
from enchannel._protocol.connection_info import CHANNELS, SOCKETS


class FaultProxy:
    """Forwards each of a kernel's ports.

    Attributes:
        config: The connection file's mapping, with the proxy's ports.
        pace: Seconds behind each single byte on its way from the kernel; ``None`` lets them pass together.
        held: The channels on which nothing passes from the kernel.
    """

    def __init__(self, info: ConnectionInfo) -> None:
        self.config: dict[str, Any] = info.to_dict()
        self.pace: float | None = None
        self.held: set[str] = set()
        self._ports = {name: getattr(info, f"{name}_port") for name in SOCKETS}
        self._away: set[str] = set()
        self._open: dict[str, set[anyio.abc.SocketStream]] = {name: set() for name in SOCKETS}
        self._sending: dict[Any, anyio.Lock] = defaultdict(anyio.Lock)

    async def serve(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        with contextlib.ExitStack() as stack:
            async with anyio.create_task_group() as tasks:
                for name in SOCKETS:
                    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
                    listener.setblocking(False)
                    self.config[f"{name}_port"] = listener.getsockname()[1]
                    tasks.start_soon(self._accept, name, listener, tasks)
                task_status.started()

    async def _accept(self, name: str, listener: socket.socket, tasks: anyio.abc.TaskGroup) -> None:
        # Not AnyIO's listener: asyncio drops what it accepts in the moment of a cancellation.
        while True:
            await anyio.wait_readable(listener)
            with contextlib.suppress(BlockingIOError):
                accepted, _ = listener.accept()
                tasks.start_soon(self._handle, name, accepted)

    async def _handle(self, name: str, accepted: socket.socket) -> None:
        with accepted, contextlib.suppress(anyio.BrokenResourceError, OSError):
            async with await anyio.abc.SocketStream.from_socket(accepted) as client:
                if name not in self._away:
                    await self._join(name, client)

    async def _join(self, name: str, client: anyio.abc.SocketStream) -> None:
        async with await anyio.connect_tcp("127.0.0.1", self._ports[name]) as kernel:
            self._open[name].add(client)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._forward, client, kernel, tasks.cancel_scope)
                    tasks.start_soon(self._forward, kernel, client, tasks.cancel_scope, name)
            finally:
                self._open[name].discard(client)

    async def _forward(
        self, source: Any, target: Any, scope: anyio.CancelScope, from_kernel: str = ""
    ) -> None:
        with contextlib.suppress(
            anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError
        ):
            while True:
                data = await source.receive()
                while from_kernel in self.held:
                    await anyio.sleep(0.01)
                pace = self.pace if from_kernel else None
                step = len(data) if pace is None else 1
                for at in range(0, len(data), step):
                    async with self._sending[target]:
                        await target.send(data[at : at + step])
                    if pace is not None:
                        await anyio.sleep(pace)
        scope.cancel()

    async def cut(self, *names: str) -> None:
        """Closes the connections, and refuses new ones until :meth:`restore`."""
        self._away.update(names)
        for name in names:
            for client in tuple(self._open[name]):
                await client.aclose()

    def restore(self) -> None:
        """Lets connections through again."""
        self._away.clear()

    def connections(self, name: str) -> int:
        """How many there are."""
        return len(self._open[name])

    async def inject(self, name: str, data: bytes) -> None:
        """Puts `data` into the stream of bytes from the kernel."""
        for client in tuple(self._open[name]):
            async with self._sending[client]:
                await client.send(data)


@contextlib.asynccontextmanager
async def fault_proxy(info: ConnectionInfo) -> AsyncIterator[FaultProxy]:
    proxy = FaultProxy(info)
    async with anyio.create_task_group() as tasks:
        await tasks.start(proxy.serve)
        yield proxy
        tasks.cancel_scope.cancel()


def combinations() -> Sequence[tuple[str, ...]]:
    """Each channel alone, and all together."""
    return (*((each,) for each in CHANNELS), CHANNELS)
