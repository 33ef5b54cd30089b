"""Checks of how a kernel is reached, and of its end; some with bare sockets, since channels hide what they see to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import anyio
import attrs

from ... import messages
from ..._groups import unwrapping_task_group
from ..._protocol.connection_info import ChannelName, ConnectionInfo
from ..._protocol.message import Message, new_id, prepare
from ..._transports.base import Transport
from .check import Check, check
from .conversation import Failed, NotOffered, several
from .probe import GRACE, Probe

__all__ = ["CHECKS", "ENDS"]

LOOK = 0.02
"""Seconds between two looks at a bare socket."""

PROOFS = 2
"""Requests that a subscription must see something of: the first of several topics may be there before the others."""


@asynccontextmanager
async def _bare(
    probe: Probe, info: ConnectionInfo, *, topics: tuple[bytes, ...] = (b"",)
) -> AsyncIterator[Transport]:
    """Connected sockets, with nothing asked or hidden."""
    from ..._transports.zmq_open import connect_zmq

    transport = await connect_zmq(info, new_id().encode(), topics=topics)
    try:
        async with unwrapping_task_group() as tasks:
            transport.begin()
            transport.follow(lambda *_: None, tasks.start_soon)
            if not await _until(probe, lambda: not transport.unconnected()):
                raise Failed(f"no connection to {', '.join(transport.unconnected().values())}")
            # All is subscribed to until now, and no topic.
            transport.narrow()
            yield transport
            transport.abandon()
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await transport.aclose()


async def _until(probe: Probe, done: Callable[[], bool], seconds: float | None = None) -> bool:
    with anyio.move_on_after(probe.patience if seconds is None else seconds):
        while not done():  # noqa: ASYNC110
            await anyio.sleep(LOOK)
        return True
    return False


def _take(transport: Transport) -> list[Message]:
    try:
        return transport.receive_nowait("iopub")
    except anyio.WouldBlock:
        return []


@check("Welcome message; JEP 65")
async def iopub_welcome(probe: Probe) -> None:
    """A subscription is welcomed when it has taken effect."""
    info = probe.connection_info
    # Some welcome the first subscriber of a topic only.
    topic = f"enchannel-check-{new_id()}"
    arrived: list[Message] = []

    def saw(msg_type: str, parent: str | None = None) -> bool:
        arrived.extend(_take(transport))
        return any(
            each.msg_type == msg_type and parent in (None, each.parent_id) for each in arrived
        )

    async with _bare(probe, info, topics=(b"", topic.encode())) as transport:
        async with probe.client() as client:
            for _ in range(PROOFS):
                # What is seen of a request is the proof that the subscription has taken effect.
                proof = await client.send(messages.kernel_info_request())
                await _until(probe, partial(saw, "status", proof.msg_id), GRACE)
        found = await _until(probe, partial(saw, "iopub_welcome"), GRACE)
    if not found:
        raise NotOffered("a new subscription is not welcomed")
    welcome = next(each for each in arrived if each.msg_type == "iopub_welcome")
    if welcome.parent_header:
        raise Failed(f"iopub_welcome has a parent header: {welcome.parent_header}")
    if not isinstance(welcome.content.get("subscription"), str):
        raise Failed(f"iopub_welcome does not say what was subscribed to: {welcome.content}")


@check("Heartbeat for kernels")
async def heartbeat(probe: Probe) -> None:
    """The kernel echoes heartbeats."""
    async with _bare(probe, probe.connection_info) as transport:
        if not await _until(probe, transport.beat):
            raise Failed("no heartbeat is echoed")


@check("The Wire Protocol")
async def signatures(probe: Probe) -> None:
    """A request whose signature is wrong is passed over."""
    info = probe.connection_info
    if not info.key:
        raise NotOffered("the connection file has no key")
    code = probe.sample("stdout")
    senders: Sequence[ChannelName] = ("shell", "control")
    for key, what in ((b"not the key", "wrong"), (b"", "missing")):
        async with probe.client() as client:
            async with _bare(probe, attrs.evolve(info, key=key)) as transport:
                forged = [
                    prepare(messages.execute_request(code), session=new_id(), username="")
                    for _ in senders
                ]
                for channel, each in zip(senders, forged, strict=True):
                    transport.send_nowait(channel, each)
                # On another socket than the kernel's next request: only its being gone would tell.
                await anyio.sleep(LOOK)
                await client.settle()
            if any(client.conversation(each).children for each in forged):
                raise Failed(f"code was run whose signature is {what}")
            if not await client.settle():
                raise Failed(f"the kernel answers nothing behind a signature that is {what}")


@check("Kernel shutdown")
async def restart(probe: Probe) -> None:
    """Restarted at the same place the kernel is reached by who knew it, and counts anew."""
    request = messages.execute_request(probe.samples.stdout)
    async with probe.client() as client:
        before = (await client.ask(request)).reply
        await probe.kernel.restart()
        probe.record.life += 1
        after = (await client.ask(request)).reply
    # Code that is no code need not be counted.
    if probe.samples.stdout and after.content.get("execution_count") != 1:
        raise Failed(f"the first execution is counted {after.content.get('execution_count')!r}")
    if after.session == before.session:
        raise Failed("the kernel has the same session behind a restart")


@check("Kernel shutdown", ends_kernel=True)
async def shutdown(probe: Probe) -> None:
    """Asked to end the kernel says so, and ends."""
    async with probe.client() as client:
        sent = await client.send(messages.shutdown_request(), "control")
        try:
            replied = await client.until(lambda: bool(client.conversation(sent).replies))
        except Failed as error:
            raise Failed(f"no shutdown_reply: {error}") from error
        if not replied:
            raise Failed("no shutdown_reply")
        conversation = await client.complete(sent, "control")
        channel, reply = conversation.replies[0]
        if (channel, reply.msg_type) != ("control", "shutdown_reply"):
            raise Failed(f"the reply is a {reply.msg_type} on {channel}")
        if reply.content.get("status") != "ok":
            raise Failed(f"shutdown_reply has the status {reply.content.get('status')!r}")
        if reply.content.get("restart") is not False:
            raise Failed(
                f"shutdown_reply says restart: {reply.content.get('restart')!r}, not false"
            )
        ch = client.channels
        # A server starts one again that ends by itself.
        ended = await _until(probe, lambda: ch.lost is not None or ch.statistics().restarts > 0)
    if not ended:
        raise Failed("the kernel goes on behind its shutdown_reply")
    if len(conversation.replies) > 1:
        raise Failed(f"there are {len(conversation.replies)} replies")
    faults = conversation.faults_of_state("busy", 0)
    if "idle" in conversation.states:
        # Many are gone before they can say it.
        faults += conversation.faults_of_state("idle", -1)
    if faults:
        raise Failed(several(faults))


CHECKS: Sequence[Check] = (iopub_welcome, heartbeat, signatures, restart)
ENDS: Sequence[Check] = (shutdown,)
