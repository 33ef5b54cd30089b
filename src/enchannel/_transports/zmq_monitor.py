"""The monitor of a ZeroMQ socket: what ZeroMQ says of its connection.

ZeroMQ's only I/O thread waits for room in a monitor that is full, and holds the lock that whoever ends the monitor waits for:
every kernel of the process would stand still, and then the program. So no monitor is ever full, however long the program
holds the event loop: ZeroMQ says no more than three things an attempt to connect, a hundred bytes each. And a monitor ends
with whoever reads it.
"""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import anyio
import zmq

from .._protocol.message import new_id
from .readiness import Readiness, stay_ready

__all__ = ["ENDED", "SEEN", "Monitor", "descriptor", "is_readable"]

# Plain integers: arithmetic with zmq's flags takes 1 to 2 µs.
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)

_WATCHED = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_CONNECT_RETRIED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_DISCONNECTED
)

SEEN: Mapping[int, str] = {
    zmq.EVENT_CONNECTED: "accepted the connection, but no ZeroMQ handshake came",
    zmq.EVENT_CONNECT_RETRIED: "refused or dropped the connection",
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: "the ZeroMQ handshake failed",
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "the ZeroMQ handshake failed: is it a kernel's channel?",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "the ZeroMQ handshake failed: not authorised",
    zmq.EVENT_DISCONNECTED: "disconnected",
}
"""What is said of a connection of which this was seen last."""

ENDED: Sequence[int] = (
    zmq.EVENT_DISCONNECTED,
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
)
"""Behind these ZeroMQ either says that it tries again, or never does."""


class Monitor:
    """The monitor of one socket, from now until :meth:`close`.

    Args:
        context: The socket's.
        socket: It.

    Raises:
        OSError: There is no descriptor left for it; then the socket is not monitored.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], socket: zmq.Socket[bytes]) -> None:
        # Not get_monitor_socket(), whose socket nobody closes.
        address = f"inproc://enchannel-monitor-{new_id()}"
        self._watched = socket
        with contextlib.ExitStack() as undo:
            try:
                # First who reads it, for there may be a descriptor left for one of the two only.
                self._socket: zmq.Socket[bytes] = context.socket(zmq.PAIR)
                undo.callback(self._socket.close, linger=0)
                self._socket.set(zmq.RCVHWM, 0)
                socket.monitor(address, _WATCHED)
                self._socket.connect(address)
            except zmq.ZMQError as error:
                raise OSError(error.errno, error.strerror) from error
            undo.pop_all()
        self._readiness: Readiness | None = None

    async def wait(self, seconds: float) -> bool:
        """Waits until it says something or is closed, for `seconds` at most; whether that is so."""
        if self._readiness is None:
            look = partial(is_readable, self._socket)
            self._readiness = stay_ready(descriptor(self._socket), look)
        if seconds == math.inf:
            # Most often, and a scope takes 800 bytes for as long as it is waited for.
            await self._readiness.wait()
            return True
        with anyio.move_on_after(seconds):
            await self._readiness.wait()
            return True
        return False

    def take(self) -> Iterator[tuple[int, int, str]]:
        """What it has said: events, each with its value and the address that it is about."""
        while True:
            try:
                said, address = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.ZMQError:
                return
            # Not zmq.utils.monitor, which takes 22 ms to import, for it imports asyncio as well.
            event, value = struct.unpack("=Hi", said)
            yield event, value, address.decode()

    def close(self) -> None:
        """Ends it, and whoever waits for it."""
        if self._socket.closed:
            return
        # Where the socket or its context is gone already, so is the monitor's other end.
        with contextlib.suppress(zmq.ZMQError):
            self._watched.monitor(None, 0)
        if self._readiness is not None:
            self._readiness.wake()
            self._readiness.close()
        self._socket.close(linger=0)


def descriptor(socket: zmq.Socket[bytes]) -> int:
    """The file descriptor that wakes who waits for `socket`."""
    return int(socket.get(zmq.FD))


def is_readable(socket: zmq.Socket[bytes]) -> bool:
    """Whether `socket` has something to receive. The look consumes the edge of its descriptor."""
    return bool(int(socket.get(_EVENTS)) & _POLLIN)
