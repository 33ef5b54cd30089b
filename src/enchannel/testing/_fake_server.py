"""A server of fake kernels, on loopback, that fails on command.

It speaks the REST API and the websockets of a Jupyter Server, as far as clients of kernels need them. Each of its kernels
is a :class:`FakeKernel` in memory, which can be scripted and looked at; each websocket is a client of one. Like a real
server it keeps what a kernel says while its last websocket is away, starts a kernel again that has died, up to five times,
and leaves the websocket of one that is gone open, and silent.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import anyio
import anyio.abc
import attrs
from anyio.streams.tls import TLSListener

from .._bell import Bell
from .._exceptions import LocalProtocolError
from .._groups import BlockTasks, block_task_group
from .._kernels.rest import require_extra
from ._failures import raising_failure
from ._fake_kernel import FakeKernel
from ._fake_websocket import FakeWebSocket
from ._memory import MemoryKernelEnd, MemoryTransport
from ._served_kernel import ServedKernel

__all__ = ["FakeServer", "open_fake_server"]

RESTARTS = 5
"""Deaths behind which a kernel is not started again."""

HEAD = 65_536
"""Bytes that the head of a request may have."""


@attrs.define(eq=False)
class _Hosted:
    """A kernel that the server runs."""

    id: str
    name: str
    end: MemoryKernelEnd
    kernel: FakeKernel | None
    over: anyio.Event = attrs.field(factory=anyio.Event)
    websockets: list[FakeWebSocket] = attrs.field(factory=list)
    buffering: tuple[str, MemoryTransport] | None = None
    """The session of its last websocket, and what has arrived for it since."""
    state: str = "idle"
    """Its status, as the server believes."""

    def model(self) -> dict[str, Any]:
        """What REST says of it."""
        return {
            "id": self.id,
            "name": self.name,
            "last_activity": "2026-01-01T00:00:00.000000Z",
            "execution_state": self.state,
            "connections": len(self.websockets),
        }


class FakeServer:
    """A server of fake kernels; made by :func:`open_fake_server`.

    Attributes:
        url: Its base URL.
        token: What it wants to see; empty for none.
        kernelspecs: Its kernelspecs by name, each as a ``kernel.json`` says it.
        requests: The method and path of each request so far.
        restarts_kernels: Whether it starts a kernel again that has died; where it does not, nobody
            hears of its death.
        hangs: Whether it answers no request, and no handshake; or the end of the paths for which it does
            not, such as ``"/restart"``. :meth:`resume` ends that.
        ends_websockets: Whether it ends each websocket as soon as it is open.
        failure: An error of what one of its kernels was told to do. That kernel is dead, and not
            started again; the error is raised when the block of the server is left.

    Example:
        .. code-block:: python

            async with open_fake_server() as fake, open_server(fake.url) as server:
                fake.refuse(500, {"message": "out of memory"})
                try:
                    await server.list_kernels()
                except ServerError as error:
                    print(error.status, error.said)  # 500 out of memory
    """

    failure: BaseException | None = None

    _tasks: BlockTasks

    def __init__(self, url: str, token: str, base: str, *, v1: bool) -> None:
        self.url = url
        self.token = token
        self.kernelspecs: dict[str, dict[str, Any]] = {
            "python3": {"display_name": "Python 3", "language": "python"}
        }
        self.requests: list[tuple[str, str]] = []
        self.restarts_kernels: bool = True
        self.hangs: bool | str = False
        self.ends_websockets: bool = False
        self._base = base
        self._v1 = v1
        self._hosted: dict[str, _Hosted] = {}
        self._refusals: list[tuple[int, str, Mapping[str, str]]] = []
        self._prepare: Callable[[FakeKernel], object] | None = None
        self._news = Bell()

    def __repr__(self) -> str:
        return f"<FakeServer {self.url}>"

    # What is there.

    @property
    def kernels(self) -> Mapping[str, FakeKernel]:
        """Its kernels, by id."""
        return {each.id: each.kernel for each in self._hosted.values() if each.kernel is not None}

    def websockets(self, kernel_id: str | None = None) -> list[FakeWebSocket]:
        """Those that lead to a kernel, or all."""
        return [
            websocket
            for hosted in self._hosted.values()
            if kernel_id in (None, hosted.id)
            for websocket in hosted.websockets
        ]

    async def wait_websockets(self, count: int) -> list[FakeWebSocket]:
        """Waits until there are `count`, and returns them."""
        while len(self.websockets()) != count:
            await self._news.wait()
        return self.websockets()

    def on_start(self, prepare: Callable[[FakeKernel], object]) -> None:
        """Has `prepare` called with each kernel that is started, for example to script it."""
        self._prepare = prepare

    # Faults.

    def refuse(
        self,
        status: int,
        body: str | Mapping[str, Any] = "",
        *,
        times: int = 1,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Answers the next requests, handshakes among them, with `status`."""
        said = body if isinstance(body, str) else json.dumps(body)
        self._refusals += [(status, said, headers or {})] * times

    def resume(self) -> None:
        """Answers again, what has come meanwhile as well."""
        self.hangs = False
        self._news.ring()

    def forget(self, kernel_id: str) -> None:
        """A kernel is gone: REST does not know it, and its websockets stay open, and silent."""
        hosted = self._hosted.pop(kernel_id)
        hosted.over.set()

    def believe(self, kernel_id: str, state: str) -> None:
        """From now on REST says that a kernel is in `state`, such as ``"busy"``, whatever it does."""
        self._hosted[kernel_id].state = state

    async def wait_over(self, kernel_id: str) -> None:
        """Waits until a kernel is gone."""
        while kernel_id in self._hosted:
            await self._news.wait()

    # Hosting.

    def host(self, end: MemoryKernelEnd, kernel_id: str | None = None) -> str:
        """One more kernel, which is nothing but its end of the channels, unsigned; returns its id."""
        hosted = _Hosted(kernel_id or str(uuid.uuid4()), "python3", end, None)
        self._hosted[hosted.id] = hosted
        return hosted.id

    async def start_kernel(self, name: str = "python3", kernel_id: str | None = None) -> str:
        """Starts a kernel, as a client would; returns its id."""
        starting = anyio.Event()
        chosen = kernel_id or str(uuid.uuid4())
        self._tasks.start_soon(self._run_kernel, chosen, name, starting, name="fake server kernel")
        await starting.wait()
        return chosen

    async def _run_kernel(self, kernel_id: str, name: str, starting: anyio.Event) -> None:
        end = MemoryKernelEnd(b"")
        kernel = ServedKernel(end, "memory")
        try:
            async with block_task_group("the fake kernel of a server") as tasks:
                await end.appear()
                if self._prepare is not None:
                    self._prepare(kernel)
                await tasks.start(kernel.live, name="fake kernel")
                hosted = _Hosted(kernel_id, name, end, kernel)
                self._hosted[kernel_id] = hosted
                starting.set()
                tasks.start_soon(self._restart_dead, hosted, name="fake server")
                await hosted.over.wait()
                tasks.end()
        finally:
            if self.failure is None:
                self.failure = kernel.failure
        await end.aclose()
        self._news.ring()

    async def _restart_dead(self, hosted: _Hosted) -> None:
        kernel = hosted.kernel
        assert kernel is not None
        for death in range(RESTARTS + 1):
            await kernel.wait_dead()
            failed = kernel.failure is not None
            if not (self.restarts_kernels or failed):
                return
            state = "restarting" if death < RESTARTS and not failed else "dead"
            for websocket in tuple(hosted.websockets):
                await websocket.say_status(state)
            if state == "dead":
                break
            # What fails on the way is looked at above.
            with contextlib.suppress(RuntimeError):
                await kernel.restart()
        self._hosted.pop(hosted.id, None)
        hosted.over.set()

    # Serving.

    def serve(self, tasks: BlockTasks, listener: anyio.abc.Listener[Any]) -> None:
        """Answers whoever connects, and runs kernels, among `tasks`."""
        self._tasks = tasks
        tasks.start_soon(listener.serve, self._answer, name="fake server")

    async def _answer(self, stream: anyio.abc.ByteStream) -> None:
        # Also from closing it, where the other end has gone in the middle of an answer.
        with contextlib.suppress(
            anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream
        ):
            async with stream:
                while await self._answer_one(stream):
                    pass

    async def _answer_one(self, stream: anyio.abc.ByteStream) -> bool:
        head, body = await _read_request(stream)
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines[1:])
        }
        parts = urlsplit(target)
        self.requests.append((method, parts.path))
        while self.hangs is True or (self.hangs and parts.path.endswith(self.hangs)):
            await self._news.wait()
        refusal = self._refusal(headers)
        if refusal is not None:
            await _respond(stream, *refusal)
            return True
        path = [unquote(part) for part in parts.path.removeprefix(self._base).strip("/").split("/")]
        if headers.get("upgrade", "").lower() == "websocket":
            session = parse_qs(parts.query).get("session_id", [""])[-1]
            return await self._open_websocket(stream, head, path, session)
        status, said = await self._rest(method, path, json.loads(body) if body else None)
        await _respond(stream, status, "" if said is None else json.dumps(said), {})
        return True

    def _refusal(self, headers: Mapping[str, str]) -> tuple[int, str, Mapping[str, str]] | None:
        if self._refusals:
            return self._refusals.pop(0)
        if self.token and headers.get("authorization") != f"token {self.token}":
            return 403, json.dumps({"message": "Forbidden", "reason": None}), {}
        return None

    async def _rest(self, method: str, path: list[str], body: Any) -> tuple[int, Any]:
        match (method, path):
            case ("GET", ["api"]):
                return 200, {"version": "2.0.0"}
            case ("GET", ["api", "kernelspecs"]):
                specs = {
                    name: {"name": name, "spec": spec} for name, spec in self.kernelspecs.items()
                }
                return 200, {"default": next(iter(specs), ""), "kernelspecs": specs}
            case ("GET", ["api", "kernels"]):
                return 200, [hosted.model() for hosted in self._hosted.values()]
            case ("POST", ["api", "kernels"]):
                return await self._start(body or {})
            case (_, ["api", "kernels", kernel_id, *action]) if kernel_id in self._hosted:
                return await self._act(method, self._hosted[kernel_id], action)
            case _:
                return 404, {"message": "Kernel does not exist", "reason": None}

    async def _start(self, body: Mapping[str, Any]) -> tuple[int, Any]:
        name = body.get("name", next(iter(self.kernelspecs), ""))
        if name not in self.kernelspecs:
            return 500, None
        kernel_id = await self.start_kernel(name, body.get("kernel_id"))
        return 201, self._hosted[kernel_id].model()

    async def _act(self, method: str, hosted: _Hosted, action: list[str]) -> tuple[int, Any]:
        match (method, action):
            case ("GET", []):
                return 200, hosted.model()
            case ("DELETE", []):
                self.forget(hosted.id)
                return 204, None
            case ("POST", ["interrupt"]):
                if hosted.kernel is not None:
                    await hosted.kernel.interrupt()
                return 204, None
            case ("POST", ["restart"]):
                try:
                    if hosted.kernel is not None:
                        await hosted.kernel.restart()
                except RuntimeError as error:
                    return 500, {"message": str(error)}
                return 200, hosted.model()
            case _:
                return 405, {"message": "Method Not Allowed", "reason": None}

    async def _open_websocket(
        self, stream: anyio.abc.ByteStream, head: bytes, path: list[str], session: str
    ) -> bool:
        hosted = self._hosted.get(path[2]) if len(path) == 4 and path[3] == "channels" else None
        if hosted is None:
            await _respond(stream, 404, json.dumps({"message": "Kernel does not exist"}), {})
            return True
        for other in tuple(hosted.websockets):
            if other.session == session:
                await other.close()
        kept, hosted.buffering = hosted.buffering, None
        if kept is not None and kept[0] != session:
            await kept[1].aclose()
            kept = None
        transport = kept[1] if kept is not None else hosted.end.connect(session.encode())
        websocket = FakeWebSocket(stream, transport, session, v1=self._v1)
        hosted.websockets.append(websocket)
        self._news.ring()
        try:
            await websocket.run(head, ends=self.ends_websockets)
        finally:
            hosted.websockets.remove(websocket)
            if hosted.websockets:
                transport.abandon()
                hosted.end.disconnect(transport)
            else:
                hosted.buffering = session, transport
            self._news.ring()
        return False


