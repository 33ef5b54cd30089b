"""What a server is asked over REST, and what its refusals mean.

* The token goes out in the ``Authorization`` header, as ``token X``, which every server takes. It is nowhere else: what a
  server says is told without it, be it that the server says it.
* A redirect is not followed: it leads to somebody's login, and the token is none of his business. Cookies are not kept:
  with a token nothing needs them.
* Every answer is waited for as long as whoever asks says, and no longer.

Source: the REST API of Jupyter Server; Kernel Gateway; Enterprise Gateway; JupyterHub.
"""

from __future__ import annotations

import contextlib
import json
import re
import ssl
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, urlsplit

import anyio

from .._exceptions import LocalProtocolError, ServerError
from .._groups import shielded
from .._protocol.server_url import ServerUrl

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2

__all__ = ["IN_BETWEEN", "Rest", "refusal", "require_extra"]

IN_BETWEEN = (502, 503, 504)
"""The status of what stands before a server that has not answered."""

WORDS = 500
"""Characters of what a server says that are told."""

SHORT = 8
"""Characters of a token that may be part of a word by chance."""

LARGEST = 16 << 20
"""Bytes of an answer that are read."""

CLOSE_DEADLINE = 2.0
"""Seconds that letting go of the connections may take."""

REDIRECTS = (301, 302, 303, 307, 308)


def require_extra() -> None:
    """Raises ``LocalProtocolError`` where what kernels behind a server need is not installed."""
    try:
        import httpx2  # noqa: F401
        import websockets  # noqa: F401
    except ImportError as error:
        raise LocalProtocolError(
            'kernels behind a server need websockets and httpx2: pip install "enchannel[server]"'
        ) from error


class Rest:
    """A server's REST API.

    Args:
        url: Of the server.
        token: That it wants.
        tls: For https; by default what the system trusts.
    """

    def __init__(self, url: ServerUrl, token: str | None, tls: ssl.SSLContext | None) -> None:
        self.url = url
        self.token = token
        self._tls = tls
        self._client: httpx2.AsyncClient | None = None
        self._closed = False

    @property
    def tls(self) -> ssl.SSLContext | None:
        """For https; ``None`` for http."""
        if self._tls is None and self.url.secure:
            import httpx2

            self._tls = httpx2.create_ssl_context()
        return self._tls if self.url.secure else None

    def another(self) -> Rest:
        """The same, with connections of its own; this one where it is open."""
        return Rest(self.url, self.token, self._tls) if self._closed else self

    async def get(self, path: str, *, timeout: float) -> Any:
        """What is at `path` below ``/api``; raises what :meth:`ask` does."""
        return await self.ask("GET", path, timeout=timeout)

    async def ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, timeout: float
    ) -> Any:
        """What the server answers: the value of its JSON, ``None`` where it says nothing.

        Args:
            method: Of HTTP.
            path: Below ``/api``, each part quoted.
            body: What is sent, as JSON.
            timeout: Seconds for the answer.

        Raises:
            ServerError: It refuses, answers with something else, or not at all.
        """
        import httpx2

        try:
            with anyio.fail_after(timeout):
                async with self._open().stream(method, self._target(path), json=body) as response:
                    content = await _content(response)
        except TimeoutError:
            what = ": does it speak https?" if self.url.secure else ""
            failure = ServerError(f"{self.url} has not answered within {timeout:g} s{what}")
        except _TooLarge:
            failure = ServerError(f"what {self.url} answers is larger than {LARGEST >> 20} MiB")
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            failure = ServerError(self._unanswered(error), reached=False)
        except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError, OSError) as error:
            # An OSError: on asyncio httpx2 lets through what TLS has against a connection behind its handshake.
            failure = ServerError(self._unanswered(error))
        else:
            return self._read(response, content, path)
        if self._closed:
            raise anyio.ClosedResourceError("the block of the server was left")
        # Not with the request as its context, which has the token.
        raise failure

    def _unanswered(self, error: BaseException) -> str:
        chain = [error]
        while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
            chain.append(cause)
        said = next(
            (text for each in chain if (text := self.clean(str(each)))), type(error).__name__
        )
        what = "Is it running, and is that its address?"
        if any(isinstance(each, ssl.SSLError) for each in chain) or "SSL" in said:
            what = "A certificate of one's own is trusted with ssl_context=ssl.create_default_context(cafile=...)"
        return f"no answer from {self.url}: {said}. {what}"

    def _target(self, path: str) -> str:
        return f"{self.url}/api{path}"

    def _open(self) -> httpx2.AsyncClient:
        if self._closed:
            raise anyio.ClosedResourceError("the block of the server was left")
        if self._client is None:
            import httpx2

            nobody = DefaultCookiePolicy(allowed_domains=())
            # What is compressed may be a thousand times as large.
            headers = {"Accept-Encoding": "identity"}
            if self.token:
                headers["Authorization"] = f"token {self.token}"
            try:
                self._client = httpx2.AsyncClient(
                    headers=headers,
                    # To load what the system trusts takes 20 ms, for nothing where nothing is encrypted.
                    verify=self.tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
                    cookies=CookieJar(nobody),
                    timeout=None,
                    # A slow start holds one for as long as it takes.
                    limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20),
                )
            except (ImportError, OSError, ValueError, httpx2.InvalidURL) as error:
                raise LocalProtocolError(
                    f"a proxy or certificates that the environment names (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, SSL_CERT_FILE) "
                    f"cannot be used: {self.clean(str(error))}"
                ) from None
        return self._client

    def _read(self, response: httpx2.Response, content: bytes, path: str) -> Any:
        status = response.status_code
        if not 200 <= status < 300:
            location = response.headers.get("location", "")
            text = content.decode("utf-8", "replace")
            raise self.refused(status, text, location, path)
        if status == 204 or not content:
            return None
        # What is no JSON may hold the token, and is no context of what is raised.
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(content)
        return self.not_the_api(status)

    def not_the_api(self, status: int) -> NoReturn:
        """Raises what is said of a server that is another one."""
        raise ServerError(
            f"what {self.url} serves is no Jupyter Server's API: is there more to its base URL, such as "
            "http://host:8000/user/NAME of a JupyterHub?",
            status,
        )

    def refused(self, status: int, text: str, location: str = "", path: str = "") -> ServerError:
        """What is raised of an answer that is a refusal."""
        has_token = bool(self.token)
        # Before it is cut, and once more with what is ours.
        text = self.clean(text)
        error = refusal(str(self.url), status, text, location, path, has_token=has_token)
        return ServerError(self.clean(str(error)), status, self.clean(error.said))

    def clean(self, text: str) -> str:
        """`text` without the token."""
        for secret in filter(None, (self.token, quote(self.token or "", safe=""))):
            found = re.escape(secret)
            # A short one is in many a word.
            alone = rf"(?<![A-Za-z0-9]){found}(?![A-Za-z0-9])"
            text = re.sub(found if len(secret) >= SHORT else alone, "[token]", text)
        return text

    async def aclose(self) -> None:
        """Lets go of its connections."""
        client, self._client, self._closed = self._client, None, True
        if client is not None:
            with shielded(), anyio.move_on_after(CLOSE_DEADLINE):
                await client.aclose()


