"""The frames of one message, out of a ZeroMQ socket and into it.

* Whether more frames follow is what costs in reading. Signed messages are read by their shape, as long as
  everything on the channel has it: the signature tells where a message begins that stands behind a malformed one.
  From the first that is refused on, and always where nothing is signed, every frame is asked.
* A large frame that is sent is lent to ZeroMQ and not copied, where nobody can change it and where the context ends
  with the program in our hands: memory that ZeroMQ still reads must not be freed.
"""

from __future__ import annotations

from typing import Any

import zmq

from .._protocol.wire import DELIMITER, Frame

__all__ = ["COPIED", "TOPICS", "UNCOPIED", "Reader", "find_send", "send_frame"]

COPIED = 8192
"""Bytes from which on a frame that arrived is viewed and not copied."""

TOPICS = 16
"""How many topics of one channel are known at once; the kernels seen have a dozen."""

UNCOPIED = 1 << 20
"""Bytes from which on a frame that is sent is lent to ZeroMQ and not copied. It costs pyzmq a thread, once
in the process, to learn when it may let go of what was lent."""

# A plain integer: arithmetic with zmq's flags takes 1 to 2 µs.
_NOBLOCK = int(zmq.NOBLOCK)

# What it takes to read one waiting message of seven frames, the least of 15 turns in one run:
#
#     recv_multipart, which asks each frame through getsockopt   10.7 µs
#     seven zmq.Frame, each of which knows whether more follow    6.8
#     two of these (the first and the last) and five plain ones   3.2
#     one of these (the last) and six plain ones                  2.4
#     seven plain ones, none of them asked                        1.5


class Reader:
    """Reads the messages of one channel, and knows the topics there.

    Args:
        socket: The channel's.
    """

    __slots__ = ("_recv", "_socket", "_topics")

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        # Looked up once: a socket looks among ZeroMQ's options as well.
        self._recv = socket.recv
        self._topics: frozenset[Frame] = frozenset()

    def read_exactly(self, into: list[list[Frame]]) -> None:
        """Adds the frames of one message to `into`, each asked whether more follow."""
        frames: list[Frame] = []
        self._read_rest(frames)
        # A topic is no view, however long.
        frames[0] = bytes(frames[0])
        into.append(frames)

    def _read_rest(self, frames: list[Frame]) -> None:
        recv, more = self._recv, True
        while more:
            frame = recv(_NOBLOCK, False)
            more = frame.more
            frames.append(_kept(frame))

    def read_by_shape(self, into: list[list[Frame]]) -> None:
        """Adds the frames of one well-formed message to `into`; or of several, of which all but the last are malformed.

        The frames up to the last part but one are not asked, save a new topic. A message that ends among them is read
        past its end, into at most one good message, because these are fewer than a good one has; and the end of that
        one is asked for again. So what is added always ends where a message ends, and :meth:`Wire.decode_last` finds
        where it began. Parts of several messages make up one that verifies only where their sender could as well have
        sent it in one piece; or where one is nothing but a topic, and the next has none.
        """
        recv = self._recv
        frames: list[Frame] = [recv(_NOBLOCK)]
        into.append(frames)
        try:
            if frames[0] != DELIMITER:
                known = frames[0] in self._topics
                if not known and not self._socket.get(zmq.RCVMORE):
                    return
                frames.append(recv(_NOBLOCK))
                if frames[1] != DELIMITER:
                    if self._socket.get(zmq.RCVMORE):
                        self._read_rest(frames)
                    if known and DELIMITER in frames:
                        # Topics stand before the delimiter, so the first one was a message of its own.
                        into[-1:] = frames[:1], frames[1:]
                    return
                if not known:
                    self._learn(frames[0])
            frames += recv(_NOBLOCK), recv(_NOBLOCK), recv(_NOBLOCK), recv(_NOBLOCK)
            frame = recv(_NOBLOCK, False)
        except zmq.Again:
            # The message ended too early, and none is behind it.
            return
        frames.append(frame.bytes)
        if frame.more:
            self._read_rest(frames)

    def _learn(self, topic: Frame) -> None:
        if len(topic) < COPIED:
            known = self._topics if len(self._topics) < TOPICS else frozenset()
            self._topics = known | {topic}


def _kept(frame: zmq.Frame) -> Frame:
    """The bytes of a small frame, a view of a large one.

    A view keeps the memory that ZeroMQ reads into, 8 KiB at a time, and large frames have their own.
    """
    return frame.bytes if len(frame) < COPIED else frame.buffer.toreadonly()


def find_send() -> Any:
    """What sends a frame.

    Behind ``zmq.Socket.send``, which looks for options that only draft sockets have (3 of 6.5 µs a message), where it is
    where pyzmq has it today.
    """
    return getattr(getattr(zmq.backend, "Socket", None), "send", zmq.Socket.send)


_send_frame = find_send()


def send_frame(
    socket: zmq.Socket[bytes], frame: Frame | zmq.Frame, flags: int, *, lend: bool
) -> None:
    """Sends one frame, lent or copied.

    Args:
        socket: Where.
        frame: What; one of ZeroMQ's own is lent.
        flags: ZeroMQ's.
        lend: Whether a large one may be lent.
    """
    lent = isinstance(frame, zmq.Frame) or (lend and len(frame) >= UNCOPIED and _is_fixed(frame))
    _send_frame(socket, frame, flags, not lent)


def _is_fixed(frame: Frame) -> bool:
    """Whether nobody can change what is in `frame`: a read-only view may be of memory that others can write."""
    return isinstance(frame, bytes) or (frame.readonly and isinstance(frame.obj, bytes))
