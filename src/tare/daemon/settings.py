"""tared's options: command line and JSON configuration file, with dockerd's names; what is given twice is an error."""

from __future__ import annotations

import argparse
import ipaddress
import json
import os
import socket
from pathlib import Path

import msgspec

from tare.daemon.scoped_sockets import check_group, parse_socket
from tare.errors import InvalidArgument, system_text
from tare.values.timestamps import parse_duration
from tare.values.units import parse_bytes

DEFAULT_CONFIG = "/etc/tare/tared.json"
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")


class DaemonSettings(msgspec.Struct, kw_only=True):
    """Everything that tared can be told. Names are the command line's, with underscores."""

    data_root: str = "/var/lib/tare"
    exec_root: str = "/run/tare"
    hosts: list[str] = []
    sockets: list[str] = []
    pidfile: str = ""
    log_level: str = "info"
    debug: bool = False
    group: str = "tare"
    bridge: str = "tare0"
    bip: str = ""
    mtu: int = 1500
    icc: bool = True
    ip: str = "0.0.0.0"
    ipv6: bool = False
    fixed_cidr_v6: str = ""
    network_guard: bool = True
    publish_allow: list[str] = []
    allow_direct_routing: bool = False
    ip_forward: bool = True
    ip_masq: bool = True
    iptables: bool = True
    cgroup_parent: str = ""
    init: bool = False
    no_new_privileges: bool = False
    userns_remap: str = ""
    default_shm_size: str = "64m"
    default_ulimits: list[str] = []
    log_driver: str = "json-file"
    log_opts: list[str] = []
    labels: list[str] = []
    insecure_registries: list[str] = []
    registry_mirrors: list[str] = []
    registry_certs: str = "/etc/docker/certs.d"
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    dns: list[str] = []
    dns_search: list[str] = []
    dns_opts: list[str] = []
    shutdown_timeout: int = 15
    live_restore: bool = True
    journald_socket: str = "/run/systemd/journal/socket"
    trash_keep: str = "24h"
    trash_max: str = "5g"
    trash_free: str = "5%"
    tls: bool = False
    tlsverify: bool = False
    tlscacert: str = ""
    tlscert: str = ""
    tlskey: str = ""

    @property
    def socket_path(self) -> str:
        """The unix socket that a tared without -H listens on."""
        return f"{self.exec_root}/tare.sock"


