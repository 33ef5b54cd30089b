"""A connection over TCP, with TLS or without: taking and giving bytes is synchronous, and only waiting is not.

* Every address of the host is tried, a moment after the one before it, and the first that accepts is taken (RFC 8305).
* Small pieces go out at once (``TCP_NODELAY``), and what arrives is acknowledged at once (``TCP_QUICKACK``, which Linux
  forgets again and again): a server that writes small pieces under Nagle's algorithm would wait 40 ms for that.
* What the system does not take at once is kept, in order, and goes out when it does.
* A write that fails ends writing, and nothing else: what has arrived is worth as much as ever, and how the connection ended
  is what reading says behind it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections import deque

import anyio
from anyio.lowlevel import checkpoint

from .._groups import unwrapping_task_group
from .addresses import reset_when_closed, resolve

__all__ = ["QUICKACK", "ByteStream", "connect_bytes"]

PIECE = 1 << 18
"""Bytes that are taken at a time."""

STAGGER = 0.25
"""Seconds until the next address is tried beside one that does not answer."""

QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)
"""The option, where the system has it."""


class ByteStream:
    """One connection.

    Args:
        sock: Connected, and does not block.
        tls: Its TLS, where it has one.
    """

    def __init__(self, sock: socket.socket, tls: _Tls | None = None) -> None:
        self._sock = sock
        self._tls = tls
        self._unsent: deque[memoryview] = deque()
        self.unsent: int = 0
        """Bytes that the system has not taken yet."""
        self.cut_off: OSError | None = None
        """What the write has failed with behind which nothing goes out any more."""

    def receive_nowait(self) -> bytes:
        """What has arrived; nothing at the end of the stream.

        Raises:
            anyio.WouldBlock: Nothing has.
            OSError: The connection is broken.
        """
        if self._tls is None:
            return self._take()
        if not self._tls.ended:
            plain = self._tls.received(self._take())
            self._push()
            if plain:
                return plain
            if not self._tls.ended:
                raise anyio.WouldBlock
        if self._tls.failure is not None:
            raise self._tls.failure
        return b""

    def send_nowait(self, data: bytes | memoryview) -> None:
        """Takes over all of `data`; some of it may wait to go out. Where nothing does any more, it goes nowhere."""
        if self._tls is None:
            self._keep(data)
        elif self.cut_off is None:
            try:
                self._tls.send(data)
            except ssl.SSLError as error:
                self.cut_off = error
        self._push()

    def flush_nowait(self) -> None:
        """Gives the system what it takes of what waits to go out."""
        while self._unsent:
            piece = self._unsent[0]
            try:
                sent = self._sock.send(piece)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.cut_off = error
                self._forget_unsent()
                return
            self.unsent -= sent
            if sent == len(piece):
                self._unsent.popleft()
            else:
                self._unsent[0] = piece[sent:]

    def _forget_unsent(self) -> None:
        self._unsent.clear()
        self.unsent = 0

    def _keep(self, data: bytes | memoryview) -> None:
        if data and self.cut_off is None:
            self._unsent.append(memoryview(data))
            self.unsent += len(data)

    def _push(self) -> None:
        if self._tls is not None:
            self._keep(self._tls.to_send())
        self.flush_nowait()

    async def wait_readable(self) -> None:
        """Waits until something has arrived, or the stream has ended, or it is closed. Cancellation changes nothing.

        Behind a write that has failed all that can arrive is there.
        """
        ended = self.cut_off is not None or (self._tls is not None and self._tls.ended)
        with contextlib.suppress(anyio.ClosedResourceError):
            await (checkpoint() if ended or self._closed else anyio.wait_readable(self._sock))

    async def wait_writable(self) -> None:
        """Waits until the system takes something, or it is closed. Cancellation changes nothing."""
        with contextlib.suppress(anyio.ClosedResourceError):
            await (checkpoint() if self._closed else anyio.wait_writable(self._sock))

    @property
    def _closed(self) -> bool:
        return self._sock.fileno() < 0

    async def shake_hands(self) -> None:
        """Does what TLS needs before anything else.

        Raises:
            OSError: It cannot be done; an ``ssl.SSLError`` is one.
        """
        if self._tls is None:
            return
        while not self._tls.shake_hands():
            self._push()
            while self.unsent:
                await self.wait_writable()
                self.flush_nowait()
            await self.wait_readable()
            with contextlib.suppress(anyio.WouldBlock):
                self._tls.feed(self._take())
        self._push()

    def _take(self) -> bytes:
        data = b""
        try:
            data = self._sock.recv(PIECE)
        except (BlockingIOError, InterruptedError):
            if self.cut_off is None:
                raise anyio.WouldBlock from None
        if self.cut_off is not None and not data:
            raise self.cut_off
        if QUICKACK is not None:
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.IPPROTO_TCP, QUICKACK, 1)
        return data

    def close(self, *, hard: bool = False) -> None:
        """Closes it; closed already, it does no harm.

        Args:
            hard: Whether the other end is told by a reset, so that it lets go at once.
        """
        if self._closed:
            return
        if hard:
            with contextlib.suppress(OSError):
                reset_when_closed(self._sock)
        anyio.notify_closing(self._sock)
        self._sock.close()
        self._forget_unsent()


class _Tls:
    """TLS between two buffers."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self.ended: bool = False
        self.failure: ssl.SSLError | None = None
        """What it has ended with, other than in order."""

    def shake_hands(self) -> bool:
        """Goes on with it; whether that is done."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def feed(self, data: bytes) -> None:
        """What has arrived."""
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def received(self, data: bytes) -> bytes:
        """What has arrived, in plain, up to where it ends; `data` is what has arrived just now."""
        self.feed(data)
        pieces: list[bytes] = []
        try:
            while piece := self._object.read(PIECE):
                pieces.append(piece)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            # Servers end it without a word; of what that could cut off the websocket knows.
            self.ended = True
        except ssl.SSLError as error:
            self.ended, self.failure = True, error
        return b"".join(pieces)

    def send(self, data: bytes | memoryview) -> None:
        """Encrypts `data`."""
        view = memoryview(data)
        while view:
            view = view[self._object.write(view) :]

    def to_send(self) -> bytes:
        """What is to go out."""
        return self._outgoing.read()


async def connect_bytes(host: str, port: int, tls: ssl.SSLContext | None) -> ByteStream:
    """Connects to `host`. Cancelled, it leaves nothing open.

    Raises:
        OSError: No address of the host accepts, or TLS cannot be agreed.
    """
    sock = await _connect(host, port)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = ByteStream(sock, _Tls(tls, host) if tls is not None else None)
        await stream.shake_hands()
    except BaseException:
        sock.close()
        raise
    return stream


async def _connect(host: str, port: int) -> socket.socket:
    connected: list[socket.socket] = []
    failures: list[OSError] = []
    try:
        async with unwrapping_task_group() as tasks:

            async def attempt(address: str, ended: anyio.Event) -> None:
                try:
                    connected.append(await _connect_to(address, port))
                    tasks.cancel_scope.cancel()
                except OSError as error:
                    failures.append(error)
                    ended.set()

            for address in await resolve(host):
                ended = anyio.Event()
                tasks.start_soon(attempt, address, ended)
                with anyio.move_on_after(STAGGER):
                    await ended.wait()
    except BaseException:
        # What was cancelled from outside has nobody who would close it.
        for sock in connected:
            sock.close()
        raise
    if not connected:
        raise failures[-1] if failures else OSError(f"{host} has no address")
    for sock in connected[1:]:
        sock.close()
    return connected[0]


async def _connect_to(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            sock.connect((address, port))
        await anyio.wait_writable(sock)
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
    except BaseException:
        sock.close()
        raise
    return sock
