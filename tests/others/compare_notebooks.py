"""Notebooks of other projects, run by ``enchannel run`` and by ``jupyter execute``: what differs, and how long each takes.

    python tests/others/compare_notebooks.py DIRECTORY [...]

Each notebook below DIRECTORY is run by both, with errors allowed, one after the other. What no two runs have in common is
left out: times, ids, addresses in memory, where on the disk it ran.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

KERNEL = "python3"
SECONDS = 120
"""That one may take."""

PASSING = re.compile(
    r"\x1b\[[0-9;]*m|0x[0-9a-f]+|/\S+|ipykernel_\d+|[0-9a-f]{32}|\d+(\.\d+)? [mµn]?s\b|\d+:\d\d:\d\d[.\d]*"
)

COMMANDS = {
    "jupyter execute": (
        ("-m", "jupyter", "execute", "{source}", "--output={target}", "--allow-errors"),
        ("--kernel_name=" + KERNEL, f"--timeout={SECONDS}"),
    ),
    "enchannel run": (
        ("-m", "enchannel", "run", "{source}", "-o", "{target}", "--allow-errors"),
        ("--kernel", KERNEL, "--cell-timeout", str(SECONDS)),
    ),
}


def run(which: str, notebook: Path, where: Path) -> tuple[list[Any] | str, float]:
    """The outputs of each code cell, or why there are none; and the seconds that it took."""
    shutil.copytree(notebook.parent, where, dirs_exist_ok=True)
    target = where / "the-outcome.ipynb"
    values = {"source": str(where / notebook.name), "target": str(target)}
    command = [part.format(**values) for several in COMMANDS[which] for part in several]
    began = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=4 * SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "it did not end", time.monotonic() - began
    took = time.monotonic() - began
    if not target.exists():
        return ([*done.stderr.strip().splitlines(), f"status {done.returncode}"][-1], took)
    cells = json.loads(target.read_text(encoding="utf-8"))["cells"]
    code = (cell for cell in cells if cell["cell_type"] == "code")
    return [list(map(plain, joined(cell["outputs"]))) for cell in code], took


def joined(outputs: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Stream outputs each once: how a kernel cuts its text is chance, and so is the order of its two streams."""
    streams: dict[str, str] = {}
    for output in outputs:
        if output["output_type"] == "stream":
            name = output["name"]
            streams[name] = streams.get(name, "") + text_of(output["text"])
        else:
            yield output
    for name, text in sorted(streams.items()):
        yield {"output_type": "stream", "name": name, "text": text}


def text_of(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def plain(value: Any) -> Any:
    """`value` without what no two runs have in common."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return (
            plain("".join(value))
            if value and all(isinstance(x, str) for x in value)
            else list(map(plain, value))
        )
    return PASSING.sub("*", value) if isinstance(value, str) else value


def found(directories: list[str]) -> list[Path]:
    """The notebooks there, each once."""
    by_content: dict[bytes, Path] = {}
    for directory in directories:
        for path in sorted(Path(directory).rglob("*.ipynb")):
            by_content.setdefault(path.read_bytes(), path)
    return list(by_content.values())


def explain(theirs: list[Any] | str, ours: list[Any] | str) -> None:
    """Prints what differs."""
    for which, outcome in zip(COMMANDS, (theirs, ours), strict=True):
        if isinstance(outcome, str):
            print(f"    {which}: {outcome}")
    if isinstance(theirs, list) and isinstance(ours, list):
        for number, (one, other) in enumerate(zip(theirs, ours, strict=False), 1):
            if one != other:
                print(f"    cell {number}: {str(one)[:300]}\n         and: {str(other)[:300]}")


def main(directories: list[str]) -> int:
    notebooks = found(directories)
    same, ratios = 0, []
    for notebook in notebooks:
        results = []
        for which in COMMANDS:
            with tempfile.TemporaryDirectory() as directory:
                results.append(run(which, notebook, Path(directory)))
        (theirs, slow), (ours, fast) = results
        ratios.append(fast / slow)
        same += theirs == ours
        word = "same  " if theirs == ours else "DIFFER"
        print(f"{word} {slow:6.2f} s {fast:6.2f} s  {notebook}", flush=True)
        explain(theirs, ours)
    print(
        f"{same} of {len(notebooks)} the same; enchannel takes {statistics.median(ratios):.2f} of the time (median)"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
