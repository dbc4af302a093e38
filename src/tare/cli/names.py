"""Image references as users type them: [HOST[:PORT]/]PATH[:TAG][@DIGEST]. Pure."""

from __future__ import annotations

DEFAULT_REGISTRY = "docker.io"
_COMPONENT = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")
_TAG = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


class Reference:
    """name: without registry's default parts ("busybox"); full: with them ("docker.io/library/busybox")."""

    __slots__ = ("digest", "full", "name", "tag")

    def __init__(self, name: str, full: str, tag: str, digest: str) -> None:
        self.name = name
        self.full = full
        self.tag = tag
        self.digest = digest

    @property
    def tag_or_digest(self) -> str:
        return self.digest or self.tag or "latest"

    def with_tag(self) -> str:
        """What "Unable to find image" names: name:tag, latest if none was given."""
        if self.digest:
            return f"{self.name}@{self.digest}"
        return f"{self.name}:{self.tag or 'latest'}"


def parse_reference(text: str) -> Reference:
    rest, at, digest = text.partition("@")
    if at and not _is_digest(digest):
        raise ValueError("invalid reference format")
    head, colon, tag = rest.rpartition(":")
    if not colon or "/" in tag:
        head, tag = rest, ""
    elif not tag or len(tag) > 128 or set(tag) - _TAG or tag[0] in ".-":
        raise ValueError("invalid reference format")
    if len(text) == 64 and not set(text) - set("0123456789abcdef"):
        raise ValueError(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    registry, slash, path = head.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost" or registry != registry.lower()):
        registry, path = DEFAULT_REGISTRY, head
    if registry == "index.docker.io":
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and "/" not in path:
        path = "library/" + path
    if path != path.lower():
        raise ValueError(f"invalid reference format: repository name ({path}) must be lowercase")
    if not all(_is_component(part) for part in path.split("/")):
        raise ValueError("invalid reference format")
    name = f"{registry}/{path}"
    if registry == DEFAULT_REGISTRY:
        name = path.removeprefix("library/") if path.count("/") == 1 else path
    return Reference(name, f"{registry}/{path}", tag, digest)


def _is_component(part: str) -> bool:
    return bool(part) and not set(part) - _COMPONENT and part[0].isalnum() and part[-1].isalnum()


def _is_digest(text: str) -> bool:
    algorithm, colon, value = text.partition(":")
    return bool(algorithm and colon) and len(value) >= 32 and not set(value) - set("0123456789abcdefABCDEF")
