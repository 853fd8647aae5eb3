# SPDX-License-Identifier: GPL-2.0-or-later
"""hcall_service waits for a PostgreSQL database that is not there yet, and for nothing else."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import psycopg
import pytest

from hcall_service.device_tree_store import StoreAbsentError, open_store, postgresql_absence
from hcall_service.device_tree_store.postgresql import CONNECT_SECONDS
from tests.guests.harness import ROOT, STEP_SECONDS
from tests.postgresql_server import PostgresqlServer

USAGE = 2
SILENCE = ": no answer yet"


@pytest.fixture
def server() -> Iterator[PostgresqlServer]:
    server = PostgresqlServer()
    yield server
    server.close()


class HcallService:
    """A process of it, and what it logs."""

    def __init__(self, directory: Path, store: str, wait: float, environment: dict[str, str]) -> None:
        ready_read, ready_write = os.pipe()
        command = [
            sys.executable, "-m", "splitvisor.service.main", "hcall", "--listen", f"unix:{directory}/hcall.sock",
            "--store", store, "--store-wait", str(wait), "--ready-fd", str(ready_write),
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, cwd=ROOT, pass_fds=(ready_write,), stderr=subprocess.PIPE, env={**os.environ, **environment}
        )
        os.close(ready_write)
        assert self.process.stderr is not None
        self._log: IO[bytes] = self.process.stderr
        self._ready = os.fdopen(ready_read, "rb")

    def next_event(self, *, silence: bool = False) -> dict[str, Any]:
        """What it logs next; that nobody answers yet, which on a busy machine is said of anybody, only when that is wanted."""
        event: dict[str, Any] = json.loads(self._log.readline())
        return self.next_event() if not silence and SILENCE in event.get("reason", "") else event

    def wait_ready(self) -> None:
        """Wait until it listens."""
        assert self._ready.readline(), self._log.read().decode()

    def wait_end(self, *, silence: bool = False) -> tuple[int, list[str]]:
        """Its exit status and the lines that nobody has read yet; silence as for next_event()."""
        _, text = self.process.communicate(timeout=STEP_SECONDS)
        return self.process.returncode, [line for line in text.decode().splitlines() if silence or SILENCE not in line]

    def close(self) -> None:
        """End it if it has not ended."""
        self.process.kill()
        self.process.wait()
        self._log.close()
        self._ready.close()


StartHcall = Callable[..., HcallService]


@pytest.fixture
def start(short_path: Path) -> Iterator[StartHcall]:
    running: list[HcallService] = []

    def start(store: str, wait: float = 60, **environment: str) -> HcallService:
        running.append(HcallService(short_path, store, wait, environment))
        return running[-1]

    yield start
    for service in running:
        service.close()


def events_until_there(service: HcallService) -> list[dict[str, Any]]:
    """What it logs before it listens."""
    events = [service.next_event()]
    while events[-1]["event"] != "listening":
        events.append(service.next_event())
    return events[:-1]


def test_a_server_that_starts_after_the_service_is_waited_for(server: PostgresqlServer, start: StartHcall) -> None:
    location = server.new_database()
    server.kill()
    try:
        service = start(location)
        waiting = service.next_event()
    finally:
        server.start()
    assert waiting["event"].startswith("waiting for the database, ")
    assert waiting["level"] == "warning"
    assert f"{location.partition('?')[0].replace('@', f'@{server.directory}')}: " in waiting["reason"]
    assert "No such file or directory" in waiting["reason"]
    service.wait_ready()
    assert events_until_there(service)[-1]["event"] == "the database is there"
    service.process.terminate()
    assert service.wait_end()[0] == 0


def test_a_database_that_is_made_after_the_service_has_started_is_waited_for(server: PostgresqlServer, start: StartHcall) -> None:
    """As the official image makes it: its server takes connections before it has the database."""
    service = start(server.location("trees1"))
    assert 'database "trees1" does not exist' in service.next_event()["reason"]
    assert server.new_database() == server.location("trees1")
    service.wait_ready()


def test_a_server_that_recovers_is_waited_for(
    server: PostgresqlServer, start: StartHcall, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = server.new_database()
    server.recover()
    service = start(location)
    assert "the database system is" in service.next_event()["reason"]
    # One that says it in another language is recognised too.
    with monkeypatch.context() as patch:
        patch.setattr(postgresql_absence, "_NOBODY_THERE", ())
        with pytest.raises(StoreAbsentError):
            open_store(location)
    server.promote()
    service.wait_ready()


def test_a_database_that_never_comes_is_told_of_first_and_given_up(start: StartHcall, short_path: Path) -> None:
    service = start(f"postgresql://me@/trees?host={short_path}", 3)
    status, lines = service.wait_end(silence=True)
    assert status == USAGE
    *before, last = lines
    expected = [f"waiting for the database, {seconds} s more at most" for seconds in range(4)]
    assert before, "it says at first that it waits"
    assert all(json.loads(line)["event"] in expected for line in before)
    assert last.startswith(f"splitvisor service hcall: device-tree store postgresql://me@{short_path}/trees: connection ")
    assert last.endswith("check that the server runs and that this user may use the database; waited 3 s for it")


def test_a_host_without_a_name_is_waited_for_as_it_may_get_one(start: StartHcall) -> None:
    service = start("postgresql://me@nowhere.invalid/trees")
    assert "nowhere.invalid" in service.next_event()["reason"]
    service.process.terminate()
    assert service.wait_end()[0] == 0


def test_who_waits_ends_when_told_to(start: StartHcall, short_path: Path) -> None:
    service = start(f"postgresql://me@/trees?host={short_path}")
    service.next_event()
    service.process.send_signal(signal.SIGTERM)
    status, lines = service.wait_end()
    assert (status, [json.loads(line)["event"] for line in lines]) == (0, ["stopping; it had not started yet"])


def test_who_waits_for_a_server_that_does_not_answer_ends_at_once(start: StartHcall) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(STEP_SECONDS)
        service = start(f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/trees")
        connection, _ = silent.accept()
        with connection:
            assert service.next_event(silence=True)["reason"].endswith(f"/trees{SILENCE}")
            began = time.monotonic()
            service.process.send_signal(signal.SIGTERM)
            assert service.wait_end()[0] == 0
            assert time.monotonic() - began < CONNECT_SECONDS - 1, "it waited for the connection to time out"


@pytest.mark.parametrize(
    ("user", "database", "reason"),
    [
        ("nobody", "trees1", 'role "nobody" does not exist'),
        ("guarded", "trees1", "password authentication failed"),
        ("poor", "trees1", "permission denied"),
        ("splitvisor", "trees1&sslmode=never", 'invalid sslmode value: "never"'),
        ("splitvisor", "trees1&port=5432x", "'5432x' is no port"),
    ],
)
def test_what_waiting_does_not_cure_ends_the_service_at_once(
    server: PostgresqlServer, start: StartHcall, user: str, database: str, reason: str
) -> None:
    server.new_database()
    server.require_password("guarded")
    with psycopg.connect(server.location("postgres"), autocommit=True) as connection:
        connection.execute("CREATE ROLE guarded LOGIN PASSWORD 'right'")
        connection.execute("CREATE ROLE poor LOGIN")
    name, _, settings = database.partition("&")
    service = start(f"postgresql://{user}@/{name}?host={server.directory}&{settings}".rstrip("&"), PGPASSWORD="wrong")
    status, lines = service.wait_end()
    assert status == USAGE
    assert reason in only(lines), "and not a line that says that it waits"


@pytest.mark.parametrize(
    ("wait", "why"),
    [
        ("-1", " -1: give 0 to 3600 seconds"),
        ("1e9", " 1e+09: give 0 to 3600 seconds"),
        ("nan", ": 'nan' is not a number; give one"),
    ],
)
def test_a_wait_that_makes_no_sense_is_refused(start: StartHcall, wait: str, why: str) -> None:
    status, lines = start(":memory:", float(wait)).wait_end()
    assert (status, only(lines)) == (USAGE, f"splitvisor service hcall: --store-wait{why}")


def only(lines: Sequence[str]) -> str:
    """The one line there is."""
    [line] = lines
    return line


def test_a_run_tells_at_once_of_a_database_that_is_not_there(short_path: Path) -> None:
    """Somebody sits before it: what is wrong is said instead of waited for."""
    command = [sys.executable, "-m", "splitvisor", "run", "--store", f"postgresql://me@/trees?host={short_path}"]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(short_path)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=STEP_SECONDS, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == USAGE
    assert only(done.stderr.splitlines()).endswith("check that the server runs and that this user may use the database")
