"""The check of transports: ours keep every rule, and whoever breaks one is found out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from enchannel import EnchannelError, LocalProtocolError, Transport
from enchannel.testing import KernelEnd, check_transport, memory_transport_pair
from enchannel.testing._sockets import ZmqKernelEnd

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def memory(key: bytes = b"key") -> AsyncIterator[tuple[Transport, KernelEnd]]:
    yield memory_transport_pair(key)


def sockets(transport: str) -> Any:
    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Transport, KernelEnd]]:
        end = ZmqKernelEnd(transport, b"key")
        await end.appear()
        client = end.connect(b"identity", (b"",))
        try:
            yield client, end
        finally:
            await client.aclose()
            await end.aclose()

    return make


@pytest.mark.parametrize(
    "make", [memory, sockets("tcp"), sockets("ipc")], ids=["memory", "tcp", "ipc"]
)
async def test_every_transport_keeps_the_rules(make: Any) -> None:
    await check_transport(make)


# Ways to break a rule, each of which some check must find.


def receives_twice(transport: Any) -> None:
    take = transport.take
    transport.take = lambda *args: [frames for frames in take(*args) for _ in range(2)]
    transport.wire._replays.add = lambda digest: True


def receives_backwards(transport: Any) -> None:
    take = transport.take
    transport.take = lambda *args: take(*args)[::-1]


def is_never_readable(transport: Any) -> None:
    transport.wait_readable = lambda channel: anyio.sleep_forever()


def is_never_lost(transport: Any) -> None:
    transport.follow = lambda tell, start: None


def sends_anything(transport: Any) -> None:
    transport.wire.encode = lambda message: [b"<IDS|MSG>", b"", b"{}", b"{}", b"{}", b"{}"]


def counts_nothing(transport: Any) -> None:
    transport.dropped = dict


def says_nothing_of_a_loss(transport: Any) -> None:
    follow = transport.follow
    transport.follow = lambda tell, start: follow(
        lambda event, channels, _: tell(event, channels, ""), start
    )


def gives_all_at_once(transport: Any) -> None:
    take = transport.take

    def take_all(*args: Any) -> list[Any]:
        taken = take(*args)
        with contextlib.suppress(anyio.WouldBlock):
            while True:
                taken += take(*args)
        return taken

    transport.take = take_all


def forgets_last_words(transport: Any) -> None:
    abandon = transport.abandon

    def forget() -> None:
        abandon()
        for pipe in transport.inbound.values():
            pipe.clear()

    transport.abandon = forget


def keeps_who_waits(transport: Any) -> None:
    abandon = transport.abandon

    def abandon_silently() -> None:
        for pipe in transport.inbound.values():
            pipe.wake = lambda: None
        abandon()

    transport.abandon = abandon_silently


def keeps_who_follows(transport: Any) -> None:
    follow = transport.follow

    def follow_for_ever(tell: Any, start: Any) -> None:
        follow(tell, start)
        start(anyio.sleep_forever)

    transport.follow = follow_for_ever


BREAKS: dict[Any, str] = {
    receives_twice: "lost order|delivers twice",
    receives_backwards: "lost order",
    is_never_readable: "^$",
    is_never_lost: "^$",
    sends_anything: "was sent|changed or reordered|signature does not belong",
    counts_nothing: "not counted",
    says_nothing_of_a_loss: "must say what was seen",
    gives_all_at_once: "too many at a time",
    forgets_last_words: "^$",
    keeps_who_waits: "^$",
    keeps_who_follows: "^$",
}


@pytest.mark.parametrize("break_it", BREAKS)
async def test_a_transport_that_breaks_a_rule_is_found_out(break_it: Any) -> None:
    @asynccontextmanager
    async def make() -> AsyncIterator[tuple[Transport, KernelEnd]]:
        transport, end = memory_transport_pair(b"key")
        break_it(transport)
        yield transport, end

    with pytest.raises((AssertionError, EnchannelError, TimeoutError), match=BREAKS[break_it]):
        # What is to end of it ends after a second; what ends before has all the time.
        await check_transport(make, patience=1 if BREAKS[break_it] == "^$" else 60)


@pytest.mark.parametrize("patience", [0, -1, float("nan"), "1", True])
async def test_patience_that_is_none_is_refused(patience: Any) -> None:
    with pytest.raises(LocalProtocolError, match="patience is seconds, above 0"):
        await check_transport(memory_transport_pair, patience=patience)  # type: ignore[arg-type]
