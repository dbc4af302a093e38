"""The options of the drivers that ship logs to a server: what Docker accepts, with Docker's texts. Pure.

Addresses are checked for their form only; a server that isn't there is no error, since a container never waits for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import msgspec

from tare.errors import InvalidArgument
from tare.values.units import parse_bytes

SHIPPED = ("fluentd", "gelf", "journald", "syslog")
_CHOSEN = ("env", "env-regex", "labels", "labels-regex", "tag", "mode", "max-buffer-size")
_CACHE = ("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress")
_SYSLOG = (
    "syslog-address",
    "syslog-facility",
    "syslog-format",
    "syslog-tls-ca-cert",
    "syslog-tls-cert",
    "syslog-tls-key",
    "syslog-tls-skip-verify",
)
_GELF = (
    "gelf-address",
    "gelf-compression-level",
    "gelf-compression-type",
    "gelf-tcp-max-reconnect",
    "gelf-tcp-reconnect-delay",
)
_FLUENTD = (
    "fluentd-address",
    "fluentd-async",
    "fluentd-async-connect",
    "fluentd-async-reconnect-interval",
    "fluentd-buffer-limit",
    "fluentd-max-retries",
    "fluentd-request-ack",
    "fluentd-retry-wait",
    "fluentd-sub-second-precision",
    "fluentd-write-timeout",
)
FACILITIES = (
    "kern user mail daemon auth syslog lpr news uucp cron authpriv ftp".split()
    + [""] * 4
    + [f"local{number}" for number in range(8)]
)
SYSLOG_FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
_TRANSPORTS = ("tcp://", "tcp+tls://", "udp://", "unix://", "unixgram://")
Given = Mapping[str, str]


class Address(msgspec.Struct, frozen=True):
    """Where a server listens. scheme: udp, tcp, tcp+tls, unix, unixgram; "" for the machine's own syslog socket."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""


def parse_flag(text: str) -> bool:
    """Go's strconv.ParseBool."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise InvalidArgument(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def _check_names(given: Given, own: tuple[str, ...], driver: str, quote: str = "'") -> None:
    for name in given:
        if name not in own and name not in _CHOSEN and name not in _CACHE:
            raise InvalidArgument(f"unknown log opt {quote}{name}{quote} for {driver} log driver")
    for name in ("cache-disabled", "cache-compress"):
        try:
            disabled = parse_flag(given.get(name, "false"))
        except InvalidArgument as error:
            raise InvalidArgument(f"invalid value for option {name}: {given[name]}") from error
        if disabled and name == "cache-disabled":
            # What is shipped is read from that file: it is what makes that nothing is lost and no container waits.
            raise InvalidArgument("log opt cache-disabled is not supported by Tare: logs are shipped from the cache")


def _split_host(text: str, address: str, default_port: int = 0) -> tuple[str, int]:
    """`host:port`, `[v6]:port`, or a host alone. Raises ValueError with Go's words."""
    host, colon, port = text.rpartition(":")
    if not colon or (text.startswith("[") and text.endswith("]")):
        host, port = text, ""
    elif ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f"address {text}: too many colons in address")
    if port and not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ValueError(f'parse "{address}": invalid port ":{port}" after host')
    return host.strip("[]"), int(port or default_port)


# -- syslog ----------------------------------------------------------------------------------------------------------


def syslog_address(text: str) -> Address:
    """`syslog-address`. Raises InvalidArgument."""
    if not text:
        return Address("")
    if not text.startswith(_TRANSPORTS):
        raise InvalidArgument(f"syslog-address should be in form proto://address, got {text}")
    scheme, _, rest = text.partition("://")
    if scheme in ("unix", "unixgram"):
        if not os.path.exists(rest):
            raise InvalidArgument(f"stat {rest}: no such file or directory")
        return Address(scheme, path=rest)
    try:
        host, port = _split_host(rest, text, 514)
    except ValueError as error:
        raise InvalidArgument(str(error)) from error
    return Address(scheme, host or "localhost", port)


def syslog_facility(text: str) -> int:
    """A facility's number (RFC 5424, table 1), by name or number; 3, daemon, is the default. Raises InvalidArgument."""
    if not text:
        return 3
    if text in FACILITIES:
        return FACILITIES.index(text)
    if text.isascii() and text.isdigit() and int(text) < 24:
        return int(text)
    raise InvalidArgument("invalid syslog facility")


def check_syslog(given: Given) -> None:
    """Raises InvalidArgument."""
    _check_names(given, _SYSLOG, "syslog")
    syslog_address(given.get("syslog-address", ""))
    syslog_facility(given.get("syslog-facility", ""))
    if given.get("syslog-format", "") not in SYSLOG_FORMATS:
        raise InvalidArgument("Invalid syslog format")
    for name, what in (("ca-cert", "CA certificate"), ("cert", "certificate"), ("key", "key")):
        path = given.get(f"syslog-tls-{name}", "")
        if path and not os.path.isfile(path):
            raise InvalidArgument(f'could not read {what} "{path}": open {path}: no such file or directory')


