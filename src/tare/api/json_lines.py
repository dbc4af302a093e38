"""What a verb tells while it works, a JSON document a line, and how it failed as the last of them.

Must never raise for what is told: an answer that ends in the middle says nothing of why.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tare.api.errors import text_of


def line(message: dict[str, Any]) -> bytes:
    """As Docker ends its lines. Names that aren't UTF-8 get question marks."""
    try:
        return msgspec.json.encode(message) + b"\r\n"
    except UnicodeEncodeError:
        return msgspec.json.encode(_printable(message)) + b"\r\n"


def error_line(error: BaseException, doing: str) -> bytes:
    """The line that says why nothing more comes, whatever the error; ours to worry about are logged."""
    text = text_of(error, doing)
    return line({"errorDetail": {"message": text}, "error": text})


def _printable(found: Any) -> Any:
    if isinstance(found, str):
        return found.encode("utf-8", "replace").decode()
    if isinstance(found, dict):
        return {_printable(key): _printable(value) for key, value in found.items()}
    return [_printable(one) for one in found] if isinstance(found, list) else found
