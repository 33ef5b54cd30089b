"""The command line: ``enchannel``, or ``python -m enchannel``.

What it consists of is imported where Ctrl-C is a status already, as it is for a command that runs.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None, prog_name: str = "enchannel") -> NoReturn:
    """Does what it is asked for, and exits.

    Args:
        arguments: By default those of this program, which ends then.
        prog_name: What it calls itself.

    Raises:
        SystemExit: With the status.
    """
    try:
        _run(arguments, prog_name)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    finally:
        if arguments is None:
            # The status is known, and Python has nothing left to do but to clear away.
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def _run(arguments: Sequence[str] | None, prog_name: str) -> NoReturn:
    try:
        import click
        import rich  # noqa: F401
    except ImportError:
        print(
            'the command line needs click and rich: pip install "enchannel[cli]"', file=sys.stderr
        )
        sys.exit(2)
    from ._cli.commands import commands

    try:
        sys.exit(commands.main(arguments, prog_name, standalone_mode=False))
    except click.ClickException as error:
        with suppress(OSError):
            error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        # What click makes of Ctrl-C.
        raise KeyboardInterrupt from None


if __name__ == "__main__":
    main()