class _TooLarge(Exception):
    """An answer is larger than is read."""


async def _content(response: httpx2.Response) -> bytes:
    content, size = bytearray(), 0
    # To its end, or the deadline: httpx2's iterators are not to be left before.
    async for piece in response.aiter_bytes():
        size += len(piece)
        if size <= LARGEST:
            content += piece
    if size > LARGEST:
        raise _TooLarge
    return bytes(content)


def refusal(
    url: str, status: int, text: str, location: str = "", path: str = "", *, has_token: bool
) -> ServerError:
    """The error that says what a server's refusal means, and what to do about it.

    Args:
        url: The server's.
        status: Of HTTP.
        text: The body of its answer.
        location: Where it points to.
        path: What was asked for.
        has_token: Whether a token was sent.
    """
    words, is_page = words_of(text)
    # What a server says of cookies, where it has seen no token, leads nowhere.
    said = f" ({words})" if words and "_xsrf" not in words else ""
    if status in REDIRECTS:
        message = (
            f"{url} redirects to {_place_of(location)}: is its base URL right? A JupyterHub redirects to its login "
            "where the user's server does not run"
        )
    elif status == 401 or (status == 403 and _is_about_tokens(words)):
        message = (
            f"{url} refuses the token{said}: has it expired, or is it another server's?"
            if has_token
            else f"{url} wants a token{said}: give token=..., or set JUPYTER_TOKEN"
        )
    elif status == 404 and is_page:
        message = f"{url} has nothing at /api{path}: is its base URL right?"
    elif status in IN_BETWEEN:
        message = f"{url} cannot be reached through what is before it{said}"
    elif status == 405:
        message = (
            f"{url} does not offer that{said}: is it a Jupyter Server, or one of its gateways?"
        )
    elif 400 <= status < 600:
        message = f"{url} refuses{said or f' with status {status}, without a word'}"
    else:
        message = f"{url} answers with status {status}{said}"
    return ServerError(message, status, words)


def _place_of(location: str) -> str:
    try:
        parts = urlsplit(location)
    except ValueError:
        return "nowhere"
    return f"{parts.netloc}{parts.path}"


def _is_about_tokens(words: str) -> bool:
    return not words or words == "Forbidden" or "_xsrf" in words or "token" in words.lower()


def words_of(text: str) -> tuple[str, bool]:
    """What a server's answer says; and whether it is a page for a browser."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        if re.match(r"\s*<", text):
            # To the end where it has none: or each that follows would be looked at to the end as well.
            title = re.search(r"<title>(.*?)(</title>|\Z)", text, re.DOTALL | re.IGNORECASE)
            return (" ".join(title[1].split())[:WORDS] if title and title[2] else ""), True
        return " ".join(text.split())[:WORDS], False
    if not isinstance(said, dict):
        return "", False
    # The gateways put what matters into either.
    several = [said.get("reason"), said.get("message")]
    texts = [each.strip() for each in several if isinstance(each, str) and each.strip()]
    return ": ".join(dict.fromkeys(texts))[:WORDS], False
