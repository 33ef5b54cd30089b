"""How a fake kernel runs code: by the script that the test wrote for it, and in all else as ipykernel does.

* A cell that fails aborts the executions that wait behind it on shell, where its request says so and it is not silent;
  other requests are answered.
* Silent code has no input and no result, and is not counted; neither is blank code, nor code that is not stored.
* User expressions are evaluated behind code that has not failed, and are not defined unless the test says so.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias

import anyio

from ._request import Asked
from ._wrong import check_content

__all__ = ["ABORTED", "Doing", "Executions", "Outcome"]

Outcome: TypeAlias = "Mapping[str, Any] | None"
"""``None``, or the ``ename``, ``evalue`` and ``traceback`` with which a cell fails."""

Doing: TypeAlias = "Callable[[Any], Outcome | Awaitable[Outcome]]"
"""A step of a script, of whatever class its request is."""

ABORTED: Mapping[str, Any] = {"status": "aborted"}
"""The reply to what waits behind a failure."""


class Executions:
    """The executions of one kernel.

    Attributes:
        count: Of the last that was counted.
        scripts: What code does.
        expressions: The MIME bundles of user expressions.
    """

    def __init__(self) -> None:
        self.count: int = 0
        self.scripts: dict[str, Sequence[Doing]] = {}
        self.expressions: dict[str, Mapping[str, Any]] = {}
        self._running: dict[tuple[str, str | None], anyio.CancelScope] = {}

    async def run(self, request: Asked) -> Mapping[str, Any] | None:
        """Runs what an execute_request asks for; the content of its reply, ``None`` for none."""
        content = request.content
        code = str(content.get("code", ""))
        silent = bool(content.get("silent"))
        if not silent:
            shown = {"code": code, "execution_count": self.count + 1}
            request.publish("execute_input", shown)
            if content.get("store_history", True) and code.strip():
                self.count += 1
        failure = await self._follow(request, self.scripts.get(code, ()))
        # Shells count together.
        count = self.count
        reply = {
            "execution_count": count,
            "payload": list(request.payload),
            "user_expressions": {},
        }
        if failure is not None:
            return {**reply, "status": "error", **failure}
        asked = content.get("user_expressions") or {}
        if not isinstance(asked, Mapping):
            # ipykernel trips over them, behind the code, and sends no reply.
            return None
        values = {name: self._evaluate(expression) for name, expression in asked.items()}
        return {**reply, "user_expressions": values}

    async def _follow(self, request: Asked, steps: Sequence[Doing]) -> Outcome:
        # One in each shell: an interrupt is for the main one.
        shell = request.channel, request.message.header.get("subshell_id")
        with anyio.CancelScope() as scope:
            self._running[shell] = scope
            try:
                for step in steps:
                    # Also the end of this life of the kernel is noticed here, by the hand of the step before.
                    await request.kernel.wait_awake()
                    outcome = step(request)
                    failure = await outcome if inspect.isawaitable(outcome) else outcome
                    if failure is not None:
                        check_content(f"a step of {request.content.get('code')!r}", failure)
                        return failure
            finally:
                del self._running[shell]
        if not scope.cancelled_caught:
            return None
        await request.kernel.wait_awake()
        interrupted = {"ename": "KeyboardInterrupt", "evalue": "", "traceback": []}
        request.publish("error", interrupted)
        return interrupted

    def _evaluate(self, expression: object) -> Mapping[str, Any]:
        if not isinstance(expression, str):
            said = "eval() arg 1 must be a string, bytes or code object"
            return {"status": "error", "ename": "TypeError", "evalue": said, "traceback": []}
        data = self.expressions.get(expression)
        if data is not None:
            return {"status": "ok", "data": data, "metadata": {}}
        said = f"name {expression!r} is not defined"
        return {"status": "error", "ename": "NameError", "evalue": said, "traceback": []}

    def interrupt(self) -> None:
        """Ends what the main shell runs with a KeyboardInterrupt."""
        running = self._running.get(("shell", None))
        if running is not None:
            running.cancel()

    @staticmethod
    def aborts(request: Asked, reply: Mapping[str, Any] | None) -> bool:
        """Whether what waits behind `request` is not to run, because of this reply."""
        content = request.content
        return (
            request.message.msg_type == "execute_request"
            and request.channel == "shell"
            and (reply or {}).get("status") == "error"
            and bool(content.get("stop_on_error", True))
            and not content.get("silent")
        )
