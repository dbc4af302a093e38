"""Tables of requests and answers with `{name}` for what is known only once the engine has made it."""

from __future__ import annotations

from typing import Any


def fill(value: Any, stage: dict[str, str]) -> Any:
    """The value with placeholders replaced."""
    if isinstance(value, dict):
        return {key: fill(item, stage) for key, item in value.items()}
    if isinstance(value, str):
        for key, text in stage.items():
            value = value.replace("{" + key + "}", text)
    return value
