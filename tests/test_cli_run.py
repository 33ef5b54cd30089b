"""``enchannel run`` in this process, beside a kernel that does what the test says."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import attrs
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from enchannel import Message, open_kernel_channels
from enchannel._cli.code import work_of
from enchannel._cli.output import Output
from enchannel._cli.run import Run
from enchannel._cli.target import Target
from enchannel.testing import FakeKernel, Request, open_fake_kernel, stream

pytestmark = [
    pytest.mark.anyio,
    # What the command runs on is its own affair.
    pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True),
]


@pytest.fixture
async def fake(anyio_backend: str) -> AsyncIterator[FakeKernel]:
    async with open_fake_kernel(transport="tcp") as kernel:
        yield kernel


@attrs.frozen
class Command:
    """``enchannel run --existing FILE``, without the reading of the arguments."""

    kernel: FakeKernel
    directory: Path
    capture: pytest.CaptureFixture[str]

    async def __call__(
        self, *code: str, timeout: float | None = None, **notebook: Any
    ) -> tuple[int, str, str]:
        """Its status, and what it has written to standard output and to standard error."""
        file = self.directory / "connection.json"
        file.write_text(json.dumps(self.kernel.connection_info.to_dict()))
        options = {
            "output": None,
            "inplace": False,
            "allow_errors": False,
            "cell_timeout": None,
            "parameters": (),
            **notebook,
        }
        target = Target(existing=str(file))
        work = work_of(code, target, **options)
        run = Run(work, target, output=Output(), answers=None, timeout=timeout)
        status = await run()
        return (status, *self.capture.readouterr())

    def notebook(self, *cells: str) -> Path:
        path = self.directory / "notebook.ipynb"
        nbformat.write(new_notebook(cells=list(map(new_code_cell, cells))), path)
        return path


@pytest.fixture
def run(fake: FakeKernel, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(fake, tmp_path, capfd)


def texts(path: Path) -> list[str]:
    """What the cells of a notebook have printed."""
    content = nbformat.read(path, as_version=4)
    nbformat.validate(content)
    return ["".join(each.get("text", "") for each in cell.outputs) for cell in content.cells]


def nested(levels: int, value: object) -> object:
    for _ in range(levels):
        value = [value]
    return value


# What is written.


def opens_widget(comm_id: str, **state: object) -> Callable[[Request], None]:
    content = {
        "comm_id": comm_id,
        "target_name": "jupyter.widget",
        "data": {"state": {"_model_name": "Model", **state}},
    }

    def step(request: Request) -> None:
        request.publish("comm_open", content)

    return step


async def test_a_widget_that_is_too_deep_costs_nothing_else(fake: FakeKernel, run: Command) -> None:
    path = run.notebook("widgets")
    fake.script(
        "widgets",
        opens_widget("deep", value=nested(490, 1)),
        opens_widget("flat", value=1),
        stream("hours of work\n"),
    )
    assert await run(str(path), inplace=True) == (0, "hours of work\n", "")
    assert texts(path) == ["hours of work\n"]
    (widgets,) = nbformat.read(path, as_version=4).metadata.widgets.values()
    assert list(widgets.state) == ["flat"]


async def test_a_language_that_is_too_deep_costs_nothing(fake: FakeKernel, run: Command) -> None:
    language = {"name": "odd", "deep": nested(490, 1)}

    def tamper(_: str, message: Message) -> list[Message]:
        if message.msg_type == "kernel_info_reply":
            message = attrs.evolve(message, content={**message.content, "language_info": language})
        return [message]

    fake.tamper(tamper)
    path = run.notebook("x")
    fake.script("x", stream("hours of work\n"))
    assert await run(str(path), inplace=True) == (0, "hours of work\n", "")
    assert texts(path) == ["hours of work\n"]


@pytest.mark.parametrize("what", ["notebook.ipynb", "done.ipynb"])
async def test_a_notebook_that_goes_while_it_runs_is_written(
    fake: FakeKernel, run: Command, tmp_path: Path, what: str
) -> None:
    path, out = run.notebook("away"), tmp_path / what
    if out != path:
        out.write_text("{}")
    fake.script("away", lambda _: path.unlink(), stream("hours of work\n"))
    assert await run(str(path), output=out) == (0, "hours of work\n", "")
    assert texts(out) == ["hours of work\n"]


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="needs a file that nobody reads")
async def test_what_cannot_be_read_any_more_is_not_overwritten(
    fake: FakeKernel, run: Command, tmp_path: Path
) -> None:
    path = run.notebook("odd")

    def replace(_: Request) -> None:
        path.unlink()
        path.symlink_to("/proc/self/mem")

    fake.script("odd", replace, stream("hours of work\n"))
    status, _, told = await run(str(path), inplace=True)
    assert (status, "notebook-run.ipynb" in told) == (2, True)
    assert texts(tmp_path / "notebook-run.ipynb") == ["hours of work\n"]


# How it ends.


async def test_a_kernels_death_is_told_also_where_the_notebook_was_saved_meanwhile(
    fake: FakeKernel, run: Command, tmp_path: Path
) -> None:
    path = run.notebook("die", "never")

    def die(_: Request) -> None:
        path.write_text("somebody's own")
        fake.die("out of memory")

    fake.script("die", stream("said\n"), die)
    status, printed, told = await run(str(path), inplace=True)
    assert (status, printed) == (2, "said\n")
    assert "to the kernel was lost" in told
    assert "what came of it is in" in told
    assert texts(tmp_path / "notebook-run.ipynb") == ["said\n", ""]


async def test_a_time_limit_counts_while_the_kernel_says_nothing_of_itself(
    fake: FakeKernel, run: Command
) -> None:
    """It is silent on control, and busy with somebody else's code."""
    path = run.notebook("never")
    before = path.read_bytes()
    fake.tamper(
        lambda channel, message: (
            [] if channel == "control" and message.msg_type == "kernel_info_reply" else [message]
        )
    )
    fake.script("theirs", stream("begun"), lambda _: anyio.sleep_forever())
    async with (
        open_kernel_channels(None, fake.connection_info) as ch,
        ch.execute("theirs") as execution,
    ):
        async for message in execution:
            if message.msg_type == "stream":
                break
        with anyio.fail_after(60):
            status, printed, told = await run(str(path), inplace=True, timeout=0.5)
    assert (status, printed, told) == (124, "", "Error: timed out after 0.5 s\n")
    # Nothing has run.
    assert path.read_bytes() == before
