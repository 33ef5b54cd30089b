"""Values as JSON has them: what it has no word for, and what is too deep for who reads and writes it.

Whatever a kernel has sent may be nested as deep as the interpreter bears. Nothing here takes a turn of Python's for each
level of that.
"""

from __future__ import annotations

import json
from typing import Any

__all__ = ["DEEPEST", "is_flat", "without_odd_numbers"]

DEEPEST = 200
"""Levels of what is put into a notebook; what reads and writes notebooks fails at twice as many."""


def is_flat(value: object, left: int = DEEPEST) -> bool:
    """Whether `value` has no more levels than `left`."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        return True
    return left > 0 and all(is_flat(each, left - 1) for each in value)


def without_odd_numbers(value: object) -> Any:
    """`value` with ``None`` for what is no number in JSON (``NaN``, ``Infinity``)."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)
