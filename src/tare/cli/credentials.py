"""Registry credentials from the user's config.json (`auths`), as the X-Registry-Auth header wants them.

Reads only; logging in and credential helpers come with registries.
"""

from __future__ import annotations

from tare.client.config_file import read_config

HUB_KEY = "https://index.docker.io/v1/"


def registry_auth(full_name: str) -> dict[str, str]:
    """The header for pulling or pushing `docker.io/library/x`; empty credentials if none are stored."""
    import binascii

    from tare.client.jsontext import format_json

    registry = full_name.partition("/")[0]
    entry = (read_config().get("auths") or {}).get(HUB_KEY if registry == "docker.io" else registry) or {}
    credentials: dict[str, str] = {}
    if entry.get("auth"):
        user, _, password = binascii.a2b_base64(entry["auth"]).decode("utf-8", "replace").partition(":")
        credentials = {"username": user, "password": password}
    if entry.get("identitytoken"):
        credentials["identitytoken"] = entry["identitytoken"]
    if credentials:
        credentials["serveraddress"] = registry
    raw = binascii.b2a_base64(format_json(credentials).encode(), newline=False).decode()
    return {"X-Registry-Auth": raw.replace("+", "-").replace("/", "_")}
