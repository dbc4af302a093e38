"""Image archives made by hand, as old and new Docker, BuildKit and others write them, for tests."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from typing import Any

Member = bytes | tarfile.TarInfo


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def link(target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


def archive(members: Mapping[str, Member] | Sequence[tuple[str, Member]]) -> bytes:
    """A tar of members: bytes are a file's content; a TarInfo is what it is, under the name given."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, member in members.items() if isinstance(members, Mapping) else members:
            info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            info.size = len(member) if isinstance(member, bytes) else 0
            tar.addfile(info, io.BytesIO(member) if isinstance(member, bytes) else None)
    return made.getvalue()


def layer(**files: str) -> bytes:
    """A layer's tar with these files."""
    return archive({name: text.encode() for name, text in files.items()})


def config(*layers: bytes, **more: Any) -> bytes:
    """An image's config over these layers."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{sha(one)}" for one in layers]},
        **more,
    }
    return json.dumps(document, indent=1).encode()  # not as Tare would write it: bytes must be kept


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{sha(data)}", "size": len(data), **more}


OCI = "application/vnd.oci.image."


def manifest(config_document: bytes, layers: Sequence[bytes], **more: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}manifest.v1+json",
        "config": descriptor(config_document, f"{OCI}config.v1+json"),
        "layers": [descriptor(one, f"{OCI}layer.v1.tar") for one in layers],
        **more,
    }
    return json.dumps(document, indent=2).encode()


def index(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"schemaVersion": 2, "manifests": list(entries)}).encode()


def named(manifest_document: bytes, name: str | None, **more: Any) -> dict[str, Any]:
    annotations = {"annotations": {"io.containerd.image.name": name}} if name else {}
    return descriptor(manifest_document, f"{OCI}manifest.v1+json", **annotations, **more)


def layout(entries: Sequence[dict[str, Any]], *blobs: bytes) -> dict[str, Member]:
    """The members of an OCI layout."""
    members: dict[str, Member] = {f"blobs/sha256/{sha(blob)}": blob for blob in blobs}
    return {**members, "index.json": index(*entries), "oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}


def docker_archive(*images: tuple[bytes, Sequence[str], Sequence[tuple[str, Member]]]) -> dict[str, Member]:
    """The members of an archive of Docker before 25: (config, tags, (id, layer or link) …) of each image."""
    members: dict[str, Member] = {}
    items = []
    for document, tags, layers in images:
        for identity, content in layers:
            members[f"{identity}/VERSION"] = b"1.0"
            members[f"{identity}/json"] = json.dumps({"id": identity}).encode()
            members[f"{identity}/layer.tar"] = content
        members[f"{sha(document)}.json"] = document
        names = [f"{identity}/layer.tar" for identity, _ in layers]
        items.append({"Config": f"{sha(document)}.json", "RepoTags": list(tags) or None, "Layers": names})
    return {**members, "manifest.json": json.dumps(items).encode()}
