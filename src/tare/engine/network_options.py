"""What the network verbs are told: options of create, connect and disconnect. Pure."""

from __future__ import annotations

from tare.engine.options import EndpointOptions, Options


class AddressPoolOptions(Options, frozen=True, kw_only=True):
    """One subnet of a network."""

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class IpamOptions(Options, frozen=True, kw_only=True):
    """How a network's addresses are managed."""

    driver: str = ""
    options: dict[str, str] | None = None
    config: tuple[AddressPoolOptions, ...] | None = None


class ConfigSource(Options, frozen=True, kw_only=True):
    """The network that another one takes its configuration from."""

    network: str = ""


class NetworkOptions(Options, frozen=True, kw_only=True):
    """A network to make. check_duplicate: names are unique here whatever it says."""

    name: str = ""
    check_duplicate: bool = False
    driver: str = ""
    scope: str = ""
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigSource | None = None
    ipam: IpamOptions | None = None
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class ConnectOptions(Options, frozen=True, kw_only=True):
    """A container to connect, and how."""

    container: str = ""
    endpoint_config: EndpointOptions | None = None


class NetworkUpdateOptions(Options, frozen=True, kw_only=True):
    """What is to be another on a network from now on. egress: what its containers may send to."""

    egress: str | None = None


class DisconnectOptions(Options, frozen=True, kw_only=True):
    """A container to disconnect. force: also one that isn't there any more."""

    container: str = ""
    force: bool = False
