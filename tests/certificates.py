# SPDX-License-Identifier: GPL-2.0-or-later
"""Authorities and certificates for tests, made as `splitvisor certs` makes them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path

import pytest

from splitvisor.access import certs
from splitvisor.access.identity import Identity, Role

SERVER_HOSTS = ("127.0.0.1", "localhost")


class Authority:
    """An authority in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        certs.make_authority(directory, "test")

    def issue(
        self, role: Role, *vms: str, name: str = "", hosts: Sequence[str] | None = None, days: int = 1, into: Path | None = None
    ) -> Path:
        """Make a certificate, for the server's hosts when the role serves; return its directory."""
        name = name or role.value
        directory = into or self.directory / name
        hosts = (SERVER_HOSTS if role.serves else ()) if hosts is None else hosts
        certs.issue(self.directory, name, Identity(role, vms or ("*",)), hosts=hosts, days=days, directory=directory)
        return directory

    def issue_expired(self, role: Role, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Make one whose day has passed."""
        with monkeypatch.context() as patch:
            patch.setattr(certs, "CLOCK_SKEW", datetime.timedelta(days=3))
            patch.setattr(certs, "_check_days", lambda _days: None)
            return self.issue(role, name=name, days=-1)
