"""How figures are shown."""

from __future__ import annotations

import statistics
from collections.abc import Sequence


def spread(values: Sequence[float], unit: str = "x") -> str:
    low, high = min(values), max(values)
    return f"{statistics.median(values):6.2f} {unit:3} ({low:.2f} to {high:.2f})"
