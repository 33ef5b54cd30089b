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
from ._kernels import Kernel, KernelSpec, open_kernel
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
