from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from enchannel import Kernel, open_kernel

AddSpec = Callable[..., Path]


@pytest.fixture(scope="session")
def running_kernel() -> Iterator[Kernel]:
    """An ipykernel for all the tests that leave it as it was; attach to its connection file."""
    with start_blocking_portal("trio") as portal:
        with portal.wrap_async_context_manager(open_kernel("python3")) as kernel:
            yield kernel


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Jupyter's runtime directory, of this test alone."""
    directory = tmp_path / "runtime"
    directory.mkdir()
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(directory))
    return directory


@pytest.fixture
def add_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AddSpec:
    """Installs a kernelspec for this test."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))

    def add(name: str, *argv: str, **fields: Any) -> Path:
        directory = tmp_path / "kernels" / name
        directory.mkdir(parents=True)
        (directory / "kernel.json").write_text(json.dumps({"argv": argv, **fields}))
        return directory

    return add
