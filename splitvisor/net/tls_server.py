# SPDX-License-Identifier: GPL-2.0-or-later
"""A server's side of mutual TLS: who connects must have a certificate of the same authority. New files are taken by the next
handshake; connections that are there go on.
"""

from __future__ import annotations

from typing import Any

import grpc

from splitvisor.net.tls_files import Credentials, TlsError, TlsFiles
from splitvisor.process.logging import get_logger

_log = get_logger(__name__)


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials that follow their files. Raises TlsError when the files cannot be used now."""
    first, renewal = _configuration(_load(files)), _Renewal(files)
    fetch: Any = renewal.fetch  # types-grpcio does not know that None means "as before".
    return grpc.dynamic_ssl_server_credentials(first, fetch, require_client_authentication=True)


class _Renewal:
    """Looks at the files before each handshake."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._seen = files.stamp()

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what the files have when they are new and usable; None: go on with what there is. In gRPC's threads."""
        stamp = self._files.stamp()
        if stamp == self._seen:
            return None
        self._seen = stamp
        try:
            configuration = _configuration(_load(self._files))
        except TlsError as error:
            _log.warning("new certificate not loaded", reason=str(error))
            return None
        _log.info("new certificate loaded", file=str(self._files.certificate))
        return configuration


def _load(files: TlsFiles) -> Credentials:
    loaded = files.load()
    if not loaded.identity.role.serves:
        raise TlsError(f"{files.certificate}: role {loaded.identity.role} is for clients", "a service needs cpu or backend")
    return loaded


def _configuration(loaded: Credentials) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(loaded.key, loaded.certificate)], loaded.authority)
