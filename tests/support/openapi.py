"""Checks an answer of the Engine API against Docker's OpenAPI file (tests/data/engine-api.json); never asks an engine.

Swagger 2 schemas become draft-4 JSON Schema with three readings of Docker's own:
`x-nullable` admits null; any array or object may be null (Go prints a nil slice or map so); an enum of strings
admits "" where the field is not required (Go prints an unset string so).
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any

import jsonschema

DATA = Path(__file__).parent.parent / "data" / "engine-api.json"
# What the file says less exactly than every Docker release behaves; each with its reason.
EXTRA_STATUS = {
    ("POST", "/containers/{id}/attach"): {409},  # attach to a paused or restarting container
    ("POST", "/containers/{id}/rename"): {400},  # a name that breaks the rules
    ("POST", "/containers/{id}/kill"): {400},  # an unknown signal
    ("POST", "/containers/{id}/update"): {400, 409},  # a value out of range; a container being removed
    ("POST", "/containers/{id}/stop"): {400},  # an unknown signal
    ("POST", "/containers/{id}/pause"): {409},
    ("POST", "/containers/{id}/unpause"): {409, 500},
    ("POST", "/containers/{id}/resize"): {400, 409},
    ("POST", "/containers/{id}/start"): {409},
    ("GET", "/containers/{id}/top"): {400, 409},
    ("GET", "/containers/{id}/logs"): {400},
    ("GET", "/containers/{id}/export"): {409},
    ("POST", "/containers/{id}/exec"): {400},
    ("POST", "/exec/{id}/start"): {101, 400, 500},
    ("POST", "/exec/{id}/resize"): {409},
    ("POST", "/containers/prune"): {400, 409},
    ("GET", "/images/json"): {400},
    ("POST", "/images/create"): {400},
    ("DELETE", "/images/{name}"): {400},
    ("POST", "/commit"): {400, 409},
    ("GET", "/images/{name}/json"): {400},
    ("POST", "/networks/create"): {409},  # the name is taken
    ("POST", "/volumes/create"): {400, 404, 409},  # no such driver; the name is another driver's
    ("GET", "/images/{name}/get"): {400, 404},  # no such image
    ("GET", "/images/get"): {400, 404},
    ("POST", "/images/load"): {400},  # no platform, no archive
}
# Pointers in Go, which a real dockerd prints as null where they aren't set, although the file doesn't say so.
NULLABLE = {"ExitCode", "MemorySwappiness", "OomKillDisable"}
ANYWHERE = {400, 501, 503}  # bad version prefix; what isn't supported; not now


class ResponseMismatch(AssertionError):
    """An answer that Docker's OpenAPI file doesn't allow."""


@functools.cache
def specification() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DATA.read_text())
    resources = loaded["definitions"]["Resources"]["properties"]
    resources["MemorySwappiness"]["minimum"] = -1  # what the official client sends for "as it is", and gets back
    exec_inspect = loaded["paths"]["/exec/{id}/json"]["get"]["responses"]["200"]["schema"]["properties"]
    exec_inspect["ExitCode"]["x-nullable"] = True  # a *int: null before the end, and clients count on it
    return loaded


@functools.cache
def _routes() -> list[tuple[re.Pattern[str], str]]:
    """Patterns of all paths, the literal ones before those with a variable; {name} may hold slashes."""
    made = []
    for path in sorted(specification()["paths"], key=lambda p: (p.count("{"), -len(p))):
        pattern = re.sub(r"\\\{name\\\}", "(.+)", re.escape(path))
        made.append((re.compile("^" + re.sub(r"\\\{\w+\\\}", "([^/]+)", pattern) + "$"), path))
    return made


def find_operation(method: str, path: str) -> tuple[str, dict[str, Any]] | None:
    """The path template and operation for a request path (version prefix and query are ignored)."""
    bare = re.sub(r"^/v\d+\.\d+(?=/)", "", path.split("?", 1)[0])
    for pattern, template in _routes():
        if pattern.match(bare) and method.lower() in specification()["paths"][template]:
            return template, specification()["paths"][template][method.lower()]
    return None


def _draft4(node: Any, *, required: bool = True) -> Any:
    if isinstance(node, list):
        return [_draft4(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = {"$ref": node["$ref"]}
        return {"anyOf": [target, {"type": "null"}]} if node.get("x-nullable") or not required else target
    made: dict[str, Any] = {}
    needed = set(node.get("required", ())) if isinstance(node.get("required"), list) else set()
    for key, value in node.items():
        if key == "properties":
            made[key] = {name: _property(name, sub, name in needed) for name, sub in value.items()}
        elif key in ("enum", "required", "type"):
            made[key] = value
        elif key in ("default", "readOnly", "discriminator") or key.startswith("x-"):
            continue
        else:
            made[key] = _draft4(value)
    kind = made.get("type")
    nullable = node.get("x-nullable") or kind in ("array", "object")
    if nullable and isinstance(kind, str):
        made["type"] = [kind, "null"]
    if "enum" in made and not required and kind == "string":
        made["enum"] = [*made["enum"], "", *([None] if nullable else [])]
    return made


def _property(name: str, schema: Any, needed: bool) -> Any:
    made = _draft4(schema, required=needed)
    return {"anyOf": [made, {"type": "null"}]} if name in NULLABLE and not needed else made


@functools.cache
def _definitions() -> dict[str, Any]:
    return {name: _draft4(schema) for name, schema in specification()["definitions"].items()}


@functools.cache
def _validator(template: str, method: str, status: str) -> jsonschema.Draft4Validator | None:
    answer = specification()["paths"][template][method]["responses"][status]
    if "schema" not in answer:
        return None
    schema = _draft4(answer["schema"])
    return jsonschema.Draft4Validator({"allOf": [schema], "definitions": _definitions()})


def mismatches(method: str, path: str, status: int, body: bytes | None, content_type: str = "") -> list[str]:
    """What is wrong with an answer, as sentences; empty where it is as the file says (or the path is unknown to it)."""
    found = find_operation(method, path)
    if found is None:
        return []
    template, operation = found
    responses = operation["responses"]
    where = f"{method} {path} → {status}"
    if str(status) not in responses:
        allowed = EXTRA_STATUS.get((method, template), set()) | ANYWHERE
        if status not in allowed:
            return [f"{where}: the file has only {', '.join(responses)}"]
    if status >= 400:
        return _error_mismatches(where, method, body)
    if str(status) not in responses or not body:
        return [f"{where}: a body where none may be"] if status in (204, 304) and body else []
    validator = _validator(template, method.lower(), str(status))
    if validator is None or (content_type and "json" not in content_type):
        return []
    return _body_mismatches(where, validator, body)


def _error_mismatches(where: str, method: str, body: bytes | None) -> list[str]:
    if method == "HEAD":
        return []
    try:
        error = json.loads(body or b"")
    except ValueError:
        return [f"{where}: the error is not JSON: {body!r}"]
    if not isinstance(error, dict) or not isinstance(error.get("message"), str) or not error["message"]:
        return [f"{where}: the error has no message: {body!r}"]
    return []


def _body_mismatches(where: str, validator: jsonschema.Draft4Validator, body: bytes) -> list[str]:
    try:
        documents = [json.loads(body)]
    except ValueError:
        try:
            documents = [json.loads(line) for line in body.splitlines() if line.strip()]
        except ValueError:
            return [f"{where}: not JSON: {body[:200]!r}"]
    found = []
    for document in documents:
        if document is None:
            found.append(f"{where}: null")
        for error in map(_deepest, validator.iter_errors(document)):
            found.append(f"{where}: {'/'.join(map(str, error.absolute_path)) or 'body'}: {error.message[:300]}")
    return found


def _deepest(error: jsonschema.ValidationError) -> jsonschema.ValidationError:
    """The cause inside an alternative (such as "this or null"), which names the field that is wrong."""
    while error.context:
        error = max(error.context, key=lambda cause: len(cause.absolute_path))
    return error


def check_response(method: str, path: str, status: int, body: bytes | None, content_type: str = "") -> None:
    """Raises ResponseMismatch unless the answer is one that Docker's OpenAPI file allows."""
    wrong = mismatches(method, path, status, body, content_type)
    if wrong:
        raise ResponseMismatch("\n".join(wrong))
