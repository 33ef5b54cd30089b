"""Jupyter kernel channels for Trio and AnyIO.

General layout
--------------

A received message travels one way::

    socket -> _zmq -> _wire -> _delivery -> a stream -> you

and a sent one the other: ``_channels`` -> ``_zmq`` -> ``_wire`` -> socket.

* ``_message``: the message as a value; ``messages``: a creator and a content type for each.
* ``_wire``: frames to messages and back; no sockets, no tasks.
* ``_transport``: the interface between the channels and whatever carries messages.
* ``_zmq``: ZeroMQ as a transport; nothing else imports zmq.
* ``_delivery``: who gets a message.
* ``_execution``, ``_outputs``: requests and executions; ``_comms``, ``_sessions``: comms, subshells and
  debugging; ``operators``: picking from streams.
* ``_channels``: the channels as their user holds them, and the tasks behind them; ``_outages``,
  ``_heartbeat``: what becomes of them when the connection is lost or the kernel falls silent.
* ``_open_channels``: the openers; ``_probe``: how iopub is proven live.
* ``_kernels``: launching, interrupting, restarting and stopping; ``_kernelspecs``, ``_kernel_process``,
  ``_connection_files``: what that takes, and finding the kernels that run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._channels import Channel, ChannelStatistics, KernelChannels, MainChannel, Subscription
from ._conversations.execution import Execution, raise_for_status
from ._core.delivery import Listener
from ._exceptions import (
    ConnectionFileError,
    EnchannelError,
    InvalidSignature,
    KernelConnectError,
    KernelDied,
    KernelLaunchError,
    LocalProtocolError,
    MalformedMessage,
    MessageTooLarge,
    NotImplementedByKernel,
    ProtocolError,
    RemoteProtocolError,
    ReplayedMessage,
    ReplyError,
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
from ._protocol.connection_info import ConnectionInfo
from ._protocol.message import Message
from ._transports.base import Transport
from ._transports.zmq import wrap_sockets

if TYPE_CHECKING:
    from . import messages, operators
    from ._conversations.comms import Comm, IncomingComms
    from ._conversations.sessions import DebugSession, Subshell
    from ._kernels.connection_files import RunningKernel, find_connection_file, list_running_kernels
    from ._kernels.kernel import Kernel, open_kernel
    from ._kernels.specs import KernelSpec

__all__ = [
    "Channel",
    "ChannelStatistics",
    "Comm",
    "ConnectionFileError",
    "ConnectionInfo",
    "DebugSession",
    "EnchannelError",
    "Execution",
    "IncomingComms",
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
    "MessageTooLarge",
    "NotImplementedByKernel",
    "ProtocolError",
    "RemoteProtocolError",
    "ReplayedMessage",
    "ReplyError",
    "RunningKernel",
    "Subscription",
    "Subshell",
    "Transport",
    "find_connection_file",
    "get_username",
    "list_running_kernels",
    "messages",
    "open_channels",
    "open_control_channel",
    "open_iopub_channel",
    "open_kernel",
    "open_kernel_channels",
    "open_shell_channel",
    "open_stdin_channel",
    "operators",
    "raise_for_status",
    "wrap_sockets",
]

# Imported by who uses it: launching kernels takes subprocesses and paths, which others never need.
_LATER = {
    "Comm": "_conversations.comms",
    "DebugSession": "_conversations.sessions",
    "IncomingComms": "_conversations.comms",
    "Kernel": "_kernels.kernel",
    "KernelSpec": "_kernels.specs",
    "RunningKernel": "_kernels.connection_files",
    "Subshell": "_conversations.sessions",
    "find_connection_file": "_kernels.connection_files",
    "list_running_kernels": "_kernels.connection_files",
    "messages": "messages",
    "open_kernel": "_kernels.kernel",
    "operators": "operators",
}


def __getattr__(name: str) -> object:
    if name in _LATER:
        from importlib import import_module

        module = import_module(f".{_LATER[name]}", __name__)
        return module if name == _LATER[name] else getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
