"""What holds for every request: looked up in all the conversations that were held.

Before the first of them one of each kind is held, so that they can be checked alone.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Sequence

from ... import messages
from ..._protocol.connection_info import ChannelName
from ..._protocol.message import Message, RequestChannel
from .check import Check, check
from .contents import faults_of
from .conversation import Conversation, Failed, several
from .probe import Probe

__all__ = ["CHECKS"]

UNKNOWN = "enchannel_check_request"
"""A request that no kernel knows."""

_OF_THE_HEADER = ("msg_id", "session", "username", "date", "msg_type", "version")

# Dates are left out: a kernel may write the same time in another way.
_OF_THE_PARENT = ("msg_id", "session", "username", "msg_type")


def _requests(probe: Probe) -> Iterator[tuple[RequestChannel, Message]]:
    yield "shell", messages.kernel_info_request()
    yield "shell", messages.execute_request("")
    samples = probe.samples
    for code in (samples.stdout, samples.stderr, samples.error, *samples.result, *samples.display):
        if code:
            yield "shell", messages.execute_request(code)
    for code in samples.result:
        yield "shell", messages.execute_request(code, silent=True)
    yield "shell", messages.complete_request(next(iter(samples.completion), ""))
    yield "shell", messages.inspect_request(samples.inspect or "x")
    yield "shell", messages.is_complete_request(next(iter(samples.complete), ""))
    yield "shell", messages.history_tail_request(2)
    yield "shell", messages.comm_info_request()
    yield "shell", messages.comm_msg("enchannel-check", {})
    yield "shell", messages.comm_close("enchannel-check")
    yield "shell", messages.message(UNKNOWN)
    yield "control", messages.message(UNKNOWN)
    if probe.has_feature("kernel subshells"):
        yield "control", messages.list_subshell_request()
    # Nothing runs: it is the request that is looked at, and not what it does.
    yield "control", messages.interrupt_request()


@check("Request-Reply")
async def survival(probe: Probe) -> None:
    """No request of the specification ends the kernel, nor does one that it has never heard of."""
    await _hold_each(probe, told=True)


async def _hold_each(probe: Probe, *, told: bool = False) -> list[Conversation]:
    """All conversations, behind one of each kind; where one of these fails it is for one rule to be `told`."""
    record = probe.record
    if record.tour is None:
        record.tour = deque(_requests(probe))
    while record.tour:
        # The next rule goes on where this one ended.
        channel, request = record.tour.popleft()
        try:
            await probe.ask(request, channel)
        except Failed as error:
            if told:
                raise Failed(f"{request.msg_type} on {channel}: {error}") from error
            probe.suspect = True
            break
    if not any(each.children for each in record.conversations):
        raise Failed("the kernel has said nothing at all")
    return record.conversations


def _raise(findings: Sequence[str]) -> None:
    if findings:
        raise Failed(several(list(dict.fromkeys(findings))))


def _expects_reply(conversation: Conversation) -> bool:
    request = conversation.request.msg_type
    return request.endswith("_request") and request != UNKNOWN


@check("Kernel status")
async def busy(probe: Probe) -> None:
    """Each request is preceded by one busy status, before anything that comes of it is published."""
    await _check_state(probe, "busy", 0)


@check("Kernel status")
async def idle(probe: Probe) -> None:
    """Each request is followed by one idle status, behind all that comes of it."""
    await _check_state(probe, "idle", -1)


async def _check_state(probe: Probe, state: str, place: int) -> None:
    held = await _hold_each(probe)
    _raise([fault for each in held for fault in each.faults_of_state(state, place)])


@check("Request-Reply")
async def replies(probe: Probe) -> None:
    """Each request has one reply, whose type is named after it."""
    findings = []
    for each in await _hold_each(probe):
        doubtful = each.reply_type in each.doubts
        if each.request.msg_type == "interrupt_request" and not probe.wants_interrupt_requests:
            # Whoever is interrupted by a signal need not know it.
            doubtful = doubtful or not each.replies
        if _expects_reply(each) and not doubtful and each.reply_types != [each.reply_type]:
            found = ", ".join(each.reply_types) or "no reply"
            findings.append(f"{each.name}: {found} instead of {each.reply_type}")
    _raise(findings)


@check("Messages on the Control (ROUTER/DEALER) channel")
async def reply_channels(probe: Probe) -> None:
    """A reply comes on the channel of its request."""
    _raise(
        [
            f"{each.name}: {message.msg_type} came on {channel}"
            for each in await _hold_each(probe)
            for channel, message in each.replies
            if channel != each.channel
        ]
    )


@check("Parent header")
async def parents(probe: Probe) -> None:
    """The parent header of what a request causes is a copy of the request's header."""
    findings = []
    for each in await _hold_each(probe):
        for _, message in each.children:
            if message.parent_id != each.request.msg_id:
                findings.append(
                    f"{message.msg_type}, where only {each.name} waits for one: its parent's msg_id is "
                    f"{message.parent_header.get('msg_id')!r}"
                )
                continue
            findings += [
                f"{message.msg_type} for {each.name}: its parent's {name} is {message.parent_header.get(name)!r}, "
                f"not {each.request.header[name]!r}"
                for name in _OF_THE_PARENT
                if message.parent_header.get(name) != each.request.header[name]
            ]
        findings += [
            f"{each.name} has no {what}, and one came that names no request as its parent"
            for what in each.doubts
        ]
    _raise(findings)


