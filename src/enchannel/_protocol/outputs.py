"""The outputs of an execution, as a notebook shows them.

* Text of one stream that follows text of the same stream is appended to it. Half a surrogate pair at its end and the
  other half that follows become one character, for kernels cut their text anywhere.
* ``clear_output`` clears at once, or (``wait``) when the next output comes.
* ``update_display_data`` changes every display of that id, in whichever list of the same :class:`Displays`, for as long
  as somebody holds that list; one that was never shown is not shown by its update. What is displayed again under its
  id changes those that are there as well: they have the same ``data`` and ``metadata``, which an update changes in place.
* What an Output widget has captured is its own, where somebody looks after these widgets
  (:mod:`~enchannel._protocol.output_widgets`).
* What is shared (displays and widgets) is changed once by each message, in the order in which they come: of a connection
  by its readers alone (:class:`HeardDisplays`), for areas may be given a message late, or twice; otherwise by the areas.

The shape is nbformat's: ``stream``, ``display_data``, ``execute_result`` and ``error``. Fields that a kernel
leaves out, or sends as ``null``, are empty. Carriage returns and the like stay as they are.

Source: "Messages on the IOPub channel" of the Jupyter messaging specification; "Code cell outputs" of nbformat.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

from .errors import LocalProtocolError, text_of
from .message import Message
from .output_text import text_of_outputs

__all__ = ["Displays", "HeardDisplays", "Output", "OutputArea", "Widgets", "output_of"]

Output: TypeAlias = "dict[str, Any]"
"""One output in nbformat's shape, whose ``output_type`` is ``"stream"``, ``"display_data"``,
``"execute_result"`` or ``"error"``. See "Code cell outputs" of nbformat.

Example:
    .. code-block:: python

        def is_error(output: Output) -> bool:
            return output["output_type"] == "error"

        done = await ch.run("1 / 0")
        print(any(map(is_error, done.outputs)))  # True
"""


OUTPUT_TYPES = frozenset(("stream", "display_data", "execute_result", "error"))
"""What an output may be, as nbformat has it."""

SHOWN = ("data", "metadata")
"""What of an output an update changes."""

DISPLAYED = frozenset(("display_data", "execute_result", "update_display_data"))
"""What changes the displays that have its id."""


def output_of(message: Message) -> Output | None:
    """The output, in nbformat's shape, that `message` is; ``None`` where it is no output.

    What a kernel leaves out is empty, and so is what is of the wrong type; a number where text
    belongs is its digits.

    Args:
        message: What came on iopub.

    Example:
        .. code-block:: python

            async with ch.execute("print('woo'); 6 * 7") as execution:
                async for msg in execution:
                    output = output_of(msg)
                    if output is not None:
                        print(output["output_type"])  # execute_result
    """
    content, kind = message.content, message.msg_type
    if kind == "stream":
        # Before version 5 of the protocol its text was "data".
        text = text_of(content.get("text", content.get("data")))
        return {"output_type": kind, "name": text_of(content.get("name")) or "stdout", "text": text}
    if kind == "error":
        traceback = content.get("traceback") or []
        lines = traceback if isinstance(traceback, list) else [traceback]
        return {
            "output_type": kind,
            "ename": text_of(content.get("ename")),
            "evalue": text_of(content.get("evalue")),
            "traceback": [text_of(line) for line in lines],
        }
    if kind not in ("display_data", "execute_result"):
        return None
    output: Output = {"output_type": kind}
    _show(output, content)
    if kind == "execute_result":
        count = content.get("execution_count")
        output["execution_count"] = count if type(count) is int else None
    return output


def display_id_of(message: Message) -> str | None:
    """The id under which `message` may be, or is, updated."""
    transient = message.content.get("transient")
    display_id = transient.get("display_id") if isinstance(transient, dict) else None
    return display_id if isinstance(display_id, str) else None


def _show(output: Output, content: dict[str, Any]) -> None:
    for name in SHOWN:
        value = content.get(name)
        output[name] = dict(value) if isinstance(value, dict) else {}


class _Display:
    """What is displayed under an id: all who show it have this very data, and an update is one step."""

    def __init__(self, output: Output) -> None:
        self._parts: dict[str, dict[str, Any]] = {name: output[name] for name in SHOWN}

    def change(self, content: dict[str, Any]) -> None:
        """They show this instead."""
        new: Output = {}
        _show(new, content)
        for name, part in self._parts.items():
            part.clear()
            part.update(new[name])

    def show(self, output: Output) -> None:
        """`output` shows it as well."""
        output.update(self._parts)

    def leave(self, output: Output) -> None:
        """`output` stays as it is from now on."""
        for name, part in self._parts.items():
            # Unless its user has put something else there.
            if output.get(name) is part:
                output[name] = dict(part)


class _Outputs(list[Output]):
    """Outputs as their user holds them.

    Attributes:
        displays: Those that may be updated, by display id.
    """

    def __init__(self) -> None:
        super().__init__()
        self.displays: dict[str, list[Output]] = {}
        # For as long as they are held, for nobody else holds those.
        self._shown: dict[str, _Display] = {}

    def show(self, output: Output, display_id: str, display: _Display) -> None:
        """`output`, which is one of them, shows what is displayed under this id."""
        display.show(output)
        self._shown[display_id] = display
        self.displays.setdefault(display_id, []).append(output)

    def forget(self) -> None:
        """There are none any more."""
        for display_id, display in self._shown.items():
            for output in self.displays[display_id]:
                display.leave(output)
        self._shown.clear()
        self.displays.clear()
        self.clear()


class Widgets(Protocol):
    """Who may have captured an output."""

    def take(self, message: Message) -> bool:
        """Whether `message` is none of the cell's own any more."""
        ...


