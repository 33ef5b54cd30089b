"""The tasks of a connection.

* One *reader* for each channel takes what has arrived and delivers it. When the kernel is lost it reads the last
  words, and ends.
* What the transport starts tells what becomes of the connection.
* The *keeper* sits out one outage after the other; in between it beats the heart, and looks at what may be missing.

Ctrl-C on Trio is for the main task, and hits none of them. They are shielded from whoever cancels the block, which may
have something to say and to hear on its way out, and ended by the core alone. They never raise: what ends them is
recorded, ends the streams, and is raised at the next receive or send.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import anyio
from anyio.lowlevel import checkpoint

from .._exceptions import KernelDied
from .._groups import unwrapping_task_group
from .._protocol.connection_info import ChannelName
from .._transports.base import ConnectionEvent
from .._trio import uncut
from .core import Core
from .deadlines import TICK
from .exits import is_led
from .life import RESTARTING, Event, State
from .proof import prove_iopub

__all__ = ["tend"]

PROOF_DEADLINE = 5.0
"""Seconds for iopub to be live again once every channel is connected; some kernels take that to start."""

OLD_NEWS = 1.0
"""Seconds for which what the old connection brought is read; what comes for longer is news, of a kernel that never pauses."""

SESSION_GRACE = 1.0
"""Seconds for the kernel to say its session once iopub is live."""

LAST_WORDS = 100_000
"""Messages of each channel that are read behind the loss of the kernel."""


@uncut
async def tend(core: Core) -> None:
    """Runs the tasks of `core` until it is left."""
    if core.life.state is State.LEFT:
        return  # before this task ran at all
    readers = _Readers(core)
    async with unwrapping_task_group() as tasks:
        tasks.cancel_scope.shield = True
        core.scopes.add(tasks.cancel_scope)
        for channel in core.channels:
            tasks.start_soon(readers.read, channel, name=f"enchannel {channel}")

        def start(follow: Callable[..., Awaitable[None]], *args: object) -> None:
            failed = "a task of the connection has failed"
            tasks.start_soon(_run, core, failed, follow, *args, name="enchannel the connection")

        core.start = start
        for task in core.to_start:
            start(*task)
        core.transport.follow(partial(_hear, core), start)
        unconnected = {*core.transport.unconnected()}
        lost: list[ChannelName] = [name for name in core.channels if name in unconnected]
        if lost and core.life.state is State.LIVE:
            # Before anybody was told.
            _hear(core, ConnectionEvent.DISCONNECTED, lost, "")
        await _run(core, "the kernel can no longer be followed", keep, core)


class _Readers:
    """The readers of a connection; the last to end says that all last words are read."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._left = len(core.channels)

    @uncut
    async def read(self, channel: ChannelName) -> None:
        """Reads `channel`, until the block or the kernel's last word."""
        try:
            await self._read(channel)
        except Exception as error:  # noqa: BLE001
            _record(self._core, f"{channel} can no longer be read", error)
        finally:
            self._left -= 1
            if not self._left:
                self._core.happen(Event.DRAINED)

    async def _read(self, channel: ChannelName) -> None:
        core, transport = self._core, self._core.transport
        bound = core.bound
        room: tuple[float, ...] = ()
        while not core.life.over:
            if bound.limited:
                room = await bound.room(channel)
            try:
                messages = transport.receive_nowait(channel, *room)
            except anyio.WouldBlock:
                pass
            else:
                core.deliver(channel, messages)
                # They may be large, and the next may be long in coming.
                del messages
                if channel != "iopub":
                    # A reply, and who waits for it goes first: to prepare the next wait takes 10 µs
                    # on Trio, of a round trip of 300. Trio runs the tasks of one turn in any order,
                    # so two turns.
                    await checkpoint()
                    await checkpoint()
            # Most often the batch was all there was, and another look would find nothing.
            await transport.wait_readable(channel)
        # Behind a block that was left, a socket that is found empty is closed with what it has to send.
        if core.life.state is State.LOST:
            await self._read_last_words(channel)

    async def _read_last_words(self, channel: ChannelName) -> None:
        left = LAST_WORDS
        while left > 0:
            try:
                messages = self._core.transport.receive_nowait(channel)
            except anyio.WouldBlock:
                return
            self._core.deliver(channel, messages)
            left -= len(messages) or 1
            await checkpoint()
        self._core.transport.forget(channel)


