"""The contents of what a client sends, as types; public in :mod:`enchannel.messages`."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

__all__ = [
    "CommClose",
    "CommInfoRequest",
    "CommMsg",
    "CommOpen",
    "CompleteRequest",
    "DebugRequest",
    "DeleteSubshellRequest",
    "Empty",
    "ExecuteRequest",
    "HistoryRequest",
    "InputReply",
    "InspectRequest",
    "IsCompleteRequest",
    "ShutdownRequest",
]


class _Code(TypedDict):
    code: str


class ExecuteRequest(_Code, total=False):
    """Runs code: the content of an :func:`execute_request`.

    Example:
        .. code-block:: python

            asked: ExecuteRequest = {"code": "6 * 7", "store_history": False}
            reply = await ch.request("execute_request", asked)
    """

    silent: bool
    store_history: bool
    user_expressions: dict[str, str]
    allow_stdin: bool
    stop_on_error: bool


class _CodeAtCursor(TypedDict):
    code: str
    cursor_pos: int


class InspectRequest(_CodeAtCursor, total=False):
    """Asks what the code at the cursor is: the content of an :func:`inspect_request`.

    Example:
        .. code-block:: python

            asked: InspectRequest = {"code": "zip", "cursor_pos": 3}
            reply = await ch.request("inspect_request", asked)
    """

    detail_level: Literal[0, 1]


class CompleteRequest(TypedDict):
    """Asks how the code at the cursor may go on: the content of a :func:`complete_request`.

    Example:
        .. code-block:: python

            asked: CompleteRequest = {"code": "impo", "cursor_pos": 4}
            reply = await ch.request("complete_request", asked)
    """

    code: str
    cursor_pos: int


class _HistoryAccess(TypedDict):
    hist_access_type: Literal["range", "tail", "search"]


class HistoryRequest(_HistoryAccess, total=False):
    """Asks for earlier inputs; which of the fields count depends on ``hist_access_type``.

    See :func:`history_range_request`, :func:`history_tail_request` and
    :func:`history_search_request`. ipykernel answers none that leaves out ``output`` or ``raw``.

    Example:
        .. code-block:: python

            asked: HistoryRequest = {
                "hist_access_type": "tail",
                "n": 3,
                "output": False,
                "raw": True,
            }
            reply = await ch.request("history_request", asked)
    """

    output: bool
    raw: bool
    session: int
    start: int
    stop: int
    n: int
    pattern: str
    unique: bool


class IsCompleteRequest(TypedDict):
    """Asks whether code is ready to run: the content of an :func:`is_complete_request`.

    Example:
        .. code-block:: python

            asked: IsCompleteRequest = {"code": "for x in y:"}
            reply = await ch.request("is_complete_request", asked)
    """

    code: str


class CommInfoRequest(TypedDict, total=False):
    """Asks for the open comms, of one target or of all: the content of a :func:`comm_info_request`.

    Example:
        .. code-block:: python

            asked: CommInfoRequest = {"target_name": "jupyter.widget"}
            reply = await ch.request("comm_info_request", asked)
    """

    target_name: str


class Empty(TypedDict):
    """No content: connect, kernel_info, interrupt, create_subshell and list_subshell requests.

    Example:
        .. code-block:: python

            nothing: Empty = {}
            reply = await ch.request("kernel_info_request", nothing)
    """


class ShutdownRequest(TypedDict):
    """Asks the kernel to end: the content of a :func:`shutdown_request`.

    Example:
        .. code-block:: python

            asked: ShutdownRequest = {"restart": False}
            async with open_kernel("python3") as other, other.open_channels() as last:
                reply = await last.request("shutdown_request", asked)
    """

    restart: bool


class DebugRequest(TypedDict, total=False):
    """A request of the Debug Adapter Protocol: the content of a :func:`debug_request`.

    Example:
        .. code-block:: python

            asked: DebugRequest = {"type": "request", "seq": 1, "command": "debugInfo"}
            reply = await ch.request("debug_request", asked)
    """

    type: Literal["request"]
    seq: int
    command: str
    arguments: dict[str, Any]


class DeleteSubshellRequest(TypedDict):
    """Ends a subshell: the content of a :func:`delete_subshell_request`.

    Example:
        .. code-block:: python

            made = await ch.request(create_subshell_request())
            asked: DeleteSubshellRequest = {"subshell_id": made.content["subshell_id"]}
            reply = await ch.request("delete_subshell_request", asked)
    """

    subshell_id: str


class CommOpen(TypedDict):
    """Opens a comm; in both directions.

    Example:
        .. code-block:: python

            opening: CommOpen = {"comm_id": "c", "target_name": "counter", "data": {}}
            await ch.shell.send(message("comm_open", opening))
    """

    comm_id: str
    target_name: str
    data: dict[str, Any]
    target_module: NotRequired[str]


class CommMsg(TypedDict):
    """A message of a comm; in both directions.

    Example:
        .. code-block:: python

            said: CommMsg = {"comm_id": "c", "data": {"n": 1}}
            await ch.shell.send(message("comm_msg", said))
    """

    comm_id: str
    data: dict[str, Any]


class CommClose(TypedDict):
    """Closes a comm; in both directions.

    Example:
        .. code-block:: python

            closing: CommClose = {"comm_id": "c", "data": {}}
            await ch.shell.send(message("comm_close", closing))
    """

    comm_id: str
    data: dict[str, Any]


class InputReply(TypedDict):
    """What the user typed: the content of an :func:`input_reply`.

    Example:
        .. code-block:: python

            request = execute_request("input('name?')", allow_stdin=True)
            await ch.shell.send(request)
            prompt = await ch.stdin.receive()
            reply = input_reply("ada", prompt)
            await ch.stdin.send(reply)
            print(content(reply, InputReply)["value"])  # ada
    """

    value: str
    status: NotRequired[Literal["ok"]]
