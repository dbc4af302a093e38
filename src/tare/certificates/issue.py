"""Makes an authority, an engine's certificate and clients' certificates, with the `cryptography` library.

Keys are P-256, never leave the directory, and only its owner can read them. Must never replace a file that exists: a
new authority would lock out whoever has the old one's certificates.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tare.errors import Conflict, InvalidArgument

AUTHORITY, AUTHORITY_KEY = "ca.pem", "ca-key.pem"
ENGINE, ENGINE_KEY = "server-cert.pem", "server-key.pem"
CLIENT, CLIENT_KEY = "cert.pem", "key.pem"  # as DOCKER_CERT_PATH wants them
FILES = (AUTHORITY, AUTHORITY_KEY, ENGINE, ENGINE_KEY, CLIENT, CLIENT_KEY)
CLOCK_SLACK = datetime.timedelta(minutes=10)  # machines whose clocks are a little behind
AUTHORITY_DAYS = 3650
MAX_DAYS = 36500


def issue_all(directory: Path, hosts: list[str], days: int) -> None:
    """Writes the six FILES. hosts: names and addresses by which clients reach the engine."""
    _check_days(days)
    names = [_general_name(host) for host in hosts]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    _refuse_present(directory, FILES)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _authority(authority_key, max(days, AUTHORITY_DAYS))
    engine_key, client_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    engine = _signed(hosts[0][:64], engine_key, authority, authority_key, days, ExtendedKeyUsageOID.SERVER_AUTH, names)
    client = _signed("client", client_key, authority, authority_key, days, ExtendedKeyUsageOID.CLIENT_AUTH, [])
    for name, data in (
        (AUTHORITY_KEY, _key_pem(authority_key)),
        (AUTHORITY, _pem(authority)),
        (ENGINE_KEY, _key_pem(engine_key)),
        (ENGINE, _pem(engine)),
        (CLIENT_KEY, _key_pem(client_key)),
        (CLIENT, _pem(client)),
    ):
        _write_new(directory / name, data)


def issue_client(directory: Path, name: str, days: int) -> Path:
    """One more client's certificate, signed by the authority in `directory`; returns its own directory there."""
    _check_days(days)
    if not name or name in (".", "..") or "/" in name or len(name) > 64:
        raise InvalidArgument(f"invalid client name {name!r}")
    try:
        key = serialization.load_pem_private_key((directory / AUTHORITY_KEY).read_bytes(), None)
        authority_pem = (directory / AUTHORITY).read_bytes()
        authority = x509.load_pem_x509_certificate(authority_pem)
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"there is no authority in {directory}: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidArgument(f"{directory / AUTHORITY_KEY} is not a key that tare made")
    own = directory / name
    _refuse_present(own, (AUTHORITY, CLIENT, CLIENT_KEY))
    own.mkdir(mode=0o700, exist_ok=True)
    client_key = ec.generate_private_key(ec.SECP256R1())
    client = _signed(name, client_key, authority, key, days, ExtendedKeyUsageOID.CLIENT_AUTH, [])
    for file_name, data in ((CLIENT_KEY, _key_pem(client_key)), (CLIENT, _pem(client)), (AUTHORITY, authority_pem)):
        _write_new(own / file_name, data)
    return own


def _check_days(days: int) -> None:
    if not 0 < days <= MAX_DAYS:
        raise InvalidArgument(f"invalid number of days: {days}")


def _refuse_present(directory: Path, names: tuple[str, ...]) -> None:
    present = [name for name in names if os.path.lexists(directory / name)]
    if present:
        raise Conflict(f"{directory} already has {', '.join(present)}: remove them first, or choose another directory")


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        pass
    labels = host.removesuffix(".").removeprefix("*.").split(".")
    allowed = all(label and label.isascii() and label.replace("-", "a").replace("_", "a").isalnum() for label in labels)
    if not allowed or len(host) > 253:
        raise InvalidArgument(f"invalid name of a machine: {host!r}")
    return x509.DNSName(host)


def _name(text: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tare"), x509.NameAttribute(NameOID.COMMON_NAME, text)]
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SLACK)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _authority(key: ec.EllipticCurvePrivateKey, days: int) -> x509.Certificate:
    name = _name("Tare authority")
    builder = _builder(name, name, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.add_extension(_usage(signs=True), critical=True).sign(key, hashes.SHA256())


def _signed(
    subject: str,
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    days: int,
    purpose: x509.ObjectIdentifier,
    names: list[x509.GeneralName],
) -> x509.Certificate:
    builder = _builder(_name(subject), authority.subject, key.public_key(), days)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(signs=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    issuer_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
    builder = builder.add_extension(issuer_key, critical=False)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(authority_key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_new(path: Path, data: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
