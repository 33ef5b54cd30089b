"""The messages of the Jupyter protocol: what a client may send, and what their contents hold.

One creator for each message that a client may send; what it returns is completed and sent by
``ch.request``, ``ch.main.send`` or the channel's own ``send``. :attr:`enchannel.Message.channel` names the channel
that the specification sends it on. One creator for each message of an execution that a kernel sends, for who writes a
kernel or stands in for one. One ``TypedDict`` for the content of every message in both directions;
kernels leave fields out and add others, so those of what a kernel sends are all optional.

Cursor positions count Unicode code points, as ``str`` does in Python (since version 5.2 of the protocol).

Source: "Messages on the shell (ROUTER/DEALER) channel" and the sections behind it in the Jupyter messaging
specification; JEP 65 (welcome), JEP 80 (kernel_info on control), JEP 91 (subshells).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

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

if TYPE_CHECKING:
    from typing_extensions import Buffer

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

# Creators.


def message(
    msg_type: str,
    content: Mapping[str, Any] | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    buffers: Sequence[Buffer] = (),
    subshell_id: str | None = None,
) -> Message:
    """A message of any type, to be completed when it is sent.

    Args:
        msg_type: For example ``"execute_request"``.
        content: What it says.
        metadata: Beside the content.
        buffers: Binary data.
        subshell_id: The subshell that is to handle it; none for the main shell.
    """
    header: dict[str, Any] = {"msg_type": msg_type}
    if subshell_id is not None:
        header["subshell_id"] = subshell_id
    return Message(header, {}, dict(metadata or {}), dict(content or {}), tuple(buffers))


def execute_request(
    code: str,
    *,
    silent: bool = False,
    store_history: bool | None = None,
    user_expressions: Mapping[str, str] | None = None,
    allow_stdin: bool = False,
    stop_on_error: bool = True,
    metadata: Mapping[str, Any] | None = None,
    subshell_id: str | None = None,
) -> Message:
    """Runs `code`.

    Args:
        code: What to run.
        silent: Whether the kernel is to be as quiet as it can, and to count nothing.
        store_history: Whether it goes into the history; by default where it is not silent.
        user_expressions: Expressions to evaluate behind it, by name.
        allow_stdin: Whether it may ask for input; say so only where somebody answers.
        stop_on_error: Whether an error aborts the requests that wait behind it.
        metadata: Beside the content, for example a ``cellId``.
        subshell_id: The subshell that runs it.
    """
    content: ExecuteRequest = {
        "code": code,
        "silent": silent,
        "store_history": (not silent) if store_history is None else store_history,
        "user_expressions": dict(user_expressions or {}),
        "allow_stdin": allow_stdin,
        "stop_on_error": stop_on_error,
    }
    return message("execute_request", content, metadata=metadata, subshell_id=subshell_id)


def inspect_request(
    code: str, cursor_pos: int | None = None, *, detail_level: Literal[0, 1] = 0
) -> Message:
    """Asks what stands at `cursor_pos` (in code points, by default the end) of `code`."""
    position = len(code) if cursor_pos is None else cursor_pos
    content: InspectRequest = {"code": code, "cursor_pos": position, "detail_level": detail_level}
    return message("inspect_request", content)


def complete_request(code: str, cursor_pos: int | None = None) -> Message:
    """Asks how `code` may go on at `cursor_pos` (in code points, by default the end)."""
    position = len(code) if cursor_pos is None else cursor_pos
    content: CompleteRequest = {"code": code, "cursor_pos": position}
    return message("complete_request", content)


def history_range_request(
    session: int, start: int, stop: int, *, output: bool = False, raw: bool = True
) -> Message:
    """Asks for lines `start` up to `stop` of a session; 0 is the present one, -1 the one before."""
    content: HistoryRequest = {
        "hist_access_type": "range",
        "session": session,
        "start": start,
        "stop": stop,
        "output": output,
        "raw": raw,
    }
    return message("history_request", content)


def history_tail_request(n: int, *, output: bool = False, raw: bool = True) -> Message:
    """Asks for the last `n` inputs."""
    content: HistoryRequest = {"hist_access_type": "tail", "n": n, "output": output, "raw": raw}
    return message("history_request", content)


def history_search_request(
    pattern: str, n: int, *, unique: bool = False, output: bool = False, raw: bool = True
) -> Message:
    """Asks for the last `n` inputs that match the glob `pattern`."""
    content: HistoryRequest = {
        "hist_access_type": "search",
        "pattern": pattern,
        "n": n,
        "unique": unique,
        "output": output,
        "raw": raw,
    }
    return message("history_request", content)


def is_complete_request(code: str) -> Message:
    """Asks whether `code` is ready to run."""
    content: IsCompleteRequest = {"code": code}
    return message("is_complete_request", content)


def connect_request() -> Message:
    """Asks for the kernel's ports; deprecated since version 5.1 of the protocol."""
    return message("connect_request")