class Displays:
    """What the outputs of one kernel share: who shows the display of an id.

    The ``update_display_data`` of one cell changes what another one shows. An :class:`OutputArea`
    is forgotten here when nobody holds its outputs any more. All that is shown under one id has the
    same ``data`` and ``metadata``; copy them to keep them as they are.
    :attr:`enchannel.KernelChannels.displays` is that of open channels: there everything that arrives
    is heard, and an :class:`OutputArea` changes nothing of what others show.

    See "Update Display Data" of the Jupyter messaging specification.

    Args:
        on_first: Called when there is the first display that may be updated.

    Attributes:
        widgets: Who may have captured an output, such as :class:`OutputWidgets`; by default nobody.

    Example:
        .. code-block:: python

            displays = Displays()
            first, second = OutputArea(displays), OutputArea(displays)
            shown = {"text/plain": "0 %"}
            first.apply(messages.display_data(shown, display_id="bar"))
            shown = {"text/plain": "100 %"}
            second.apply(messages.update_display_data(shown, "bar"))
            print(first.text)  # 100 %
    """

    def __init__(self, on_first: Callable[[], object] = lambda: None) -> None:
        self.widgets: Widgets | None = None
        self._shown: weakref.WeakValueDictionary[str, _Display] = weakref.WeakValueDictionary()
        self._on_first = on_first

    def of(self, output: Output, display_id: str) -> _Display:
        """What is displayed under this id, which is `output` where nothing was."""
        if not self._shown:
            self._on_first()
        return self._shown.setdefault(display_id, _Display(output))

    def take(self, message: Message) -> bool:
        """Whether a widget has captured `message`, which an area is given."""
        return self.widgets is not None and self.widgets.take(message)

    def update(self, message: Message, display_id: str) -> None:
        """Applies `message`, which has this id and an area is given, to what is shown under it."""
        if message.msg_type in DISPLAYED:
            display = self._shown.get(display_id)
            if display is not None:
                display.change(message.content)

    def overhear(self, messages: Iterable[Message]) -> None:
        """Applies what no :class:`OutputArea` is given: updates, and what widgets capture."""
        for message in messages:
            if not self.take(message):
                display_id = display_id_of(message)
                if display_id is not None:
                    self.update(message, display_id)


class HeardDisplays(Displays):
    """Those of a connection: its readers hear everything, once and in order, and whoever has an area only asks.

    Whatever is displayed is known in its newest state for as long as somebody holds the message that displays it, or its
    outputs: who applies the message late shows that. It is not bounded otherwise.
    """

    def __init__(self) -> None:
        super().__init__()
        self._displayed = _Noted()
        self._captured = _Noted()

    def hear(self, messages: Sequence[Message]) -> None:
        """Does what `messages`, which have arrived, say of what is shared; before any area is given them."""
        widgets = self.widgets
        # In C: most batches display nothing.
        kinds = [message.header.get("msg_type") for message in messages]
        if widgets is None and not any(kind in kinds for kind in DISPLAYED):
            return
        for message in messages:
            if message.msg_type in DISPLAYED:
                self._hear_display(message)
            if widgets is not None and widgets.take(message):
                self._captured.add(message)

    def _hear_display(self, message: Message) -> None:
        display_id = display_id_of(message)
        if display_id is None:
            return
        super().update(message, display_id)
        output = output_of(message)
        if output is not None:
            self._displayed.add(message, self.of(output, display_id))

    def take(self, message: Message) -> bool:
        """Whether a widget had captured `message` when it arrived."""
        return message in self._captured

    def update(self, message: Message, display_id: str) -> None:
        """Nothing: what has arrived was heard."""

    def overhear(self, messages: Iterable[Message]) -> None:
        """Nothing: what has arrived was heard."""


