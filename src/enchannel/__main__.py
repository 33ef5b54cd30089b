"""The command line: ``enchannel``, or ``python -m enchannel``.

Exit status: 0 when the code ran, 1 when it raised, 2 when it could not be run.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from . import (
    EnchannelError,
    KernelChannels,
    Message,
    open_kernel,
    open_kernel_channels,
)

if TYPE_CHECKING:
    import click
else:
    try:
        import click
    except ImportError:
        sys.exit('the command line needs click: pip install "enchannel[cli]"')

AFTER_REPLY = 1.0
"""Seconds to wait for the idle status behind the reply; some kernels send none."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="enchannel")
def main() -> None:
    """Talk to Jupyter kernels."""


@main.command()
@click.argument("code")
@click.option("--kernel", default="python3", show_default=True, help="The kernelspec to launch.")
@click.option(
    "--existing", metavar="FILE", help="The connection file of a running kernel, instead."
)
@click.option("--json", "as_json", is_flag=True, help="Print each message as a line of JSON.")
def run(code: str, kernel: str, existing: str | None, as_json: bool) -> None:
    """Run CODE in a kernel and print what it outputs.

    CODE is source code, the path of a file with source code, or - for standard input.
    """
    source = _source(code)
    printer = _JsonPrinter() if as_json else _Printer()
    try:
        ok = trio.run(_run, source, kernel, existing, printer)
    except EnchannelError as error:
        raise _Failure(str(error)) from error
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody to tell. Keep the interpreter from flushing.
        sys.stdout = None
        sys.exit(1)
    sys.exit(0 if ok else 1)


class _Failure(click.ClickException):
    exit_code = 2


def _source(code: str) -> str:
    if code == "-":
        return sys.stdin.read()
    # A line of code may be no valid path at all (too long, a zero byte), and is no file then.
    try:
        is_file = Path(code).is_file()
    except (OSError, ValueError):
        is_file = False
    if is_file:
        try:
            return Path(code).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _Failure(f"{code}: {error}") from error
    if re.fullmatch(r"\S+\.(py|ipy|r|sh|jl|cpp|js|txt)", code, re.IGNORECASE):
        raise _Failure(f"{code}: no such file")
    return code


async def _run(source: str, kernel: str, existing: str | None, printer: _Printer) -> bool:
    async with _channels(kernel, existing) as ch:
        content = {"code": source, "silent": False, "store_history": True, "allow_stdin": False}
        sent = await ch.main.send(
            "shell", {"header": {"msg_type": "execute_request"}, "content": content}
        )
        status, idle = "", False
        with trio.CancelScope() as scope:
            async for channel, msg in ch.main:
                if not msg.is_child_of(sent):
                    continue
                printer(channel, msg)
                if msg.msg_type == "input_request":
                    # Some kernels ask although stdin is not allowed; without an answer they would wait.
                    await ch.stdin.send(_no_input(msg))
                elif channel == "shell":
                    status = str(msg.content.get("status", "ok"))
                    scope.deadline = trio.current_time() + AFTER_REPLY
                elif msg.msg_type == "status":
                    idle = msg.content.get("execution_state") == "idle"
                if status and idle:
                    break
        return status == "ok"


def _no_input(asked: Message) -> dict[str, Any]:
    return {
        "header": {"msg_type": "input_reply"},
        "parent_header": asked.header,
        "content": {"value": ""},
    }


@asynccontextmanager
async def _channels(kernel: str, existing: str | None) -> AsyncIterator[KernelChannels]:
    if existing is not None:
        async with open_kernel_channels(None, existing) as ch:
            yield ch
    else:
        async with open_kernel(kernel) as launched, launched.open_channels() as ch:
            yield ch


class _Printer:
    """Prints outputs as a person expects them."""

    def __init__(self) -> None:
        self._error_shown = False

    def __call__(self, channel: str, msg: Message) -> None:
        content = msg.content
        if msg.msg_type == "stream":
            stream = sys.stderr if content.get("name") == "stderr" else sys.stdout
            _write(stream, str(content.get("text", "")))
        elif msg.msg_type in ("execute_result", "display_data", "update_display_data"):
            data = content.get("data")
            text = data.get("text/plain") if isinstance(data, dict) else None
            if text is not None:
                _write(sys.stdout, f"{text}\n")
        elif msg.msg_type == "error" or (channel == "shell" and not self._error_shown):
            self._error(content)

    def _error(self, content: dict[str, Any]) -> None:
        traceback = content.get("traceback")
        if content.get("status", "error") == "ok":
            return
        if isinstance(traceback, list):
            traceback = "\n".join(map(str, traceback))
        text = str(traceback or f"{content.get('ename') or 'Error'}: {content.get('evalue') or ''}")
        if not sys.stderr.isatty():
            text = click.unstyle(text)
        _write(sys.stderr, f"{text}\n")
        self._error_shown = True


class _JsonPrinter(_Printer):
    """Prints each message as one line of JSON; buffers as base64."""

    def __call__(self, channel: str, msg: Message) -> None:
        line = {"channel": channel, **msg.to_dict()}
        line["buffers"] = [base64.b64encode(buffer).decode() for buffer in msg.buffers]
        _write(sys.stdout, json.dumps(line) + "\n")


def _write(stream: Any, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:
        # A terminal without UTF-8, or a lone surrogate: show what can be shown.
        encoding = stream.encoding or "utf-8"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


if __name__ == "__main__":
    main(prog_name="enchannel")
