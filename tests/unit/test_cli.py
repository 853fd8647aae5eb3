# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line's surface: help, bad usage, addresses, the cache of guests, initramfs archives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from splitvisor.guests.cpio import Entry, archive
from splitvisor.guests.fetch import FORMAT, INDEX, cached_guests, resolve
from splitvisor.machine.config import ConfigError
from splitvisor.machine.service_addresses import parse_connect
from splitvisor.net.addresses import AddressError
from splitvisor.net.tls_files import check_address
from splitvisor.service.runtime_directory import private_directory

ROOT = Path(__file__).resolve().parent.parent.parent


def splitvisor(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    return subprocess.run(
        [sys.executable, "-m", "splitvisor", *arguments], capture_output=True, text=True, timeout=30, env=environment, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--help"], "guests"),
        (["run", "--help"], "--no-shared-memory"),
        (["dt", "--help"], "history"),
        (["bench", "boot", "--help"], "--vs-qemu"),
        (["service", "--help"], "of-client"),
        (["version"], "splitvisor "),
    ],
)
def test_help_is_there(arguments: list[str], expected: str) -> None:
    done = splitvisor(*arguments)
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--memory", "1T"],
        ["run", "--kernel", "/nonexistent"],
        ["run", "--connect", "disk=unix:/x"],
        ["run", "--backend", "disk"],
        ["run", "--machine", "/nonexistent.toml"],
        ["run", "--store", "/nonexistent/trees.sqlite"],
        ["service", "hcall", "--store", "/nonexistent/trees.sqlite"],
        ["service", "hcall", "--store", "postgresql:///trees?host=/nonexistent", "--store-wait", "0"],
        ["service", "hcall", "--store", "postgresql://x:y/z"],
        ["service", "hcall", "--store", "mysql://host/trees"],
        ["service", "hcall", "--store", ":memory:", "--retention", "1"],
    ],
)
def test_a_bad_setting_is_one_line_and_status_2(arguments: list[str]) -> None:
    done = splitvisor(*arguments)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "; " in done.stderr


@pytest.mark.parametrize("arguments", [["run", "--nonsense"], ["service", "disk"], ["service"]])
def test_bad_usage_is_status_2(arguments: list[str]) -> None:
    assert splitvisor(*arguments).returncode == 2


def test_service_processes_do_not_load_the_command_lines_libraries() -> None:
    code = "import sys, splitvisor.service.main; print(sorted({'typer', 'rich', 'unicorn'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("address", ["unix:/run/x.sock", "unix:///run/x.sock", "127.0.0.1:0", "[::1]:7000", "localhost:7000"])
def test_plaintext_may_listen_at_unix_sockets_and_loopback(address: str) -> None:
    assert check_address(address) == address


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:7000", "[::]:7000", "192.0.2.1:7000", "example.org:7000", ":7000", "7000", "unix:x.sock", f"unix:/{'x' * 120}",
     "127.0.0.1:99999", "127.0.0.1:"],
)  # fmt: skip
def test_plaintext_may_not_listen_anywhere_else(address: str) -> None:
    with pytest.raises(AddressError):
        check_address(address)


def test_connect_takes_lists_and_repetitions() -> None:
    assert parse_connect(["cpu=unix:/a,vio=127.0.0.1:7", "hcall=unix:/b"]) == {
        "cpu": "unix:/a",
        "vio": "127.0.0.1:7",
        "hcall": "unix:/b",
    }


@pytest.mark.parametrize("values", [["cpu"], ["cpu="], ["disk=unix:/a"], ["cpu=unix:/a", "cpu=unix:/b"], ["vio=192.0.2.1:7"]])
def test_connect_refuses_what_names_no_service_once_or_is_on_a_network(values: list[str]) -> None:
    with pytest.raises(ConfigError):
        parse_connect(values)


def test_a_private_directory_is_private_and_goes(tmp_path: Path) -> None:
    with private_directory([tmp_path / "absent", tmp_path]) as path:
        assert path.parent == tmp_path
        assert path.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_goes_at_the_next_start_and_a_living_runs_does_not(tmp_path: Path) -> None:
    stale = tmp_path / "splitvisor-stale"
    stale.mkdir()
    (stale / "lock").touch()
    with private_directory([tmp_path]) as first, private_directory([tmp_path]) as second:
        assert not stale.exists()
        assert first.is_dir()
        assert second.is_dir()


def test_a_guests_name_stands_for_its_file_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLITVISOR_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vmlinux-6").touch()
    guest = {"name": "debian", "kind": "kernel", "path": "vmlinux-6", "package": "p", "version": "1", "sha256": "0"}
    (tmp_path / INDEX).write_text(json.dumps({"format": FORMAT, "guests": [guest]}))
    assert resolve("kernel", "debian") == tmp_path / "vmlinux-6"
    assert resolve("initrd", "debian") == Path("debian")
    assert resolve("kernel", "./debian") == Path("debian")


@pytest.mark.parametrize("text", ["", "[]", '{"format": 0, "guests": []}', f'{{"format": {FORMAT}, "guests": [{{"name": 1}}]}}'])
def test_a_broken_index_is_an_empty_cache(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX).write_text(text)
    assert cached_guests(tmp_path) == {}


def test_an_archive_is_what_cpio_reads(tmp_path: Path) -> None:
    data = archive(
        [
            Entry.directory("bin"),
            Entry.program("bin/x", b"12345"),
            Entry.link("bin/y", "x"),
            Entry.character_device("console", 5, 1),
        ]
    )
    records = list(read_newc(data))
    assert [(name, mode, body) for name, mode, body, _ in records] == [
        ("bin", 0o40755, b""),
        ("bin/x", 0o100755, b"12345"),
        ("bin/y", 0o120777, b"x"),
        ("console", 0o20600, b""),
    ]
    assert records[3][3] == (5, 1)
    assert len(data) % 4 == 0


def read_newc(data: bytes) -> list[tuple[str, int, bytes, tuple[int, int]]]:
    """Read an archive by the format's description, independently of the writer."""
    found: list[tuple[str, int, bytes, tuple[int, int]]] = []
    offset = 0
    while True:
        assert data[offset : offset + 6] == b"070701"
        fields = [int(data[offset + 6 + 8 * index : offset + 14 + 8 * index], 16) for index in range(13)]
        name_end = offset + 110 + fields[11]
        name = data[offset + 110 : name_end - 1].decode()
        start = (name_end + 3) & ~3
        if name == "TRAILER!!!":
            return found
        found.append((name, fields[1], data[start : start + fields[6]], (fields[9], fields[10])))
        offset = (start + fields[6] + 3) & ~3


@pytest.mark.parametrize("status", [0, 7])
def test_a_process_that_ends_at_once_has_written_what_it_printed(status: int) -> None:
    code = "import atexit; from splitvisor.process.end import end_process; atexit.register(print, 'late'); print('out', end='')\n"
    code += f"import sys; print('err', file=sys.stderr, end=''); end_process({status})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, "out", "err")
