"""Answering a registry's challenge: basic credentials, or a token of the service that it names.

Must never send a password without TLS to a token service unless the registry itself is spoken to without, nor keep a
token beyond its operation.

    registry ── 401, WWW-Authenticate: Bearer realm=R,service=S,scope=… ──▶ us
    us ── GET R?service=S&scope=…  (Basic)   or   POST R  (grant_type=refresh_token) ──▶ token service
    us ── Authorization: Bearer <token> ──▶ registry
"""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterable
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from tare.oci.image_spec import parse_document
from tare.registry.challenge import Challenge, choose_challenge, parse_challenges
from tare.registry.endpoints import Endpoint
from tare.registry.records import NOBODY, Credentials, NotAllowed, RegistryFailure
from tare.registry.transport import Answer, Transport
from tare.registry.words import failure_of

MAX_TOKEN_BYTES = 1 << 20
CLIENT_ID = "docker"
_MIN_LIFE_S = 60.0
_SPARE_S = 5.0


class _TokenAnswer(msgspec.Struct, frozen=True, kw_only=True):
    token: str = ""
    access_token: str = ""
    refresh_token: str = ""
    expires_in: float = 0


class Authorization:
    """What we are to one endpoint. Thread-safe; holds tokens as long as the operation that made it."""

    def __init__(self, transport: Transport, endpoint: Endpoint, credentials: Credentials = NOBODY) -> None:
        self._transport = transport
        self._endpoint = endpoint
        # Docker's credentials are for the registry that was named, not for who mirrors it.
        self._credentials = NOBODY if endpoint.mirror else credentials
        self._challenge: Challenge | None = None
        self._tokens: dict[frozenset[str], tuple[str, float]] = {}
        self._lock = threading.RLock()
        self.refresh_token = ""

    def header(self, scopes: Iterable[str]) -> dict[str, str]:
        """The Authorization that is known to be wanted; nothing before the first challenge."""
        with self._lock:
            if self._credentials.registry_token:
                return {"Authorization": f"Bearer {self._credentials.registry_token}"}
            if self._challenge is None:
                return {}
            if self._challenge.scheme == "basic":
                return self._basic()
            return {"Authorization": f"Bearer {self._token(frozenset(scopes))}"}

    def answer(self, refused: Answer, scopes: Iterable[str]) -> dict[str, str]:
        """The Authorization after a 401. Raises NotAllowed where we have nothing to say that we haven't said."""
        challenge = choose_challenge(parse_challenges(refused.headers.get("www-authenticate", "")))
        with self._lock:
            if challenge is None or self._credentials.registry_token:
                raise failure_of(refused)
            repeated = self._challenge is not None and challenge.scheme == "basic"
            self._challenge = challenge
            if challenge.scheme == "basic":
                if self._credentials.empty or repeated:
                    if self._credentials.empty:
                        raise NotAllowed(f'Head "{refused.url}": no basic auth credentials', "NO_CREDENTIALS")
                    raise failure_of(refused)
                return self._basic()
            wanted = frozenset(scopes) | frozenset(challenge.parameters.get("scope", "").split())
            self._tokens.pop(frozenset(scopes), None)
            return {"Authorization": f"Bearer {self._token(frozenset(scopes), wanted)}"}

    def _basic(self) -> dict[str, str]:
        pair = f"{self._credentials.username}:{self._credentials.password}".encode()
        return {"Authorization": "Basic " + base64.b64encode(pair).decode()}

    def _token(self, scopes: frozenset[str], wanted: frozenset[str] | None = None) -> str:
        kept = self._tokens.get(scopes)
        if kept is not None and kept[1] > time.monotonic():
            return kept[0]
        assert self._challenge is not None
        answer = self._ask(self._challenge, sorted(wanted or scopes))
        token = answer.token or answer.access_token
        if not token or any(ord(letter) < 33 or ord(letter) > 126 for letter in token):
            raise RegistryFailure("authorization server did not include a token in the response")
        self.refresh_token = answer.refresh_token or self.refresh_token
        life_s = max(answer.expires_in, _MIN_LIFE_S) - _SPARE_S
        self._tokens[scopes] = (token, time.monotonic() + life_s)
        return token

    def _ask(self, challenge: Challenge, scopes: list[str]) -> _TokenAnswer:
        realm = challenge.parameters.get("realm", "")
        parts = urlsplit(realm)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise RegistryFailure(f"the registry's token service has no proper address: {realm[:200]!r}")
        secure = urlsplit(self._endpoint.url).scheme == "https" and self._endpoint.checked
        if parts.scheme == "http" and secure:
            raise RegistryFailure(f"the registry's token service is not behind TLS: {realm[:200]!r}")
        service = challenge.parameters.get("service", "")
        where = self._endpoint._replace(mirror=False)
        if self._credentials.identity_token:
            form = {
                "grant_type": "refresh_token",
                "refresh_token": self._credentials.identity_token,
                "service": service,
                "client_id": CLIENT_ID,
                "scope": " ".join(scopes),
            }
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            answer = self._transport.request(where, "POST", realm, headers=headers, body=urlencode(form).encode())
        else:
            query = [*parse_qsl(parts.query), *([("service", service)] if service else [])]
            query += [("scope", scope) for scope in scopes]
            headers = {}
            if not self._credentials.empty:
                query += [("account", self._credentials.username), ("client_id", CLIENT_ID), ("offline_token", "true")]
                headers = self._basic()
            url = urlunsplit(parts._replace(query=urlencode(query), fragment=""))
            answer = self._transport.request(where, "GET", url, headers=headers)
        if answer.status != 200:
            raise failure_of(answer)
        return parse_document(answer.document(MAX_TOKEN_BYTES), _TokenAnswer, "token")
