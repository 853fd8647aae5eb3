# SPDX-License-Identifier: GPL-2.0-or-later
"""A PostgreSQL server of the tests' own: made, started and removed with them, reached through a unix socket only."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest

USER = "splitvisor"
_SECONDS = 60
_SETTINGS = "-c listen_addresses='' -c shared_buffers=16MB -c max_connections=30"


def _programs() -> Path | None:
    """Where the server's programs are: Debian keeps them out of PATH, so that versions can live side by side."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    named = shutil.which("initdb")
    return found[-1].parent if found else Path(named).resolve().parent if named else None


def _account() -> str | None:
    """Whom the server runs as, when this is root, as whom it refuses to run."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise AssertionError("neither postgres nor nobody is a user here")


class PostgresqlServer:
    """A running server. Skips the test when PostgreSQL is not installed."""

    def __init__(self) -> None:
        programs = _programs()
        if programs is None:
            pytest.skip("needs PostgreSQL: apt-get install postgresql")
        self._programs = programs
        self._account = _account()
        self._databases = 0
        self.directory = Path(tempfile.mkdtemp(prefix="sv-pg-", dir="/tmp"))
        if self._account is not None:
            shutil.chown(self.directory, self._account)
        try:
            self._run("initdb", "-D", f"{self.directory}/data", "-U", USER, "--auth=trust", "--no-sync", "-E", "UTF8")
            self.start()
        except BaseException:
            shutil.rmtree(self.directory)
            raise

    def _run(self, program: str, *arguments: str) -> None:
        extra_groups: list[int] | None = None if self._account is None else []
        done = subprocess.run(
            [str(self._programs / program), *arguments], user=self._account, group=self._account and _group(self._account),
            extra_groups=extra_groups, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/",
            timeout=_SECONDS, text=True, check=False, env={**os.environ, "LC_ALL": "C.UTF-8"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout

    def _control(self, command: str, *arguments: str) -> None:
        self._run("pg_ctl", command, "-D", f"{self.directory}/data", "-s", "-w", "-l", f"{self.directory}/log", *arguments)

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._control("start", "-o", f"{_SETTINGS} -k {self.directory}")

    def kill(self) -> None:
        """End it without a checkpoint, as a crash does."""
        self._control("stop", "-m", "immediate")

    def recover(self) -> None:
        """Start anew as a replica that takes no connections: as a server is that has much to recover."""
        self.kill()
        (self.directory / "data/standby.signal").touch()
        self._control("start", "-o", f"{_SETTINGS} -c hot_standby=off -k {self.directory}")

    def promote(self) -> None:
        """End the recovery."""
        self._control("promote")

    def require_password(self, user: str) -> None:
        """Let a user in with a password only."""
        rules = self.directory / "data/pg_hba.conf"
        rules.write_text(f"local all {user} scram-sha-256\n{rules.read_text()}")
        self._control("reload")

    def location(self, database: str) -> str:
        """The address of a database."""
        return f"postgresql://{USER}@/{database}?host={self.directory}"

    def new_database(self) -> str:
        """Make an empty database and return its address."""
        self._databases += 1
        name = f"trees{self._databases}"
        with psycopg.connect(self.location("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.location(name)

    def close(self) -> None:
        """End it and remove what it had."""
        self.kill()
        shutil.rmtree(self.directory)


def _group(account: str) -> int:
    return pwd.getpwnam(account).pw_gid
