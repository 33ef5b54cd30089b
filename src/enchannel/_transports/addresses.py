"""The addresses of a host, resolved off the event loop.

libzmq resolves names on its one I/O thread, which every kernel of the process shares, and tries one address of
several. So it is given addresses.
"""

from __future__ import annotations

import ipaddress
from socket import SOCK_STREAM, getaddrinfo

import anyio
import anyio.to_thread

__all__ = ["resolve"]


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
    found = await anyio.to_thread.run_sync(
        lambda: getaddrinfo(host, None, type=SOCK_STREAM),
        abandon_on_cancel=True,
        # Not the common one: a resolver that is slow to give up would hold others up.
        limiter=anyio.CapacityLimiter(1),
    )
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
