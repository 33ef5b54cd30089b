"""``enchannel check``: what a kernel does of what the specification asks for."""

from __future__ import annotations

import json
import math
import sys
import tomllib
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import trio

from .. import KernelSpec, LocalProtocolError, open_kernel, open_server
from .._groups import unwrapping_task_group
from ..testing import CheckResult, KernelSamples, check_kernel
from .command import Failure
from .output import printable
from .writer import Writer

__all__ = ["Check", "read_samples"]


class Check:
    """One run of the command; called, it returns the exit status.

    Args:
        kernel: The name of a kernelspec.
        server: Whose; this machine's where it is ``None``.
        startup_timeout: Seconds that it may take to be ready.
        only: The checks to run, by default all.
        samples: Code in the kernel's language, by default what is known for it.
        patience: Seconds that the kernel may take for one answer.
        as_json: Whether to print one JSON object in the end, and not a line for each check.
    """

    def __init__(
        self,
        kernel: str,
        *,
        server: str | None,
        startup_timeout: float,
        only: Sequence[str],
        samples: KernelSamples | None,
        patience: float,
        as_json: bool,
    ) -> None:
        self._kernel = kernel
        self._server = server
        self._startup_timeout = startup_timeout
        self._only = only
        self._samples = samples
        self._patience = patience
        self._as_json = as_json

    async def __call__(self) -> int:
        if self._server is None:
            make = partial(
                open_kernel,
                KernelSpec.find(self._kernel),
                startup_timeout=self._startup_timeout,
            )
            # Before anything else: one that cannot be launched here has failed no check.
            make()
            return await self._check(make)
        async with open_server(self._server) as server:
            names = sorted(spec.name for spec in await server.kernelspecs())
            if self._kernel not in names:
                known = ", ".join(names) or "none"
                raise Failure(f"{server.url} has no kernelspec {self._kernel!r}; it has {known}")
            return await self._check(
                partial(server.open_kernel, self._kernel, startup_timeout=self._startup_timeout)
            )

    async def _check(self, make: Callable[[], AbstractAsyncContextManager[Any]]) -> int:
        stdout = Writer(sys.stdout)
        # What is said of a check waits for its reader, and the next check does not.
        tell, told = trio.open_memory_channel[CheckResult](math.inf)
        async with unwrapping_task_group() as tasks:
            tasks.start_soon(_tell, told, stdout)
            with tell:
                report = await check_kernel(
                    make,
                    samples=self._samples,
                    only=self._only,
                    patience=self._patience,
                    on_result=None if self._as_json else tell.send_nowait,
                )
        name = report.kernel.removeprefix("kernel")
        report = attrs.evolve(report, kernel=f"{self._kernel}{name}")
        if self._as_json:
            await stdout.write(json.dumps(report.to_dict(), indent=2) + "\n")
        else:
            await stdout.write(f"{printable(report.summary)}\n")
        return 1 if report.failed else 0


async def _tell(results: trio.MemoryReceiveChannel[CheckResult], stdout: Writer) -> None:
    async for result in results:
        # What was seen is the kernel's word, and no control sequence for somebody's terminal.
        lines = [f"{printable(line)}\n" for line in str(result).splitlines()]
        await stdout.write("".join(lines))


def read_samples(path: Path) -> KernelSamples:
    """The samples in the TOML file `path`.

    Raises:
        LocalProtocolError: It holds none; the message names the file.
        OSError: It cannot be read.
    """
    try:
        return KernelSamples.from_dict(tomllib.loads(path.read_text(encoding="utf-8-sig")))
    except (LocalProtocolError, ValueError) as error:
        raise LocalProtocolError(f"{path}: {error}") from error
