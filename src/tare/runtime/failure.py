"""How a container or an exec'd process fails to start, told from the process that failed to the one that asked."""

from __future__ import annotations

import errno

import msgspec

from tare.errors import KernelError, TareError, system_text

EXIT_ENGINE = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NOT_FOUND = 127


class StartFailed(TareError):
    """The container's first process could not be started; nothing of it is left.

    `str()` is runc's text without "OCI runtime create failed:" in front and ": unknown" behind, such as
    `unable to start container process: exec: "foo": executable file not found in $PATH`. A user that isn't there is
    told without the first clause, as Docker does.
    exit_code: what `docker run` exits with: 127 for a missing command, 126 for one that can't be executed, else 125.
    """

    def __init__(self, message: str, exit_code: int = EXIT_ENGINE) -> None:
        self.exit_code = exit_code
        super().__init__(message)


class Failure(msgspec.Struct, frozen=True):
    """What goes through the channel."""

    step: str
    errno: int
    message: str
    exit_code: int = EXIT_ENGINE
    bare: bool = False


class CommandError(TareError):
    """The command itself is at fault: missing or not executable."""

    def __init__(self, message: str, errno: int) -> None:
        self.errno = errno
        self.exit_code = exit_code_of(errno)
        super().__init__(message)


def exit_code_of(number: int) -> int:
    """Docker's exit code for a failure of any step: it decides by what went wrong, not by where."""
    if number in (errno.ENOENT, errno.ELOOP):
        return EXIT_NOT_FOUND
    if number in (errno.EACCES, errno.ENOTDIR, errno.EISDIR, errno.ENOEXEC):
        return EXIT_NOT_EXECUTABLE
    return EXIT_ENGINE


class UserError(TareError):
    """The user or a group asked for isn't in the container's files."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Failure)


def sentence(error: BaseException) -> str:
    """An error as Go's programs print it: errno texts start in lower case there."""
    if isinstance(error, KernelError):
        where = f" {error.path}" if error.path else ""
        why = f"{error.context}: " if error.context else ""
        return f"{why}{error.call}{where}: {errno_text(error.errno)}"
    if isinstance(error, OSError) and error.errno:
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{errno_text(error.errno)}"
    return str(error) or type(error).__name__


def errno_text(number: int) -> str:
    """strerror(3) the way Go prints it."""
    text = system_text(number)
    return text[:1].lower() + text[1:]


def encode_failure(step: str, error: BaseException) -> bytes:
    """What the failing process sends."""
    number = getattr(error, "errno", None) or errno.EIO
    if isinstance(error, CommandError):
        failure = Failure("", error.errno, str(error), error.exit_code)
    elif isinstance(error, UserError):
        failure = Failure("", errno.EINVAL, str(error), bare=True)
    else:
        failure = Failure(step, number, sentence(error), exit_code_of(number))
    return b"failed" + _encoder.encode(failure)


def decode_failure(message: bytes, what: str = "unable to start container process") -> StartFailed:
    """The exception for what `encode_failure` made."""
    failure = _decoder.decode(message[len(b"failed") :])
    if failure.bare:
        return StartFailed(failure.message, failure.exit_code)
    step = f"{failure.step}: " if failure.step else ""
    return StartFailed(f"{what}: {step}{failure.message}", failure.exit_code)
