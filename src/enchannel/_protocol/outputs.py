"""The outputs of an execution, as a notebook shows them.

* Text of one stream that follows text of the same stream is appended to it.
* ``clear_output`` clears at once, or (``wait``) when the next output comes.
* ``update_display_data`` changes every display of that id, whichever execution of these channels showed it;
  one that was never shown is not shown by its update.

The shape is nbformat's: ``stream``, ``display_data``, ``execute_result`` and ``error``. Fields that a kernel
leaves out, or sends as ``null``, are empty.

Source: "Messages on the IOPub channel" of the Jupyter messaging specification; "Code cell outputs" of nbformat.
"""

from __future__ import annotations

import weakref
from typing import Any

from .errors import text_of
from .message import Message

__all__ = ["Displays", "OutputList", "output_of"]

Output = dict[str, Any]


def output_of(message: Message) -> Output | None:
    """The output, in nbformat's shape, that `message` is; none where it is no output."""
    content, kind = message.content, message.msg_type
    if kind == "stream":
        name, text = text_of(content.get("name")) or "stdout", text_of(content.get("text"))
        return {"output_type": kind, "name": name, "text": text}
    if kind == "error":
        traceback = content.get("traceback") or []
        return {
            "output_type": kind,
            "ename": content.get("ename") or "",
            "evalue": content.get("evalue") or "",
            "traceback": traceback if isinstance(traceback, list) else [text_of(traceback)],
        }
    if kind not in ("display_data", "execute_result"):
        return None
    output: Output = {"output_type": kind}
    _show(output, content)
    if kind == "execute_result":
        output["execution_count"] = content.get("execution_count")
    return output


def display_id_of(message: Message) -> str | None:
    """The id under which `message` may be, or is, updated."""
    transient = message.content.get("transient")
    display_id = transient.get("display_id") if isinstance(transient, dict) else None
    return display_id if isinstance(display_id, str) else None


def _show(output: Output, content: dict[str, Any]) -> None:
    for name in ("data", "metadata"):
        value = content.get(name)
        output[name] = dict(value) if isinstance(value, dict) else {}


class Displays:
    """Who shows the display of an id; shared by the executions of one kernel."""

    def __init__(self) -> None:
        self._shown: weakref.WeakSet[OutputList] = weakref.WeakSet()

    def add(self, outputs: OutputList) -> None:
        self._shown.add(outputs)

    def update(self, display_id: str, content: dict[str, Any]) -> None:
        for outputs in tuple(self._shown):
            for output in outputs.displays.get(display_id, ()):
                _show(output, content)


class OutputList:
    """Applies messages to a list of outputs."""

    def __init__(self, displays: Displays) -> None:
        self._outputs: list[Output] = []
        # The text at the end, in the pieces that came since somebody looked: adding line to line would
        # copy them all each time.
        self._stream: Output | None = None
        self._text: list[str] = []
        self.displays: dict[str, list[Output]] = {}
        self._registry = displays
        self._clear_at_next = False

    @property
    def outputs(self) -> list[Output]:
        """Always the same list."""
        self._join()
        return self._outputs

    def apply(self, message: Message) -> None:
        kind = message.msg_type
        if kind == "clear_output":
            if message.content.get("wait"):
                self._clear_at_next = True
            else:
                self._clear()
        elif kind == "update_display_data":
            display_id = display_id_of(message)
            if display_id is not None:
                self._registry.update(display_id, message.content)
        else:
            output = output_of(message)
            if output is not None:
                self._add(output, display_id_of(message))

    def _add(self, output: Output, display_id: str | None) -> None:
        if self._clear_at_next:
            self._clear()
        is_stream = output["output_type"] == "stream"
        if is_stream and self._stream is not None and output["name"] == self._stream.get("name"):
            self._text.append(output["text"])
            return
        self._join()
        self._stream = output if is_stream else None
        self._outputs.append(output)
        if display_id is not None:
            self.displays.setdefault(display_id, []).append(output)
            self._registry.add(self)

    def _clear(self) -> None:
        self._clear_at_next = False
        self._stream = None
        self._text.clear()
        self._outputs.clear()
        self.displays.clear()

    def _join(self) -> None:
        if self._stream is not None and self._text:
            self._stream["text"] = "".join([str(self._stream.get("text", "")), *self._text])
            self._text.clear()
