"""`import`: a tar of a root file system becomes an image of one layer."""

from __future__ import annotations

import os
from collections.abc import Sequence

from tare.errors import InvalidArgument
from tare.images.images import Images
from tare.images.instruction import apply_changes
from tare.images.records import Image, Platform
from tare.oci.image_spec import History, ImageConfig, ImageSpec, RootFS
from tare.storage.decompress import Readable
from tare.storage.full_disk import naming_the_disk
from tare.storage.limits import DEFAULT_LIMITS, Limits
from tare.values.reference import Reference
from tare.values.timestamps import format_instant, now_ns

# Machine names of uname(2) in Go's words, which image documents use (config.md, "architecture").
_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "riscv64": ("riscv64", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "loongarch64": ("loong64", ""),
}


def host_platform() -> Platform:
    """What this machine is."""
    machine = os.uname().machine
    architecture, variant = _ARCHITECTURES.get(machine, (machine, ""))
    return Platform(os="linux", architecture=architecture, variant=variant)


def parse_platform(text: str) -> Platform:
    """`linux`, `linux/arm64`, `linux/arm/v7`; what is left out is this machine's. Raises InvalidArgument."""
    host = host_platform()
    if not text:
        return host
    parts = text.lower().split("/")
    if len(parts) > 3 or not all(part and part.replace("_", "").replace("-", "").isalnum() for part in parts):
        raise InvalidArgument(f'"{text}": unknown operating system or architecture: invalid argument')
    if parts[0] != "linux":
        raise InvalidArgument(f'operating system "{parts[0]}" is not supported')
    if len(parts) == 1:
        return host
    architecture, variant = _ARCHITECTURES.get(parts[1], (parts[1], ""))
    return Platform(os=parts[0], architecture=architecture, variant=parts[2] if len(parts) > 2 else variant)


def import_image(
    images: Images,
    stream: Readable,
    *,
    reference: Reference | None = None,
    changes: Sequence[str] = (),
    message: str = "",
    platform: Platform | None = None,
    created_ns: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Image:
    """Reads the archive (plain or compressed) to its end and records the image. Changes are checked first.

    created_ns: what the image says of its age (now), so that the same input can give the same image.
    """
    config = apply_changes(ImageConfig(), changes)
    if reference is not None and reference.digest is not None:
        raise InvalidArgument("cannot import digest reference")
    wanted = platform or host_platform()
    with naming_the_disk(images.layers.root), images.layers.lease(what="import") as lease:
        layer = images.layers.add(stream, limits, lease=lease)
        created = format_instant(now_ns() if created_ns is None else created_ns)
        spec = ImageSpec(
            architecture=wanted.architecture,
            os=wanted.os,
            variant=wanted.variant,
            created=created,
            config=config,
            rootfs=RootFS(diff_ids=[layer.diff_id]),
            history=[History(created=created, comment=message or "Imported from -")],
        )
        return images.record(spec, why="import", reference=reference.with_default_tag() if reference else None)
