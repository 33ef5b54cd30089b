"""Each program does what it says."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import anyio
import comm_app
import dashboard
import harness
import httpx
import ported
import pytest
import sandbox

from enchannel import open_kernel

pytestmark = pytest.mark.anyio


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime directory of this test's own."""
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    return tmp_path


async def test_the_sandbox_answers_everybody_or_says_why_not(runtime: Path) -> None:
    answers: list[tuple[int, Any, int]] = []
    pids: set[int] = set()

    async with sandbox.app.router.lifespan_context(sandbox.app):
        transport = httpx.ASGITransport(sandbox.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:

            async def one_client(number: int) -> None:
                for request in range(10):
                    session = (number + request) % sandbox.KERNELS
                    code = f"import os; (os.getpid(), {number} * {request})"
                    if request == 5 and number < 3:
                        code = "import os; os.write(2, b'last words'); os.kill(os.getpid(), 9)"
                    answer = await client.post(
                        f"/sessions/{session}", json={"code": code}, timeout=120
                    )
                    answers.append((answer.status_code, answer.json(), number * request))

            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(one_client, number)
            assert (await client.delete("/sessions/1")).status_code == 204
            for wrong in (b"no JSON", b"{}", b"[]", b'{"code": null}'):
                assert (await client.post("/sessions/1", content=wrong)).status_code == 400
            odd = {"code": "from IPython.display import JSON\nJSON({'a': float('nan')})"}
            assert (await client.post("/sessions/1", json=odd)).status_code == 200
    assert len(answers) == 200
    died = 0
    for status, said, product in answers:
        if status == 502:
            died += 1
            assert "last words" in said["output"]
        else:
            assert (status, said["status"]) == (200, "ok")
            pid, value = said["outputs"][0]["data"]["text/plain"].strip("()").split(", ")
            assert int(value) == product
            pids.add(int(pid))
    assert died >= 3
    # Nothing is left behind.
    assert sandbox.KERNELS <= len(pids) <= sandbox.KERNELS + died
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert list(runtime.iterdir()) == []


async def test_code_of_the_sandbox_has_its_time(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = "while True: pass"
    deaf = "while True:\n try:\n  while True: pass\n except KeyboardInterrupt: pass"
    async with sandbox.app.router.lifespan_context(sandbox.app):
        transport = httpx.ASGITransport(sandbox.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://sandbox") as client:

            async def run(code: str, limit: float = 60.0) -> httpx.Response:
                monkeypatch.setattr(sandbox, "TIME_LIMIT", limit)
                return await client.post("/sessions/me", json={"code": code}, timeout=120)

            kept = (await run("import os; os.getpid()")).json()["outputs"]
            assert (await run(endless, limit=1.0)).status_code == 504
            assert (await run("os.getpid()")).json()["outputs"][0]["data"] == kept[0]["data"]
            assert (await run(deaf, limit=1.0)).status_code == 504
            assert (await run("import os; os.getpid()")).json()["outputs"] != kept


async def test_the_dashboard_shows_the_kernels_of_others(runtime: Path) -> None:
    shown: list[str] = []
    async with open_kernel("python3") as kernel, kernel.open_channels() as ch:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(dashboard.watch_all, shown.append)
            with anyio.fail_after(120):
                while not any(": > 1/0" in line for line in shown):
                    await ch.run("1/0")
                await kernel.restart()
                await ch.run("2")
                while not any("restarts: 1" in line for line in shown):
                    await anyio.sleep(0.01)
                await kernel.kill()
                while not any("connection" in line for line in shown):
                    await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
    name = kernel.connection_file.stem
    assert f"{name}: ! ZeroDivisionError: division by zero" in shown
    assert any(line.startswith((f"{name}: busy", f"{name}: idle")) for line in shown)


async def test_the_harness_finds_nothing_wrong_with_a_good_kernel() -> None:
    async with open_kernel("python3") as kernel, kernel.open_channels() as ch:
        assert await harness.of_our_own(ch) == []


async def test_both_sides_of_the_comm_send() -> None:
    drawn: list[tuple[float, int]] = []

    def draw(step: float, points: array[float]) -> None:
        drawn.append((step, len(points)))

    async with open_kernel("python3") as kernel, kernel.open_channels() as ch:
        async with comm_app.open_signal(ch, 0.1) as comm:
            with anyio.fail_after(120):
                await comm_app.show(comm, 8, draw)
        # The kernel has stopped: it counts no thread that makes a signal.
        code = "import threading; [t for t in threading.enumerate() if 'run' in t.name]"
        while (await ch.run(code)).text != "[]\n":
            await anyio.sleep(0.01)
    assert [points for _, points in drawn] == [100] * 8
    assert drawn[0][0] == 0.1
    assert drawn[-1][0] == 0.2


async def test_what_was_ported_works(capsys: pytest.CaptureFixture[str]) -> None:
    with anyio.fail_after(120):
        assert await ported.main(lambda prompt, password: "world") == "'as good as new'\n"
    out = capsys.readouterr().out
    assert "hello, world" in out
    assert "'print'" in out
    assert "the kernel was restarted" in out


def test_they_are_short() -> None:
    for path in Path(ported.__file__).parent.glob("*.py"):
        assert len(path.read_text().splitlines()) < 90, path.name
