"""What a fake kernel asks its clients, and what they answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio

from .._protocol.message import Message

__all__ = ["Answer", "Prompts"]


class Answer:
    """What a client will have answered."""

    def __init__(self) -> None:
        self._text = ""
        self._given = anyio.Event()

    def give(self, text: str) -> None:
        """Here it is."""
        self._text = text
        self._given.set()

    async def wait(self) -> str:
        """Waits for it."""
        await self._given.wait()
        return self._text


class Prompts:
    """The prompts that are open; one for each client, of which the last counts."""

    def __init__(self) -> None:
        self._open: dict[bytes, Answer] = {}

    @contextmanager
    def asking(self, identity: bytes) -> Iterator[Answer]:
        """The client called `identity` is being asked."""
        answer = self._open[identity] = Answer()
        try:
            yield answer
        finally:
            self._open.pop(identity, None)

    def answer(self, identity: bytes, message: Message) -> None:
        """Takes what came on stdin; an answer that nobody waits for is passed over."""
        if message.msg_type == "input_reply" and identity in self._open:
            self._open[identity].give(str(message.content.get("value", "")))
