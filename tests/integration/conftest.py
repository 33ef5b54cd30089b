from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

AddSpec = Callable[..., Path]


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
