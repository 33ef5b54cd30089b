"""The command line as a person or a script meets it."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import pytest
import trio
import trio.testing

from enchannel import open_kernel, open_kernel_channels
from enchannel.testing import (
    FakeKernel,
    Request,
    open_fake_kernel,
    open_fake_server,
    stream,
)
from terminal import DEADLINE, Terminal, enchannel, is_gone, wait_for

pytestmark = pytest.mark.anyio

on_trio = pytest.mark.parametrize("anyio_backend", ["trio"], indirect=True)
"""What the command runs on is its own affair."""

T = TypeVar("T")


# What comes out.


def test_output_goes_where_it_belongs() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); display('shown'); 6 * 7"
    result = enchannel("run", code)
    assert (result.stdout, result.stderr, result.returncode) == ("out\n'shown'\n42\n", "err\n", 0)


def test_displays_without_plain_text() -> None:
    code = "display({'text/markdown': '*m*'}, raw=True); display({'image/png': ''}, raw=True)"
    assert enchannel("run", code).stdout == "*m*\n<image/png>\n"


def test_an_error_prints_its_traceback_and_fails() -> None:
    result = enchannel("run", "print('before'); 1/0")
    assert result.stdout == "before\n"
    assert "ZeroDivisionError: division by zero" in result.stderr
    assert "\x1b" not in result.stderr
    assert result.stderr.count("Traceback") == 1
    assert result.returncode == 1


def test_a_line_of_json_for_each_message() -> None:
    result = enchannel("run", "--json", "print('woo')")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert {(line["channel"], line["msg_type"]) for line in lines} == {
        ("iopub", "status"),
        ("iopub", "execute_input"),
        ("iopub", "stream"),
        ("shell", "execute_reply"),
    }
    assert lines[0]["content"] == {"execution_state": "busy"}
    assert result.returncode == 0


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = f"{sys.executable} -m enchannel run 'for i in range(100000): print(i)' | head -n 1"
    result = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert (result.stdout, result.stderr) == ("0\n", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a disk that is full")
@pytest.mark.parametrize("command", ["run 1", "kernels", "--help", "run --help", "--version"])
def test_output_that_cannot_be_written_is_said(command: str) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "enchannel", *command.split()],
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    assert (result.stderr, result.returncode) == ("Error: [Errno 28] No space left on device\n", 2)


def test_a_terminal_without_unicode_is_shown_what_it_can_show() -> None:
    result = enchannel("run", "print('\\u2713')", env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (result.stdout, result.returncode) == ("\\u2713\n", 0)


# What is run.


def test_code_from_standard_input() -> None:
    assert enchannel("run", "-", stdin="x = 2\nx + 1").stdout == "3\n"


def test_several_are_run_in_the_same_kernel(tmp_path: Path) -> None:
    (tmp_path / "cell.py").write_bytes(b"\xef\xbb\xbfprint('from a file', x)\r\n")
    result = enchannel("run", "x = 1", str(tmp_path / "cell.py"), "-", "x", stdin="x += 1")
    assert (result.stdout, result.returncode) == ("from a file 1\n2\n", 0)


def test_what_comes_behind_an_error_is_not_run() -> None:
    result = enchannel("run", "print(1)", "1/0", "print(2)")
    assert (result.stdout, result.returncode) == ("1\n", 1)
    assert result.stderr.count("ZeroDivisionError: division by zero") == 1


async def test_a_running_kernel(anyio_backend: str) -> None:
    async with open_kernel() as kernel:
        existing = ("run", "--existing", str(kernel.connection_file))
        await anyio.to_thread.run_sync(enchannel, *existing, "x = 5")
        by_name = ("run", "--existing", kernel.connection_file.name)
        result = await anyio.to_thread.run_sync(enchannel, *by_name, "x")
        assert (result.stdout, result.returncode) == ("5\n", 0)
        assert kernel.returncode is None


@pytest.mark.parametrize(
    ("name", "module", "code", "output", "failing"),
    [
        ("bash", "bash_kernel", "echo hello", "hello\n", "no-such-command"),
        ("xpython", "xpython", "print('hello')", "hello\n", "1/0"),
    ],
)
def test_other_kernels(
    add_spec: Callable[..., Path], name: str, module: str, code: str, output: str, failing: str
) -> None:
    pytest.importorskip(module)
    if name == "bash":
        argv = (sys.executable, "-m", "bash_kernel", "-f", "{connection_file}")
        add_spec("bash", *argv, language="bash")
    result = enchannel("run", "--kernel", name, code, failing, code)
    if f"no kernelspec {name!r}" in result.stderr:
        pytest.skip(result.stderr)
    # bash says on its standard output, too, that there is no such command.
    assert result.stdout.startswith(output)
    assert result.stdout.count("hello") == 1
    assert (bool(result.stderr), result.returncode) == (True, 1)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--kernel", "cobol", "1"), "no kernelspec 'cobol'"),
        (("--existing", "nowhere.json", "1"), "nowhere.json"),
        (("--existing", "nowhere.json", "--kernel", "python3", "1"), "not both"),
        (("missing.py",), "missing.py: no such file"),
        (("x", "-", "-"), "can be read once only"),
        (("--timeout", "-1", "1"), "-1 is no positive number of seconds"),
        (("--timeout", "nan", "1"), "nan is no positive number of seconds"),
        (("--timeout", "soon", "1"), "'soon' is not a valid float"),
        (("/",), "/: Is a directory"),
        ((), "Missing argument 'CODE"),
    ],
)
def test_what_cannot_be_run_is_said(arguments: tuple[str, ...], complaint: str) -> None:
    result = enchannel("run", *arguments)
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
    assert (result.stdout, result.returncode) == ("", 2)


def test_a_file_that_is_no_text_is_said(tmp_path: Path) -> None:
    path = tmp_path / "cell.py"
    path.write_bytes(b"x = '\xe9'")
    result = enchannel("run", str(path))
    assert f"{path}: byte 0xe9 at 5 is no UTF-8" in result.stderr
    assert (result.stdout, result.returncode) == ("", 2)


def test_a_kernel_that_dies_is_said() -> None:
    result = enchannel("run", "import os; os._exit(3)")
    assert "process exited with status 3" in result.stderr
    assert result.returncode == 2


def test_help_and_version() -> None:
    help_ = enchannel("run", "--help").stdout
    assert "Run CODE, or a notebook, in a kernel" in help_
    assert "124" in help_
    assert "Exit status" in enchannel("kernels", "--help").stdout
    version = enchannel("--version").stdout
    assert version.startswith("enchannel, version ")
    assert version.count("\n") == 1


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_what_the_command_line_needs_is_said(missing: str) -> None:
    code = (
        "import runpy, sys; "
        f"sys.modules[{missing!r}] = None; runpy.run_module('enchannel', run_name='__main__')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    needed = 'the command line needs click and rich: pip install "enchannel[cli]"\n'
    assert (result.stderr, result.returncode) == (needed, 2)


# What the code asks for.

ASKS = "a = input('name? '); b = input(); print(f'<{a}> <{b}>')"


def test_answers_from_a_pipe() -> None:
    result = enchannel("run", ASKS, "input()", stdin="Zoë\r\ntwo\n3")
    assert (result.stdout, result.stderr) == ("<Zoë> <two>\n'3'\n", "")
    assert result.returncode == 0


def test_answers_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "answers").write_text("one\ntwo\n")
    with (tmp_path / "answers").open() as answers:
        result = enchannel("run", ASKS, stdin=answers)
    assert (result.stdout, result.stderr, result.returncode) == ("<one> <two>\n", "", 0)


@pytest.mark.parametrize("stdin", ["pipe", "null", "closed"])
def test_answers_that_end(stdin: str) -> None:
    redirect = {"pipe": "echo one |", "null": "", "closed": ""}[stdin]
    source = {"pipe": "", "null": "</dev/null", "closed": "<&-"}[stdin]
    command = f'{redirect} {sys.executable} -m enchannel run "input(); input()" {source}'
    result = subprocess.run(
        ["/bin/sh", "-c", command], capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert result.stderr == "Error: the code asked for input, and standard input has ended\n"
    assert (result.stdout, result.returncode) == ("", 2)


def test_code_from_standard_input_may_not_ask() -> None:
    result = enchannel("run", "-", stdin="input()\n")
    assert "StdinNotImplementedError" in result.stderr
    assert result.returncode == 1


def test_a_question_is_a_line_of_json_as_well() -> None:
    result = enchannel("run", "--json", "input('name? ')", stdin="me\n")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    (asked,) = [line["content"] for line in lines if line["channel"] == "stdin"]
    assert asked == {"prompt": "name? ", "password": False}
    (answer,) = [line["content"] for line in lines if line["msg_type"] == "execute_result"]
    assert answer["data"]["text/plain"] == "'me'"


def test_a_prompt_is_answered_at_the_terminal() -> None:
    with Terminal("run", f"print('hello'); {ASKS}") as terminal:
        terminal.expect("hello\r\n")
        terminal.expect("name[?] $")
        terminal.type("Zoë\n")
        terminal.expect("name[?] Zoë\r\n|Zoë\r\n")
        terminal.type("two\n")
        terminal.expect("<Zoë> <two>\r\n")
        assert terminal.wait() == 0


def test_a_prompt_is_shown_where_the_output_goes_elsewhere() -> None:
    with Terminal("run", "input('name? ')", stdout=subprocess.PIPE) as terminal:
        terminal.expect("name[?] ")
        terminal.type("me\n")
        assert terminal.wait() == 0
        assert terminal.process.stdout is not None
        assert terminal.process.stdout.read() == b"'me'\n"


def test_a_password_is_not_shown() -> None:
    code = "import getpass; print(len(getpass.getpass('word? ')), input('and? '))"
    with Terminal("run", code) as terminal:
        terminal.expect("word[?] ")
        assert not terminal.echoes()
        terminal.type("secret\n")
        terminal.expect("\r\n")
        terminal.expect("and[?] ")
        terminal.type("seen\n")
        terminal.expect("6 seen")
        assert terminal.wait() == 0
        assert "secret" not in terminal.shown


def test_an_interrupted_password_leaves_the_terminal_as_it_was() -> None:
    with Terminal("run", "import getpass; getpass.getpass('word? ')") as terminal:
        assert terminal.echoes()
        terminal.expect("word[?] ")
        assert not terminal.echoes()
        terminal.type("\x03")
        terminal.expect("\r\n(?s:.*)KeyboardInterrupt")
        assert terminal.wait() == 130
        assert terminal.echoes()


def test_an_interrupted_question_may_be_asked_anew() -> None:
    code = "try: input('one? ')\nexcept KeyboardInterrupt: print(input('two? '))"
    with Terminal("run", code) as terminal:
        terminal.expect("one[?] ")
        terminal.type("\x03")
        terminal.expect("two[?] ")
        terminal.type("answered\n")
        terminal.expect("answered\r\n")
        terminal.expect("answered\r\n")
        assert terminal.wait() == 0


def test_the_end_of_the_terminals_input() -> None:
    with Terminal("run", "input('name? ')") as terminal:
        terminal.expect("name[?] ")
        terminal.type("\x04")
        terminal.expect("\r\n")
        terminal.expect("Error: the code asked for input, and standard input has ended")
        assert terminal.wait() == 2


# How it is stopped.

STUBBORN = """
import os
try:
    print(os.getpid(), 'begun', flush=True)
    while True: pass
