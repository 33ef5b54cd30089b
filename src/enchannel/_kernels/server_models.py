"""What a server says of its kernelspecs and its kernels."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs

from .._protocol.errors import text_of
from .._protocol.message import parse_date

__all__ = ["KernelModel", "ServerKernelSpec", "mapping", "model_of", "spec_of"]


@attrs.frozen
class ServerKernelSpec:
    """A kernelspec that a server has."""

    name: str
    display_name: str = ""
    language: str = ""
    interrupt_mode: str = "signal"
    """``"signal"`` or ``"message"``; the server does it as it says."""
    is_default: bool = False
    """Whether it is what is started where none is named."""
    metadata: Mapping[str, Any] = attrs.field(factory=dict, repr=False)


@attrs.frozen
class KernelModel:
    """A kernel that a server runs, as the server describes it."""

    id: str
    name: str
    execution_state: str = ""
    """As far as the server knows; ``"starting"`` until it was asked something."""
    last_activity: datetime | None = None
    connections: int = 0
    """Websockets that lead to it."""


def mapping(value: object) -> Mapping[str, Any]:
    """`value`, where it is an object of JSON; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def spec_of(name: str, said: Mapping[str, Any], default: object) -> ServerKernelSpec:
    """What the server `said` of a kernelspec."""
    spec = mapping(said.get("spec"))
    return ServerKernelSpec(
        name,
        display_name=text_of(spec.get("display_name")),
        language=text_of(spec.get("language")),
        interrupt_mode=text_of(spec.get("interrupt_mode")) or "signal",
        is_default=name == default,
        metadata=mapping(spec.get("metadata")),
    )


def model_of(said: Mapping[str, Any]) -> KernelModel:
    """What the server `said` of a kernel."""
    connections = said.get("connections")
    return KernelModel(
        text_of(said.get("id")),
        text_of(said.get("name")),
        text_of(said.get("execution_state")),
        parse_date(said.get("last_activity")),
        connections if isinstance(connections, int) else 0,
    )
