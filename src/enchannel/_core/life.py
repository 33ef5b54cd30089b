"""The life of a connection: a table of states, events and effects, without input, output or clocks.

Rule 0: everything that a connection goes through is one of :class:`Event`, and what it means stands in
:data:`TABLE` and nowhere else. Whoever notices something (the transport, a status on iopub, whoever launched
the kernel, a clock) says so to :meth:`Life.happen`, and does what comes back.

Rule 1: a connection that is gone may come back. Meanwhile nothing is sent and nothing is concluded. What is in
flight is told when the outage is *overdue*, for it may have been lost with a kernel that was restarted; streams
and senders wait until it is *given up*.

Rule 2: a kernel that is restarted is told to what is in flight once, however it is noticed: by its session, when
the connection is back, or by who restarts it. Each restart begins a new *epoch*.

Rule 3: a restart of our own is no outage that could be given up: while the old kernel goes (*restarting*), and
until the new one is there (*restarted*), the only deadline is that of whoever restarts it. What happens meanwhile is
remembered, and where the restart is refused it counts as ever: a connection that was away, or is, is an outage.

Rule 4: a lost connection is let go then and there. Its streams end when what had arrived is read.

Rule 5: what a state does not expect changes nothing; the table says so, pair by pair.

::

    opening ──► live ◄──► outage ──► lost ──► left
                ▲ │ ▲        │         ▲        ▲
                │ ▼ │        ▼         │        │
             restarting ► restarted ───┘   (from any)

What a *restarting* connection is behind a refusal is part of its state: live, in an outage (*cut off*), or restarted, where
that was told before (*again*) or is told then (*renewed*).
"""

from __future__ import annotations

from enum import Enum, auto

__all__ = ["RESTARTING", "TABLE", "Effect", "Event", "Life", "State"]


class State(Enum):
    """What a connection is in."""

    OPENING = auto()
    """Not every channel has been connected, or iopub is not proven live yet."""
    LIVE = auto()
    """Everything works."""
    OUTAGE = auto()
    """The connection of a channel is away, or is back and not known to lead to the same kernel."""
    RESTARTING = auto()
    """Whoever launched the kernel is restarting it, and the old one may still be there."""
    RESTARTING_CUT_OFF = auto()
    """The same, and the connection of a channel was away meanwhile, or is."""
    RESTARTING_RENEWED = auto()
    """The same, and the kernel says another session: it may be the new one, or one that somebody else has restarted."""
    RESTARTING_AGAIN = auto()
    """The same, and the one that is restarted had been told of, and was awaited."""
    RESTARTED = auto()
    """The old kernel has exited, and the new one is awaited."""
    LOST = auto()
    """The kernel is lost for good."""
    LEFT = auto()
    """The block of the channels was left."""


class Event(Enum):
    """What happens to a connection."""

    OPENED = auto()
    """Every channel is connected, and iopub is proven live or need not be."""
    DISCONNECTED = auto()
    """A channel's connection went away."""
    OVERDUE = auto()
    """The outage has lasted longer than what is in flight may be left in doubt."""
    BACK_SAME = auto()
    """The connection is back, to the kernel that was there before."""
    BACK_OTHER = auto()
    """The connection is back, to another kernel, or to one that does not say which it is."""
    GIVEN_UP = auto()
    """The connection did not come back in time."""
    NEW_SESSION = auto()
    """The kernel says another session than before."""
    SAID_RESTARTED = auto()
    """Somebody in between says that he restarts the kernel; he may say so more than once."""
    RESTART_BEGINS = auto()
    """Whoever launched the kernel begins to restart it."""
    RESTART_REFUSED = auto()
    """Whoever was to restart it does not."""
    EXITED = auto()
    """The kernel that is being restarted has exited."""
    GONE = auto()
    """The kernel is known to be gone: its process exited, it fell silent, a channel cannot be used."""
    DRAINED = auto()
    """All that had arrived from a lost kernel is read."""
    LEAVE = auto()
    """The block of the channels is left."""


class Effect(Enum):
    """What is to be done about it, in this order."""

    HOLD = auto()
    """Nothing is sent until RESUME; no bound of a stream keeps back what the kernel managed to send."""
    TELL_DISCONNECTED = auto()
    """What is in flight is told that the connection is away."""
    TELL_RESTARTED = auto()
    """What is in flight is told that the kernel was restarted: a new epoch."""
    COUNT_OUTAGE = auto()
    """The outage is counted and logged: what was published meanwhile is lost."""
    DOUBT = auto()
    """Replies that may have been lost in the outage are asked behind."""
    RESUME = auto()
    """Sending and concluding go on."""
    ABANDON = auto()
    """The transport is let go; what has arrived is read."""
    END = auto()
    """Streams and what is in flight end with the loss."""
    CLOSE = auto()
    """Streams and what is in flight end, because the block was left."""


_S, _E, _F = State, Event, Effect

