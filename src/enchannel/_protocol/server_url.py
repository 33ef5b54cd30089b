"""Where a server is: its URL, taken apart.

* What it serves begins at its base URL, which may be more than a host: ``http://host/hub/user/ada``.
* A token belongs to the header of a request. One that stands in a URL is taken out of it, for URLs end up in logs.

Source: "Security in the Jupyter Server", Jupyter Server.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

import attrs

from .errors import LocalProtocolError

if TYPE_CHECKING:
    from typing import Self

__all__ = ["ServerUrl"]

_PAGES = re.compile(r"/((lab|tree|notebooks|edit|consoles|doc|login)(/.*)?|api(/kernels.*)?)$")
"""What a browser shows behind the base URL."""

_USER = re.compile(r"(.*/user/[^/]+)(/.*)?$")
"""Where a JupyterHub user's server is, whatever the user is called."""

LONGEST = 4_000
"""Characters of a URL."""


@attrs.frozen
class ServerUrl:
    """The base URL of a server."""

    secure: bool
    host: str
    port: int
    base: str
    """The path, percent-encoded, without a slash at its end."""
    token: str | None = attrs.field(default=None, repr=False)
    """That stood in it."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Takes `url` apart.

        Raises:
            LocalProtocolError: It is none of a server.
        """
        given: object = url
        if not isinstance(given, str):
            raise LocalProtocolError(f"the URL of a server is a str, not {type(given).__name__}")
        try:
            parts = urlsplit(url.strip())
            port = parts.port
            path = quote(_base_of(parts.path.rstrip("/")), safe="/%:@!$&'()*+,;=~")
            # As a name of the network: its parts are neither empty nor too long.
            host = (parts.hostname or "").encode("idna").decode()
        except ValueError:
            # Not with its text, which may hold a token.
            raise LocalProtocolError(
                "the URL of a server cannot be read: see its host and port"
            ) from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise LocalProtocolError(
                "the URL of a server begins with http:// or https:// and a host, such as http://localhost:8888"
            )
        if port == 0 or len(url) > LONGEST:
            raise LocalProtocolError("the URL of a server has no port 0, and is not that long")
        if parts.username is not None:
            raise LocalProtocolError(
                "a user and password in the URL of a server are not sent: give its token"
            )
        if any(ord(character) < 33 for character in url.strip()):
            raise LocalProtocolError("the URL of a server has no blanks and no control characters")
        secure = parts.scheme == "https"
        token = parse_qs(parts.query).get("token", [None])[-1]
        if (parts.hostname or "").isascii():
            host = parts.hostname
        return cls(secure, host, port or (443 if secure else 80), path, token)

    def __str__(self) -> str:
        scheme = "https" if self.secure else "http"
        return f"{scheme}://{self.netloc}{self.base}"

    @property
    def netloc(self) -> str:
        """Host and port, the latter where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.secure else 80) else f"{host}:{self.port}"

    def channels_path(self, kernel_id: str, session: str) -> str:
        """The path, and the query, of the websocket of a kernel."""
        kernel, ours = quote(kernel_id, safe=""), quote(session, safe="")
        return f"{self.base}/api/kernels/{kernel}/channels?session_id={ours}"


def _base_of(path: str) -> str:
    """`path` without what a browser shows there."""
    found = _USER.match(path)
    base, rest = (found[1], found[2] or "") if found else ("", path)
    return base + _PAGES.sub("", rest)
