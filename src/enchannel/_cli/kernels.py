"""``enchannel kernels``: what can be launched, and what runs.

For a person two tables; in a pipe the same as plain text, as wide as it has to be, since ``grep`` and
``awk`` have no terminal whose width would be known.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from .. import KernelSpec, RunningKernel
from .output import is_terminal, printable

__all__ = ["as_json", "as_tables"]

WIDE = 10_000
"""Columns of something that is no terminal."""

COLOURS = {"idle": "green", "busy": "yellow", "alive": "green", "dead": "red"}


def as_json(installed: Sequence[KernelSpec], running: Sequence[RunningKernel]) -> str:
    """Both as one JSON object."""
    specs = [
        {
            "name": spec.name,
            "display_name": spec.display_name,
            "language": spec.language,
            "resource_dir": str(spec.resource_dir),
        }
        for spec in installed
    ]
    kernels = [
        {
            "kernel_name": kernel.kernel_name,
            "alive": kernel.alive,
            "busy": kernel.busy,
            "language": kernel.language,
            "connection_file": str(kernel.connection_file),
        }
        for kernel in running
    ]
    return json.dumps({"installed": specs, "running": kernels}, indent=2) + "\n"


def as_tables(installed: Sequence[KernelSpec], running: Sequence[RunningKernel]) -> str:
    """Both as tables for whatever standard output is."""
    terminal = is_terminal(sys.stdout)
    console = Console() if terminal else Console(width=WIDE, force_terminal=False, no_color=True)
    with console.capture() as capture:
        console.print(Group(_installed(installed), "", _running(running)))
    lines = capture.get().splitlines()
    return "".join(f"{line.rstrip()}\n" for line in lines)


def _installed(specs: Sequence[KernelSpec]) -> Group:
    if not specs:
        return Group(Text("No kernels are installed. For Python: pip install ipykernel"))
    table = _table("Name", "Display name", "Language", "Directory")
    for spec in specs:
        _add(table, spec.name, spec.display_name, spec.language, spec.resource_dir)
    return Group(_heading("Installed kernels"), table)


def _running(kernels: Sequence[RunningKernel]) -> Group:
    if not kernels:
        return Group(Text("No kernels are running."))
    table = _table("State", "Kernel", "Language", "Connection file")
    for kernel in kernels:
        state = _state(kernel)
        cell = Text(state, style=COLOURS[state])
        _add(table, cell, kernel.kernel_name, kernel.language, kernel.connection_file)
    return Group(_heading("Running kernels"), table)


def _state(kernel: RunningKernel) -> str:
    if not kernel.alive:
        return "dead"
    return {None: "alive", True: "busy", False: "idle"}[kernel.busy]


def _heading(text: str) -> Text:
    return Text(text, style="bold")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        # A path that is cut is no path.
        table.add_column(column, overflow="fold")
    return table


def _add(table: Table, *cells: str | Path | Text) -> None:
    # As Text: what kernels are called is no markup.
    table.add_row(*(each if isinstance(each, Text) else _cell(str(each)) for each in cells))


def _cell(text: str) -> Text:
    return Text(printable(text) or "-")