_LISTS = {
    "hosts": ("--host", "-H", "socket to listen on (unix://PATH, tcp://ADDRESS:PORT, fd://); may be repeated"),
    "sockets": (
        "--socket",
        None,
        "unix socket that allows less (path=PATH,role=viewer|operator|admin[,label=K=V][,project=NAME][,group=G])",
    ),
    "publish_allow": ("--publish-allow", None, "subnet whose addresses may reach published ports (default: all)"),
    "default_ulimits": ("--default-ulimit", None, "default ulimit of containers (name=soft[:hard])"),
    "log_opts": ("--log-opt", None, "default log driver option (key=value)"),
    "labels": ("--label", None, "label of this engine (key=value)"),
    "insecure_registries": (
        "--insecure-registry",
        None,
        "registry, or network of registries (CIDR), to which TLS isn't checked, or isn't there",
    ),
    "registry_mirrors": (
        "--registry-mirror",
        None,
        "mirror to pull from first: of Docker Hub (https://HOST), or of another registry (REGISTRY=https://HOST)",
    ),
    "dns": ("--dns", None, "DNS server for containers"),
    "dns_search": ("--dns-search", None, "DNS search domain for containers"),
    "dns_opts": ("--dns-opt", None, "DNS option for containers"),
}
_SHORT = {"pidfile": "-p", "log_level": "-l", "debug": "-D", "group": "-G", "bridge": "-b"}
_HELP = {
    "data_root": "directory of all that is kept",
    "exec_root": "directory of what lives as long as the machine is up",
    "pidfile": "file to write the process id to (default: EXEC_ROOT/tared.pid)",
    "log_level": "debug, info, warn, error or fatal",
    "debug": "the same as --log-level debug",
    "group": "group that may use the unix socket",
    "bridge": "bridge of the default network; none: no such network",
    "bip": "address and prefix of the bridge (10.1.0.1/16)",
    "mtu": "MTU of the default network",
    "icc": "let containers of the default network reach each other",
    "network_guard": "keep containers of the default network from using others' addresses",
    "allow_direct_routing": "let other machines reach published ports at containers' own addresses, too",
    "ip": "host address that published ports are bound to",
    "ipv6": "give containers of the default network IPv6 addresses, too",
    "fixed_cidr_v6": "IPv6 subnet of the default network (default: a unique local one)",
    "ip_forward": "switch IPv4 forwarding on",
    "ip_masq": "masquerade what containers send out",
    "iptables": "write packet filter rules (an nftables table of Tare's own)",
    "cgroup_parent": "cgroup below which containers are put",
    "init": "run an init in every container",
    "no_new_privileges": "set no-new-privileges for every container",
    "userns_remap": "give every container a user namespace: default, USER[:GROUP] or UID:GID (of /etc/subuid)",
    "default_shm_size": "size of /dev/shm in containers",
    "log_driver": "default log driver (json-file, local, none, syslog, journald, gelf or fluentd)",
    "journald_socket": "where the log driver journald finds the journal",
    "shutdown_timeout": "seconds to wait for containers at shutdown (without live restore)",
    "live_restore": "let containers run on when tared stops",
    "trash_keep": "how long what was removed can be restored (0: not at all)",
    "trash_max": "how many bytes removed things may hold together",
    "trash_free": "how much of the disk must stay free of removed things (bytes, or a percentage)",
    "registry_certs": "directory with one for each registry: *.crt authorities, *.cert and *.key of this engine",
    "max_concurrent_downloads": "layers that are downloaded at once",
    "max_concurrent_uploads": "layers of a push that are uploaded at once",
    "max_download_attempts": "attempts in a row without progress before a download or upload fails",
    "tls": "use TLS on TCP sockets",
    "tlsverify": "use TLS and require client certificates",
    "tlscacert": "file of the authority that signs client certificates",
    "tlscert": "TLS certificate file",
    "tlskey": "TLS key file",
}


def make_parser() -> argparse.ArgumentParser:
    """The command line of tared; options that aren't given are absent from the result."""
    parser = argparse.ArgumentParser(
        prog="tared",
        description="The Tare container engine's daemon.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config-file", "--config", default=None, help=f"JSON configuration (default {DEFAULT_CONFIG})"
    )
    parser.add_argument("--validate", action="store_true", default=False, help="check the configuration and exit")
    parser.add_argument("--version", "-v", action="store_true", default=False, help="print the version and exit")
    for field in msgspec.structs.fields(DaemonSettings):
        name = field.name
        if name in _LISTS:
            long, short, text = _LISTS[name]
            names = [long, short] if short else [long]
            parser.add_argument(*names, dest=name, action="append", metavar="VALUE", help=text)
            continue
        names = [f"--{name.replace('_', '-')}"] + ([_SHORT[name]] if name in _SHORT else [])
        if field.type is bool:
            parser.add_argument(*names, dest=name, nargs="?", const=True, type=_flag, metavar="BOOL", help=_HELP[name])
        else:
            parser.add_argument(*names, dest=name, type=field.type, metavar="VALUE", help=_HELP[name])
    return parser


def _flag(text: str) -> bool:
    if text.lower() in ("1", "true", "t"):
        return True
    if text.lower() in ("0", "false", "f"):
        return False
    raise argparse.ArgumentTypeError(f"not a boolean: {text!r}")


