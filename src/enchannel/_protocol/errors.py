"""What is wrong with a message, or with a connection file.

Blame decides the branch: a *local* error is raised at the call that caused it; a *remote* one says what is
wrong with what arrived, and never reaches a user's stream. :mod:`enchannel._exceptions` has the whole tree.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ConnectionFileError",
    "EnchannelError",
    "InvalidSignature",
    "LocalProtocolError",
    "MalformedMessage",
    "MessageTooLarge",
    "ProtocolError",
    "RecordingError",
    "RemoteProtocolError",
    "ReplayedMessage",
    "text_of",
]


def text_of(value: object) -> str:
    """What a kernel wrote where text belongs; ``""`` for ``null``, lists and objects.

    Not :class:`str` of those: one that is nested deeply enough exhausts the stack of whoever reads it.
    """
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, (int, float)) else ""


class EnchannelError(Exception):
    """The base of all errors of this library; they can be copied and pickled.

    The states of a stream have AnyIO's own words: ``anyio.ClosedResourceError``,
    ``anyio.EndOfStream``, ``anyio.BusyResourceError``. A :class:`KernelDied` is an
    ``anyio.BrokenResourceError`` as well.

    Example:
        .. code-block:: python

            try:
                await ch.run("1 / 0", check=True)
            except EnchannelError as error:
                print(type(error).__name__)  # ReplyError
    """

    def __reduce__(self) -> tuple[Any, ...]:
        # Past __init__, which would be called with `args`: they need not be what it takes.
        return type(self).__new__, (type(self),), {"args": self.args, **self.__dict__}


class ProtocolError(EnchannelError):
    """Somebody broke the Jupyter messaging protocol: the caller, or the kernel.

    What is raised is the caller's, a :class:`LocalProtocolError`; what the kernel does is counted,
    as a :class:`RemoteProtocolError`.

    Example:
        .. code-block:: python

            try:
                await ch.shell.send({"content": {"code": "6 * 7"}})
            except ProtocolError as error:
                print(isinstance(error, LocalProtocolError))  # True
    """


class LocalProtocolError(ProtocolError, ValueError):
    """Your call broke the protocol; nothing was sent and the channel works on.

    Raised at the call, for an argument that cannot be used, a message without a type, content that
    is no JSON, a channel that is not there or only receives. Also a ``ValueError``.

    Example:
        .. code-block:: python

            try:
                await ch.main.send("iopub", messages.kernel_info_request())
            except LocalProtocolError as error:
                print(error)
                # iopub only receives; you may send on shell, control and stdin
    """


class RemoteProtocolError(ProtocolError):
    """What the kernel sent is no Jupyter message.

    Nobody is raised one: the message reaches no stream, is counted in
    :attr:`ChannelStatistics.dropped` by the name of its error, and the first of each kind is logged
    as a warning. It costs no other message. A request whose reply may be among them raises
    :class:`NoReply` with the reason ``"dropped"``. Who decodes frames himself meets them, and so
    does who writes a transport or tests a kernel's end.

    Example:
        .. code-block:: python

            dropped = ch.statistics().dropped
            print(sum(dropped.values()))  # 0
    """


class MalformedMessage(RemoteProtocolError):
    """Frames without delimiter, too few of them, or parts that are not the JSON objects they must
    be.

    Counted, and not raised; see :class:`RemoteProtocolError`.

    Example:
        .. code-block:: python

            from enchannel.testing import open_fake_kernel

            async with open_fake_kernel() as fake, fake.open_channels() as ch:
                fake.send_malformed("iopub")
                await ch.wait_idle()
                print(ch.statistics().dropped["MalformedMessage"])  # 1
    """


class MessageTooLarge(RemoteProtocolError):
    """More bytes than ``max_message_size`` allows, or more frames than one for each 64 of them.

    Counted, and not raised; see :class:`RemoteProtocolError`. By default no message is too large.

    Example:
        .. code-block:: python

            async with kernel.open_channels(max_message_size=100_000) as ch:
                done = await ch.run("print('x' * 200_000)")
                print(done.outputs)  # []
                print(ch.statistics().dropped["MessageTooLarge"])  # 1
    """


class InvalidSignature(RemoteProtocolError):
    """The HMAC signature does not belong to the message: it was forged, or the key is another one.

    Counted, and not raised; see :class:`RemoteProtocolError`. Where all that arrives at the opening
    has a wrong signature, the key of the connection file is not the kernel's, and
    :class:`KernelConnectError` says so.

    Example:
        .. code-block:: python

            from enchannel.testing import open_fake_kernel

            async with open_fake_kernel(key="secret") as fake:
                async with fake.open_channels() as ch:
                    fake.send_bad_signature("iopub")
                    await ch.wait_idle()
                    print(ch.statistics().dropped["InvalidSignature"])  # 1
    """


class ReplayedMessage(RemoteProtocolError):
    """The signature was seen before: the very same message came a second time.

    Counted, and not raised; see :class:`RemoteProtocolError`. The last 8,192 signatures or more are
    remembered, where messages are signed.

    Example:
        .. code-block:: python

            from enchannel.testing import open_fake_kernel

            async with open_fake_kernel(key="secret") as fake:
                async with fake.open_channels() as ch:
                    fake.clients[0].inbound["iopub"].duplicate()
                    await ch.run("6 * 7")
                    print(ch.statistics().dropped["ReplayedMessage"])  # 1
    """


class ConnectionFileError(EnchannelError, ValueError):
    """A connection file (or a mapping of its form) that cannot be used; names the file and the
    field.

    Raised at the call, before anything is connected. Also a ``ValueError``.

    Example:
        .. code-block:: python

            try:
                open_kernel_channels(None, {"shell_port": 51337})
            except ConnectionFileError as error:
                print(error)  # connection info: control_port is missing
    """


class RecordingError(EnchannelError, ValueError):
    r"""A file is no recording; the message names it and the line.

    Raised by :func:`read_recording` when the line is read, and on entry by
    :func:`enchannel.testing.open_recorded_kernel`. Also a ``ValueError``.

    Example:
        .. code-block:: python

            await anyio.Path("session.jsonl").write_text('{"format": "other"}\n')
            try:
                list(read_recording("session.jsonl"))
            except RecordingError as error:
                print(error)
                # recording session.jsonl: no recording of enchannel
    """
