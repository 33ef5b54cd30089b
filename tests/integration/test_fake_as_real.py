"""The fake kernel and a real ipykernel, told the same: what each of them sends, channel by channel.

Compared are types, parents, statuses, counts and outputs, in their order on each channel. Left out is what is no part of
the protocol: the texts of errors, and what ipykernel logs to its standard error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeAlias

import anyio
import pytest

from enchannel import (
    KernelChannels,
    KernelDied,
    Message,
    NoReply,
    Subscription,
    messages,
    open_kernel,
    open_kernel_channels,
)
from enchannel.messages import execute_request
from enchannel.testing import (
    FakeComm,
    FakeKernel,
    ask,
    clear_output,
    display,
    error,
    open_fake_kernel,
    pause,
    result,
    stream,
    update_display,
)
from fault_proxy import FaultProxy

pytestmark = pytest.mark.anyio

COMPARED = ("status", "execution_state", "execution_count", "ename", "name", "text", "code")
COMPARED_TOO = ("prompt", "password", "matches", "found", "comms", "restart", "wait", "success")


def line(message: Message) -> str:
    content = message.content
    told = [f"{name}={content[name]!r}" for name in COMPARED + COMPARED_TOO if name in content]
    data: Any = content.get("data")
    if message.msg_type.startswith("comm_"):
        told.append(f"data={data!r}")
    elif isinstance(data, dict):
        told.append(f"plain={data.get('text/plain')!r}")
    for name, value in (content.get("user_expressions") or {}).items():
        text = (value.get("data") or {}).get("text/plain", value.get("ename"))
        told.append(f"{name}: {value.get('status')} {text}")
    parent = message.parent_header.get("msg_type", "nothing")
    return f"{message.msg_type} {' '.join(told)} for {parent}"


def is_logged(message: Message) -> bool:
    # What has no parent is about the start of a process, or what a library of its writes.
    logs = message.msg_type == "stream" and "No such comm" in message.content["text"]
    return logs or not message.parent_header


def lines(seen: Sequence[tuple[str, Message]]) -> dict[str, list[str]]:
    """What came on each channel; pieces of a text are one."""
    found: dict[str, list[Message]] = {}
    for channel, message in seen:
        before = found.setdefault(channel, [])
        if before and is_more_of(before[-1], message):
            first = before.pop()
            text = first.content["text"] + message.content["text"]
            content = {**message.content, "text": text}
            before.append(Message(first.header, first.parent_header, {}, content))
        elif not is_logged(message):
            before.append(message)
    return {channel: [line(message) for message in found[channel]] for channel in sorted(found)}


def is_more_of(first: Message, second: Message) -> bool:
    return first.msg_type == second.msg_type == "stream" and (
        first.content["name"] == second.content["name"]
    )


class Talk:
    """A client of one of the two, and what came."""

    def __init__(self, ch: KernelChannels, arriving: Subscription) -> None:
        self.ch = ch
        self.seen: list[tuple[str, Message]] = []
        self._arriving = arriving

    async def until(self, done: Callable[[], bool]) -> None:
        with anyio.fail_after(30):
            while not done():
                channel, message = await self._arriving.receive()
                self.seen.append((channel, message))
                if message.msg_type == "input_request":
                    await self.ch.main.send("stdin", messages.input_reply("me", message))

    def has(self, parent: Message, msg_type: str, state: str | None = None) -> bool:
        return any(
            each.is_child_of(parent)
            and each.msg_type == msg_type
            and each.content.get("execution_state") == state
            for _, each in self.seen
        )

    async def ask(self, *requests: Message, channel: str = "shell") -> list[Message]:
        """Sends all at once, and follows them to their ends."""
        sent = [await self.ch.main.send(channel, request) for request in requests]
        await self.until(lambda: all(self.has(each, "status", "idle") for each in sent))
        # Replies come by another way: behind the next one all have come.
        last = await self.ch.main.send(channel, messages.kernel_info_request())
        await self.until(
            lambda: self.has(last, "kernel_info_reply") and self.has(last, "status", "idle")
        )
        self.seen = [each for each in self.seen if not each[1].is_child_of(last)]
        return sent


Told: TypeAlias = "Callable[[Talk], Awaitable[object]]"


def asking(*requests: Message, channel: str = "shell") -> Told:
    return lambda talk: talk.ask(*requests, channel=channel)


async def interrupting(talk: Talk) -> None:
    sent = await talk.ch.main.send("shell", execute_request(LONG))
    await talk.until(lambda: talk.has(sent, "stream"))
    over = lambda: talk.has(sent, "execute_reply") and talk.has(sent, "status", "idle")  # noqa: E731
    while not over():
        (asked,) = await talk.ask(messages.interrupt_request(), channel="control")
        with anyio.move_on_after(5):
            await talk.until(over)
        if not over():
            # One that comes while ipykernel writes what the code has printed may get lost there.
            talk.seen = [each for each in talk.seen if not each[1].is_child_of(asked)]
    # Two threads of ipykernel's publish: in what order is chance.
    talk.seen.sort(key=lambda each: not each[1].is_child_of(sent))


async def with_a_subshell(talk: Talk) -> None:
    await talk.ask(messages.create_subshell_request(), channel="control")
    (subshell,) = [
        each.content["subshell_id"]
        for _, each in talk.seen
        if each.msg_type == "create_subshell_reply"
    ]
    inside = execute_request("4 + 4", subshell_id=subshell)
    await talk.ask(inside)
    await talk.ask(execute_request("4 + 4", subshell_id="no such subshell"))
    for _ in range(2):
        await talk.ask(messages.delete_subshell_request(subshell), channel="control")


async def with_a_comm(talk: Talk) -> None:
    await talk.ask(execute_request(TARGET))
    talk.seen.clear()
    await talk.ask(messages.comm_open("mine", "echo", {"hi": 1}))
    await talk.ask(messages.comm_msg("mine", {"x": 1}))
    for target in (None, "echo", "other"):
        await talk.ask(messages.comm_info_request(target))
    await talk.ask(messages.comm_msg("mine", {"end": 1}))
    await talk.ask(messages.comm_info_request())


async def shutting_down(talk: Talk) -> None:
    sent = await talk.ch.main.send("control", messages.shutdown_request())
    with pytest.raises(KernelDied):
        await talk.until(lambda: False)
    assert talk.has(sent, "shutdown_reply")
    # ipykernel is gone before its last idle is out, or is not.
    talk.seen = [each for each in talk.seen if each[1].content.get("execution_state") != "idle"]


FAILS = "import time; time.sleep(0.5); 1 / 0"
LONG = "print('begun', flush=True); import time; time.sleep(60)"
SHOWS = """
from IPython.display import clear_output, display
handle = display("x", display_id="d")
handle.update("y")
clear_output(wait=True)
"""
ASKS = "print(input('name? '), end='')"
TARGET = """
from ipykernel.comm import Comm

