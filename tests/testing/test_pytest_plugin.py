"""The fixtures under each plugin and mode that people use, each in a pytest of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

FIXTURES = """
import pytest, sniffio_free
from enchannel.testing import stream

{mark}
async def test_it({backend}fake_kernel, kernel_channels, new_fake_kernel):
    assert sniffio_free.library() == {expected}
    other = await new_fake_kernel()
    await kernel_channels.shell.send({{"msg_type": "kernel_info_request"}})
    assert (await kernel_channels.shell.receive()).msg_type == "kernel_info_reply"
    async with other.open_channels() as ch:
        await ch.shell.send({{"msg_type": "kernel_info_request"}})
        assert (await ch.shell.receive()).session == other.session
"""

LIBRARY = """
import sys

def library():
    trio = sys.modules.get("trio")
    return "trio" if trio and trio.lowlevel.in_trio_run() else "asyncio"
"""


def run(
    path: Path, code: str, *options: str, asyncio_mode: str | None = None
) -> subprocess.CompletedProcess[str]:
    scope = "asyncio_default_fixture_loop_scope=function"
    chosen = ["-o", f"asyncio_mode={asyncio_mode}", "-o", scope] if asyncio_mode else []
    (path / "sniffio_free.py").write_text(LIBRARY)
    (path / "test_sample.py").write_text(code)
    (path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\npythonpath = .\n")
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:randomly"),
            *(chosen or ["-p", "no:asyncio"]),
            *options,
        ],
        cwd=path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


TRIO = FIXTURES.format(mark="@pytest.mark.trio", backend="", expected="'trio'")
BARE = FIXTURES.format(mark="", backend="", expected="'trio'")
ANYIO = FIXTURES.format(
    mark="@pytest.mark.anyio", backend="anyio_backend_name, ", expected="anyio_backend_name"
)


@pytest.mark.parametrize(
    ("code", "options", "passed"),
    [
        (TRIO, ["-p", "no:anyio"], 1),
        (BARE, ["-p", "no:anyio", "-o", "trio_mode=true"], 1),
        (ANYIO, ["-p", "no:trio"], 2),
        (TRIO, [], 1),
        (ANYIO, [], 2),
    ],
    ids=["trio strict", "trio mode", "anyio", "trio, both loaded", "anyio, both loaded"],
)
def test_the_fixtures_run_under(tmp_path: Path, code: str, options: list[str], passed: int) -> None:
    result = run(tmp_path, code, *options)
    assert f"{passed} passed" in result.stdout, result.stdout
    assert result.returncode == 0


def test_a_failed_test_shows_the_conversation(tmp_path: Path) -> None:
    code = TRIO + "    assert False, 'on purpose'\n"
    result = run(tmp_path, code, "-p", "no:anyio")
    assert "conversation with fake kernel 1" in result.stdout
    assert "conversation with fake kernel 2" in result.stdout
    assert "> shell kernel_info_request" in result.stdout
    assert "< iopub status busy" in result.stdout


in_each_style = pytest.mark.parametrize(
    ("mark", "backend", "options", "each"),
    [
        ("@pytest.mark.trio", "", ["-p", "no:anyio"], 1),
        ("@pytest.mark.anyio", "anyio_backend_name, ", ["-p", "no:trio"], 2),
    ],
    ids=["trio", "anyio"],
)

HANDLER = """
import pytest

def fail(request): raise ZeroDivisionError("the handler's own")

{mark}
async def test_asking({backend}fake_kernel, kernel_channels):
    fake_kernel.on("execute_request", fail)
    await kernel_channels.run("1")

{mark}
async def test_waiting({backend}new_fake_kernel):
    kernel = await new_fake_kernel()
    kernel.on("execute_request", fail)
    async with kernel.open_channels() as ch:
        await ch.shell.send({{"msg_type": "execute_request", "content": {{"code": "1"}}}})
        await kernel.transcript.wait_for("< shell execute_reply")

{mark}
async def test_behind_it({backend}fake_kernel, kernel_channels):
    await kernel_channels.run("1")
