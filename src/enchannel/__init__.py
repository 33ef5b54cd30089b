"""Jupyter kernel channels for Trio and AnyIO.

General layout
--------------

A received message travels one way::

    socket -> _zmq -> _wire -> _delivery -> a stream -> you

and a sent one the other: ``_channels`` -> ``_zmq`` -> ``_wire`` -> socket.

* ``messages``: the message as a value.
* ``_wire``: frames to messages and back; no sockets, no tasks.
* ``_transport``: the interface between the channels and whatever carries messages.
* ``_zmq``: ZeroMQ as a transport; nothing else imports zmq.
* ``_delivery``: who gets a message.
* ``_channels``: the channels as their user holds them, and the tasks behind them.
* ``_open_channels``: the openers.
* ``_kernels``: kernelspecs, launching and stopping.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._channels import Channel, ChannelStatistics, KernelChannels, MainChannel, Subscription
from ._connection_info import ConnectionInfo
from ._delivery import Listener
from ._exceptions import (
    ConnectionFileError,
    EnchannelError,
    InvalidSignature,
    KernelConnectError,
    KernelDied,
    KernelLaunchError,
    LocalProtocolError,
    MalformedMessage,
    ProtocolError,
    RemoteProtocolError,
    ReplayedMessage,
)
from ._open_channels import (
    get_username,
    open_channels,
    open_control_channel,
    open_iopub_channel,
    open_kernel_channels,
    open_shell_channel,
    open_stdin_channel,
)
from ._transport import Transport
from ._zmq import wrap_sockets
from .messages import Message

if TYPE_CHECKING:
    from ._kernels import Kernel, KernelSpec, open_kernel

__all__ = [
    "Channel",
    "ChannelStatistics",
    "ConnectionFileError",
    "ConnectionInfo",
    "EnchannelError",
    "InvalidSignature",
    "Kernel",
    "KernelChannels",
    "KernelConnectError",
    "KernelDied",
    "KernelLaunchError",
    "KernelSpec",
    "Listener",
    "LocalProtocolError",
    "MainChannel",
    "MalformedMessage",
    "Message",
    "ProtocolError",
    "RemoteProtocolError",
    "ReplayedMessage",
    "Subscription",
    "Transport",
    "get_username",
    "open_channels",
    "open_control_channel",
    "open_iopub_channel",
    "open_kernel",
    "open_kernel_channels",
    "open_shell_channel",
    "open_stdin_channel",
    "wrap_sockets",
]


def __getattr__(name: str) -> object:
    # Launching kernels takes subprocesses and paths, which who only connects to one never needs.
    if name in ("Kernel", "KernelSpec", "open_kernel"):
        from . import _kernels

        return getattr(_kernels, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
