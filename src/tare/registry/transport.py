"""HTTP to registries: one operation's connections, with limits on all that a hostile registry could stretch.

Must never follow a redirect by itself, send credentials to another place than they are for, wait without a deadline, or
keep a body above its cap. `urllib3` is imported when the first request is made: an idle engine doesn't carry it.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import tare
from tare.registry.endpoints import Endpoint, tls_context
from tare.registry.patience import SLOW_BYTES, Pace, Watch
from tare.registry.records import Cancelled, Interrupted, RegistryFailure, RegistrySettings

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, HTTPConnectionPool

CONNECT_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 45.0
HEAD_TIMEOUT_S = 90.0
"""How long an answer's head may take in all, however slowly it trickles."""
DOCUMENT_TIMEOUT_S = 60.0
PIECE_BYTES = 256 << 10
MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
Body = bytes | Iterator[bytes]


class Answer:
    """An answer whose body hasn't been read yet. `close` it, or read it to its end."""

    def __init__(self, response: BaseHTTPResponse, url: str, watch: Watch) -> None:
        self._response = response
        self._watch = watch
        self.url = url
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}

    def document(self, limit_bytes: int) -> bytes:
        """The whole body. Raises RegistryFailure if it is larger than limit_bytes or takes too long."""
        parts, size = [], 0
        with self._watch.until(DOCUMENT_TIMEOUT_S):
            for piece in self._pieces(None):
                size += len(piece)
                if size > limit_bytes:
                    self.close()
                    raise RegistryFailure(f"{self.url}: the answer is larger than {limit_bytes} bytes")
                parts.append(piece)
        return b"".join(parts)

    def pieces(self, least: Callable[[], int] = lambda: SLOW_BYTES) -> Iterator[bytes]:
        """The body as it comes. Raises Interrupted where it breaks off or only trickles, Cancelled.

        least: says how many bytes must come in SLOW_WINDOW_S of waiting for them.
        """
        pace = Pace(self._watch, least)
        try:
            yield from self._pieces(pace)
        except Interrupted as error:
            if pace.missed:
                text = f"{self.url}: the registry sends less than {pace.missed} bytes in {pace.window_s:.0f} seconds"
                raise Interrupted(text) from error
            raise
        finally:
            pace.end()

    def _pieces(self, pace: Pace | None) -> Iterator[bytes]:
        try:
            while True:
                with _explained("read", self.url, self._watch), pace or nullcontext():
                    piece = self._response.read1(PIECE_BYTES, decode_content=False)
                    if pace is not None:
                        pace.got += len(piece)
                    self._watch.check(self.url)  # where we shut the connection, an end is none
                if not piece:
                    break
                yield piece
            self._response.release_conn()
        finally:
            self.close()

    def close(self) -> None:
        """Lets go of the connection; one in the middle of a body is closed."""
        self._response.close()


