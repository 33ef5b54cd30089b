"""What a scripted cell does, step by step; see :meth:`FakeKernel.script`.

A step is a function of the request, plain or async. It returns ``None``, or the ``ename``, ``evalue`` and
``traceback`` with which the cell fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import anyio

from ._executions import Outcome
from ._fake_kernel import Request, Step
from ._wrong import bundle, check_text

__all__ = [
    "ask",
    "clear_output",
    "display",
    "error",
    "page",
    "pause",
    "result",
    "stream",
    "update_display",
]


END_OF_FILE = "\x04"
"""What a client answers where there is nothing more to read, as ipykernel has it."""


def stream(text: str, name: str = "stdout") -> Step:
    """Writes `text` to ``"stdout"`` or ``"stderr"``."""
    check_text("the text of a stream", text)
    return _publishing("stream", {"name": name, "text": text})


def display(
    data: str | Mapping[str, Any],
    *,
    display_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Step:
    """Displays `data`, a mime bundle or plain text, under `display_id` so that it can be updated."""
    return _publishing("display_data", _display(data, display_id, metadata))


def update_display(
    data: str | Mapping[str, Any],
    display_id: str,
    *,
    metadata: Mapping[str, Any] | None = None,
) -> Step:
    """Replaces what is displayed under `display_id`."""
    return _publishing("update_display_data", _display(data, display_id, metadata))


def result(data: str | Mapping[str, Any]) -> Step:
    """The value of the cell, a mime bundle or plain text; silent code publishes none."""
    shown = bundle(data)

    def step(request: Request) -> None:
        if request.content.get("silent"):
            return
        count = request.kernel.execution_count
        content = {"data": shown, "metadata": {}, "execution_count": count}
        request.publish("execute_result", content)

    return step


def error(ename: str, evalue: str = "", traceback: Sequence[str] = ()) -> Step:
    """Fails the cell; no further step runs."""
    content = {"ename": ename, "evalue": evalue, "traceback": list(traceback)}

    def step(request: Request) -> Mapping[str, Any]:
        request.publish("error", content)
        return content

    return step


def clear_output(*, wait: bool = False) -> Step:
    """Clears the output, with `wait` only when the next one comes."""
    return _publishing("clear_output", {"wait": wait})


def page(data: str | Mapping[str, Any]) -> Step:
    """Has `data`, a mime bundle or plain text, shown in a pager: as a payload of the reply."""
    shown = bundle(data)

    def step(request: Request) -> None:
        request.payload.append({"source": "page", "data": shown, "start": 0})

    return step


def ask(prompt: str = "", *, password: bool = False) -> Step:
    """Asks for input and writes the answer to stdout.

    Fails where the client does not allow it, and where it answers with the end of the file (a ``chr(4)``).
    """
    check_text("the prompt", prompt)

    async def step(request: Request) -> Outcome:
        if not request.content.get("allow_stdin"):
            return error("StdinNotImplementedError", "the client does not support input")(request)  # type: ignore[return-value]
        answer = await request.input(prompt, password=password)
        if answer == END_OF_FILE:
            return error("EOFError")(request)  # type: ignore[return-value]
        stream(answer)(request)
        return None

    return step


def pause(seconds: float) -> Step:
    """Takes `seconds` of the event loop's time; an interrupt ends it."""

    async def step(_: Request) -> None:
        await anyio.sleep(seconds)

    return step


def _publishing(msg_type: str, content: Mapping[str, Any]) -> Step:
    def step(request: Request) -> None:
        request.publish(msg_type, content)

    return step


def _display(
    data: str | Mapping[str, Any], display_id: str | None, metadata: Mapping[str, Any] | None
) -> dict[str, Any]:
    transient = {} if display_id is None else {"display_id": display_id}
    return {"data": bundle(data), "metadata": dict(metadata or {}), "transient": transient}
