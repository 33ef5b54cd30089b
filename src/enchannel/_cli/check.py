"""``enchannel check``: what a kernel does of what the specification asks for."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

from .. import LocalProtocolError
from .._signals import exit_on_signals
from ..testing import CheckResult, KernelReport, KernelSamples, check_kernel
from .output import printable, write

__all__ = ["Check", "read_samples"]


class Check:
    """One run of the command; called by trio it returns the exit status.

    Args:
        kernel: The name of a kernelspec.
        only: The checks to run, by default all.
        samples: Code in the kernel's language, by default what is known for it.
        patience: Seconds that the kernel may take for one answer.
        as_json: Whether to print one JSON object in the end, and not a line for each check.
    """

    def __init__(
        self,
        kernel: str,
        *,
        only: Sequence[str],
        samples: KernelSamples | None,
        patience: float,
        as_json: bool,
    ) -> None:
        self._kernel = kernel
        self._only = only
        self._samples = samples
        self._patience = patience
        self._as_json = as_json

    async def __call__(self) -> int:
        async with exit_on_signals():
            report = await check_kernel(
                self._kernel,
                samples=self._samples,
                only=self._only,
                patience=self._patience,
                on_result=None if self._as_json else _tell,
            )
            self._end(report)
        return 1 if report.failed else 0

    def _end(self, report: KernelReport) -> None:
        if self._as_json:
            write(sys.stdout, json.dumps(report.to_dict(), indent=2) + "\n")
        else:
            write(sys.stdout, f"{printable(report.summary)}\n")


def _tell(result: CheckResult) -> None:
    # What was seen is the kernel's word, and no control sequence for somebody's terminal.
    write(sys.stdout, "".join(f"{printable(line)}\n" for line in str(result).splitlines()))


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
