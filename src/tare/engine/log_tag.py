"""The log option `tag`: a template with the fields that Docker documents for it. Pure."""

from __future__ import annotations

import re

from tare.engine.records import Container
from tare.errors import InvalidArgument
from tare.values.ids import short_id

_FIELD = re.compile(r"\{\{\s*\.?([A-Za-z]*)\s*\}\}")


def expand_tag(template: str, container: Container) -> str:
    """The tag. Raises InvalidArgument for a field that there isn't."""
    command = " ".join((container.path, *container.args))
    fields = {
        "ID": short_id(container.id),
        "FullID": container.id,
        "Name": container.name,
        "ImageID": short_id(container.image_id),
        "ImageFullID": container.image_id,
        "ImageName": container.config.image,
        "Command": command,
        "DaemonName": "tare",
    }

    def value(found: re.Match[str]) -> str:
        if found[1] not in fields:
            raise InvalidArgument(f"failed to parse log tag {template!r}: no field {found[1]!r}")
        return fields[found[1]]

    return _FIELD.sub(value, template)
