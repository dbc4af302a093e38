"""The smallest real image: a static busybox with its applets as links, as a tree or as a tar."""

from __future__ import annotations

import functools
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

BUSYBOX = Path("/bin/busybox")
DIRECTORIES = (
    "bin",
    "dev",
    "etc",
    "home",
    "lib",
    "proc",
    "root",
    "sbin",
    "sys",
    "tmp",
    "usr/bin",
    "usr/sbin",
    "var/run",
)
PASSWD = (
    "root:x:0:0:root:/root:/bin/sh\n"
    "daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
    "web:x:101:102:web:/home:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/home:/bin/false\n"
)
GROUP = "root:x:0:\ndaemon:x:1:\nweb:x:102:\ndisk:x:6:web\naudio:x:29:web\nnogroup:x:65534:\n"
Extra = Mapping[str, bytes | str | tarfile.TarInfo | None]


@functools.cache
def applets() -> tuple[str, ...]:
    """Names of all applets that this busybox has."""
    listed = subprocess.run([str(BUSYBOX), "--list"], capture_output=True, text=True, check=True).stdout
    return tuple(name for name in listed.split() if name != "busybox")


def busybox_rootfs(path: Path) -> Path:
    """Lays a busybox root file system out below `path` (made if absent) and returns it."""
    for directory in DIRECTORIES:
        (path / directory).mkdir(parents=True, exist_ok=True)
    (path / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, path / "bin/busybox")
    (path / "bin/busybox").chmod(0o755)
    for name in applets():
        (path / "bin" / name).symlink_to("/bin/busybox")
    (path / "etc/passwd").write_text(PASSWD)
    (path / "etc/group").write_text(GROUP)
    os.chmod(path, 0o755)
    return path


def _add(
    tar: tarfile.TarFile, name: str, *, data: bytes = b"", mode: int = 0o644, kind: bytes = tarfile.REGTYPE
) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, entry.type, entry.size, entry.mtime = mode, kind, len(data), 1_600_000_000
    tar.addfile(entry, io.BytesIO(data) if kind == tarfile.REGTYPE else None)


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode, entry.mtime = tarfile.SYMTYPE, target, 0o777, 1_600_000_000
    tar.addfile(entry)


def busybox_tar(extra: Extra | None = None) -> bytes:
    """The image as an uncompressed tar.

    extra: entries by name that replace or add to the usual ones: bytes are a file's content, a str is a symbolic
    link's target, a TarInfo an entry without content, None leaves the usual entry (and what is below it) out.
    """
    extra = extra or {}
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for directory in DIRECTORIES:
            if not _replaced(directory, extra):
                _add(tar, directory, mode=0o1777 if directory == "tmp" else 0o755, kind=tarfile.DIRTYPE)
        if not _replaced("bin/busybox", extra):
            _add(tar, "bin/busybox", data=BUSYBOX.read_bytes(), mode=0o755)
        for name in applets():
            if not _replaced(f"bin/{name}", extra):
                _link(tar, f"bin/{name}", "/bin/busybox")
        for name, text in (("etc/passwd", PASSWD), ("etc/group", GROUP)):
            if not _replaced(name, extra):
                _add(tar, name, data=text.encode())
        for name, value in extra.items():
            if isinstance(value, bytes):
                _add(tar, name, data=value, mode=0o755)
            elif isinstance(value, str):
                _link(tar, name, value)
            elif value is not None:
                tar.addfile(value)
    return made.getvalue()


def _replaced(name: str, extra: Extra) -> bool:
    return any(name == other or name.startswith(other + "/") for other in extra)
