"""Creators of what a kernel says: for who writes one, stands in for one, or makes up what one has said.

Each takes the request that it belongs to as its `parent`. Public in :mod:`enchannel.messages`.

Source: "Messages on the IOPub (PUB/SUB) channel" and "Execution results" of the Jupyter messaging specification.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from .message import Message

if TYPE_CHECKING:
    from .contents import (
        ClearOutput,
        DisplayData,
        Error,
        ExecuteInput,
        ExecuteReply,
        ExecuteResult,
        Status,
        Stream,
    )

__all__ = [
    "clear_output",
    "display_data",
    "error",
    "execute_input",
    "execute_reply",
    "execute_result",
    "status",
    "stream",
    "update_display_data",
]


def _said(msg_type: str, content: Mapping[str, Any], parent: Message | None) -> Message:
    header = {} if parent is None else parent.header
    return Message({"msg_type": msg_type}, header, {}, dict(content))


def stream(
    text: str, name: Literal["stdout", "stderr"] = "stdout", *, parent: Message | None = None
) -> Message:
    """Text that code printed.

    See "Streams (stdout, stderr, etc)" of the Jupyter messaging specification.

    Args:
        text: Any part of what was printed.
        name: ``"stdout"`` or ``"stderr"``.
        parent: The request that it belongs to.

    Example:
        .. code-block:: python

            area = outputs.OutputArea()
            area.apply(stream("w"), stream("oo"))
            print(area.text)  # woo
    """
    content: Stream = {"name": name, "text": text}
    return _said("stream", content, parent)


def display_data(
    data: Mapping[str, Any],
    *,
    metadata: Mapping[str, Any] | None = None,
    display_id: str | None = None,
    parent: Message | None = None,
) -> Message:
    """Something to show.

    See "Display Data" of the Jupyter messaging specification.

    Args:
        data: Its formats, by MIME type.
        metadata: Of the formats, by MIME type as well.
        display_id: What it may be updated by.
        parent: The request that it belongs to.

    Example:
        .. code-block:: python

            area = outputs.OutputArea()
            area.apply(display_data({"text/plain": "0 %"}, display_id="bar"))
            print(area.text)  # 0 %
    """
    return _said("display_data", _display(data, metadata, display_id), parent)


def update_display_data(
    data: Mapping[str, Any],
    display_id: str,
    *,
    metadata: Mapping[str, Any] | None = None,
    parent: Message | None = None,
) -> Message:
    """What is shown from now on where something of that id was.

    See "Update Display Data" of the Jupyter messaging specification.

    Args:
        data: Its formats, by MIME type.
        display_id: That of the display.
        metadata: Of the formats, by MIME type as well.
        parent: The request that it belongs to, which need not be that of the display.

    Example:
        .. code-block:: python

            area = outputs.OutputArea()
            area.apply(display_data({"text/plain": "0 %"}, display_id="bar"))
            area.apply(update_display_data({"text/plain": "100 %"}, "bar"))
            print(area.text)  # 100 %
    """
    return _said("update_display_data", _display(data, metadata, display_id), parent)


def execute_result(
    data: Mapping[str, Any],
    execution_count: int,
    *,
    metadata: Mapping[str, Any] | None = None,
    parent: Message | None = None,
) -> Message:
    """The value of the last expression of the code.

    See "Execution results" of the Jupyter messaging specification.

    Args:
        data: Its formats, by MIME type; plain text should be among them.
        execution_count: The number of the execution.
        metadata: Of the formats, by MIME type as well.
        parent: The ``execute_request``.

    Example:
        .. code-block:: python

            area = outputs.OutputArea()
            area.apply(execute_result({"text/plain": "42"}, 1))
            print(area.outputs[0]["execution_count"])  # 1
    """
    display = _display(data, metadata, None)
    content: ExecuteResult = {**display, "execution_count": execution_count}
    return _said("execute_result", content, parent)


def _display(
    data: Mapping[str, Any], metadata: Mapping[str, Any] | None, display_id: str | None
) -> DisplayData:
    transient = {} if display_id is None else {"display_id": display_id}
    return {"data": dict(data), "metadata": dict(metadata or {}), "transient": transient}


def error(
    ename: str, evalue: str, traceback: Sequence[str] = (), *, parent: Message | None = None
) -> Message:
    """The exception that the code ended with.

    See "Execution errors" of the Jupyter messaging specification.

    Args:
        ename: Its name.
        evalue: What it says.
        traceback: The lines of its traceback, with colours perhaps.
        parent: The ``execute_request``.

    Example:
        .. code-block:: python

            area = outputs.OutputArea()
            area.apply(error("ValueError", "no"))
            print(area.text)  # ValueError: no
    """
    content: Error = {"ename": ename, "evalue": evalue, "traceback": list(traceback)}
    return _said("error", content, parent)


def clear_output(*, wait: bool = False, parent: Message | None = None) -> Message:
    """Clears the output: now, or (`wait`) when the next one comes.

    See "Clear output" of the Jupyter messaging specification.

    Args:
        wait: Whether what is there stays until something takes its place.
        parent: The request that the output belongs to.

    Example:
        .. code-block:: python

            area = outputs.OutputArea()
            area.apply(stream("1"), clear_output(wait=True), stream("2"))
            print(area.text)  # 2
    """
    content: ClearOutput = {"wait": wait}
    return _said("clear_output", content, parent)


def execute_input(code: str, execution_count: int, *, parent: Message | None = None) -> Message:
    """The code that runs now, for everybody else.

    See "Code inputs" of the Jupyter messaging specification.

    Args:
        code: The code.
        execution_count: The number of the execution.
        parent: The ``execute_request``.

    Example:
        .. code-block:: python

            from enchannel.testing import memory_transport_pair

            transport, end = memory_transport_pair()
            async with open_channels(transport) as client:
                await client.shell.send(execute_request("6 * 7"))
                _, asked = await end.receive("shell")
                end.publish(execute_input(asked.content["code"], 1, parent=asked))
                print((await client.iopub.receive()).content["code"])  # 6 * 7
    """
    content: ExecuteInput = {"code": code, "execution_count": execution_count}
    return _said("execute_input", content, parent)


def status(
    execution_state: Literal["busy", "idle", "starting"], *, parent: Message | None = None
) -> Message:
    """What the kernel does, for the request in the parent header.

    A kernel says ``"busy"`` before anything that it publishes for a request, and ``"idle"`` behind
    all of it. See "Kernel status" of the Jupyter messaging specification.

    Args:
        execution_state: ``"busy"``, ``"idle"``, or once ``"starting"``.
        parent: The request.

    Example:
        .. code-block:: python

            from enchannel.testing import memory_transport_pair

            transport, end = memory_transport_pair()
            async with open_channels(transport) as client:
                end.publish(status("starting"))
                message = await client.iopub.receive()
                print(message.content["execution_state"])  # starting
    """
    content: Status = {"execution_state": execution_state}
    return _said("status", content, parent)


def execute_reply(
    execution_count: int | None,
    *,
    failed: Message | None = None,
    payload: Sequence[Mapping[str, Any]] = (),
    user_expressions: Mapping[str, Mapping[str, Any]] | None = None,
    parent: Message | None = None,
) -> Message:
    """The end of an execution.

    See "Execution results" of the Jupyter messaging specification.

    Args:
        execution_count: Its number; ``None`` of a kernel that does not count.
        failed: The :func:`error` that it ended with.
        payload: What the front end is to do; see "Payloads" of the specification, which discourages
            them.
        user_expressions: The values of the expressions that were asked for, by their names.
        parent: The ``execute_request``.

    Example:
        .. code-block:: python

            from enchannel.testing import memory_transport_pair

            transport, end = memory_transport_pair()
            async with open_channels(transport) as client:
                async with client.execute("1 / 0") as execution:
                    identity, asked = await end.receive("shell")
                    failed = error("ZeroDivisionError", "no", parent=asked)
                    reply = execute_reply(1, failed=failed, parent=asked)
                    end.send("shell", identity, reply)
                    end.publish(status("idle", parent=asked))
                    print((await execution.wait()).content["ename"])  # ZeroDivisionError
    """
    content: ExecuteReply = {"status": "ok", "execution_count": execution_count}
    if failed is None:
        content["payload"] = [dict(each) for each in payload]
        content["user_expressions"] = {k: dict(v) for k, v in (user_expressions or {}).items()}
        return _said("execute_reply", content, parent)
    return _said("execute_reply", {**content, **failed.content, "status": "error"}, parent)
