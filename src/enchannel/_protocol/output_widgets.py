"""The Output widgets of ipywidgets in a kernel: what a front end does for them.

An Output widget captures what is shown while it is entered (``with out:``). It does so by telling its front end, over its
comm, the ``msg_id`` of the request whose outputs it wants from now on; an empty one gives them back. The last widget
that asked for the outputs of a request gets them. The front end tells the kernel what the widget shows.

Source: "Output widgets" and "Low Level Widget Explanation" of ipywidgets; @jupyter-widgets/output, "OutputModel".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .message import Message
from .outputs import OUTPUT_TYPES, Displays, Output, OutputArea

__all__ = ["OutputWidgets"]

TARGET, MODEL = "jupyter.widget", "OutputModel"

CAPTURED = OUTPUT_TYPES | {"clear_output"}
"""What a widget gets of the messages that it wants."""


class OutputWidgets:
    r"""The Output widgets of ipywidgets in one kernel, and what each shows.

    What such a widget has captured (``with out:``) is shown there and not in its cell. A widget is
    known from its ``comm_open`` on. :meth:`enchannel.KernelChannels.open_output_widgets` makes one,
    and tells the kernel what the widgets show; who has the messages alone sets it as the
    ``widgets`` of a :class:`Displays`.

    Args:
        displays: What they share with the outputs of cells.
        on_change: Called by :meth:`tell` for each widget that shows something else, with its comm's
            id and its outputs.

    Example:
        .. code-block:: python

            code = (
                "from ipywidgets import Output\n"
                "out = Output()\n"
                "with out: print('woo')"
            )
            async with ch.open_output_widgets() as widgets:
                await ch.run(code)
                for comm_id, area in widgets.areas.items():
                    print(comm_id, area.text)
    """

    def __init__(
        self, displays: Displays, on_change: Callable[[str, list[Output]], object] | None = None
    ) -> None:
        self._displays = displays
        self._on_change = on_change
        self._areas: dict[str, OutputArea] = {}
        self._captured: dict[str, str] = {}
        self._captors: dict[str, list[str]] = {}
        self._changed: set[str] = set()

    @property
    def areas(self) -> Mapping[str, OutputArea]:
        """What each widget that is open shows, by its comm's id."""
        return self._areas

    def __repr__(self) -> str:
        return f"<OutputWidgets {len(self._areas)} of them>"

    def take(self, message: Message) -> bool:
        """Whether a widget has captured `message`, which is shown there then."""
        if message.msg_type.startswith("comm_"):
            self._hear(message)
            return False
        captors = self._captors.get(message.parent_id)
        if not captors or message.msg_type not in CAPTURED:
            return False
        self._areas[captors[-1]].show(message)
        self._changed.add(captors[-1])
        return True

    def tell(self) -> None:
        """Reports the widgets that show something else by now."""
        changed, self._changed = self._changed, set()
        for comm_id in changed:
            if self._on_change is not None and comm_id in self._areas:
                self._on_change(comm_id, self._areas[comm_id].outputs)

    def _hear(self, message: Message) -> None:
        comm_id, data = message.content.get("comm_id"), message.content.get("data")
        state = data.get("state") if isinstance(data, dict) else None
        if not isinstance(comm_id, str):
            return
        if message.msg_type == "comm_close":
            self._release(comm_id)
            self._areas.pop(comm_id, None)
        elif not isinstance(data, dict) or not isinstance(state, dict):
            return
        elif message.msg_type == "comm_open":
            is_widget = message.content.get("target_name") == TARGET
            if is_widget and state.get("_model_name") == MODEL:
                self._areas[comm_id] = OutputArea(self._displays)
                self._set(comm_id, state)
        # What echoes is what a front end said, not what the kernel wants.
        elif comm_id in self._areas and data.get("method") == "update":
            self._set(comm_id, state)

    def _set(self, comm_id: str, state: Mapping[str, Any]) -> None:
        outputs, msg_id = state.get("outputs"), state.get("msg_id")
        if isinstance(outputs, list):
            self._areas[comm_id].replace(each for each in outputs if isinstance(each, dict))
            self._changed.discard(comm_id)
        if isinstance(msg_id, str):
            self._release(comm_id)
            if msg_id:
                self._captured[comm_id] = msg_id
                self._captors.setdefault(msg_id, []).append(comm_id)

    def _release(self, comm_id: str) -> None:
        msg_id = self._captured.pop(comm_id, None)
        if msg_id is not None:
            captors = self._captors[msg_id]
            captors.remove(comm_id)
            if not captors:
                del self._captors[msg_id]
