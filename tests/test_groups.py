"""What leaves a block, row by row of the table in `_groups`, by identity."""

from __future__ import annotations

import anyio
import pytest

from enchannel._groups import NOTE, unwrapping_task_group
from enchannel.testing import open_fake_kernel
from helpers import leaves_as_itself

pytestmark = pytest.mark.anyio


class Mine(Exception):
    pass


async def fail(error: BaseException) -> None:
    raise error


async def test_one_exception_leaves_as_itself() -> None:
    context, cause = KeyError("context"), OSError("cause")
    error = Mine("mine")
    error.__context__, error.__cause__ = context, cause
    with pytest.raises(Mine) as caught:
        async with unwrapping_task_group():
            raise error
    assert caught.value is error
    assert error.__context__ is context
    assert error.__cause__ is cause


async def test_a_context_that_was_none_stays_none() -> None:
    error = Mine("mine")
    with pytest.raises(Mine):
        async with unwrapping_task_group():
            raise error
    assert error.__context__ is None
    assert error.__cause__ is None
    assert not error.__suppress_context__


async def test_what_was_raised_from_stays() -> None:
    cause = OSError("cause")
    with pytest.raises(Mine) as caught:
        async with unwrapping_task_group():
            try:
                raise cause
            except OSError as error:
                raise Mine("mine") from error
    assert caught.value.__cause__ is cause
    assert caught.value.__context__ is cause


async def test_a_group_that_the_user_raised_stays() -> None:
    group = ExceptionGroup("the user's", [Mine("inside")])
    with pytest.raises(ExceptionGroup) as caught:
        async with unwrapping_task_group():
            raise group
    assert caught.value is group


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
async def test_an_interrupt_wins_and_carries_the_others(kind: type[BaseException]) -> None:
    # pytest itself stops at a KeyboardInterrupt that gets away, so it is caught by hand.
    leaving, other = kind("leaving"), Mine("other")
    caught: BaseException | None = None
    try:
        async with unwrapping_task_group() as tasks:
            tasks.start_soon(fail_at_the_end, other)
            await anyio.lowlevel.checkpoint()
            raise leaving
    except BaseException as error:
        caught = error
    assert caught is leaving
    assert isinstance(leaving.__cause__, BaseExceptionGroup)
    assert leaving.__cause__.exceptions == (other,)


async def fail_at_the_end(error: BaseException) -> None:
    try:
        await anyio.sleep_forever()
    finally:
        raise error


async def test_two_errors_leave_as_a_group_with_a_note() -> None:
    mine, other = Mine("mine"), Mine("other")
    with pytest.raises(ExceptionGroup) as caught:
        async with unwrapping_task_group() as tasks:
            tasks.start_soon(fail_at_the_end, other)
            await anyio.lowlevel.checkpoint()
            raise mine
    assert set(caught.value.exceptions) == {mine, other}
    assert caught.value.__notes__ == [NOTE]


async def test_a_task_that_fails_ends_the_body() -> None:
    error = Mine("of a task")
    with pytest.raises(Mine) as caught:
        async with unwrapping_task_group() as tasks:
            tasks.start_soon(fail, error)
            await anyio.sleep_forever()
    assert caught.value is error


async def test_a_cancellation_goes_to_its_scope() -> None:
    with anyio.CancelScope() as scope:
        async with unwrapping_task_group():
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_a_cancellation_from_outside_hides_no_error() -> None:
    error = Mine("mine")
    with anyio.CancelScope() as scope, pytest.raises(Mine) as caught:
        async with unwrapping_task_group() as tasks:
            tasks.start_soon(anyio.sleep_forever)
            await anyio.lowlevel.checkpoint()
            scope.cancel()
            raise error
    assert caught.value is error
    assert error.__context__ is None


@pytest.mark.parametrize("kind", [StopIteration, StopAsyncIteration, GeneratorExit])
async def test_even_what_generators_use_leaves_as_itself(kind: type[BaseException]) -> None:
    error = kind()
    with pytest.raises(kind) as caught:
        async with unwrapping_task_group():
            raise error
    assert caught.value is error


# The same rows for the blocks that a user opens.


SCOPES = {
    "channels": lambda kernel, ch: kernel.open_channels(),
    "execution": lambda kernel, ch: ch.execute("1"),
    "execution that interrupts": lambda kernel, ch: ch.execute("1", interrupt_on_cancel=True),
    "execution that answers": lambda kernel, ch: ch.execute("1", on_input=lambda *_: ""),
    "comm": lambda kernel, ch: ch.open_comm("target"),
    "accepted comms": lambda kernel, ch: ch.accept_comms("target"),
    "subscription": lambda kernel, ch: ch.subscribe(),
}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(
    "error",
    [Mine("mine"), ExceptionGroup("the user's", [Mine("inside")]), KeyboardInterrupt("leaving")],
    ids=["one", "group", "interrupt"],
)
async def test_what_leaves_each_block_is_what_was_raised(scope: str, error: BaseException) -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        await leaves_as_itself(SCOPES[scope](kernel, ch), error)


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_cancellation_leaves_each_block_to_its_scope(scope: str) -> None:
    async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
        with anyio.CancelScope() as outer:
            async with SCOPES[scope](kernel, ch):
                outer.cancel()
                await anyio.sleep_forever()
        assert outer.cancelled_caught
        assert (await ch.request("kernel_info_request")).content["status"] == "ok"