async def _read_request(stream: anyio.abc.ByteStream) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data and len(data) < HEAD:
        data += await stream.receive()
    head, _, body = data.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            while len(body) < int(value):
                body += await stream.receive()
    return head + b"\r\n\r\n", body


async def _respond(
    stream: anyio.abc.ByteStream, status: int, body: str, headers: Mapping[str, str]
) -> None:
    data = body.encode()
    lines = [f"HTTP/1.1 {status} Said"]
    if status != 204:
        lines.append(f"Content-Length: {len(data)}")
    lines += [f"{name}: {value}" for name, value in headers.items()]
    await stream.send("\r\n".join([*lines, "", ""]).encode() + (data if status != 204 else b""))


def open_fake_server(
    *,
    token: str = "",
    base: str = "",
    v1: bool = True,
    ssl_context: ssl.SSLContext | None = None,
) -> AbstractAsyncContextManager[FakeServer]:
    """A :class:`FakeServer` on loopback, as an async context manager.

    It needs what :func:`enchannel.open_server` needs.

    Args:
        token: What it wants to see.
        base: The path at which it begins, such as ``/user/ada``.
        v1: Whether it speaks the newer of the two protocols of kernels' websockets.
        ssl_context: For ``https``, with its certificate.

    Raises:
        LocalProtocolError: An argument cannot be used.
        ImportError: What it needs is not installed.

    Example:
        .. code-block:: python

            async with (
                open_fake_server() as fake,
                open_server(fake.url) as server,
                server.open_kernel() as kernel,
                kernel.open_channels() as ch,
            ):
                fake.kernels[kernel.id].script("6 * 7", result("42"))
                done = await ch.run("6 * 7")
                print(done.text)  # 42
    """
    if base and not (base.startswith("/") and not base.endswith("/")):
        raise LocalProtocolError(f"base begins with a slash, and does not end in one, not {base!r}")
    require_extra()
    return _opened(token, base, ssl_context, v1=v1)


@asynccontextmanager
async def _opened(
    token: str, base: str, ssl_context: ssl.SSLContext | None, *, v1: bool
) -> AsyncIterator[FakeServer]:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610
        scheme = "http"
        serving: anyio.abc.Listener[Any] = listener
        if ssl_context is not None:
            scheme = "https"
            serving = TLSListener(listener, ssl_context, standard_compatible=False)
        url = f"{scheme}://127.0.0.1:{port}{base}"
        server = FakeServer(url, token, base, v1=v1)
        with raising_failure(server):
            async with block_task_group("the fake server") as tasks:
                server.serve(tasks, serving)
                try:
                    yield server
                finally:
                    tasks.end()
