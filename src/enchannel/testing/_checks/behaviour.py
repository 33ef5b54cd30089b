"""Checks of more than one request: what waits, what is interrupted, and who is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ... import messages
from ..._exceptions import NoReply
from ..._protocol.message import Message
from .check import Check, check
from .conversation import Conversation, Failed, NotOffered
from .probe import Client, Probe

__all__ = ["CHECKS"]

STDIN = "Messages on the stdin (ROUTER/DEALER) channel"

AT_ONCE = 10
"""Requests of each kind that are sent at once."""

BEGINNING = 15.0
"""Seconds for what must happen while code runs for a minute."""

_DEBUG_INFO = ("isStarted", "hashMethod", "hashSeed", "tmpFilePrefix", "tmpFileSuffix")


@check(STDIN)
async def stdin(probe: Probe) -> None:
    """Code that asks for input gets what the client answers."""
    code = probe.sample("ask")
    async with probe.client() as client:
        client.answer = "enchannel"
        conversation = await client.ask(messages.execute_request(code, allow_stdin=True))
        strays = [each for _, each in client.arrived if each.msg_type == "input_request"]
    if strays and not conversation.prompts:
        raise Failed("the parent of the input_request is not the execute_request")
    conversation.succeeded()
    if len(conversation.prompts) != 1:
        raise Failed(f"{len(conversation.prompts) or 'no'} input_request on stdin")
    if "enchannel" not in conversation.text("stdout"):
        raise Failed(f"the answer is not what the code got: {conversation.text('stdout')!r}")


@check(STDIN)
async def password(probe: Probe) -> None:
    """A password is asked for as one."""
    code = probe.sample("password")
    async with probe.client() as client:
        client.answer = "enchannel"
        conversation = await client.ask(messages.execute_request(code, allow_stdin=True))
    conversation.succeeded()
    if [each.content.get("password") for each in conversation.prompts] != [True]:
        asked = [each.content for each in conversation.prompts]
        raise Failed(f"the input_request is {asked}, without password: true")


@check(STDIN)
async def stdin_refused(probe: Probe) -> None:
    """No client is asked that does not allow it."""
    code = probe.sample("ask")
    async with probe.client() as client:
        client.answer = ""
        conversation = await client.ask(messages.execute_request(code, allow_stdin=False))
    if conversation.prompts:
        raise Failed("there is an input_request, where allow_stdin is false")
    conversation.failed()


@check(STDIN)
async def stdin_client(probe: Probe) -> None:
    """That client is asked whose code it is, and no other."""
    code = probe.sample("ask")
    async with probe.client() as other, probe.client() as client:
        other.answer = client.answer = "enchannel"
        await other.settle()
        conversation = await client.ask(messages.execute_request(code, allow_stdin=True))
        await other.settle()
        if any(each.msg_type == "input_request" for _, each in other.arrived):
            raise Failed("the other client was asked")
    conversation.succeeded()


async def _begin(client: Client, code: str) -> Message:
    """Has the kernel run `code`, which says so and goes on."""
    sent = await client.send(messages.execute_request(code))
    await client.until(
        lambda: (
            "begun" in client.conversation(sent).text("stdout") or client.conversation(sent).ended
        ),
        BEGINNING,
    )
    conversation = client.conversation(sent)
    if conversation.replies:
        raise Failed(f"{conversation.name} is over at once: {conversation.reply.content}")
    return sent


async def _interrupt(client: Client, sent: Message) -> Conversation:
    silence: NoReply | None = None
    try:
        await client.channels.interrupt()
    except NoReply as error:
        silence = error
    (conversation,) = await client.follow([sent])
    if not conversation.replies:
        raise Failed("code that was interrupted goes on, or is not answered")
    # It may have lost its parent on the way.
    if silence and all(each.msg_type != "interrupt_reply" for each in client.strays()):
        raise silence
    return conversation


@check("Kernel interrupt")
async def interrupt(probe: Probe) -> None:
    """Code that is interrupted fails, and the kernel goes on."""
    code = probe.sample("long")
    async with probe.client() as client:
        conversation = await _interrupt(client, await _begin(client, code))
        if conversation.reply.content.get("status") == "ok":
            raise Failed("code that was interrupted is answered 'ok'")
        if not (await client.ask(messages.execute_request(""))).replies:
            raise Failed("the kernel runs nothing any more")


@check("Messages on the Control (ROUTER/DEALER) channel")
async def control_while_busy(probe: Probe) -> None:
    """What is asked on control does not wait behind code that runs."""
    code = probe.sample("long")
    async with probe.client() as client:
        asked = messages.kernel_info_request()
        if not (await client.ask(asked, "control")).replies:
            raise NotOffered("nothing is answered on control that could be asked for")
        running = await _begin(client, code)
        sent = await client.send(messages.kernel_info_request(), "control")
        await client.until(lambda: bool(client.conversation(sent, "control").replies), BEGINNING)
        answered = client.conversation(sent, "control").replies
        await _interrupt(client, running)
    if not answered:
        raise Failed("a kernel_info_request on control is not answered while code runs")


@check("Execute")
async def stop_on_error(probe: Probe) -> None:
    """What waits behind an error is aborted, where the code that fails says so."""
    first, second = await _behind_an_error(probe, stop_on_error=True)
    first.failed()
    if second.reply.content.get("status") not in ("aborted", "error"):
        status = second.reply.content.get("status")
        raise Failed(f"code that waited behind an error is answered {status!r}")
    if second.of_type("stream"):
        raise Failed("code that waited behind an error was run, and answered as if it was not")


@check("Execute")
async def go_on_after_error(probe: Probe) -> None:
    """What waits behind an error runs, where the code that fails says so."""
    first, second = await _behind_an_error(probe, stop_on_error=False)
    first.failed()
    second.succeeded()


async def _behind_an_error(probe: Probe, *, stop_on_error: bool) -> list[Conversation]:
    late, code = probe.sample("late_error"), probe.sample("stdout")
    failing = messages.execute_request(late, stop_on_error=stop_on_error)
    async with probe.client() as client:
        return await client.ask_all([failing, messages.execute_request(code)])


@check("Request-Reply")
async def concurrent_requests(probe: Probe) -> None:
    """Of many requests at once each gets its own reply and its own output, executions in their order."""
    code = probe.sample("stdout")
    requests = [
        request
        for _ in range(AT_ONCE)
        for request in (
            messages.execute_request(code),
            messages.kernel_info_request(),
            messages.complete_request("x"),
        )
    ]
    async with probe.client() as client:
        conversations = await client.ask_all(requests)
    counts: list[Any] = []
    for number, each in enumerate(conversations, 1):
        if each.reply_types != [each.reply_type]:
            found = ", ".join(each.reply_types) or f"no reply{each.doubt}"
            raise Failed(f"number {number} of {len(requests)}, {each.name}: {found}")
        if each.request.msg_type == "execute_request":
            if each.text("stdout").count("hello, world") != 1:
                raise Failed(f"number {number} of {len(requests)} has the output {each.types()}")
            counts.append(each.reply.content.get("execution_count"))
    if counts != sorted(set(counts)):
        raise Failed(f"the executions have the counts {counts}")


@check("Introduction")
async def several_clients(probe: Probe) -> None:
    """What one client causes is published to all, and answered to nobody else."""
    code = probe.sample("stdout")
    async with probe.client() as other, probe.client() as client:
        await other.settle()
        conversation = await client.ask(messages.execute_request(code))
        await other.settle()
        seen = other.conversation(conversation.request)
    conversation.succeeded()
    if seen.replies:
        raise Failed("the reply went to another client")
    if seen.published != conversation.published:
        raise Failed(f"another client got {seen.types()}, where it was {conversation.types()}")


@check("Kernel subshells; JEP 91")
async def subshells(probe: Probe) -> None:
    """A subshell runs code while the main shell is busy."""
    if not probe.has_feature("kernel subshells"):
        raise NotOffered("'kernel subshells' is not in supported_features")
    running, code = probe.sample("long"), probe.sample("stdout")
    async with probe.client() as client:
        created = await client.ask(messages.create_subshell_request(), "control")
        subshell: str = created.succeeded().get("subshell_id", "")
        if subshell not in await _subshells(client):
            raise Failed(f"a new subshell {subshell!r} is not listed")
        busy = await _begin(client, running)
        sent = await client.send(messages.execute_request(code, subshell_id=subshell))
        await client.until(lambda: client.conversation(sent).whole, BEGINNING)
        inside = client.conversation(sent)
        await _interrupt(client, busy)
        if not inside.ended:
            raise Failed("code in a subshell waits for the main shell")
        inside.succeeded()
        deleted = await client.ask(messages.delete_subshell_request(subshell), "control")
        deleted.succeeded()
        if subshell in await _subshells(client):
            raise Failed(f"the subshell {subshell!r} is listed behind its end")


async def _subshells(client: Client) -> Sequence[Any]:
    listed = await client.ask(messages.list_subshell_request(), "control")
    found: Sequence[Any] = listed.reply.content.get("subshell_id") or ()
    return found


@check("Debug request")
async def debugger(probe: Probe) -> None:
    """The state of the debugger can be asked for, before it is attached as well."""
    if not (probe.has_feature("debugger") or probe.info.get("debugger") is True):
        raise NotOffered("'debugger' is not in supported_features")
    conversation = await probe.ask(messages.debug_request("debugInfo", seq=1), "control")
    content = conversation.reply.content
    if content.get("success") is not True or content.get("request_seq") != 1:
        raise Failed(f"debugInfo with seq 1 is answered {content!r}")
    missing = [name for name in _DEBUG_INFO if name not in (content.get("body") or {})]
    if missing:
        raise Failed(f"debugInfo says nothing of {', '.join(missing)}")


CHECKS: Sequence[Check] = (
    stdin,
    password,
    stdin_refused,
    stdin_client,
    interrupt,
    control_while_busy,
    stop_on_error,
    go_on_after_error,
    concurrent_requests,
    several_clients,
    subshells,
    debugger,
)
