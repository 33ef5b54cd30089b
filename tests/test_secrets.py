"""Keys and contents stay where they belong: in no log, repr, traceback or statistics."""

from __future__ import annotations

import logging
import traceback

import pytest
import zmq

from enchannel import (
    ConnectionInfo,
    EnchannelError,
    KernelConnectError,
    KernelDied,
    LocalProtocolError,
    Message,
    open_kernel_channels,
)
from enchannel._protocol.wire import Wire
from enchannel._transports.zmq_open import new_curve_keys
from enchannel.testing import open_fake_kernel
from raw_kernel import RawKernel, request

pytestmark = pytest.mark.anyio

KEY, CONTENT = "the-key-of-the-kernel", "the-content-of-a-message"


def shown(error: BaseException) -> str:
    """All that a report with the values of local variables would show of our own frames."""
    text = "".join(traceback.format_exception(error))
    frame_of = error.__traceback__
    while frame_of is not None:
        if "/src/enchannel/" in frame_of.tb_frame.f_code.co_filename:
            text += repr(frame_of.tb_frame.f_locals)
        frame_of = frame_of.tb_next
    return text


async def test_of_a_conversation_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    async with open_fake_kernel(transport="tcp", key=KEY) as kernel:
        async with (
            kernel.open_channels(reconnect_timeout=0.2) as ch,
            ch.subscribe() as everything,
        ):
            kernel.send_bad_signature()
            kernel.send_malformed()
            async with ch.execute(f"'{CONTENT}'") as execution:
                await execution.wait()
            _, msg = await everything.receive()
            with pytest.raises(LocalProtocolError) as refused:
                await ch.shell.send(request("x", text=CONTENT, bad=object()))
            told += [str(refused.value)]
            kernel.die()
            with pytest.raises(KernelDied) as died:
                while True:
                    await everything.receive()
            told += ["".join(traceback.format_exception(died.value))]
            told += map(repr, (ch, ch.main, ch.shell, everything, execution, msg, kernel))
            told += [
                repr(ch.statistics()),
                repr(kernel.connection_info),
                repr(ch._core),
                repr(ch._core.transport),
            ]
    assert sum(ch.statistics().dropped.values()) == 2
    for text in (*told, caplog.text):
        assert KEY not in text
        assert CONTENT not in text


@pytest.mark.parametrize("field", ["key", "curve_publickey", "curve_secretkey"])
async def test_of_an_opening_that_fails_nothing_is_told(
    field: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    public, secret = (key.decode() for key in new_curve_keys())
    ports = {f"{name}_port": 1 for name in ("shell", "control", "stdin", "iopub", "hb")}
    keys = {"key": KEY, "curve_publickey": public, "curve_secretkey": secret}
    info = ConnectionInfo.parse({**ports, **keys})
    with pytest.raises(EnchannelError) as caught:
        async with open_kernel_channels(None, info, connect_timeout=0.1):
            pytest.fail("the block was entered")
    for text in (shown(caught.value), repr(info), caplog.text):
        assert keys[field] not in text


def test_a_message_shows_no_content() -> None:
    message = Message({"msg_id": "1", "msg_type": "stream"}, {}, {}, {"text": CONTENT})
    assert CONTENT not in repr(message)
    frames = Wire(KEY).encode(message)
    assert KEY.encode() not in b"".join(map(bytes, frames))
    assert KEY not in repr(vars(Wire(KEY)))


async def test_an_unsigned_kernel_on_the_network_is_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Nothing is connected: the context has ended.
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.term()
    with RawKernel(key="") as kernel:
        for config in (kernel.config, {**kernel.config, "ip": "192.0.2.1"}):
            with pytest.raises(KernelConnectError):
                async with open_kernel_channels(None, config, context=context):
                    pytest.fail("the block was entered")
    warnings = [each for each in caplog.records if "signs nothing" in each.message]
    assert len(warnings) == 1
    assert "192.0.2.1" in warnings[0].message
