"""The check of kernels, on a fake one that does all that is checked, and with each fault switched on.

In memory and on a virtual clock: what a kernel leaves out is waited for, and takes no time here.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import anyio
import attrs
import pytest

from enchannel import KernelLaunchError, LocalProtocolError, Message
from enchannel.testing import (
    CheckResult,
    FakeKernel,
    KernelReport,
    KernelSamples,
    Request,
    Step,
    ask,
    check_kernel,
    clear_output,
    display,
    error,
    open_fake_kernel,
    page,
    pause,
    result,
    stream,
    update_display,
)
from virtual_clock import virtual_backend as anyio_backend  # noqa: F401

pytestmark = [pytest.mark.anyio, pytest.mark.once]

SAMPLES = KernelSamples(
    language="fake",
    file_extension=".txt",
    stdout="write",
    stderr="warn",
    result={"one": "1", "two": "2"},
    error="fail",
    late_error="fail late",
    display={"show": "text/html"},
    update_display="update",
    clear_output="clear",
    page="page",
    ask="ask",
    password="ask for a password",
    long="run",
    expression="good",
    bad_expression="bad",
    completion={"zi": ["zip"]},
    complete=["whole"],
    incomplete=["pa"],
    invalid=["?!"],
    inspect="known",
)


async def ask_for_password(request: Request) -> None:
    await request.input("secret? ", password=True)


SCRIPTS: Mapping[str, Sequence[Step]] = {
    "write": [stream("hello, world\n")],
    "warn": [stream("oh", "stderr")],
    "one": [result("1")],
    "two": [result("2")],
    "fail": [error("Failure", "it failed")],
    "fail late": [pause(0.5), error("Failure", "it failed")],
    "show": [display({"text/html": "<b>x</b>"})],
    "update": [display("x", display_id="d"), update_display("y", "d")],
    "clear": [clear_output()],
    "page": [page("much to read")],
    "ask": [ask("name? ")],
    "ask for a password": [ask_for_password],
    "run": [stream("begun\n"), pause(60)],
}


def complete(request: Request) -> Mapping[str, Any]:
    code: str = request.content["code"]
    end: int = request.content["cursor_pos"]
    start = code.rfind("\n", 0, end) + 1
    matches = ["zip"] if code[start:end] == "zi" else []
    return {"matches": matches, "cursor_start": start, "cursor_end": end, "metadata": {}}


def is_complete(request: Request) -> Mapping[str, Any]:
    known = {"whole": "complete", "pa": "incomplete", "?!": "invalid"}
    return {"status": known.get(request.content["code"], "unknown")}


def inspect(request: Request) -> Mapping[str, Any]:
    found = request.content["code"] == "known"
    data = {"text/plain": "well known"} if found else {}
    return {"found": found, "data": data, "metadata": {}}


def history(request: Request) -> Mapping[str, Any]:
    asked = request.content
    said = request.kernel.transcript.messages("< iopub execute_input")
    entries: list[Any] = [
        [7, each.content["execution_count"], each.content["code"]]
        for each in said
        if each.session == request.kernel.session
    ]
    if asked["hist_access_type"] == "range":
        lines = range(asked["start"], asked["stop"])
        entries = [each for each in entries if each[1] in lines and asked["session"] in (0, 7)]
    if asked["hist_access_type"] == "search":
        entries = [each for each in entries if each[2].startswith(asked["pattern"][0])]
    if asked.get("unique"):
        entries = list({each[2]: each for each in entries}.values())
    if asked["hist_access_type"] != "range":
        entries = entries[-asked["n"] :]
    if asked.get("output"):
        entries = [[session, number, [code, None]] for session, number, code in entries]
    return {"history": entries}


def teach(kernel: FakeKernel) -> None:
    for code, steps in SCRIPTS.items():
        kernel.script(code, *steps)
    kernel.script_expression("good", "2")
    kernel.on("complete_request", complete)
    kernel.on("is_complete_request", is_complete)
    kernel.on("inspect_request", inspect)
    kernel.on("history_request", history)


Fault: TypeAlias = "Callable[[FakeKernel], object]"
Make: TypeAlias = "Callable[[], AbstractAsyncContextManager[FakeKernel]]"


def opener(*faults: Fault, **options: Any) -> Make:
    """Opens a fake kernel that does all that is checked, but for its faults."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[FakeKernel]:
        async with open_fake_kernel(subshells=True, debugger=True, **options) as kernel:
            teach(kernel)
            for fault in faults:
                fault(kernel)
            yield kernel

    return opened


