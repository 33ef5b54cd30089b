"""Checks of one request each: what is answered and published."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from ... import messages
from ..._protocol.message import Message
from .check import Check, check
from .conversation import Conversation, Failed, NotOffered
from .probe import Probe

__all__ = ["CHECKS"]


@check("Kernel info")
async def kernel_info(probe: Probe) -> None:
    """The kernel says what it is: a version of the protocol, and a language with its file extension."""
    info = (await probe.ask(messages.kernel_info_request())).succeeded()
    # What is judged is this reply, whatever an earlier one has said.
    probe.learn(info)
    if not probe.protocol_version:
        raise Failed(f"protocol_version is {info.get('protocol_version')!r}, not such as '5.3'")
    language: dict[str, Any] = info.get("language_info") or {}
    extension = language.get("file_extension", "")
    if not str(extension).startswith("."):
        raise Failed(f"the file_extension {extension!r} does not begin with a dot")
    for name, found in (("language", probe.language), ("file_extension", extension)):
        wanted = getattr(probe.samples, name)
        if wanted and wanted != found:
            raise Failed(f"the {name} is {found!r}, not {wanted!r}")


@check("Kernel info; JEP 80")
async def kernel_info_control(probe: Probe) -> None:
    """The kernel says on control as well what it is."""
    conversation = await probe.ask(messages.kernel_info_request(), "control")
    if not conversation.replies and probe.protocol_version < (5, 5):
        raise NotOffered("no reply, which version 5.5 of the protocol asks for first")
    conversation.succeeded()


@check("Streams (stdout, stderr, etc)")
async def stdout(probe: Probe) -> None:
    """What code writes to standard output is published as a stream."""
    conversation = await probe.execute(probe.sample("stdout"))
    conversation.succeeded()
    if "hello, world" not in conversation.text("stdout"):
        said = conversation.text("stdout")
        raise Failed(f"no 'hello, world' on stdout, but {said!r}, in {conversation.types()}")


@check("Streams (stdout, stderr, etc)")
async def stderr(probe: Probe) -> None:
    """What code writes to standard error is published as a stream."""
    conversation = await probe.execute(probe.sample("stderr"))
    conversation.succeeded()
    if not conversation.text("stderr"):
        raise Failed(f"nothing on stderr, in {conversation.types()}")


@check("Code inputs")
async def execute_input(probe: Probe) -> None:
    """Code that runs is published before its output, with its count."""
    code = probe.sample("stdout")
    conversation = await probe.execute(code)
    count = conversation.succeeded().get("execution_count")
    said = conversation.one("execute_input").content
    if said.get("code") != code:
        raise Failed(f"execute_input has the code {said.get('code')!r}, not {code!r}")
    if said.get("execution_count") != count:
        raise Failed(
            f"execute_input has the count {said.get('execution_count')}, the reply {count}"
        )
    types = [each.msg_type for each in conversation.published if each.msg_type != "status"]
    if types[0] != "execute_input":
        raise Failed(f"{types[0]} comes before execute_input")


@check("Execution results")
async def execute_result(probe: Probe) -> None:
    """The value of code is published as its result, in plain text as well."""
    for code, wanted in probe.sample("result").items():
        conversation = await probe.execute(code)
        reply = conversation.succeeded()
        result = conversation.one("execute_result").content
        found = (result.get("data") or {}).get("text/plain")
        if found != wanted:
            raise Failed(f"{code!r} gives {found!r}, not {wanted!r}")
        if result.get("execution_count") != reply.get("execution_count"):
            raise Failed(
                f"the result of {code!r} has the count {result.get('execution_count')}, "
                f"its reply {reply.get('execution_count')}"
            )


@check("Execution errors")
async def error(probe: Probe) -> None:
    """Code that fails is answered with the error, which is published as well."""
    conversation = await probe.execute(probe.sample("error"))
    reply = conversation.failed()
    said = conversation.one("error").content
    for name in ("ename", "evalue"):
        if said.get(name) != reply.get(name):
            raise Failed(f"{name} is {reply.get(name)!r} in the reply, {said.get(name)!r} on iopub")
    if conversation.of_type("execute_result"):
        raise Failed("code that failed has a result")


@check("Display Data")
async def display_data(probe: Probe) -> None:
    """What code displays is published by its MIME type."""
    for code, mime in probe.sample("display").items():
        conversation = await probe.execute(code)
        conversation.succeeded()
        bundles = [each.content.get("data") or {} for each in conversation.of_type("display_data")]
        if not any(mime in bundle for bundle in bundles):
            found = ", ".join(kind for bundle in bundles for kind in bundle) or "nothing"
            raise Failed(f"{code!r} displays {found}, not {mime}")


@check("Update Display Data")
async def update_display_data(probe: Probe) -> None:
    """What is displayed under a display_id can be replaced."""
    conversation = await probe.execute(probe.sample("update_display"))
    conversation.succeeded()
    first, second = conversation.one("display_data"), conversation.one("update_display_data")
    ids = [(each.content.get("transient") or {}).get("display_id") for each in (first, second)]
    if ids[0] is None or ids[0] != ids[1]:
        raise Failed(f"the display_id is {ids[0]!r} first, and {ids[1]!r} in the update")


@check("Clear output")
async def clear_output(probe: Probe) -> None:
    """Code can clear the output."""
    conversation = await probe.execute(probe.sample("clear_output"))
    conversation.succeeded()
    conversation.one("clear_output")


@check("Payloads (DEPRECATED)")
async def page(probe: Probe) -> None:
    """What is for a pager comes as a payload of the reply."""
    reply = (await probe.execute(probe.sample("page"))).succeeded()
    pages = [each for each in reply.get("payload") or () if each.get("source") == "page"]
    if len(pages) != 1 or "text/plain" not in (pages[0].get("data") or {}):
        raise Failed(f"no page with text/plain in the payload {reply.get('payload')!r}")


@check("Execute")
async def silent(probe: Probe) -> None:
    """Silent code is not published, has no result, and is not counted."""
    code = next(iter(probe.sample("result")))
    before = (await probe.execute(code)).succeeded().get("execution_count")
    conversation = await probe.execute(code, silent=True)
    conversation.succeeded()
    for name in ("execute_input", "execute_result"):
        if conversation.of_type(name):
            raise Failed(f"there is an {name} for silent code")
    after = (await probe.execute(code)).succeeded().get("execution_count")
    if after != _next(before):
        raise Failed(f"the count is {before} before silent code, and {after} behind it")


def _next(count: Any) -> Any:
    return count + 1 if isinstance(count, int) else "a number"


@check("Execution counter (prompt number)")
async def execution_count(probe: Probe) -> None:
    """Executions are counted one by one, those that fail too."""
    codes = [next(iter(probe.sample("result"))), probe.samples.error] * 2
    counts = []
    for code in filter(None, codes):
        content = (await probe.execute(code)).reply.content
        counts.append(content.get("execution_count"))
    if any(after != _next(before) for before, after in pairwise(counts)):
        raise Failed(f"the counts are {', '.join(map(str, counts))}")


@check("Execution results")
async def user_expressions(probe: Probe) -> None:
    """User expressions are evaluated behind the code, each with its value or its error."""
    good, bad = probe.sample("expression"), probe.samples.bad_expression
    asked = {"good": good, **({"bad": bad} if bad else {})}
    conversation = await probe.execute("", user_expressions=asked)
    found = conversation.succeeded().get("user_expressions") or {}
    for name, wanted in (("good", "ok"), ("bad", "error")):
        status = (found.get(name) or {}).get("status")
        if name in asked and status != wanted:
            raise Failed(f"{asked[name]!r} has the status {status!r}, not {wanted!r}")
    if "text/plain" not in (found["good"].get("data") or {}):
        raise Failed(f"{good!r} has no text/plain: {found['good']!r}")


@check("Completion")
async def complete(probe: Probe) -> None:
    """The beginning of a name is completed, and it is said what is to be replaced."""
    for text, wanted in probe.sample("completion").items():
        await _check_completion(probe, "", text, wanted)


@check("``cursor_pos`` and unicode offsets")
async def cursor_positions(probe: Probe) -> None:
    """Positions in code count Unicode code points, also behind characters beyond 16 bits."""
    text, wanted = next(iter(probe.sample("completion").items()))
    await _check_completion(probe, '"\N{PARTY POPPER}\N{PARTY POPPER}"\n', text, wanted)


async def _check_completion(probe: Probe, before: str, text: str, wanted: Sequence[str]) -> None:
    code = before + text
    reply = (await probe.ask(messages.complete_request(code))).succeeded()
    start, end = reply.get("cursor_start"), reply.get("cursor_end")
    matches = reply.get("matches") or []
    if end != len(code) or not isinstance(start, int) or not len(before) <= start <= len(code):
        raise Failed(
            f"{text!r} at {len(before)} to {len(code)} is to be replaced from {start} to {end}"
        )
    completed = {f"{code[len(before) : start]}{each}" for each in matches}
    if missing := set(wanted) - completed:
        shown = ", ".join(sorted(completed)[:10]) or "nothing"
        raise Failed(f"{text!r} is completed to {shown}, not to {', '.join(sorted(missing))}")


@check("Code completeness")
async def is_complete(probe: Probe) -> None:
    """The kernel says whether code is complete, incomplete or invalid."""
    samples = probe.samples
    if not (samples.complete or samples.incomplete or samples.invalid):
        raise NotOffered("there are no samples of complete, incomplete and invalid code")
    for wanted in ("complete", "incomplete", "invalid"):
        for code in getattr(samples, wanted):
            found = await probe.ask(messages.is_complete_request(code))
            status = found.reply.content.get("status")
            if status == "unknown":
                raise NotOffered(f"{code!r} is answered 'unknown'")
            if status != wanted:
                raise Failed(f"{code!r} is {wanted}, and called {status!r}")


@check("Introspection")
async def inspect(probe: Probe) -> None:
    """The kernel says something about a name that it knows."""
    name = probe.sample("inspect")
    reply = (await probe.ask(messages.inspect_request(name))).succeeded()
    if reply.get("found") is not True or not reply.get("data"):
        raise Failed(f"{name!r}: found is {reply.get('found')!r}, the data {reply.get('data')!r}")


@check("Introspection")
async def inspect_unknown(probe: Probe) -> None:
    """What the kernel does not know is not found, and no error."""
    reply = (await probe.ask(messages.inspect_request("no_such_name_anywhere"))).succeeded()
    if reply.get("found") is not False:
        raise Failed(f"found is {reply.get('found')!r} for a name that there is not")


async def _run_for_history(probe: Probe) -> list[str]:
    codes = list(probe.sample("result"))
    for code in codes:
        (await probe.execute(code)).succeeded()
    return codes


async def _history(probe: Probe, request: Message) -> list[Any]:
    entries = (await probe.ask(request)).succeeded().get("history")
    if not entries:
        raise NotOffered("the history is empty")
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 3:
            raise Failed(f"an entry of the history is {entry!r}, not [session, line, input]")
    return list(entries)


@check("History")
async def history_tail(probe: Probe) -> None:
    """The last inputs are remembered in order, with their outputs where these are asked for."""
    codes = await _run_for_history(probe)
    found = await _history(probe, messages.history_tail_request(len(codes)))
    if [entry[2] for entry in found] != codes:
        raise Failed(f"the last inputs are {[entry[2] for entry in found]}, not {codes}")
    for entry in await _history(probe, messages.history_tail_request(1, output=True)):
        if not isinstance(entry[2], list) or len(entry[2]) != 2:
            raise Failed(f"an entry with output has {entry[2]!r}, not [input, output]")


@check("History")
async def history_range(probe: Probe) -> None:
    """The inputs of this session can be had by their numbers."""
    codes = await _run_for_history(probe)
    session, last, _ = (await _history(probe, messages.history_tail_request(1)))[0]
    for each in dict.fromkeys((session, 0)):
        found = await _history(probe, messages.history_range_request(each, last, last + 1))
        if [entry[1:] for entry in found] != [[last, codes[-1]]]:
            raise Failed(f"line {last} of session {each} is {found!r}, not {codes[-1]!r}")


@check("History")
async def history_search(probe: Probe) -> None:
    """Inputs are found by a glob, once each where that is asked for."""
    codes = await _run_for_history(probe)
    pattern = codes[-1][:1].replace("[", "[[]") + "*"
    found = await _history(probe, messages.history_search_request(pattern, 10))
    if len(found) > 10:
        raise Failed(f"there are {len(found)} entries, where 10 were asked for")
    if codes[-1] not in [entry[2] for entry in found]:
        raise Failed(f"{pattern!r} finds {[entry[2] for entry in found]}, without {codes[-1]!r}")
    await _run_for_history(probe)
    unique = await _history(probe, messages.history_search_request(pattern, 10, unique=True))
    inputs = [entry[2] for entry in unique]
    if len(inputs) != len(set(inputs)):
        raise Failed(f"{pattern!r} finds something twice, where unique was asked for: {inputs}")


@check("Comm info")
async def comm_info(probe: Probe) -> None:
    """The kernel lists its comms."""
    comms = (await probe.ask(messages.comm_info_request())).succeeded().get("comms")
    if not isinstance(comms, dict):
        raise Failed(f"comms is {comms!r}, not an object")


@check("Opening a Comm")
async def comm_open(probe: Probe) -> None:
    """A comm to a target that there is not is closed."""
    opening = messages.comm_open("enchannel-check", "no target of this name")
    conversation: Conversation = await probe.ask(opening)
    if conversation.one("comm_close").content.get("comm_id") != "enchannel-check":
        raise Failed("comm_close has another comm_id than comm_open")


CHECKS: Sequence[Check] = (
    kernel_info,
    kernel_info_control,
    stdout,
    stderr,
    execute_input,
    execute_result,
    error,
    display_data,
    update_display_data,
    clear_output,
    page,
    silent,
    execution_count,
    user_expressions,
    complete,
    cursor_positions,
    is_complete,
    inspect,
    inspect_unknown,
    history_tail,
    history_range,
    history_search,
    comm_info,
    comm_open,
)
