# SPDX-License-Identifier: GPL-2.0-or-later
"""This process's certificate: which files hold it, and what is in them now.

The environment says which files, so that child processes have the same: SPLITVISOR_TLS, a directory with cert.pem, key.pem and
ca.pem as `splitvisor certs issue` makes it, or SPLITVISOR_TLS_CERT, _KEY and _CA, which go before it one by one.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from splitvisor.limits import CERTIFICATE_BYTES
from splitvisor.net.addresses import AddressError, parse_address
from splitvisor.process.files import WrongFileError
from splitvisor.process.inputs import read_input

if TYPE_CHECKING:
    import ssl

    from splitvisor.access.identity import Identity

DIRECTORY_VARIABLE = "SPLITVISOR_TLS"
FILE_NAMES: Mapping[str, str] = {"cert": "cert.pem", "key": "key.pem", "ca": "ca.pem"}

Stamp = tuple[tuple[int, int, int], ...]
"""Tells one state of the files from another."""


class TlsError(AddressError):
    """TLS cannot be spoken; the message says why and what to do."""


@dataclass(frozen=True)
class Credentials:
    """A usable certificate, as PEM texts."""

    certificate: bytes
    key: bytes
    authority: bytes
    """Who signs what is trusted."""
    identity: Identity


@dataclass(frozen=True)
class TlsFiles:
    """Where a certificate is, and the authority that it and its peers' are from."""

    certificate: Path
    key: Path
    authority: Path

    def stamp(self) -> Stamp:
        """Return what changes when a file does; files that are not there count too."""
        return tuple(_stamp(path) for path in (self.certificate, self.key, self.authority))

    def load(self) -> Credentials:
        """Read and check the files. Raises TlsError when they cannot be used now, and in one line says why."""
        from splitvisor.access.certs import CertificateError, check_usable  # cryptography is slow to load

        certificate, key, authority = _read(self.certificate), _read(self.key), _read(self.authority)
        try:
            identity = check_usable(certificate, key, authority, self.certificate)
        except CertificateError as error:
            raise TlsError(error.problem.what, error.problem.remedy) from error
        return Credentials(certificate, key, authority, identity)


def load_chain(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Let a context present a certificate; both are PEM texts. Raises ssl.SSLError.

    What was read is what is used: the files may change between, and ssl reads files only.
    """
    descriptor = os.memfd_create("certificate")
    with open(descriptor, "wb") as file:
        file.write(certificate + b"\n" + key)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")


def check_address(text: str) -> str:
    """Return an address when it may be used: on this host, or beyond it when this process has a usable certificate.

    Raises AddressError for everything else: on the way, anybody could read and change guest memory.
    """
    if parse_address(text).tls:
        tls_files(text).load()
    return text


def variable(name: str) -> str:
    """Return the environment variable for one of FILE_NAMES."""
    return f"{DIRECTORY_VARIABLE}_{name.upper()}"


def tls_files(address: str) -> TlsFiles:
    """Return this process's files. Raises TlsError, which names the address that needs them, when there are none."""
    directory = os.environ.get(DIRECTORY_VARIABLE, "")
    named = {name: os.environ.get(variable(name), "") for name in FILE_NAMES}
    if not directory and not any(named.values()):
        raise TlsError(
            f"{address}: plaintext is for unix sockets and loopback only, TLS needs a certificate",
            "give --tls DIR (see `splitvisor certs`), unix:/path or a loopback address",
        )
    missing = [f"--tls-{name}" for name in FILE_NAMES if not named[name] and not directory]
    if missing:
        raise TlsError(f"{address}: TLS needs a certificate, its key and its authority", f"give {' and '.join(missing)} too")
    paths = {name: Path(named[name] or Path(directory, file)) for name, file in FILE_NAMES.items()}
    return TlsFiles(paths["cert"], paths["key"], paths["ca"])


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(path: Path) -> bytes:
    try:
        # A byte order mark is no part of a text, but gRPC, unlike the check of what is read here, finds no certificate after one.
        return read_input(path, CERTIFICATE_BYTES).removeprefix(codecs.BOM_UTF8)
    except WrongFileError as error:
        raise TlsError(f"{path}: {error.strerror}, so no certificate or key", "correct the path") from error
    except OSError as error:
        raise TlsError(f"{path}: {error.strerror}", "make a certificate with `splitvisor certs issue`") from error
