"""What becomes of a fake server whose kernels fail at what the test has told them; see ``test_server.py`` for the rest."""

from __future__ import annotations

import anyio
import pytest

from enchannel import KernelDied, ServerError, open_server
from enchannel.testing import open_fake_server, pause
from helpers import fails, fails_when_ended

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("restarts", [True, False])
async def test_a_step_that_raises_ends_its_kernel_and_leaves_the_block(restarts: bool) -> None:
    with anyio.fail_after(60), pytest.raises(ZeroDivisionError, match="the step's own"):
        async with open_fake_server() as fake, open_server(fake.url) as server:
            fake.restarts_kernels = restarts
            async with server.open_kernel() as kernel, kernel.open_channels() as ch:
                fake.kernels[kernel.id].script("x", fails)
                with pytest.raises(KernelDied):
                    await ch.run("x")
                await fake.wait_over(kernel.id)
                assert await server.list_kernels() == []
            # Others are none the worse for it.
            async with server.open_kernel() as kernel, kernel.open_channels() as ch:
                assert (await ch.run("x")).status == "ok"


async def test_the_failure_leaves_the_block_and_not_what_follows_from_it() -> None:
    with anyio.fail_after(60), pytest.raises(ZeroDivisionError, match="the step's own"):
        async with (
            open_fake_server() as fake,
            open_server(fake.url) as server,
            server.open_kernel() as kernel,
            kernel.open_channels() as ch,
        ):
            fake.kernels[kernel.id].script("x", fails)
            await ch.run("x")


async def test_a_failure_in_the_way_of_a_restart_is_an_answer_of_the_server() -> None:
    with anyio.fail_after(60), pytest.raises(ZeroDivisionError, match="in the way"):
        async with open_fake_server() as fake, open_server(fake.url) as server:
            async with server.open_kernel() as kernel, kernel.open_channels() as ch:
                hosted = fake.kernels[kernel.id]
                hosted.script("x", fails_when_ended)
                async with ch.execute("x"):
                    await hosted.transcript.wait_for("< iopub execute_input")
                    await anyio.wait_all_tasks_blocked()
                    with pytest.raises((KernelDied, ServerError)):
                        await kernel.restart()


async def test_a_restart_by_somebody_else_is_told_to_what_is_in_flight() -> None:
    """By what the kernel says of itself, as behind a real server, whose websockets stay open."""
    async with open_fake_server() as fake, open_server(fake.url) as server:
        async with server.open_kernel() as kernel, kernel.open_channels() as ch:
            hosted = fake.kernels[kernel.id]
            hosted.script("long", pause(3600))
            async with ch.execute("long") as execution:
                await hosted.transcript.wait_for("< iopub execute_input")
                await hosted.restart()
                with anyio.fail_after(60), pytest.raises(KernelDied) as caught:
                    await execution.wait()
            assert caught.value.reason == "restarted"
            assert (await ch.run("1")).status == "ok"
