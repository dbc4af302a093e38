"""A DNS message's answer, or the insight that somebody else has to be asked (RFC 1035). Pure.

It must never trust a message: whatever can't be parsed is answered by an error, or by nothing.
"""

from __future__ import annotations

import ipaddress
import struct

from dnslib import AAAA, PTR, QTYPE, RCODE, RR, A, DNSHeader, DNSLabel, DNSQuestion, DNSRecord

from tare.network import dns_messages
from tare.network.dns_messages import Question
from tare.network.names import ContainerNames

_PLAIN_UDP_BYTES, _MOST_UDP_BYTES = 512, 4096
_TTL_S = 5  # short: a container that is restarted may have another address
_REVERSE, _REVERSE6 = (b"in-addr", b"arpa"), (b"ip6", b"arpa")
_MOST_ADDRESSES = 64
_LONGEST_NAME = 253
_MOST_QUERY_BYTES, _MOST_RECORDS = 4096, 8  # beside the question: its size, a signature


class Ask(Exception):
    """The question is for the resolvers outside."""


def answer(message: bytes, names: ContainerNames, *, stream: bool) -> bytes | None:
    """The answer to a query; None if it deserves none. Raises Ask if nobody here knows the name."""
    if len(message) < dns_messages.HEADER_BYTES or message[2] & 0x80:
        return None  # no message, or itself an answer
    questions, *others = dns_messages.counts(message)
    try:
        if message[2] >> 3 & 0xF:
            return refuse(message, RCODE.NOTIMP)
        if questions != 1 or sum(others) > _MOST_RECORDS or len(message) > _MOST_QUERY_BYTES:
            return refuse(message, RCODE.FORMERR)
        question = dns_messages.parse_question(message)
        limit = 65535 if stream else dns_messages.accepted_bytes(message, question, _PLAIN_UDP_BYTES, _MOST_UDP_BYTES)
        asked = _asked(question)
        header = DNSHeader(id=int.from_bytes(message[:2]), qr=1, rd=message[2] & 1, ra=1)
        packed = bytes(DNSRecord(header, q=asked, rr=_records(question, names)).pack())
    except Ask:
        raise
    except Exception:  # dnslib's, too: whatever it stumbles over is the sender's fault
        return refuse(message, RCODE.FORMERR)
    if len(packed) <= limit:
        return packed
    header.tc = 1
    return bytes(DNSRecord(header, q=asked).pack())


def question_name(message: bytes) -> str:
    """The name that is asked for, in lower case and without the last dot; "" if it can't be read."""
    try:
        return dns_messages.parse_question(message).name
    except ValueError:
        return ""


def addresses_in(message: bytes) -> tuple[list[str], int]:
    """The addresses in an answer (of very many the first), and for how many seconds they hold."""
    return dns_messages.addresses_in(message, _MOST_ADDRESSES)


def refuse(message: bytes, code: int) -> bytes:
    """An answer without content: the header and, if it can be read, the question again."""
    identifier, flags = struct.unpack_from(">HH", message)
    try:
        question = message[dns_messages.HEADER_BYTES : dns_messages.parse_question(message).end]
    except ValueError:
        question = b""
    return struct.pack(">6H", identifier, 0x8080 | (flags & 0x7900) | code, int(bool(question)), 0, 0, 0) + question


def _asked(question: Question) -> DNSQuestion:
    return DNSQuestion(DNSLabel(question.labels), question.kind, question.of_class)


def _records(question: Question, names: ContainerNames) -> list[RR]:
    labels = tuple(label.lower() for label in question.labels)
    kind, owner = question.kind, DNSLabel(question.labels)
    if labels[-2:] in (_REVERSE, _REVERSE6) and kind == QTYPE.PTR:
        name = names.name_of(_reversed_address(labels))
        if name is None:
            raise Ask
        parts = tuple(name.encode().split(b"."))
        if not all(0 < len(part) < 64 for part in parts) or sum(len(part) + 1 for part in parts) > _LONGEST_NAME:
            return []  # networks' names may be longer than a name's parts
        return [RR(owner, QTYPE.PTR, rdata=PTR(DNSLabel(parts)), ttl=_TTL_S)]
    found = names.addresses(question.name)
    if found is None:
        raise Ask
    made = []
    for address in found:  # a name that is there, but has no record of that kind, is answered by none
        if ":" in address and kind in (QTYPE.AAAA, QTYPE.ANY):
            made.append(RR(owner, QTYPE.AAAA, rdata=AAAA(address), ttl=_TTL_S))
        elif ":" not in address and kind in (QTYPE.A, QTYPE.ANY):
            made.append(RR(owner, QTYPE.A, rdata=A(address), ttl=_TTL_S))
    return made


def _reversed_address(labels: tuple[bytes, ...]) -> str:
    """The address that a reverse look-up is about (RFC 1035, 3596); some text that is none, if it is about none."""
    parts = [label.decode("ascii", "replace") for label in reversed(labels[:-2])]
    if labels[-2:] == _REVERSE:
        return ".".join(parts)
    digits = "".join(parts)
    try:
        return str(ipaddress.IPv6Address(bytes.fromhex(digits)))
    except ValueError:
        return digits
