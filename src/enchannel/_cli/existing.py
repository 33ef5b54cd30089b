"""Which running kernel is meant."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from .. import ConnectionFileError, find_connection_file, list_running_kernels

__all__ = ["existing_file"]


async def existing_file(name: str) -> Path:
    """The connection file of the kernel that runs, of those that `name` may mean: a path, a part of a name, or a pattern.

    Raises:
        ConnectionFileError: There is none, it is dead, or there are several.
    """
    found = find_connection_file(name)
    if _is_file(name):
        return found
    running = await list_running_kernels()
    for pattern in (name, f"{name}.json", f"*{name}*"):
        matching = [each for each in running if fnmatchcase(each.connection_file.name, pattern)]
        if matching:
            break
    else:
        # Called otherwise than kernels are.
        return found
    there = [each.connection_file for each in matching if not each.gone]
    if len(there) == 1:
        return there[0]
    if there:
        names = ", ".join(sorted(path.name for path in there))
        raise ConnectionFileError(f"{name!r} may be any of {len(there)} kernels: {names}")
    raise ConnectionFileError(
        f"{found.name}: that kernel is dead, and has left its file behind; 'enchannel kernels' lists those that run"
    )


def _is_file(name: str) -> bool:
    return Path(name).is_file()
