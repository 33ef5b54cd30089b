"""Runs a notebook and writes it back with its outputs, counts and timings, as ``jupyter execute`` does.

python run_notebook.py in.ipynb out.ipynb
"""

from __future__ import annotations

import math
import sys
from typing import Any

import anyio
import nbformat
import trio
from nbformat import NotebookNode

from enchannel import KernelChannels, KernelLaunchError, ReplyError, open_kernel


async def run_notebook(
    notebook: NotebookNode,
    *,
    kernel_name: str | None = None,
    allow_errors: bool = False,
    cell_timeout: float = math.inf,
) -> None:
    """Runs the code cells of `notebook` in order, and fills them in; what ran before an error is kept.

    Raises:
        ReplyError: A cell failed, and may not.
        TimeoutError: A cell took longer than `cell_timeout` seconds; it was interrupted.
    """
    name = kernel_name or notebook.metadata.get("kernelspec", {}).get("name", "python3")
    async with open_kernel(name) as kernel, kernel.open_channels() as ch:
        language_info = (await ch.kernel_info()).get("language_info", {})
        notebook.metadata["language_info"] = nbformat.from_dict(language_info)
        ran: list[tuple[NotebookNode, list[dict[str, Any]]]] = []
        # What "with Output():" has captured is the widget's, and not the cell's.
        async with ch.open_output_widgets():
            try:
                for cell in notebook.cells:
                    if cell.cell_type == "code" and cell.source.strip():
                        await run_cell(ch, cell, ran, allow_errors, cell_timeout)
            finally:
                # At the end, for a later cell may have updated what an earlier one displays.
                for cell, outputs in ran:
                    cell.outputs = [nbformat.from_dict(output) for output in outputs]


async def run_cell(
    ch: KernelChannels,
    cell: NotebookNode,
    ran: list[tuple[NotebookNode, list[dict[str, Any]]]],
    allow_errors: bool,
    cell_timeout: float,
) -> None:
    may_fail = allow_errors or "raises-exception" in cell.metadata.get("tags", [])
    metadata = {"cellId": cell["id"]} if "id" in cell else {}
    async with ch.execute(
        cell.source, stop_on_error=not may_fail, interrupt_on_cancel=True, metadata=metadata
    ) as execution:
        ran.append((cell, execution.outputs))
        with anyio.fail_after(cell_timeout):
            reply = await execution.wait()
        cell.execution_count = execution.execution_count
        cell.metadata["execution"] = execution.timings.to_metadata()
    if reply.content.get("status") != "ok" and not may_fail:
        raise ReplyError(reply.content, cell.source, execution.outputs)


async def main(source: str, target: str) -> int:
    notebook = nbformat.read(source, as_version=4)
    try:
        await run_notebook(notebook)
    except (ReplyError, KernelLaunchError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        nbformat.write(notebook, target)
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    raise SystemExit(trio.run(main, sys.argv[1], sys.argv[2]))
