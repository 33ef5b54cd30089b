"""What a fake kernel answers where the test has said nothing else: the contents of its replies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["answer"]

_INFO: Mapping[str, Any] = {
    "protocol_version": "5.4",
    "implementation": "fake",
    "implementation_version": "1.0",
    "language_info": {
        "name": "fake",
        "version": "1.0",
        "mimetype": "text/plain",
        "file_extension": ".txt",
    },
    "banner": "A fake kernel",
    "help_links": [],
    "supported_features": [],
}


def answer(msg_type: str, content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The reply to a request of `msg_type`, ``None`` where it does not know of any.

    Args:
        msg_type: The type.
        content: What the request says.
    """
    cursor = content.get("cursor_pos", 0)
    answers: Mapping[str, Mapping[str, Any]] = {
        "kernel_info_request": _INFO,
        "shutdown_request": {"restart": bool(content.get("restart"))},
        "complete_request": {
            "matches": [],
            "cursor_start": cursor,
            "cursor_end": cursor,
            "metadata": {},
        },
        "inspect_request": {"found": False, "data": {}, "metadata": {}},
        "history_request": {"history": []},
        "is_complete_request": {"status": "complete"},
        "comm_info_request": {"comms": {}},
    }
    return answers.get(msg_type)
