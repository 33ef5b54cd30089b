"""The command line: ``enchannel``, or ``python -m enchannel``.

Here is what is asked for; what is done about it is in ``_cli``.

* Built on what ``from enchannel import ...`` and ``from enchannel.testing import ...`` give, and on nothing else of
  the library.
* Bad input is told before anything is launched: what is wrong, what would be right, exit status 2.
* ``click`` and ``rich`` are needed here only.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from . import EnchannelError, KernelSpec, list_running_kernels

if TYPE_CHECKING:
    import click
else:
    try:
        import click
        import rich  # noqa: F401
    except ImportError:
        sys.exit('the command line needs click and rich: pip install "enchannel[cli]"')

from ._cli.input import open_input
from ._cli.output import JsonOutput, Output, write
from ._cli.run import Cell, Run, Target

STANDARD_INPUT = "-"


class Failure(click.ClickException):
    """What was asked for cannot be done."""

    exit_code = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="enchannel")
def main() -> None:
    """Talk to Jupyter kernels."""


def _positive(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    # Not a range of click's: a NaN is in each.
    if value is not None and not value > 0:
        raise click.BadParameter(f"{value:g} is no positive number of seconds, such as 2.5")
    return value


_at_server = click.option(
    "--server",
    metavar="URL",
    envvar="JUPYTER_SERVER_URL",
    show_envvar=True,
    help="A Jupyter Server, or a gateway, whose kernels are meant; its token is what JUPYTER_TOKEN says. "
    "An empty one is this machine, whatever the variable says.",
)


@main.command()
@click.argument("code", nargs=-1, required=True)
@click.option(
    "--kernel",
    metavar="NAME",
    help="The kernelspec to launch; by default python3, or what the server prefers.",
)
@click.option(
    "--existing",
    metavar="FILE",
    help="A running kernel instead: its connection file, or the name of one in Jupyter's runtime "
    "directory, or a pattern such as 'kernel-12*'; with --server its id.",
)
@_at_server
@click.option(
    "--timeout",
    type=float,
    metavar="SECONDS",
    callback=_positive,
    help="How long the code may run, from the moment the kernel is ready.",
)
@click.option("--json", "json_", is_flag=True, help="Print each message as a line of JSON.")
def run(
    code: tuple[str, ...],
    kernel: str | None,
    existing: str | None,
    server: str | None,
    timeout: float | None,
    json_: bool,
) -> None:
    """Run CODE in a kernel and print what it outputs.

    CODE is source code, the path of a file with source code, or - for standard input. Several are run
    one after the other in the same kernel, up to the first that fails.

    Where the code asks for input, it is asked for at the terminal, or read from standard input, a line
    for each prompt. With - the code may not ask.

    Ctrl-C interrupts the code; a second one stops at once. A kernel that was launched is stopped in the
    end, one of --existing goes on.

    \b
    Exit status:
      0    the code ran
      1    it raised
      2    it could not be run, or asked for input that has ended
      124  --timeout was over, and the code was interrupted
      130  stopped by Ctrl-C (143: by SIGTERM, 129: by SIGHUP)

    \b
    Examples:
      enchannel run "print('woo')"
      enchannel run setup.py "main()" --timeout 60
      enchannel run --existing 'kernel-12*' --json "x"
      enchannel run --server http://localhost:8888 "print('there')"
      echo me | enchannel run "input('name? ')"
    """  # noqa: D301
    if kernel is not None and existing is not None:
        raise click.UsageError(
            "--kernel launches a kernel, --existing takes a running one: not both."
        )
    if server and existing is not None and re.search(r"[/*?]|\.json$", existing):
        raise click.UsageError(
            f"--existing {existing} is a connection file, and --server (or JUPYTER_SERVER_URL) wants the id of a kernel; "
            "--server '' is this machine."
        )
    with _failures():
        cells = _cells(code)
        output = JsonOutput() if json_ else Output()
        answers = None if STANDARD_INPUT in code else open_input(output)
        running = Run(
            cells,
            Target(kernel, existing, server or None),
            output=output,
            answers=answers,
            timeout=timeout,
        )
        _exit(trio.run(running))


@main.command()
@_at_server
@click.option("--json", "json_", is_flag=True, help="Print both as one JSON object.")
def kernels(server: str | None, json_: bool) -> None:
    """List the kernels that are installed and those that run.

    What is installed can be launched by its name, as with `enchannel run --kernel NAME`; what runs is
    found by its connection file in Jupyter's runtime directory, as with `enchannel run --existing FILE`.

    \b
    A kernel that runs is
      idle, busy   or just alive, where it does not say
      dead         when it has left its connection file behind

    \b
    Exit status:
      0    they are listed, be it none
      2    they could not be found
    """  # noqa: D301
    from ._cli import kernels as listed

    with _failures():
        if server:
            there = trio.run(listed.ask_server, server)
            shown = listed.server_as_json(*there) if json_ else listed.server_as_tables(*there)
        else:
            installed, running = KernelSpec.installed(), trio.run(list_running_kernels)
            show = listed.as_json if json_ else listed.as_tables
            shown = show(installed, running)
        try:
            write(sys.stdout, shown)
        except BrokenPipeError:
            _exit(1)
    _exit(0)


@main.command()
@click.argument("kernel", metavar="NAME")
@click.option(
    "--only", multiple=True, metavar="CHECK", help="This check; may be given several times."
)
@click.option(
    "--samples",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Code in the kernel's language to check it with, as TOML.",
)
@click.option(
    "--timeout",
    type=float,
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    callback=_positive,
    help="How long the kernel may take for one answer.",
)
@click.option("--json", "json_", is_flag=True, help="Print one JSON object in the end.")
def check(
    kernel: str, only: tuple[str, ...], samples: Path | None, timeout: float, json_: bool
) -> None:
    """Check whether the kernel NAME does what the specification asks of it.

    NAME is a kernelspec. It is launched, and once more wherever it dies of a check.

    For some languages there is code to check with; for others, or in the place of that, FILE says it:
    stdout = "say 'hello, world'", result = { "1 + 2" = "3" }, error = "fail!" and so on. What there is no
    code for is not checked.

    \b
    Exit status:
      0    nothing failed
      1    something did
      2    the kernel could not be checked
      130  stopped by Ctrl-C

    \b
    Examples:
      enchannel check python3
      enchannel check my_kernel --samples samples.toml
      enchannel check my_kernel --only stdin --only interrupt
    """  # noqa: D301
    from ._cli.check import Check, read_samples

    with _failures():
        checking = Check(
            kernel,
            only=only,
            samples=read_samples(samples) if samples is not None else None,
            patience=timeout,
            as_json=json_,
        )
        try:
            status = trio.run(checking)
        except BrokenPipeError:
            status = 1
        _exit(status)


@contextmanager
def _failures() -> Iterator[None]:
    """Errors as their message and an exit status."""
    try:
        yield
    except (EnchannelError, OSError) as error:
        raise Failure(str(error)) from error
    except KeyboardInterrupt:
        _exit(130)


def _exit(status: int) -> None:
    try:
        write(sys.stdout, "")
    except OSError:
        # What could not be written never can be. Keep the interpreter from trying once more.
        sys.stdout = None
    sys.exit(status)


# What CODE says.


def _cells(arguments: Sequence[str]) -> list[Cell]:
    if arguments.count(STANDARD_INPUT) > 1:
        raise click.UsageError("- is standard input, which can be read once only.")
    return [_cell(argument) for argument in arguments]


def _cell(argument: str) -> Cell:
    if argument == STANDARD_INPUT:
        if sys.stdin is None:
            raise Failure("standard input is closed, and no code can be read from it")
        return Cell("standard input", _text(sys.stdin.buffer.read(), "standard input"))
    path = _existing_path(argument)
    if path is not None:
        return Cell(path.name, _read(path))
    if re.fullmatch(r"\S+\.(py|ipy|r|sh|jl|cpp|js|txt)", argument, re.IGNORECASE):
        raise Failure(f"{argument}: no such file")
    return Cell("the code", argument)


def _existing_path(argument: str) -> Path | None:
    # A line of code may be no valid path at all (too long, a zero byte), and an empty one is no directory.
    try:
        return Path(argument) if argument and Path(argument).exists() else None
    except (OSError, ValueError):
        return None


def _read(path: Path) -> str:
    try:
        return _text(path.read_bytes(), str(path))
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}; CODE is a file, code, or -") from error


def _text(data: bytes, source: str) -> str:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Failure(
            f"{source}: byte {data[error.start]:#04x} at {error.start} is no UTF-8; "
            "code is text in UTF-8"
        ) from error
    return text.replace("\r\n", "\n")


if __name__ == "__main__":
    main(prog_name="enchannel")
