# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that follow something end with the reader of their output, without printing anything."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 60
_WAIT = "from splitvisor.cli.reader import end_without_reader as end; end(7); import sys; sys.stdin.read(); sys.exit(3)"


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_command_ends_when_its_reader_goes(kind: str) -> None:
    if kind == "pipe":
        read_end, write_end = os.pipe()
    else:
        read_end, write_end = (each.detach() for each in socket.socketpair())
    with subprocess.Popen([sys.executable, "-c", _WAIT], cwd=ROOT, stdin=subprocess.PIPE, stdout=write_end) as process:
        os.close(write_end)
        os.close(read_end)
        assert process.wait(SECONDS) == 7


def test_a_file_has_no_reader_that_could_go(tmp_path: Path) -> None:
    with (tmp_path / "output").open("wb") as output:
        done = subprocess.run([sys.executable, "-c", _WAIT], cwd=ROOT, input=b"", stdout=output, timeout=SECONDS, check=False)
    assert done.returncode == 3
