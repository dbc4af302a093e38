"""Contexts: named engine addresses with their TLS files, in the files of Docker's command line.

    <config>/contexts/meta/<sha256 of the name>/meta.json        {"Name", "Metadata", "Endpoints": {"docker": {…}}}
    <config>/contexts/tls/<sha256 of the name>/docker/{ca,cert,key}.pem

A name becomes a path only as its digest. Knows nothing of which one is in force.
"""

from __future__ import annotations

import os

from tare.client.config_file import config_directory, write_aside
from tare.client.errors import ClientError
from tare.client.host import Host, TlsFiles, parse_host
from tare.client.jsontext import format_json, parse_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TLS_NAMES = ("ca.pem", "cert.pem", "key.pem")
NAME_RULE = "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"
_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_REST = _FIRST | frozenset("_.+-")


class ContextError(ClientError):
    """A context that isn't there, can't be read, or has a name that can't be."""


class Context:
    """One context. tls: names and contents of its TLS files."""

    def __init__(
        self,
        name: str,
        host: str,
        description: str = "",
        skip_verify: bool = False,
        tls: dict[str, bytes] | None = None,
    ) -> None:
        self.name = name
        self.host = host
        self.description = description
        self.skip_verify = skip_verify
        self.tls: dict[str, bytes] = {}
        self.document: dict[str, Any] = {}

    def to_document(self) -> dict[str, Any]:
        """meta.json; what another client wrote there and we don't know is kept."""
        metadata = {k: v for k, v in (self.document.get("Metadata") or {}).items() if k != "Description"}
        if self.description:
            metadata["Description"] = self.description
        endpoints = dict(self.document.get("Endpoints") or {})
        endpoints["docker"] = {"Host": self.host, "SkipTLSVerify": self.skip_verify}
        return {"Name": self.name, "Metadata": metadata, "Endpoints": endpoints}


def check_name(name: str) -> None:
    """Raises ContextError for a name that a new context can't have."""
    if name == "default":
        raise ContextError('"default" is a reserved context name')
    if not name:
        raise ContextError("context name cannot be empty")
    if len(name) < 2 or name[0] not in _FIRST or set(name) - _REST:
        raise ContextError(f'context name "{name}" is invalid, names are validated against regexp "{NAME_RULE}"')


def _digest(name: str) -> str:
    from hashlib import sha256

    return sha256(name.encode("utf-8", "surrogateescape")).hexdigest()


def meta_directory(name: str) -> str:
    return os.path.join(config_directory(), "contexts", "meta", _digest(name))


def tls_directory(name: str) -> str:
    return os.path.join(config_directory(), "contexts", "tls", _digest(name))


def exists(name: str) -> bool:
    return os.path.exists(os.path.join(meta_directory(name), "meta.json"))


def parse_document(raw: bytes) -> Context:
    """A context as meta.json has it. Raises ValueError."""
    document = parse_json(raw)
    if not isinstance(document, dict) or not isinstance(document.get("Name"), str):
        raise ValueError("not a context's metadata")
    endpoint = (document.get("Endpoints") or {}).get("docker") or {}
    metadata = document.get("Metadata") or {}
    found = Context(
        document["Name"],
        str(endpoint.get("Host", "")),
        str(metadata.get("Description", "")),
        bool(endpoint.get("SkipTLSVerify")),
    )
    found.document = document
    return found


def read_context(name: str) -> Context:
    """Raises ContextError."""
    path = os.path.join(meta_directory(name), "meta.json")
    try:
        with open(path, "rb") as file:
            found = parse_document(file.read())
    except FileNotFoundError:
        raise ContextError(f'context "{name}": context not found: open {path}: no such file or directory') from None
    except (OSError, ValueError) as error:
        raise ContextError(f'context "{name}": {path}: {error}') from error
    for file_name in TLS_NAMES:
        try:
            with open(os.path.join(tls_directory(name), "docker", file_name), "rb") as file:
                found.tls[file_name] = file.read()
        except OSError:
            continue
    return found


def list_contexts() -> list[Context]:
    """All that can be read, by name."""
    folder = os.path.join(config_directory(), "contexts", "meta")
    found = []
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    for entry in names:
        try:
            with open(os.path.join(folder, entry, "meta.json"), "rb") as file:
                found.append(parse_document(file.read()))
        except (OSError, ValueError):
            continue
    return sorted(found, key=lambda context: context.name)


def write_context(context: Context) -> None:
    """Stores it, with its TLS files (0600), in place of one of the same name."""
    folder = os.path.join(tls_directory(context.name), "docker")
    if context.tls:
        os.makedirs(folder, mode=0o700, exist_ok=True)
    for name in TLS_NAMES:
        path = os.path.join(folder, name)
        if name in context.tls:
            write_aside(path, context.tls[name], 0o600)
        elif os.path.exists(path):
            os.unlink(path)
    os.makedirs(meta_directory(context.name), mode=0o755, exist_ok=True)
    text = format_json(context.to_document())
    write_aside(os.path.join(meta_directory(context.name), "meta.json"), text.encode(), 0o644)


def remove_context(name: str) -> None:
    """The metadata first: what is left of an interrupted removal is no context any more."""
    import shutil

    shutil.rmtree(meta_directory(name))
    shutil.rmtree(tls_directory(name), ignore_errors=True)


def endpoint_of(name: str) -> Host:
    """The engine that a context names. Raises ContextError, BadHost."""
    try:
        context = read_context(name)
    except ContextError as error:
        raise ContextError(f"unable to resolve docker endpoint: {error}") from None
    files: TlsFiles | None = None
    if context.tls or context.skip_verify:
        folder = os.path.join(tls_directory(name), "docker")
        ca, cert, key = (os.path.join(folder, item) if item in context.tls else "" for item in TLS_NAMES)
        files = TlsFiles(ca, cert, key, not context.skip_verify)
    if not context.host:
        raise ContextError(f'context "{name}" has no engine address')
    return parse_host(context.host, files)
