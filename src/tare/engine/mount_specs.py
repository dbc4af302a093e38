"""What the user asks to be mounted: `-v`, `--mount`, `--volumes-from`, VOLUME, as wanted mounts. Pure.

Texts are Docker's, also where they speak of fields that the user didn't write.
"""

from __future__ import annotations

import posixpath
import re

import msgspec

from tare.engine.options import BindOptions, MountOptions, VolumeOptions
from tare.engine.records import MountPoint
from tare.errors import InvalidArgument, Unsupported
from tare.volumes.records import LOCAL_DRIVER

PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_ACCESS = ("ro", "rw")
_LABELS = ("z", "Z")
_CONSISTENCY = ("consistent", "cached", "delegated")
_KINDS = (_ACCESS, _LABELS, PROPAGATION, ("nocopy",), _CONSISTENCY)
TMPFS_OPTIONS = (("exec",), ("noexec",))  # what Docker since 27 takes beside size and mode
_DRIVE = re.compile(r"[a-zA-Z]:\\")


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A mount of a container that is being made. driver, options, labels: of the volume, if it must be made."""

    point: MountPoint
    driver: str = ""
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    inherited: bool = False


def parse_bind(text: str, volume_driver: str = "") -> Wanted:
    """A `-v`: `/srv/data:/data:ro`, `name:/data`, `/data`. Raises InvalidArgument."""
    parts = text.split(":")
    if len(parts) > 3 or any(not part for part in parts) or _DRIVE.match(text):
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    if len(parts) == 2 and _valid_modes(parts[1]) is not None:
        raise InvalidArgument(f"invalid volume specification: '{text}'")
    source, target = ("", parts[0]) if len(parts) == 1 else (parts[0], parts[1])
    mode = parts[2] if len(parts) == 3 else ""
    words = _valid_modes(mode) if mode else ()
    if words is None:
        raise InvalidArgument(f"invalid mode: {mode}")
    propagation = next((word for word in words if word in PROPAGATION), "")
    where = f"invalid volume specification: '{text}': "
    if source.startswith("/"):
        if "nocopy" in words:
            raise _wrong("bind", "field VolumeOptions must not be specified", where)
        return Wanted(
            point=MountPoint(
                type="bind",
                source=posixpath.normpath(source),
                destination=check_destination(target, "bind", where),
                mode=mode,
                rw="ro" not in words,
                propagation=propagation or "rprivate",
            )
        )
    if propagation:
        raise _wrong("volume", "field BindOptions must not be specified", where)
    if not source and "ro" in words:
        raise _wrong("volume", "must not set ReadOnly mode when using anonymous volumes", where)
    return Wanted(
        point=MountPoint(
            type="volume",
            source="",
            destination=check_destination(target, "volume", where),
            name=source,
            mode=mode or "z",
            rw="ro" not in words,
            anonymous=not source,
            no_copy="nocopy" in words,
        ),
        driver=volume_driver,
    )


def _valid_modes(text: str) -> tuple[str, ...] | None:
    """The words of a mode, at most one of each kind; None if it is no mode."""
    words = tuple(text.split(","))
    for kind in _KINDS:
        if sum(word in kind for word in words) > 1:
            return None
    return words if all(any(word in kind for kind in _KINDS) for word in words) else None


def parse_mount(mount: MountOptions) -> Wanted:
    """A `--mount`. Raises InvalidArgument, Unsupported."""
    kind = mount.type
    if kind == "cluster":
        raise Unsupported(f"mounts of type {kind} are not supported by Tare yet: {mount.source or mount.target}")
    if kind not in ("bind", "volume", "tmpfs", "image"):
        raise InvalidArgument(f'invalid mount config for type "{kind}": mount type unknown')
    if not mount.target:
        raise _wrong(kind, "field Target must not be empty")
    destination = check_destination(mount.target, kind)
    foreign = {
        "Bind": mount.bind_options,
        "Volume": mount.volume_options,
        "Image": mount.image_options,
        "Tmpfs": mount.tmpfs_options,
    }
    for name, given in foreign.items():
        if given is not None and name.lower() != kind:
            raise InvalidArgument(f'{name}Options must not be specified on mount type "{kind}"')
    if kind == "bind":
        return _bind(mount, destination, mount.bind_options or BindOptions())
    if kind == "volume":
        return _volume(mount, destination, mount.volume_options or VolumeOptions())
    if kind == "image":
        return _image(mount, destination)
    if mount.source:
        raise _wrong(kind, "field Source must not be specified")
    for option in (mount.tmpfs_options and mount.tmpfs_options.options) or ():
        if option not in TMPFS_OPTIONS:
            raise _wrong(kind, f"invalid option: {option[0] if option else ''}")
    return Wanted(point=MountPoint(type="tmpfs", source="", destination=destination, rw=not mount.read_only))


def _bind(mount: MountOptions, destination: str, options: BindOptions) -> Wanted:
    if not mount.source:
        raise _wrong("bind", "field Source must not be empty")
    if not mount.source.startswith("/"):
        raise _wrong("bind", f"invalid mount path: '{mount.source}' mount path must be absolute")
    if options.propagation and options.propagation not in PROPAGATION:
        raise _wrong("bind", f"invalid propagation mode: {options.propagation}")
    if options.read_only_force_recursive and (not mount.read_only or options.read_only_non_recursive):
        other = "ReadOnlyNonRecursive" if mount.read_only else "!ReadOnly"
        raise _wrong("bind", f"mount options conflict: {other} && BindOptions.ReadOnlyForceRecursive")
    return Wanted(
        point=MountPoint(
            type="bind",
            source=posixpath.normpath(mount.source),
            destination=destination,
            rw=not mount.read_only,
            propagation=options.propagation or "rprivate",
            non_recursive=options.non_recursive,
            read_only_non_recursive=options.read_only_non_recursive,
        )
    )


def _volume(mount: MountOptions, destination: str, options: VolumeOptions) -> Wanted:
    if not mount.source and mount.read_only:
        raise _wrong("volume", "must not set ReadOnly mode when using anonymous volumes")
    if options.subpath:
        if not mount.source:
            raise _wrong("volume", "must not set Subpath when using anonymous volumes")
        if options.subpath.startswith("/") or posixpath.normpath(options.subpath).split("/")[0] == "..":
            raise _wrong("volume", "subpath must be a relative path within the volume")
    driver, driver_options = _driver_config(options)
    return Wanted(
        point=MountPoint(
            type="volume",
            source="",
            destination=destination,
            name=mount.source,
            mode="z",
            rw=not mount.read_only,
            anonymous=not mount.source,
            no_copy=options.no_copy,
            subpath=posixpath.normpath(options.subpath) if options.subpath else "",
        ),
        driver=driver,
        options=driver_options,
        labels=options.labels,
    )


def _image(mount: MountOptions, destination: str) -> Wanted:
    """Read-only whatever is asked for, as Docker has it."""
    if not mount.source:
        raise _wrong("image", "field Source must not be empty")
    subpath = mount.image_options.subpath if mount.image_options else ""
    if subpath.startswith("/") or posixpath.normpath(subpath).split("/")[0] == ".." or "\0" in subpath:
        raise _wrong("image", "subpath must be a relative path within the image")
    clean = posixpath.normpath(subpath) if subpath else ""
    point = MountPoint(
        type="image",
        source="",
        destination=destination,
        name=mount.source,
        rw=False,
        subpath="" if clean == "." else clean,
    )
    return Wanted(point=point)


def _driver_config(options: VolumeOptions) -> tuple[str, dict[str, str] | None]:
    given = {key.lower(): value for key, value in (options.driver_config or {}).items()}
    driver, driver_options = given.get("name") or "", given.get("options") or {}
    if not isinstance(driver, str) or not isinstance(driver_options, dict):
        raise InvalidArgument('invalid mount config for type "volume": invalid DriverConfig')
    if not all(isinstance(value, str) for value in driver_options.values()):
        raise InvalidArgument('invalid mount config for type "volume": DriverConfig.Options must be strings')
    return driver, driver_options or None


def image_volume(target: str, volume_driver: str = "") -> Wanted:
    """A place of Config.Volumes: `-v /data` as clients send it, or an image's VOLUME."""
    destination = check_destination(target if target.startswith("/") else f"/{target}", "volume")
    point = MountPoint(type="volume", source="", destination=destination, anonymous=True)
    return Wanted(point=point, driver=volume_driver)


