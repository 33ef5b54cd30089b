"""The kernels of a Jupyter Server, a Kernel Gateway, an Enterprise Gateway or a JupyterHub user's server.

The rules:

* A kernel that is started here is deleted on every way out of its block, shielded from cancellation. One that is attached
  to is left running.
* A start that is cancelled leaves no kernel behind: its id is chosen here, and where the server invents another one its
  answer is waited for, for a moment.
* A kernel is ready when it has answered; that the server has made one says nothing.

Source: the REST API of Jupyter Server, JupyterLab's services.
"""

from __future__ import annotations

import math
import os
import ssl
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio

from .._exceptions import (
    LocalProtocolError,
    ServerError,
)
from .._groups import block_task_group
from .._open_channels import CONNECT_TIMEOUT
from .._protocol.arguments import check_env, check_seconds, is_text
from .._protocol.errors import text_of
from .._protocol.message import CHANNELS, ChannelName
from .._protocol.server_url import ServerUrl
from .._transports.base import Transport
from .._trio import uncut_block
from .launch import STARTUP_TIMEOUT
from .rest import Rest, require_extra
from .server_kernel import ServerKernel
from .server_models import KernelModel, ServerKernelSpec, mapping, model_of, spec_of
from .server_reach import MAX_SENT_SIZE, check_kernel_id, connect_kernel, kernel_path
from .server_start import Start, ready
from .server_turns import AllTurns

__all__ = ["Server", "open_server"]

ANSWER_DEADLINE = 30.0
"""Seconds for what a server has at hand."""


def open_server(
    url: str,
    *,
    token: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    connect_timeout: float = CONNECT_TIMEOUT,
) -> AbstractAsyncContextManager[Server]:
    """A server of kernels, as an async context manager that gives a :class:`Server`.

    It needs ``websockets`` and ``httpx2``: ``pip install "enchannel[server]"``. Entering asks the
    server what it is, and may be cancelled at any point.

    Args:
        url: Its base URL, as a browser shows it; that of a JupyterHub user ends in ``/user/NAME``.
            A token in its query is taken out of it.
        token: What it wants to see, by default that of `url`, or what ``JUPYTER_TOKEN`` says. It is
            sent as a header, and appears nowhere else.
        ssl_context: For ``https``, by default what the system trusts;
            ``ssl.create_default_context(cafile=...)`` for a certificate of one's own.
        connect_timeout: Seconds for it to answer on entry.

    Raises:
        LocalProtocolError: An argument cannot be used (raised at the call).
        ServerError: There is no such server, or it refuses (raised on entry).

    Example:
        .. code-block:: python

            from enchannel.testing import open_fake_server

            async with open_fake_server(token="secret") as fake:
                async with (
                    open_server(fake.url, token="secret") as server,
                    server.open_kernel("python3") as kernel,
                    kernel.open_channels() as ch,
                ):
                    print((await ch.run("6 * 7")).status)  # ok
    """
    parsed = ServerUrl.parse(url)
    if token is None:
        token = parsed.token if parsed.token is not None else os.environ.get("JUPYTER_TOKEN")
    if token is not None:
        check_token(token)
    given: object = ssl_context
    if given is not None and not isinstance(given, ssl.SSLContext):
        raise LocalProtocolError(f"ssl_context is an ssl.SSLContext, not {given!r}")
    check_seconds("connect_timeout", connect_timeout)
    require_extra()
    return _opened(Rest(parsed, token or None, ssl_context), connect_timeout)


def check_token(token: object) -> None:
    """Raises ``LocalProtocolError`` where `token` cannot be sent; without it, for it is secret."""
    if not (isinstance(token, str) and token.isascii() and token.isprintable()):
        raise LocalProtocolError("a token is text of printable ASCII characters")
    if token != token.strip():
        raise LocalProtocolError("a token has no space at its beginning or its end")


