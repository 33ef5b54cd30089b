"""An execution that is over: what it answered, and what it showed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from .._exceptions import ReplyError
from .._protocol.errors import LocalProtocolError, text_of
from .._protocol.message import Message
from .._protocol.output_text import text_of_outputs
from .conversations import Conversations
from .execution import execute_code
from .replies import count_of, is_success
from .timings import Timings

if TYPE_CHECKING:
    from typing import Unpack

    from .._core.bond import Tie
    from .execution import ExecuteOptions

__all__ = ["CompletedExecution", "run_code"]


@attrs.frozen(eq=False)
class CompletedExecution:
    """Code that the kernel has run; made by :meth:`KernelChannels.run`.

    Attributes:
        request: The ``execute_request`` as it was sent.
        reply: The ``execute_reply``.
        outputs: The outputs in nbformat's shape, as a notebook shows them. While somebody holds
            them, a display of theirs that another execution updates is updated here.
        missed: How many of its messages the kernel lost; see :attr:`Execution.missed`.
        refused: How many arrivals were refused meanwhile; see :attr:`Execution.refused`.
        timings: When it was where.

    Example:
        .. code-block:: python

            done = await ch.run("print('woo'); 6 * 7")
            print(done.status, done.execution_count, done.missed)  # ok 1 0
            print([output["output_type"] for output in done.outputs])
            # ['stream', 'execute_result']
    """

    request: Message
    reply: Message
    outputs: list[dict[str, Any]] = attrs.field(repr=lambda outputs: f"{len(outputs)} of them")
    missed: int | None
    refused: int
    timings: Timings = attrs.field(repr=False)

    @property
    def text(self) -> str:
        """What a terminal would show of its outputs, with the colours that are in them."""
        return text_of_outputs(self.outputs)

    @property
    def status(self) -> str:
        """``"ok"``, ``"error"``, or ``"aborted"`` behind an error of what ran before."""
        return text_of(self.reply.content.get("status", "ok"))

    @property
    def execution_count(self) -> int | None:
        """The number of this execution, where the kernel counts."""
        return count_of(self.reply)


async def run_code(
    conversations: Conversations,
    code: str,
    *,
    check: bool,
    tied: Tie | None = None,
    **options: Unpack[ExecuteOptions],
) -> CompletedExecution:
    """Runs `code` to its end; see :meth:`enchannel.KernelChannels.run`."""
    raises: object = check
    if not isinstance(raises, bool):
        raise LocalProtocolError(f"check is True or False, not {check!r}")
    block = execute_code(conversations, code, streamed=False, tied=tied, **options)
    async with block as execution:
        reply = await execution.wait()
    done = CompletedExecution(
        execution.request,
        reply,
        execution.outputs,
        execution.missed,
        execution.refused,
        execution.timings,
    )
    if check and not is_success(reply):
        raise ReplyError(reply.content, code, done.outputs)
    return done