except KeyboardInterrupt:
    print('goes on', flush=True)
    while True: pass
"""


def test_ctrl_c_interrupts_the_code() -> None:
    with Terminal("run", "print('begun', flush=True)\nwhile True: pass", "print(2)") as terminal:
        terminal.expect("begun")
        terminal.type("\x03")
        terminal.expect("KeyboardInterrupt")
        assert terminal.wait() == 130
        assert "2" not in terminal.shown.splitlines()


def test_a_second_ctrl_c_stops() -> None:
    with Terminal("run", STUBBORN) as terminal:
        pid = terminal.expect(r"(\d+) begun")[1]
        terminal.type("\x03")
        terminal.expect("goes on")
        terminal.type("\x03")
        assert terminal.wait() == 130
        assert is_gone(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_other_signals_stop(number: signal.Signals) -> None:
    with Terminal("run", STUBBORN) as terminal:
        pid = terminal.expect(r"(\d+) begun")[1]
        terminal.process.send_signal(number)
        assert terminal.wait() == 128 + number
        assert is_gone(pid)


def test_ctrl_c_stops_what_has_not_begun(add_spec: Callable[..., Path], tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    code = f"import os, time; open({str(begun)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    add_spec("slow", sys.executable, "-c", code)
    with Terminal("run", "--kernel", "slow", "1") as terminal:
        pid = wait_for(begun)
        terminal.type("\x03")
        assert terminal.wait() == 130
        assert is_gone(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_check_that_is_stopped_leaves_no_kernel(
    add_spec: Callable[..., Path], tmp_path: Path, number: signal.Signals
) -> None:
    begun = tmp_path / "begun"
    code = f"import os, time; open({str(begun)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    add_spec("slow", sys.executable, "-c", code)
    with Terminal("check", "slow") as terminal:
        pid = wait_for(begun)
        terminal.process.send_signal(number)
        assert terminal.wait() == 128 + number
        assert is_gone(pid)


def test_a_signal_that_is_ignored_stays_so() -> None:
    code = "import os, signal; os.kill({}, signal.SIGHUP); print('nobody minds')"
    command = f"trap '' HUP; exec {sys.executable} -m enchannel run -"
    process = subprocess.Popen(
        ["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        stdout, _ = process.communicate(code.format(process.pid), timeout=DEADLINE)
    assert (stdout, process.returncode) == ("nobody minds\n", 0)


def test_a_timeout_stops() -> None:
    result = enchannel("run", "--timeout", "0.5", "import os\nprint(os.getpid())", "while True: 1")
    assert result.stderr == "Error: timed out after 0.5 s\n"
    assert result.returncode == 124
    assert all(map(is_gone, result.stdout.split()))


# With a kernel that does what the test says.


@pytest.fixture
async def fake(anyio_backend: str) -> AsyncIterator[FakeKernel]:
    async with open_fake_kernel(transport="tcp") as kernel:
        yield kernel


@pytest.fixture
def existing(fake: FakeKernel, tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "connection.json").write_text(json.dumps(fake.connection_info.to_dict()))
    return ("run", "--existing", str(tmp_path / "connection.json"))


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    return await anyio.to_thread.run_sync(function, *arguments, abandon_on_cancel=True)


@on_trio
async def test_a_kernel_that_asks_although_it_may_not(
    fake: FakeKernel, existing: tuple[str, ...]
) -> None:
    async def ask(request: Request) -> None:
        await request.input("name? ")

    fake.script("ask", ask, stream("went on\n"))
    result = await in_thread(lambda: enchannel(*existing, "-", stdin="ask"))
    assert (result.stdout, result.stderr, result.returncode) == ("went on\n", "", 0)


@on_trio
async def test_a_timeout_leaves_a_running_kernel_usable(
    fake: FakeKernel, existing: tuple[str, ...]
) -> None:
    fake.script("sleep", lambda _: anyio.sleep(600))
    fake.script("print", stream("usable\n"))
    stopped = await in_thread(enchannel, *existing, "--timeout", "1", "sleep")
    assert (stopped.stderr, stopped.returncode) == ("Error: timed out after 1 s\n", 124)
    result = await in_thread(enchannel, *existing, "print")
    assert (result.stdout, result.returncode) == ("usable\n", 0)


@on_trio
async def test_a_timeout_behind_somebody_elses_code_says_that_it_may_still_run(
    fake: FakeKernel, existing: tuple[str, ...]
) -> None:
    fake.script("theirs", stream("begun"), lambda _: anyio.sleep(600))
    async with open_kernel_channels(None, fake.connection_info) as ch:
        async with ch.execute("theirs") as execution:
            async for msg in execution:
                if msg.msg_type == "stream":
                    break
            stopped = await in_thread(enchannel, *existing, "--timeout", "1", "ours")
    assert stopped.stderr == (
        "Error: timed out after 1 s\n"
        "the kernel was busy with other code; the code still waits there, and may be run\n"
    )
    assert stopped.returncode == 124


@on_trio
async def test_ctrl_c_interrupts_a_running_kernel(
    fake: FakeKernel, existing: tuple[str, ...]
) -> None:
    def interrupt() -> int:
        with Terminal(*existing, "sleep") as terminal:
            terminal.expect("begun\r\n")
            terminal.type("\x03")
            terminal.expect("KeyboardInterrupt")
            return terminal.wait()

    fake.script("sleep", stream("begun\n"), lambda _: anyio.sleep(600))
    assert await in_thread(interrupt) == 130


@on_trio
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _: None, "this kernel cannot be interrupted"),
        (lambda _: anyio.sleep(600), "the kernel does not answer to that"),
    ],
    ids=["silent", "stuck"],
)
async def test_a_kernel_that_cannot_be_interrupted_can_be_left(
    fake: FakeKernel,
    existing: tuple[str, ...],
    answer: Callable[[Request], Awaitable[None] | None],
    said: str,
) -> None:
    def interrupt() -> int:
        with Terminal(*existing, "sleep") as terminal:
            terminal.expect("begun")
            terminal.type("\x03")
            terminal.expect("\r\n")
            terminal.expect(rf"{said}; Ctrl-C again stops\r\n")
            terminal.type("\x03")
            return terminal.wait()

    fake.script("sleep", stream("begun"), lambda _: anyio.sleep(600))
    fake.on("interrupt_request", answer)
    assert await in_thread(interrupt) == 130


@on_trio
async def test_the_progress_line_comes_and_goes(
    fake: FakeKernel, existing: tuple[str, ...]
) -> None:
    go_on = anyio.Event()

    async def sleep(_: object) -> None:
        await go_on.wait()

    def watch() -> str:
        with Terminal(*existing, "sleep") as terminal:
            terminal.expect(r"running the code, \d+ s \(Ctrl-C interrupts\)")
            anyio.from_thread.run_sync(go_on.set)
            terminal.expect("woke up\r\n")
            assert terminal.wait() == 0
            return terminal.shown

    fake.script("sleep", sleep, stream("woke up\n"))
    shown = await in_thread(watch)
    drawn, after = shown.rsplit("interrupts)", 1)
    assert "\x1b[?25l" in drawn  # the cursor is hidden, and comes back
    assert "\x1b[?25h" in after
    assert after.index("\x1b[2K") < after.index("woke up")


# The kernels that there are.


async def test_kernels(anyio_backend: str) -> None:
    async with open_kernel() as kernel:
        listed = await in_thread(enchannel, "kernels")
        as_json = await in_thread(enchannel, "kernels", "--json")
    assert (listed.stderr, listed.returncode) == ("", 0)
    assert re.search(
        r"^python3 +Python 3 .*python +/.*/kernels/python3$", listed.stdout, re.MULTILINE
    )
    file = re.escape(kernel.connection_file.name)
    assert re.search(rf"^(idle|alive) +python3 +python +{file}$", listed.stdout, re.MULTILINE)
    assert f"(their connection files are in {kernel.connection_file.parent})" in listed.stdout
    kernels = json.loads(as_json.stdout)
    (python,) = [spec for spec in kernels["installed"] if spec["name"] == "python3"]
    assert python["language"] == "python"
    (running,) = [
        each
        for each in kernels["running"]
        if each["connection_file"] == str(kernel.connection_file)
    ]
    assert (running["kernel_name"], running["alive"]) == ("python3", True)


def test_kernels_at_a_terminal() -> None:
    with Terminal("kernels") as terminal:
        terminal.expect("Installed kernels")
        terminal.expect("python3")
        assert terminal.wait() == 0


def test_no_kernels_at_all() -> None:
    from enchannel._cli.kernels import as_json, as_tables

    assert as_tables([], []) == (
        "No kernels are installed. For Python: pip install ipykernel\n\nNo kernels are running.\n"
    )
    assert json.loads(as_json([], [])) == {"installed": [], "running": []}


# The progress line by a clock of its own.


class Screen(io.StringIO):
    """Standard output and standard error of somebody who looks."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    def take(self) -> str:
        shown = self.getvalue()
        self.seek(0)
        self.truncate()
        return shown


