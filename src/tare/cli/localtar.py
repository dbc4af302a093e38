"""A tar stream as local files, for `cp`.

Must never write outside the directory it is given, nor through a link or file that is there: what a container sends is
its own choice, link tricks included. Files belong to whoever runs the command, as with Docker.
"""

from __future__ import annotations

import os
import stat
import tarfile

from tare.cli.command import CliError
from tare.cli.copying import renamed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_PIECE = 256 << 10
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class _Pieces:
    """An iterable of bytes as something to read from; `taken` counts them."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""
        self.taken = 0

    def read(self, size: int) -> bytes:
        while not self._rest:
            self._rest = next(self._pieces, b"")
            if not self._rest:
                return b""
            self.taken += len(self._rest)
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


def unpack(pieces: Iterable[bytes], directory: str, old: str, new: str) -> int:
    """Unpacks a tar stream into a local directory; returns how many bytes came. old, new: see `copying.renamed`."""
    source = _Pieces(pieces)
    root_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        unpacking = _Unpacking(root_fd, directory)
        with tarfile.open(fileobj=source, mode="r|", errorlevel=2) as archive:  # type: ignore[call-overload]
            for entry in archive:
                unpacking.add(archive, entry, renamed(entry.name, old, new), renamed(entry.linkname, old, new))
        unpacking.finish()
        while source.read(_PIECE):
            pass
    except tarfile.TarError as error:
        raise CliError(f"the engine's archive can't be read: {error}") from error
    finally:
        os.close(root_fd)
    return source.taken


class _Unpacking:
    def __init__(self, root_fd: int, directory: str) -> None:
        self._root_fd = root_fd
        self._directory = directory
        self._times: dict[str, tuple[int, int]] = {}  # directories' mode and time, set when all is in them

    def add(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, name: str, link: str) -> None:
        parts = _parts(name)
        if not parts:
            return  # the directory itself stays as it is
        parent_fd = self._open(parts[:-1])
        try:
            self._make(archive, entry, parent_fd, parts, link)
        finally:
            os.close(parent_fd)

    def finish(self) -> None:
        for path, (mode, mtime) in reversed(self._times.items()):
            parts = path.split("/")
            fd = self._open(parts)
            try:
                os.fchmod(fd, mode)
                os.utime(fd, (mtime, mtime))
            finally:
                os.close(fd)

    def _open(self, parts: list[str]) -> int:
        """A descriptor of a directory below, made where it is missing; no component may be a link."""
        fd = os.dup(self._root_fd)
        for part in parts:
            try:
                try:
                    below = os.open(part, _DIRECTORY, dir_fd=fd)
                except FileNotFoundError:
                    os.mkdir(part, 0o755, dir_fd=fd)
                    below = os.open(part, _DIRECTORY, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd

    def _make(
        self, archive: tarfile.TarFile, entry: tarfile.TarInfo, parent_fd: int, parts: list[str], link: str
    ) -> None:
        last = parts[-1]
        there = self._clear(parent_fd, parts, entry.isdir())
        if entry.isdir():
            if not there:
                os.mkdir(last, 0o700, dir_fd=parent_fd)
            self._times["/".join(parts)] = (entry.mode & 0o7777, int(entry.mtime))
            return
        if entry.issym():
            os.symlink(entry.linkname, last, dir_fd=parent_fd)
        elif entry.islnk():
            self._link(link, last, parent_fd)
            return
        elif entry.isreg():
            self._write(archive, entry, last, parent_fd)
            return
        elif entry.ischr() or entry.isblk():
            kind = stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
            os.mknod(last, kind | 0o600, os.makedev(entry.devmajor, entry.devminor), dir_fd=parent_fd)
        elif entry.isfifo():
            os.mkfifo(last, 0o600, dir_fd=parent_fd)
        else:
            return
        if not entry.issym():
            os.chmod(last, entry.mode & 0o7777, dir_fd=parent_fd)
        os.utime(last, (entry.mtime, entry.mtime), dir_fd=parent_fd, follow_symlinks=False)

    def _clear(self, parent_fd: int, parts: list[str], directory: bool) -> bool:
        """Removes what stands in an entry's way; whether a directory stays."""
        try:
            mode = os.lstat(parts[-1], dir_fd=parent_fd).st_mode
        except FileNotFoundError:
            return False
        place = os.path.join(self._directory, *parts)
        if directory and not stat.S_ISDIR(mode):
            raise CliError(f'cannot overwrite non-directory "{place}" with directory "{self._directory}"')
        if stat.S_ISDIR(mode):
            if not directory:
                raise CliError(f'cannot overwrite directory "{place}" with non-directory "{self._directory}"')
            return True
        os.unlink(parts[-1], dir_fd=parent_fd)
        return False

    def _link(self, target: str, last: str, parent_fd: int) -> None:
        parts = _parts(target)
        if not parts:
            raise CliError(f'invalid hardlink "{target}"')
        target_fd = self._open(parts[:-1])
        try:
            os.link(parts[-1], last, src_dir_fd=target_fd, dst_dir_fd=parent_fd, follow_symlinks=False)
        finally:
            os.close(target_fd)

    def _write(self, archive: tarfile.TarFile, entry: tarfile.TarInfo, last: str, parent_fd: int) -> None:
        content = archive.extractfile(entry)
        assert content is not None
        fd = os.open(last, _NEW_FILE, 0o600, dir_fd=parent_fd)
        with open(fd, "wb", buffering=0) as file:
            while piece := content.read(_PIECE):
                file.write(piece)
            os.fchmod(fd, entry.mode & 0o7777)
            os.utime(fd, (entry.mtime, entry.mtime))


def _parts(name: str) -> list[str]:
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise CliError(f'invalid tar header: "{name}" leads out of the directory')
    return parts
