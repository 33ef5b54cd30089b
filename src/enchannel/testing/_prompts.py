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
    """The prompts that are open."""

    def __init__(self) -> None:
        self._open: dict[tuple[bytes, str], Answer] = {}

    @contextmanager
    def asking(self, identity: bytes, prompt: Message) -> Iterator[Answer]:
        """The client called `identity` is being asked with `prompt`."""
        answer = self._open[identity, prompt.msg_id] = Answer()
        try:
            yield answer
        finally:
            del self._open[identity, prompt.msg_id]

    def answer(self, identity: bytes, message: Message) -> None:
        """Takes what came on stdin; an answer that nobody waits for is passed over.

        One that does not say what it answers is for the last prompt of its client.
        """
        if message.msg_type != "input_reply":
            return
        mine = [msg_id for client, msg_id in self._open if client == identity]
        if mine:
            msg_id = message.parent_id if message.parent_id in mine else mine[-1]
            self._open[identity, msg_id].give(str(message.content.get("value", "")))
