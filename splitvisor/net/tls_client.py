# SPDX-License-Identifier: GPL-2.0-or-later
"""A client's side of mutual TLS for connections that are not gRPC's own. New files are taken by the next handshake; connections
that are there go on.
"""

from __future__ import annotations

import ssl

from splitvisor.net.tls_files import Credentials, TlsError, TlsFiles, load_chain
from splitvisor.process.logging import get_logger

_log = get_logger(__name__)


class ClientContext:
    """What handshakes need, as the files have it.

    Args:
        files: this process's certificate.

    Raises TlsError when there is no usable certificate now.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamp = files.stamp()
        self._context = _context(files.load())

    def newest(self) -> ssl.SSLContext:
        """Return the context of files that are new and usable, else the one before."""
        stamp = self._files.stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = _context(self._files.load())
            except TlsError as error:
                _log.warning("new certificate not loaded", reason=str(error))
            else:
                _log.info("new certificate loaded", file=str(self._files.certificate))
        return self._context


def _context(credentials: Credentials) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cadata=credentials.authority.decode("ascii", "replace"))
    context.set_alpn_protocols(["h2"])
    load_chain(context, credentials.certificate, credentials.key)
    return context
