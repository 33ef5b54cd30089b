"""The library's logger.

``logging`` is a sixth of what importing the library takes, and most programs never hear a word of us: it is
imported with the first one.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logging import Logger


@cache
def silent_logger() -> Logger:
    """A logger that says nothing, for who would log what is secret."""
    import logging

    return logging.Logger("enchannel.silent", logging.CRITICAL + 1)  # noqa: LOG001


def logger() -> Logger:
    """The logger called ``enchannel``."""
    import logging

    log = logging.getLogger("enchannel")
    if not log.handlers:
        # Or what is said would come out on stderr where a program has not asked for it.
        log.addHandler(logging.NullHandler())
    return log