@uncut_block
async def _opened(rest: Rest, connect_timeout: float) -> AsyncIterator[Server]:
    try:
        said = await rest.get("", timeout=connect_timeout)
        if not isinstance(said, dict) or "version" not in said:
            rest.not_the_api(200)
        # A Jupyter Server says its version to anybody.
        await rest.get("/kernelspecs", timeout=connect_timeout)
        yield Server(rest, said)
    finally:
        await rest.aclose()


class Server:
    """A server of kernels; made by :func:`open_server`.

    Attributes:
        url: Its base URL.
        version: Its own.
        is_gateway: Whether it is an Enterprise Gateway.

    Example:
        .. code-block:: python

            from enchannel.testing import open_fake_server

            async with open_fake_server() as fake, open_server(fake.url) as server:
                async with server.open_kernel() as kernel:
                    [known] = await server.list_kernels()
                    print(known.id == kernel.id)  # True
                print(await server.list_kernels())  # []
    """

    def __init__(self, rest: Rest, said: Mapping[str, Any]) -> None:
        self.url: str = str(rest.url)
        self.version: str = text_of(said.get("version"))
        self.is_gateway: bool = "gateway_version" in said
        self._rest = rest
        self._turns = AllTurns()

    def __repr__(self) -> str:
        return f"<Server {self.url}>"

    async def kernelspecs(self) -> list[ServerKernelSpec]:
        """The kernelspecs that it has, by name. A checkpoint; cancellation changes nothing.

        Raises:
            ServerError: It does not say.
        """
        said = mapping(await self._rest.get("/kernelspecs", timeout=ANSWER_DEADLINE))
        specs = mapping(said.get("kernelspecs"))
        default = said.get("default")
        found = [spec_of(name, mapping(each), default) for name, each in specs.items()]
        return sorted(found, key=lambda spec: spec.name.lower())

    async def list_kernels(self) -> list[KernelModel]:
        """The kernels that it runs. A checkpoint; cancellation changes nothing.

        Raises:
            ServerError: It does not say; gateways do where they are configured to.
        """
        try:
            said = await self._rest.get("/kernels", timeout=ANSWER_DEADLINE)
        except ServerError as error:
            if error.status != 403:
                raise
            # Or it is the token, of which the same is said.
            await self.kernelspecs()
            error.args = (
                f"{self.url} does not list its kernels; a gateway does where it is configured to (list_kernels=True)",
            )
            raise
        return [model_of(mapping(each)) for each in (said if isinstance(said, list) else [])]

    @uncut_block
    async def open_kernel(
        self,
        name: str | None = None,
        *,
        path: str | None = None,
        env: Mapping[str, str] | None = None,
        startup_timeout: float = STARTUP_TIMEOUT,
    ) -> AsyncIterator[ServerKernel]:
        """Starts a kernel, as an async context manager that gives a :class:`ServerKernel`.

        The server deletes it on every way out, which is shielded from cancellation.

        Args:
            name: A kernelspec of the server's, by default the one that it prefers.
            path: The directory to run it in, below the server's root; where that is not there, the
                nearest that is.
            env: Variables for its environment. A Jupyter Server ignores them; gateways pass on
                those that begin with ``KERNEL_``, and others where they are configured to.
            startup_timeout: Seconds that it may take to become ready.

        Raises:
            LocalProtocolError: An argument cannot be used.
            ServerError: The server refuses; it has no such kernelspec, for example.
            KernelLaunchError: The kernel exits before it is ready, or is not ready in time.
        """
        _check_start(name, path, env, startup_timeout)
        spec = await self._find(name)
        body: dict[str, Any] = {"kernel_id": str(uuid.uuid4())}
        if name is not None:
            body["name"] = name
        if path is not None:
            body["path"] = path
        # By this an Enterprise Gateway takes the id, so that a kernel can be deleted whose start was never answered.
        body["env"] = {"KERNEL_ID": body["kernel_id"], **(env or {})}
        deadline = anyio.current_time() + startup_timeout
        async with block_task_group("the kernel of a server") as tasks:
            started = Start(self._rest, body, spec, startup_timeout, tasks, self._turns)
            try:
                # All that ends with it is done by a task of its own, which nothing that befalls this one can end.
                tasks.start_soon(started.host, name="enchannel kernel of a server")
                await started.answered.wait()
                kernel = started.kernel()
                await ready(kernel, deadline, startup_timeout)
                yield kernel
            finally:
                started.leave()

    async def _find(self, name: str | None) -> ServerKernelSpec | None:
        """The kernelspec called `name`: of one that it does not have a server says nothing but 500."""
        try:
            specs = await self.kernelspecs()
        except ServerError as error:
            if error.status in (0, 401):
                raise
            # Where they are not told, the start says what is wrong.
            return None
        for spec in specs:
            if spec.name == name or (name is None and spec.is_default):
                return spec
        if name is None:
            return None
        known = ", ".join(spec.name for spec in specs) or "none at all"
        raise ServerError(f"{self.url} has no kernelspec {name!r}; it has {known}", 404)

    @uncut_block
    async def attach(self, kernel_id: str) -> AsyncIterator[ServerKernel]:
        """A kernel that the server runs already, as an async context manager that gives a
        :class:`ServerKernel`.

        It goes on behind the block.

        Args:
            kernel_id: What the server calls it; see :meth:`list_kernels`.

        Raises:
            LocalProtocolError: That is no id.
            ServerError: There is none, or the server refuses.
        """
        check_kernel_id(kernel_id)
        try:
            said = await self._rest.get(kernel_path(kernel_id), timeout=ANSWER_DEADLINE)
        except ServerError as error:
            if error.status != 404:
                raise
            raise ServerError(f"{self.url} has no kernel {kernel_id}", 404, error.said) from None
        model = model_of(mapping(said))
        if model.id != kernel_id:
            raise ServerError(f"{self.url} does not say what the kernel {kernel_id} is")
        try:
            spec = await self._find(model.name)
        except ServerError:
            spec = None
        async with block_task_group("the kernel of a server") as tasks:
            turns = self._turns.of(kernel_id)
            kernel = ServerKernel(self._rest, kernel_id, model.name, spec, tasks, turns)
            try:
                yield kernel
            finally:
                kernel.let_go()

    async def connect(
        self,
        kernel_id: str,
        *,
        session: str | None = None,
        channels: Sequence[ChannelName] = CHANNELS,
        connect_timeout: float = CONNECT_TIMEOUT,
        max_message_size: float = math.inf,
        max_sent_size: float = MAX_SENT_SIZE,
    ) -> Transport:
        """The channels of a kernel as a :class:`Transport`, for :func:`open_channels`.

        A checkpoint; cancelled, nothing is left open. Who is given it closes it, or has
        :func:`open_channels` do so (``owned=True``).

        Args:
            kernel_id: What the server calls it; see :meth:`list_kernels`.
            session: See :meth:`ServerKernel.open_channels`.
            channels: See :meth:`ServerKernel.open_channels`.
            connect_timeout: Seconds for it to be connected.
            max_message_size: See :meth:`ServerKernel.open_channels`.
            max_sent_size: See :meth:`ServerKernel.open_channels`.

        Raises:
            LocalProtocolError: An argument cannot be used.
            ServerError: The server refuses, or has no such kernel.
            KernelConnectError: It did not answer in time.
        """
        return await connect_kernel(
            self._rest,
            kernel_id,
            session=session,
            channels=channels,
            connect_timeout=connect_timeout,
            max_message_size=max_message_size,
            max_sent_size=max_sent_size,
        )


def _check_start(name: object, path: object, env: object, startup_timeout: float) -> None:
    for what, text in (("name", name), ("path", path)):
        if text is not None and not (text and _is_sendable(text)):
            raise LocalProtocolError(f"{what} is text that is not empty, or None, not {text!r}")
    check_env(env, _is_sendable)
    check_seconds("startup_timeout", startup_timeout)


def _is_sendable(text: object) -> bool:
    return is_text(text) and "\0" not in str(text)
