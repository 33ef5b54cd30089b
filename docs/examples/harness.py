"""What a kernel's author runs: what the specification asks, and what this kernel's own users expect of it.

python harness.py python3
pytest harness.py
"""

from __future__ import annotations

import os
import sys

import trio

from enchannel import KernelChannels, open_kernel
from enchannel.testing import KernelSamples, check_kernel, kernel_cases

KERNEL = os.environ.get("KERNEL", "python3")
SAMPLES = KernelSamples(
    language="python",
    stdout="print('hello, world')",
    result={"6 * 7": "42"},
    error="1/0",
    long="print('begun', flush=True)\nwhile True: pass",
)

test_the_specification = kernel_cases(KERNEL, samples=SAMPLES)


async def of_our_own(ch: KernelChannels) -> list[str]:
    """What this kernel's users expect and no specification asks for; what they do not get."""
    wrong = []
    first, second = await ch.run("x = 1"), await ch.run("x")
    if second.execution_count != (first.execution_count or 0) + 1:
        wrong.append("its executions are not counted one by one")
    if second.text.strip() != "1":
        wrong.append(f"a variable of an earlier cell reads {second.text!r}")
    if (await ch.run("1/0")).status != "error":
        wrong.append("a division by zero is no error")
    return wrong


async def main(kernel_name: str) -> int:
    report = await check_kernel(kernel_name, samples=SAMPLES, on_result=print)
    print(report.summary)
    async with open_kernel(kernel_name) as kernel, kernel.open_channels() as ch:
        wrong = await of_our_own(ch)
    print("\n".join(wrong) or "and what its users expect")
    return 1 if report.failed or wrong else 0


if __name__ == "__main__":
    raise SystemExit(trio.run(main, sys.argv[1] if len(sys.argv) > 1 else KERNEL))
