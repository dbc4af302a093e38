"""import from a URL: the engine fetches it, as Docker's does. Only http and https, also after redirects.

Must never send anything of its own along (no credentials, no cookies), nor open a file or another scheme.
"""

from __future__ import annotations

import string
import time
from collections.abc import AsyncGenerator, Callable
from typing import IO, TYPE_CHECKING
from urllib.parse import quote, urlsplit

import msgspec

from tare import faults
from tare.engine.engine import Engine, in_own_thread
from tare.engine.telling import Telling
from tare.errors import InvalidArgument, TooLarge, Unavailable

if TYPE_CHECKING:
    from http.client import HTTPMessage
    from urllib.request import OpenerDirector, Request

    from tare.engine.image_verbs import ImportOptions

MAX_BYTES = 1 << 40
MAX_REDIRECTS = 10
TIMEOUT_S = 60.0
PROGRESS_INTERVAL_S = 0.1
SCHEMES = ("http", "https")


class Downloaded(msgspec.Struct, frozen=True, kw_only=True):
    """How much has come. size_bytes 0: the server didn't say how much there is."""

    done_bytes: int
    size_bytes: int


class Download:
    """A URL's content as a stream for a thread."""

    def __init__(self, url: str) -> None:
        """Raises InvalidArgument, Unavailable."""
        self.url = quote(url if "://" in url else f"http://{url}", safe=string.punctuation)  # not ASCII, blanks
        self._answer = _opened(self.url)
        length = self._answer.headers.get("Content-Length") or ""  # type: ignore[attr-defined]
        self.size_bytes = int(length) if length.isascii() and length.isdigit() and len(length) < 19 else 0
        if self.size_bytes > MAX_BYTES:
            self.close()
            raise TooLarge(f"{self.url} is larger than {MAX_BYTES} bytes")
        self.done_bytes = 0
        self.given_up = False
        """Whether nobody waits for it any more: the next read fails."""

    def read(self, size: int = 256 << 10, /) -> bytes:
        """At least one byte, at most size; b"" at the end. Raises Unavailable if the connection breaks, TooLarge."""
        from http.client import HTTPException

        try:
            data: bytes = self._answer.read1(size)  # type: ignore[attr-defined]
        except (OSError, HTTPException) as error:
            raise Unavailable(f"{self.url}: {error or type(error).__name__}") from error
        if self.given_up:
            raise Unavailable(f"{self.url}: nobody waits for it any more")
        self.done_bytes += len(data)
        if self.done_bytes > MAX_BYTES:
            raise TooLarge(f"{self.url} is larger than {MAX_BYTES} bytes")
        if not data and self.done_bytes < self.size_bytes:
            raise Unavailable(f"{self.url}: the answer ended after {self.done_bytes} of {self.size_bytes} bytes")
        return data

    def close(self) -> None:
        self._answer.close()


def check_url(url: str) -> str:
    """Raises InvalidArgument for what isn't http or https."""
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in SCHEMES and bool(parts.hostname)
    except ValueError:  # a bracket that isn't closed
        is_one = False
    if not is_one:
        raise InvalidArgument(f"can't import from {url[:200]!r}: only http:// and https:// addresses can be")
    return url


def _opened(url: str) -> IO[bytes]:
    from http.client import HTTPException
    from urllib.error import HTTPError, URLError

    check_url(url)
    try:
        answer: IO[bytes] = _opener().open(url, timeout=TIMEOUT_S)
        return answer
    except HTTPError as error:
        error.close()
        raise Unavailable(f"Got HTTP status code >= 400: {error.code} {error.reason}") from error
    except URLError as error:
        raise Unavailable(f"{url}: {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise Unavailable(f"{url}: {error or type(error).__name__}") from error


def _opener() -> OpenerDirector:
    from urllib import request

    class Redirects(request.HTTPRedirectHandler):
        max_redirections = MAX_REDIRECTS

        def redirect_request(
            self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
        ) -> Request | None:
            check_url(newurl)
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    made = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
        Redirects(),
    ):
        made.add_handler(handler)
    made.addheaders = [("User-Agent", "Tare"), ("Accept-Encoding", "identity")]
    return made


async def import_from_url(engine: Engine, url: str, options: ImportOptions) -> AsyncGenerator[Downloaded | str, None]:
    """Fetches an archive and makes an image of it: how it goes, then the image's id.

    Raises InvalidArgument for an address that can't be, Unavailable where nothing is to be had, before the first item.
    """
    from tare.engine.image_verbs import import_stream

    download = await in_own_thread(Download, url)
    told: Telling[Downloaded | str] = Telling(lambda item: True if isinstance(item, Downloaded) else None)
    faults.point("engine.import.fetched")

    async def work() -> None:
        stream, message = _Reporting(download, told.tell), f"Imported from {download.url}"
        try:
            told.tell((await import_stream(engine, stream, options, message)).id)
            told.end()
        except Exception as error:
            told.end(error)
        finally:
            download.close()

    async def items() -> AsyncGenerator[Downloaded | str, None]:
        try:
            async for item in told.items():
                yield item
        finally:
            told.leave()
            download.given_up = True

    engine.spawn(work(), "import from a URL")
    return items()


class _Reporting:
    """A download that tells how far it is."""

    def __init__(self, download: Download, tell: Callable[[Downloaded], None]) -> None:
        self._download = download
        self._tell = tell
        self._last_s = 0.0

    def read(self, size: int = 256 << 10, /) -> bytes:
        data = self._download.read(size)
        now = time.monotonic()
        if not data or now - self._last_s > PROGRESS_INTERVAL_S:
            self._last_s = now
            self._tell(Downloaded(done_bytes=self._download.done_bytes, size_bytes=self._download.size_bytes))
        return data
