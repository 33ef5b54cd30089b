"""Why no reply came, as far as that is known; that the kernel does not implement it only where nothing else explains it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._exceptions import NoReply, NotImplementedByKernel
from .._protocol.message import Message
from .flight import Flight

__all__ = ["no_reply"]

_EVERYWHERE = ("execute_request", "kernel_info_request")
"""What every kernel implements: where no reply to it comes, it was lost."""


def no_reply(flight: Flight, dropped: Mapping[str, int]) -> NoReply:
    """What is raised for a request that the kernel is done with.

    Args:
        flight: It.
        dropped: How many arrivals were no message so far, by the error's name.
    """
    kind = flight.request.msg_type
    said = f"the kernel is done with the {kind}, and no reply came"
    if "disconnected" in flight.hit:
        return NoReply(f"{said}: it was lost while the connection was away", "disconnected")
    if sum(dropped.values()) > flight.dropped_before:
        kinds = ", ".join(sorted(dropped))
        return NoReply(f"{said}: it may be among what was dropped here ({kinds})", "dropped")
    if "interrupted" in flight.hit:
        return NoReply(f"{said}: the kernel was interrupted meanwhile", "interrupted")
    lacking = _lacking(flight.request)
    if lacking:
        return NoReply(f"{said}: its content has no {lacking}, which the specification asks for")
    if kind in _EVERYWHERE:
        return NoReply(f"{said}: some kernels lose it when they are interrupted")
    hint = "" if kind.endswith("_request") else "; the types of requests end in _request"
    return NotImplementedByKernel(f"{said}; it does not seem to implement it{hint}")


def _lacking(request: Message) -> str:
    """The first field that the specification asks for in the content of `request`, and that it has not."""
    from .._protocol import contents

    name = "".join(part.capitalize() for part in request.msg_type.split("_"))
    required: Any = getattr(getattr(contents, name, None), "__required_keys__", ())
    return next((key for key in sorted(required) if key not in request.content), "")
