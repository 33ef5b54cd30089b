"""The command line: ``enchannel``, or ``python -m enchannel``.

Here is what is asked for; what is done about it is in ``_cli``.

* Built on what ``from enchannel import ...`` and ``from enchannel.testing import ...`` give, and on nothing else of
  the library.
* Bad input is told before anything is launched: what is wrong, what would be right, exit status 2.
* ``click`` and ``rich`` are needed here only.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from . import EnchannelError, KernelSpec, find_connection_file

if TYPE_CHECKING:
    import click
else:
    try:
        import click
        import rich  # noqa: F401
    except ImportError:
        print(
            'the command line needs click and rich: pip install "enchannel[cli]"', file=sys.stderr
        )
        sys.exit(2)

from ._cli.command import until_signal
from ._cli.input import open_input
from ._cli.notebook import Notebook, NotebookError, Options, value_of
from ._cli.output import JsonOutput, Output
from ._cli.run import Cell, Run, Target, Work

STANDARD_INPUT = "-"

NOTEBOOK = ".ipynb"


class Failure(click.ClickException):
    """What was asked for cannot be done."""

    exit_code = 2


class Code(str):
    """What is code, whatever file is called like that."""

    __slots__ = ()


class CodeOption(click.Option):
    """An option whose value stands in the order of the arguments, as one of them."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Adds it; see click."""
        super().add_to_parser(parser, ctx)
        for known in (parser._short_opt, parser._long_opt):  # noqa: SLF001
            for name in self.opts:
                if name in known:
                    known[name].process = lambda value, state: state.largs.append(Code(value))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="enchannel")
def main() -> None:
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


_startup_timeout = click.option(
    "--startup-timeout",
    type=float,
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    callback=_positive,
    help="How long a kernel that is launched may take to be ready.",
)

_at_server = click.option(
    "--server",
    metavar="URL",
    envvar="JUPYTER_SERVER_URL",
    show_envvar=True,
    help="A Jupyter Server, or a gateway, whose kernels are meant; its token is what JUPYTER_TOKEN says. "
    "An empty one is this machine, whatever the variable says.",
)


@main.command()
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
@click.option(
    "--timeout",
    type=float,
    metavar="SECONDS",
    callback=_positive,
    help="How long all of it may run, from the moment the kernel is ready.",
)
@_startup_timeout
@click.option("--json", "json_", is_flag=True, help="Print each message as a line of JSON.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Where to write the notebook with what came of it.",
)
@click.option("--inplace", is_flag=True, help="Write that to the notebook itself.")
@click.option("--allow-errors", is_flag=True, help="Run the other cells when one has failed.")
@click.option(
    "--cell-timeout",
    type=float,
    metavar="SECONDS",
    callback=_positive,
    help="How long one cell of a notebook may run.",
)
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
        raise click.UsageError("Missing argument 'CODE...'.")
    with _failures():
        target = Target(kernel, existing, server or None, startup_timeout)
        work = _work(code, target, **notebook)
        output = JsonOutput() if json_ else Output()
        asks = STANDARD_INPUT not in code and not isinstance(work, Notebook)
        answers = open_input(output) if asks else None
        _exit(trio.run(Run(work, target, output=output, answers=answers, timeout=timeout)))


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
    from ._cli.kernels import Listing

    _run(Listing(server or None, as_json=json_))


