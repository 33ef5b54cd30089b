"""The messages of the Jupyter protocol: what a client may send, and what their contents hold.

One creator for each message that a client may send; what it returns is completed and sent by
``ch.request``, ``ch.main.send`` or the channel's own ``send``, which refuse what cannot be sent.
:attr:`enchannel.Message.channel` names the channel that the specification sends it on. One creator
for each message of an execution that a kernel sends, for who writes a kernel or stands in for one.
One ``TypedDict`` for the content of every message in both directions; kernels leave fields out and
add others, so those of what a kernel sends may be missing.

Cursor positions count Unicode code points, as ``str`` does in Python (since version 5.2 of the
protocol).

Source: "Messages on the shell (ROUTER/DEALER) channel" and the sections behind it in the Jupyter
messaging specification; JEP 65 (welcome), JEP 80 (kernel_info on control), JEP 91 (subshells).

Example:
    .. code-block:: python

        reply = await ch.request(complete_request("impo"))
        print(content(reply, CompleteReply)["matches"])  # ['import']
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

from ._protocol.client_messages import comm_close, comm_msg, comm_open, input_reply
from ._protocol.creators import message
from ._protocol.errors import LocalProtocolError
from ._protocol.message import PROTOCOL_VERSION, Body, Message
from ._protocol.published import (
    clear_output,
    display_data,
    error,
    execute_input,
    execute_reply,
    execute_result,
    status,
    stream,
    update_display_data,
)
from ._protocol.requests import (
    comm_info_request,
    complete_request,
    connect_request,
    create_subshell_request,
    debug_request,
    delete_subshell_request,
    execute_request,
    history_range_request,
    history_search_request,
    history_tail_request,
    inspect_request,
    interrupt_request,
    is_complete_request,
    kernel_info_request,
    list_subshell_request,
    shutdown_request,
)

if TYPE_CHECKING:
    from ._protocol.contents import (
        ClearOutput,
        CommClose,
        CommInfoReply,
        CommInfoRequest,
        CommMsg,
        CommOpen,
        CompleteReply,
        CompleteRequest,
        ConnectReply,
        CreateSubshellReply,
        DebugEvent,
        DebugReply,
        DebugRequest,
        DeleteSubshellRequest,
        DisplayData,
        Empty,
        Error,
        ExecuteInput,
        ExecuteReply,
        ExecuteRequest,
        ExecuteResult,
        HistoryReply,
        HistoryRequest,
        InputReply,
        InputRequest,
        InspectReply,
        InspectRequest,
        IsCompleteReply,
        IsCompleteRequest,
        KernelInfoReply,
        LanguageInfo,
        ListSubshellReply,
        Reply,
        ShutdownReply,
        ShutdownRequest,
        Status,
        Stream,
        Welcome,
    )

T = TypeVar("T")

__all__ = [
    "PROTOCOL_VERSION",
    "Body",
    "ClearOutput",
    "CommClose",
    "CommInfoReply",
    "CommInfoRequest",
    "CommMsg",
    "CommOpen",
    "CompleteReply",
    "CompleteRequest",
    "ConnectReply",
    "CreateSubshellReply",
    "DebugEvent",
    "DebugReply",
    "DebugRequest",
    "DeleteSubshellRequest",
    "DisplayData",
    "Empty",
    "Error",
    "ExecuteInput",
    "ExecuteReply",
    "ExecuteRequest",
    "ExecuteResult",
    "HistoryReply",
    "HistoryRequest",
    "InputReply",
    "InputRequest",
    "InspectReply",
    "InspectRequest",
    "IsCompleteReply",
    "IsCompleteRequest",
    "KernelInfoReply",
    "LanguageInfo",
    "ListSubshellReply",
    "Message",
    "Reply",
    "ShutdownReply",
    "ShutdownRequest",
    "Status",
    "Stream",
    "Welcome",
    "clear_output",
    "comm_close",
    "comm_info_request",
    "comm_msg",
    "comm_open",
    "complete_request",
    "connect_request",
    "content",
    "create_subshell_request",
    "debug_request",
    "delete_subshell_request",
    "display_data",
    "error",
    "execute_input",
    "execute_reply",
    "execute_request",
    "execute_result",
    "history_range_request",
    "history_search_request",
    "history_tail_request",
    "input_reply",
    "inspect_request",
    "interrupt_request",
    "is_complete_request",
    "kernel_info_request",
    "list_subshell_request",
    "message",
    "shutdown_request",
    "status",
    "stream",
    "update_display_data",
]

# Contents.


def content(message: Message, kind: type[T]) -> T:
    """The content of `message`, typed.

    What is in it is as the kernel sent it, and not checked.

    Args:
        message: The message.
        kind: What the content of its type is: one of the types of this module, or ``Reply`` for any
            reply.

    Raises:
        LocalProtocolError: Messages of this type have another content.

    Example:
        .. code-block:: python

            done = await ch.run("6 * 7")
            print(content(done.reply, ExecuteReply)["status"])  # ok
    """
    of_type = "".join(word.capitalize() for word in message.msg_type.split("_"))
    known = {_OTHER_NAMES.get(of_type, of_type), "Reply" if of_type.endswith("Reply") else ""}
    if kind.__name__ not in known:
        raise LocalProtocolError(
            f"the content of {message.msg_type or 'a message without a type'} is no {kind.__name__}"
        )
    return cast("T", message.content)


_OTHER_NAMES = {
    "UpdateDisplayData": "DisplayData",
    "IopubWelcome": "Welcome",
    **dict.fromkeys(
        (
            "ConnectRequest",
            "CreateSubshellRequest",
            "InterruptRequest",
            "KernelInfoRequest",
            "ListSubshellRequest",
        ),
        "Empty",
    ),
}


# Type checkers would take any name for one that there is.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        # Sixty classes, which only type checkers and those who ask need: 3 ms of the import.
        if name in __all__:
            from ._protocol import contents as _contents

            return getattr(_contents, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
