# SPDX-License-Identifier: GPL-2.0-or-later
"""A certificate authority for Splitvisor's services and their clients, in a directory: EC keys on P-256, signed with SHA-256.

DIR/ca.pem DIR/ca-key.pem         the authority; who has the key can be anybody
DIR/NAME/ca.pem cert.pem key.pem  what the holder of a certificate needs, and all of it
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from splitvisor.access.identity import SCHEME, Identity, IdentityError, parse_identity
from splitvisor.errors.problem import ProblemError
from splitvisor.limits import CERTIFICATE_BYTES
from splitvisor.process.inputs import read_input
from splitvisor.process.outputs import PRIVATE, Content, Output

CA_CERTIFICATE, CA_KEY = "ca.pem", "ca-key.pem"
CERTIFICATE, KEY = "cert.pem", "key.pem"
CA_DAYS = 3650
ISSUE_DAYS = 365
MAX_DAYS = 3650
CLOCK_SKEW = datetime.timedelta(minutes=5)
"""A certificate is not valid before a little before now: not all clocks agree."""

_PEM = Content("a certificate or a key", lambda file: b"\0" not in file.read(CERTIFICATE_BYTES))
"""Any text: a damaged one is there to be replaced."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")


class CertificateError(ProblemError):
    """A certificate cannot be made, read or used; the message says which, why, and what to do."""


@dataclass(frozen=True)
class Description:
    """What a certificate says."""

    name: str
    identity: Identity | None
    """None: the certificate has none, so no service lets its holder do anything."""
    hosts: Sequence[str]
    """Where a server that has it may be found."""
    is_authority: bool
    serial: int
    not_before: datetime.datetime
    not_after: datetime.datetime
    fingerprint: str
    """SHA-256, hexadecimal."""


def make_authority(directory: Path, name: str, days: int = CA_DAYS) -> None:
    """Make an authority in a directory, which is made too and closed to others. Raises CertificateError and OSError."""
    _check_days(days)
    if (directory / CA_KEY).exists() or (directory / CA_CERTIFICATE).exists():
        raise CertificateError(f"{directory} has an authority already", "choose another directory, or issue from it")
    _private_directory(directory)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        _builder(subject, subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(directory / CA_KEY, _key_pem(key))
    _write(directory / CA_CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM))


def issue(
    authority: Path, name: str, identity: Identity, *, hosts: Sequence[str] = (), days: int = ISSUE_DAYS, directory: Path
) -> Description:
    """Make a key and a certificate, and put them with the authority's certificate into a directory.

    Files that are there are replaced, the key last: who reads between sees a pair that does not fit, and reads again.

    Args:
        authority: the authority's directory.
        name: of the holder, for people: 1 to 63 characters of A-Z, a-z, 0-9, '.', '_' and '-'.
        identity: what the holder may do.
        hosts: host names and IP addresses where the holder is found; services only.
        days: how long it holds.
        directory: made when it is not there, closed to others.

    Raises CertificateError and OSError.
    """
    _check_days(days)
    if not _NAME.fullmatch(name):
        raise CertificateError(f"name {name!r}: give 1 to 63 characters of A-Z, a-z, 0-9, '.', '_' and '-'")
    if hosts and not identity.role.serves:
        raise CertificateError(f"role {identity.role} is for clients, so its certificate has no hosts", "leave out --host")
    ca_pem = _read(authority / CA_CERTIFICATE)
    ca, ca_key = parse_certificate(ca_pem, authority / CA_CERTIFICATE), _parse_key(_read(authority / CA_KEY), authority / CA_KEY)
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        remedy = "make an authority with `splitvisor certs init`"
        raise CertificateError(f"{authority / CA_KEY}: not an elliptic curve key", remedy)
    if ca.public_key() != ca_key.public_key():
        raise CertificateError(f"{authority}: {CA_KEY} is not the key of {CA_CERTIFICATE}", "restore the one that belongs to it")
    key = ec.generate_private_key(ec.SECP256R1())
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if identity.role.serves:
        purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False, key_agreement=False,
        key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity.uri()), *(_host(host) for host in hosts)]
    certificate = (
        _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), ca.subject, key.public_key(), days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    _private_directory(directory)
    _write(directory / CA_CERTIFICATE, ca_pem)
    _write(directory / CERTIFICATE, certificate.public_bytes(serialization.Encoding.PEM))
    _write(directory / KEY, _key_pem(key))
    return describe(certificate)


