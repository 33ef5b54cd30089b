"""Operators over streams of messages, each for ``async for``.

An operator takes an async iterable of messages (an execution, ``ch.iopub``), or of ``(channel,
message)`` (``ch.main``, ``ch.subscribe()``), and is one itself, so they compose. Those that *pick*
give the items as they came; those that *derive* give what they find in a message.

They hold no task and no buffer of messages: cancelling an iteration cancels that of the stream
below, which loses nothing, and an operator may be dropped at any time. An iteration ends when the
one below ends, and raises what that raises (:class:`~enchannel.KernelDied`, for example).

Example:
    .. code-block:: python

        from enchannel.operators import children_of, outputs

        sent = await ch.main.send("shell", messages.execute_request("6 * 7"))
        async for output in outputs(children_of(ch.main, sent)):
            print(output["data"])  # {'text/plain': '42'}
            break
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ._protocol.message import Message
from ._protocol.outputs import output_of

if TYPE_CHECKING:
    from typing import Self

__all__ = [
    "Operator",
    "children_of",
    "execution_counts",
    "input_requests",
    "of_comm",
    "of_type",
    "outputs",
    "payloads",
    "statuses",
    "updated_displays",
]

T = TypeVar("T")
Item = TypeVar("Item")


class Operator(AsyncIterator[T], Generic[T]):
    """An async iterator over what `derive` makes of each item of `source`.

    What the functions of this module return; make one to look for something of your own.

    Args:
        source: What is iterated over: messages, or ``(channel, message)``.
        derive: Called with each item as it comes; gives what is found in it, be it nothing.

    Example:
        .. code-block:: python

            def names(message):
                found = message.msg_type == "error"
                return [message.content["ename"]] if found else []

            async with ch.execute("1 / 0") as execution:
                async for name in Operator(execution, names):
                    print(name)  # ZeroDivisionError
    """

    def __init__(self, source: AsyncIterable[Any], derive: Callable[[Any], Iterable[T]]) -> None:
        self._source = source.__aiter__()
        self._derive = derive
        self._derived: deque[T] = deque()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        """The next one. Cancellation loses nothing that the stream below does not lose.

        Raises:
            StopAsyncIteration: The stream below has ended.
        """
        while not self._derived:
            self._derived.extend(self._derive(await self._source.__anext__()))
        return self._derived.popleft()


def _message(item: Any) -> Message:
    return item if isinstance(item, Message) else item[1]


def _pick(source: AsyncIterable[Item], wanted: Callable[[Message], bool]) -> Operator[Item]:
    return Operator(source, lambda item: (item,) if wanted(_message(item)) else ())


def of_type(source: AsyncIterable[Item], *msg_types: str) -> Operator[Item]:
    """Picks the messages of these types.

    Args:
        source: Messages, or ``(channel, message)``.
        msg_types: One or more, such as ``"stream"``; of none of them nothing is picked.

    Example:
        .. code-block:: python

            async with ch.execute("print('woo')") as execution:
                async for msg in of_type(execution, "stream", "error"):
                    print(msg.content["text"])  # woo
    """
    return _pick(source, lambda message: message.msg_type in msg_types)


def children_of(source: AsyncIterable[Item], parent: Message | str) -> Operator[Item]:
    """Picks the messages that `parent` caused: those that have its id in their parent header.

    It does not end with the conversation, but with the stream: nobody can rule out that more comes.
    :meth:`enchannel.KernelChannels.execute` ends where reply and idle status are in.

    Args:
        source: Messages, or ``(channel, message)``.
        parent: The message as it was sent, or its ``msg_id``.

    Example:
        .. code-block:: python

            async with ch.subscribe("iopub") as listener:
                request = messages.execute_request("print('woo')")
                sent = await ch.shell.send(request)
                async for channel, msg in children_of(listener, sent):
                    print(channel, msg.msg_type)
                    if msg.content.get("execution_state") == "idle":
                        break
    """
    return _pick(source, lambda message: message.is_child_of(parent))


def of_comm(source: AsyncIterable[Item], comm_id: str) -> Operator[Item]:
    r"""Picks the ``comm_open``, ``comm_msg`` and ``comm_close`` of one comm.

    :meth:`enchannel.KernelChannels.open_comm` and :meth:`enchannel.KernelChannels.accept_comms` are
    for those that take part; this is for those that watch.

    Args:
        source: Messages, or ``(channel, message)``; what the kernel says on a comm comes on iopub.
        comm_id: Which.

    Example:
        .. code-block:: python

            code = (
                "from comm import create_comm\n"
                "create_comm(target_name='counter', comm_id='c').send({'n': 1})"
            )
            async with ch.subscribe("iopub") as listener:
                await ch.shell.send(messages.execute_request(code))
                async for _, msg in of_comm(listener, "c"):
                    print(msg.msg_type)  # comm_open
                    if msg.msg_type == "comm_msg":
                        break
    """
    return _pick(
        of_type(source, "comm_open", "comm_msg", "comm_close"),
        lambda message: message.content.get("comm_id") == comm_id,
    )


def input_requests(source: AsyncIterable[Item]) -> Operator[Item]:
    """Picks the kernel's requests for input, which come on stdin to the client whose code asks.

    Each is to be answered with an :func:`enchannel.messages.input_reply`, for the code waits. The
    ``on_input`` of :meth:`enchannel.KernelChannels.execute` does that by itself. See "Messages on
    the stdin (ROUTER/DEALER) channel" of the Jupyter messaging specification.

    Args:
        source: Messages, or ``(channel, message)``.

    Example:
        .. code-block:: python

            code = "input('name?')"
            request = messages.execute_request(code, allow_stdin=True)
            await ch.shell.send(request)
            async for prompt in input_requests(ch.stdin):
                print(prompt.content["prompt"])  # name?
                await ch.stdin.send(messages.input_reply("ada", prompt))
                break
    """
    return of_type(source, "input_request")


def outputs(source: AsyncIterable[Any]) -> Operator[dict[str, Any]]:
    """Derives each output, in nbformat's shape: stream, display_data, execute_result and error.

    One output for each message; ``execution.outputs`` has them merged as a notebook shows them.
    Updates and ``clear_output`` are no outputs: see :func:`updated_displays` and
    :class:`enchannel.outputs.OutputArea`.

    Args:
        source: Messages, or ``(channel, message)``.

    Example:
        .. code-block:: python

            from enchannel.operators import outputs

            async with ch.execute("print('woo'); 6 * 7") as execution:
                async for output in outputs(execution):
                    print(output["output_type"])
    """

    def derive(item: Any) -> Iterable[dict[str, Any]]:
        output = output_of(_message(item))
        return () if output is None else (output,)

    return Operator(source, derive)


def updated_displays(source: AsyncIterable[Any]) -> Operator[dict[str, Any]]:
    """Derives the contents of ``update_display_data``: ``data``, ``metadata`` and ``transient``.

    Which display is meant says ``transient["display_id"]``.

    Args:
        source: Messages, or ``(channel, message)``.

    Example:
        .. code-block:: python

            code = "shown = display(1, display_id='a'); shown.update(2)"
            async with ch.execute(code) as execution:
                async for content in updated_displays(execution):
                    print(content["data"])  # {'text/plain': '2'}
    """
    return Operator(of_type(source, "update_display_data"), lambda item: (_message(item).content,))


def payloads(source: AsyncIterable[Any]) -> Operator[dict[str, Any]]:
    """Derives the payloads of execute replies, one by one: what the front end is to do.

    Each has a ``source`` that says what it is, such as ``"page"``; replies that are no success have
    none. See "Payloads (DEPRECATED)" of the Jupyter messaging specification.

    Args:
        source: Messages, or ``(channel, message)``. Replies come on shell, and are not among the
            messages that an execution gives.

    Example:
        .. code-block:: python

            async with ch.subscribe("shell") as listener:
                await ch.run("zip?")
                async for payload in payloads(listener):
                    print(payload["source"])  # page
                    break
    """

    def derive(item: Any) -> Iterable[dict[str, Any]]:
        found = _message(item).content.get("payload")
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else ()

    return Operator(of_type(source, "execute_reply"), derive)


def execution_counts(source: AsyncIterable[Any]) -> Operator[int]:
    """Derives the number of each execution: when it begins, and again when it is replied to.

    Those of kernels that count. See "Execution counter (prompt number)" of the Jupyter messaging
    specification.

    Args:
        source: Messages, or ``(channel, message)``. What says that one begins comes on iopub, the
            reply on shell.

    Example:
        .. code-block:: python

            async with ch.execute("6 * 7") as execution:
                async for count in execution_counts(execution):
                    print(f"In [{count}]")
    """

    def derive(item: Any) -> Iterable[int]:
        count = _message(item).content.get("execution_count")
        return (count,) if isinstance(count, int) else ()

    return Operator(of_type(source, "execute_input", "execute_reply"), derive)


def statuses(source: AsyncIterable[Any]) -> Operator[str]:
    """Derives the kernel's states: ``"busy"``, ``"idle"``, ``"starting"``.

    Those of all that it does, for whomever, unless `source` is narrower;
    :meth:`enchannel.KernelChannels.statuses` says how the kernel is. See "Kernel status" of the
    Jupyter messaging specification.

    Args:
        source: Messages, or ``(channel, message)``; statuses come on iopub.

    Example:
        .. code-block:: python

            async with ch.execute("6 * 7") as execution:
                async for state in statuses(execution):
                    print(state)  # busy
    """

    def derive(item: Any) -> Iterable[str]:
        state = _message(item).content.get("execution_state")
        return (state,) if isinstance(state, str) else ()

    return Operator(of_type(source, "status"), derive)
