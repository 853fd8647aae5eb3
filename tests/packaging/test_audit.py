# SPDX-License-Identifier: GPL-2.0-or-later
"""`./dev audit` against a database that speaks OSV's protocol: an answer, a finding and no answer are three things."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from splitvisor.devtools.audit import Status, judge
from tests.guests.harness import ROOT, STEP_SECONDS

LOCKED = dict(re.findall(r"^([\w.-]+)==([^ ;\\]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
WEAKNESS = {
    "id": "PYSEC-2026-1",
    "aliases": ["CVE-2026-0001"],
    "summary": "Parses too much.",
    "affected": [
        {
            "package": {"name": "protobuf", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.1"}]}],
        }
    ],
}


class Database(ThreadingHTTPServer):
    """Answers queries as OSV does, from a table by package."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: dict[str, str] = {}
        self.weaknesses: dict[str, dict[str, Any]] = {}
        self.fails_for = ""
        self.url = f"http://127.0.0.1:{self.server_port}/v1/query"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        database = self.server
        assert isinstance(database, Database)
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = query["package"]["name"]
        database.asked[name] = query["version"]
        found = database.weaknesses.get(name)
        self.send_response(HTTPStatus.SERVICE_UNAVAILABLE if name == database.fails_for else HTTPStatus.OK)
        body = json.dumps({"vulns": [found]} if found else {}).encode()
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def database() -> Iterator[Database]:
    with Database() as database:
        thread = Thread(target=database.serve_forever)
        thread.start()
        yield database
        database.shutdown()
        thread.join(STEP_SECONDS)


def audit(*options: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "dev"), "audit", *options]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=STEP_SECONDS, check=False)


def test_every_package_is_looked_up(database: Database) -> None:
    done = audit("--osv-url", database.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"audit: {len(LOCKED)} packages of requirements.lock looked up, 0 known vulnerabilities\n"
    assert database.asked == LOCKED


def test_a_finding_is_a_line_with_its_remedy(database: Database) -> None:
    database.weaknesses["protobuf"] = WEAKNESS
    done = audit("--osv-url", database.url)
    assert (done.returncode, done.stderr) == (1, "")
    [finding, summary] = done.stdout.splitlines()
    version = LOCKED["protobuf"]
    assert finding == f"protobuf {version}: PYSEC-2026-1, CVE-2026-0001; fixed in 99.1; Parses too much."
    assert summary.endswith("1 known vulnerabilities")
    ignored = audit("--osv-url", database.url, "--ignore-vuln", "PYSEC-2026-1")
    assert ignored.returncode == 0


def test_a_database_out_of_reach_is_no_answer() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))  # without listen(): the port stays ours, and is refused
        done = audit("--osv-url", f"http://127.0.0.1:{deaf.getsockname()[1]}")
    assert (done.returncode, done.stdout) == (3, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("audit: the packages of requirements.lock could not be audited: ")
    assert "Connection refused" in line


def test_a_database_that_fails_halfway_is_no_answer(database: Database) -> None:
    database.fails_for = "unicorn"
    done = audit("--osv-url", database.url)
    assert (done.returncode, done.stdout) == (3, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("audit: the packages of requirements.lock could not be audited: 503 Server Error: ")


def test_a_package_that_the_database_does_not_have_is_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """pip-audit calls that a success, also when it is so of every package."""
    skipped = {"name": "pyfdt", "skip_reason": "Dependency not found on PyPI and could not be audited: pyfdt (0.3)"}
    looked_up: dict[str, Any] = {"name": "hpack", "version": "4.2.0", "vulns": []}
    assert judge(Path("requirements.lock"), [looked_up, skipped]) is Status.NO_ANSWER
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == (
        "audit: the packages of requirements.lock could not be audited: 1 of 2 have no answer, the first: "
        "Dependency not found on PyPI and could not be audited: pyfdt (0.3)\n"
    )
    weakness = {"id": "PYSEC-1", "aliases": [], "fix_versions": [], "description": "Loops."}
    assert judge(Path("requirements.lock"), [looked_up | {"vulns": [weakness]}, skipped]) is Status.FOUND
    printed = capsys.readouterr()
    assert printed.out == "hpack 4.2.0: PYSEC-1; fixed in no version yet; Loops.\n"
    assert "1 of 2 have no answer" in printed.err
