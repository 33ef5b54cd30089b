"""What stands between a client and a server, and can go away."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
import anyio.abc

__all__ = ["ServerProxy", "server_proxy"]


class ServerProxy:
    """Forwards bytes; cuts by reset.

    Attributes:
        url: Where it is.
    """

    def __init__(self, server: str, tasks: anyio.abc.TaskGroup) -> None:
        self.url: str = ""
        self._server = urlsplit(server).port or 0
        self._tasks = tasks
        self._port = 0
        self._accepting = anyio.CancelScope()
        self._away = anyio.Event()
        self._pairs: set[tuple[anyio.abc.SocketStream, anyio.abc.SocketStream]] = set()

    async def come(self) -> None:
        """Listens, from the second time on where it did before."""
        await self._tasks.start(self._listen)

    async def go(self) -> None:
        """Cuts all, and is not there for who connects."""
        self._accepting.cancel()
        await self._away.wait()
        await self.reset()

    async def reset(self) -> None:
        """Cuts all that is there."""
        for pair in tuple(self._pairs):
            for stream in pair:
                raw = stream.extra(anyio.abc.SocketAttribute.raw_socket)
                with contextlib.suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                await stream.aclose()

    async def _listen(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        self._away = anyio.Event()
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=self._port)
        async with listener:
            self._port = listener.extra(anyio.abc.SocketAttribute.local_port)
            self.url = f"http://127.0.0.1:{self._port}"
            with anyio.CancelScope() as self._accepting:
                task_status.started()
                await listener.serve(self._join, self._tasks)
        self._away.set()

    async def _join(self, client: anyio.abc.SocketStream) -> None:
        async with client, await anyio.connect_tcp("127.0.0.1", self._server) as server:
            pair = (client, server)
            self._pairs.add(pair)
            try:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._pump, client, server, tasks.cancel_scope)
                    tasks.start_soon(self._pump, server, client, tasks.cancel_scope)
            finally:
                self._pairs.discard(pair)

    async def _pump(
        self,
        source: anyio.abc.SocketStream,
        target: anyio.abc.SocketStream,
        scope: anyio.CancelScope,
    ) -> None:
        with contextlib.suppress(
            anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError
        ):
            while True:
                await target.send(await source.receive())
        scope.cancel()


@asynccontextmanager
async def server_proxy(server: str) -> AsyncIterator[ServerProxy]:
    """One before the server at that URL, until the block is left."""
    async with anyio.create_task_group() as tasks:
        proxy = ServerProxy(server, tasks)
        await proxy.come()
        yield proxy
        tasks.cancel_scope.cancel()
