"""The addresses of a host, resolved off the event loop, and those of a connection's two ends.

libzmq resolves names on its one I/O thread, which every kernel of the process shares, and tries one address of
several. So it is given addresses.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import stat
import struct
import sys
from socket import AF_INET, AF_INET6, SO_LINGER, SOCK_STREAM, SOL_SOCKET, getaddrinfo, socket

import anyio
import anyio.to_thread

__all__ = ["connection_id", "is_its_own_peer", "reset_when_closed", "resolve"]

LINGER = "hh" if sys.platform == "win32" else "ii"
"""The layout of C's ``struct linger``."""


async def resolve(host: str) -> list[str]:
    """Every address of `host`, in the system's order; itself where it is one.

    Cancelled, it leaves the resolver to end by itself, in a thread of AnyIO's.

    Raises:
        OSError: It has none.
    """
    try:
        ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        pass
    else:
        return [host]
    try:
        found = await anyio.to_thread.run_sync(
            lambda: getaddrinfo(host, None, type=SOCK_STREAM),
            abandon_on_cancel=True,
            # Not the common one: a resolver that is slow to give up would hold others up.
            limiter=anyio.CapacityLimiter(1),
        )
    except UnicodeError:
        raise OSError(
            "no host has such a name, for a part of it is empty or longer than 63 characters"
        ) from None
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def connection_id(descriptor: int) -> object:
    """What the system calls a socket, and nothing else for as long as it runs; None where that is not known."""
    try:
        seen = os.fstat(descriptor)
    except OSError:
        return None
    # Linux numbers its sockets; others call each of them 0.
    return (seen.st_dev, seen.st_ino) if stat.S_ISSOCK(seen.st_mode) and seen.st_ino else None


def is_its_own_peer(descriptor: int) -> bool:
    """Whether both ends of a connection are the same; if so, its port is free as soon as it is closed."""
    # ZeroMQ may have closed it already, and somebody else may have the number now.
    with contextlib.suppress(OSError):
        connection = socket(fileno=descriptor)
        try:
            if (
                connection.family in (AF_INET, AF_INET6)
                and connection.getsockname() == connection.getpeername()
            ):
                # Otherwise the system keeps the port for a minute, and no kernel can bind it.
                reset_when_closed(connection)
                return True
        finally:
            connection.detach()
    return False


def reset_when_closed(connection: socket) -> None:
    """Closed, the other end of `connection` is told by a reset, and nothing of it is kept.

    Raises:
        OSError: It is closed already.
    """
    connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack(LINGER, 1, 0))
