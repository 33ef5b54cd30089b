"""Which running kernel is meant, and which files are of none."""

from __future__ import annotations

from pathlib import Path

from .. import ConnectionFileError, list_running_kernels
from .._kernels.connection_files import matching_files

__all__ = ["existing_file", "files_left_behind"]


async def existing_file(name: str) -> Path:
    """The connection file of the kernel that runs, of those that `name` may mean: a path, a part of a name, or a pattern.

    Raises:
        ConnectionFileError: There is none, it is dead, or there are several.
    """
    found = matching_files(name)
    if found == [Path(name)]:
        return found[0]
    gone = await files_left_behind()
    there = [path for path in found if path not in gone]
    if len(there) == 1:
        return there[0]
    if there:
        names = ", ".join(sorted(path.name for path in there))
        raise ConnectionFileError(f"{name!r} may be any of {len(there)} kernels: {names}")
    raise ConnectionFileError(
        f"{found[0].name}: that kernel is dead, and has left its file behind; 'enchannel kernels' lists those that run"
    )


async def files_left_behind() -> list[Path]:
    """The connection files of kernels that are not there any more, the newest first."""
    return [kernel.connection_file for kernel in await list_running_kernels() if kernel.gone]