def parse_certificate(pem: bytes, source: object) -> x509.Certificate:
    """Return the first certificate of a PEM text. Raises CertificateError."""
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise CertificateError(f"{source}: not a certificate in PEM form") from error


def describe(certificate: x509.Certificate) -> Description:
    """Return what a certificate says. Raises CertificateError when its names cannot be read."""
    try:
        extensions = certificate.extensions
    except ValueError as error:
        raise CertificateError(f"a certificate's extensions cannot be read: {error}") from error
    uris: Sequence[str] = ()
    hosts: Sequence[str] = ()
    is_authority = False
    with suppress(x509.ExtensionNotFound):
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        hosts = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    with suppress(x509.ExtensionNotFound):
        is_authority = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Description(
        name=str(common[0].value) if common else "",
        identity=_identity(uris),
        hosts=hosts,
        is_authority=is_authority,
        serial=certificate.serial_number,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
    )


def check_usable(certificate: bytes, key: bytes, authority: bytes, source: object) -> Identity:
    """Return who a certificate makes its holder, when it can be used now.

    Args:
        certificate: PEM text, with the intermediate authorities when there are any.
        key, authority: PEM texts; of authorities there may be several, while one takes over from another.
        source: where they are from, for messages.

    Raises CertificateError: not readable, not a pair, from another authority, expired, not yet valid, or without an identity.
    """
    parsed, *chain = _parse_all(certificate, source)
    private, authorities = _parse_key(key, source), _parse_all(authority, f"{source}: {CA_CERTIFICATE} beside it")
    if parsed.public_key() != private.public_key():
        raise CertificateError(f"{source}: the key is not the certificate's", "put the two of one `splitvisor certs issue` there")
    found = describe(parsed)
    now = datetime.datetime.now(datetime.UTC)
    if now > found.not_after:
        raise CertificateError(f"{source}: the certificate expired on {_day(found.not_after)}", "issue a new one")
    if now < found.not_before:
        raise CertificateError(
            f"{source}: the certificate is not valid before {_day(found.not_before)}", "check this host's clock"
        )
    ca = next((each for each in (*authorities, *chain) if _signed(parsed, each)), None)
    if ca is None:
        raise CertificateError(f"{source}: the certificate is not from the authority in {CA_CERTIFICATE} beside it")
    if now > ca.not_valid_after_utc:
        raise CertificateError(f"{source}: the authority expired on {_day(ca.not_valid_after_utc)}", "make a new one")
    if found.identity is None:
        raise CertificateError(f"{source}: the certificate has no role", "issue one with `splitvisor certs issue`")
    return found.identity


def _parse_all(pem: bytes, source: object) -> Sequence[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CertificateError(f"{source}: not a certificate in PEM form") from error


def _parse_key(pem: bytes, source: object) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateError(f"{source}: the key is not one in PEM form without a passphrase") from error


def _signed(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _day(time: datetime.datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC")


def _identity(uris: Sequence[str]) -> Identity | None:
    """Return the identity in the one URI of ours; None if it is missing, invalid, or one of several."""
    ours = [uri for uri in uris if uri.startswith(SCHEME)]
    if len(ours) != 1:
        return None
    try:
        return parse_identity(ours[0])
    except IdentityError:
        return None


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _check_days(days: int) -> None:
    if not 1 <= days <= MAX_DAYS:
        raise CertificateError(f"{days} days: give 1 to {MAX_DAYS}")


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if len(host) > 253 or not _HOST.fullmatch(host):
        raise CertificateError(f"host {host!r}: neither a host name nor an IP address")
    return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _private_directory(path: Path) -> None:
    """Make a directory for this user only. One that is there is left as it is when others cannot enter it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.stat()
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise CertificateError(f"{path} is open to other users", "chmod 700 it, or choose another")


def _read(path: Path) -> bytes:
    try:
        return read_input(path, CERTIFICATE_BYTES)
    except OSError as error:
        raise CertificateError(f"{path}: {error.strerror}", "make an authority with `splitvisor certs init DIR`") from error


def _write(path: Path, data: bytes) -> None:
    """Write a file for this user only, or replace one of its kind."""
    Output(path, _PEM, PRIVATE).write(data)
