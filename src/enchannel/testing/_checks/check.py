"""One check: a question to a kernel, with its name and its place in the specification."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import attrs

from .probe import Probe

__all__ = ["Check", "check"]

Function: TypeAlias = "Callable[[Probe], Awaitable[None]]"


@attrs.frozen
class Check:
    """What is asked; run with the probe of a kernel it returns, or raises ``Failed`` or ``NotOffered``."""

    name: str
    title: str
    source: str
    run: Function
    ends_kernel: bool = False
    """Whether the kernel is gone, or another one, behind it."""


def check(source: str, *, ends_kernel: bool = False) -> Callable[[Function], Check]:
    """Makes a check of a function: its name, and the first line of its docstring as what is asked."""

    def make(function: Function) -> Check:
        name = getattr(function, "__name__").replace("_", "-")  # noqa: B009
        title = (function.__doc__ or "").partition("\n")[0].rstrip(".")
        return Check(name, title, source, function, ends_kernel)

    return make
