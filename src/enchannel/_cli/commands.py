"""The commands, and what each of them is asked for; what is done about it is in the modules beside.

* Built on what ``from enchannel import ...`` and ``from enchannel.testing import ...`` give; of the rest of the library it
  knows how signals are heard, groups unwrapped, and names of connection files matched.
* Bad input is told before anything is launched: what is wrong, what would be right, exit status 2.
* However a command ends, it is by a status: also where it is Ctrl-C, or the help that cannot be printed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click
import trio

from .. import EnchannelError
from .code import STANDARD_INPUT, Code, work_of
from .command import Failure, until_signal
from .input import open_input
from .notebook import Notebook
from .output import JsonOutput, Output
from .run import Run
from .target import Target


class Commands(click.Group):
    """The group of all commands."""

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Reads what is asked for, and prints the help; see click."""
        with _failures():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; see click."""
        with _failures():
            return super().invoke(ctx)


class FileName(click.Path):
    """The path of a file, which is not empty: an empty one would be the directory that we are in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuses what is no path; see click."""
        if value == "":
            self.fail("an empty text names no file", param, ctx)
        return super().convert(value, param, ctx)


class CodeOption(click.Option):
    """An option whose value stands in the order of the arguments, as one of them."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Adds it; see click."""
        super().add_to_parser(parser, ctx)
        for known in (parser._short_opt, parser._long_opt):  # noqa: SLF001
            for name in self.opts:
                if name in known:
                    known[name].process = lambda value, state: state.largs.append(Code(value))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="enchannel")
def commands() -> None:
    """Talk to Jupyter kernels."""


