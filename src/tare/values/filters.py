"""The `filters` argument of list, prune and event verbs: a mapping from a name to the values that may match. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tare.errors import InvalidArgument

Filters = Mapping[str, tuple[str, ...]]


def check_filters(filters: Filters, accepted: Iterable[str]) -> None:
    """Raises InvalidArgument, with Docker's text, if a filter isn't one of the accepted."""
    known = frozenset(accepted)
    for name in filters:
        if name not in known:
            raise InvalidArgument(f"invalid filter '{name}'")


def flag(filters: Filters, name: str, default: bool) -> bool:
    """A filter that is true or false. Raises InvalidArgument for any other value, or for both at once."""
    values = set(filters.get(name, ()))
    if not values:
        return default
    if values <= {"1", "true", "True", "TRUE", "t", "T"}:
        return True
    if values <= {"0", "false", "False", "FALSE", "f", "F"}:
        return False
    raise InvalidArgument(f"invalid filter '{name}=[{' '.join(sorted(values))}]'")


def match_labels(filters: Filters, labels: Mapping[str, str], name: str = "label") -> bool:
    """Whether labels satisfy every `label` filter (`key` or `key=value`)."""
    return all(_has_label(labels, wanted) for wanted in filters.get(name, ()))


def match_no_labels(filters: Filters, labels: Mapping[str, str]) -> bool:
    """Whether labels satisfy none of the `label!` filters."""
    return not any(_has_label(labels, unwanted) for unwanted in filters.get("label!", ()))


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
