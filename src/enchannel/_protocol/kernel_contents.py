"""The contents of what a kernel sends, as types; public in :mod:`enchannel.messages`.

What the specification requires, of a reply where its ``status`` is ``"ok"``, is required here, though some kernels leave
it out; the rest is optional. Kernels add fields that are not here.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict

__all__ = [
    "ClearOutput",
    "CommInfoReply",
    "CompleteReply",
    "ConnectReply",
    "CreateSubshellReply",
    "DebugEvent",
    "DebugReply",
    "DisplayData",
    "Error",
    "ExecuteInput",
    "ExecuteReply",
    "ExecuteResult",
    "HistoryReply",
    "InputRequest",
    "InspectReply",
    "IsCompleteReply",
    "KernelInfoReply",
    "LanguageInfo",
    "ListSubshellReply",
    "Reply",
    "ShutdownReply",
    "Status",
    "Stream",
    "Welcome",
]


class Reply(TypedDict):
    """What every reply may hold; the error's fields where ``status`` is ``"error"``.

    Example:
        .. code-block:: python

            done = await ch.run("1 / 0")
            reply = content(done.reply, Reply)
            if reply["status"] == "error":
                print(reply["ename"])  # ZeroDivisionError
    """

    status: str
    ename: NotRequired[str]
    evalue: NotRequired[str]
    traceback: NotRequired[list[str]]


class ExecuteReply(Reply):
    """The end of an execution.

    Example:
        .. code-block:: python

            done = await ch.run("x = 6", user_expressions={"twice": "2 * x"})
            reply = content(done.reply, ExecuteReply)
            print(reply["user_expressions"]["twice"]["status"])  # ok
    """

    execution_count: int | None
    payload: NotRequired[list[dict[str, Any]]]
    user_expressions: NotRequired[dict[str, dict[str, Any]]]


class InspectReply(Reply):
    """What the code at the cursor is.

    Example:
        .. code-block:: python

            reply = await ch.request(inspect_request("zip"))
            found = content(reply, InspectReply)
            if found["found"]:
                print(found["data"]["text/plain"])
    """

    found: bool
    data: dict[str, Any]
    metadata: dict[str, Any]


class CompleteReply(Reply):
    """How the code between ``cursor_start`` and ``cursor_end`` may read.

    Example:
        .. code-block:: python

            reply = await ch.request(complete_request("x = zi"))
            found = content(reply, CompleteReply)
            print(found["cursor_start"], found["matches"])  # 4 ['zip']
    """

    matches: list[str]
    cursor_start: int
    cursor_end: int
    metadata: dict[str, Any]


class HistoryReply(Reply):
    """Entries of ``(session, line, input)``, or ``(session, line, (input, output))``.

    Example:
        .. code-block:: python

            await ch.run("6 * 7")
            reply = await ch.request(history_tail_request(1, output=True))
            for session, line, both in content(reply, HistoryReply)["history"]:
                print(both[0])  # 6 * 7
    """

    history: list[Any]


class IsCompleteReply(TypedDict):
    """Whether code is ready to run; ``indent`` for the next line where it is incomplete.

    Example:
        .. code-block:: python

            reply = await ch.request(is_complete_request("for x in y:"))
            found = content(reply, IsCompleteReply)
            print(found["status"], repr(found["indent"]))  # incomplete '    '
    """

    status: Literal["complete", "incomplete", "invalid", "unknown"]
    indent: NotRequired[str]


class ConnectReply(Reply):
    """The kernel's ports.

    Example:
        .. code-block:: python

            reply = await ch.request(connect_request())
            print(sorted(content(reply, ConnectReply)))
    """

    shell_port: int
    iopub_port: int
    stdin_port: int
    hb_port: int
    control_port: NotRequired[int]


class CommInfoReply(Reply):
    """The open comms by id.

    Example:
        .. code-block:: python

            reply = await ch.request(comm_info_request())
            for comm_id, about in content(reply, CommInfoReply)["comms"].items():
                print(comm_id, about["target_name"])
    """

    comms: dict[str, dict[str, str]]


class LanguageInfo(TypedDict):
    """The kernel's language.

    Example:
        .. code-block:: python

            info = await ch.kernel_info()
            language: LanguageInfo = info["language_info"]
            print(language["file_extension"])  # .py
    """

    name: str
    version: str
    mimetype: str
    file_extension: str
    pygments_lexer: NotRequired[str]
    codemirror_mode: NotRequired[str | dict[str, Any]]
    nbconvert_exporter: NotRequired[str]


class KernelInfoReply(Reply):
    """What the kernel is, and what it can do.

    Example:
        .. code-block:: python

            info: KernelInfoReply = await ch.kernel_info()
            print("kernel subshells" in info.get("supported_features", ()))
    """

    protocol_version: str
    implementation: str
    implementation_version: str
    language_info: LanguageInfo
    banner: str
    debugger: NotRequired[bool]
    help_links: NotRequired[list[dict[str, str]]]
    supported_features: NotRequired[list[str]]


class ShutdownReply(Reply):
    """The kernel is about to end; the ipykernel family publishes it on iopub as well.

    Example:
        .. code-block:: python

            async with open_kernel("python3") as other, other.open_channels() as last:
                reply = await last.request(shutdown_request())
                print(content(reply, ShutdownReply)["restart"])  # False
    """

    restart: bool


class DebugReply(TypedDict):
    """A response of the Debug Adapter Protocol.

    Example:
        .. code-block:: python

            reply = await ch.request(debug_request("debugInfo", seq=1))
            response = content(reply, DebugReply)
            print(response["command"], response["success"])  # debugInfo True
    """

    type: Literal["response"]
    seq: int
    request_seq: int
    success: bool
    command: str
    message: NotRequired[str]
    body: NotRequired[dict[str, Any]]


class CreateSubshellReply(Reply):
    """A new subshell.

    Example:
        .. code-block:: python

            reply = await ch.request(create_subshell_request())
            subshell_id = content(reply, CreateSubshellReply)["subshell_id"]
            await ch.request(delete_subshell_request(subshell_id))
    """

    subshell_id: str


class ListSubshellReply(Reply):
    """The subshells, the main shell not among them.

    Example:
        .. code-block:: python

            reply = await ch.request(list_subshell_request())
            print(content(reply, ListSubshellReply)["subshell_id"])  # []
    """

    subshell_id: list[str]


class InputRequest(TypedDict):
    """Code asks for a line of input; a password is not to be shown.

    Example:
        .. code-block:: python

            request = execute_request("input('name?')", allow_stdin=True)
            await ch.shell.send(request)
            prompt = await ch.stdin.receive()
            print(content(prompt, InputRequest)["password"])  # False
            await ch.stdin.send(input_reply("ada", prompt))
    """

    prompt: str
    password: bool


class Welcome(TypedDict):
    """A subscription took effect (JEP 65). No stream shows the message: it belongs to the opening.

    Example:
        .. code-block:: python

            welcome = message("iopub_welcome", {"subscription": "kernel"})
            print(content(welcome, Welcome)["subscription"])  # kernel
    """

    subscription: str


class Stream(TypedDict):
    """Text on standard output or standard error.

    Example:
        .. code-block:: python

            async with ch.execute("print('woo')") as execution:
                async for msg in operators.of_type(execution, "stream"):
                    print(content(msg, Stream)["text"])  # woo
    """

    name: Literal["stdout", "stderr"]
    text: str


class DisplayData(TypedDict):
    """Something to show, in several formats; also the content of ``update_display_data``.

    Example:
        .. code-block:: python

            async with ch.execute("display(42)") as execution:
                async for msg in operators.of_type(execution, "display_data"):
                    print(content(msg, DisplayData)["data"])  # {'text/plain': '42'}
    """

    data: dict[str, Any]
    metadata: dict[str, Any]
    transient: NotRequired[dict[str, Any]]


class ExecuteInput(TypedDict):
    """The code that runs now, for everybody else.

    Example:
        .. code-block:: python

            async with ch.execute("6 * 7") as execution:
                async for msg in operators.of_type(execution, "execute_input"):
                    print(content(msg, ExecuteInput)["code"])  # 6 * 7
    """

    code: str
    execution_count: int


class ExecuteResult(DisplayData):
    """The value of the last expression.

    Example:
        .. code-block:: python

            async with ch.execute("6 * 7") as execution:
                async for msg in operators.of_type(execution, "execute_result"):
                    print(content(msg, ExecuteResult)["data"])  # {'text/plain': '42'}
    """

    execution_count: int


class Error(TypedDict):
    """Code raised an exception.

    Example:
        .. code-block:: python

            async with ch.execute("1 / 0") as execution:
                async for msg in operators.of_type(execution, "error"):
                    print(content(msg, Error)["ename"])  # ZeroDivisionError
    """

    ename: str
    evalue: str
    traceback: list[str]


class Status(TypedDict):
    """What the kernel does, for the request in the parent header.

    Example:
        .. code-block:: python

            async with ch.execute("6 * 7") as execution:
                async for msg in operators.of_type(execution, "status"):
                    print(content(msg, Status)["execution_state"])  # busy
    """

    execution_state: str


class ClearOutput(TypedDict):
    """Clears the output: now, or (``wait``) when the next one comes.

    Example:
        .. code-block:: python

            said = clear_output(wait=True)
            print(content(said, ClearOutput)["wait"])  # True
    """

    wait: bool


class DebugEvent(TypedDict):
    """An event of the Debug Adapter Protocol.

    Example:
        .. code-block:: python

            async with ch.open_debug_session() as debug:
                msg = await debug.receive()
                print(content(msg, DebugEvent)["event"])
    """

    type: Literal["event"]
    seq: int
    event: str
    body: NotRequired[dict[str, Any]]
