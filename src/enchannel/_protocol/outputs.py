"""The outputs of an execution, as a notebook shows them.

* Text of one stream that follows text of the same stream is appended to it.
* ``clear_output`` clears at once, or (``wait``) when the next output comes.
* ``update_display_data`` changes every display of that id, whichever execution of these channels showed it, for as long
  as somebody holds its outputs; one that was never shown is not shown by its update.

The shape is nbformat's: ``stream``, ``display_data``, ``execute_result`` and ``error``. Fields that a kernel
leaves out, or sends as ``null``, are empty.

Source: "Messages on the IOPub channel" of the Jupyter messaging specification; "Code cell outputs" of nbformat.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .errors import text_of
from .message import Message

__all__ = ["Displays", "OutputList", "bundle_text", "output_of", "text_of_outputs"]

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


def bundle_text(data: Mapping[str, Any]) -> str:
    """What of a MIME bundle a person can read best; some kernels send no plain text."""
    for mime_type in ("text/plain", "text/markdown", "text/latex", "text/html"):
        if mime_type in data:
            value = data[mime_type]
            # nbformat allows a list of lines.
            return "".join(map(text_of, value if isinstance(value, list) else [value]))
    return f"<{', '.join(data)}>"


def text_of_outputs(outputs: Iterable[Output]) -> str:
    """What a terminal would show of `outputs`, with the colours that are in them."""
    return "".join(map(_text_of_output, outputs))


def _text_of_output(output: Output) -> str:
    if output["output_type"] == "stream":
        return text_of(output["text"])
    if output["output_type"] == "error":
        lines = output["traceback"] or [f"{text_of(output['ename'])}: {text_of(output['evalue'])}"]
        return "".join(f"{text_of(line)}\n" for line in lines)
    return f"{bundle_text(output['data'])}\n" if output["data"] else ""


def display_id_of(message: Message) -> str | None:
    """The id under which `message` may be, or is, updated."""
    transient = message.content.get("transient")
    display_id = transient.get("display_id") if isinstance(transient, dict) else None
    return display_id if isinstance(display_id, str) else None


def _show(output: Output, content: dict[str, Any]) -> None:
    for name in ("data", "metadata"):
        value = content.get(name)
        output[name] = dict(value) if isinstance(value, dict) else {}


class Outputs(list[Output]):
    """Outputs as their user holds them.

    Attributes:
        displays: Those that may be updated, by display id.
    """

    def __init__(self) -> None:
        super().__init__()
        self.displays: dict[str, list[Output]] = {}


class Displays:
    """Who shows the display of an id; shared by the executions of one kernel.

    Args:
        on_first: Called when there is the first.
    """

    def __init__(self, on_first: Callable[[], object] = lambda: None) -> None:
        # By their ids, for lists have no hash.
        self._shown: weakref.WeakValueDictionary[int, Outputs] = weakref.WeakValueDictionary()
        self._on_first = on_first

    def add(self, outputs: Outputs) -> None:
        """It shows one."""
        if not self._shown:
            self._on_first()
        self._shown[id(outputs)] = outputs

    def update(self, messages: Iterable[Message]) -> None:
        """Applies what of `messages` is an update."""
        for message in messages:
            if message.msg_type != "update_display_data":
                continue
            display_id = display_id_of(message)
            for outputs in self._shown.values():
                for output in outputs.displays.get(display_id or "", ()):
                    _show(output, message.content)


class OutputList:
    """Applies messages to a list of outputs."""

    def __init__(self, displays: Displays) -> None:
        self._outputs = Outputs()
        # The text at the end, in the pieces that came since somebody looked: adding line to line would
        # copy them all each time.
        self._stream: Output | None = None
        self._text: list[str] = []
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
            self._registry.update((message,))
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
            self._outputs.displays.setdefault(display_id, []).append(output)
            self._registry.add(self._outputs)

    def _clear(self) -> None:
        self._clear_at_next = False
        self._stream = None
        self._text.clear()
        self._outputs.clear()
        self._outputs.displays.clear()

    def _join(self) -> None:
        if self._stream is None or not self._text:
            return
        text = self._stream.get("text")
        text = text if isinstance(text, str) else ""
        # CPython grows a text that nobody else holds in its place: who looks at each piece would copy all of it each time.
        self._stream["text"] = ""
        text += "".join(self._text)
        self._stream["text"] = text
        self._text.clear()
