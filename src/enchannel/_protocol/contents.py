"""The contents of the messages of the Jupyter protocol, as types; public in :mod:`enchannel.messages`.

Kernels leave fields out and add others, so those of what a kernel sends are all optional.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

__all__ = [
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
    "Reply",
    "ShutdownReply",
    "ShutdownRequest",
    "Status",
    "Stream",
    "Welcome",
]

# Contents that a client sends.


class _Code(TypedDict):
    code: str


class ExecuteRequest(_Code, total=False):
    """Runs code."""

    silent: bool
    store_history: bool
    user_expressions: dict[str, str]
    allow_stdin: bool
    stop_on_error: bool


class _CodeAtCursor(TypedDict):
    code: str
    cursor_pos: int


class InspectRequest(_CodeAtCursor, total=False):
    """Asks what the code at the cursor is."""

    detail_level: Literal[0, 1]


class CompleteRequest(TypedDict):
    """Asks how the code at the cursor may go on."""

    code: str
    cursor_pos: int


class _HistoryAccess(TypedDict):
    hist_access_type: Literal["range", "tail", "search"]


class HistoryRequest(_HistoryAccess, total=False):
    """Asks for earlier inputs; which of the fields count depends on ``hist_access_type``."""

    output: bool
    raw: bool
    session: int
    start: int
    stop: int
    n: int
    pattern: str
    unique: bool


class IsCompleteRequest(TypedDict):
    """Asks whether code is ready to run."""

    code: str


class CommInfoRequest(TypedDict, total=False):
    """Asks for the open comms, of one target or of all."""

    target_name: str


class Empty(TypedDict):
    """No content: connect, kernel_info, interrupt, create_subshell and list_subshell requests."""


class ShutdownRequest(TypedDict):
    """Asks the kernel to end."""

    restart: bool


class DebugRequest(TypedDict, total=False):
    """A request of the Debug Adapter Protocol."""

    type: Literal["request"]
    seq: int
    command: str
    arguments: dict[str, Any]


class DeleteSubshellRequest(TypedDict):
    """Ends a subshell."""

    subshell_id: str


class CommOpen(TypedDict, total=False):
    """Opens a comm; in both directions."""

    comm_id: str
    target_name: str
    data: dict[str, Any]
    target_module: str


class CommMsg(TypedDict, total=False):
    """A message of a comm; in both directions."""

    comm_id: str
    data: dict[str, Any]


class CommClose(TypedDict, total=False):
    """Closes a comm; in both directions."""

    comm_id: str
    data: dict[str, Any]


class InputReply(TypedDict, total=False):
    """What the user typed."""

    value: str
    status: Literal["ok"]


# Contents that a kernel sends.


class Reply(TypedDict, total=False):
    """What every reply may hold; the error's fields where ``status`` is ``"error"``."""

    status: str
    ename: str
    evalue: str
    traceback: list[str]


class ExecuteReply(Reply, total=False):
    """The end of an execution."""

    execution_count: int | None
    payload: list[dict[str, Any]]
    user_expressions: dict[str, dict[str, Any]]


class InspectReply(Reply, total=False):
    """What the code at the cursor is."""

    found: bool
    data: dict[str, Any]
    metadata: dict[str, Any]


class CompleteReply(Reply, total=False):
    """How the code between ``cursor_start`` and ``cursor_end`` may read."""

    matches: list[str]
    cursor_start: int
    cursor_end: int
    metadata: dict[str, Any]


class HistoryReply(Reply, total=False):
    """Entries of ``(session, line, input)``, or ``(session, line, (input, output))``."""

    history: list[Any]


class IsCompleteReply(TypedDict, total=False):
    """Whether code is ready to run; ``indent`` for the next line where it is incomplete."""

    status: Literal["complete", "incomplete", "invalid", "unknown"]
    indent: str


class ConnectReply(Reply, total=False):
    """The kernel's ports."""

    shell_port: int
    iopub_port: int
    stdin_port: int
    hb_port: int
    control_port: int


class CommInfoReply(Reply, total=False):
    """The open comms by id."""

    comms: dict[str, dict[str, str]]


class LanguageInfo(TypedDict, total=False):
    """The kernel's language."""

    name: str
    version: str
    mimetype: str
    file_extension: str
    pygments_lexer: str
    codemirror_mode: str | dict[str, Any]
    nbconvert_exporter: str


class KernelInfoReply(Reply, total=False):
    """What the kernel is, and what it can do."""

    protocol_version: str
    implementation: str
    implementation_version: str
    language_info: LanguageInfo
    banner: str
    debugger: bool
    help_links: list[dict[str, str]]
    supported_features: list[str]


class ShutdownReply(Reply, total=False):
    """The kernel is about to end; the ipykernel family publishes it on iopub as well."""

    restart: bool


class DebugReply(TypedDict, total=False):
    """A response of the Debug Adapter Protocol."""

    type: Literal["response"]
    seq: int
    request_seq: int
    success: bool
    command: str
    message: str
    body: dict[str, Any]


class CreateSubshellReply(Reply, total=False):
    """A new subshell."""

    subshell_id: str


class ListSubshellReply(Reply, total=False):
    """The subshells, the main shell not among them."""

    subshell_id: list[str]


class InputRequest(TypedDict, total=False):
    """Code asks for a line of input; a password is not to be shown."""

    prompt: str
    password: bool


class Welcome(TypedDict, total=False):
    """A subscription took effect (JEP 65)."""

    subscription: str


class Stream(TypedDict, total=False):
    """Text on standard output or standard error."""

    name: Literal["stdout", "stderr"]
    text: str


class DisplayData(TypedDict, total=False):
    """Something to show, in several formats; also the content of ``update_display_data``."""

    data: dict[str, Any]
    metadata: dict[str, Any]
    transient: dict[str, Any]


class ExecuteInput(TypedDict, total=False):
    """The code that runs now, for everybody else."""

    code: str
    execution_count: int


class ExecuteResult(DisplayData, total=False):
    """The value of the last expression."""

    execution_count: int


class Error(TypedDict, total=False):
    """Code raised an exception."""

    ename: str
    evalue: str
    traceback: list[str]


class Status(TypedDict, total=False):
    """What the kernel does, for the request in the parent header."""

    execution_state: str


class ClearOutput(TypedDict, total=False):
    """Clears the output: now, or (``wait``) when the next one comes."""

    wait: bool


class DebugEvent(TypedDict, total=False):
    """An event of the Debug Adapter Protocol."""

    type: Literal["event"]
    seq: int
    event: str
    body: dict[str, Any]