def comm_info_request(target_name: str | None = None) -> Message:
    """Asks for the open comms, of one target or of all."""
    content: CommInfoRequest = {} if target_name is None else {"target_name": target_name}
    return message("comm_info_request", content)


def kernel_info_request() -> Message:
    """Asks what the kernel is and can do."""
    return message("kernel_info_request")


def shutdown_request(*, restart: bool = False) -> Message:
    """Asks the kernel to end; with `restart`, as the first half of a restart."""
    content: ShutdownRequest = {"restart": restart}
    return message("shutdown_request", content)


def interrupt_request() -> Message:
    """Asks the kernel to interrupt what it runs."""
    return message("interrupt_request")


def debug_request(command: str, arguments: Mapping[str, Any] | None = None, *, seq: int) -> Message:
    """A request of the Debug Adapter Protocol; `seq` counts up in each debug session."""
    content: DebugRequest = {"type": "request", "seq": seq, "command": command}
    if arguments is not None:
        content["arguments"] = dict(arguments)
    return message("debug_request", content)


def create_subshell_request() -> Message:
    """Asks for a new subshell; only of a kernel whose ``supported_features`` have them."""
    return message("create_subshell_request")


def delete_subshell_request(subshell_id: str) -> Message:
    """Asks for the end of a subshell."""
    content: DeleteSubshellRequest = {"subshell_id": subshell_id}
    return message("delete_subshell_request", content)


def list_subshell_request() -> Message:
    """Asks for the subshells."""
    return message("list_subshell_request")


def comm_open(
    comm_id: str,
    target_name: str,
    data: Mapping[str, Any] | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    buffers: Sequence[Buffer] = (),
) -> Message:
    """Opens a comm to what is registered under `target_name`."""
    content: CommOpen = {"comm_id": comm_id, "target_name": target_name, "data": dict(data or {})}
    return message("comm_open", content, metadata=metadata, buffers=buffers)


def comm_msg(
    comm_id: str,
    data: Mapping[str, Any] | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    buffers: Sequence[Buffer] = (),
) -> Message:
    """A message of an open comm."""
    content: CommMsg = {"comm_id": comm_id, "data": dict(data or {})}
    return message("comm_msg", content, metadata=metadata, buffers=buffers)


def comm_close(
    comm_id: str,
    data: Mapping[str, Any] | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    buffers: Sequence[Buffer] = (),
) -> Message:
    """Closes a comm."""
    content: CommClose = {"comm_id": comm_id, "data": dict(data or {})}
    return message("comm_close", content, metadata=metadata, buffers=buffers)


def input_reply(value: str, request: Message) -> Message:
    """The answer to an ``input_request``, whose header becomes its parent."""
    content: InputReply = {"value": value, "status": "ok"}
    return Message({"msg_type": "input_reply"}, request.header, {}, dict(content))


# Contents.


def content(message: Message, kind: type[T]) -> T:
    """The content of `message`, typed.

    ::

        reply = messages.content(done.reply, messages.ExecuteReply)
        print(reply["execution_count"])

    What is in it is as the kernel sent it, and not checked.

    Args:
        message: The message.
        kind: What the content of its type is: one of the types of this module, or ``Reply`` for any reply.

    Raises:
        LocalProtocolError: Messages of this type have another content.
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
