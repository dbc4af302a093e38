"""What the context commands share: reading --docker, the implicit default context, archives of contexts.

Never writes outside the client's own settings, whatever an archive names.
"""

from __future__ import annotations

import os

from tare.cli.command import CliError, Flag
from tare.client.contexts import TLS_NAMES, Context, ContextError, parse_document, read_context
from tare.client.endpoint import DEFAULT_CONTEXT, context_name
from tare.client.errors import BadHost
from tare.client.host import TlsFiles, parse_host

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tare.cli.session import Session

DEFAULT_ABOUT = "Current DOCKER_HOST based configuration"
ENDPOINT_ABOUT = (
    "The engine's endpoint: host=ADDRESS and, for TLS, ca=FILE, cert=FILE, key=FILE, skip-tls-verify=BOOL; or "
    "from=CONTEXT"
)
DOCKER = Flag("docker", "", "strings", ENDPOINT_ABOUT)
DESCRIPTION = Flag("description", "", "string", "What the context is for")
ENDPOINT_KEYS = ("from", "host", "ca", "cert", "key", "skip-tls-verify")
MAX_ARCHIVE_BYTES = 10 << 20
_TRUE = ("1", "t", "true")
_FALSE = ("0", "f", "false")
OVERRIDES = (
    'Warning: {0} environment variable overrides the active context. To use "{1}", either set the global --context '
    "flag, or unset {0} environment variable."
)


def current_name(session: Session) -> str:
    return context_name(session.host, session.context)


def overriding() -> str:
    """The environment's variable that makes contexts of no effect, or ""."""
    return next((name for name in ("TARE_HOST", "DOCKER_HOST") if os.environ.get(name)), "")


def default_context(session: Session) -> Context:
    """The context that flags and environment make up."""
    from tare.cli.session import choose_host

    host = choose_host(session.host, DEFAULT_CONTEXT if not session.host else None, session.tls)
    found = Context(DEFAULT_CONTEXT, host.text, DEFAULT_ABOUT, host.tls is not None and not host.tls.verify)
    if host.tls is not None:
        for name, path in zip(TLS_NAMES, (host.tls.ca, host.tls.cert, host.tls.key), strict=True):
            if path:
                found.tls[name] = read_file(path)
    return found


def find(session: Session, name: str) -> Context:
    return default_context(session) if name == DEFAULT_CONTEXT else read_context(name)


def read_file(path: str) -> bytes:
    try:
        with open(os.path.expanduser(path), "rb") as file:
            return file.read()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise CliError(f"unable to create docker endpoint config: open {path}: {reason}") from None


def set_endpoint(session: Session, context: Context, pairs: list[str]) -> None:
    """Takes over what --docker said."""
    given: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise CliError(f'invalid argument "{pair}" for "--docker" flag: {pair} must be formatted as key=value', 125)
        if key not in ENDPOINT_KEYS:
            raise CliError(f"unable to create docker endpoint config: unrecognized config key: {key}")
        given[key] = value
    if "from" in given:
        source = find(session, given["from"])
        context.host, context.skip_verify, context.tls = source.host, source.skip_verify, dict(source.tls)
        return
    if "host" not in given:
        raise CliError("unable to create docker endpoint config: docker endpoint configuration is required: host=…")
    try:
        context.host = parse_host(given["host"]).text
    except Exception as error:
        raise CliError(
            f"unable to create docker endpoint config: unable to apply docker endpoint options: {error}"
        ) from None
    context.skip_verify = _boolean(given.get("skip-tls-verify", "false"))
    context.tls = {f"{key}.pem": read_file(given[key]) for key in ("ca", "cert", "key") if given.get(key)}
    if context.tls:
        _check_files(given)


def _check_files(given: dict[str, str]) -> None:
    """What is no certificate, or no key of it, is found now rather than when it is used."""
    from tare.client.tls import make_context

    ca, cert, key = (os.path.expanduser(given.get(name, "")) for name in ("ca", "cert", "key"))
    try:
        make_context(TlsFiles(ca, cert, key, verify=bool(ca)))
    except BadHost as error:
        raise CliError(f"unable to create docker endpoint config: invalid docker endpoint options: {error}") from None


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise CliError(f'unable to create docker endpoint config: skip-tls-verify: parsing "{text}": invalid syntax')


def pack(context: Context) -> bytes:
    """A tar of meta.json and the TLS files, as Docker's command line writes it."""
    import io
    import tarfile

    from tare.client.jsontext import format_json

    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as archive:

        def add(name: str, data: bytes | None, mode: int) -> None:
            member = tarfile.TarInfo(name)
            member.mode = mode
            if data is None:
                member.type = tarfile.DIRTYPE
            else:
                member.size = len(data)
            archive.addfile(member, io.BytesIO(data or b""))

        add("meta.json", format_json(context.to_document()).encode(), 0o644)
        add("tls", None, 0o700)
        if context.tls:
            add("tls/docker", None, 0o700)
        for name, data in context.tls.items():
            add(f"tls/docker/{name}", data, 0o600)
    return output.getvalue()


def unpack(name: str, data: bytes) -> Context:
    """A context from a tar or zip; only the names that belong into one are looked at, and nothing is written."""
    if len(data) > MAX_ARCHIVE_BYTES:
        raise CliError("the archive is too large for a context")
    files = _unzip(data) if data[:4] == b"PK\x03\x04" else _untar(data)
    if "meta.json" not in files:
        raise CliError("unexpected context file: meta.json is missing")
    try:
        context = parse_document(files["meta.json"])
    except ValueError as error:
        raise ContextError(f"unexpected context file: {error}") from None
    context.name = name
    context.tls = {item: files[f"tls/docker/{item}"] for item in TLS_NAMES if f"tls/docker/{item}" in files}
    return context


WANTED = frozenset({"meta.json", *(f"tls/docker/{name}" for name in TLS_NAMES)})


def _untar(data: bytes) -> dict[str, bytes]:
    import io
    import tarfile

    found = {}
    data += bytes(-len(data) % 512 + 1024)  # Docker's client leaves the archive's end out
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                file = archive.extractfile(member) if member.name in WANTED and member.isreg() else None
                if file is not None:
                    found[member.name] = file.read(MAX_ARCHIVE_BYTES)
    except tarfile.TarError as error:
        raise CliError(f"not a context's archive: {error}") from None
    return found


def _unzip(data: bytes) -> dict[str, bytes]:
    import io
    import zipfile

    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist():
                if member.filename in WANTED and member.file_size <= MAX_ARCHIVE_BYTES:
                    with archive.open(member) as file:
                        found[member.filename] = file.read(MAX_ARCHIVE_BYTES)
    except zipfile.BadZipFile as error:
        raise CliError(f"not a context's archive: {error}") from None
    return found
