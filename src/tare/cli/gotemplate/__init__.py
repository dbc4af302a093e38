"""Go's text/template, the part that users of --format write: fields, pipelines, if, range, with, variables, functions.

Loaded only when a --format holds a template. `compile_template(text)` gives a Template; `template.render(data)` text.
"""

from __future__ import annotations

from tare.cli.gotemplate.errors import TemplateError
from tare.cli.gotemplate.evaluate import Template, compile_template
from tare.cli.gotemplate.values import GoMap, NilList, NilMap

__all__ = ["GoMap", "NilList", "NilMap", "Template", "TemplateError", "compile_template"]
