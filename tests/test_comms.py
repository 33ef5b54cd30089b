"""Comms, subshells and debug sessions against a scripted kernel in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from enchannel import (
    Comm,
    KernelChannels,
    KernelDied,
    LocalProtocolError,
    Message,
    NotImplementedByKernel,
    open_channels,
)
from enchannel.testing import (
    FakeComm,
    FakeKernel,
    MemoryTransport,
    Request,
    memory_transport_pair,
    open_fake_kernel,
)
from memory_kernel import conversation, start
from raw_kernel import message
from virtual_clock import virtual_backend  # noqa: F401

pytestmark = pytest.mark.anyio


async def test_a_comm_is_a_scope() -> None:
    async with conversation() as (ch, kernel, _):
        async with ch.open_comm("target", {"a": 1}, buffers=[b"b"]) as comm:
            _, opened = await kernel.asked()
            assert opened.content["target_name"] == "target"
            assert (opened.content["data"], opened.buffers) == ({"a": 1}, (b"b",))
            await comm.send({"n": 1}, buffers=[b"there"])
            _, sent = await kernel.asked()
            assert sent.content == {"comm_id": comm.comm_id, "data": {"n": 1}}
            kernel.say("comm_msg", opened, comm_id="another's", data={})
            kernel.say("comm_msg", opened, comm_id=comm.comm_id, data={"back": 1})
            assert (await comm.receive()).content["data"] == {"back": 1}
        _, closed = await kernel.asked()
        assert (closed.msg_type, closed.content["comm_id"]) == ("comm_close", comm.comm_id)
        with pytest.raises(anyio.ClosedResourceError):
            await comm.send({})


async def test_a_comm_ends_when_the_kernel_closes_it() -> None:
    async with conversation() as (ch, kernel, _):
        async with ch.open_comm("target") as comm:
            _, opened = await kernel.asked()
            kernel.say("comm_msg", opened, comm_id=comm.comm_id, data={"last": 1})
            kernel.say("comm_close", opened, comm_id=comm.comm_id, data={"why": "done"})
            assert [msg.content["data"] async for msg in comm] == [{"last": 1}]
            assert comm.closing is not None
            assert comm.closing.content["data"] == {"why": "done"}
            assert comm.closed
        # Nobody tells a kernel what it said itself.
        await ch.shell.send({"header": {"msg_type": "x_request"}})
        assert (await kernel.asked())[1].msg_type == "x_request"


async def test_one_task_at_a_time_receives_from_a_comm() -> None:
    async with conversation() as (ch, kernel, tasks):
        async with ch.open_comm("target") as comm:
            _, opened = await kernel.asked()
            receiver = start(tasks, comm.receive)
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.BusyResourceError):
                await comm.receive()
            for number in range(2):
                kernel.say("comm_msg", opened, comm_id=comm.comm_id, data={"n": number})
            got = [await receiver.result(), await comm.receive()]
            assert [msg.content["data"]["n"] for msg in got] == [0, 1]


def ours(ch: KernelChannels) -> Message:
    """What the kernel answers when it opens a comm for us."""
    return ch._core.prepare({"header": {"msg_type": "execute_request"}})


async def test_a_cancelled_comm_is_closed() -> None:
    async with conversation() as (ch, kernel, _):
        with anyio.CancelScope() as scope:
            async with ch.open_comm("target") as comm:
                await kernel.asked()
                scope.cancel()
                await comm.receive()
        assert (await kernel.asked())[1].msg_type == "comm_close"


async def test_a_lost_kernel_ends_its_comms() -> None:
    async with conversation() as (ch, kernel, _):
        with pytest.raises(KernelDied):
            async with ch.open_comm("target") as comm:
                kernel.end.vanish("gone")
                await comm.receive()


async def test_comms_of_the_kernel_go_to_who_accepts_their_target() -> None:
    async with conversation() as (ch, kernel, _):
        parent = ours(ch)
        kernel.say("comm_open", parent, comm_id="0", target_name="mine", data={})
        await anyio.wait_all_tasks_blocked()
        async with ch.accept_comms("mine") as incoming:
            kernel.say("comm_open", parent, comm_id="1", target_name="mine", data={"a": 1})
            kernel.say("comm_msg", parent, comm_id="1", data={"b": 2})
            for comm_id in "23":
                kernel.say("comm_open", parent, comm_id=comm_id, target_name="nobody's", data={})
            comm = await incoming.receive()
            assert comm.opening.content["data"] == {"a": 1}
            assert (await comm.receive()).content["data"] == {"b": 2}
            for comm_id in "23":
                _, closed = await kernel.asked()
                assert (closed.msg_type, closed.content["comm_id"]) == ("comm_close", comm_id)
            assert ch.statistics().sent == {"shell": 2, "control": 0, "stdin": 0, "iopub": 0}
            with pytest.raises(LocalProtocolError, match="being accepted already"):
                async with ch.accept_comms("mine"):
                    pass
        _, closed = await kernel.asked()
        assert (closed.msg_type, closed.content["comm_id"]) == ("comm_close", "1")


async def test_both_sides_may_use_one_target() -> None:
    async with conversation() as (ch, kernel, _):
        with pytest.raises(ZeroDivisionError):
            async with ch.open_comm("both") as ours:
                await kernel.asked()
                async with ch.accept_comms("both"):
                    kernel.say("comm_open", ours.opening, comm_id="1", target_name="both")
                    await anyio.wait_all_tasks_blocked()
                assert (await kernel.asked())[1].content["comm_id"] == "1"
                await ours.send({"still": "open"})
                assert (await kernel.asked())[1].content["data"] == {"still": "open"}
                raise ZeroDivisionError
        assert (await kernel.asked())[1].content["comm_id"] == ours.comm_id


async def test_who_waits_for_comms_is_told_when_no_more_are_accepted() -> None:
    async with conversation() as (ch, _, tasks):
        async with ch.accept_comms("mine") as incoming:
            waiting = start(tasks, incoming.receive)
            await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.EndOfStream):
            await waiting.result()


async def test_an_accepted_comm_is_closed_by_hand_and_may_come_again() -> None:
    async with conversation() as (ch, kernel, _):
        parent = ours(ch)
        async with ch.accept_comms("mine") as incoming:
            kernel.say("comm_open", parent, comm_id="1", target_name="mine")
            async with await incoming.receive() as comm:
                pass
            assert (await kernel.asked())[1].msg_type == "comm_close"
            kernel.say("comm_msg", parent, comm_id="1", data={"too": "late"})
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(anyio.ClosedResourceError):
                await comm.receive()
            kernel.say("comm_close", parent, comm_id="1")
            kernel.say("comm_open", parent, comm_id="1", target_name="mine", data={"again": 1})
            assert (await incoming.receive()).opening.content["data"] == {"again": 1}


async def test_accepted_comms_that_are_closed_do_not_pile_up() -> None:
    async with conversation() as (ch, kernel, _), ch.accept_comms("mine") as incoming:
        for number in range(10):
            # Kernels say nothing of a comm that we have closed, and may use its id again.
            opening = {"comm_id": str(number % 2), "target_name": "mine"}
            kernel.say("comm_open", ours(ch), **opening)
            await (await incoming.receive()).aclose()
            assert (await kernel.asked())[1].msg_type == "comm_close"
        assert ch._conversations.comms._targets["mine"].offered == {}
        assert ch._conversations.comms._comms == {}


async def test_who_waits_for_a_comm_is_told_when_no_more_are_accepted() -> None:
    async with conversation() as (ch, kernel, tasks):
        opening = {"comm_id": "1", "target_name": "mine"}
        async with ch.accept_comms("mine") as incoming:
            kernel.say("comm_open", ours(ch), **opening)
            waiting = start(tasks, (await incoming.receive()).receive)
            await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.EndOfStream):
            await waiting.result()
        async with ch.accept_comms("mine") as incoming:
            kernel.say("comm_open", ours(ch), **opening)
            waiting = start(tasks, (await incoming.receive()).receive)
            await anyio.wait_all_tasks_blocked()
            # In the moment of a loss, whose last words nobody has read.
            ch._core.lose(KernelDied("gone"))
        with pytest.raises(KernelDied, match="gone"):
            await waiting.result()


async def test_comms_need_the_shell_channel() -> None:
    transport, _ = memory_transport_pair()
    transport.channels = ("iopub", "control")
    async with open_channels(transport) as ch:
        with pytest.raises(LocalProtocolError, match="unknown channel 'shell'"):
            ch.accept_comms("mine")
        with anyio.move_on_after(0) as scope:
            async with ch.execute("1", channel="control", interrupt_on_cancel=True):
                await anyio.sleep_forever()
        assert scope.cancelled_caught


async def test_without_anybody_accepting_the_comms_of_the_kernel_are_left_alone() -> None:
    async with conversation() as (ch, kernel, _):
        kernel.say("comm_open", ours(ch), comm_id="1", target_name="x", data={})
        assert (await ch.iopub.receive()).msg_type == "comm_open"
        await ch.shell.send({"header": {"msg_type": "x_request"}})
        assert (await kernel.asked())[1].msg_type == "x_request"


async def test_comms_that_the_kernel_opens_for_another_client_are_left_alone() -> None:
    async with conversation() as (ch, kernel, _):
        theirs = message("execute_request")
        async with ch.accept_comms("mine") as incoming:
            kernel.say("comm_open", theirs, comm_id="1", target_name="mine")
            kernel.say("comm_open", theirs, comm_id="2", target_name="nobody's")
            kernel.say("comm_open", Message({}, {}, {}), comm_id="3", target_name="nobody's")
            kernel.say("comm_open", ours(ch), comm_id="4", target_name="mine")
            assert (await incoming.receive()).comm_id == "4"
        assert (await kernel.asked())[1].content["comm_id"] == "4"
        await ch.shell.send({"header": {"msg_type": "x_request"}})
        assert (await kernel.asked())[1].msg_type == "x_request"


async def test_leaving_many_comms_in_an_outage_takes_one_deadline() -> None:
    async with conversation() as (ch, kernel, _):
        async with ch.accept_comms("mine") as incoming:
            for number in range(20):
                kernel.say("comm_open", ours(ch), comm_id=str(number), target_name="mine")
                await incoming.receive()
            kernel.client.cut("shell", "iopub")
            before = anyio.current_time()
        assert anyio.current_time() - before < 5


@pytest.mark.parametrize("answered", ["before", "behind"])
async def test_a_subshell_whose_creation_was_cancelled_is_deleted(answered: str) -> None:
    async with conversation() as (ch, kernel, tasks):

        async def answer_info() -> tuple[bytes, Message]:
            kernel.reply(
                await kernel.asked("control"),
                "control",
                supported_features=["kernel subshells"],
            )
            return await kernel.asked("control")

        scope = anyio.CancelScope()

        async def enter() -> None:
            with scope:
                async with ch.open_subshell():
                    pytest.fail("the block was entered")

        entering = start(tasks, enter)
        creating = await answer_info()
        assert creating[1].msg_type == "create_subshell_request"
        if answered == "before":
            kernel.reply(creating, "control", subshell_id="sub")
        scope.cancel()
        await entering.result()
        if answered == "behind":
            kernel.reply(creating, "control", subshell_id="sub")
        _, deleting = await kernel.asked("control")
        assert deleting.msg_type == "delete_subshell_request"
        assert deleting.content["subshell_id"] == "sub"


async def test_a_target_is_a_name() -> None:
    async with conversation() as (ch, _, _tasks):
        name: Any
        for name in ("", 5, [], None):
            for function in (ch.open_comm, ch.accept_comms):
                with pytest.raises(LocalProtocolError, match="target_name is the name of a comm"):
                    function(name)


@pytest.mark.parametrize("what", ["open_subshell", "open_debug_session"])
async def test_what_the_kernel_does_not_announce_is_not_asked_for(what: str) -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        kernel.on("kernel_info_request", lambda request: {"status": "ok"})
        with pytest.raises(NotImplementedByKernel, match="the kernel has no"):
            async with getattr(ch, what)():
                pytest.fail("the block was entered")
        assert kernel.transcript.messages("> control *") == []


async def test_a_subshell_is_deleted_on_the_way_out(fake_kernel: FakeKernel) -> None:
    features = {"status": "ok", "supported_features": ["kernel subshells"]}
    fake_kernel.on("kernel_info_request", lambda request: features)
    fake_kernel.on("create_subshell_request", lambda request: {"subshell_id": "s"})
    fake_kernel.on("delete_subshell_request", lambda request: {"status": "ok"})
    async with fake_kernel.open_channels() as ch:
        with pytest.raises(ZeroDivisionError):
            async with ch.open_subshell() as sub:
                await sub.request("is_complete_request", {"code": "1"})
                async with sub.execute("1") as execution:
                    await execution.wait()
                raise ZeroDivisionError
    for sent in ("> shell is_complete_request", "> shell execute_request"):
        (request,) = fake_kernel.transcript.messages(sent)
        assert request.header["subshell_id"] == "s"
    (deleted,) = fake_kernel.transcript.messages("> control delete_subshell_request")
    assert deleted.content == {"subshell_id": "s"}


async def test_a_debug_session_counts_its_requests(fake_kernel: FakeKernel) -> None:
    def answer(request: Any) -> dict[str, Any]:
        number, command = request.content["seq"], request.content["command"]
        if command == "attach":
            request.publish("debug_event", {"type": "event", "event": "initialized"})
        return {"request_seq": number, "success": True, "body": {"seq": number}}

    features = {"status": "ok", "debugger": True}
    fake_kernel.on("kernel_info_request", lambda request: features)
    fake_kernel.on("debug_request", answer)
    async with fake_kernel.open_channels() as ch:
        async with ch.open_debug_session() as debug:
            assert (await debug.receive()).content["event"] == "initialized"
            assert await debug.request("threads") == {"seq": 3}
    commands = [
        (r.content["seq"], r.content["command"])
        for r in fake_kernel.transcript.messages("> control debug_request")
    ]
    assert commands == [(1, "initialize"), (2, "attach"), (3, "threads"), (4, "disconnect")]


async def test_an_attached_debugger_that_nobody_waits_for_any_more_is_let_go(
    fake_kernel: FakeKernel,
) -> None:
    """Half a session would keep everybody from debugging until the kernel is restarted."""
    initialized, may_go_on = anyio.Event(), anyio.Event()

    async def answer(request: Any) -> dict[str, Any]:
        if request.content["command"] == "initialize":
            initialized.set()
            await may_go_on.wait()
        return {"request_seq": request.content["seq"], "success": True, "body": {}}

    features = {"status": "ok", "debugger": True}
    fake_kernel.on("kernel_info_request", lambda request: features)
    fake_kernel.on("debug_request", answer)
    async with fake_kernel.open_channels() as ch, anyio.create_task_group() as tasks:
        scope = anyio.CancelScope()

        async def debug() -> None:
            with scope:
                async with ch.open_debug_session():
                    pytest.fail("the block was entered")

        tasks.start_soon(debug)
        await initialized.wait()
        scope.cancel()
        await anyio.wait_all_tasks_blocked()
        may_go_on.set()
    commands = [
        request.content["command"]
        for request in fake_kernel.transcript.messages("> control debug_request")
    ]
    assert commands == ["initialize", "attach", "disconnect"]


async def test_a_subshell_that_is_created_while_the_channels_are_left_is_deleted(
    fake_kernel: FakeKernel,
) -> None:
    asked = anyio.Event()

    async def create(_: Any) -> dict[str, Any]:
        asked.set()
        await anyio.sleep(0.1)
        return {"status": "ok", "subshell_id": "s"}

    features = {"status": "ok", "supported_features": ["kernel subshells"]}
    fake_kernel.on("kernel_info_request", lambda request: features)
    fake_kernel.on("create_subshell_request", create)
    fake_kernel.on("delete_subshell_request", lambda request: {"status": "ok"})
    async with anyio.create_task_group() as tasks:

        async def use() -> None:
            async with fake_kernel.open_channels() as ch, ch.open_subshell():
                pytest.fail("the block was entered")

        tasks.start_soon(use)
        await asked.wait()
        tasks.cancel_scope.cancel()
    (deleted,) = fake_kernel.transcript.messages("> control delete_subshell_request")
    assert deleted.content == {"subshell_id": "s"}


async def test_nothing_is_accepted_from_a_kernel_that_is_lost() -> None:
    async with conversation() as (ch, kernel, _):
        kernel.end.vanish()
        await ch.wait_lost()
        with pytest.raises(KernelDied):
            async with ch.accept_comms("mine"):
                pytest.fail("the block was entered")
    with pytest.raises(anyio.ClosedResourceError):
        async with ch.accept_comms("mine"):
            pytest.fail("the block was entered")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancellation_on_the_way_out_leaves_no_comm_behind() -> None:
    async with conversation() as (ch, kernel, _):
        entered = asyncio.Event()

        async def use() -> None:
            async with ch.open_comm("target"):
                entered.set()
                await asyncio.sleep(1000)

        task = asyncio.create_task(use())
        await entered.wait()
        await kernel.asked()
        kernel.client.cut("shell")
        task.cancel()
        await anyio.wait_all_tasks_blocked()
        # It waits for the connection, and is told not to.
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        kernel.client.mend("shell")
        with anyio.fail_after(10):
            while (await kernel.asked())[1].msg_type != "comm_close":
                pass


async def test_what_belonged_to_a_lost_connection_is_not_sent_to_the_next() -> None:
    """Nor does it wait for it: a comm that has ended says so where it is sent to as well."""
    async with conversation() as (ch, kernel, tasks):
        async with ch.open_comm("target") as comm:
            await kernel.asked()
            await anyio.wait_all_tasks_blocked()
            kernel.client.cut("shell", "iopub")
            with anyio.fail_after(8):
                sending = start(tasks, comm.send, {})
                with pytest.raises(KernelDied):
                    await comm.receive()
                with pytest.raises(KernelDied):
                    await sending.result()
                with pytest.raises(KernelDied):
                    await comm.send({})


@pytest.mark.parametrize("by", ["the kernel", "hand", "its block"])
async def test_a_send_that_waits_is_told_when_its_comm_is_closed(by: str) -> None:
    """It went to the next kernel otherwise, which may have a comm of that id."""
    async with conversation() as (ch, kernel, tasks):
        async with ch.open_comm("target") as comm:
            _, opened = await kernel.asked()
            await anyio.wait_all_tasks_blocked()
            kernel.client.cut("shell")
            sending = start(tasks, comm.send, {})
            await anyio.wait_all_tasks_blocked()
            assert not sending.done.is_set()
            if by == "the kernel":
                kernel.say("comm_close", opened, comm_id=comm.comm_id)
            elif by == "hand":
                await comm.aclose()
            if by != "its block":
                with pytest.raises(anyio.ClosedResourceError):
                    await sending.result()
        with pytest.raises(anyio.ClosedResourceError):
            await sending.result()


@pytest.mark.parametrize(
    ("block", "ask"),
    [
        (lambda ch: ch.open_subshell(), lambda sub: sub.run("1")),
        (lambda ch: ch.open_debug_session(), lambda session: session.request("threads")),
    ],
)
async def test_what_waits_is_told_when_its_subshell_or_debug_session_is_left(
    block: Any, ask: Any
) -> None:
    async with (
        able_kernel() as kernel,
        kernel.open_channels() as ch,
        anyio.create_task_group() as tasks,
    ):
        async with block(ch) as opened:
            await ch.wait_idle()
            kernel.clients[0].cut()
            waiting = start(tasks, ask, opened)
            await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.ClosedResourceError, match="the block of the .* was left"):
            await waiting.result()


ANNOUNCED = {
    "status": "ok",
    "protocol_version": "5.5",
    "supported_features": ["kernel subshells", "debugger"],
}


async def test_a_debug_session_ends_with_its_kernel_and_with_its_block(
    fake_kernel: FakeKernel,
) -> None:
    """The next kernel's debugger may be somebody else's."""
    answer = {"status": "ok", "success": True, "body": {"seq": 0}}
    fake_kernel.on("kernel_info_request", lambda request: ANNOUNCED)
    fake_kernel.on("debug_request", lambda request: answer)
    async with fake_kernel.open_channels() as ch:
        async with ch.open_debug_session() as debug:
            await debug.request("threads")
        with pytest.raises(anyio.ClosedResourceError, match="debug session was left"):
            await debug.request("threads")
        before = len(fake_kernel.transcript.messages("> control debug_request"))
        async with ch.open_debug_session() as debug:
            await restarted(fake_kernel, ch)
            with pytest.raises(KernelDied):
                await debug.request("threads")
    # initialize and attach, and no more.
    assert len(fake_kernel.transcript.messages("> control debug_request")) == before + 2


async def test_a_subshell_ends_with_its_kernel_and_with_its_block(
    fake_kernel: FakeKernel,
) -> None:
    fake_kernel.on("kernel_info_request", lambda request: ANNOUNCED)
    fake_kernel.on("create_subshell_request", lambda request: {"subshell_id": "s"})
    fake_kernel.on("delete_subshell_request", lambda request: {"status": "ok"})
    async with fake_kernel.open_channels() as ch:
        async with ch.open_subshell() as sub:
            await sub.run("1")
        for late in (sub.run("1"), sub.request("kernel_info_request")):
            with pytest.raises(anyio.ClosedResourceError, match="subshell was left"):
                await late
        with pytest.raises(anyio.ClosedResourceError, match="subshell was left"):
            sub.execute("1")
        async with ch.open_subshell() as sub:
            made = sub.execute("'made before'")
            await restarted(fake_kernel, ch)
            for late in (sub.run("1"), sub.request("kernel_info_request")):
                with pytest.raises(KernelDied):
                    await late
            with pytest.raises(KernelDied):
                async with made:
                    pass
    sent = fake_kernel.transcript.messages("> shell execute_request")
    assert [each.content["code"] for each in sent] == ["1"]
    assert len(fake_kernel.transcript.messages("> control delete_subshell_request")) == 1


async def restarted(kernel: FakeKernel, ch: KernelChannels) -> None:
    await kernel.restart()
    with anyio.fail_after(10):
        while not ch.statistics().restarts:
            await anyio.sleep(0.01)


@pytest.mark.parametrize("data", [5, ["ab"], "ab", [("a", 1)]])
async def test_what_is_said_in_a_comm_is_a_mapping(data: Any) -> None:
    async with conversation() as (ch, _, _tasks), ch.open_comm("target") as comm:
        with pytest.raises(
            LocalProtocolError, match=f"data is a mapping, not {type(data).__name__}"
        ):
            await comm.send(data)
        with pytest.raises(LocalProtocolError, match="metadata is a mapping"):
            await comm.send({}, metadata=data)


def nothing(comm: FakeComm, msg: Message) -> None:
    pass


@asynccontextmanager
async def closed_comm(ch: KernelChannels) -> AsyncIterator[None]:
    async with ch.open_comm("target") as comm:
        yield
        await comm.aclose()


OPENED = [
    pytest.param(lambda ch: ch.open_comm("target"), "> shell comm_close", id="comm"),
    pytest.param(closed_comm, "> shell comm_close", id="closed comm"),
    pytest.param(lambda ch: ch.open_subshell(), "> control delete_subshell_request", id="subshell"),
    pytest.param(lambda ch: ch.open_debug_session(), "disconnect", id="debug session"),
]


@asynccontextmanager
async def able_kernel() -> AsyncIterator[FakeKernel]:
    """A kernel in which all of that can be opened."""
    async with open_fake_kernel(subshells=True, debugger=True) as kernel:
        kernel.on_comm("target", nothing)
        kernel.script("open", open_comm)
        yield kernel


def open_comm(request: Request) -> None:
    request.publish("comm_open", {"comm_id": "c", "target_name": "mine", "data": {}})


def say_in_comm(request: Request) -> None:
    request.publish("comm_msg", {"comm_id": "c", "data": {"number": 1}})


async def all_heard(ch: KernelChannels) -> None:
    """Waits until the kernel has read all that was said to it."""
    with anyio.fail_after(60):
        await ch.request("kernel_info_request", channel="shell")
        await ch.request("kernel_info_request", channel="control")


def times(kernel: FakeKernel, undone: str) -> int:
    if undone == "disconnect":
        asked = kernel.transcript.messages("> control debug_request")
        return sum(each.content["command"] == undone for each in asked)
    return len(kernel.transcript.messages(undone))


@pytest.mark.parametrize(("block", "undone"), OPENED)
async def test_what_is_open_in_a_kernel_that_is_had_back_is_undone_there(
    block: Any, undone: str
) -> None:
    """Though whoever uses it was told that it may be lost."""
    async with able_kernel() as kernel:
        async with kernel.open_channels() as ch:
            async with block(ch):
                await ch.wait_idle()
                kernel.clients[0].cut()
                await anyio.sleep(2)
                kernel.clients[0].mend()
                await ch.wait_idle()
            assert ch.statistics().outages == 1
            await all_heard(ch)
        assert times(kernel, undone) == 1


@asynccontextmanager
async def accepted_comm(ch: KernelChannels) -> AsyncIterator[Comm]:
    async with ch.accept_comms("mine") as comms:
        await ch.run("open")
        yield await comms.receive()


@pytest.mark.parametrize("block", [lambda ch: ch.open_comm("target"), accepted_comm])
async def test_a_comm_that_was_closed_in_vain_is_closed_when_its_block_is_left(block: Any) -> None:
    """In an outage, behind which the kernel is there that has it."""
    async with able_kernel() as kernel, kernel.open_channels() as ch:
        async with block(ch) as comm:
            await ch.wait_idle()
            kernel.clients[0].cut()
            await comm.aclose()
            assert comm.closed
            kernel.clients[0].mend()
            await all_heard(ch)
            assert times(kernel, "> shell comm_close") == 0
        await all_heard(ch)
        (closing,) = kernel.transcript.messages("> shell comm_close")
        assert closing.content["comm_id"] == comm.comm_id


async def test_a_comm_of_the_next_kernel_may_have_the_id_of_one_before() -> None:
    """Though that is not closed yet: its user has what it holds."""
    async with able_kernel() as kernel, kernel.open_channels() as ch:
        kernel.script("open", open_comm, say_in_comm)
        async with ch.accept_comms("mine") as comms:
            old = []
            for _ in range(3):
                await ch.run("open")
                with anyio.fail_after(10):
                    old.append(await comms.receive())
                await restarted(kernel, ch)
            await ch.run("open")
            new = await comms.receive()
            assert (await new.receive()).content["data"] == {"number": 1}
            for comm in old:
                assert (await comm.receive()).content["data"] == {"number": 1}
                with pytest.raises(KernelDied):
                    await comm.receive()
                with pytest.raises(KernelDied):
                    await comm.send({})
            open_comms = ch._conversations.comms._comms
            assert list(open_comms) == list(ch._conversations.comms._targets["mine"].offered)
            assert len(open_comms) == 1
            for comm in old:
                await comm.aclose()
            await new.send({})
            await all_heard(ch)
        await all_heard(ch)
        assert times(kernel, "> shell comm_close") == 1


@pytest.mark.parametrize("away", [True, False])
async def test_comms_that_nobody_takes_any_more_are_closed(away: bool) -> None:
    async with able_kernel() as kernel, kernel.open_channels() as ch:
        async with ch.accept_comms("mine") as comms:
            await ch.run("open")
            if away:
                kernel.clients[0].cut()
            await comms.aclose()
            kernel.clients[0].mend()
            await all_heard(ch)
            if not away:
                # At once, and so is what comes now.
                assert times(kernel, "> shell comm_close") == 1
                await ch.run("open")
        await all_heard(ch)
        assert times(kernel, "> shell comm_close") == (1 if away else 2)


async def test_a_comm_may_come_again_where_it_was_closed_in_vain() -> None:
    async with able_kernel() as kernel, kernel.open_channels() as ch:
        async with ch.accept_comms("mine") as comms:
            await ch.run("open")
            comm = await comms.receive()
            kernel.clients[0].cut()
            await comm.aclose()
            kernel.clients[0].mend()
            await ch.run("open")
            await (await comms.receive()).send({})
        await all_heard(ch)
        assert times(kernel, "> shell comm_close") == 1


async def test_a_comm_is_closed_once_whoever_waits_to_tell_it() -> None:
    async with able_kernel() as kernel, kernel.open_channels() as ch:
        async with anyio.create_task_group() as tasks, accepted_comm(ch) as comm:
            await ch.wait_idle()
            kernel.clients[0].cut()
            closing = start(tasks, comm.aclose)
            tasks.start_soon(mended, kernel.clients[0])
        await closing.result()
        await all_heard(ch)
        assert times(kernel, "> shell comm_close") == 1


async def mended(client: MemoryTransport) -> None:
    await anyio.sleep(0.5)
    client.mend()


@pytest.mark.parametrize(("block", "undone"), OPENED)
async def test_the_next_kernel_is_told_nothing_of_what_was_open_in_the_one_before(
    block: Any, undone: str
) -> None:
    """Though the block is left before anybody knows."""
    async with able_kernel() as kernel:
        async with kernel.open_channels() as ch, anyio.create_task_group() as tasks:

            async def restart() -> None:
                await anyio.sleep(0.3)
                await kernel.restart()

            async with block(ch):
                await ch.wait_idle()
                kernel.clients[0].cut()
                tasks.start_soon(restart)
            await all_heard(ch)
            assert ch.statistics().restarts == 1
        assert times(kernel, undone) == 0


async def test_a_comm_that_the_kernel_had_opened_is_not_closed_in_the_next_one() -> None:
    async with able_kernel() as kernel, kernel.open_channels() as ch:
        async with anyio.create_task_group() as tasks:
            async with accepted_comm(ch):
                kernel.clients[0].cut()
                tasks.start_soon(kernel.restart)
            await all_heard(ch)
        assert not kernel.transcript.messages("> shell comm_close")
