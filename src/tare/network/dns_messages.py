"""The parts of a DNS message that the server of names needs (RFC 1035, 6891), read in one pass over its bytes. Pure.

It must never follow a compressed name further than to its end: messages come from containers and from strangers, and
names that point at each other make few bytes into much work for the whole engine.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from typing import NamedTuple

HEADER_BYTES = 12
_POINTER = 0xC0
_LONGEST_NAME = 255
_A, _CNAME, _AAAA, _OPT = 1, 5, 28, 41
_MOST_RECORDS = 4096  # 64 KiB hold some 5,000 of the shortest


class Question(NamedTuple):
    """What is asked. end: where it ends in the message."""

    labels: tuple[bytes, ...]
    kind: int
    of_class: int
    end: int

    @property
    def name(self) -> str:
        """In lower case and without the last dot. A dot within a label isn't one between two."""
        text = b".".join(label.lower().replace(b".", b"\\046") for label in self.labels)
        return text.decode("utf-8", "surrogateescape")


class Record(NamedTuple):
    """A resource record without its name."""

    kind: int
    of_class: int
    ttl: int
    data: bytes


def counts(message: bytes) -> tuple[int, int, int, int]:
    """How many questions, answers, authorities and additional records a message claims to have."""
    questions, answers, authorities, additional = struct.unpack_from(">4H", message, 4)
    return questions, answers, authorities, additional


def parse_question(message: bytes) -> Question:
    """The first question. Raises ValueError if it can't be read, or its name points elsewhere: nothing is before it."""
    labels, position, left = [], HEADER_BYTES, _LONGEST_NAME
    try:
        while length := message[position]:
            left -= length + 1
            if length & _POINTER or left < 1:
                raise ValueError("a name that is compressed or too long")
            labels.append(bytes(message[position + 1 : position + 1 + length]))
            position += 1 + length
        kind, of_class = struct.unpack_from(">HH", message, position + 1)
    except (IndexError, struct.error) as error:
        raise ValueError("a question that is cut off") from error
    return Question(tuple(labels), kind, of_class, position + 5)


def records(message: bytes, position: int, number: int) -> Iterator[Record]:
    """So many resource records from a position on. Raises ValueError where they can't be read."""
    try:
        for _ in range(min(number, _MOST_RECORDS)):
            position = _after_name(message, position)
            kind, of_class, ttl, size = struct.unpack_from(">HHIH", message, position)
            position += 10
            if position + size > len(message):
                raise ValueError("a record that is cut off")
            yield Record(kind, of_class, ttl, bytes(message[position : position + size]))
            position += size
    except (IndexError, struct.error) as error:
        raise ValueError("a record that is cut off") from error


def addresses_in(message: bytes, most: int) -> tuple[list[str], int]:
    """The addresses among an answer's records (of very many the first), and for how many seconds they hold.

    Of a chain of names (CNAME) that is as long as its weakest part.
    """
    found: list[str] = []
    shortest = 0xFFFF_FFFF
    try:
        answers = counts(message)[1]
        for record in records(message, parse_question(message).end, answers):
            is_address = (record.kind, len(record.data)) in ((_A, 4), (_AAAA, 16)) and len(found) < most
            if is_address:
                found.append(str(ipaddress.ip_address(record.data)))
            if is_address or record.kind == _CNAME:
                shortest = min(shortest, record.ttl)
    except (ValueError, struct.error):
        return [], 0
    return found, shortest if found else 0


def accepted_bytes(message: bytes, question: Question, least: int, most: int) -> int:
    """How large an answer over UDP the asker takes. Raises ValueError."""
    sizes = [
        record.of_class for record in records(message, question.end, sum(counts(message)[1:])) if record.kind == _OPT
    ]
    return min(max(least, *sizes), most) if sizes else least


def _after_name(message: bytes, position: int) -> int:
    while length := message[position]:
        if length & _POINTER:
            return position + 2
        position += 1 + length
    return position + 1
