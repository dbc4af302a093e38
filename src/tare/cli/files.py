"""Archives between the engine and local files, pipes or standard streams. Never writes binary data to a terminal."""

from __future__ import annotations

import os
import sys

from tare.cli.command import CliError
from tare.client.duplex import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tare.client.engine import Response

PIECE_BYTES = 256 << 10
DEVICES_ALLOWED = ("/dev/null", "/dev/stdout")


def pieces_of(fd: int) -> Iterator[bytes]:
    """What can be read from `fd`, until its end."""
    while piece := os.read(fd, PIECE_BYTES):
        yield piece


def open_archive(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def check_output(path: str) -> None:
    """Refuse what can't become a file, before the engine is asked for anything."""
    parent = os.path.dirname(path) or "."
    if not os.path.isdir(parent):
        raise ValueError(f"invalid output path: stat {parent}: no such file or directory")
    if os.path.isdir(path):
        raise ValueError("cannot write to a directory")
    if os.path.exists(path) and not os.path.isfile(path) and path not in DEVICES_ALLOWED:
        raise ValueError(f'invalid output path: "{path}" must be a regular file')


def write_archive(path: str, failure: str, ask: Callable[[], Response]) -> None:
    """Write an answer's body to `path`, or to stdout if that is "" and no terminal."""
    if not path:
        if os.isatty(1):
            raise CliError("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        sys.stdout.flush()
        for piece in ask():
            write_all(1, piece)
        return
    try:
        check_output(path)
    except ValueError as error:
        raise CliError(f"{failure}: {error}") from None
    response = ask()
    if path in DEVICES_ALLOWED:
        _copy(response, os.open(path, os.O_WRONLY | os.O_CLOEXEC))
        return
    # Beside it first: a transfer that breaks off leaves no half archive under the name that was asked for.
    aside = f"{path}.tare-{os.getpid()}"
    try:
        _copy(response, os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.rename(aside, path)
    except BaseException:
        try:
            os.unlink(aside)
        except FileNotFoundError:
            pass
        raise


def _copy(response: Response, fd: int) -> None:
    try:
        for piece in response:
            write_all(fd, piece)
    finally:
        os.close(fd)
