"""The contents of the messages of the Jupyter protocol, as types; public in :mod:`enchannel.messages`.

What the specification requires of a message, of a reply where its ``status`` is ``"ok"``, is required here, though some
kernels leave it out; the rest is optional. Kernels add fields that are not here.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

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


class CommOpen(TypedDict):
    """Opens a comm; in both directions."""

    comm_id: str
    target_name: str
    data: dict[str, Any]
    target_module: NotRequired[str]


class CommMsg(TypedDict):
    """A message of a comm; in both directions."""

    comm_id: str
    data: dict[str, Any]


class CommClose(TypedDict):
    """Closes a comm; in both directions."""

    comm_id: str
    data: dict[str, Any]


class InputReply(TypedDict):
    """What the user typed."""

    value: str
    status: NotRequired[Literal["ok"]]


# Contents that a kernel sends.


class Reply(TypedDict):
    """What every reply may hold; the error's fields where ``status`` is ``"error"``."""

    status: str
    ename: NotRequired[str]
    evalue: NotRequired[str]
    traceback: NotRequired[list[str]]


class ExecuteReply(Reply):
    """The end of an execution."""

    execution_count: int | None
    payload: NotRequired[list[dict[str, Any]]]
    user_expressions: NotRequired[dict[str, dict[str, Any]]]


class InspectReply(Reply):
    """What the code at the cursor is."""

    found: bool
    data: dict[str, Any]
    metadata: dict[str, Any]


class CompleteReply(Reply):
    """How the code between ``cursor_start`` and ``cursor_end`` may read."""

    matches: list[str]
    cursor_start: int
    cursor_end: int
    metadata: dict[str, Any]


class HistoryReply(Reply):
    """Entries of ``(session, line, input)``, or ``(session, line, (input, output))``."""

    history: list[Any]


class IsCompleteReply(TypedDict):
    """Whether code is ready to run; ``indent`` for the next line where it is incomplete."""

    status: Literal["complete", "incomplete", "invalid", "unknown"]
    indent: NotRequired[str]


class ConnectReply(Reply):
    """The kernel's ports."""

    shell_port: int
    iopub_port: int
    stdin_port: int
    hb_port: int
    control_port: NotRequired[int]


class CommInfoReply(Reply):
    """The open comms by id."""

    comms: dict[str, dict[str, str]]


class LanguageInfo(TypedDict):
    """The kernel's language."""

    name: str
    version: str
    mimetype: str
    file_extension: str
    pygments_lexer: NotRequired[str]
    codemirror_mode: NotRequired[str | dict[str, Any]]
    nbconvert_exporter: NotRequired[str]


class KernelInfoReply(Reply):
    """What the kernel is, and what it can do."""

    protocol_version: str
    implementation: str
    implementation_version: str
    language_info: LanguageInfo
    banner: str
    debugger: NotRequired[bool]
    help_links: NotRequired[list[dict[str, str]]]
    supported_features: NotRequired[list[str]]


class ShutdownReply(Reply):
    """The kernel is about to end; the ipykernel family publishes it on iopub as well."""

    restart: bool


class DebugReply(TypedDict):
    """A response of the Debug Adapter Protocol."""

    type: Literal["response"]
    seq: int
    request_seq: int
    success: bool
    command: str
    message: NotRequired[str]
    body: NotRequired[dict[str, Any]]


class CreateSubshellReply(Reply):
    """A new subshell."""

    subshell_id: str


class ListSubshellReply(Reply):
    """The subshells, the main shell not among them."""

    subshell_id: list[str]


class InputRequest(TypedDict):
    """Code asks for a line of input; a password is not to be shown."""

    prompt: str
    password: bool


class Welcome(TypedDict):
    """A subscription took effect (JEP 65)."""

    subscription: str


class Stream(TypedDict):
    """Text on standard output or standard error."""

    name: Literal["stdout", "stderr"]
    text: str


class DisplayData(TypedDict):
    """Something to show, in several formats; also the content of ``update_display_data``."""

    data: dict[str, Any]
    metadata: dict[str, Any]
    transient: NotRequired[dict[str, Any]]


class ExecuteInput(TypedDict):
    """The code that runs now, for everybody else."""

    code: str
    execution_count: int


class ExecuteResult(DisplayData):
    """The value of the last expression."""

    execution_count: int


class Error(TypedDict):
    """Code raised an exception."""

    ename: str
    evalue: str
    traceback: list[str]


class Status(TypedDict):
    """What the kernel does, for the request in the parent header."""

    execution_state: str


class ClearOutput(TypedDict):
    """Clears the output: now, or (``wait``) when the next one comes."""

    wait: bool


class DebugEvent(TypedDict):
    """An event of the Debug Adapter Protocol."""

    type: Literal["event"]
    seq: int
    event: str
    body: NotRequired[dict[str, Any]]