@check("Message Header")
async def headers(probe: Probe) -> None:
    """A header has msg_id, session, username, date (ISO 8601), msg_type and version."""
    findings = []
    for each in await _hold_each(probe):
        for _, message in each.children:
            header = message.header
            findings += [
                f"{message.msg_type} for {each.name}: no {name}"
                for name in _OF_THE_HEADER
                if not isinstance(header.get(name), str)
            ]
            if not re.fullmatch(r"[0-9]+\.[0-9]+(\.[0-9]+)?", str(header.get("version", "0.0"))):
                findings.append(f"{message.msg_type}: its version is {header['version']!r}")
            if isinstance(header.get("date"), str) and message.date is None:
                findings.append(f"{message.msg_type}: its date {header['date']!r} is no ISO 8601")
    _raise(findings)


@check("Message Header")
async def message_ids(probe: Probe) -> None:
    """No two messages have the same msg_id."""
    seen: dict[tuple[str, str, ChannelName], tuple[Conversation, Message]] = {}
    findings = []
    for each in await _hold_each(probe):
        for channel, message in each.children:
            # One message on two channels is one message, and what several clients get as well.
            key = (message.session, message.msg_id, channel)
            conversation, other = seen.setdefault(key, (each, message))
            same = conversation.request.msg_id == each.request.msg_id
            if other is not message and not (same and conversation is not each):
                findings.append(f"{other.msg_type} and {message.msg_type} are both {key[1]}")
    _raise(findings)


@check("Message Header")
async def sessions(probe: Probe) -> None:
    """A kernel has a session of its own, the same in all that it sends in one life."""
    findings = []
    lives: dict[int, set[str]] = {}
    for each in await _hold_each(probe):
        own = {message.session for _, message in each.children}
        if not own:
            continue
        if each.request.session in own:
            findings.append(f"{each.name}: its session is the client's")
        elif len(own | lives.setdefault(each.life, own)) > 1:
            findings.append(f"{each.name}: another session, {', '.join(sorted(own))}")
    _raise(findings)


@check("The Wire Protocol")
async def wire(probe: Probe) -> None:
    """All that arrives is a message, signed with the key of the connection file."""
    await _hold_each(probe)
    _raise([f"{kind}: {count} times" for kind, count in probe.record.dropped.items()])


@check("Content")
async def contents(probe: Probe) -> None:
    """Each message holds what the specification says of its type."""
    findings = [
        f"{fault} ({each.name})"
        for each in await _hold_each(probe)
        for _, message in each.children
        for fault in faults_of(message)
    ]
    strays = [fault for message in probe.record.strays for fault in faults_of(message)]
    _raise(findings + [f"{fault} (of no request)" for fault in strays])


CHECKS: Sequence[Check] = (
    survival,
    busy,
    idle,
    replies,
    reply_channels,
    parents,
    headers,
    message_ids,
    sessions,
    wire,
    contents,
)
