"""A registry's refusal as one of our errors, in Docker's words.

Must never hand on more of what the registry says than a line that a terminal shows.
"""

from __future__ import annotations

import msgspec

from tare.errors import Forbidden, TareError, Unavailable
from tare.registry.records import NotAllowed, NotThere, RegistryFailure
from tare.registry.transport import Answer

MAX_ERROR_BYTES = 64 << 10
MAX_WORDS = 500


class _Problem(msgspec.Struct, frozen=True, kw_only=True):
    code: str = ""
    message: str = ""


class _Problems(msgspec.Struct, frozen=True, kw_only=True):
    errors: list[_Problem] = []
    details: str = ""


def failure_of(answer: Answer) -> TareError:
    """What an answer that is no success means; the body is read and closed."""
    try:
        body = answer.document(MAX_ERROR_BYTES)
    except TareError:
        body = b""
    code, text = _words(body)
    status = answer.status
    if not text:
        text = f"unexpected status from {answer.url}: {status}"
        if status == 401:
            text = "unauthorized: authentication required"
    if status == 401:
        return NotAllowed(text, code or "UNAUTHORIZED")
    if status == 403:
        return NotAllowed(text, code or "DENIED") if code in ("", "DENIED", "UNAUTHORIZED") else Forbidden(text)
    if status == 404:
        return NotThere(text, code)
    if status == 429:
        return Unavailable(text if code else "toomanyrequests: too many requests to the registry")
    if status >= 500:
        return Unavailable(f"received unexpected HTTP status: {status} {text}")
    return RegistryFailure(text)


def _words(body: bytes) -> tuple[str, str]:
    """(the first code, all in one line) of a document by the distribution specification's "Error Codes"."""
    try:
        found = msgspec.json.decode(body, type=_Problems)
    except (msgspec.DecodeError, RecursionError):
        return "", ""
    lines = [
        f"{problem.code.lower().replace('_', ' ')}: {problem.message or problem.code.lower()}"
        for problem in found.errors[:5]
        if problem.code
    ]
    text = printable("\n".join(lines) or found.details)
    return (found.errors[0].code.upper() if found.errors else ""), text


def printable(text: str) -> str:
    """Foreign text without what moves a terminal's cursor, and not long."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)[:MAX_WORDS]
