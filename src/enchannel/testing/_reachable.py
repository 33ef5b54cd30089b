"""How clients reach a fake kernel."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from .._channels import KernelChannels
from .._exceptions import LocalProtocolError
from .._open_channels import (
    Identity,
    OpenOptions,
    Topics,
    open_channels,
    open_kernel_channels,
    parse_identity,
    parse_topics,
)
from .._protocol.connection_info import ConnectionInfo
from ._ends import KernelEnd
from ._memory import MemoryKernelEnd

if TYPE_CHECKING:
    from typing import Unpack

    from ._memory import MemoryTransport

__all__ = ["Reachable", "TransportName"]

TransportName: TypeAlias = Literal["memory", "inproc", "ipc", "tcp"]


class Reachable:
    """A kernel that stands on one end of the channels.

    Args:
        end: It.
        transport: What it is made of.
    """

    def __init__(self, end: KernelEnd, transport: TransportName) -> None:
        self._end = end
        self._transport: TransportName = transport

    @property
    def connection_info(self) -> ConnectionInfo:
        """How any client reaches this kernel.

        Raises:
            LocalProtocolError: Over ``"memory"`` and ``"inproc"`` only :meth:`open_channels` does.
        """
        if self._transport not in ("tcp", "ipc"):
            raise LocalProtocolError(
                f"a fake kernel over {self._transport!r} has no connection file; "
                'open it with transport="tcp" or "ipc"'
            )
        sockets: Any = self._end
        return cast("ConnectionInfo", sockets.connection_info)

    def open_channels(
        self,
        identity: Identity = None,
        *,
        subscription: Topics = b"",
        **options: Unpack[OpenOptions],
    ) -> AbstractAsyncContextManager[KernelChannels]:
        """Opens channels to this kernel, any number of times.

        Like :func:`~enchannel.open_kernel_channels`.
        """
        if self._transport in ("tcp", "ipc"):
            return open_kernel_channels(
                identity, self.connection_info, subscription=subscription, **options
            )
        end: Any = self._end
        rest: Any = {name: value for name, value in options.items() if name != "context"}
        transport = end.connect(parse_identity(identity), parse_topics(subscription))
        return open_channels(transport, owned=True, **rest)

    @property
    def clients(self) -> Sequence[MemoryTransport]:
        """The clients' ends, whose pipes delay, drop, duplicate and stall; over ``"memory"`` only."""
        if not isinstance(self._end, MemoryKernelEnd):
            raise LocalProtocolError(
                f"a fake kernel over {self._transport!r} has no pipes; open it in memory"
            )
        return self._end.clients