TABLE: dict[tuple[State, Event], tuple[State, tuple[Effect, ...]]] = {
    # Nobody is in flight yet, and whoever opens waits for the connection anyhow.
    (_S.OPENING, _E.OPENED): (_S.LIVE, (_F.RESUME,)),
    (_S.OPENING, _E.DISCONNECTED): (_S.OPENING, ()),
    (_S.OPENING, _E.NEW_SESSION): (_S.OPENING, (_F.TELL_RESTARTED,)),
    (_S.OPENING, _E.RESTART_BEGINS): (_S.OPENING, ()),
    (_S.OPENING, _E.EXITED): (_S.OPENING, ()),
    # The connection works.
    (_S.LIVE, _E.DISCONNECTED): (_S.OUTAGE, (_F.HOLD,)),
    (_S.LIVE, _E.NEW_SESSION): (_S.LIVE, (_F.TELL_RESTARTED,)),
    (_S.LIVE, _E.RESTART_BEGINS): (_S.RESTARTING, (_F.HOLD,)),
    (_S.LIVE, _E.EXITED): (_S.LIVE, ()),
    (_S.LIVE, _E.OPENED): (_S.LIVE, ()),
    # It is away.
    (_S.OUTAGE, _E.DISCONNECTED): (_S.OUTAGE, ()),
    (_S.OUTAGE, _E.OVERDUE): (_S.OUTAGE, (_F.TELL_DISCONNECTED,)),
    (_S.OUTAGE, _E.BACK_SAME): (_S.LIVE, (_F.COUNT_OUTAGE, _F.DOUBT, _F.RESUME)),
    (_S.OUTAGE, _E.BACK_OTHER): (_S.LIVE, (_F.TELL_RESTARTED, _F.RESUME)),
    (_S.OUTAGE, _E.GIVEN_UP): (_S.LOST, (_F.ABANDON,)),
    # It is known to be another kernel before the connection is complete.
    (_S.OUTAGE, _E.NEW_SESSION): (_S.RESTARTED, (_F.TELL_RESTARTED,)),
    (_S.OUTAGE, _E.RESTART_BEGINS): (_S.RESTARTING_CUT_OFF, ()),
    # The old kernel may come back before it goes; that ends nothing.
    (_S.RESTARTING, _E.DISCONNECTED): (_S.RESTARTING_CUT_OFF, ()),
    (_S.RESTARTING, _E.NEW_SESSION): (_S.RESTARTING_RENEWED, ()),
    (_S.RESTARTING_CUT_OFF, _E.NEW_SESSION): (_S.RESTARTING_RENEWED, ()),
    # It does not go. What had happened meanwhile counts now; the keeper sits it out, also where the connection is back.
    (_S.RESTARTING, _E.RESTART_REFUSED): (_S.LIVE, (_F.RESUME,)),
    (_S.RESTARTING_CUT_OFF, _E.RESTART_REFUSED): (_S.OUTAGE, ()),
    (_S.RESTARTING_RENEWED, _E.RESTART_REFUSED): (_S.RESTARTED, (_F.TELL_RESTARTED,)),
    (_S.RESTARTING_AGAIN, _E.RESTART_REFUSED): (_S.RESTARTED, ()),
    # It was told, so what comes back is told no more, unless the next one goes as well.
    (_S.RESTARTED, _E.NEW_SESSION): (_S.RESTARTED, (_F.TELL_RESTARTED,)),
    (_S.RESTARTED, _E.BACK_SAME): (_S.LIVE, (_F.RESUME,)),
    (_S.RESTARTED, _E.BACK_OTHER): (_S.LIVE, (_F.RESUME,)),
    (_S.RESTARTED, _E.DISCONNECTED): (_S.RESTARTED, ()),
    (_S.RESTARTED, _E.SAID_RESTARTED): (_S.RESTARTED, ()),
    (_S.RESTARTED, _E.EXITED): (_S.RESTARTED, ()),
    (_S.RESTARTED, _E.RESTART_BEGINS): (_S.RESTARTING_AGAIN, ()),
    (_S.RESTARTED, _E.GIVEN_UP): (_S.LOST, (_F.ABANDON,)),
    # It is lost.
    (_S.LOST, _E.DRAINED): (_S.LOST, (_F.END,)),
}

RESTARTING = (
    *(_S.RESTARTING, _S.RESTARTING_CUT_OFF),
    *(_S.RESTARTING_RENEWED, _S.RESTARTING_AGAIN),
)
"""Whoever launched the kernel is restarting it, and the old one may still be there."""

TABLE |= {(state, _E.EXITED): (_S.RESTARTED, (_F.TELL_RESTARTED,)) for state in RESTARTING}
TABLE |= {
    (state, _E.SAID_RESTARTED): entry
    for (state, event), entry in tuple(TABLE.items())
    if event is _E.NEW_SESSION and (state, _E.SAID_RESTARTED) not in TABLE
}
_ALIVE = (_S.OPENING, _S.LIVE, _S.OUTAGE, *RESTARTING, _S.RESTARTED)
TABLE |= {(state, _E.GONE): (_S.LOST, (_F.ABANDON,)) for state in _ALIVE}
TABLE |= {(state, _E.LEAVE): (_S.LEFT, (_F.CLOSE,)) for state in (*_ALIVE, _S.LOST)}
# What is left changes nothing: clocks and transports may be a turn behind.
TABLE |= {
    pair: (pair[0], ())
    for pair in ((state, event) for state in State for event in Event)
    if pair not in TABLE
}


class Life:
    """The state of one connection; the only place that knows it.

    Attributes:
        state: What it is in.
        epoch: How many restarts of the kernel have been told.
    """

    def __init__(self) -> None:
        self.state: State = State.OPENING
        self.epoch: int = 0

    def happen(self, event: Event) -> tuple[Effect, ...]:
        """Takes note of `event`; what is to be done about it, in order."""
        self.state, effects = TABLE[self.state, event]
        if Effect.TELL_RESTARTED in effects:
            self.epoch += 1
        return effects

    @property
    def away(self) -> bool:
        """Whether nothing may be sent or concluded now, and that may change."""
        return self.state in (State.OUTAGE, *RESTARTING, State.RESTARTED)

    @property
    def over(self) -> bool:
        """Whether nothing will ever be sent again."""
        return self.state in (State.LOST, State.LEFT)
