"""``enchannel kernels``: what can be launched, and what runs.

For a person two tables; in a pipe the same as plain text. Both are as wide as they have to be: ``grep`` and ``awk`` have no
terminal whose width would be known, and what a terminal folds can be copied whole.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from .. import (
    KernelModel,
    KernelSpec,
    RunningKernel,
    ServerError,
    ServerKernelSpec,
    list_running_kernels,
    open_server,
)
from .command import Failure
from .existing import files_left_behind
from .input import Lines
from .output import is_dumb, printable
from .writer import Writer, is_terminal

__all__ = ["Cleaning", "Listing", "as_json", "as_tables"]

WIDE = 10_000
"""Columns that a table may have."""

FORBIDDEN = 403
"""What a server says that does not list its kernels."""

COLOURS = {"idle": "green", "busy": "yellow", "alive": "green", "dead": "red", "unknown": ""}


class Listing:
    """One run of the command; called, it returns the exit status.

    Args:
        server: Whose kernels are meant; this machine's where it is ``None``.
        alive: Whether kernels that left nothing but their connection files are left out.
        as_json: Whether to print one JSON object.
    """

    def __init__(self, server: str | None, *, alive: bool, as_json: bool) -> None:
        self._server = server
        self._alive = alive
        self._as_json = as_json

    async def __call__(self) -> int:
        await Writer(sys.stdout).write(await self._shown())
        return 0

    async def _shown(self) -> str:
        if self._server is not None:
            there = await ask_server(self._server)
            return server_as_json(*there) if self._as_json else server_as_tables(*there)
        running = await list_running_kernels()
        if self._alive:
            running = [kernel for kernel in running if kernel.alive]
        show = as_json if self._as_json else as_tables
        return show(KernelSpec.installed(), running)


class Cleaning:
    """Removes the connection files of kernels that are not there any more; called, it returns the exit status.

    Args:
        sure: Whether it is done without asking.
    """

    def __init__(self, *, sure: bool) -> None:
        self._sure = sure

    async def __call__(self) -> int:
        stdout = Writer(sys.stdout)
        dead = await files_left_behind()
        if not dead:
            await stdout.write("There is nothing to remove.\n")
            return 0
        await stdout.write("".join(f"{printable(str(path))}\n" for path in dead))
        if not self._sure and not await self._is_wanted(len(dead), stdout):
            return 1
        removed = 0
        if not self._sure:
            # One may have been started meanwhile.
            gone = await files_left_behind()
            dead = [path for path in dead if path in gone]
        for path in dead:
            # Somebody else may have been faster.
            with suppress(FileNotFoundError):
                path.unlink()
                removed += 1
        await stdout.write(f"{removed} removed.\n")
        return 0

    async def _is_wanted(self, count: int, stdout: Writer) -> bool:
        if sys.stdin is None or not sys.stdin.isatty():
            raise Failure("nobody is there to be asked; --yes removes them without asking")
        these = "this file" if count == 1 else f"these {count} files"
        await stdout.write(f"No kernel is there. Remove {these}? [y/N] ")
        answer = await Lines(sys.stdin.fileno(), sys.stdin.encoding).receive()
        if answer is None:
            await stdout.write("\n")
        return (answer or "").strip().lower() in ("y", "yes")


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
            "gone": kernel.gone,
            "busy": kernel.busy,
            "language": kernel.language,
            "connection_file": str(kernel.connection_file),
        }
        for kernel in running
    ]
    return json.dumps({"installed": specs, "running": kernels}, indent=2) + "\n"


def as_tables(installed: Sequence[KernelSpec], running: Sequence[RunningKernel]) -> str:
    """Both as tables for whatever standard output is."""
    return _printed(Group(_installed(installed), "", _running(running)))


async def ask_server(url: str) -> tuple[Sequence[ServerKernelSpec], Sequence[KernelModel] | None]:
    """What a server has, and what it runs, where it says so: a gateway does not, unless it is configured to."""
    async with open_server(url) as server:
        specs = await server.kernelspecs()
        try:
            return specs, await server.list_kernels()
        except ServerError as error:
            if error.status != FORBIDDEN:
                raise
            return specs, None


def server_as_json(specs: Sequence[ServerKernelSpec], running: Sequence[KernelModel] | None) -> str:
    """Both as one JSON object; what runs is null where the server does not say."""
    installed = [
        {"name": spec.name, "display_name": spec.display_name, "language": spec.language}
        for spec in specs
    ]
    kernels = None if running is None else [_model_as_json(model) for model in running]
    return json.dumps({"installed": installed, "running": kernels}, indent=2) + "\n"


def _model_as_json(model: KernelModel) -> dict[str, object]:
    last = model.last_activity
    return {
        "id": model.id,
        "kernel_name": model.name,
        "execution_state": model.execution_state,
        "last_activity": last.isoformat() if last is not None else None,
        "connections": model.connections,
    }


def server_as_tables(
    specs: Sequence[ServerKernelSpec], running: Sequence[KernelModel] | None
) -> str:
    """Both as tables for whatever standard output is."""
    installed = _table("Name", "Display name", "Language")
    for spec in specs:
        _add(installed, spec.name, spec.display_name, spec.language)
    parts: list[Group | Text] = [Group(_heading("Kernels of the server"), installed), Text()]
    if running is None:
        parts.append(Text("The server does not say what runs."))
    elif not running:
        parts.append(Text("No kernels are running."))
    else:
        table = _table("State", "Kernel", "Id", "Last activity")
        for model in running:
            cell = Text(model.execution_state or "-", style=COLOURS.get(model.execution_state, ""))
            last = model.last_activity
            _add(table, cell, model.name, model.id, f"{last:%Y-%m-%d %H:%M:%S}" if last else "")
        parts.append(Group(_heading("Running kernels"), table))
    return _printed(Group(*parts))


def _printed(group: Group) -> str:
    console = (
        Console(width=WIDE)
        if is_terminal(sys.stdout) and not is_dumb()
        else Console(width=WIDE, force_terminal=False, no_color=True)
    )
    with console.capture() as capture:
        console.print(group)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


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
    table = _table("State", "Kernel", "Language", "--existing")
    for kernel in kernels:
        state = _state(kernel)
        cell = Text(state, style=COLOURS[state])
        _add(table, cell, kernel.kernel_name, kernel.language, kernel.connection_file.name)
    directory = kernels[0].connection_file.parent
    heading = _heading("Running kernels")
    heading.append(
        f" (their connection files are in {printable(str(directory))})", style="not bold"
    )
    return Group(heading, table)


def _state(kernel: RunningKernel) -> str:
    if not kernel.alive:
        return "dead" if kernel.gone else "unknown"
    return {None: "alive", True: "busy", False: "idle"}[kernel.busy]


def _heading(text: str) -> Text:
    return Text(text, style="bold")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        # A path that is cut is no path.
        table.add_column(column, no_wrap=True, overflow="ignore")
    return table


def _add(table: Table, *cells: str | Path | Text) -> None:
    # As Text: what kernels are called is no markup.
    table.add_row(*(each if isinstance(each, Text) else _cell(str(each)) for each in cells))


def _cell(text: str) -> Text:
    return Text(printable(text) or "-")
