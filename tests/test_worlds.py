"""Worlds made at random: several tasks that use one connection in every way, are cancelled at any moment, and a kernel and
a network that fail meanwhile. Whatever happens, nobody waits without end, each has his own, and nothing is left behind.

In memory on a clock that jumps, so that a world of hours takes a few milliseconds. A world that fails does so by its seed.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

from enchannel import KernelChannels, KernelDied, NoReply, ReplyError
from enchannel.testing import FakeComm, FakeKernel, Request, open_fake_kernel, pause, stream
from virtual_clock import virtual_backend  # noqa: F401

pytestmark = [pytest.mark.anyio, pytest.mark.once]

WORLDS = 210

LONG = 3_000
"""Seconds that nothing here takes: whoever still waits then waits without end."""

LEAVING = 3.1
"""Seconds that a cancelled task may take: to stop its code, and to close what was open around that."""


class World:
    """One connection, and those who use it."""

    def __init__(self, seed: int, kernel: FakeKernel, ch: KernelChannels, kinds: list[str]) -> None:
        self.random = random.Random(seed)
        self.kernel = kernel
        self.ch = ch
        self.kinds = kinds
        self.troubled = False
        self.wrong: list[str] = []
        self._tokens = 0
        kernel.on("echo_request", lambda request: {"token": request.content["token"]})
        kernel.on("none_request", lambda request: None)
        kernel.on_comm("echo", self._echo)

    def _echo(self, comm: FakeComm, message: Any) -> None:
        data = message.content.get("data") or {}
        for number in range(data.get("times", 0)):
            comm.send({"token": data["token"], "number": number})

    def token(self) -> str:
        self._tokens += 1
        return f"T{self._tokens}"

    def check(self, right: object, what: str, *seen: object) -> None:
        if not right:
            self.wrong.append(f"{what}: {seen}")

    def script(self) -> tuple[str, list[str]]:
        """Code that prints lines of its own, now and then after a while."""
        token = self.token()
        lines = [f"{token}.{number}" for number in range(self.random.choice([0, 1, 20, 150]))]
        steps: list[Any] = []
        for line in lines:
            steps.append(stream(f"{line}\n"))
            if self.random.random() < 0.1:
                steps.append(pause(self.random.choice([0.01, 0.3, 2])))
        self.kernel.script(token, *steps)
        return token, lines

    def check_lines(self, text: str, lines: list[str], status: str) -> None:
        printed = [line for line in text.splitlines() if line.startswith("T")]
        if status == "ok" and not self.troubled:
            self.check(printed == lines, "not all lines", printed, lines)
        rest = iter(lines)
        self.check(all(line in rest for line in printed), "lines of others", printed, lines)

    # What its users do.

    async def run(self) -> None:
        token, lines = self.script()
        done = await self.ch.run(token, interrupt_on_cancel=self.random.random() < 0.4)
        self.check_lines(done.text, lines, done.status)

    async def answer(self) -> None:
        token = self.token()

        async def asks(request: Request) -> None:
            text = await request.input("? ")
            request.publish("stream", {"name": "stdout", "text": text})

        self.kernel.script(token, asks)

        async def reply(prompt: str, password: bool) -> str:
            await anyio.sleep(self.random.choice([0, 1]))
            return token

        done = await self.ch.run(token, on_input=reply)
        self.check(done.status != "ok" or done.text == token, "an answer of others", done.text)

    async def execute(self) -> None:
        token, lines = self.script()
        stops = self.random.random() < 0.4
        async with self.ch.execute(token, interrupt_on_cancel=stops) as execution:
            async for _ in execution:
                if self.random.random() < 0.05:
                    break
            if self.random.random() < 0.5:
                reply = await execution.wait()
                self.check_lines(execution.text, lines, reply.content["status"])

    async def ask(self) -> None:
        token, channel = self.token(), self.random.choice(["shell", "control"])
        reply = await self.ch.request("echo_request", {"token": token}, channel=channel)
        aborted = reply.content.get("status") == "aborted"
        self.check(reply.content.get("token") == token or aborted, "a reply of others", reply)

    async def ask_in_vain(self) -> None:
        reply = await self.ch.request("none_request")
        self.check(reply.content.get("status") == "aborted", "a reply to nothing", reply)

    async def open_comm(self) -> None:
        token, times = self.token(), self.random.choice([0, 1, 5])
        async with self.ch.open_comm("echo") as comm:
            await comm.send({"token": token, "times": times})
            for number in range(0 if self.troubled else times):
                with anyio.move_on_after(60):
                    data = (await comm.receive()).content["data"]
                    mine = data == {"token": token, "number": number}
                    self.check(mine or self.troubled, "a comm of others", data, token)

    async def open_subshell(self) -> None:
        async with self.ch.open_subshell() as subshell:
            token, lines = self.script()
            done = await subshell.run(token)
            self.check_lines(done.text, lines, done.status)

    async def listen(self) -> None:
        async with self.ch.subscribe(*self.random.choice([(), ("iopub",)])) as messages:
            with anyio.move_on_after(self.random.choice([1, 5])):
                async for _ in messages:
                    if self.random.random() < 0.02:
                        await anyio.sleep(1)

    async def wait_idle(self) -> None:
        await self.ch.wait_idle()

    async def know_the_kernel(self) -> None:
        await self.ch.kernel_info()

    async def interrupt(self) -> None:
        await self.ch.interrupt()

    # And how it goes on.

    async def use(self) -> None:
        ways = [self.run, self.execute, self.ask, self.ask_in_vain, self.open_comm]
        ways += [
            self.open_subshell,
            self.listen,
            self.wait_idle,
            self.know_the_kernel,
            self.interrupt,
        ]
        if not self.kinds:
            # A kernel that asks says nothing, and behind an outage may count as another one.
            ways.append(self.answer)
        for _ in range(self.random.randrange(1, 6)):
            await self._use_once(self.random.choice(ways))
            await anyio.sleep(self.random.choice([0, 0.1, 1]))

    async def _use_once(self, function: Callable[[], Awaitable[None]]) -> None:
        after = self.random.choice([LONG, LONG, 0, 0.001, 0.1, 1, 3])
        began = anyio.current_time()
        with anyio.move_on_after(after) as scope:
            try:
                await function()
            except (KernelDied, NoReply, ReplyError) as error:
                # The kernel has none of what is asked in vain, and ends an interrupted reply as it likes.
                expected = self.troubled or isinstance(error, NoReply)
                self.check(expected, f"{function.__name__} failed", error)
        took = anyio.current_time() - began
        self.check(not (after == LONG and scope.cancelled_caught), "waits", function.__name__)
        self.check(took <= after + LEAVING, "takes long to leave", function.__name__, took, after)

    async def trouble(self) -> None:
        for _ in range(self.random.randrange(1, 5) if self.kinds else 0):
            await anyio.sleep(self.random.choice([0.1, 0.5, 2, 4]))
            self.troubled = True
            match self.random.choice(self.kinds):
                case "restart":
                    await self.kernel.restart()
                case "silence":
                    self.kernel.go_silent()
                    await self._blink()
                    self.kernel.wake()
                case "cut":
                    await self._blink()

    async def _blink(self) -> None:
        (client,) = self.kernel.clients
        channels: Any = self.random.choice([(), ("shell",), ("iopub",), ("control", "stdin")])
        client.cut(*channels)
        await anyio.sleep(self.random.choice([0, 0.01, 0.3, 1, 3]))
        client.mend(*channels)
        await anyio.sleep(self.random.choice([0, 1, 5]))


@pytest.mark.parametrize("seed", range(WORLDS))
async def test_a_world(seed: int) -> None:
    chance = random.Random(-1 - seed)
    bound = chance.choice([math.inf, math.inf, 1, 10])
    kinds = chance.choice(
        [[], ["cut"], ["restart"], ["cut", "silence"], ["cut", "restart", "silence"]]
    )
    async with open_fake_kernel(subshells=True) as kernel:
        async with kernel.open_channels(max_buffer_size=bound, reconnect_timeout=60) as ch:
            world = World(seed, kernel, ch, kinds)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(world.trouble)
                for _ in range(chance.randrange(1, 7)):
                    tasks.start_soon(world.use)
            with anyio.fail_after(LONG):
                await ch.wait_idle()
            await anyio.sleep(LONG)
            assert ch.status == "idle"
            assert not len(ch._core.requests)
            assert not ch._core.requests._tied
            assert not ch._core.bound._held
            assert not ch._core.bound._waiting
        assert not world.wrong