class _Noted:
    """Messages of which something is noted, for as long as somebody holds them.

    By their identity: kernels repeat ids, and a comparison goes as deep as what is compared.
    """

    def __init__(self) -> None:
        self._kept: dict[int, tuple[weakref.ref[Message], object]] = {}

    def __contains__(self, message: Message) -> bool:
        return id(message) in self._kept

    def add(self, message: Message, kept: object = None) -> None:
        """Notes `message`; what is to be `kept` is held as long."""
        key = id(message)
        self._kept[key] = weakref.ref(message, partial(self._kept.pop, key)), kept


class OutputArea:
    r"""The outputs of a cell: applies messages to a list of them.

    Text is joined to text of the same stream, ``clear_output`` clears, and updates change what is
    shown already, as in a notebook.

    Args:
        displays: What it shares with the other outputs of its kernel, so that a display here is
            updated by a message that is applied there, or that arrives where it is that of open
            channels; by default nothing.

    Raises:
        LocalProtocolError: `displays` is no :class:`Displays`.

    Example:
        .. code-block:: python

            area = OutputArea(ch.displays)
            async with ch.execute("print('woo')\n6 * 7") as execution:
                async for msg in execution:
                    area.apply(msg)
            print(len(area.outputs))  # 2
    """

    def __init__(self, displays: Displays | None = None) -> None:
        self._outputs = _Outputs()
        # The text at the end, in the pieces that came together: adding line to line would copy them all each time
        # where somebody holds that text.
        self._stream: Output | None = None
        self._text: list[str] = []
        if displays is not None and not isinstance(displays, Displays):
            raise LocalProtocolError(
                f"what outputs share is a Displays, and no {type(displays).__name__}"
            )
        self._displays = displays if displays is not None else Displays()
        self._clear_at_next = False

    @property
    def outputs(self) -> list[Output]:
        """The outputs so far in nbformat's shape; always the same list."""
        return self._outputs

    @property
    def text(self) -> str:
        """What a terminal would show of them, with the colours that are in them."""
        return text_of_outputs(self.outputs)

    @property
    def displays(self) -> Mapping[str, list[Output]]:
        """Those of the outputs that may be updated, by their display ids."""
        return self._outputs.displays

    def apply(self, *messages: Message) -> None:
        """Does what `messages` say of the outputs; most say nothing of them.

        What a widget has captured is shown there, and not here.

        Raises:
            LocalProtocolError: One of them is no :class:`~enchannel.Message`.
        """
        for message in messages:
            if not isinstance(message, Message):
                raise LocalProtocolError(f"a Message is applied, and no {type(message).__name__}")
            if not self._displays.take(message):
                self._show(message)
        self._join()

    def show(self, message: Message) -> None:
        """Like :meth:`apply`, whatever a widget has captured."""
        self._show(message)
        self._join()

    def _show(self, message: Message) -> None:
        if message.msg_type == "clear_output":
            if message.content.get("wait"):
                self._clear_at_next = True
            else:
                self._clear()
            return
        display_id = display_id_of(message)
        if display_id is not None:
            self._displays.update(message, display_id)
        output = output_of(message)
        if output is not None:
            self._add(output, display_id)

    def replace(self, outputs: Iterable[Output]) -> None:
        """Shows these instead, which are in nbformat's shape."""
        self._clear()
        self._outputs += [dict(output) for output in outputs]
        if self._outputs and self._outputs[-1].get("output_type") == "stream":
            self._stream = self._outputs[-1]

    def _add(self, output: Output, display_id: str | None) -> None:
        if self._clear_at_next:
            self._clear()
        is_stream = output["output_type"] == "stream"
        if is_stream and self._stream is not None and output["name"] == self._stream.get("name"):
            self._append(output["text"])
            return
        self._join()
        self._stream = output if is_stream else None
        self._outputs.append(output)
        if display_id is not None and output["output_type"] in DISPLAYED:
            self._outputs.show(output, display_id, self._displays.of(output, display_id))

    def _append(self, text: str) -> None:
        if "\udc00" <= text[:1] <= "\udfff":
            self._join()
            assert self._stream is not None
            before = text_of(self._stream.get("text"))
            if "\ud800" <= before[-1:] <= "\udbff":
                self._stream["text"] = before[:-1]
                text = _whole(before[-1] + text[0]) + text[1:]
        self._text.append(text)

    def _clear(self) -> None:
        self._clear_at_next = False
        self._stream = None
        self._text.clear()
        self._outputs.forget()

    def _join(self) -> None:
        if self._stream is None or not self._text:
            return
        text = self._stream.get("text")
        text = text if isinstance(text, str) else ""
        # CPython grows a text that nobody else holds in its place; adding to the one in the dict copies all of it.
        self._stream["text"] = ""
        text += "".join(self._text)
        self._stream["text"] = text
        self._text.clear()


def _whole(pair: str) -> str:
    return pair.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