# -- journald --------------------------------------------------------------------------------------------------------


def check_journald(given: Given) -> None:
    """Raises InvalidArgument."""
    _check_names(given, (), "journald")


# -- gelf ------------------------------------------------------------------------------------------------------------


def gelf_address(text: str) -> Address:
    """`gelf-address`. Raises InvalidArgument."""
    if not text:
        raise InvalidArgument("gelf-address is a required parameter")
    if not text.startswith(_TRANSPORTS):
        raise InvalidArgument(f"gelf-address should be in form proto://address, got {text}")
    scheme, _, rest = text.partition("://")
    if scheme not in ("tcp", "udp"):
        raise InvalidArgument("gelf: endpoint needs to be TCP or UDP")
    try:
        host, port = _split_host(rest, text)
    except ValueError as error:
        raise InvalidArgument(str(error)) from error
    if not port:
        raise InvalidArgument("gelf: please provide gelf-address as proto://host:port")
    return Address(scheme, host or "localhost", port)


def check_gelf(given: Given) -> None:
    """Raises InvalidArgument."""
    address = gelf_address(given.get("gelf-address", ""))
    _check_names(given, _GELF, "gelf", '"')
    for name, value in given.items():
        if name.startswith("gelf-compression-") and address.scheme != "udp":
            raise InvalidArgument("compression is only supported on UDP")
        levels = [str(level) for level in range(-1, 10)]
        if (name == "gelf-compression-level" and value not in levels) or (
            name == "gelf-compression-type" and value not in ("gzip", "zlib", "none")
        ):
            raise InvalidArgument(f'unknown value "{value}" for log opt "{name}" for gelf log driver')
        if name.startswith("gelf-tcp-"):
            if address.scheme != "tcp":
                raise InvalidArgument(f'"{name}" is only valid for TCP')
            if not (value.isascii() and value.isdigit()):
                raise InvalidArgument(f'"{name}" must be a positive integer')


# -- fluentd ---------------------------------------------------------------------------------------------------------


def fluentd_address(text: str) -> Address:
    """`fluentd-address`: host:port, tcp://, tls:// or unix://. Raises InvalidArgument."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "tcp", text
    if scheme == "unix":
        return Address("unix", path=rest)
    try:
        if scheme not in ("tcp", "tls"):
            raise ValueError(f"unsupported scheme {scheme}")
        if "/" in rest:
            raise ValueError("should not contain a path element")
        host, port = _split_host(rest, text, 24224)
    except ValueError as error:
        raise InvalidArgument(f"invalid fluentd-address {text}: {error}") from error
    return Address("tcp+tls" if scheme == "tls" else "tcp", host or "127.0.0.1", port)


def check_fluentd(given: Given) -> None:
    """Raises InvalidArgument."""
    _check_names(given, _FLUENTD, "fluentd")
    fluentd_address(given.get("fluentd-address", ""))
    if "fluentd-async" in given and "fluentd-async-connect" in given:
        raise InvalidArgument("conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect'")
    for name in ("async", "async-connect", "request-ack", "sub-second-precision"):
        parse_flag(given.get(f"fluentd-{name}", "false"))
    if "fluentd-buffer-limit" in given:
        parse_bytes(given["fluentd-buffer-limit"])
    retries = given.get("fluentd-max-retries", "0")
    if not (retries.isascii() and retries.isdigit()):
        raise InvalidArgument(f'strconv.ParseUint: parsing "{retries}": invalid syntax')
    for name in ("retry-wait", "async-reconnect-interval", "write-timeout"):
        _check_duration(given.get(f"fluentd-{name}", "0"))


def _check_duration(text: str) -> None:
    rest = text.lstrip("+-")
    while rest:
        digits = len(rest) - len(rest.lstrip("0123456789."))
        rest, number = rest[digits:], rest[:digits]
        unit = next((unit for unit in ("ns", "us", "µs", "ms", "s", "m", "h") if rest.startswith(unit)), "")
        if not digits or number == "." or (not unit and text not in ("0", "+0", "-0")):
            raise InvalidArgument(f'time: invalid duration "{text}"')
        rest = rest[len(unit) :]
    if not text:
        raise InvalidArgument(f'time: invalid duration "{text}"')


CHECKS: dict[str, Callable[[Given], None]] = {
    "fluentd": check_fluentd,
    "gelf": check_gelf,
    "journald": check_journald,
    "syslog": check_syslog,
}