def _hear(core: Core, event: ConnectionEvent, channels: Sequence[ChannelName], said: str) -> None:
    """Does what the transport's word of the connection means."""
    if event is ConnectionEvent.DISCONNECTED:
        core.outage.note(channels)
        # What was asked may be lost with the connection, and is asked anew.
        core.requests.questions.give_up()
        core.happen(Event.DISCONNECTED)
    elif event is ConnectionEvent.GIVEN_UP:
        core.transport.reconnect(channels)
    elif event is ConnectionEvent.GONE:
        core.lose(KernelDied(said, "disconnected"))
    elif event is ConnectionEvent.EXITED:
        core.lose(KernelDied(said, "exited"))
    elif event is ConnectionEvent.RESTARTED:
        is_led(core)
        core.outage.death = KernelDied(said, "restarted")
        core.happen(Event.SAID_RESTARTED)
    elif event is ConnectionEvent.JAMMED:
        # Said again and again in a flood, and nothing else has changed.
        core.bound.look_again()
        return
    core.changed.ring()


@uncut
async def _run(
    core: Core, failed: str, function: Callable[..., Awaitable[None]], *args: object
) -> None:
    """Runs `function`; `failed` is what an error of it means."""
    try:
        await function(*args)
    except Exception as error:  # noqa: BLE001
        _record(core, failed, error)


def _record(core: Core, failed: str, error: Exception) -> None:
    """Of a task that is about to end: `error` is the cause of what every stream raises from here on."""
    core.lose(KernelDied(f"{failed}: {error!r}"), error)


async def keep(core: Core) -> None:
    """For as long as the kernel is there: one outage after the other, and what is due in between."""
    beat_at = -math.inf if core.transport.has_heartbeat else math.inf
    while not core.life.over:
        if core.life.away:
            await sit_out(core)
            continue
        now = anyio.current_time()
        if now >= beat_at and core.life.state is State.LIVE:
            _beat(core, now)
            beat_at = now + core.heartbeat.interval
        core.ticking = core.ticking and core.requests.look()
        # To be live wakes the keeper; the first beat is due then.
        due = beat_at if core.life.state is State.LIVE else math.inf
        await _rest(core, min(due, now + TICK) if core.ticking else due)


async def _rest(core: Core, until: float) -> None:
    """Waits until something is due, or has happened."""
    if core.life.over or core.life.away:
        return
    with anyio.CancelScope(deadline=until):
        await core.wakeup.wait()


def _beat(core: Core, now: float) -> None:
    received, idle = sum(core.received.values()), core.status.word == "idle"
    silent = core.heartbeat.look(now, received, echoed=core.transport.beat(), idle=idle)
    if silent is not None:
        said = f"the kernel is silent: no heartbeat and no message for {silent:.0f} s"
        core.lose(KernelDied(said, "heartbeat"))


async def sit_out(core: Core) -> None:
    """Waits until the connection is there again, and tells whom it concerns; or gives it up."""
    while core.life.away:
        with anyio.CancelScope() as core.patience:
            core.happen(await _come_back(core))
        if core.patience.cancelled_caught and not core.outage.ours:
            if core.outage.given_up and core.transport.unconnected():
                core.happen(Event.GIVEN_UP, core.outage.died())
            else:
                core.outage.overdue = True
                core.happen(Event.OVERDUE)


async def _come_back(core: Core) -> Event:
    """Waits until every channel is connected and iopub proven, and says to whom."""
    epoch, losses = core.life.epoch, -1
    said_session = False
    while True:
        await _connect_again(core)
        held = not set(core.channels) <= core.outage.lost
        if core.transport.buffered:
            return Event.BACK_SAME
        if losses == core.outage.losses:
            break
        losses = core.outage.losses
        if "iopub" in core.outage.lost:
            need_session = not (held or core.outage.ours)
            said_session = await _meet_again(core, need_session=need_session)
    if held or (said_session and core.life.epoch == epoch):
        return Event.BACK_SAME
    if core.life.state is State.OUTAGE:
        core.status.doubt_session(core.outage.session)
    return Event.BACK_OTHER


async def _connect_again(core: Core) -> None:
    while core.transport.unconnected() or core.life.state in RESTARTING:
        # Only here: on asyncio a deadline that has passed cancels for good, whatever it is set to behind it.
        core.patience.deadline = core.outage.deadline(connected=False)
        await core.changed.wait()
    core.outage.connected()
    core.patience.deadline = core.outage.deadline(connected=True)


async def _meet_again(core: Core, *, need_session: bool) -> bool:
    """Proves iopub live once more; whether the kernel says the session that it had."""
    status = core.status
    with anyio.move_on_after(OLD_NEWS):
        while core.transport.has_arrived("iopub"):
            # What the old connection brought proves nothing of the new one.
            await checkpoint()
    core.iopub_proven = False
    core.transport.widen()
    heard = status.heard
    if core.outage.session is None:
        # What comes back may be lost once more, and have led to another kernel.
        core.outage.session = status.session or ""
    status.curious = True
    try:
        with anyio.move_on_after(PROOF_DEADLINE):
            await prove_iopub(core)
            with anyio.move_on_after(SESSION_GRACE):
                while need_session and status.heard == heard:
                    await core.changed.wait()
    finally:
        status.curious = False
        core.transport.narrow()
    return status.heard > heard and status.session == core.outage.session
