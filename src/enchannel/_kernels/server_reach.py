"""How one kernel of a server is reached: its websocket, and what the server says of it.

Source: the REST API of Jupyter Server, and its websocket handlers.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

import anyio

from .._exceptions import KernelConnectError, LocalProtocolError, ServerError
from .._protocol.arguments import check_amount, check_seconds, checked_size
from .._protocol.connection_info import sockets_for
from .._protocol.message import CHANNELS, ChannelName
from .._protocol.wire import Wire
from .._transports.reach import Presence, Reach
from .._transports.server import ServerTransport
from .rest import Rest
from .server_models import mapping, model_of

if TYPE_CHECKING:
    from .._transports.websocket import WebSocket

__all__ = ["LOOK_DEADLINE", "MAX_SENT_SIZE", "check_kernel_id", "connect_kernel", "kernel_path"]

MAX_SENT_SIZE = 10 << 20
"""Bytes that a server takes in one message, where it is not configured to take more."""

LEAST_LIMIT = 64 << 20
"""Bytes that a message may announce before its websocket is ended, where less is allowed: sixteen times what is."""

LOOK_DEADLINE = 5.0
"""Seconds for a server to say whether a kernel is there."""


class _KernelReach(Reach):
    """How one kernel of a server is reached."""

    def __init__(self, rest: Rest, kernel_id: str, max_message_size: float) -> None:
        self.endpoint = f"{rest.url}/api/kernels/{kernel_id}/channels"
        self._rest = rest
        self._id = kernel_id
        # What is larger than is allowed is dropped, and costs nothing else; what would fill the memory is not awaited.
        self._limit: int | None = None
        if max_message_size < math.inf:
            self._limit = int(max(LEAST_LIMIT, 16 * max_message_size))

    async def connect(self, session: str) -> WebSocket:
        """Opens a websocket; see :meth:`Reach.connect <enchannel._transports.server.Reach.connect>`."""
        # By who has it: the classes are there without.
        from .._transports.websocket import Refused, open_websocket

        rest = self._rest
        try:
            return await open_websocket(
                rest.url,
                rest.url.channels_path(self._id, session),
                token=rest.token,
                tls=rest.tls,
                max_size=self._limit,
            )
        except Refused as error:
            refused = error
        # Not with what the server said as its context: there may be a token in it.
        if refused.status == 404:
            raise ServerError(f"{rest.url} has no kernel {self._id}", 404)
        path = f"/kernels/{self._id}/channels"
        raise rest.refused(refused.status, refused.said, refused.location, path)

    async def look(self) -> Presence | None:
        """What the server says of the kernel."""
        try:
            said = await self._rest.get(kernel_path(self._id), timeout=LOOK_DEADLINE)
        except anyio.ClosedResourceError:
            return None
        except ServerError as error:
            if error.status == 404:
                return Presence(there=False, said=error.said or "the server does not know it")
            return None
        model = model_of(mapping(said))
        return Presence(there=True, state=model.execution_state, connections=model.connections)


def check_kernel_id(kernel_id: object) -> None:
    """Raises ``LocalProtocolError`` where `kernel_id` is none."""
    if not (isinstance(kernel_id, str) and re.fullmatch(r"[\w.~-]{1,200}", kernel_id, re.ASCII)):
        raise LocalProtocolError(
            f"the id of a kernel is text such as a uuid, not {kernel_id!r:.80}"
        )
    if not kernel_id.strip("."):
        raise LocalProtocolError(f"{kernel_id!r} is no id of a kernel")


def kernel_path(kernel_id: str) -> str:
    """Where a kernel is, below ``/api``."""
    return f"/kernels/{quote(kernel_id, safe='')}"


async def connect_kernel(
    rest: Rest,
    kernel_id: str,
    *,
    session: str | None,
    channels: Sequence[ChannelName],
    connect_timeout: float,
    max_message_size: float,
    max_sent_size: float,
) -> ServerTransport:
    """The channels of a kernel as a transport; see :meth:`Server.connect <enchannel.Server.connect>`."""
    check_seconds("connect_timeout", connect_timeout)
    transport = _make_transport(rest, kernel_id, session, channels, max_message_size, max_sent_size)
    try:
        with anyio.fail_after(connect_timeout):
            await transport.connect()
    except TimeoutError:
        raise _unconnected(transport, f"no connection within {connect_timeout:g} s") from None
    except OSError as error:
        raise _unconnected(transport, error.strerror or str(error)) from None
    except BaseException:
        transport.close()
        raise
    return transport


def _unconnected(transport: ServerTransport, said: str) -> KernelConnectError:
    unconnected = transport.unconnected()
    where = next(iter(unconnected.values()), "")
    return KernelConnectError(f"{said}: {where}", unconnected)


def _make_transport(
    rest: Rest,
    kernel_id: str,
    session: str | None,
    channels: Sequence[ChannelName],
    max_message_size: float,
    max_sent_size: float,
) -> ServerTransport:
    """A transport that is not connected yet, with its arguments checked."""
    check_kernel_id(kernel_id)
    carried = sockets_for(channels)
    names: list[ChannelName] = [name for name in CHANNELS if name in carried]
    check_amount("max_sent_size", max_sent_size, 1, "bytes")
    chosen: object = str(uuid.uuid4()) if session is None else session
    if not (isinstance(chosen, str) and chosen.isascii() and 1 <= len(chosen) <= 255):
        raise LocalProtocolError(
            "the session of a kernel behind a server is text of 1 to 255 ASCII characters"
        )
    reach = _KernelReach(rest, kernel_id, checked_size(max_message_size))
    wire = Wire(b"", max_size=max_message_size)
    return ServerTransport(names, wire, reach, chosen, max_sent_size)