def target(comm, message):
    comm.send({"got": message["content"]["data"]})

    @comm.on_msg
    def echo(message):
        data = message["content"]["data"]
        comm.send({"got": data})
        if data == {"end": 1}:
            comm.close({"bye": 1})

get_ipython().kernel.comm_manager.register_target("echo", target)
"""


def echo(comm: FakeComm, message: Message) -> None:
    if message.msg_type != "comm_close":
        data = message.content["data"]
        comm.send({"got": data})
        if data == {"end": 1}:
            comm.close({"bye": 1})


def teach(fake: FakeKernel) -> None:
    """What ipykernel knows by itself."""
    failure = error("ZeroDivisionError")
    fake.script("print('a')\n1 + 1", stream("a\n"), result("2"))
    fake.script("1 / 0", failure)
    fake.script("print(1)\n2 + 2", stream("1\n"), result("4"))
    fake.script("3 + 3", result("6"))
    fake.script("4 + 4", result("8"))
    fake.script("7", result("7"))
    fake.script("print(1)", stream("1\n"))
    fake.script(FAILS, pause(0.5), failure)
    fake.script(LONG, stream("begun\n"), pause(60))
    fake.script(
        SHOWS,
        display("'x'", display_id="d"),
        update_display("'y'", "d"),
        clear_output(wait=True),
    )
    fake.script(ASKS, ask("name? "))
    fake.script_expression("1 + 1", "2")
    fake.on_comm("echo", echo)


EXPRESSIONS = {"good": "1 + 1", "bad": "no_such_name"}

TALKS: dict[str, Told] = {
    "output and result": asking(execute_request("print('a')\n1 + 1")),
    "error": asking(execute_request("1 / 0")),
    "silent": asking(execute_request("print(1)\n2 + 2", silent=True), execute_request("7")),
    "silent error": asking(execute_request("1 / 0", silent=True)),
    "not stored": asking(execute_request("3 + 3", store_history=False), execute_request("7")),
    "blank": asking(execute_request(" "), execute_request("")),
    "expressions": asking(execute_request("7", user_expressions=EXPRESSIONS)),
    "expressions of what fails": asking(execute_request("1 / 0", user_expressions=EXPRESSIONS)),
    "display": asking(execute_request(SHOWS)),
    "input": asking(execute_request(ASKS, allow_stdin=True)),
    "input refused": asking(execute_request(ASKS)),
    "aborted": asking(
        *(execute_request(code) for code in (FAILS, "print(1)")),
        messages.is_complete_request("1"),
        execute_request("7"),
    ),
    "not aborted": asking(execute_request(FAILS, stop_on_error=False), execute_request("7")),
    "not aborted by silence": asking(execute_request(FAILS, silent=True), execute_request("7")),
    "interrupt": interrupting,
    "completion": asking(messages.complete_request("no_such_name")),
    "inspection": asking(messages.inspect_request("no_such_name")),
    "completeness": asking(messages.is_complete_request("1")),
    "history": asking(messages.history_tail_request(0)),
    "kernel info": asking(messages.kernel_info_request()),
    "kernel info on control": asking(messages.kernel_info_request(), channel="control"),
    "connect": asking(messages.connect_request()),
    "an unknown request": asking(messages.message("no_such_request")),
    "an unknown request on control": asking(messages.message("no_such_request"), channel="control"),
    "a comm to nothing": asking(
        messages.comm_open("mine", "no such target"), messages.comm_msg("mine", {"x": 1})
    ),
    "a comm": with_a_comm,
    "a subshell": with_a_subshell,
    "the debugger": asking(messages.debug_request("debugInfo", seq=1), channel="control"),
    "shutdown": shutting_down,
}


@asynccontextmanager
async def opened(kind: str) -> AsyncIterator[KernelChannels]:
    async with AsyncExitStack() as stack:
        kernel: Any
        if kind == "real":
            kernel = await stack.enter_async_context(open_kernel("python3"))
        else:
            kernel = await stack.enter_async_context(
                open_fake_kernel(transport=kind, subshells=True, debugger=True)  # type: ignore[arg-type]
            )
            teach(kernel)
        try:
            yield await stack.enter_async_context(kernel.open_channels())
        finally:
            if kind == "real":
                # Shown where the test fails: what it logs is nowhere else.
                print(kernel.output)


async def transcripts(kind: str, names: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    found = {}
    async with opened(kind) as ch:
        for name in names:
            told = TALKS[name]
            async with ch.subscribe() as arriving:
                talk = Talk(ch, arriving)
                try:
                    await told(talk)
                except TimeoutError as error:
                    error.add_note(f"{name}: {lines(talk.seen)}, {ch.statistics()}")
                    raise
            found[name] = lines(talk.seen)
    return found


async def test_they_send_the_same(anyio_backend: str) -> None:
    real = await transcripts("real", TALKS)
    assert all("iopub" in talk for talk in real.values()), "nothing was compared"
    # Over sockets its end is noticed behind ten seconds only, by those that it did not launch.
    for kind, names in (("memory", list(TALKS)), ("ipc", list(TALKS)[:-1])):
        fake = await transcripts(kind, names)
        assert fake == {name: real[name] for name in names}


@asynccontextmanager
async def held_up(kind: str, channel: Any) -> AsyncIterator[KernelChannels]:
    """Channels to a kernel, one of which lets nothing pass from it."""
    if kind == "fake":
        async with open_fake_kernel() as fake, fake.open_channels() as ch:
            teach(fake)
            fake.clients[0].inbound[channel].stall()
            yield ch
        return
    async with (
        open_kernel("python3", transport="tcp") as kernel,
        anyio.create_task_group() as tasks,
    ):
        proxy = FaultProxy(kernel.connection_info)
        await tasks.start(proxy.serve)
        async with open_kernel_channels(None, proxy.config) as ch:
            proxy.held.add(channel)
            yield ch
        tasks.cancel_scope.cancel()


async def ask_for_completeness(ch: KernelChannels) -> object:
    return (await ch.request(messages.is_complete_request("1"))).content["status"]


async def ask_control(ch: KernelChannels) -> object:
    return (await ch.request(messages.kernel_info_request(), channel="control")).msg_type


async def run_code(ch: KernelChannels) -> object:
    async with ch.execute("print(1)") as execution:
        async for _ in execution:
            pass
    assert execution.reply is not None
    return [each["text"] for each in execution.outputs]


ASKED: Sequence[tuple[str, Callable[[KernelChannels], Awaitable[object]]]] = [
    ("shell", ask_for_completeness),
    ("shell", run_code),
    ("shell", ask_control),
    ("control", ask_control),
    ("control", run_code),
    ("iopub", ask_for_completeness),
]


async def test_a_stalled_pipe_shows_what_a_held_up_channel_does(anyio_backend: str) -> None:
    outcomes: dict[tuple[str, int], object] = {}

    async def note(kind: str, number: int) -> None:
        channel, ask_it = ASKED[number]
        async with held_up(kind, channel) as ch:
            try:
                outcomes[kind, number] = await ask_it(ch)
            except NoReply as error:
                outcomes[kind, number] = (type(error), str(error))

    async with anyio.create_task_group() as tasks:
        for number in range(len(ASKED)):
            for kind in ("real", "fake"):
                tasks.start_soon(note, kind, number)
    for number in range(len(ASKED)):
        assert outcomes["fake", number] == outcomes["real", number]
    assert sum(isinstance(outcome, tuple) for outcome in outcomes.values()) == 2 * 3
