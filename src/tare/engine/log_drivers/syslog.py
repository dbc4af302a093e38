"""The driver syslog: RFC 5424, RFC 3164 and the local form, over UDP, TCP, TLS and unix sockets."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Sequence

from tare.engine.log_driver_options import parse_flag, syslog_address, syslog_facility
from tare.engine.log_drivers.connection import Connection, Datagrams, LocalSyslog, Stream
from tare.engine.log_drivers.sink import Source, instant_ns, line_of, severity
from tare.engine.log_files import Entry

_MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


class SyslogSink:
    """A syslog server."""

    def __init__(self, source: Source) -> None:
        options = source.options
        self._address = syslog_address(options.get("syslog-address", ""))
        self._format = options.get("syslog-format", "")
        self._facility = syslog_facility(options.get("syslog-facility", ""))
        self._tag = source.tag
        self._host = socket.gethostname()
        self._connection = self._connect(options)

    def _connect(self, options: dict[str, str]) -> Connection:
        scheme = self._address.scheme
        if not scheme:
            return LocalSyslog()
        if scheme in ("udp", "unixgram"):
            return Datagrams(self._address)
        return Stream(self._address, tls_context(options) if scheme == "tcp+tls" else None)

    async def send(self, entries: Sequence[Entry]) -> None:
        """Raises OSError, TimeoutError."""
        await self._connection.send(self._framed(self.format(entry)) for entry in entries)

    async def close(self) -> None:
        """Lets the connection go."""
        await self._connection.close()

    def _framed(self, message: bytes) -> bytes:
        """On a stream: octet counting for RFC 5424 over TLS (RFC 5425, 4.3), else a newline (RFC 6587, 3.4.2)."""
        scheme = self._address.scheme
        if scheme == "tcp+tls" and self._format.startswith("rfc5424"):
            return b"%d %s" % (len(message), message)
        return message if scheme in ("udp", "unixgram") else message + b"\n"

    def format(self, entry: Entry) -> bytes:
        """One message, without its framing."""
        priority = self._facility * 8 + severity(entry)
        instant = instant_ns(entry) or time.time_ns()
        pid, tag = os.getpid(), self._tag
        if self._format.startswith("rfc5424"):
            micro = self._format == "rfc5424micro"
            head = f"<{priority}>1 {_rfc3339(instant, micro)} {self._host} {_word(tag, 48)} {pid} {_word(tag, 32)} - "
        else:
            host = f"{self._host} " if self._format == "rfc3164" else ""
            head = f"<{priority}>{_stamp(instant)} {host}{tag}[{pid}]: "
        return head.encode() + line_of(entry)


def _word(text: str, most: int) -> str:
    """A field of RFC 5424's header (section 6): printable ASCII without blanks, of limited length; `-` for none."""
    return "".join(letter if "!" <= letter <= "~" else "_" for letter in text)[:most] or "-"


def _stamp(instant_ns: int) -> str:
    """RFC 3164's time: local, to the second."""
    t = time.localtime(instant_ns // 10**9)
    return f"{_MONTHS[t.tm_mon - 1]} {t.tm_mday:2d} {t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}"


def _rfc3339(instant_ns: int, micro: bool) -> str:
    t = time.localtime(instant_ns // 10**9)
    fraction = f".{instant_ns % 10**9 // 1000:06d}" if micro else ""
    minutes = t.tm_gmtoff // 60
    zone = "Z" if not minutes else f"{'+' if minutes > 0 else '-'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
    return time.strftime("%Y-%m-%dT%H:%M:%S", t) + fraction + zone


def tls_context(options: dict[str, str]) -> ssl.SSLContext:
    """The context of `syslog-tls-*`. Raises OSError, ssl.SSLError."""
    context = ssl.create_default_context(cafile=options.get("syslog-tls-ca-cert") or None)
    if options.get("syslog-tls-cert"):
        context.load_cert_chain(options["syslog-tls-cert"], options.get("syslog-tls-key") or None)
    skip = options.get("syslog-tls-skip-verify", "")
    if skip and parse_flag(skip):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