def parse_volumes_from(text: str) -> tuple[str, bool]:
    """A `--volumes-from`: the container, and whether its mounts stay writable. Raises InvalidArgument."""
    if not text:
        raise InvalidArgument("volumes-from specification cannot be an empty string")
    ref, colon, mode = text.partition(":")
    words = _valid_modes(mode) if colon else ()
    if words is None or any(word in PROPAGATION or word == "nocopy" for word in words):
        raise InvalidArgument(f"invalid mode: {mode}")
    return ref, "ro" not in words


def inherit(point: MountPoint, writable: bool) -> Wanted:
    """Another container's mount, in one that has its volumes."""
    return Wanted(
        point=msgspec.structs.replace(point, mode="", rw=point.rw and writable, no_copy=True),
        driver=LOCAL_DRIVER if point.type == "volume" else "",
        inherited=True,
    )


def check_destination(target: str, kind: str, where: str = "") -> str:
    """The place of a mount inside the container, cleaned. where: what stands before the sentence in an error."""
    if not target.startswith("/"):
        raise _wrong(kind, f"invalid mount path: '{target}' mount path must be absolute", where)
    clean = "/" + posixpath.normpath(target).lstrip("/")
    if clean == "/":
        raise _wrong(kind, "invalid specification: destination can't be '/'", where)
    if "\0" in clean:
        raise _wrong(kind, "invalid mount path: it holds a NUL byte", where)
    if clean == "/proc" or clean.startswith("/proc/"):
        # CVE-2019-19921, CVE-2019-16884: what lies on /proc could fake what the runtime reads and writes there
        raise InvalidArgument(f"invalid mount {clean}: it is inside /proc")
    return clean


def _wrong(kind: str, what: str, where: str = "") -> InvalidArgument:
    return InvalidArgument(f'{where}invalid mount config for type "{kind}": {what}')
