"""The comms of a fake kernel: to the targets that the test has given a handler."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeAlias

from .._protocol.message import Message
from ._request import Asked

if TYPE_CHECKING:
    from typing_extensions import Buffer


__all__ = ["CommHandler", "FakeComm", "FakeComms"]

CommHandler: TypeAlias = "Callable[[FakeComm, Message], Awaitable[object] | object]"
"""Takes what a client sends on a comm; see :meth:`~enchannel.testing.FakeKernel.on_comm`.

It is called with its ``comm_open`` first, then with each ``comm_msg``, with its ``comm_close``
last, and returns nothing.

Example:
    .. code-block:: python

        def count(comm: FakeComm, message: Message) -> None:
            if message.msg_type == "comm_msg":
                comm.send({"n": message.content["data"]["n"] + 1})

        async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
            kernel.on_comm("counter", count)
            async with ch.open_comm("counter") as comm:
                await comm.send({"n": 1})
                answer = await comm.receive()
                print(answer.content["data"])  # {'n': 2}
"""


# What the handler that runs is called with: shells run at a time.
_handled: ContextVar[tuple[FakeComm, Message] | None] = ContextVar("_handled", default=None)


class FakeComm:
    """The kernel's end of a comm that a client opened; given to a ``CommHandler``.

    Attributes:
        comm_id: Its id.
        target_name: What it was opened to.
        closed: Whether either side has closed it.

    Example:
        .. code-block:: python

            comms = []
            async with open_fake_kernel() as kernel, kernel.open_channels() as ch:
                kernel.on_comm("news", lambda comm, message: comms.append(comm))
                async with ch.open_comm("news") as comm:
                    await ch.wait_idle()
                    comms[0].send({"text": "woo"})
                    news = await comm.receive()
                    print(news.content["data"])  # {'text': 'woo'}
    """

    def __init__(self, publish: Callable[..., Message], comm_id: str, target_name: str) -> None:
        self.comm_id: str = comm_id
        self.target_name: str = target_name
        self.closed: bool = False
        self._publishing = publish

    def send(self, data: Mapping[str, Any], *, buffers: Sequence[Buffer] = ()) -> Message:
        """Sends `data` to the clients, now; within its handler as a child of what is being handled."""
        return self._publish("comm_msg", data, buffers)

    def close(self, data: Mapping[str, Any] | None = None) -> None:
        """Closes the comm; no error where it is closed."""
        if not self.closed:
            self.closed = True
            self._publish("comm_close", data or {}, ())

    def _publish(
        self, msg_type: str, data: Mapping[str, Any], buffers: Sequence[Buffer]
    ) -> Message:
        content = {"comm_id": self.comm_id, "data": dict(data)}
        handled = _handled.get()
        parent = handled[1] if handled is not None and handled[0] is self else None
        return self._publishing(msg_type, content, parent=parent, buffers=buffers)

    def __repr__(self) -> str:
        return f"<FakeComm {self.comm_id} to {self.target_name}>"


class FakeComms:
    """The comms of one kernel.

    Attributes:
        targets: The handlers, by the name of their target.
    """

    def __init__(self) -> None:
        self.targets: dict[str, CommHandler] = {}
        self._open: dict[str, FakeComm] = {}

    def clear(self) -> None:
        """All are gone, as with the kernel that had them."""
        self._open.clear()

    async def on_open(self, request: Asked) -> None:
        """Opens a comm, or closes it at once where there is no such target."""
        if "target_name" not in request.content or request.channel != "shell":
            return
        comm_id = str(request.content.get("comm_id"))
        target = str(request.content.get("target_name"))
        if target not in self.targets:
            request.publish("comm_close", {"comm_id": comm_id, "data": {}})
            return
        self._open[comm_id] = FakeComm(request.kernel.publish, comm_id, target)
        await self.on_message(request)

    async def on_message(self, request: Asked) -> None:
        """Hands a message to the handler of its comm; one of no comm is passed over."""
        comm = self._open.get(str(request.content.get("comm_id")))
        if comm is None or comm.closed:
            return
        if request.message.msg_type == "comm_close":
            comm.closed = True
        token = _handled.set((comm, request.message))
        try:
            done = self.targets[comm.target_name](comm, request.message)
            if inspect.isawaitable(done):
                await done
        finally:
            _handled.reset(token)
            if comm.closed:
                self._open.pop(comm.comm_id, None)

    def info(self, request: Asked) -> Mapping[str, Any]:
        """The reply to a comm_info_request."""
        wanted = request.content.get("target_name")
        return {
            "comms": {
                comm.comm_id: {"target_name": comm.target_name}
                for comm in self._open.values()
                if wanted in (None, comm.target_name) and not comm.closed
            }
        }