"""


@in_each_style
def test_a_handler_that_raises_fails_its_test_and_no_other(
    tmp_path: Path, mark: str, backend: str, options: list[str], each: int
) -> None:
    result = run(tmp_path, HANDLER.format(mark=mark, backend=backend), *options)
    assert f"{each} passed" in result.stdout, result.stdout
    assert f"{2 * each} failed" in result.stdout
    assert "ZeroDivisionError: the handler's own" in result.stdout
    assert "* failed: ZeroDivisionError" in result.stdout


OWN = """
import pytest
from enchannel.testing import open_fake_kernel

def fail(request): raise ZeroDivisionError("the step's own")

@pytest.fixture
async def own({backend}):
    async with open_fake_kernel() as kernel:
        kernel.script("1", fail)
        yield kernel

{mark}
async def test_it(own):
    async with own.open_channels() as ch:
        await ch.run("1")
"""


@in_each_style
def test_a_step_that_raises_in_a_fixture_of_ones_own_hangs_nobody(
    tmp_path: Path, mark: str, backend: str, options: list[str], each: int
) -> None:
    result = run(tmp_path, OWN.format(mark=mark, backend=backend), *options)
    assert f"{each} failed" in result.stdout, result.stdout
    assert "ZeroDivisionError: the step's own" in result.stdout


OUTCOMES = """
import anyio, asyncio, pytest

{mark}
async def test_failing({backend}fake_kernel, kernel_channels):
    fake_kernel.script("x", lambda request: pytest.fail("not expected: " + request.content["code"]))
    await kernel_channels.run("x")

{mark}
async def test_raising({backend}new_fake_kernel):
    def handler(request):
        with pytest.raises(ValueError): pass
    kernel = await new_fake_kernel()
    kernel.on("execute_request", handler)
    async with kernel.open_channels() as ch:
        await ch.run("x")

{mark}
async def test_skipping({backend}fake_kernel, kernel_channels):
    fake_kernel.script("x", lambda request: pytest.skip("nothing of this here"))
    await kernel_channels.run("x")

{mark}
async def test_cancelling({backend}fake_kernel, kernel_channels):
    async def give_up(request):
        with anyio.move_on_after(0.01): await anyio.sleep(3600)
        request.publish("stream", {{"name": "stdout", "text": "given up"}})
    fake_kernel.script("x", give_up)
    assert (await kernel_channels.run("x")).text == "given up"
"""


@pytest.mark.parametrize(
    ("mark", "backend", "options", "each"),
    [
        ("@pytest.mark.trio", "", ["-p", "no:anyio"], 1),
        ("@pytest.mark.anyio", "anyio_backend_name, ", ["-p", "no:trio"], 2),
        ("", "", ["-p", "no:trio"], 1),
    ],
    ids=["trio", "anyio", "asyncio"],
)
def test_a_step_may_fail_or_skip_its_test(
    tmp_path: Path, mark: str, backend: str, options: list[str], each: int
) -> None:
    code = OUTCOMES.format(mark=mark, backend=backend)
    result = run(tmp_path, code, "-rs", *options, asyncio_mode=None if mark else "auto")
    assert f"{each} passed" in result.stdout, result.stdout
    assert f"{3 * each} failed" in result.stdout
    for told in ("Failed: not expected: x", "DID NOT RAISE", "nothing of this here"):
        assert told in result.stdout


def test_a_passed_test_shows_none(tmp_path: Path) -> None:
    assert "conversation" not in run(tmp_path, TRIO, "-p", "no:anyio", "-rA").stdout


def test_without_a_kernelspec_a_real_kernel_is_skipped_with_the_reason(tmp_path: Path) -> None:
    code = (
        "import pytest\n"
        "@pytest.mark.trio\n"
        "@pytest.mark.parametrize('real_kernel_name', ['cobol'])\n"
        "async def test_it(real_kernel): raise AssertionError('it ran')\n"
    )
    result = run(tmp_path, code, "-p", "no:anyio", "-rs")
    assert "1 skipped" in result.stdout
    assert "needs a real kernel: no kernelspec 'cobol'" in result.stdout


def test_who_uses_no_fixture_imports_one_module_more(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path

def test_it():
    Path("modules").write_text("\\n".join(sys.modules))
"""
    imported = []
    for options in ([], ["-p", "no:enchannel"]):
        assert run(tmp_path, code, *options).returncode == 0
        imported.append(set((tmp_path / "modules").read_text().split()))
    assert imported[0] - imported[1] == {"pytest_enchannel"}


