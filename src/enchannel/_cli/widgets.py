"""The state of widgets, as a notebook keeps it for who reads it without a kernel.

Source: "Low Level Widget Explanation" of ipywidgets; "application/vnd.jupyter.widget-state+json" of @jupyter-widgets/schema.
"""

from __future__ import annotations

import base64
from typing import Any

from .. import Message
from .json_values import is_flat

__all__ = ["WidgetStates"]

TYPE = "application/vnd.jupyter.widget-state+json"

NAMES = {
    "model_name": "_model_name",
    "model_module": "_model_module",
    "model_module_version": "_model_module_version",
}


class WidgetStates:
    """Those of the widgets that a kernel has made."""

    def __init__(self) -> None:
        self._states: dict[str, dict[str, Any]] = {}
        self._buffers: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}

    def hear(self, message: Message) -> None:
        """Takes note of what `message` says of a widget; most say nothing."""
        if message.msg_type not in ("comm_open", "comm_msg"):
            return
        comm_id, data = message.content.get("comm_id"), message.content.get("data")
        if not isinstance(comm_id, str) or not isinstance(data, dict):
            return
        state = data.get("state")
        if not isinstance(state, dict):
            return
        self._states.setdefault(comm_id, {}).update(state)
        paths = data.get("buffer_paths")
        for path, buffer in zip(
            paths if isinstance(paths, list) else (), message.buffers, strict=False
        ):
            if isinstance(path, list) and is_flat(path, 1):
                text = base64.b64encode(buffer).decode("ascii")
                kept = {"data": text, "path": list(path), "encoding": "base64"}
                self._buffers.setdefault(comm_id, {})[tuple(map(str, path))] = kept

    def to_metadata(self) -> dict[str, Any]:
        """What a notebook's metadata have as ``"widgets"``; empty where there is no widget.

        A widget whose state is too deep for a notebook is left out.
        """
        states = {
            comm_id: self._widget(comm_id, state)
            for comm_id, state in self._states.items()
            if "_model_name" in state and is_flat(state)
        }
        if not states:
            return {}
        return {TYPE: {"state": states, "version_major": 2, "version_minor": 0}}

    def _widget(self, comm_id: str, state: dict[str, Any]) -> dict[str, Any]:
        widget: dict[str, Any] = {name: state.get(key) for name, key in NAMES.items()}
        widget["state"] = state
        buffers = self._buffers.get(comm_id)
        if buffers:
            widget["buffers"] = list(buffers.values())
        return widget