class Transport:
    """The connections of one operation (a pull, a push …). `request` may be called from several threads."""

    def __init__(self, settings: RegistrySettings) -> None:
        self.settings = settings
        self._pools: dict[tuple[str, bool], HTTPConnectionPool] = {}
        self._lock = threading.Lock()
        self._watches: set[Watch] = set()
        self.cancelled = False

    def cancel(self) -> None:
        """Ends every request at once; those that wait raise Cancelled."""
        with self._lock:
            self.cancelled = True
            watches = list(self._watches)
        for watch in watches:
            watch.cancel()

    def close(self) -> None:
        with self._lock:
            for pool in self._pools.values():
                pool.close()
            self._pools.clear()
            self._watches.clear()

    def request(
        self,
        endpoint: Endpoint,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        timeout_s: float = HEAD_TIMEOUT_S,
    ) -> Answer:
        """One request, no redirect followed. Raises Interrupted, RegistryFailure, Cancelled."""
        watch = Watch()
        with self._lock:
            if self.cancelled:
                raise Cancelled(f"{url}: cancelled")
            self._watches.add(watch)
        sent = {"User-Agent": f"tare/{tare.__version__}", "Accept-Encoding": "identity", **(headers or {})}
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        pool = self._pool(endpoint, f"{parts.scheme}://{parts.netloc}")
        if pool.proxy is not None and parts.scheme == "http":
            target = url
        _serving.watch = watch
        try:
            with _explained(method.title(), url, watch), watch.until(timeout_s):
                response = pool.urlopen(
                    method,
                    target or "/",
                    body=body,
                    headers=sent,
                    redirect=False,
                    retries=False,
                    assert_same_host=False,
                    preload_content=False,
                    decode_content=False,
                )
        finally:
            _serving.watch = None
        return Answer(response, url, watch)

    def follow(self, endpoint: Endpoint, method: str, url: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        """A reading request whose redirects are followed; another host gets no Authorization (CVE-2020-15157)."""
        sent = dict(headers or {})
        for _ in range(MAX_REDIRECTS + 1):
            answer = self.request(endpoint, method, url, headers=sent)
            if answer.status not in _REDIRECTS:
                return answer
            answer.close()
            url, before = self.location(endpoint, answer), url
            if not same_origin(url, before):
                sent.pop("Authorization", None)
        raise RegistryFailure(f'{method.title()} "{url}": stopped after {MAX_REDIRECTS} redirects')

    @staticmethod
    def location(endpoint: Endpoint, answer: Answer) -> str:
        """Where an answer sends us. Raises RegistryFailure where that is no HTTP, or leaves TLS."""
        target = urljoin(answer.url, answer.headers.get("location", ""))
        parts = urlsplit(target)
        if parts.scheme not in ("http", "https") or not parts.hostname or "location" not in answer.headers:
            raise RegistryFailure(f"{answer.url}: the registry sends us to {target[:200]!r}")
        if parts.scheme == "http" and urlsplit(answer.url).scheme == "https" and endpoint.checked:
            raise RegistryFailure(f"{answer.url}: the registry sends us out of TLS to {target[:200]!r}")
        return target

    def _pool(self, endpoint: Endpoint, origin: str) -> Any:
        # What a redirect leads to is another host: nobody called that one insecure.
        checked = endpoint.checked or not same_origin(origin, endpoint.url)
        with self._lock:
            pool = self._pools.get((origin, checked))
            if pool is None:
                from tare.registry.connections import make_pool

                domain = endpoint.domain if same_origin(origin, endpoint.url) else urlsplit(origin).netloc
                context: Callable[[], Any] = lambda: tls_context(domain, self.settings, checked=checked)  # noqa: E731
                pool = self._pools[origin, checked] = make_pool(
                    origin, context, _proxy_for(origin), (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
                )
            return pool


class _Serving(threading.local):
    watch: Watch | None = None


_serving = _Serving()


def adopt(line: socket.socket) -> None:
    """A connection tells which socket this thread's request goes over."""
    if _serving.watch is not None:
        _serving.watch.adopt(line)


def same_origin(one: str, other: str) -> bool:
    """Whether two URLs are of one scheme, host and port."""
    first, second = urlsplit(one), urlsplit(other)
    ports = {"http": 80, "https": 443}
    return (first.scheme, first.hostname, first.port or ports.get(first.scheme)) == (
        second.scheme,
        second.hostname,
        second.port or ports.get(second.scheme),
    )


def _proxy_for(origin: str) -> str:
    """The proxy that the environment names for a URL, as dockerd reads it; "" for none."""
    from urllib.request import getproxies_environment  # heavy: an idle engine doesn't carry it

    parts = urlsplit(origin)
    host = parts.hostname or ""
    proxies = getproxies_environment()
    if host == "localhost" or host.startswith("127.") or host == "::1" or _is_spared(host, proxies.get("no", "")):
        return ""
    return proxies.get(parts.scheme, "")


def _is_spared(host: str, no_proxy: str) -> bool:
    """Whether NO_PROXY names the host, a domain above it, or all."""
    for entry in no_proxy.split(","):
        name = entry.strip().lower().partition(":")[0].lstrip(".")
        if name and (name == "*" or host == name or host.endswith(f".{name}")):
            return True
    return False


@contextmanager
def _explained(method: str, url: str, watch: Watch) -> Iterator[None]:
    """What goes wrong below, as errors of ours with Docker's words."""
    from tare.registry.connections import explain

    try:
        yield
    except Exception as error:
        if watch.cancelled:
            raise Cancelled(f"{url}: cancelled") from error
        if watch.expired:
            raise Interrupted(f'{method} "{url}": the registry takes too long to answer') from error
        reason = explain(error)
        if reason is None:
            raise
        raise Interrupted(f'{method} "{url}": {reason}') from error