def test_the_progress_line_is_never_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from enchannel._cli.output import Output

    screen = Screen()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)

    async def main() -> None:
        output = Output()

        async def after(seconds: float) -> str:
            await trio.sleep(seconds)
            return screen.take()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(output.draw_progress)
            assert await after(5) == ""  # nothing runs
            output.begin("running cell.py", "Ctrl-C interrupts")
            assert await after(0.8) == ""
            assert re.search(
                r"[⠋-⠿] running cell[.]py, 1 s \(Ctrl-C interrupts\)", await after(0.5)
            )
            await output.note("a line")
            assert screen.take() == "\r\x1b[2K\x1b[?25ha line\n"
            assert "running cell.py, 6 s" in await after(5)
            await output.open_prompt("name? ")
            assert screen.take().endswith("name? ")
            assert await after(5) == ""
            await output.close_prompt(echoed=False)
            assert "running cell.py" in await after(2)
            output.say("Ctrl-C again stops")
            assert "(Ctrl-C again stops)" in await after(0.2)
            await output.end()
            screen.take()
            assert await after(5) == ""
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_no_progress_line_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    from enchannel._cli.output import Output

    async def main() -> None:
        output = Output()
        output.begin("running cell.py", "Ctrl-C interrupts")
        with trio.move_on_after(100):
            await output.draw_progress()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert capsys.readouterr() == ("", "")


