"""HTTP to sources: one pool of connections, no surprises.

urllib3, because it hands bytes on with a third of the processor time of pure-Python protocol stacks (docs/decisions),
and because redirects, headers and ranges are all visible. Nothing is retried or followed here.
"""

import contextlib
import email.utils
import ssl
import time
import urllib.request
from collections.abc import Mapping
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import HTTPError, LocationValueError, SSLError

from moe_operator.catalog.weights_layout import Reason
from moe_operator.weights.errors import FetchError, TransientError

_TIMEOUT = urllib3.Timeout(connect=10.0, read=30.0)
"""Seconds to connect; seconds without a byte."""


class Answer:
    """One response; its body is read only if wanted."""

    def __init__(self, response: urllib3.BaseHTTPResponse, where: str) -> None:
        self._response, self.where = response, where
        self.status, self.headers = response.status, response.headers

    def read(self, amount: int) -> bytes:
        """What has arrived, at most `amount` bytes; empty at the end.

        Raises TransientError when the connection breaks or falls silent. Never waits for more than the first byte: what
        is there is written before a silence, not lost with it.
        """
        with _failures_of(self.where):
            return self._response.read1(amount)

    def close(self) -> None:
        """Close the connection, unless the body was read to its end: then it serves again."""
        self._response.close()

    def text(self, limit: int = 65536) -> str:
        """The body's first bytes as text, and the connection given back."""
        pieces = bytearray()
        try:
            while len(pieces) < limit and (piece := self.read(limit - len(pieces))):
                pieces += piece
        finally:
            self.close()
        return pieces.decode("utf-8", "replace")


class Http:
    """Requests to any host, through the proxies that the environment names."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self._managers: dict[str, urllib3.PoolManager] = {}

    def request(self, method: str, url: str, headers: Mapping[str, str]) -> Answer:
        """The answer's status and headers, whatever they are.

        Raises TransientError when none arrives, FetchError for an address or certificate that no retry mends.
        """
        where = place(url)
        with _failures_of(where):
            response = self._manager(url).request(
                method,
                url,
                # A compressed body has no ranges, and its bytes are not the file's.
                headers={"User-Agent": "moe-operator", "Accept-Encoding": "identity", **headers},
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=False,
                timeout=_TIMEOUT,
            )
        return Answer(response, where)

    def _manager(self, url: str) -> urllib3.PoolManager:
        proxy = _proxy(url)
        if proxy not in self._managers:
            self._managers[proxy] = (
                urllib3.ProxyManager(proxy, maxsize=self._connections)
                if proxy
                else urllib3.PoolManager(maxsize=self._connections)
            )
        return self._managers[proxy]


def place(url: str) -> str:
    """An address as messages may show it: without its query, which may hold a signature."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def origin(url: str) -> tuple[str, str]:
    """Scheme and host with port: what credentials are for."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that Retry-After asks for, as a number or as a date."""
    text = headers.get("Retry-After", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def transient(answer: Answer) -> TransientError | None:
    """The error for an answer that says "later"; None for any other."""
    if answer.status in (408, 425, 429) or answer.status >= 500:
        error = TransientError(f"{answer.where} answers {answer.status}", retry_after(answer.headers))
        answer.close()
        return error
    return None


def range_start(answer: Answer, offset: int, size: int) -> int:
    """Where in a file of `size` bytes an answer's bytes begin: `offset`, or 0 if the range was ignored.

    Raises TransientError for any other range: its bytes would land in the wrong place.
    """
    if answer.status == 206:
        found = answer.headers.get("Content-Range", "")
        if found.replace("bytes ", "") in (f"{offset}-{size - 1}/{size}", f"{offset}-{size - 1}/*"):
            return offset
        answer.close()
        raise TransientError(
            f"{answer.where} answers with range {found!r} where {offset}-{size - 1}/{size} was asked for"
        )
    length = answer.headers.get("Content-Length", "")
    if length and length != str(size):
        answer.close()
        raise TransientError(f"{answer.where} sends {length} bytes of a file of {size}")
    return 0


def _proxy(url: str) -> str:
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    proxies = urllib.request.getproxies()
    return proxies.get(parts.scheme) or proxies.get("all") or ""


class _failures_of(contextlib.AbstractContextManager["_failures_of"]):  # noqa: N801 - reads as a statement
    """Turns urllib3's errors into ours."""

    def __init__(self, where: str) -> None:
        self._where = where

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LocationValueError):
            raise FetchError(Reason.BAD_SOURCE, f"{self._where} is no address that can be asked") from error
        certificate = isinstance(error, SSLError) and isinstance(
            error.args[0] if error.args else None, ssl.SSLCertVerificationError
        )
        if certificate:
            raise FetchError(
                Reason.UNREACHABLE,
                f"{self._where}: its certificate is not trusted ({error}). For an authority of your own, mount its "
                "certificate and name the file in SSL_CERT_FILE",
            ) from error
        if isinstance(error, (HTTPError, OSError)):
            raise TransientError(f"{self._where}: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    text = str(error)
    # urllib3 puts its objects' representations before the reason.
    return text.rpartition(">: ")[2] or type(error).__name__
