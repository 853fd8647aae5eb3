# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutual TLS for frames: both ends have certificates of one authority, of services, for the VM whose frames they are.

New files are taken by the next handshake; connections that are there go on.
"""

from __future__ import annotations

import asyncio
import ssl

from splitvisor.net.addresses import Address
from splitvisor.net.tls_files import Credentials, TlsError, TlsFiles, load_chain, tls_files
from splitvisor.process.logging import get_logger

_PROTOCOL = "splitvisor-lan"
"""What TLS calls it (ALPN), so that no service of another kind is spoken to."""
_log = get_logger(__name__)


class WireTls:
    """What handshakes need.

    Args:
        address: is named when there is no certificate.
        vm: whose frames these are; a peer's certificate must be for it.

    Raises TlsError when this process has no usable certificate.
    """

    def __init__(self, address: Address, vm: str) -> None:
        self._vm = vm
        self._files: TlsFiles = tls_files(address.text)
        self._stamp = self._files.stamp()
        self._credentials = _load(self._files)

    def client(self) -> ssl.SSLContext:
        """Return what an end that connects needs."""
        return _context(self._newest(), ssl.Purpose.SERVER_AUTH)

    def server(self) -> ssl.SSLContext:
        """Return what an end that listens needs."""
        context = _context(self._newest(), ssl.Purpose.CLIENT_AUTH)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def check(self, transport: asyncio.Transport) -> None:
        """Raise ConnectionError unless the peer is a service that may have the VM's frames."""
        from cryptography import x509

        from splitvisor.access.certs import CertificateError, describe  # cryptography is slow to load

        tls = transport.get_extra_info("ssl_object")
        certificate = tls.getpeercert(binary_form=True) if tls is not None else None
        if certificate is None or tls.selected_alpn_protocol() != _PROTOCOL:
            raise ConnectionError("it is no end of a network of Splitvisor")
        try:
            identity = describe(x509.load_der_x509_certificate(certificate)).identity
        except (CertificateError, ValueError) as error:
            raise ConnectionError(f"its certificate cannot be read: {error}") from None
        if identity is None or not identity.role.serves:
            raise ConnectionError("its certificate is not a service's; issue one with --role backend")
        if not identity.covers(self._vm):
            raise ConnectionError(f"its certificate is not for VM {self._vm}; issue one with --vm {self._vm}")

    def _newest(self) -> Credentials:
        stamp = self._files.stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._credentials = _load(self._files)
            except TlsError as error:
                _log.warning("new certificate not loaded", reason=str(error))
        return self._credentials


def _load(files: TlsFiles) -> Credentials:
    loaded = files.load()
    if not loaded.identity.role.serves:
        raise TlsError(f"{files.certificate}: role {loaded.identity.role} is for clients", "a network needs cpu or backend")
    return loaded


def _context(credentials: Credentials, purpose: ssl.Purpose) -> ssl.SSLContext:
    context = ssl.create_default_context(purpose, cadata=credentials.authority.decode("ascii", "replace"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols([_PROTOCOL])
    load_chain(context, credentials.certificate, credentials.key)
    return context