# Beside pytest-asyncio.

ASYNCIO = """
import pytest
from enchannel import KernelDied

{mark}
async def test_channels(fake_kernel, kernel_channels, new_fake_kernel):
    await kernel_channels.shell.send({{"msg_type": "kernel_info_request"}})
    assert (await kernel_channels.shell.receive()).msg_type == "kernel_info_reply"
    async with (await new_fake_kernel()).open_channels() as ch:
        await ch.shell.send({{"msg_type": "kernel_info_request"}})
    fake_kernel.die()
    with pytest.raises(KernelDied):
        await kernel_channels.main.receive()

{mark}
async def test_a_real_one(real_kernel, real_kernel_channels):
    assert real_kernel.spec.name == "python3"
    async with real_kernel_channels.execute("print(1)") as execution:
        async for _ in execution: pass
    assert execution.outputs[0]["text"] == "1\\n"
"""
MARKED = ASYNCIO.format(mark="@pytest.mark.asyncio")
ON_ANYIO = (
    "import pytest\n@pytest.mark.anyio\n"
    "async def test_it(kernel_channels): await kernel_channels.kernel_info()\n"
)
ON_ANYIO_TRIO = ON_ANYIO.replace(
    "@pytest.mark.anyio", "@pytest.fixture\ndef anyio_backend(): return 'trio'\n@pytest.mark.anyio"
)
IN_ANOTHER_LOOP = ON_ANYIO.replace("anyio", "asyncio(loop_scope='module')")
ON_TRIO = "import pytest\n@pytest.mark.trio\nasync def test_it(fake_kernel): pass\n"


@pytest.mark.parametrize("code", [ASYNCIO.format(mark=""), MARKED], ids=["bare", "marked"])
@pytest.mark.parametrize(
    "options", [[], ["-p", "no:trio", "-p", "no:anyio"]], ids=["with others", "alone"]
)
def test_the_fixtures_run_under_pytest_asyncio(
    tmp_path: Path, code: str, options: list[str]
) -> None:
    result = run(tmp_path, code, *options, asyncio_mode="auto")
    assert "2 passed" in result.stdout, result.stdout
    assert result.returncode == 0


def test_what_fails_under_pytest_asyncio_is_told(tmp_path: Path) -> None:
    code = "async def test_it(fake_kernel, kernel_channels): assert False, 'on purpose'\n"
    result = run(tmp_path, code, asyncio_mode="auto")
    assert "1 failed" in result.stdout, result.stdout
    assert "conversation with fake kernel 1" in result.stdout


@pytest.mark.parametrize(
    ("code", "mode", "told"),
    [
        (MARKED, "strict", "set asyncio_mode = auto, or mark the test with pytest.mark.anyio"),
        (ON_TRIO, "auto", "of a test that it does not run itself: set asyncio_mode = strict"),
        (ON_ANYIO, "auto", "of a test that it does not run itself: set asyncio_mode = strict"),
        (ON_ANYIO_TRIO, "auto", "of a test that it does not run itself: set asyncio_mode"),
        (
            IN_ANOTHER_LOOP,
            "auto",
            "in the event loop of the function, and the test in that of the m",
        ),
    ],
    ids=["strict", "trio", "anyio", "anyio on trio", "another loop"],
)
def test_what_pytest_asyncio_cannot_run_is_refused_with_a_word(
    tmp_path: Path, code: str, mode: str, told: str
) -> None:
    result = run(tmp_path, code, asyncio_mode=mode)
    assert told in result.stdout
    assert "passed" not in result.stdout
    assert "INTERNALERROR" not in result.stdout