def load_settings(given: dict[str, object], config_file: str | None) -> DaemonSettings:
    """Settings from the options given on the command line and a configuration file.

    Raises InvalidArgument for unknown keys, wrong types, and what is set in both places.
    """
    from_file = _read_config(config_file)
    both = sorted(set(given) & set(from_file))
    if both:
        raise InvalidArgument(
            "the following directives are specified both as a flag and in the configuration file: "
            + ", ".join(name.replace("_", "-") for name in both)
        )
    try:
        settings = msgspec.convert(from_file | given, DaemonSettings, strict=True)
    except msgspec.ValidationError as error:
        raise InvalidArgument(f"invalid configuration: {error}") from error
    if settings.log_level not in LOG_LEVELS:
        raise InvalidArgument(f"invalid logging level: {settings.log_level}")
    settings.data_root = os.path.abspath(settings.data_root)
    settings.exec_root = os.path.abspath(settings.exec_root)
    settings.pidfile = settings.pidfile or f"{settings.exec_root}/tared.pid"
    settings.hosts = settings.hosts or [f"unix://{settings.socket_path}"]
    parse_bytes(settings.default_shm_size)
    for text in settings.sockets:
        check_group(parse_socket(text))
    for text in settings.publish_allow:
        _check_subnet(text)
    parse_bytes(settings.trash_max)
    parse_duration(settings.trash_keep)
    _check_registries(settings)
    for name in ("max_concurrent_downloads", "max_concurrent_uploads", "max_download_attempts"):
        if getattr(settings, name) < 1:
            raise InvalidArgument(f"invalid {name.replace('_', '-')}: must be at least 1")
    parse_trash_free(settings.trash_free)
    return settings


def _check_registries(settings: DaemonSettings) -> None:
    if not (settings.insecure_registries or settings.registry_mirrors):
        return
    # here: what is imported before the launcher is forked, each monitor carries
    from tare.registry.endpoints import check_insecure, check_mirror

    for text in settings.insecure_registries:
        check_insecure(text)
    for text in settings.registry_mirrors:
        check_mirror(text)


def parse_trash_free(text: str) -> tuple[int, float]:
    """What must stay free: (bytes, 0.0), or (0, share of the disk). Raises InvalidArgument."""
    if not text.endswith("%"):
        return parse_bytes(text), 0.0
    digits = text[:-1]
    if not (digits.isascii() and digits.isdigit() and int(digits) <= 100):
        raise InvalidArgument(f"invalid share of the disk: {text}")
    return 0, int(digits) / 100


def _check_subnet(text: str) -> None:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidArgument(f"invalid --publish-allow: {error}") from error


def _read_config(path: str | None) -> dict[str, object]:
    if path is None:
        if not os.path.exists(DEFAULT_CONFIG):
            return {}
        path = DEFAULT_CONFIG
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidArgument(
            f"unable to configure the engine with file {path}: {system_text(error.errno or 0)}"
        ) from error
    except ValueError as error:
        raise InvalidArgument(f"unable to configure the engine with file {path}: {error}") from error
    if not isinstance(found, dict):
        raise InvalidArgument(f"unable to configure the engine with file {path}: not a JSON object")
    known = {field.name for field in msgspec.structs.fields(DaemonSettings)}
    known_by_flag = {long.removeprefix("--"): name for name, (long, _, _) in _LISTS.items()}
    result: dict[str, object] = {}
    for key, value in found.items():
        name = known_by_flag.get(key, key.replace("-", "_"))
        if name not in known:
            raise InvalidArgument(f"the following directives don't match any configuration option: {key}")
        result[name] = _flatten(value) if name in ("log_opts", "default_ulimits") else value
    return result


def _flatten(value: object) -> object:
    """dockerd's file has `{"max-size": "10m"}` where its command line has `max-size=10m`."""
    if not isinstance(value, dict):
        return value
    out = []
    for key, item in value.items():
        if isinstance(item, dict):
            item = f"{item.get('Soft', item.get('Hard'))}:{item.get('Hard')}"
        out.append(f"{key}={item}")
    return out


def split_pairs(values: list[str], what: str) -> dict[str, str]:
    """`key=value` options as a mapping. Raises InvalidArgument."""
    found = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InvalidArgument(f"invalid {what}: {text!r} is not key=value")
        found[key] = value
    return found


def parse_ulimits(values: list[str]) -> dict[str, tuple[int, int]]:
    """`name=soft[:hard]` options. Raises InvalidArgument."""
    found = {}
    for name, text in split_pairs(values, "ulimit").items():
        soft, _, hard = text.partition(":")
        try:
            found[name] = (int(soft), int(hard or soft))
        except ValueError as error:
            raise InvalidArgument(f"invalid ulimit: {name}={text}") from error
    return found


def host_name() -> str:
    """This machine's name."""
    return socket.gethostname()