def _positive(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    # Not a range of click's: a NaN is in each.
    if value is not None and not value > 0:
        raise click.BadParameter(f"{value:g} is no positive number of seconds, such as 2.5")
    return value


def _named(_: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value == "":
        raise click.BadParameter(f"an empty text names no {parameter.metavar}".lower())
    return value


def _seconds(name: str, text: str, **default: Any) -> Callable[[Any], Any]:
    """An option that is a time limit."""
    return click.option(
        name, type=float, metavar="SECONDS", callback=_positive, help=text, **default
    )


_startup_timeout = _seconds(
    "--startup-timeout",
    "How long a kernel that is launched may take to be ready.",
    default=60.0,
    show_default=True,
)

_at_server = click.option(
    "--server",
    metavar="URL",
    envvar="JUPYTER_SERVER_URL",
    show_envvar=True,
    help="A Jupyter Server, or a gateway, whose kernels are meant; its token is what JUPYTER_TOKEN says. "
    "An empty one is this machine, whatever the variable says.",
)


@commands.command()
@click.argument("code", nargs=-1, type=click.UNPROCESSED)
@click.option(
    "-c",
    "--code",
    "verbatim",
    cls=CodeOption,
    metavar="CODE",
    help="Source code, also where it is the name of a file; may be given several times.",
)
@click.option(
    "--kernel",
    metavar="NAME",
    callback=_named,
    help="The kernelspec to launch; by default the notebook's, python3, or what the server prefers.",
)
@click.option(
    "--existing",
    metavar="FILE",
    callback=_named,
    help="A running kernel instead: its connection file, or the name of one in Jupyter's runtime "
    "directory, or a pattern such as 'kernel-12*'; with --server its id.",
)
@_at_server
@_seconds("--timeout", "How long all of it may run, from the moment the kernel is ready.")
@_startup_timeout
@click.option("--json", "json_", is_flag=True, help="Print each message as a line of JSON.")
@click.option(
    "-o",
    "--output",
    type=FileName(path_type=Path),
    metavar="FILE",
    help="Where to write the notebook with what came of it.",
)
@click.option("--inplace", is_flag=True, help="Write that to the notebook itself.")
@click.option("--allow-errors", is_flag=True, help="Run the other cells when one has failed.")
@_seconds("--cell-timeout", "How long one cell of a notebook may run.")
@click.option(
    "-p",
    "--parameter",
    "parameters",
    nargs=2,
    multiple=True,
    metavar="NAME VALUE",
    help="Set behind the notebook's cell that is tagged 'parameters'; may be given several times.",
)
def run(
    code: tuple[str, ...],
    verbatim: None,  # noqa: ARG001
    kernel: str | None,
    existing: str | None,
    server: str | None,
    timeout: float | None,
    startup_timeout: float,
    json_: bool,
    **notebook: Any,
) -> None:
    """Run CODE, or a notebook, in a kernel and print what it outputs.

    CODE is source code, the path of a file with source code, or - for standard input. Several are run
    one after the other in the same kernel, up to the first that fails.

    Where the code asks for input, it is asked for at the terminal, or read from standard input, a line
    for each prompt. With - the code may not ask, nor may a notebook.

    A notebook is the path of one, NAME.ipynb, and the only CODE. Its cells are run in the directory where it is.
    With -o or --inplace what came of it is written in the end, also when a cell failed or was interrupted.

    Ctrl-C interrupts the code; a second one stops at once. A kernel that was launched is stopped in the
    end, one of --existing goes on.

    \b
    Exit status:
      0    the code ran
      1    it raised
      2    it could not be run, or asked for input that has ended
      124  --timeout or --cell-timeout was over, and the code was interrupted
      130  stopped by Ctrl-C (143: by SIGTERM, 129: by SIGHUP)
    and that of the code, where it ends with sys.exit().

    \b
    Examples:
      enchannel run "print('woo')"
      enchannel run setup.py "main()" --timeout 60
      enchannel run --kernel ir -c circle.r
      enchannel run report.ipynb -o done.ipynb -p year 2026
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
    if not code:
        raise click.UsageError("Missing argument 'CODE...'; - is standard input.")
    target = Target(kernel, existing, server or None, startup_timeout)
    work = work_of(code, target, **notebook)
    output = JsonOutput() if json_ else Output()
    asks = STANDARD_INPUT not in code and not isinstance(work, Notebook)
    answers = open_input(output) if asks else None
    _exit(trio.run(Run(work, target, output=output, answers=answers, timeout=timeout)))


@commands.command()
@_at_server
@click.option("--json", "json_", is_flag=True, help="Print both as one JSON object.")
@click.option("--alive", is_flag=True, help="Leave out what is dead.")
@click.option(
    "--clean", is_flag=True, help="Remove the connection files of what is dead, after asking."
)
@click.option("--yes", is_flag=True, help="With --clean: without asking.")
def kernels(server: str | None, json_: bool, alive: bool, clean: bool, yes: bool) -> None:
    """List the kernels that are installed and those that run.

    What is installed can be launched by its name, as with `enchannel run --kernel NAME`; what runs is
    found by its connection file in Jupyter's runtime directory, as with `enchannel run --existing FILE`.

    \b
    A kernel that runs is
      idle, busy   or just alive, where it does not say
      dead         when it has left its connection file behind
      unknown      when its file is of no use, or so new that it may be starting

    \b
    Exit status:
      0    they are listed, be it none, or removed
      1    they were not to be removed
      2    they could not be found
    """  # noqa: D301
    from .kernels import Cleaning, Listing

    if (yes and not clean) or (clean and (server or json_)):
        raise click.UsageError(
            "--yes is for --clean, and that is neither for a server nor as JSON."
        )
    _run(Cleaning(sure=yes) if clean else Listing(server or None, alive=alive, as_json=json_))


@commands.command()
@click.option(
    "--existing",
    metavar="FILE",
    callback=_named,
    help="The kernel: its connection file, or the name of one in Jupyter's runtime directory, or a "
    "pattern such as 'kernel-12*', by default that of the one which was started last and runs; with --server its id.",
)
@_at_server
@click.option("--json", "json_", is_flag=True, help="Print each message as a line of JSON.")
@click.option(
    "--record",
    type=FileName(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the messages to FILE as well, from which enchannel.testing makes a kernel that says them again.",
)
def watch(existing: str | None, server: str | None, json_: bool, record: Path | None) -> None:
    """Show what goes on in a running kernel, until it ends.

    Who asks what, which code runs and for how long, what it prints, restarts, and the kernel's end. It only
    listens: the kernel and its users notice nothing.

    \b
    Exit status:
      0    the kernel has ended
      2    it could not be watched
      130  stopped by Ctrl-C (143: by SIGTERM, 129: by SIGHUP)

    \b
    Examples:
      enchannel watch
      enchannel watch --existing 'kernel-12*' --json
      enchannel watch --server http://localhost:8888 --existing KERNEL_ID
    """  # noqa: D301
    from .watch import Watch

    if server and existing is None:
        raise click.UsageError(
            "--existing is missing: the id of a kernel, which 'enchannel kernels --server' lists."
        )
    _run(Watch(Target(existing=existing, server=server or None), record=record, as_json=json_))


@commands.command()
@click.argument("kernel", metavar="NAME")
@click.option(
    "--only", multiple=True, metavar="CHECK", help="This check; may be given several times."
)
@click.option(
    "--samples",
    type=FileName(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Code in the kernel's language to check it with, as TOML.",
)
@_seconds(
    "--timeout",
    "How long the kernel may take for one answer.",
    default=30.0,
    show_default=True,
)
@_at_server
@_startup_timeout
@click.option("--json", "json_", is_flag=True, help="Print one JSON object in the end.")
def check(
    kernel: str,
    only: tuple[str, ...],
    samples: Path | None,
    timeout: float,
    server: str | None,
    startup_timeout: float,
    json_: bool,
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
    from .check import Check, read_samples

    read = read_samples(samples) if samples is not None else None
    checking = Check(
        kernel,
        server=server or None,
        startup_timeout=startup_timeout,
        only=only,
        samples=read,
        patience=timeout,
        as_json=json_,
    )
    _run(checking)


def _run(command: Callable[[], Awaitable[int]]) -> None:
    """Runs a command that is cancelled by what would end it, and exits with its status."""
    _exit(trio.run(until_signal, command))


@contextmanager
def _failures() -> Iterator[None]:
    """Errors as their message and an exit status."""
    try:
        yield
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody to tell.
        _exit(1)
    except (EnchannelError, OSError) as error:
        _give_up_output()
        raise Failure(str(error)) from error
    except KeyboardInterrupt:
        _exit(130)


def _exit(status: int) -> NoReturn:
    _give_up_output()
    sys.exit(status)


def _give_up_output() -> None:
    """What could not be written never can be. Keeps the interpreter from trying once more."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        sys.stdout = None
