# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the gateway listens for browsers, and by which names they may call it.

A page of another site can make a browser send requests here, and a hostile name server can make its own name lead here (DNS
rebinding). Both show in Host and Origin: only what stands in a Site is answered.
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from splitvisor.limits import CERTIFICATE_BYTES
from splitvisor.net.addresses import is_loopback, parse_host_port
from splitvisor.net.tls_files import load_chain
from splitvisor.process.inputs import read_input
from splitvisor.service.serve import SettingError


@dataclass(frozen=True)
class HttpAddress:
    """What `--listen-http` says: a TCP address or a unix socket."""

    host: str
    """An IP address; empty for a unix socket."""
    port: int
    path: str = ""

    @property
    def is_local(self) -> bool:
        """True: nobody else is on the way."""
        return not self.host or is_loopback(self.host)


@dataclass(frozen=True)
class Site:
    """How browsers call the gateway."""

    url: str
    """Without a slash at its end."""
    hosts: frozenset[str]
    """Values of Host, in lower case."""
    origins: frozenset[str]

    @property
    def secure(self) -> bool:
        """True: cookies may go over TLS only."""
        return self.url.startswith("https:")


def parse_address(text: str) -> HttpAddress:
    """Return the address that `unix:/path`, `IP:port` or `localhost:port` means. Raises SettingError."""
    if text.startswith("unix:/"):
        return HttpAddress("", 0, text.removeprefix("unix:"))
    host, port = parse_host_port(text) or ("", 0)
    if host == "localhost":
        host = "127.0.0.1"
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise SettingError(f"--listen-http {text}: not an address", "give IP:PORT, localhost:PORT or unix:/path") from None
    return HttpAddress(host, port)


def check_reach(address: HttpAddress, url: str, *, tls: bool) -> None:
    """Refuse plaintext that would leave the machine. Raises SettingError.

    Args:
        address: where to listen.
        url: how browsers reach it when something forwards to it; empty: nothing does.
        tls: whether the gateway speaks TLS itself.
    """
    if url:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/") or parts.query:
            raise SettingError(f"--url {url}: not the address of a site", "give http://HOST:PORT or https://HOST:PORT")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise SettingError(f"--url {url}: browsers would send tokens in plaintext", "give https://, or a loopback address")
    elif not (address.is_local or tls):
        remedy = "give --http-tls-cert and --http-tls-key, or --url when something in front of it is what browsers see"
        raise SettingError(f"--listen-http {address.host}:{address.port}: plaintext HTTP is for loopback only", remedy)


def make_site(address: HttpAddress, port: int, url: str, certificate_names: frozenset[str]) -> Site:
    """Return the names of a gateway that listens.

    Args:
        address: where.
        port: the TCP port that it got.
        url: see check_reach().
        certificate_names: host names in its certificate; empty: it speaks no TLS.
    """
    if url:
        own = url.rstrip("/").lower()
        return Site(own, frozenset({urlsplit(own).netloc}), frozenset({own}))
    scheme = "https" if certificate_names else "http"
    if not address.host:
        return Site("http://localhost", frozenset({"localhost"}), frozenset({"http://localhost"}))
    bracketed = f"[{address.host}]" if ":" in address.host else address.host
    names = {bracketed, *certificate_names}
    if address.is_local:
        names.add("localhost")
    usual = {"http": 80, "https": 443}[scheme]
    hosts = {f"{name}:{port}".lower() for name in names} | ({name.lower() for name in names} if port == usual else set())
    shown = min(certificate_names, default=bracketed)
    return Site(f"{scheme}://{shown}:{port}", frozenset(hosts), frozenset(f"{scheme}://{host}" for host in hosts))


class Certificate:
    """A certificate and its key in files; read again when they change, for connections to come.

    Raises SettingError when they cannot be used at the start.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        self._files = (certificate, key)
        self._version = self._stat()
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            self.names = _host_names(self._load())
        except (OSError, ValueError) as error:
            text = f"{certificate}, {key}: not a certificate with its key: {error}"
            raise SettingError(f"{text}", "give --http-tls-cert and --http-tls-key PEM files that belong together") from error
        if not self.names:
            raise SettingError(f"{certificate}: names no host", "give a certificate with the gateway's name in subjectAltName")

    def refresh(self) -> None:
        """Read the files again when they have changed. Raises OSError, and then goes on with what it has."""
        version = self._stat()
        if version != self._version:
            self._load()
            self._version = version

    def _load(self) -> bytes:
        """Take what the files have; return the certificate. Raises OSError and ValueError."""
        certificate, key = (read_input(path, CERTIFICATE_BYTES) for path in self._files)
        load_chain(self.context, certificate, key)
        return certificate

    def _stat(self) -> list[tuple[int, int]]:
        return [(status.st_ino, status.st_mtime_ns) for status in (file.stat() for file in self._files if file.exists())]


def _host_names(pem: bytes) -> frozenset[str]:
    """Return the names and addresses in a certificate's subjectAltName, as they stand in a URL."""
    from cryptography import x509  # slow to load, and most gateways do without

    certificate = x509.load_pem_x509_certificate(pem)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()
    addresses = (f"[{ip}]" if ":" in str(ip) else str(ip) for ip in names.get_values_for_type(x509.IPAddress))
    return frozenset(names.get_values_for_type(x509.DNSName)) | frozenset(addresses)
