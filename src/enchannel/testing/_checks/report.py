"""What comes of checking a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import attrs

__all__ = ["CheckResult", "KernelReport", "Outcome"]

Outcome: TypeAlias = Literal["passed", "failed", "not offered"]


MOST_SHOWN = 2_000
"""Characters of what was seen that are for people."""


@attrs.frozen
class CheckResult:
    """What came of one check; its ``str`` is for people.

    Example:
        .. code-block:: python

            report = await check_kernel("python3", only=["stdout"])
            (result,) = report.results
            print(result.name, result.outcome)  # stdout passed
            print(result.source)  # Streams (stdout, stderr, etc)
    """

    name: str
    """For example ``"stdin-refused"``."""
    title: str
    """What the specification asks, in a sentence."""
    source: str
    """The section of the Jupyter messaging specification, or the JEP."""
    outcome: Outcome
    """``"not offered"``: the kernel does not have what is checked and need not have it, or there is no sample of it."""
    seen: str = ""
    """What was seen where it failed, what is missing where it is not offered; else empty."""

    def __str__(self) -> str:
        mark = {"passed": "ok  ", "failed": "FAIL", "not offered": "-   "}[self.outcome]
        line = f"{mark} {self.name}: {self.title}"
        # Each line of it, or a kernel's word could pass for ours.
        seen = self.seen if len(self.seen) <= MOST_SHOWN else f"{self.seen[:MOST_SHOWN]}..."
        return "\n       ".join([line, *seen.splitlines()])


@attrs.frozen
class KernelReport:
    """What came of checking one kernel; its ``str`` is for people, ``to_dict()`` for programs.

    Example:
        .. code-block:: python

            report = await check_kernel("python3", only=["stdout", "stderr"])
            print([result.name for result in report.passed])  # ['stdout', 'stderr']
            report.raise_if_failed()
    """

    kernel: str
    """The name of its kernelspec, and what it says that it is."""
    results: Sequence[CheckResult]
    """In the order of the checks."""

    @property
    def failed(self) -> Sequence[CheckResult]:
        """The checks that failed."""
        return self._with("failed")

    @property
    def passed(self) -> Sequence[CheckResult]:
        """The checks that passed."""
        return self._with("passed")

    @property
    def not_offered(self) -> Sequence[CheckResult]:
        """What could not be checked."""
        return self._with("not offered")

    def _with(self, outcome: Outcome) -> Sequence[CheckResult]:
        return [result for result in self.results if result.outcome == outcome]

    @property
    def summary(self) -> str:
        """The counts, in a line."""
        return (
            f"{self.kernel}: {len(self.passed)} passed, {len(self.failed)} failed, "
            f"{len(self.not_offered)} not offered"
        )

    def raise_if_failed(self) -> None:
        """Does nothing where no check failed.

        Raises:
            AssertionError: Some did; the message names them and what was seen.
        """
        if self.failed:
            raise AssertionError("\n".join([self.summary, *map(str, self.failed)]))

    def to_dict(self) -> dict[str, Any]:
        """The same for JSON."""
        return {"kernel": self.kernel, "results": [attrs.asdict(each) for each in self.results]}

    def __str__(self) -> str:
        return "\n".join([*map(str, self.results), self.summary])