async def checked(*faults: Fault, only: Iterable[str] = (), **options: Any) -> KernelReport:
    return await check_kernel(opener(*faults, **options), samples=SAMPLES, only=only)


ON_SOCKETS = ["iopub-welcome", "heartbeat", "signatures"]


async def test_a_kernel_that_does_all() -> None:
    report = await checked()
    report.raise_if_failed()
    assert [each.name for each in report.not_offered] == ON_SOCKETS


async def test_many_are_gone_before_their_last_idle() -> None:
    fault = dropping_statuses_of("shutdown_request", "idle")
    (await checked(fault, only=["idle", "shutdown"])).raise_if_failed()


# Faults in what is sent.


def dropping(msg_type: str, **content: Any) -> Fault:
    """Leaves out messages of this type, those that say `content`."""

    def tamper(_: str, message: Message) -> list[Message]:
        said = content.items() <= message.content.items()
        return [] if message.msg_type == msg_type and said else [message]

    return lambda kernel: kernel.tamper(tamper)


def dropping_statuses_of(request: str, state: str) -> Fault:
    """Leaves out this status around requests of this type."""

    def tamper(_: str, message: Message) -> list[Message]:
        is_it = message.content.get("execution_state") == state
        return [] if is_it and message.parent_header.get("msg_type") == request else [message]

    return lambda kernel: kernel.tamper(tamper)


def doubling_the_last_idle(kernel: FakeKernel) -> None:
    def tamper(_: str, message: Message) -> list[Message]:
        is_it = message.content.get("execution_state") == "idle"
        last = is_it and message.parent_header.get("msg_type") == "shutdown_request"
        again = attrs.evolve(message, header={**message.header, "msg_id": "again"})
        return [message, again] if last else [message]

    kernel.tamper(tamper)


def doubling(msg_type: str, **content: Any) -> Fault:
    def tamper(_: str, message: Message) -> list[Message]:
        if message.msg_type != msg_type or not content.items() <= message.content.items():
            return [message]
        header = {**message.header, "msg_id": f"{message.msg_id} again"}
        return [message, attrs.evolve(message, header=header)]

    return lambda kernel: kernel.tamper(tamper)


def saying(msg_type: str, **content: Any) -> Fault:
    """Says this in all messages of this type; what is ``None`` is left out."""
    return saying_in_turn(msg_type, [content])


def saying_in_turn(msg_type: str, contents: Iterable[Mapping[str, Any]]) -> Fault:
    """The same with one of `contents` in each message."""
    endless = itertools.cycle(contents)

    def tamper(_: str, message: Message) -> list[Message]:
        if message.msg_type != msg_type:
            return [message]
        said = {**message.content, **next(endless)}
        return [attrs.evolve(message, content={k: v for k, v in said.items() if v is not None})]

    return lambda kernel: kernel.tamper(tamper)


def heading(**header: Any) -> Fault:
    """Says this in all headers; what is ``None`` is left out."""

    def tamper(_: str, message: Message) -> list[Message]:
        said = {**message.header, **header}
        return [attrs.evolve(message, header={k: v for k, v in said.items() if v is not None})]

    return lambda kernel: kernel.tamper(tamper)


def with_the_session_of_the_client(kernel: FakeKernel) -> None:
    def tamper(_: str, message: Message) -> list[Message]:
        session = message.parent_header.get("session", "")
        return [attrs.evolve(message, header={**message.header, "session": session})]

    kernel.tamper(tamper)


def with_the_parent_of_another_client(kernel: FakeKernel) -> None:
    def tamper(_: str, message: Message) -> list[Message]:
        parent = {**message.parent_header, "session": "another"}
        changed = attrs.evolve(message, parent_header=parent)
        return [changed if message.msg_type == "stream" else message]

    kernel.tamper(tamper)


def without_parents(*channels: str, types: Iterable[str] = ()) -> Fault:
    """Forgets whose what it says on these channels is, all of it or messages of some types."""

    def tamper(channel: str, message: Message) -> list[Message]:
        forgets = channel in channels and (not types or message.msg_type in types)
        return [attrs.evolve(message, parent_header={}) if forgets else message]

    return lambda kernel: kernel.tamper(tamper)


