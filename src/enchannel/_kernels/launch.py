"""How a kernel is launched: what whoever launches it says, checked."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import attrs

from .._exceptions import KernelLaunchError, LocalProtocolError
from .._protocol.arguments import check_env, check_seconds, is_system_text
from .._transports.zmq_open import has_curve
from .specs import LOCAL, KernelSpec, check_arguments, check_spec

__all__ = ["STARTUP_TIMEOUT", "Launch"]

STARTUP_TIMEOUT = 60.0
"""The default, in seconds."""


@attrs.frozen
class Launch:
    """How a kernel is started."""

    spec: KernelSpec
    cwd: str | os.PathLike[str] | None
    env: Mapping[str, str] = attrs.field(repr=False)
    launcher: Sequence[str]
    extra_arguments: Sequence[str]
    transport: str
    """``"tcp"`` or ``"ipc"``."""
    may_use_tcp: bool
    """Whether it was not asked for, and may be given up."""
    encrypted: bool
    startup_timeout: float

    @classmethod
    def checked(
        cls,
        name: str | KernelSpec,
        *,
        cwd: str | os.PathLike[str] | None = None,
        env: Mapping[str, str] | None = None,
        launcher: Sequence[str] = (),
        extra_arguments: Sequence[str] = (),
        transport: str = "auto",
        encryption: str = "auto",
        startup_timeout: float = STARTUP_TIMEOUT,
    ) -> Launch:
        """What the arguments of :func:`~enchannel.open_kernel` come to, with its errors."""
        where: object = os.fspath(cwd) if isinstance(cwd, os.PathLike) else cwd
        if where is not None and not is_system_text(where):
            raise LocalProtocolError(f"cwd is the path of a directory, not {cwd!r}")
        _check(env, transport, encryption, startup_timeout)
        for what, several in (("launcher", launcher), ("extra_arguments", extra_arguments)):
            check_arguments(what, several)
        if not isinstance(name, (str, KernelSpec)):
            raise LocalProtocolError(
                f"name is that of a kernelspec, or a KernelSpec, not {type(name).__name__}"
            )
        spec = name if isinstance(name, KernelSpec) else KernelSpec.find(name)
        check_spec(spec, f"kernelspec {spec.name!r} cannot be used")
        if spec.provisioner != LOCAL:
            raise KernelLaunchError(
                f"kernel {spec.name!r} is started by {spec.provisioner!r} (kernel_provisioner or process_proxy in its kernel.json, or "
                "JUPYTER_DEFAULT_PROVISIONER_NAME), and not by a command on this machine. Start it through a server that has "
                "that provisioner, such as an Enterprise Gateway: open_server(...).open_kernel(...)",
                reason="provisioner",
            )
        may_use_tcp = transport == "auto"
        if may_use_tcp:
            transport = "ipc" if spec.speaks_ipc else "tcp"
        encrypted = encryption == "required" or (
            encryption == "auto" and transport == "tcp" and spec.speaks_curve and has_curve()
        )
        if encrypted and not spec.speaks_curve:
            raise KernelLaunchError(
                f"kernel {spec.name!r} declares no encryption: its kernel.json has no supported_encryption "
                'with "curve" in its metadata',
                reason="no encryption",
            )
        if encrypted and not has_curve():
            raise KernelLaunchError(
                "this libzmq was built without CurveZMQ, so nothing can be encrypted; pyzmq's wheels have it",
                reason="no encryption",
            )
        return cls(
            spec,
            cwd,
            env or {},
            tuple(launcher),
            tuple(extra_arguments),
            transport,
            may_use_tcp,
            encrypted,
            startup_timeout,
        )


def _check(env: object, transport: str, encryption: str, startup_timeout: object) -> None:
    check_env(env, is_system_text)
    for what, value, known in (
        ("transport", transport, ("auto", "ipc", "tcp")),
        ("encryption", encryption, ("auto", "required", "off")),
    ):
        if value not in known:
            raise LocalProtocolError(f"{what} is one of {', '.join(known)}, not {value!r}")
    check_seconds("startup_timeout", startup_timeout)
