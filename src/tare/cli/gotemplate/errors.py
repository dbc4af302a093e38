"""What a template can do wrong, in the words of Go's text/template."""

from __future__ import annotations


class TemplateError(Exception):
    """`parsing`: the text is no template; otherwise it failed while it ran."""

    def __init__(self, message: str, parsing: bool = False) -> None:
        self.message = message
        self.parsing = parsing
        super().__init__(message)


class FunctionError(Exception):
    """A function refused its arguments; the evaluator says where."""


class Break(Exception):
    """{{break}}"""


class Continue(Exception):
    """{{continue}}"""
