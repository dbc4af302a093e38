"""Makes tests/data/engine-api.json: the shapes of Docker's OpenAPI file as JSON, without its prose.

Run by hand when the API version moves (needs PyYAML, which nothing else here does):
`python tests/support/strip_openapi.py engine-api-v1.55.yaml tests/data/engine-api.json`
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PROSE = {
    "description",
    "summary",
    "example",
    "examples",
    "externalDocs",
    "tags",
    "x-go-name",
    "x-go-package",
    "x-go-type",
}
PROSE |= {"x-omitempty", "x-displayName", "x-logo", "title"}
# Below these keys the next level holds names chosen by the API ("example" may be a property), not schema keywords.
NAMES_FOLLOW = {"properties", "definitions", "paths", "responses"}


def strip(node: Any, *, names: bool = False) -> Any:
    """The node without prose; `names` says that its keys are names rather than schema keywords."""
    if isinstance(node, dict):
        kept = {str(k): v for k, v in node.items() if names or k not in PROSE}
        return {k: strip(v, names=not names and k in NAMES_FOLLOW) for k, v in kept.items()}
    if isinstance(node, list):
        return [strip(item) for item in node]
    return node


def main() -> None:
    import yaml  # type: ignore[import-untyped]

    source, target = map(Path, sys.argv[1:3])
    spec = yaml.safe_load(source.read_text())
    kept = {"swagger": "2.0", "info": {"version": spec["info"]["version"]}}
    kept["definitions"] = strip(spec["definitions"], names=True)
    kept["paths"] = strip(spec["paths"], names=True)
    target.write_text(json.dumps(kept, separators=(",", ":"), sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