@main.command()
@click.option(
    "--existing",
    metavar="FILE",
    callback=_named,
    help="The kernel: its connection file, or the name of one in Jupyter's runtime directory, or a "
    "pattern such as 'kernel-12*', by default the one that was started last; with --server its id.",
)
@_at_server
@click.option("--json", "json_", is_flag=True, help="Print each message as a line of JSON.")
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
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
      enchannel watch --server http://localhost:8888 --existing 1f2e3d4c
    """  # noqa: D301
    from ._cli.watch import Watch

    if server and existing is None:
        raise click.UsageError(
            "--existing is missing: the id of a kernel, which 'enchannel kernels --server' lists."
        )
    if existing is None:
        with _failures():
            existing = str(find_connection_file())
    _run(Watch(Target(existing=existing, server=server or None), record=record, as_json=json_))


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
        read = read_samples(samples) if samples is not None else None
    _run(Check(kernel, only=only, samples=read, patience=timeout, as_json=json_))


def _run(command: Callable[[], Awaitable[int]]) -> None:
    """Runs a command that is cancelled by what would end it, and exits with its status."""
    with _failures():
        try:
            status = trio.run(until_signal, command)
        except BrokenPipeError:
            # Whoever read our output has gone; there is nobody to tell.
            status = 1
        _exit(status)


@contextmanager
def _failures() -> Iterator[None]:
    """Errors as their message and an exit status."""
    try:
        yield
    except (EnchannelError, NotebookError, OSError) as error:
        raise Failure(str(error)) from error
    except KeyboardInterrupt:
        _exit(130)


def _exit(status: int) -> None:
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        # What could not be written never can be. Keep the interpreter from trying once more.
        sys.stdout = None
    sys.exit(status)


# What CODE says.


def _work(
    code: Sequence[str],
    target: Target,
    *,
    output: Path | None,
    inplace: bool,
    allow_errors: bool,
    cell_timeout: float | None,
    parameters: Sequence[tuple[str, str]],
) -> Work:
    """What is run; where it is a notebook, `target` is told of its kernel."""
    path = _notebook_path(code)
    if path is None:
        given = (output, inplace, allow_errors, cell_timeout, parameters)
        if any(given):
            raise click.UsageError(
                "-o, --inplace, --allow-errors, --cell-timeout and -p are for a notebook, as in: enchannel run NAME.ipynb"
            )
        return Work(_cells(code))
    if inplace and output is not None:
        raise click.UsageError("--inplace writes to the notebook, -o elsewhere: not both.")
    for name, _ in parameters:
        if not re.fullmatch(r"[^\W\d][\w.]*", name):
            raise click.UsageError(f"-p sets a name, and {name!r} is none.")
    options = Options(
        output=path if inplace else output,
        allow_errors=allow_errors,
        cell_timeout=math.inf if cell_timeout is None else cell_timeout,
        parameters={name: value_of(value) for name, value in parameters},
    )
    notebook = Notebook(path, options)
    target.kernel = target.kernel or notebook.kernel
    target.cwd = str(path.absolute().parent)
    if target.server is None and target.existing is None:
        target.extra_arguments = notebook.arguments(KernelSpec.find(target.kernel or "python3"))
    return notebook


def _notebook_path(code: Sequence[str]) -> Path | None:
    """That of the notebook, where it is one that is to be run."""
    paths = [
        each
        for each in code
        if not isinstance(each, Code) and re.fullmatch(rf".*\{NOTEBOOK}", each, re.IGNORECASE)
    ]
    if not paths:
        return None
    if len(code) > 1:
        raise click.UsageError(f"a notebook is run alone, and {paths[0]} is one.")
    path = _existing_path(paths[0])
    if path is None:
        raise Failure(f"{paths[0]}: no such file")
    return path


def _cells(arguments: Sequence[str]) -> list[Cell]:
    if arguments.count(STANDARD_INPUT) > 1:
        raise click.UsageError("- is standard input, which can be read once only.")
    return [_cell(argument) for argument in arguments]


def _cell(argument: str) -> Cell:
    if isinstance(argument, Code):
        return Cell("the code", _checked(argument))
    if argument == STANDARD_INPUT:
        if sys.stdin is None:
            raise Failure("standard input is closed, and no code can be read from it")
        return Cell("standard input", _text(sys.stdin.buffer.read(), "standard input"))
    path = _existing_path(argument)
    if path is not None:
        return Cell(path.name, _read(path))
    if re.fullmatch(r"\S+\.(py|ipy|r|sh|jl|cpp|js|txt)", argument, re.IGNORECASE):
        raise Failure(f"{argument}: no such file; where it is code: -c {argument}")
    return Cell("the code", _checked(argument))


def _checked(argument: str) -> str:
    if any("\ud800" <= each <= "\udfff" for each in argument):
        # What Python makes of bytes in an argument that are no text.
        shown = argument.encode(errors="backslashreplace").decode()
        raise Failure(f"CODE {shown!r} is no UTF-8; code is text in UTF-8")
    return str(argument)


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
