"""The creators of requests; public in :mod:`enchannel.messages`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from .creators import mapping, message
from .message import Message

if TYPE_CHECKING:
    from .sent_contents import (
        CommInfoRequest,
        CompleteRequest,
        DebugRequest,
        DeleteSubshellRequest,
        ExecuteRequest,
        HistoryRequest,
        InspectRequest,
        IsCompleteRequest,
        ShutdownRequest,
    )

__all__ = [
    "comm_info_request",
    "complete_request",
    "connect_request",
    "create_subshell_request",
    "debug_request",
    "delete_subshell_request",
    "execute_request",
    "history_range_request",
    "history_search_request",
    "history_tail_request",
    "inspect_request",
    "interrupt_request",
    "is_complete_request",
    "kernel_info_request",
    "list_subshell_request",
    "shutdown_request",
]


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
    """Runs `code`; answered by an ``execute_reply``. See "Execute" of the specification.

    :meth:`enchannel.KernelChannels.run` and :meth:`enchannel.KernelChannels.execute` send one, and
    follow what comes of it.

    Args:
        code: What to run.
        silent: Whether the kernel is to be as quiet as it can, and to count nothing.
        store_history: Whether it goes into the history; by default where it is not silent.
        user_expressions: Expressions to evaluate behind it, by name.
        allow_stdin: Whether it may ask for input; say so only where somebody answers.
        stop_on_error: Whether an error aborts the requests that wait behind it.
        metadata: Beside the content, for example a ``cellId``.
        subshell_id: The subshell that runs it.

    Raises:
        LocalProtocolError: `user_expressions` or `metadata` is no mapping.

    Example:
        .. code-block:: python

            request = execute_request("x = 6", user_expressions={"twice": "2 * x"})
            reply = await ch.request(request)
            print(user_expression(reply, "twice"))  # {'text/plain': '12'}
    """
    content: ExecuteRequest = {
        "code": code,
        "silent": silent,
        "store_history": (not silent) if store_history is None else store_history,
        "user_expressions": mapping("user_expressions", user_expressions),
        "allow_stdin": allow_stdin,
        "stop_on_error": stop_on_error,
    }
    return message("execute_request", content, metadata=metadata, subshell_id=subshell_id)


def inspect_request(
    code: str, cursor_pos: int | None = None, *, detail_level: Literal[0, 1] = 0
) -> Message:
    """Asks what stands at a place of some code. See "Introspection" of the specification.

    Args:
        code: The code, of several lines perhaps.
        cursor_pos: The place, in code points; by default the end.
        detail_level: 1 for more, such as the source.

    Example:
        .. code-block:: python

            reply = await ch.request(inspect_request("zip"))
            print(content(reply, InspectReply)["found"])  # True
    """
    position = len(code) if cursor_pos is None else cursor_pos
    content: InspectRequest = {"code": code, "cursor_pos": position, "detail_level": detail_level}
    return message("inspect_request", content)


def complete_request(code: str, cursor_pos: int | None = None) -> Message:
    """Asks how some code may go on. See "Completion" of the specification.

    Args:
        code: The code, of several lines perhaps.
        cursor_pos: Where, in code points; by default at the end.

    Example:
        .. code-block:: python

            reply = await ch.request(complete_request("impo"))
            print(content(reply, CompleteReply)["matches"])  # ['import']
    """
    position = len(code) if cursor_pos is None else cursor_pos
    content: CompleteRequest = {"code": code, "cursor_pos": position}
    return message("complete_request", content)


def history_range_request(
    session: int, start: int, stop: int, *, output: bool = False, raw: bool = True
) -> Message:
    """Asks for some inputs of a session. See "History" of the specification.

    Args:
        session: Its number; 0 is the present one, -1 the one before.
        start: The number of the first input.
        stop: The number behind the last one.
        output: Whether the outputs are asked for as well.
        raw: Whether inputs are as they were typed, and not as they were transformed.

    Example:
        .. code-block:: python

            done = await ch.run("6 * 7")
            number = done.execution_count
            reply = await ch.request(history_range_request(0, number, number + 1))
            print(content(reply, HistoryReply)["history"])
    """
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
    """Asks for the last inputs, of all sessions. See "History" of the specification.

    Args:
        n: How many.
        output: See :func:`history_range_request`.
        raw: See there.

    Example:
        .. code-block:: python

            await ch.run("6 * 7")
            reply = await ch.request(history_tail_request(1))
            for session, line, code in content(reply, HistoryReply)["history"]:
                print(code)  # 6 * 7
    """
    content: HistoryRequest = {"hist_access_type": "tail", "n": n, "output": output, "raw": raw}
    return message("history_request", content)


def history_search_request(
    pattern: str, n: int, *, unique: bool = False, output: bool = False, raw: bool = True
) -> Message:
    """Asks for the last inputs that match a pattern. See "History" of the specification.

    Args:
        pattern: A glob, with ``*`` and ``?``, for the whole of an input.
        n: How many.
        unique: Whether each is wanted only once.
        output: See :func:`history_range_request`.
        raw: See there.

    Example:
        .. code-block:: python

            await ch.run("6 * 7")
            reply = await ch.request(history_search_request("6 *", 1))
            for session, line, code in content(reply, HistoryReply)["history"]:
                print(code)  # 6 * 7
    """
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
    """Asks whether `code` is ready to run. See "Code completeness" of the specification.

    Example:
        .. code-block:: python

            reply = await ch.request(is_complete_request("for x in y:"))
            print(content(reply, IsCompleteReply)["status"])  # incomplete
    """
    content: IsCompleteRequest = {"code": code}
    return message("is_complete_request", content)


def connect_request() -> Message:
    """Asks for the kernel's ports. See "Connect" of the specification, which deprecates it.

    Example:
        .. code-block:: python

            reply = await ch.request(connect_request())
            print(content(reply, ConnectReply)["shell_port"])
    """
    return message("connect_request")


def comm_info_request(target_name: str | None = None) -> Message:
    """Asks for the open comms, of one target or of all. See "Comm info" of the specification.

    Example:
        .. code-block:: python

            reply = await ch.request(comm_info_request("jupyter.widget"))
            print(content(reply, CommInfoReply)["comms"])  # {}
    """
    content: CommInfoRequest = {} if target_name is None else {"target_name": target_name}
    return message("comm_info_request", content)


def kernel_info_request() -> Message:
    """Asks what the kernel is and can do. See "Kernel info" of the specification.

    :meth:`enchannel.KernelChannels.kernel_info` does so, once.

    Example:
        .. code-block:: python

            reply = await ch.request(kernel_info_request(), channel="control")
            print(content(reply, KernelInfoReply)["language_info"]["name"])  # python
    """
    return message("kernel_info_request")


def shutdown_request(*, restart: bool = False) -> Message:
    """Asks the kernel to end; with `restart`, as the first half of a restart. On control.

    :meth:`enchannel.Kernel.shut_down` and :meth:`enchannel.Kernel.restart` are for kernels that
    were launched here. See "Kernel shutdown" of the specification.

    Example:
        .. code-block:: python

            async with open_kernel("python3") as other, other.open_channels() as last:
                reply = await last.request(shutdown_request())
                print(reply.content["status"])  # ok
    """
    content: ShutdownRequest = {"restart": restart}
    return message("shutdown_request", content)


def interrupt_request() -> Message:
    r"""Asks the kernel to interrupt what it runs. On control; see "Kernel interrupt".

    :meth:`enchannel.KernelChannels.interrupt` interrupts as the kernel wants it.

    Example:
        .. code-block:: python

            code = "print('begun', flush=True)\nwhile True: pass"
            async with ch.execute(code) as execution:
                async for _ in operators.of_type(execution, "stream"):
                    break
                await ch.request(interrupt_request())
                reply = await execution.wait()
            print(content(reply, ExecuteReply)["ename"])  # KeyboardInterrupt
    """
    return message("interrupt_request")


def debug_request(command: str, arguments: Mapping[str, Any] | None = None, *, seq: int) -> Message:
    """A request of the Debug Adapter Protocol. On control; see "Debug request".

    :meth:`enchannel.KernelChannels.open_debug_session` attaches the debugger, and counts.

    Args:
        command: What is asked for.
        arguments: Of the command.
        seq: Counts up in each debug session.

    Raises:
        LocalProtocolError: `arguments` is no mapping.

    Example:
        .. code-block:: python

            reply = await ch.request(debug_request("debugInfo", seq=1))
            print(content(reply, DebugReply)["success"])  # True
    """
    content: DebugRequest = {"type": "request", "seq": seq, "command": command}
    if arguments is not None:
        content["arguments"] = mapping("arguments", arguments)
    return message("debug_request", content)


def create_subshell_request() -> Message:
    """Asks for a new subshell; only of a kernel whose ``supported_features`` have them. On control.

    :meth:`enchannel.KernelChannels.open_subshell` deletes it as well. See JEP 91.

    Example:
        .. code-block:: python

            reply = await ch.request(create_subshell_request())
            subshell_id = content(reply, CreateSubshellReply)["subshell_id"]
            done = await ch.run("6 * 7", subshell_id=subshell_id)
            await ch.request(delete_subshell_request(subshell_id))
    """
    return message("create_subshell_request")


def delete_subshell_request(subshell_id: str) -> Message:
    """Asks for the end of a subshell. On control; see JEP 91.

    Example:
        .. code-block:: python

            reply = await ch.request(create_subshell_request())
            subshell_id = content(reply, CreateSubshellReply)["subshell_id"]
            await ch.request(delete_subshell_request(subshell_id))
    """
    content: DeleteSubshellRequest = {"subshell_id": subshell_id}
    return message("delete_subshell_request", content)


def list_subshell_request() -> Message:
    """Asks for the subshells. On control; see JEP 91.

    Example:
        .. code-block:: python

            reply = await ch.request(list_subshell_request())
            print(content(reply, ListSubshellReply)["subshell_id"])  # []
    """
    return message("list_subshell_request")
