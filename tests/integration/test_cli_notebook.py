"""``enchannel run`` on notebooks: what is run, what is written back, and how it ends."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from terminal import Terminal, enchannel, is_gone

PYTHON = {"name": "python3", "display_name": "Python 3", "language": "python"}

Write = Callable[..., Path]


def code(source: str, *tags: str) -> Any:
    return new_code_cell(source, metadata={"tags": list(tags)} if tags else {})


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*cells: Any, kernelspec: dict[str, str] = PYTHON) -> Path:
        path = tmp_path / "notebook.ipynb"
        made = [code(each) if isinstance(each, str) else each for each in cells]
        content = new_notebook(
            cells=made, metadata={"kernelspec": kernelspec} if kernelspec else {}
        )
        nbformat.write(content, path)
        return path

    return write


def cells_of(path: Path) -> Sequence[Any]:
    content = nbformat.read(path, as_version=4)
    nbformat.validate(content)
    assert path.read_text().endswith("\n")
    cells: Sequence[Any] = content.cells
    return cells


def text_of(cell: Any) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)


def test_a_notebook_is_run_and_written(write: Write, tmp_path: Path) -> None:
    path = write(
        "x = 6", new_markdown_cell("# Then"), "print('woo')\nx * 7", "import os; os.getcwd()"
    )
    before, out = path.read_bytes(), tmp_path / "out.ipynb"
    result = enchannel("run", str(path), "-o", str(out), cwd="/")
    assert (result.stderr, result.returncode) == ("", 0)
    assert result.stdout.startswith("woo\n42\n")
    assert path.read_bytes() == before
    first, text, second, third = cells_of(out)
    assert (first.execution_count, first.outputs, text.source) == (1, [], "# Then")
    assert second.execution_count == 2
    assert [output.output_type for output in second.outputs] == ["stream", "execute_result"]
    assert second.outputs[1].data["text/plain"] == "42"
    assert set(second.metadata.execution) == {
        "iopub.status.busy",
        "shell.execute_reply.started",
        "shell.execute_reply",
        "iopub.status.idle",
    }
    # It runs where it is, as in any other front end.
    assert third.outputs[0].data["text/plain"] == repr(str(tmp_path))
    assert nbformat.read(out, as_version=4).metadata.language_info.name == "python"


def test_a_display_of_an_earlier_cell_is_updated(write: Write) -> None:
    path = write("d = display('old', display_id=True)", "d.update('new')")
    assert enchannel("run", str(path), "--inplace").returncode == 0
    first, second = cells_of(path)
    assert first.outputs[0].data["text/plain"] == "'new'"
    assert second.outputs == []


def test_without_a_place_nothing_is_written(write: Write) -> None:
    path = write("1")
    before = path.read_bytes()
    assert enchannel("run", str(path)).stdout == "1\n"
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


def test_a_cell_that_fails_is_the_last_and_is_written(write: Write) -> None:
    path = write("print(1)", "1/0", "print(3)")
    stale = nbformat.read(path, as_version=4)
    stale.cells[2].outputs = [nbformat.v4.new_output("stream", text="of another run")]
    nbformat.write(stale, path)
    result = enchannel("run", str(path), "--inplace")
    assert (result.stdout, result.returncode) == ("1\n", 1)
    assert "ZeroDivisionError" in result.stderr
    assert result.stderr.endswith("Error: cell 2 of 3 failed\n")
    first, second, third = cells_of(path)
    assert text_of(first) == "1\n"
    assert second.outputs[0].ename == "ZeroDivisionError"
    assert (third.execution_count, third.outputs) == (None, [])


def test_errors_that_are_allowed(write: Write) -> None:
    path = write(
        code("1/0", "raises-exception"), "print(2)", code("print(3)", "skip-execution"), "1/0", "5"
    )
    result = enchannel("run", str(path))
    assert (result.stdout, result.returncode) == ("2\n", 1)
    result = enchannel("run", str(path), "--allow-errors", "--inplace")
    assert (result.stdout, result.returncode) == ("2\n5\n", 0)
    assert [cell.execution_count for cell in cells_of(path)] == [1, 2, None, 3, 4]


def test_the_end_of_a_program_ends_a_notebook(write: Write) -> None:
    path = write("print(1)", "import sys; sys.exit(4)", "print(3)")
    result = enchannel("run", str(path), "--inplace")
    assert (result.stdout, result.returncode) == ("1\n", 4)
    assert result.stderr.endswith(
        "Error: cell 2 of 3 ended it, and what comes behind was not run\n"
    )
    assert cells_of(path)[1].outputs[0].ename == "SystemExit"


def test_a_cell_that_takes_too_long(write: Write) -> None:
    path = write("import os; print(os.getpid(), flush=True)", "while True: pass", "print(3)")
    result = enchannel("run", str(path), "--cell-timeout", "1", "--inplace")
    assert result.stderr == "Error: cell 2 of 3 took more than 1 s\n"
    assert result.returncode == 124
    first, second, _ = cells_of(path)
    assert is_gone(text_of(first).strip())
    # The kernel had said it before its time was over.
    assert second.execution_count == 2


def test_ctrl_c_interrupts_a_cell_and_all_is_written(write: Write) -> None:
    path = write("print('one')", "print('begun', flush=True)\nwhile True: pass", "print(3)")
    with Terminal("run", str(path), "--inplace") as terminal:
        terminal.expect("begun")
        terminal.type("\x03")
        terminal.expect("KeyboardInterrupt")
        assert terminal.wait() == 130
    first, second, third = cells_of(path)
    assert text_of(first) == "one\n"
    assert [output.get("ename", "") for output in second.outputs] == ["", "KeyboardInterrupt"]
    assert third.outputs == []


def test_a_kernel_that_dies_leaves_what_it_said(write: Write) -> None:
    path = write("print('one')", "import os; os._exit(3)", "print(3)")
    result = enchannel("run", str(path), "--inplace")
    assert "exited with status 3" in result.stderr
    assert result.returncode == 2
    assert text_of(cells_of(path)[0]) == "one\n"


# Parameters.


def test_parameters_stand_behind_those_of_the_notebook(write: Write) -> None:
    path = write("a = z = 0", code("x, y = 1, 2", "parameters"), "a, x, y, z")
    given = ("-p", "x", "5", "-p", "y", 'it\'s "so"', "-p", "z", "None", "-p", "a", "1e3")
    result = enchannel("run", str(path), "--inplace", *given)
    assert result.stdout == "(1000.0, 5, 'it\\'s \"so\"', None)\n"
    cells = cells_of(path)
    assert cells[2].metadata.tags == ["injected-parameters"]
    assert cells[2].source.startswith("# Parameters\nx = 5\n")
    # Once more they stand in the place of those.
    assert enchannel("run", str(path), "--inplace", "-p", "x", "True").returncode == 0
    assert [cell.source for cell in cells_of(path)][1:3] == [
        "x, y = 1, 2",
        "# Parameters\nx = True",
    ]


def test_parameters_of_a_notebook_that_declares_none(write: Write) -> None:
    result = enchannel("run", str(write("x")), "-p", "x", "inf")
    assert result.stdout == "inf\n"


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("R", '# Parameters\nx = 5\ny = TRUE\nz = "a\\"$b"\nn = NULL\ni = -Inf'),
        ("julia", '# Parameters\nx = 5\ny = true\nz = "a\\"\\$b"\nn = nothing\ni = -Inf'),
        ("bash", "# Parameters\nx=5\ny=true\nz='a\"$b'\nn=''\ni=-inf"),
    ],
)
def test_parameters_in_other_languages(write: Write, language: str, source: str) -> None:
    from enchannel._cli.notebook import Notebook, Options, value_of
    from enchannel._cli.notebook_file import NotebookFile

    path = write("x", kernelspec={"name": "k", "display_name": "K", "language": language})
    given = {"x": "5", "y": "True", "z": 'a"$b', "n": "None", "i": "-inf"}
    options = Options(parameters={name: value_of(text) for name, text in given.items()})
    assert Notebook(NotebookFile(path), options).cells[0].code == source


@pytest.mark.parametrize(
    ("language", "names", "others"),
    [
        ("python", ("x", "é", "match"), ("class", "x.y", "1x", "x y", "")),
        ("R", ("x", "x.y", "class"), ("_x", "1x", "x-y")),
        ("julia", ("x", "_x"), ("x.y", "1x")),
        ("bash", ("x", "_X1"), ("x.y", "é", "x-y")),
    ],
)
def test_a_parameter_is_a_name_of_the_language(
    write: Write, language: str, names: Sequence[str], others: Sequence[str]
) -> None:
    from enchannel._cli.command import Failure
    from enchannel._cli.notebook import Notebook, Options
    from enchannel._cli.notebook_file import NotebookFile

    path = write("x", kernelspec={"name": "k", "display_name": "K", "language": language})
    for name in names:
        notebook = Notebook(NotebookFile(path), Options(parameters={name: 1}))
        assert name in notebook.cells[0].code
    for name in others:
        with pytest.raises(Failure, match="-p sets a name"):
            Notebook(NotebookFile(path), Options(parameters={name: 1}))


# Files.


def test_what_is_written_keeps_its_mode_and_its_link(write: Write, tmp_path: Path) -> None:
    path = write("1")
    path.chmod(0o640)
    link = tmp_path / "link.ipynb"
    link.symlink_to(path)
    assert enchannel("run", str(link), "--inplace").returncode == 0
    assert link.is_symlink()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert cells_of(path)[0].execution_count == 1


def test_what_no_file_can_hold_is_written_all_the_same(write: Write) -> None:
    path = write("print('\\ud800'); display({'application/json': {}}, raw=True)")
    result = enchannel("run", str(path), "--inplace")
    assert result.returncode == 0
    assert json.loads(path.read_bytes())["cells"][0]["execution_count"] == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("{path}", "print(1)"), "a notebook is run alone"),
        (("{path}", "-o", "x.ipynb", "--inplace"), "not both"),
        (("{path}", "-o", "-"), "standard output"),
        (("{path}", "-o", "/nowhere/x.ipynb"), "there is no directory /nowhere"),
        (("{path}", "-o", "/"), "/ is a directory"),
        (("{path}", "-o", ""), "an empty text names no file"),
        (("{path}", "-p", "1x", "2"), "'1x' is none"),
        (("{path}", "-p", "class", "2"), "'class' is none in python"),
        (("{path}", "-p", "x.y", "2"), "'x.y' is none in python"),
        (("{path}", "--kernel", "cobol"), "no kernelspec 'cobol'"),
        (("missing.ipynb",), "missing.ipynb: no such file"),
        (("print(1)", "--inplace"), "are for a notebook"),
        (("print(1)", "--cell-timeout", "1"), "are for a notebook"),
        (("{path}", "--cell-timeout", "0"), "no positive number"),
    ],
)
def test_what_cannot_be_run_is_said(write: Write, arguments: Sequence[str], complaint: str) -> None:
    path = write("1")
    result = enchannel("run", *(each.format(path=path) for each in arguments))
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
    assert (result.stdout, result.returncode) == ("", 2)


NOTEBOOK = {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": []}

DEEP = (
    f'{{"nbformat": 4, "nbformat_minor": 4, "metadata": {{}}, "cells": {"[" * 3000}{"]" * 3000}}}'
)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("print(1)", "Notebook does not appear to be JSON: 'print(1)'"),
        ("[]", "it is no object of JSON"),
        ("null", "it is no object of JSON"),
        ("{}", "'metadata' is a required property"),
        ("\xff", "byte 0xff at 0 is no UTF-8"),
        (DEEP, "it is nested too deeply"),
        ({"cells": None}, "cells: None is not of type 'array'"),
        ({"cells": 5}, "cells: 5 is not of type 'array'"),
        ({"cells": {}}, "cells: {} is not of type 'array'"),
        ({"cells": [3]}, "cells.0: 3 is not of type 'object'"),
        ({"metadata": []}, "metadata: [] is not of type 'object'"),
        ({"nbformat_minor": "5"}, "nbformat_minor: '5' is not of type 'integer'"),
        ({"nbformat": "4"}, "nbformat: '4' is not of type 'integer'"),
        ({"nbformat": 5}, "nbformat cannot read it: Unsupported nbformat version 5"),
    ],
)
def test_what_is_no_notebook_is_said(
    tmp_path: Path, content: str | dict[str, Any], fault: str
) -> None:
    path, out = tmp_path / "odd.ipynb", tmp_path / "out.ipynb"
    text = content if isinstance(content, str) else json.dumps(NOTEBOOK | content)
    path.write_bytes(text.encode("latin-1"))
    result = enchannel("run", str(path), "-o", str(out))
    assert result.stderr == f"Error: {path} is no notebook: {fault}\n"
    assert (result.stdout, result.returncode) == ("", 2)
    assert not out.exists()


def test_an_older_notebook(tmp_path: Path) -> None:
    path = tmp_path / "old.ipynb"
    cell = {
        "cell_type": "code",
        "input": "6 * 7",
        "outputs": [],
        "collapsed": False,
        "language": "python",
    }
    content = {
        "nbformat": 3,
        "nbformat_minor": 0,
        "metadata": {},
        "worksheets": [{"cells": [cell]}],
    }
    path.write_text(json.dumps(content))
    assert enchannel("run", str(path)).stdout == "42\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is full")
def test_what_cannot_be_written_is_no_success(write: Write) -> None:
    result = enchannel("run", str(write("1")), "-o", "/dev/full")
    assert (result.stdout, result.returncode) == ("1\n", 2)
    assert result.stderr.startswith("Error: what came of it cannot be written: ")


def test_a_directory_that_goes_is_no_success(write: Write, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    path = write("import os; os.rmdir('out')")
    result = enchannel("run", str(path), "-o", str(tmp_path / "out" / "x.ipynb"))
    assert "cannot be written" in result.stderr
    assert result.returncode == 2


def test_what_was_saved_meanwhile_is_not_overwritten(write: Write, tmp_path: Path) -> None:
    path = write("open('notebook.ipynb', 'a').write(' ')")
    result = enchannel("run", str(path), "--inplace")
    beside = tmp_path / "notebook-run.ipynb"
    assert f"{path} was changed while it ran; what came of it is in {beside}" in result.stderr
    assert result.returncode == 2
    assert path.read_text().endswith("\n ")
    assert cells_of(beside)[0].execution_count == 1
    # Nor is what is beside it already.
    beside.write_text("somebody's own")
    again = enchannel("run", str(path), "--inplace")
    assert "notebook-run-2.ipynb" in again.stderr
    assert beside.read_text() == "somebody's own"
    assert cells_of(tmp_path / "notebook-run-2.ipynb")[0].execution_count == 1


def test_a_notebook_may_be_written_into_a_pipe(write: Write) -> None:
    result = enchannel("run", str(write("1")), "-o", "/dev/stdout")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.removeprefix("1\n"))["cells"][0]["execution_count"] == 1


def test_a_time_limit_says_where(write: Write) -> None:
    result = enchannel("run", str(write("1", "while True: pass")), "--timeout", "1")
    assert result.stderr == "Error: timed out after 1 s, in cell 2 of 2\n"


def test_a_long_name_is_written(tmp_path: Path, write: Write) -> None:
    out = tmp_path / ("\u6f22" * 82 + ".ipynb")
    assert enchannel("run", str(write("1")), "-o", str(out)).returncode == 0
    assert cells_of(out)[0].execution_count == 1
    assert sorted(os.listdir(tmp_path)) == sorted(["notebook.ipynb", out.name])


def test_an_output_that_is_too_deep_costs_no_other(write: Write) -> None:
    deep = "x = []\nfor _ in range(500): x = [x]\ndisplay({'application/json': x, 'text/plain': 'deep'}, raw=True)"
    path = write("print('one')", deep)
    result = enchannel("run", str(path), "--inplace")
    assert result.returncode == 0
    first, second = cells_of(path)
    assert text_of(first) == "one\n"
    assert "too deep" in second.outputs[0].data["text/plain"]


@pytest.mark.parametrize("allowed", [True, False])
def test_ctrl_c_ends_a_notebook_whose_errors_are_allowed(write: Write, allowed: bool) -> None:
    path = write("print('begun', flush=True)\nwhile True: pass", "print('never')")
    options = ["--allow-errors"] if allowed else []
    with Terminal("run", str(path), *options) as terminal:
        terminal.expect("begun")
        terminal.type("\x03")
        terminal.expect("KeyboardInterrupt")
        terminal.expect("Error: cell 1 of 2 was interrupted")
        assert terminal.wait() == 130
        assert "never" not in terminal.shown


@pytest.mark.parametrize(
    "change",
    [
        {"nbformat_minor": None},
        {
            "cells": [
                {
                    "cell_type": "code",
                    "source": 5,
                    "metadata": {},
                    "outputs": [],
                    "execution_count": None,
                }
            ]
        },
    ],
)
def test_odd_notebooks_end_in_no_traceback(write: Write, change: dict[str, Any]) -> None:
    path = write("1")
    content = json.loads(path.read_text()) | change
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    result = enchannel("run", str(path), "-p", "x", "1")
    assert "Traceback" not in result.stderr
    assert result.returncode in (0, 2)
