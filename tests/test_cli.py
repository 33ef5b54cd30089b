"""The command line in this process, on a scripted kernel; at terminals and with real kernels: ``integration``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import nbformat
import pytest

from enchannel.__main__ import main
from enchannel._cli.output import as_line

SCRIPT = Path(__file__).with_name("scripted_kernel.py")


@pytest.fixture(autouse=True)
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernelspec ``scripted``, and no other."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    directory = tmp_path / "kernels" / "scripted"
    directory.mkdir(parents=True)
    argv = [sys.executable, str(SCRIPT), "{connection_file}"]
    spec = {"argv": argv, "display_name": "Words", "language": "words"}
    (directory / "kernel.json").write_text(json.dumps(spec))


@attrs.frozen
class Result:
    stdout: str
    stderr: str
    exit_code: Any


Call = Callable[..., Result]


@pytest.fixture
def called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Call:
    def call(*arguments: str, typed: str = "") -> Result:
        given = tmp_path / "typed"
        given.write_text(typed)
        with given.open() as stdin, pytest.raises(SystemExit) as ended:
            monkeypatch.setattr(sys, "stdin", stdin)
            main(arguments, prog_name="enchannel")
        return Result(*capfd.readouterr(), ended.value.code)

    return call


@pytest.fixture
def run(called: Call) -> Call:
    return partial(called, "run", "--kernel", "scripted")


def test_code_is_run_and_its_output_printed(run: Call) -> None:
    result = run("echo one", "echo two")
    assert (result.stdout, result.stderr, result.exit_code) == ("onetwo", "", 0)


def test_a_file_is_code_and_so_is_standard_input(run: Call, tmp_path: Path) -> None:
    path = tmp_path / "code.txt"
    path.write_text("\ufeffecho from a file\r\n", encoding="utf-8")
    result = run(str(path), "-", typed="echo from standard input")
    assert (result.stdout, result.exit_code) == ("from a filefrom standard input", 0)


def test_messages_are_lines_of_json(run: Call) -> None:
    result = run("echo one", "--json")
    messages = [json.loads(line) for line in result.stdout.splitlines()]
    types = [each["msg_type"] for each in messages]
    assert types.count("stream") == types.count("execute_reply") == 1
    assert {"one"} == {each["content"]["text"] for each in messages if each["msg_type"] == "stream"}


def test_what_is_no_number_is_none_in_json() -> None:
    content = {"x": float("nan"), "y": [float("inf"), 1.5, {"z": -float("inf")}], "text": "NaN"}
    assert json.loads(as_line(content), parse_constant=pytest.fail) == {
        "x": None,
        "y": [None, 1.5, {"z": None}],
        "text": "NaN",
    }


def test_how_deep_a_message_is_does_not_matter() -> None:
    value: Any = float("nan")
    for _ in range(600):
        value = [value]
    assert as_line(value) == f"{'[' * 600}null{']' * 600}\n"


def test_code_that_fails_is_the_last(run: Call) -> None:
    result = run("echo one", "fail on purpose", "echo never")
    assert (result.stdout, result.exit_code) == ("one", 1)
    assert "RuntimeError: on purpose" in result.stderr


def test_a_kernel_that_exits_is_told_with_its_last_words(run: Call, tmp_path: Path) -> None:
    file = tmp_path / "kernels" / "scripted" / "kernel.json"
    spec = json.loads(file.read_text())
    spec["argv"] += ["--says", "farewell"]
    file.write_text(json.dumps(spec))
    result = run("exit 3", "echo never")
    assert (result.stdout, result.exit_code) == ("", 2)
    assert result.stderr.endswith("exited with status 3\nfarewell\n")


def test_code_that_takes_too_long_is_interrupted(run: Call) -> None:
    result = run("run", "--timeout", "0.5")
    assert (result.stdout, result.exit_code) == ("begun", 124)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--kernel", "cobol", "x"], "no kernelspec 'cobol' on the Jupyter path; there is "),
        (["--existing", "x.json", "--kernel", "scripted", "x"], "not both"),
        (["--existing", "nowhere.json", "x"], "nowhere.json"),
        (["nowhere.py"], "nowhere.py: no such file"),
        (["-", "-"], "can be read once only"),
        (["--timeout", "nan", "x"], "nan is no positive number of seconds"),
        ([], "Missing argument 'CODE"),
    ],
)
def test_what_is_wrong_is_told(called: Call, arguments: list[str], complaint: str) -> None:
    result = called("run", *arguments)
    assert (result.stdout, result.exit_code) == ("", 2)
    assert complaint in result.stderr


@pytest.mark.parametrize("content", [None, b"caf\xe9"])
def test_a_file_that_is_no_code_is_told(run: Call, tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "code.py"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    result = run(str(path))
    assert (result.stdout, result.exit_code) == ("", 2)
    assert ("no UTF-8" if content else "Is a directory") in result.stderr


# Notebooks; what becomes of them besides: ``test_cli_run``.


def code(source: str, *tags: str, **fields: Any) -> dict[str, Any]:
    cell = {"cell_type": "code", "source": source, "metadata": {"tags": list(tags)}}
    return {**cell, "outputs": [], "execution_count": None, **fields}


@pytest.fixture
def notebook(tmp_path: Path) -> Callable[..., Path]:
    def write(*cells: Any, **metadata: Any) -> Path:
        path = tmp_path / "notebook.ipynb"
        content = {"nbformat": 4, "nbformat_minor": 4, "metadata": metadata, "cells": cells}
        path.write_text(json.dumps(content))
        return path

    return write


def test_what_a_cell_can_only_have_empty_is_made_up_for(
    run: Call, notebook: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.ipynb"
    path = notebook(code("echo one"), {"cell_type": "code", "source": "", "metadata": {}})
    result = run(str(path), "-o", str(out))
    assert (result.stdout, result.stderr, result.exit_code) == ("one", "", 0)
    content = nbformat.read(out, as_version=4)
    nbformat.validate(content)
    assert [len(cell.outputs) for cell in content.cells] == [1, 0]


DEEP = json.loads("[" * 300 + "]" * 300)

NO_TEXT = [{"output_type": "stream", "name": "stdout"}]


@pytest.mark.parametrize(
    ("cell", "complaint"),
    [
        (code("echo two", "skip-execution", outputs=NO_TEXT), "cells.1.outputs.0: "),
        ({"source": "some text", "metadata": {}}, "cells.1: "),
        ({"cell_type": "raw", "source": "", "metadata": {"x": DEEP}}, "it is nested too deeply"),
    ],
)
def test_a_notebook_that_cannot_be_written_is_not_run(
    run: Call, notebook: Callable[..., Path], tmp_path: Path, cell: Any, complaint: str
) -> None:
    path, out = notebook(code("echo one"), cell), tmp_path / "out.ipynb"
    result = run(str(path), "-o", str(out))
    assert result.stderr.startswith(f"Error: {path} is no notebook: {complaint}")
    assert (result.stdout, result.stderr.count("\n"), result.exit_code) == ("", 1, 2)
    assert not out.exists()


def test_a_cell_that_is_run_has_no_old_output_to_be_odd(
    run: Call, notebook: Callable[..., Path]
) -> None:
    path = notebook(code("echo one", outputs=NO_TEXT))
    assert run(str(path), "--inplace").exit_code == 0
    assert nbformat.read(path, as_version=4).cells[0].outputs[0].text == "one"


@pytest.mark.parametrize("named_by", ["notebook", "option"])
def test_parameters_speak_the_language_of_the_kernel(
    called: Call, notebook: Callable[..., Path], tmp_path: Path, named_by: str
) -> None:
    file = tmp_path / "kernels" / "scripted" / "kernel.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"language": "bash"}))
    name = {"name": "scripted", "display_name": "Words"}
    path = notebook(**({"kernelspec": name} if named_by == "notebook" else {}))
    option = ["--kernel", "scripted"] if named_by == "option" else []
    assert called("run", str(path), "--inplace", *option, "-p", "x", "True").exit_code == 0
    assert nbformat.read(path, as_version=4).cells[0].source == "# Parameters\nx=true"


def test_kernels_are_listed(called: Call) -> None:
    result = called("kernels")
    assert result.exit_code == 0
    (line,) = [each for each in result.stdout.splitlines() if each.startswith("scripted")]
    assert line.split()[:3] == ["scripted", "Words", "words"]
    listed = json.loads(called("kernels", "--json").stdout)
    assert "scripted" in [each["name"] for each in listed["installed"]]


def test_a_kernel_is_checked(called: Call, tmp_path: Path) -> None:
    samples = tmp_path / "samples.toml"
    samples.write_text('stdout = "echo hello, world"\nresult = { "pid" = "1" }\n')
    names = ["--only", "stdout", "--only", "execute-result", "--only", "heartbeat"]
    result = called("check", "scripted", *names, "--samples", str(samples))
    assert result.exit_code == 1
    lines = [line for line in result.stdout.splitlines() if not line.startswith(" ")]
    assert [line.split(":")[0] for line in lines[:-1]] == [
        *("ok   stdout", "FAIL execute-result", "ok   heartbeat")
    ]
    assert lines[-1] == "scripted (unnamed, words): 2 passed, 1 failed, 0 not offered"
    told = json.loads(called("check", "scripted", *names[:2], "--json").stdout)
    assert told["results"][0]["outcome"] == "not offered"
