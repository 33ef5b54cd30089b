"""What a scripted cell does, step by step; see :meth:`FakeKernel.script`.

A step is a function of the request, plain or async. It returns ``None``, or the ``ename``,
``evalue`` and ``traceback`` with which the cell fails.
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
    r"""Writes `text` to standard output or standard error.

    See "Streams (stdout, stderr, etc)" of the Jupyter messaging specification.

    Args:
        text: What is written, in one message.
        name: ``"stdout"`` or ``"stderr"``; another name is sent as it is.

    Raises:
        LocalProtocolError: `text` is no ``str``.

    Example:
        .. code-block:: python

            async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
                kernel.script("warn()", stream("woo\n"), stream("oh\n", "stderr"))
                done = await ch.run("warn()")
                print(len(done.outputs))  # 2
    """
    check_text("the text of a stream", text)
    return _publishing("stream", {"name": name, "text": text})


def display(
    data: str | Mapping[str, Any],
    *,
    display_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Step:
    """Displays something.

    See "Display Data" of the Jupyter messaging specification.

    Args:
        data: Data by MIME type, or plain text.
        display_id: What :func:`update_display` may replace it by.
        metadata: Of the data, by MIME type as well.

    Raises:
        LocalProtocolError: `data` is neither.

    Example:
        .. code-block:: python

            async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
                shown = {"text/plain": "a b", "text/html": "<b>a b</b>"}
                kernel.script("show()", display(shown))
                done = await ch.run("show()")
                print(done.outputs[0]["data"]["text/html"])  # <b>a b</b>
    """
    return _publishing("display_data", _display(data, display_id, metadata))


def update_display(
    data: str | Mapping[str, Any],
    display_id: str,
    *,
    metadata: Mapping[str, Any] | None = None,
) -> Step:
    """Replaces what is displayed under an id, whichever cell displayed it.

    See "Update Display Data" of the Jupyter messaging specification.

    Args:
        data: Data by MIME type, or plain text.
        display_id: That of the :func:`display`.
        metadata: Of the data, by MIME type as well.

    Raises:
        LocalProtocolError: `data` is neither.

    Example:
        .. code-block:: python

            async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
                kernel.script("first()", display("0 %", display_id="bar"))
                kernel.script("second()", update_display("100 %", "bar"))
                first = await ch.run("first()")
                await ch.run("second()")
                print(first.text)  # 100 %
    """
    return _publishing("update_display_data", _display(data, display_id, metadata))


def result(data: str | Mapping[str, Any]) -> Step:
    """The value of the cell; silent code publishes none.

    See "Execution results" of the Jupyter messaging specification.

    Args:
        data: Data by MIME type, or plain text.

    Raises:
        LocalProtocolError: `data` is neither.

    Example:
        .. code-block:: python

            async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
                kernel.script("6 * 7", result("42"))
                done = await ch.run("6 * 7")
                print(done.outputs[0]["output_type"])  # execute_result
    """
    shown = bundle(data)

    def step(request: Request) -> None:
        if request.content.get("silent"):
            return
        count = request.kernel.execution_count
        content = {"data": shown, "metadata": {}, "execution_count": count}
        request.publish("execute_result", content)

    return step


def error(ename: str, evalue: str = "", traceback: Sequence[str] = ()) -> Step:
    """Fails the cell; no further step runs.

    The error is published, and is in the reply. Executions that wait behind the cell are aborted,
    but where its request says ``stop_on_error=False``. See "Execution errors" of the Jupyter
    messaging specification.

    Args:
        ename: The name of the exception.
        evalue: What it says.
        traceback: Its lines, by default none.

    Example:
        .. code-block:: python

            async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
                kernel.script("1 / 0", error("ZeroDivisionError", "no"))
                try:
                    await ch.run("1 / 0", check=True)
                except ReplyError as failed:
                    print(failed.ename)  # ZeroDivisionError
    """
    content = {"ename": ename, "evalue": evalue, "traceback": list(traceback)}

    def step(request: Request) -> Mapping[str, Any]:
        request.publish("error", content)
        return content

    return step


def clear_output(*, wait: bool = False) -> Step:
    """Clears the output.

    See "Clear output" of the Jupyter messaging specification.

    Args:
        wait: Whether it is cleared only when the next output comes.

    Example:
        .. code-block:: python

            async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
                steps = stream("1"), clear_output(wait=True), stream("2")
                kernel.script("count()", *steps)
                print((await ch.run("count()")).text)  # 2
    """
    return _publishing("clear_output", {"wait": wait})


def page(data: str | Mapping[str, Any]) -> Step:
    """Has something shown in a pager: as a payload of the reply.

    See "Payloads (DEPRECATED)" of the Jupyter messaging specification.

    Args:
        data: Data by MIME type, or plain text.

    Raises:
        LocalProtocolError: `data` is neither.

    Example:
        .. code-block:: python

            async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
                kernel.script("zip?", page("zip(*iterables)"))
                done = await ch.run("zip?")
                (payload,) = done.reply.content["payload"]
                print(payload["source"])  # page
    """
    shown = bundle(data)

    def step(request: Request) -> None:
        request.payload.append({"source": "page", "data": shown, "start": 0})

    return step


def ask(prompt: str = "", *, password: bool = False) -> Step:
    """Asks for input, waits for it, and writes the answer to stdout.

    It fails where the client does not allow it, and where it answers with the end of the file, a
    ``chr(4)``. See "Messages on the stdin (ROUTER/DEALER) channel" of the Jupyter messaging
    specification.

    Args:
        prompt: What is to be shown.
        password: Whether what is typed is not.

    Raises:
        LocalProtocolError: `prompt` is no ``str``.

    Example:
        .. code-block:: python

            async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
                kernel.script("print(input())", ask("name? "))

                def answer(prompt: str, password: bool) -> str:
                    return "ada"

                done = await ch.run("print(input())", on_input=answer)
                print(done.text)  # ada
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
    """Takes some time, by the event loop's clock: Trio's ``autojump_clock`` jumps over it.

    An interrupt ends it, and the cell with a ``KeyboardInterrupt``.

    Args:
        seconds: How long.

    Example:
        .. code-block:: python

            async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
                kernel.script("long()", pause(3600))
                with anyio.move_on_after(0.1):
                    await ch.run("long()", interrupt_on_cancel=True)
                entry = await kernel.transcript.wait_for("< iopub error")
                print(entry.message.content["ename"])  # KeyboardInterrupt
    """

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
