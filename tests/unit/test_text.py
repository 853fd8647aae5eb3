# SPDX-License-Identifier: GPL-2.0-or-later
"""Arguments, paths and variables that are not UTF-8: the bytes go through, or one line says what is wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from splitvisor.net.addresses import AddressError, parse_address
from splitvisor.process.text import bytes_of, is_text, shown
from splitvisor.service.runtime_directory import socket_parents
from splitvisor.terminal.link import own_name

ROOT = Path(__file__).parents[2]
SECONDS = 60
BAD = b"caf\xe9"


def test_bytes_come_out_as_they_came_in() -> None:
    text = os.fsdecode(BAD)
    assert (is_text("café"), is_text(text)) == (True, False)
    assert (bytes_of(text), bytes_of("café")) == (BAD, "café".encode())
    assert (shown(text), shown("café")) == ("caf\\xe9", "café")


def test_what_is_not_text_is_no_address_and_no_place_for_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AddressError, match="not UTF-8"):
        parse_address(os.fsdecode(b"unix:/tmp/" + BAD))
    monkeypatch.setenv("XDG_RUNTIME_DIR", os.fsdecode(b"/run/" + BAD))
    assert socket_parents() == [Path("/tmp")]


def test_a_users_name_need_not_be_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", os.fsdecode(BAD))
    assert own_name().startswith("caf\\xe9@")


REFUSED: Sequence[tuple[Sequence[bytes], str]] = (
    ((b"run", b"--append", BAD), r"splitvisor run: --append: caf\\xe9 is not UTF-8; give a text in UTF-8"),
    ((b"run", b"--kernel", BAD), r"splitvisor run: --kernel: /.*/caf\\xe9 is not UTF-8, as .*; give the path of a link to it"),
    ((b"run", b"--nvram", BAD), r"splitvisor run: --nvram: /.*/caf\\xe9 is not UTF-8, .*"),
    ((b"run", b"--record", BAD), r"splitvisor run: --record: /.*/caf\\xe9 is not UTF-8, .*"),
    ((b"run", b"--name", BAD), r"splitvisor run: --name: 'caf.*' is not a name; .*"),
    ((b"run", b"--backend", b"x=unix:/" + BAD), r"splitvisor run: --backend: .* not UTF-8; .*"),
    ((b"run", b"--connect", b"cpu=unix:/" + BAD), r"splitvisor run: --connect: .* not UTF-8; .*"),
    ((b"vm", b"status", b"vm", b"--cpu", b"unix:/" + BAD), r"splitvisor vm status: .*: not UTF-8; .*"),
    ((b"console", b"log", BAD, b"--vio", b"unix:/none"), r"splitvisor console: caf\\xe9 is not UTF-8; give it in UTF-8"),
    ((b"trace", b"vm", b"--cpu", b"unix:/none", b"--call", BAD), r"splitvisor trace: caf\\xe9 is not UTF-8; give it in UTF-8"),
    ((b"certs", b"init", b"ca", b"--name", BAD), r"splitvisor certs: caf\\xe9 is not UTF-8; give it in UTF-8"),
    ((b"health", b"unix:/" + BAD), r"splitvisor health: .*: not UTF-8; .*"),
    ((b"service", b"vio", b"--listen", b"unix:/" + BAD), r"splitvisor service vio: .*: not UTF-8; .*"),
)
"""Command lines, and the one line that refuses each."""


@pytest.mark.parametrize(("arguments", "line"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_must_be_text_and_is_not_is_refused_in_one_line(arguments: Sequence[bytes], line: str, tmp_path: Path) -> None:
    status, errors = run(arguments, tmp_path)
    assert (status, errors.count(b"\n")) == (2, 1), errors
    assert re.fullmatch(line, errors.decode(errors="backslashreplace").rstrip())


def test_a_working_directory_that_is_not_text_is_told(tmp_path: Path) -> None:
    directory = os.fsencode(tmp_path) + b"/" + BAD
    os.mkdir(directory)
    Path(os.fsdecode(directory), "kernel").write_bytes(b"")
    status, errors = run((b"run", b"--kernel", b"kernel"), os.fsdecode(directory))
    assert status == 2
    assert b"/caf\\xe9/kernel is not UTF-8" in errors


def run(arguments: Sequence[bytes], directory: str | Path, **environment: str) -> tuple[int, bytes]:
    variables: Mapping[str, str] = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        [sys.executable, "-m", "splitvisor", *arguments], cwd=directory, env=variables, capture_output=True, timeout=SECONDS,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr
