"""Credentials for registries as Docker's clients send them: base64 of JSON, in a header or a body. Pure.

X-Registry-Auth      one registry's: {"username", "password", "identitytoken", "registrytoken", "auth" …}
X-Registry-Config    several, by server: {"registry.example": {…} …}
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from tare.api.json_text import parse_json
from tare.engine.registry_verbs import Credentials, domain_of
from tare.errors import InvalidArgument

MAX_HEADER_BYTES = 64 << 10


def header_credentials(headers: Mapping[str, str], domain: str) -> Credentials:
    """Who a request's headers say its user is to a registry. What can't be read counts as nobody, as in Docker."""
    single = _decoded(headers.get("x-registry-auth", ""))
    if isinstance(single, dict):
        found = credentials_of(single)
        if not found.empty:
            return found
    every = _decoded(headers.get("x-registry-config", ""))
    if isinstance(every, dict):
        for server, entry in every.items():
            if isinstance(entry, dict) and domain_of(str(server)) == domain:
                return credentials_of(entry)
    return Credentials()


def body_credentials(document: Any) -> Credentials:
    """Those of POST /auth. Raises InvalidArgument."""
    if not isinstance(document, dict):
        raise InvalidArgument("invalid JSON: credentials must be an object")
    return credentials_of(document)


def credentials_of(entry: Mapping[str, Any]) -> Credentials:
    """A registry.AuthConfig. Raises InvalidArgument for what isn't text."""
    values = {key.lower(): value for key, value in entry.items() if value is not None}
    texts = {}
    for name in ("username", "password", "identitytoken", "registrytoken", "serveraddress", "auth"):
        value = values.get(name, "")
        if not isinstance(value, str):
            raise InvalidArgument(f"invalid credentials: {name} is no text")
        texts[name] = value
    if texts["auth"] and not texts["username"]:
        pair = _base64(texts["auth"])
        if pair is not None:
            user, _, password = pair.decode("utf-8", "replace").partition(":")
            texts["username"], texts["password"] = user, password.rstrip("\0")
    for name in ("username", "identitytoken", "registrytoken"):
        if "\n" in texts[name] or "\r" in texts[name]:
            raise InvalidArgument(f"invalid credentials: {name} has a line break")
    return Credentials(
        username=texts["username"],
        password=texts["password"],
        identity_token=texts["identitytoken"],
        registry_token=texts["registrytoken"],
        server=texts["serveraddress"],
    )


def _decoded(text: str) -> Any:
    data = _base64(text) if len(text) <= MAX_HEADER_BYTES else None
    if not data:
        return None
    try:
        return parse_json(data)
    except InvalidArgument:
        return None


def _base64(text: str) -> bytes | None:
    """Both alphabets (RFC 4648, 4 and 5), padded or not: clients differ."""
    plain = text.strip().rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
