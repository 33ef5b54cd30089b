"""Jupyter kernel channels for Trio and AnyIO.

General layout
--------------

A received message travels one way::

    socket -> _transports -> _protocol -> _core -> a stream -> you

and a sent one the other: ``_channels`` or a conversation -> ``_core`` -> ``_transports`` -> ``_protocol`` ->
socket. Each room stands on those below it, and knows nothing of those above:

* ``_protocol``: messages, frames, signatures, connection files, outputs: values and bytes; ``messages``,
  ``operators`` and ``outputs`` are its public vocabulary.
* ``_transports``: the interface to whatever carries messages, and ZeroMQ; nothing else imports zmq.
* ``_core``: the life of a connection, what is asked of a kernel, and who gets a message.
* ``_conversations``: executions, comms, subshells and debugging.
* ``_streams``, ``_channels``, ``_open_channels``: the channels as their user holds them, and the openers.
* ``_kernels``: launching, interrupting, restarting and stopping, and finding the kernels that run.
* ``_cli``, ``testing``: the command line, and what one needs to test programs with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._channels import KernelChannels
from ._conversations.completed import CompletedExecution
from ._conversations.execution import Execution
from ._conversations.replies import raise_for_status, user_expression
from ._conversations.timings import Timings
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
    NoReply,
    NotImplementedByKernel,
    ProtocolError,
    RecordingError,
    RemoteProtocolError,
    ReplayedMessage,
    ReplyError,
    ServerError,
)
from ._later import importer
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
from ._statistics import ChannelStatistics
from ._streams import Channel, MainChannel, Subscription
from ._transports.base import Transport
from ._transports.zmq_open import wrap_sockets

if TYPE_CHECKING:
    from . import messages, operators, outputs
    from ._conversations.comms import Comm, IncomingComms
    from ._conversations.recorder import Recording
    from ._conversations.sessions import DebugSession, Subshell
    from ._kernels.connection_files import find_connection_file, write_connection_file
    from ._kernels.kernel import Kernel
    from ._kernels.listing import RunningKernel, list_running_kernels
    from ._kernels.opening import open_kernel
    from ._kernels.pool import KernelPool, Lease, open_kernel_pool
    from ._kernels.server import Server, open_server
    from ._kernels.server_kernel import ServerKernel
    from ._kernels.server_models import KernelModel, ServerKernelSpec
    from ._kernels.specs import KernelSpec
    from ._protocol.recording import Recorded, read_recording
    from ._signals import exit_on_signals

__version__ = "0.1.0"

__all__ = [
    "Channel",
    "ChannelStatistics",
    "Comm",
    "CompletedExecution",
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
    "KernelModel",
    "KernelPool",
    "KernelSpec",
    "Lease",
    "Listener",
    "LocalProtocolError",
    "MainChannel",
    "MalformedMessage",
    "Message",
    "MessageTooLarge",
    "NoReply",
    "NotImplementedByKernel",
    "ProtocolError",
    "Recorded",
    "Recording",
    "RecordingError",
    "RemoteProtocolError",
    "ReplayedMessage",
    "ReplyError",
    "RunningKernel",
    "Server",
    "ServerError",
    "ServerKernel",
    "ServerKernelSpec",
    "Subscription",
    "Subshell",
    "Timings",
    "Transport",
    "exit_on_signals",
    "find_connection_file",
    "get_username",
    "list_running_kernels",
    "messages",
    "open_channels",
    "open_control_channel",
    "open_iopub_channel",
    "open_kernel",
    "open_kernel_channels",
    "open_kernel_pool",
    "open_server",
    "open_shell_channel",
    "open_stdin_channel",
    "operators",
    "outputs",
    "raise_for_status",
    "read_recording",
    "user_expression",
    "wrap_sockets",
    "write_connection_file",
]

# Imported by who uses it: launching kernels takes subprocesses and paths, which others never need.
_LATER = {
    "Comm": "_conversations.comms",
    "DebugSession": "_conversations.sessions",
    "IncomingComms": "_conversations.comms",
    "Kernel": "_kernels.kernel",
    "KernelModel": "_kernels.server_models",
    "KernelPool": "_kernels.pool",
    "KernelSpec": "_kernels.specs",
    "Lease": "_kernels.pool",
    "Recorded": "_protocol.recording",
    "Recording": "_conversations.recorder",
    "RunningKernel": "_kernels.listing",
    "Server": "_kernels.server",
    "ServerKernel": "_kernels.server_kernel",
    "ServerKernelSpec": "_kernels.server_models",
    "Subshell": "_conversations.sessions",
    "exit_on_signals": "_signals",
    "find_connection_file": "_kernels.connection_files",
    "list_running_kernels": "_kernels.listing",
    "messages": "messages",
    "open_kernel": "_kernels.opening",
    "open_kernel_pool": "_kernels.pool",
    "open_server": "_kernels.server",
    "operators": "operators",
    "outputs": "outputs",
    "read_recording": "_protocol.recording",
    "write_connection_file": "_kernels.connection_files",
}


if not TYPE_CHECKING:
    __getattr__ = importer(__name__, _LATER)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
