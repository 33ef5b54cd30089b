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
    """A kernelspec that a server has; by :meth:`Server.kernelspecs`.

    Example:
        .. code-block:: python

            from enchannel.testing import open_fake_server

            async with open_fake_server() as fake, open_server(fake.url) as server:
                for spec in await server.kernelspecs():
                    print(spec.name, spec.language, spec.is_default)
                    # python3 python True
    """

    name: str
    """What :meth:`Server.open_kernel` takes."""
    display_name: str = ""
    """What users are shown."""
    language: str = ""
    """The language of its kernel."""
    interrupt_mode: str = "signal"
    """``"signal"`` or ``"message"``; the server does it as it says."""
    is_default: bool = False
    """Whether it is what is started where none is named."""
    metadata: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    """What else it says."""


@attrs.frozen
class KernelModel:
    """A kernel that a server runs, as the server describes it; by :meth:`Server.list_kernels`.

    Example:
        .. code-block:: python

            from enchannel.testing import open_fake_server

            async with open_fake_server() as fake, open_server(fake.url) as server:
                await fake.start_kernel("python3")
                [model] = await server.list_kernels()
                print(model.name, model.execution_state)  # python3 idle
                async with server.attach(model.id) as kernel:
                    print(kernel.id == model.id)  # True
    """

    id: str
    """What :meth:`Server.attach` takes."""
    name: str
    """That of its kernelspec."""
    execution_state: str = ""
    """As far as the server knows; ``"starting"`` until it was asked something."""
    last_activity: datetime | None = None
    """When something was last said, by it or to it, as far as the server knows."""
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
