"""The runtime spec as records, held against the specification's own schema and examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tare.errors import InvalidArgument
from tare.oci import runtime_spec
from tare.oci.runtime_spec import Spec, format_spec, parse_spec

SCHEMA = Path(__file__).parent.parent / "data/oci-runtime"
GOOD = ("linux-netdevice", "linux-rdma", "minimal", "minimal-for-start")


def resolve(node: dict[str, Any], document: Path) -> tuple[dict[str, Any], Path]:
    """Follows a $ref."""
    while "$ref" in node:
        file, _, pointer = node["$ref"].partition("#")
        document = document.parent / file if file else document
        node = json.loads(document.read_text())
        for part in pointer.strip("/").split("/"):
            node = node[part]
    return node, document


def keys_of(record: type) -> dict[str, Any]:
    """JSON key → type of a record's fields."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(record)}


def records_in(kind: Any) -> list[type]:
    """The records that a field's type mentions."""
    arguments = getattr(kind, "__args__", ())
    found = [kind] if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else []
    return found + [record for argument in arguments for record in records_in(argument)]


def compare(record: type, node: dict[str, Any], document: Path, path: str, problems: list[str]) -> None:
    """Notes each key that the schema has and the record lacks, or the other way round."""
    node, document = resolve(node, document)
    if "items" in node:
        compare(record, node["items"], document, path + "[]", problems)
        return
    for alternative in node.get("anyOf", []):
        compare(record, alternative, document, path, problems)
        return
    if "additionalProperties" in node and isinstance(node["additionalProperties"], dict):
        compare(record, node["additionalProperties"], document, path + "{}", problems)
        return
    properties = dict(node.get("properties", {}))
    for part in node.get("allOf", []):
        properties |= resolve(part, document)[0].get("properties", {})
    keys = keys_of(record)
    ours, theirs = set(keys), set(properties) - {"solaris", "windows", "vm", "zos", "freebsd", "commandLine"}
    if "allOf" not in node:
        problems += [f"{path}.{key} is not in the schema" for key in ours - theirs]
    problems += [f"{path}.{key} is missing" for key in theirs - ours]
    for key in ours & theirs:
        for child in records_in(keys[key]):
            compare(child, properties[key], document, f"{path}.{key}", problems)


def test_every_field_of_the_schema_is_there_by_its_name() -> None:
    """And no other (blockIO weights, by `allOf`, are compared one way)."""
    document = SCHEMA / "config-schema.json"
    problems: list[str] = []
    compare(Spec, json.loads(document.read_text()), document, "spec", problems)
    assert problems == []


@pytest.mark.parametrize("name", GOOD)
def test_the_specifications_examples_survive_a_round_trip(name: str) -> None:
    """What is parsed is printed again (other than empty values)."""
    text = (SCHEMA / f"test/config/good/{name}.json").read_bytes()
    spec = parse_spec(text)
    assert parse_spec(format_spec(spec)) == spec


@pytest.mark.parametrize("name", ["linux-netdevice", "linux-rdma", "invalid-json"])
def test_bad_examples_are_refused_with_the_place(name: str) -> None:
    """The error names the field."""
    with pytest.raises(InvalidArgument, match=r"invalid OCI runtime spec: .*(\$\.|byte)"):
        parse_spec((SCHEMA / f"test/config/bad/{name}.json").read_bytes())


def test_unknown_fields_are_ignored_and_other_versions_refused() -> None:
    """The specification's "extensibility"."""
    assert parse_spec(b'{"ociVersion":"1.9.0","future":{"x":1}}') == Spec("1.9.0")
    with pytest.raises(InvalidArgument, match="unsupported OCI runtime spec version"):
        parse_spec(b'{"ociVersion":"2.0.0"}')


def test_records_are_immutable() -> None:
    """So that a spec can be shared."""
    for record in vars(runtime_spec).values():
        if isinstance(record, type) and issubclass(record, msgspec.Struct):
            assert record.__struct_config__.frozen, record
