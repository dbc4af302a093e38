"""The bodies of create, commit and exec start as records: option records plus what only HTTP carries."""

from __future__ import annotations

from typing import Any

import msgspec

from tare.api import wire
from tare.engine.options import ContainerConfig, HostOptions, NetworkingOptions
from tare.errors import InvalidArgument

EMPTY_CONFIG_TEXT = "Config cannot be empty in order to create a container"


class CreateBody(ContainerConfig, frozen=True, kw_only=True):
    """POST /containers/create: a container's config with the host's and the networks' part beside it."""

    host_config: HostOptions | None = None
    networking_config: NetworkingOptions | None = None


class ExecStartBody(msgspec.Struct, frozen=True, kw_only=True):
    """POST /exec/{id}/start."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[int, int] | None = None


def parse_create(document: Any) -> tuple[ContainerConfig, HostOptions, NetworkingOptions]:
    """The three parts of a create body. Raises InvalidArgument."""
    body = wire.decode(CreateBody, document)
    if not wire.given_fields(ContainerConfig, document):
        raise InvalidArgument(EMPTY_CONFIG_TEXT)
    config = ContainerConfig(**{name: getattr(body, name) for name in ContainerConfig.__struct_fields__})
    return config, body.host_config or HostOptions(), body.networking_config or NetworkingOptions()


def parse_commit(document: Any) -> ContainerConfig | None:
    """The config in a commit's body, which most clients leave empty."""
    return wire.decode(ContainerConfig, document) if wire.given_fields(ContainerConfig, document) else None