@pytest.mark.parametrize("order", [("test_a", "test_b"), ("test_b", "test_a")])
def test_what_is_refused_does_no_harm_to_others(tmp_path: Path, order: tuple[str, str]) -> None:
    code = "import pytest\n" + "".join(
        {
            "test_a": "@pytest.mark.trio\nasync def test_a(fake_kernel): pass\n",
            "test_b": "async def test_b(kernel_channels): pass\n",
        }[name]
        for name in order
    )
    result = run(tmp_path, code, asyncio_mode="auto")
    assert "1 passed, 1 error" in result.stdout, result.stdout


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_what_somebody_else_calls_the_same_is_none_of_ours(tmp_path: Path, mode: str) -> None:
    code = (
        "import pytest\n"
        "@pytest.fixture\ndef fake_kernel(): return 42\n"
        "@pytest.mark.asyncio\nasync def test_it(fake_kernel): assert fake_kernel == 42\n"
    )
    result = run(tmp_path, code, asyncio_mode=mode)
    assert "1 passed" in result.stdout, result.stdout


def test_what_a_test_had_is_forgotten_behind_it(tmp_path: Path) -> None:
    code = (
        "import gc, pytest, weakref\n"
        "kept = []\n"
        "@pytest.mark.parametrize('number', range(3))\n"
        "async def test_it(fake_kernel, number): kept.append(weakref.ref(fake_kernel))\n"
        "def test_last():\n"
        "    gc.collect()\n"
        "    assert [each() for each in kept] == [None] * 3\n"
    )
    result = run(tmp_path, code, "-p", "no:anyio", "-o", "trio_mode=true")
    assert "4 passed" in result.stdout, result.stdout


# The real kernel.


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "1 passed"),
        (["--enchannel-kernel", "cobol"], "--enchannel-kernel: no kernelspec 'cobol'"),
    ],
)
def test_which_kernel_is_launched_is_an_option(
    tmp_path: Path, options: list[str], told: str
) -> None:
    code = (
        "async def test_it(real_kernel_channels):\n"
        "    assert (await real_kernel_channels.kernel_info())['implementation'] == 'ipython'\n"
    )
    result = run(tmp_path, code, "-p", "no:anyio", "-o", "trio_mode=true", *options)
    assert told in result.stdout, result.stdout


CASES = """
from functools import partial
from enchannel.testing import KernelSamples, kernel_cases, open_fake_kernel

test_kernel = kernel_cases(open_fake_kernel, samples=KernelSamples(stdout="x"), patience=2)
"""


@pytest.mark.parametrize(
    "options",
    [["-p", "no:anyio", "-o", "trio_mode=true"], ["-p", "no:trio"], ["-p", "no:enchannel"]],
    ids=["trio mode", "anyio", "without the fixtures"],
)
def test_the_checks_of_a_kernel_are_cases(tmp_path: Path, options: list[str]) -> None:
    result = run(tmp_path, CASES, "-rs", "-k", "stdout or kernel-info or subshells", *options)
    assert "1 failed, 2 passed, 1 skipped" in result.stdout, result.stdout
    assert "What code writes to standard output is published as a stream" in result.stdout
    assert "(Streams (stdout, stderr, etc)): no 'hello, world' on stdout" in result.stdout
    assert "there is no sample" not in result.stdout
    assert "'kernel subshells' is not in supported_features" in result.stdout


BROKEN_CASES = """
from contextlib import asynccontextmanager
from enchannel import KernelLaunchError
from enchannel.testing import kernel_cases

@asynccontextmanager
async def opened():
    print("launched".upper())
    raise KernelLaunchError("it does not start")
    yield

test_kernel = kernel_cases(opened)
"""


def test_a_kernel_that_does_not_start_is_launched_once_for_all_its_cases(tmp_path: Path) -> None:
    result = run(tmp_path, BROKEN_CASES, "-s", "-k", "kernel-info or comm-info")
    assert "3 failed" in result.stdout, result.stdout
    assert result.stdout.count("LAUNCHED") == 1
    assert (
        result.stdout.count("\nE       enchannel._exceptions.KernelLaunchError: it does not") == 3
    )


def test_a_kernel_is_opened_once_for_all_its_cases(tmp_path: Path) -> None:
    counted = CASES.replace(
        "kernel_cases(open_fake_kernel",
        "kernel_cases(lambda: (print('LAUNCHED'), open_fake_kernel())[1]",
    )
    result = run(tmp_path, counted, "-s", "-k", "kernel-info or comm-info")
    assert "3 passed" in result.stdout, result.stdout
    assert result.stdout.count("LAUNCHED") == 1
