"""The life of a connection as what it is: a table."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enchannel._core.life import RESTARTING, TABLE, Effect, Event, Life, State

AWAY = (State.OUTAGE, *RESTARTING, State.RESTARTED)
ALIVE = (State.OPENING, State.LIVE, *AWAY)
CUT_OFF, RENEWED, AGAIN = RESTARTING[1:]

EDGES = {
    (State.OPENING, State.LIVE),
    (State.LIVE, State.OUTAGE),
    (State.OUTAGE, State.LIVE),
    (State.LIVE, State.RESTARTING),
    (State.OUTAGE, CUT_OFF),
    (State.OUTAGE, State.RESTARTED),
    (State.RESTARTING, CUT_OFF),
    *((state, RENEWED) for state in (State.RESTARTING, CUT_OFF)),
    *((state, State.RESTARTED) for state in RESTARTING),
    (State.RESTARTED, AGAIN),
    (State.RESTARTED, State.LIVE),
    *((state, State.LOST) for state in ALIVE),
    *((state, State.LEFT) for state in (*ALIVE, State.LOST)),
    # Behind a refusal.
    (State.RESTARTING, State.LIVE),
    (CUT_OFF, State.OUTAGE),
}
"""Where one state leads to another."""


def in_state(state: State) -> Life:
    life = Life()
    life.state = state
    return life


def lived(events: Iterable[Event]) -> tuple[Life, list[Effect]]:
    life = Life()
    return life, [effect for event in events for effect in life.happen(event)]


# Pair by pair.


def test_the_table_has_every_pair() -> None:
    assert TABLE.keys() == set(itertools.product(State, Event))


def test_where_the_states_lead() -> None:
    assert {(state, after) for (state, _), (after, _) in TABLE.items() if after != state} == EDGES


@pytest.mark.parametrize("event", Event)
def test_nothing_leads_out_of_left(event: Event) -> None:
    assert TABLE[State.LEFT, event] == (State.LEFT, ())


@pytest.mark.parametrize("event", Event)
def test_lost_leads_to_left_alone(event: Event) -> None:
    after, effects = TABLE[State.LOST, event]
    assert after is (State.LEFT if event is Event.LEAVE else State.LOST)
    # All that is still done.
    assert set(effects) <= {Effect.END, Effect.CLOSE}


@pytest.mark.parametrize("state", [*ALIVE, State.LOST])
def test_whatever_it_is_in_the_block_may_be_left(state: State) -> None:
    life = in_state(state)
    assert life.happen(Event.LEAVE) == (Effect.CLOSE,)
    assert life.state is State.LEFT
    assert life.happen(Event.LEAVE) == ()


@pytest.mark.parametrize("state", ALIVE)
def test_whatever_it_is_in_the_kernel_may_be_gone(state: State) -> None:
    life = in_state(state)
    assert life.happen(Event.GONE) == (Effect.ABANDON,)
    assert (life.state, life.over, life.away) == (State.LOST, True, False)
    assert life.happen(Event.GONE) == ()
    assert life.happen(Event.DRAINED) == (Effect.END,)


def test_what_is_done_is_done_in_one_order() -> None:
    order = list(Effect)
    for _, effects in TABLE.values():
        assert [*effects] == sorted(set(effects), key=order.index)


def test_what_a_state_does_not_expect_changes_nothing() -> None:
    for (state, _), (after, effects) in TABLE.items():
        assert after is not state or set(effects) <= {
            *(Effect.TELL_DISCONNECTED, Effect.TELL_RESTARTED, Effect.END)
        }


@pytest.mark.parametrize("state", State)
def test_a_state_is_one_of_four_kinds(state: State) -> None:
    life = in_state(state)
    assert life.away == (state in AWAY)
    assert life.over == (state in (State.LOST, State.LEFT))
    assert [life.away, life.over, state is State.OPENING, state is State.LIVE].count(True) == 1


# One after the other.

O, D, S = Event.OPENED, Event.DISCONNECTED, Event.NEW_SESSION  # noqa: E741
SAID = Event.SAID_RESTARTED
SAME, OTHER = Event.BACK_SAME, Event.BACK_OTHER
BEGIN, EXIT, REFUSED = Event.RESTART_BEGINS, Event.EXITED, Event.RESTART_REFUSED

ONE_RESTART: list[tuple[Event, ...]] = [
    # By somebody else.
    (S,),
    (D, OTHER),
    (D, S, OTHER),
    (D, S, SAME),
    (D, D, S, D, OTHER),
    (D, Event.OVERDUE, OTHER),
    (D, Event.OVERDUE, S, OTHER),
    # By somebody in between, who says so again and again.
    (SAID,),
    (D, SAID, SAID, OTHER),
    (D, S, SAID, OTHER),
    # By whoever launched it.
    (BEGIN, EXIT, SAME),
    (BEGIN, EXIT, OTHER),
    (BEGIN, EXIT, SAID, OTHER),
    (BEGIN, D, EXIT, D, OTHER),
    (BEGIN, S, D, EXIT, OTHER),
    (BEGIN, BEGIN, EXIT, EXIT, OTHER),
    (D, BEGIN, EXIT, OTHER),
    (D, Event.OVERDUE, BEGIN, EXIT, OTHER),
]


@pytest.mark.parametrize("events", ONE_RESTART)
def test_a_restart_is_told_once_however_it_is_noticed(events: Sequence[Event]) -> None:
    life, effects = lived([O, *events])
    assert (life.state, life.epoch) == (State.LIVE, 1)
    assert effects.count(Effect.TELL_RESTARTED) == 1
    # It is no outage after which replies are looked for.
    assert not {Effect.COUNT_OUTAGE, Effect.DOUBT} & set(effects)


@pytest.mark.parametrize(
    "events",
    [
        (S, S),
        (D, OTHER, D, OTHER),
        (D, S, BEGIN, EXIT, OTHER),
        # One that crashed at its start, and the next.
        (D, S, S, D, OTHER),
        (BEGIN, EXIT, S, OTHER),
        (BEGIN, S, D, EXIT, S, OTHER),
        (BEGIN, EXIT, BEGIN, EXIT, OTHER),
        (BEGIN, EXIT, OTHER, S),
    ],
)
def test_each_restart_is_told(events: Sequence[Event]) -> None:
    life, effects = lived([O, *events])
    assert (life.state, life.epoch) == (State.LIVE, 2)
    assert effects.count(Effect.TELL_RESTARTED) == 2


@pytest.mark.parametrize("events", [(D, SAME), (D, D, SAME), (D, Event.OVERDUE, D, SAME)])
def test_an_outage_is_counted_once_and_is_no_restart(events: Sequence[Event]) -> None:
    life, effects = lived([O, *events])
    assert (life.state, life.epoch) == (State.LIVE, 0)
    assert effects[-3:] == [Effect.COUNT_OUTAGE, Effect.DOUBT, Effect.RESUME]
    assert Counter(effects)[Effect.COUNT_OUTAGE] == 1


REFUSALS: list[tuple[tuple[Event, ...], tuple[Event, ...]]] = [
    ((BEGIN, REFUSED), ()),
    ((BEGIN, D, REFUSED, SAME), (D, SAME)),
    ((BEGIN, D, D, REFUSED, D, SAME), (D, SAME)),
    ((D, BEGIN, REFUSED, SAME), (D, SAME)),
    ((D, BEGIN, D, REFUSED, OTHER), (D, OTHER)),
    ((BEGIN, S, REFUSED, SAME), (D, S, SAME)),
    ((BEGIN, D, S, D, REFUSED, OTHER), (D, S, OTHER)),
    ((BEGIN, EXIT, BEGIN, D, S, REFUSED, OTHER), (BEGIN, EXIT, OTHER)),
    ((D, S, BEGIN, REFUSED, SAME), (D, S, SAME)),
    ((BEGIN, D, REFUSED, BEGIN, REFUSED, SAME), (D, SAME)),
]


@pytest.mark.parametrize(("events", "like"), REFUSALS)
def test_behind_a_refused_restart_all_is_as_without_it(
    events: Sequence[Event], like: Sequence[Event]
) -> None:
    life, effects = lived([O, *events])
    other_life, expected = lived([O, *like])
    assert (life.state, life.epoch) == (other_life.state, other_life.epoch)
    turns = (Effect.HOLD, Effect.RESUME)
    assert [e for e in effects if e not in turns] == [e for e in expected if e not in turns]
    assert effects[-1] is Effect.RESUME


@pytest.mark.parametrize("event", [Event.OVERDUE, Event.GIVEN_UP])
def test_a_restart_of_our_own_is_never_given_up_while_the_old_kernel_goes(event: Event) -> None:
    life, _ = lived([O, BEGIN, D])
    assert life.happen(event) == ()
    assert life.state is CUT_OFF


# Whatever comes.

HAPPENING = st.lists(st.sampled_from(Event), max_size=40)
CLOSING = (Effect.ABANDON, Effect.END, Effect.CLOSE)


@given(HAPPENING)
def test_holding_and_resuming_take_turns(events: list[Event]) -> None:
    life = Life()
    turns: list[Effect] = []
    for event in events:
        before = life.state
        effects = life.happen(event)
        turns += [effect for effect in effects if effect in (Effect.HOLD, Effect.RESUME)]
        # To live from elsewhere is to resume, and nothing else is.
        assert (Effect.RESUME in effects) == (before is not life.state is State.LIVE)
        assert (Effect.HOLD in effects) == (before is State.LIVE and life.away)
        if not life.over:
            assert life.away == (turns[-1:] == [Effect.HOLD])
    expected = itertools.cycle([Effect.RESUME, Effect.HOLD])
    assert turns == list(itertools.islice(expected, len(turns)))


@given(HAPPENING)
def test_an_epoch_is_a_restart_that_was_told(events: list[Event]) -> None:
    life, effects = lived(events)
    assert life.epoch == effects.count(Effect.TELL_RESTARTED)


@given(HAPPENING)
def test_the_end_comes_once_and_in_order(events: list[Event]) -> None:
    life, effects = lived(events)
    counts = Counter(effects)
    assert counts[Effect.ABANDON] <= 1
    assert counts[Effect.CLOSE] <= 1
    for at, effect in enumerate(effects):
        if effect in CLOSING:
            assert set(effects[at + 1 :]) <= {Effect.END, Effect.CLOSE}
        if effect is Effect.END:
            assert Effect.ABANDON in effects[:at]
        if effect is Effect.CLOSE:
            assert effects[at + 1 :] == []
    # Once for each time that the last words are read, which they are once.
    lost = next((at for at, e in enumerate(events) if lived(events[: at + 1])[0].over), len(events))
    left = events.index(Event.LEAVE) if Event.LEAVE in events else len(events)
    assert counts[Effect.END] == events[lost + 1 : left].count(Event.DRAINED)
    assert life.over == (Effect.ABANDON in effects or Effect.CLOSE in effects)


@given(HAPPENING)
def test_what_is_in_flight_is_in_doubt_only_behind_an_outage(events: list[Event]) -> None:
    life = Life()
    for event in events:
        before = life.state
        effects = life.happen(event)
        if Effect.DOUBT in effects:
            assert (before, life.state) == (State.OUTAGE, State.LIVE)
            assert Effect.TELL_RESTARTED not in effects
        assert (Effect.DOUBT in effects) == (Effect.COUNT_OUTAGE in effects)
        if Effect.TELL_DISCONNECTED in effects:
            assert before is life.state is State.OUTAGE


@given(HAPPENING)
def test_leaving_is_the_end_whatever_came_before(events: list[Event]) -> None:
    life, _ = lived(events)
    was_left = life.state is State.LEFT
    assert life.happen(Event.LEAVE) == (() if was_left else (Effect.CLOSE,))
    for event in (*events, *Event):
        assert life.happen(event) == ()
    assert life.state is State.LEFT
