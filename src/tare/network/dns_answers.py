"""A DNS message's answer, or the insight that somebody else has to be asked (RFC 1035). Pure.

It must never trust a message: whatever can't be parsed is answered by an error, or by nothing.
"""

from __future__ import annotations

import ipaddress
import struct

from dnslib import AAAA, PTR, QTYPE, RCODE, RR, A, DNSHeader, DNSLabel, DNSQuestion, DNSRecord

from tare.network.names import ContainerNames

_HEADER_BYTES = 12
_PLAIN_UDP_BYTES, _MOST_UDP_BYTES = 512, 4096
_TTL_S = 5  # short: a container that is restarted may have another address
_REVERSE, _REVERSE6 = (b"in-addr", b"arpa"), (b"ip6", b"arpa")
_OPT = 41
_MOST_ADDRESSES = 64


class Ask(Exception):
    """The question is for the resolvers outside."""


def answer(message: bytes, names: ContainerNames, *, stream: bool) -> bytes | None:
    """The answer to a query; None if it deserves none. Raises Ask if nobody here knows the name."""
    if len(message) < _HEADER_BYTES or message[2] & 0x80:
        return None  # no message, or itself an answer
    try:
        query = DNSRecord.parse(message)
        if query.header.opcode != 0:
            return refuse(message, RCODE.NOTIMP)
        if len(query.questions) != 1:
            return refuse(message, RCODE.FORMERR)
        question: DNSQuestion = query.questions[0]
        records = _records(question, names)
    except Ask:
        raise
    except Exception:  # a parser of foreign bytes: whatever it stumbles over is the sender's fault
        return refuse(message, RCODE.FORMERR)
    header = DNSHeader(id=query.header.id, qr=1, rd=query.header.rd, ra=1)
    reply = DNSRecord(header, q=question, rr=records)
    packed = bytes(reply.pack())
    limit = 65535 if stream else _udp_limit(query)
    if len(packed) <= limit:
        return packed
    header.tc = 1
    return bytes(DNSRecord(header, q=question).pack())


def question_name(message: bytes) -> str:
    """The name that is asked for, in lower case and without the last dot; "" if it can't be read."""
    try:
        name = b".".join(DNSRecord.parse(message).questions[0].qname.label)
    except Exception:
        return ""
    return name.decode("utf-8", "surrogateescape").lower()


def addresses_in(message: bytes) -> tuple[list[str], int]:
    """The addresses in an answer (of very many the first), and for how many seconds they hold."""
    try:
        records = [record for record in DNSRecord.parse(message).rr if record.rtype in (QTYPE.A, QTYPE.AAAA)]
        records = records[:_MOST_ADDRESSES]  # each costs elements in the packet filter: a stranger says how many
        return [str(record.rdata) for record in records], max((record.ttl for record in records), default=0)
    except Exception:
        return [], 0


def refuse(message: bytes, code: int) -> bytes:
    """An answer without content: the header and, if it can be read, the question again."""
    identifier, flags = struct.unpack_from(">HH", message)
    header = struct.pack(">HHHHHH", identifier, 0x8080 | (flags & 0x7900) | code, 0, 0, 0, 0)
    try:
        question = DNSRecord.parse(message).questions[0]
        return bytes(DNSRecord(DNSHeader(id=identifier, qr=1, rd=flags >> 8 & 1, ra=1, rcode=code), q=question).pack())
    except Exception:
        return header


def _records(question: DNSQuestion, names: ContainerNames) -> list[RR]:
    labels = tuple(label.lower() for label in question.qname.label)
    kind = question.qtype
    if labels[-2:] in (_REVERSE, _REVERSE6) and kind == QTYPE.PTR:
        name = names.name_of(_reversed_address(labels))
        if name is None:
            raise Ask
        return [RR(question.qname, QTYPE.PTR, rdata=PTR(DNSLabel(name)), ttl=_TTL_S)]
    found = names.addresses(b".".join(labels).decode("utf-8", "surrogateescape"))
    if found is None:
        raise Ask
    made = []
    for address in found:  # a name that is there, but has no record of that kind, is answered by none
        if ":" in address and kind in (QTYPE.AAAA, QTYPE.ANY):
            made.append(RR(question.qname, QTYPE.AAAA, rdata=AAAA(address), ttl=_TTL_S))
        elif ":" not in address and kind in (QTYPE.A, QTYPE.ANY):
            made.append(RR(question.qname, QTYPE.A, rdata=A(address), ttl=_TTL_S))
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


def _udp_limit(query: DNSRecord) -> int:
    """How large an answer the asker takes (RFC 6891)."""
    sizes = [record.rclass for record in query.ar if record.rtype == _OPT]
    return min(max(_PLAIN_UDP_BYTES, *sizes), _MOST_UDP_BYTES) if sizes else _PLAIN_UDP_BYTES
