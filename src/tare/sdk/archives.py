"""Tar archives for files into and out of containers. Never writes outside the directory it is given."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import time
from pathlib import Path
from typing import IO

from tare.sdk.errors import UnsafeArchive

SPOOL_BYTES = 8 << 20  # an archive larger than this goes through a temporary file


def pack_file(name: str, data: bytes, mode: int, owner: tuple[int, int]) -> bytes:
    """An archive of one file."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = len(data), mode, int(time.time())
        member.uid, member.gid = owner
        archive.addfile(member, io.BytesIO(data))
    return output.getvalue()


def pack_path(path: Path, name: str) -> IO[bytes]:
    """An archive of a file or directory of this machine, as `name`; the caller closes it."""
    spool: IO[bytes] = tempfile.SpooledTemporaryFile(SPOOL_BYTES)  # noqa: SIM115 - handed out
    with tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(path, name)
    spool.seek(0)
    return spool


def new_spool() -> IO[bytes]:
    """Where an archive that arrives is kept; the caller closes it."""
    return tempfile.SpooledTemporaryFile(SPOOL_BYTES)


def read_only_file(spool: IO[bytes]) -> bytes:
    """The contents of the one file that an archive holds. IsADirectoryError if it is none."""
    spool.seek(0)
    with tarfile.open(fileobj=spool, mode="r|") as archive:
        member = archive.next()
        file = archive.extractfile(member) if member is not None and member.isreg() else None
        if member is None or file is None:
            raise IsADirectoryError(f"{member.name if member else 'that'} is not a regular file")
        return file.read()


def unpack(spool: IO[bytes], directory: Path) -> list[Path]:
    """Unpacks below `directory`; returns what is at the top. Foreign names, links and modes are checked (PEP 706)."""
    spool.seek(0)
    tops: dict[str, None] = {}
    with tarfile.open(fileobj=spool, mode="r|") as archive:
        for member in archive:
            tops[member.name.strip("/").partition("/")[0]] = None
            try:
                archive.extract(member, directory, filter="data")
            except tarfile.FilterError as error:
                raise UnsafeArchive(f"refused to unpack what the container sent: {error}") from error
    return [directory / top for top in tops]


def split_target(path: str) -> tuple[str, str]:
    """("/etc", "motd"), of "/etc/motd". ValueError for what names no file."""
    folder, name = os.path.split(path)
    if not path.startswith("/") or not name or name in (".", ".."):
        raise ValueError(f"not the absolute path of a file in a container: {path!r}")
    return folder, name