@on_trio
async def test_a_server_that_hangs_is_not_waited_for() -> None:
    """Who asks twice is told what may go on there."""
    async with open_fake_server() as server:

        def interrupt() -> tuple[int, str]:
            with Terminal("run", "--server", server.url, "sleep") as terminal:
                terminal.expect("begun")
                server.hangs = True
                for _ in range(4):
                    terminal.type("\x03")
                    # As somebody who loses patience.
                    time.sleep(0.3)
                said = terminal.expect(r"the server does not answer; the kernel (\S+) at")[1]
                return terminal.wait(), said

        server.on_start(
            lambda kernel: kernel.script("sleep", stream("begun"), lambda _: anyio.sleep(600))
        )
        status, kernel_id = await in_thread(interrupt)
        assert status == 130
        assert kernel_id in server.kernels
        server.resume()


@on_trio
async def test_a_server_that_cannot_interrupt_ends_nothing() -> None:
    go_on = anyio.Event()

    async def held(_: object) -> None:
        await go_on.wait()

    async with open_fake_server() as server:

        def interrupt() -> int:
            with Terminal("run", "--server", server.url, "x") as terminal:
                terminal.expect("begun")
                server.refuse(500, {"message": "busy"})
                terminal.type("\x03")
                terminal.expect(r"refuses \(busy\); Ctrl-C again stops\r\n")
                anyio.from_thread.run_sync(go_on.set)
                terminal.expect("done")
                return terminal.wait()

        server.on_start(
            lambda kernel: kernel.script("x", stream("begun\n"), held, stream("done\n"))
        )
        assert await in_thread(interrupt) == 0