def busy_behind_the_input(kernel: FakeKernel) -> None:
    held: list[Message] = []

    def tamper(_: str, message: Message) -> list[Message]:
        if message.content.get("execution_state") == "busy":
            held.append(message)
            return []
        if message.msg_type == "execute_input" or message.msg_type.endswith("_reply"):
            return [message, *taken(held)] if message.msg_type == "execute_input" else [message]
        return [*taken(held), message]

    kernel.tamper(tamper)


def taken(held: list[Message]) -> list[Message]:
    found = held[:]
    held.clear()
    return found


def input_behind_the_output(kernel: FakeKernel) -> None:
    held: list[Message] = []

    def tamper(_: str, message: Message) -> list[Message]:
        if message.msg_type == "execute_input":
            held.append(message)
            return []
        if message.content.get("execution_state") == "idle":
            return [*taken(held), message]
        return [message]

    kernel.tamper(tamper)


# Faults in what is done.


def replying(msg_type: str, content: Mapping[str, Any] | None) -> Fault:
    """Answers requests of this type with `content`, or not at all."""
    return lambda kernel: kernel.on(msg_type, lambda _: content)


def scripted(code: str, *steps: Step) -> Fault:
    return lambda kernel: kernel.script(code, *steps)


def stopping(stop_on_error: bool) -> Step:
    """Does as if the request had said so."""
    return lambda request: request.content.update(stop_on_error=stop_on_error)


def without_expressions(kernel: FakeKernel) -> None:
    kernel.script_expression("bad", "no error")


def replying_on_control(kernel: FakeKernel) -> None:
    def handler(request: Request) -> None:
        content = {"status": "ok", **(complete(request))}
        kernel.send("control", request.identity, "complete_reply", content, parent=request.message)

    kernel.on("complete_request", handler)


def counting_utf_16(kernel: FakeKernel) -> None:
    def handler(request: Request) -> Mapping[str, Any]:
        said = dict(complete(request))
        wide = len(request.content["code"].encode("utf-16-le")) // 2 - len(request.content["code"])
        return {
            **said,
            "cursor_start": said["cursor_start"] + wide,
            "cursor_end": said["cursor_end"] + wide,
        }

    kernel.on("complete_request", handler)


async def ask_whoever(request: Request) -> None:
    await request.input("name? ")


def asking_everybody(kernel: FakeKernel) -> None:
    def step(request: Request) -> None:
        for client in kernel.clients:
            content = {"prompt": "name? ", "password": False}
            kernel.send("stdin", client.identity, "input_request", content, parent=request.message)

    kernel.script("ask", step, stream("enchannel"))


def answering_everybody(kernel: FakeKernel) -> None:
    def tell(request: Request) -> None:
        for client in kernel.clients:
            if client.identity != request.identity:
                content = {"status": "ok", "execution_count": 1}
                kernel.send(
                    "shell", client.identity, "execute_reply", content, parent=request.message
                )

    kernel.script("write", tell, stream("hello, world\n"))


def dying_of(msg_type: str) -> Fault:
    return lambda kernel: kernel.on(msg_type, lambda _: kernel.die())


def falling_silent_at(msg_type: str) -> Fault:
    return lambda kernel: kernel.on(msg_type, lambda _: kernel.go_silent())


def flooding(request: Request) -> None:
    for _ in range(21_000):
        request.publish("stream", {"name": "stdout", "text": "x"})


async def not_to_be_interrupted(request: Request) -> None:
    with anyio.CancelScope(shield=True):
        await anyio.sleep(200)


def with_one_shell(kernel: FakeKernel) -> None:
    """Subshells that wait for the main shell; control too."""
    busy = anyio.Lock()

    async def wait(request: Request) -> None:
        async with busy:
            pass

    async def hold(request: Request) -> None:
        async with busy:
            stream("begun\n")(request)
            await anyio.sleep(60)

    kernel.script("run", hold)
    kernel.script("write", wait, stream("hello, world\n"))


def with_control_behind_shell(kernel: FakeKernel) -> None:
    busy = anyio.Event()
    busy.set()

    async def info(request: Request) -> Mapping[str, Any]:
        await busy.wait()
        return INFO

    async def hold(request: Request) -> None:
        nonlocal busy
        stream("begun\n")(request)
        busy = anyio.Event()
        try:
            await anyio.sleep(60)
        finally:
            busy.set()

    kernel.script("run", hold)
    kernel.on("kernel_info_request", info)


