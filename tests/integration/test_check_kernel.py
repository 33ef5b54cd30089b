"""The check of kernels, on real ones, and on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from enchannel.testing import check_kernel

AddSpec = Callable[..., Path]

DEADLINE = 300
"""Seconds for one command, on a machine that is busy with others."""


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "enchannel", "check", *arguments],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.mark.anyio
async def test_ipykernel_does_all_that_is_asked(anyio_backend: str) -> None:
    report = await check_kernel("python3")
    report.raise_if_failed()
    assert not report.not_offered, str(report)
    assert report.kernel.startswith("python3 (ipython ")


async def check_xeus() -> None:
    # It dies of the SIGINT that its kernelspec asks for, and mixes up executions that wait; or no longer does.
    report = await check_kernel("xpython", patience=5)
    assert {each.name for each in report.passed} >= {"kernel-info", "stdout", "complete"}, str(
        report
    )
    assert all(each.seen for each in [*report.failed, *report.not_offered])


async def check_bash() -> None:
    names = ["kernel-info", "stdout", "comm-open", "stdin", "interrupt", "replies"]
    report = await check_kernel("bash", only=names)
    # What a client opens to nothing it leaves open, or no longer does.
    assert {each.name for each in report.passed} >= {"kernel-info", "stdout"}, str(report)
    assert [each.name for each in report.not_offered] == ["stdin"]


def test_xeus_is_checked_to_the_end() -> None:
    pytest.importorskip("xpython")
    trio.run(check_xeus)


def test_bash_is_checked_where_there_is_code_for_it(add_spec: AddSpec) -> None:
    pytest.importorskip("bash_kernel")
    argv = (sys.executable, "-m", "bash_kernel", "-f", "{connection_file}")
    add_spec("bash", *argv, language="bash")
    trio.run(check_bash)


def test_a_line_for_each_check_and_one_for_all() -> None:
    result = command("python3", "--only", "stdout", "--only", "kernel-info")
    lines = result.stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == ["ok   kernel-info", "ok   stdout"]
    assert lines[-1].endswith("2 passed, 0 failed, 0 not offered")
    assert (result.stderr, result.returncode) == ("", 0)


def test_samples_of_its_own_and_json(tmp_path: Path) -> None:
    samples = tmp_path / "samples.toml"
    samples.write_text("stdout = \"print('goodbye')\"\n")
    arguments = ("--only", "stdout", "--only", "page", "--samples", str(samples), "--json")
    result = command("python3", *arguments)
    found = {each["name"]: each for each in json.loads(result.stdout)["results"]}
    assert found["stdout"]["outcome"] == "failed"
    assert "'goodbye\\n'" in found["stdout"]["seen"]
    assert found["page"]["outcome"] == "passed", "what is known stays where nothing is said"
    assert result.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("cobol",), "no kernelspec 'cobol'"),
        (("python3", "--only", "stdot"), "no check 'stdot'; there are kernel-info, "),
        (("python3", "--timeout", "0"), "0 is no positive number of seconds"),
        (("python3", "--samples", "nowhere.toml"), "'nowhere.toml' does not exist"),
        (("python3", "--samples", "{wrong}"), "wrong.toml: 'stdot' is no kind of sample"),
        (("python3", "--samples", "{broken}"), "broken.toml: "),
        ((), "Missing argument 'NAME'"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_launched(
    arguments: tuple[str, ...], complaint: str, tmp_path: Path
) -> None:
    files = {"wrong": "stdot = 'x'\n", "broken": "stdout = \n"}
    for name, text in files.items():
        (tmp_path / f"{name}.toml").write_text(text)
    paths = {f"{{{name}}}": str(tmp_path / f"{name}.toml") for name in files}
    result = command(*(paths.get(argument, argument) for argument in arguments))
    assert complaint in result.stderr
    assert (result.stdout, result.returncode) == ("", 2)