@on_trio
async def test_a_second_ctrl_c_deletes_what_was_started_at_a_server() -> None:
    """Also where the code goes on behind the first; and nobody is blamed."""
    over = anyio.Event()

    async def survive(_: object) -> None:
        with anyio.CancelScope(shield=True):
            await over.wait()

    async with open_fake_server() as server:

        def interrupt() -> tuple[int, str]:
            with Terminal("run", "--server", server.url, "survive") as terminal:
                terminal.expect("begun")
                terminal.type("\x03")
                terminal.expect("interrupted; Ctrl-C again stops")
                terminal.type("\x03")
                return terminal.wait(), terminal.shown

        server.on_start(lambda kernel: kernel.script("survive", stream("begun\n"), survive))
        status, shown = await in_thread(interrupt)
        left = list(server.kernels)
        over.set()
    assert (status, left) == (130, [])
    assert "may go on" not in shown


@on_trio
async def test_a_kernel_that_its_server_does_not_delete_is_said() -> None:
    async with open_fake_server() as server:

        def refuse(_: object) -> None:
            server.refuse(403, {"message": "not yours"}, times=10)

        server.on_start(lambda kernel: kernel.script("once", stream("done\n"), refuse))
        result = await in_thread(enchannel, "run", "--server", server.url, "once")
        (left,) = server.kernels
    assert (result.stdout, result.returncode) == ("done\n", 0)
    assert result.stderr == (
        f"Error: the server has not said that it stopped it: the kernel {left} at {server.url} may go on\n"
    )