INFO: Mapping[str, Any] = {
    "protocol_version": "5.4",
    "implementation": "fake",
    "implementation_version": "1.0",
    "language_info": {
        "name": "fake",
        "version": "1.0",
        "mimetype": "text/plain",
        "file_extension": ".txt",
    },
    "banner": "",
    "supported_features": ["kernel subshells", "debugger"],
}


def wrong_signatures(kernel: FakeKernel) -> None:
    kernel.script("warn", stream("oh", "stderr"), lambda request: kernel.send_bad_signature())


def no_messages(kernel: FakeKernel) -> None:
    kernel.script("warn", stream("oh", "stderr"), lambda request: kernel.send_malformed())


def counting_on(kernel: FakeKernel) -> None:
    """Counts as if there had been no restart."""

    def tamper(_: str, message: Message) -> list[Message]:
        count = message.content.get("execution_count")
        if count is None:
            return [message]
        return [attrs.evolve(message, content={**message.content, "execution_count": count + 1000})]

    kernel.tamper(tamper)


FAULTS: Mapping[str, tuple[Fault, set[str]]] = {
    "no busy": (dropping("status", execution_state="busy"), {"busy", "shutdown"}),
    "two busy": (doubling("status", execution_state="busy"), {"busy", "shutdown"}),
    "late busy": (busy_behind_the_input, {"busy", "shutdown"}),
    "two idle": (doubling("status", execution_state="idle"), {"idle", "shutdown"}),
    "no idle": (dropping("status", execution_state="idle"), {"idle"}),
    "a state that is none": (
        saying("status", execution_state="resting"),
        {"busy", "idle", "contents", "shutdown"},
    ),
    "no reply": (replying("comm_info_request", None), {"comm-info", "replies"}),
    "two replies": (doubling("is_complete_reply"), {"replies"}),
    "a reply of another name": (
        lambda kernel: kernel.on(
            "comm_info_request", lambda request: request.reply({"comms": {}}, "none") and None
        ),
        {"replies"},
    ),
    "a reply elsewhere": (replying_on_control, {"reply-channels"}),
    "another parent": (with_the_parent_of_another_client, {"parents"}),
    "no parent of some replies": (
        without_parents("shell", types=["comm_info_reply", "complete_reply"]),
        {"parents", "concurrent-requests"},
    ),
    "no parent of replies on control": (without_parents("control"), {"parents"}),
    "no parent of statuses": (without_parents("iopub", types=["status"]), {"parents"}),
    "no date": (heading(date=None), {"headers"}),
    "no real date": (heading(date="today"), {"headers"}),
    "no version": (heading(version=None), {"headers"}),
    "one id": (heading(msg_id="always the same"), {"message-ids"}),
    "the client's session": (with_the_session_of_the_client, {"sessions", "restart"}),
    "wrong signatures": (wrong_signatures, {"wire"}),
    "no messages": (no_messages, {"wire"}),
    "a list as text": (
        scripted(
            "warn", lambda r: r.publish("stream", {"name": "stderr", "text": ["oh"]}) and None
        ),
        {"contents"},
    ),
    "no metadata": (saying("display_data", metadata=None), {"contents"}),
    "no extension": (
        saying("kernel_info_reply", language_info={"name": "fake"}),
        {"kernel-info", "contents"},
    ),
    "no version of the protocol": (
        saying("kernel_info_reply", protocol_version="five"),
        {"kernel-info"},
    ),
    "no output": (dropping("stream", name="stdout"), {"stdout", "stdin", "concurrent-requests"}),
    "no errors": (dropping("stream", name="stderr"), {"stderr"}),
    "no input": (dropping("execute_input"), {"execute-input"}),
    "late input": (input_behind_the_output, {"execute-input"}),
    "another count": (saying("execute_result", execution_count=99), {"execute-result"}),
    "another value": (scripted("two", result("3")), {"execute-result"}),
    "no error on iopub": (dropping("error"), {"error"}),
    "another error": (saying("error", ename="Other"), {"error"}),
    "success of what fails": (scripted("fail"), {"error"}),
    "another display": (scripted("show", display("x")), {"display-data"}),
    "another display_id": (
        scripted("update", display("x", display_id="a"), update_display("y", "b")),
        {"update-display-data"},
    ),
    "no clearing": (scripted("clear"), {"clear-output"}),
    "no page": (scripted("page"), {"page"}),
    "no expressions": (saying("execute_reply", user_expressions=None), {"user-expressions"}),
    "expressions that never fail": (without_expressions, {"user-expressions"}),
    "no completion": (
        replying(
            "complete_request", {"matches": [], "cursor_start": 0, "cursor_end": 2, "metadata": {}}
        ),
        {"complete", "cursor-positions"},
    ),
    "positions in UTF-16": (counting_utf_16, {"cursor-positions"}),
    "all is complete": (replying("is_complete_request", {"status": "complete"}), {"is-complete"}),
    "all is known": (
        replying("inspect_request", {"found": True, "data": {"text/plain": "x"}, "metadata": {}}),
        {"inspect-unknown"},
    ),
    "nothing is known": (
        replying("inspect_request", {"found": False, "data": {}, "metadata": {}}),
        {"inspect"},
    ),
    "another history": (
        replying("history_request", {"history": [[1, 1, "other"]]}),
        {"history-tail", "history-range", "history-search"},
    ),
    "a list of comms": (replying("comm_info_request", {"comms": []}), {"comm-info", "contents"}),
    "a comm left open": (replying("comm_open", None), {"comm-open"}),
    "no prompt": (scripted("ask", stream("enchannel")), {"stdin", "stdin-refused"}),
    "a prompt for who refuses": (
        scripted("ask", ask_whoever, stream("enchannel")),
        {"stdin-refused"},
    ),
    "a prompt for everybody": (asking_everybody, {"stdin-client", "stdin-refused"}),
    "a password in the open": (scripted("ask for a password", ask_whoever), {"password"}),
    "not to be interrupted": (
        scripted("run", stream("begun\n"), not_to_be_interrupted),
        {"interrupt", "control-while-busy", "subshells", "replies", "idle"},
    ),
    "death of an interrupt": (
        dying_of("interrupt_request"),
        {"interrupt", "control-while-busy", "subshells", "survival"},
    ),
    "no reply to an interrupt": (
        dropping("interrupt_reply"),
        {"interrupt", "control-while-busy", "subshells"},
    ),
    "two replies to an interrupt": (doubling("interrupt_reply"), {"replies"}),
    "no busy around an interrupt": (
        dropping_statuses_of("interrupt_request", "busy"),
        {"busy"},
    ),
    "no idle around an interrupt": (
        dropping_statuses_of("interrupt_request", "idle"),
        {"idle"},
    ),
    "nothing is aborted": (
        scripted("fail late", stopping(False), pause(0.5), error("Failure")),
        {"stop-on-error"},
    ),
    "all is aborted": (
        scripted("fail late", stopping(True), pause(0.5), error("Failure")),
        {"go-on-after-error"},
    ),
    "a reply for everybody": (answering_everybody, {"several-clients"}),
    "one shell for all": (with_one_shell, {"subshells"}),
    "control behind shell": (with_control_behind_shell, {"control-while-busy"}),
    "no debugger": (replying("debug_request", None), {"debugger", "replies"}),
    "a count that goes on": (counting_on, {"restart"}),
    "no end": (replying("shutdown_request", {"restart": False}), {"shutdown"}),
    "two farewells": (doubling("shutdown_reply"), {"shutdown"}),
    "no busy at the end": (dropping_statuses_of("shutdown_request", "busy"), {"shutdown"}),
    "two idle at the end": (doubling_the_last_idle, {"shutdown"}),
    "no farewell": (dying_of("shutdown_request"), {"shutdown"}),
    "death of what is unknown": (dying_of("enchannel_check_request"), {"survival"}),
    "silence behind a request": (
        falling_silent_at("inspect_request"),
        {"inspect", "inspect-unknown", "busy", "idle", "replies"},
    ),
    "a flood": (scripted("warn", flooding), {"stderr", "survival"}),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_is_named(name: str, anyio_backend_name: str) -> None:
    fault, expected = FAULTS[name]
    # All checks on Trio, so that none is found that there is not.
    report = await checked(fault, only=() if anyio_backend_name == "trio" else expected)
    assert {each.name for each in report.failed} == expected, str(report)
    assert all(each.seen for each in report.failed)


# Kernels that can hardly be checked.


async def test_a_kernel_that_dies_of_everything_is_launched_again_for_each_check() -> None:
    launched = []

    def count(kernel: FakeKernel) -> None:
        launched.append(kernel)

    names = ["stdout", "stderr", "execute-result", "shutdown"]
    report = await checked(count, dying_of("execute_request"), only=names)
    assert [each.name for each in report.failed] == names[:3]
    assert all(each.seen.startswith("the kernel died: ") for each in report.failed)
    assert len(launched) == 4


async def test_a_kernel_that_does_not_start_has_failed_no_check() -> None:
    @asynccontextmanager
    async def opened() -> AsyncIterator[FakeKernel]:
        raise KernelLaunchError("it does not start")
        yield

    told: list[CheckResult] = []
    with pytest.raises(KernelLaunchError, match="it does not start"):
        await check_kernel(opened, on_result=told.append)
    assert told == []


async def test_a_kernel_that_does_not_start_again_fails_every_further_check() -> None:
    lives = iter([opener(dying_of("execute_request"))])

    @asynccontextmanager
    async def opened() -> AsyncIterator[FakeKernel]:
        for opens in lives:
            async with opens() as kernel:
                yield kernel
            return
        raise KernelLaunchError("it does not start")

    report = await check_kernel(opened, samples=SAMPLES, only=["stdout", "stderr", "shutdown"])
    said = "the kernel could not be started"
    assert [(each.name, each.seen) for each in report.failed][1:] == [
        ("stderr", f"{said}: it does not start"),
        ("shutdown", said),
    ]


async def test_a_kernel_that_says_nothing_fails_every_check() -> None:
    report = await checked(lambda kernel: kernel.go_silent(), only=["kernel-info", "stdin", "busy"])
    assert [each.name for each in report.failed] == ["kernel-info", "stdin", "busy"]


async def test_what_a_kernel_is_may_be_lost_and_said_later() -> None:
    asked = itertools.count()
    report = await checked(
        lambda kernel: kernel.on("kernel_info_request", lambda _: INFO if next(asked) else None),
        only=["kernel-info", "stdout", "subshells"],
    )
    report.raise_if_failed()
    assert len(report.passed) == 3


async def test_a_kernel_that_mutters_and_answers_nothing_is_bounded() -> None:
    @asynccontextmanager
    async def opened() -> AsyncIterator[FakeKernel]:
        async with opener(replying("kernel_info_request", None), dropping("status"))() as kernel:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(mutter, kernel)
                yield kernel
                tasks.cancel_scope.cancel()

    async def mutter(kernel: FakeKernel) -> None:
        while True:
            await anyio.sleep(10)
            kernel.publish("stream", {"name": "stdout", "text": "."})

    began = anyio.current_time()
    with anyio.fail_after(3600):
        report = await check_kernel(opened, only=["kernel-info"])
    assert [each.name for each in report.failed] == ["kernel-info"]
    assert anyio.current_time() - began < 2 * 20 * 30


async def test_without_samples_what_needs_them_is_not_offered() -> None:
    report = await check_kernel(opener(), only=["stdout", "comm-info"])
    assert [(each.name, each.outcome) for each in report.results] == [
        ("stdout", "not offered"),
        ("comm-info", "passed"),
    ]
    assert report.not_offered[0].seen == "there is no sample 'stdout' for fake"


# What is asked for.


async def test_a_check_that_there_is_not_is_told_with_those_that_there_are() -> None:
    with pytest.raises(
        LocalProtocolError, match="no check 'stdin-refusal'; there are kernel-info, "
    ):
        await checked(only=["stdin-refusal"])


async def test_something_that_is_no_kernel_is_told() -> None:
    kernel: Any = 7
    with pytest.raises(LocalProtocolError, match="the name of a kernelspec, .*, not 7"):
        await check_kernel(kernel)
    with pytest.raises(KernelLaunchError, match="no kernelspec 'cobol'"):
        await check_kernel("cobol")


async def test_results_are_told_when_they_are_there() -> None:
    told: list[CheckResult] = []
    names = ["shutdown", "stdout"]
    report = await check_kernel(opener(), samples=SAMPLES, only=names, on_result=told.append)
    assert tuple(told) == report.results
    assert [each.name for each in told] == ["stdout", "shutdown"], "in the order of the checks"


async def test_a_report_is_for_people_and_for_programs() -> None:
    report = await checked(dying_of("execute_request"), only=["kernel-info", "stdout"])
    assert "kernel (fake 1.0, fake): 1 passed, 1 failed, 0 not offered" in str(report)
    with pytest.raises(AssertionError, match="FAIL stdout: What code writes.*\n.*the kernel died"):
        report.raise_if_failed()
    data = report.to_dict()
    assert data["kernel"] == "kernel (fake 1.0, fake)"
    assert [(each["name"], each["outcome"]) for each in data["results"]] == [
        ("kernel-info", "passed"),
        ("stdout", "failed"),
    ]
    json.dumps(data)


def test_samples_come_from_a_dict() -> None:
    samples = KernelSamples.from_dict({"stdout": "x", "result": {"1": "1"}, "complete": ["1"]})
    assert samples == KernelSamples(stdout="x", result={"1": "1"}, complete=["1"])
    with pytest.raises(
        LocalProtocolError, match="'stdot' is no kind of sample; there are language, "
    ):
        KernelSamples.from_dict({"stdot": "x"})
    with pytest.raises(LocalProtocolError, match="Expected `str`, got `int`.*stdout"):
        KernelSamples.from_dict({"stdout": 7})


# What a kernel says may be anything.


async def test_a_kernel_that_takes_its_time_is_not_accused() -> None:
    async def slow(request: Request) -> Mapping[str, Any]:
        await anyio.sleep(20)
        return complete(request)

    def take_time(kernel: FakeKernel) -> None:
        kernel.on("complete_request", slow)

    names = ["complete", "concurrent-requests", "survival", "replies"]
    report = await checked(take_time, only=names)
    report.raise_if_failed()


ODD: Sequence[Any] = [None, 5, "x", True, [], ["x"], [None], {}, {"x": 5}, [[1], 1, "x"]]


@pytest.mark.parametrize(
    ("msg_type", "field"),
    [
        ("kernel_info_reply", "language_info"),
        ("kernel_info_reply", "supported_features"),
        ("kernel_info_reply", "protocol_version"),
        ("execute_reply", "payload"),
        ("execute_reply", "user_expressions"),
        ("execute_reply", "execution_count"),
        ("execute_result", "data"),
        ("display_data", "data"),
        ("update_display_data", "transient"),
        ("complete_reply", "matches"),
        ("history_reply", "history"),
        ("list_subshell_reply", "subshell_id"),
        ("debug_reply", "body"),
        ("comm_info_reply", "comms"),
        ("status", "execution_state"),
        ("stream", "text"),
    ],
)
async def test_whatever_a_kernel_says_becomes_a_report(
    msg_type: str, field: str, anyio_backend_name: str
) -> None:
    if anyio_backend_name == "asyncio":
        pytest.skip("the values have no event loop")
    for first in (0, 3, 7):
        values = [*ODD[first:], *ODD[:first]]
        report = await checked(saying_in_turn(msg_type, [{field: value} for value in values]))
        assert len(report.results) == 52
        json.dumps(report.to_dict())


async def test_what_a_kernel_says_does_not_pass_for_a_line_of_the_report() -> None:
    seen = "nothing\nok   shutdown: all is well\r\nFAIL x"
    result = CheckResult("x", "y", "z", "failed", seen)
    assert [line[:5] for line in str(result).splitlines()] == ["FAIL ", *["     "] * 3]


@pytest.mark.parametrize("patience", [0, -1, float("nan"), float("inf")])
async def test_a_patience_that_is_none_is_told(patience: float) -> None:
    with pytest.raises(LocalProtocolError, match="patience is a positive number of seconds"):
        await check_kernel(opener(), patience=patience)


async def test_a_text_is_no_list_of_checks() -> None:
    with pytest.raises(LocalProtocolError, match=r"only is a list of checks, such as \['stdout'\]"):
        await check_kernel(opener(), only="stdout")


def test_samples_of_the_wrong_type_are_told() -> None:
    wrong: Any = 5
    with pytest.raises(LocalProtocolError, match="the sample 'stdout' is a str, not 5"):
        KernelSamples(stdout=wrong)
    with pytest.raises(LocalProtocolError, match=r"the sample 'complete' is a Sequence.*, not 'c'"):
        KernelSamples(complete="c")


def test_samples_stand_in_the_place_of_those_that_are_known() -> None:
    both = KernelSamples.of_language("python").with_those_of(KernelSamples(stdout="x"))
    assert both.stdout == "x"
    assert both.error == "1 / 0"
