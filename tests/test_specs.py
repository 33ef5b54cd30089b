"""Kernelspecs: which is found, what is wrong with one, and what its command becomes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from enchannel import (
    ConnectionFileError,
    KernelLaunchError,
    KernelSpec,
    find_connection_file,
    open_kernel,
)


@pytest.fixture
def jupyter_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    return tmp_path


def made(directory: Path, name: str = "mine", **fields: Any) -> KernelSpec:
    where = directory / "kernels" / name
    where.mkdir(parents=True)
    (where / "kernel.json").write_text(json.dumps({"argv": ["x"], **fields}))
    return KernelSpec.find(name)


def test_python_is_python3_where_nothing_else_is(jupyter_path: Path) -> None:
    made(jupyter_path, "python3", argv=["k"])
    assert KernelSpec.find("Python").name == "python3"
    made(jupyter_path, "python", argv=["another"])
    assert KernelSpec.find("python").argv == ["another"]


@pytest.mark.parametrize("name", ["python", "python3", f"python3.{sys.version_info[1]}"])
def test_our_python_is_ours(jupyter_path: Path, name: str) -> None:
    assert made(jupyter_path, argv=[name, "-m", "k"]).command(Path("f"))[0] == sys.executable


@pytest.mark.parametrize("name", ["python2", "python3.4", "python3.99", "python3.1", "pypy3"])
def test_another_python_is_another(jupyter_path: Path, name: str) -> None:
    assert made(jupyter_path, argv=[name, "-m", "k"]).command(Path("f"))[0] == name


def test_what_makes_another_python_is_not_handed_down(
    jupyter_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = made(jupyter_path)
    monkeypatch.setenv("PYTHONEXECUTABLE", "/somewhere/python")
    assert "PYTHONEXECUTABLE" not in spec.environment({})
    assert spec.environment({"PYTHONEXECUTABLE": "/x"})["PYTHONEXECUTABLE"] == "/x"


@pytest.mark.parametrize(
    ("argv", "speaks"),
    [
        (["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"], True),
        (["python3", "-X", "utf8", "-m", "ipykernel", "-f", "{connection_file}"], True),
        (["python", "-m", "async_kernel", "-f", "{connection_file}"], True),
        (
            [
                "/usr/lib/R/bin/R",
                "--slave",
                "-e",
                "IRkernel::main()",
                "--args",
                "{connection_file}",
            ],
            True,
        ),
        (["/opt/ipykernel/bin/xpython", "-f", "{connection_file}"], False),
        (["/envs/ipykernel-env/bin/python", "-m", "xpython_launcher"], False),
        (["python", "-m", "bash_kernel", "--log", "ipykernel"], False),
        (["/srv/ipykernel/run.sh", "{connection_file}"], False),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="there is no ipc")
def test_who_speaks_ipc(jupyter_path: Path, argv: list[str], speaks: bool) -> None:
    assert made(jupyter_path, argv=argv).speaks_ipc is speaks


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"argv": "python -m mine"}, "argv is a sequence of texts, .*, one for each argument"),
        ({"argv": []}, "argv is empty"),
        ({"argv": [""]}, "argv is empty"),
        ({"argv": [["x"]]}, "argv is a sequence of texts"),
        ({"argv": ["x\0"]}, "NUL"),
        ({"argv": ["\ud800"]}, "argv is a sequence of texts"),
        ({"argv": {"x": 1}}, "argv is a sequence of texts"),
        ({"argv": None}, "argv is a sequence of texts"),
        ({"interrupt_mode": "shout"}, "interrupt_mode is 'signal' or 'message', not 'shout'"),
        ({"interrupt_mode": ["signal"]}, "interrupt_mode is 'signal' or 'message'"),
        ({"env": [1]}, "is no kernelspec"),
        ({"env": {"A": "b\0"}}, "env maps names of variables to texts, without NUL"),
        ({"env": {"A": "\ud800"}}, "env maps names of variables to texts, without NUL"),
        ({"env": {"": "b"}}, "a name in env is not empty, and has no = in it"),
        ({"env": {"A=B": "b"}}, "a name in env is not empty, and has no = in it"),
        ({"metadata": [1]}, "is no kernelspec"),
    ],
)
def test_what_is_wrong_with_one_is_said(
    jupyter_path: Path, fields: dict[str, Any], said: str
) -> None:
    with pytest.raises(KernelLaunchError, match=said) as caught:
        made(jupyter_path, **fields)
    assert caught.value.reason == "broken kernelspec"
    # And it hides no other.
    made(jupyter_path, "good")
    assert "good" in [spec.name for spec in KernelSpec.installed()]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "\ud800"}, "name is a text"),
        ({"name": None}, "name is a text"),
        ({"argv": []}, "argv is empty"),
        ({"argv": "python -m mine"}, "argv is a sequence of texts, .*, one for each argument"),
        ({"argv": [Path("x")]}, "argv is a sequence of texts"),
        ({"argv": ["\ud800"]}, "argv is a sequence of texts"),
        ({"argv": None}, "argv is a sequence of texts"),
        ({"resource_dir": Path("a\0b")}, "resource_dir is the path of a directory"),
        ({"interrupt_mode": "shout"}, "interrupt_mode is 'signal' or 'message', not 'shout'"),
        ({"env": {"A": "b\0"}}, "env maps names of variables to texts, without NUL"),
        ({"env": {"A": 3}}, "env maps names of variables to texts, without NUL"),
        ({"env": {"A=B": "b"}}, "a name in env is not empty, and has no = in it"),
        ({"env": None}, "env is a mapping, not NoneType"),
        ({"metadata": None}, "metadata is a mapping, not NoneType"),
    ],
)
def test_what_is_wrong_with_one_that_was_made_is_said_at_the_call(
    fields: dict[str, Any], said: str
) -> None:
    spec = attrs.evolve(KernelSpec("mine", ["x"], Path()), **fields)
    with pytest.raises(KernelLaunchError, match=f"kernelspec .* cannot be used: {said}") as caught:
        open_kernel(spec)
    assert caught.value.reason == "broken kernelspec"


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_one_whose_name_is_no_text_is_broken(jupyter_path: Path) -> None:
    with pytest.raises(KernelLaunchError, match="is no kernelspec: name is a text"):
        made(jupyter_path, "m\udcffne")


def test_one_that_is_too_deep_is_broken(jupyter_path: Path) -> None:
    where = jupyter_path / "kernels" / "deep"
    where.mkdir(parents=True)
    (where / "kernel.json").write_text("[" * 100_000)
    with pytest.raises(KernelLaunchError, match="is no kernelspec"):
        KernelSpec.find("deep")


@pytest.mark.parametrize("name", ["", "a\0b", "\ud800"])
def test_no_kernelspec_has_such_a_name(jupyter_path: Path, name: str) -> None:
    with pytest.raises(KernelLaunchError, match="no kernelspec .* on the Jupyter path"):
        KernelSpec.find(name)


def test_what_cannot_be_looked_at_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that may not be entered, where one is not root; a name that the system refuses, for everybody."""
    closed = tmp_path / "closed"
    (closed / "kernels" / "hidden").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    paths = [closed, tmp_path / ("x" * 300), tmp_path / "file", tmp_path]
    monkeypatch.setenv("JUPYTER_PATH", os.pathsep.join(map(str, paths)))
    closed.chmod(0)
    try:
        assert made(tmp_path).name == "mine"
        assert "mine" in [spec.name for spec in KernelSpec.installed()]
    finally:
        closed.chmod(0o700)


NOBODY = """
from enchannel import *
import trio
for call in (
    lambda: KernelSpec.find("cobol"),
    KernelSpec.installed,
    open_kernel,
    find_connection_file,
    lambda: trio.run(list_running_kernels),
    write_connection_file,
):
    try:
        call()
    except EnchannelError as error:
        print(type(error).__name__)
"""


def test_nobody_is_at_home() -> None:
    """Without a home directory, as a user of whom only the number is known: in a container, for example."""
    nobody = ["unshare", "--user", "--map-user=54321"]
    if shutil.which("unshare") is None or subprocess.run([*nobody, "true"], check=False).returncode:
        pytest.skip("nobody may be somebody else here")
    known = ("HOME", "JUPYTER_PATH", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")
    env = {name: value for name, value in os.environ.items() if name not in known}
    result = subprocess.run(
        [*nobody, sys.executable, "-c", NOBODY],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=env,
    )
    launch, file = "KernelLaunchError", "ConnectionFileError"
    assert result.stderr == ""
    assert result.stdout.split() == [launch, launch, launch, file, file, file]


def test_a_runtime_directory_that_may_not_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / ("x" * 300)))
    with pytest.raises(ConnectionFileError, match="no connection file"):
        find_connection_file("kernel-12*")
