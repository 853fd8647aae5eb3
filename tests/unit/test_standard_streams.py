# SPDX-License-Identifier: GPL-2.0-or-later
"""Standard streams that are closed, full or without a reader, and text that their encoding lacks: in every command."""

from __future__ import annotations

import io
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from splitvisor.process.streams import ERRORS, FAILED, READER_GONE, open_standard_streams
from splitvisor.service.names import ALL_SERVICE_NAMES
from tests.command_ends import FULL, READER_GONE_OUTPUT, closing, commands, wrong_ends

ROOT = Path(__file__).parents[2]
SECONDS = 120


def test_every_command_says_in_one_line_that_its_output_cannot_be_written() -> None:
    helps: list[tuple[str, ...]] = [(*names, "--help") for names in commands()]
    helps += [("service", name.command, "--help") for name in ALL_SERVICE_NAMES] + [("version",), ("protos",)]
    assert len(helps) > 60
    outputs = ((FULL, FAILED, 1), (READER_GONE_OUTPUT, READER_GONE, 0))
    # In turn, for each takes some time.
    table = [(arguments, *output) for arguments, output in zip(helps, itertools.cycle(outputs))]
    assert wrong_ends(table) == {}


CLOSED = [which for count in (1, 2, 3) for which in itertools.combinations(range(3), count)]


@pytest.mark.parametrize("closed", CLOSED, ids=str)
def test_closed_descriptors_are_opened_on_the_null_device(closed: tuple[int, ...], tmp_path: Path) -> None:
    found = tmp_path / "found"
    program = (
        "import os, sys\nfrom splitvisor.process.streams import standard_streams\n"
        "with standard_streams('test'):\n"
        "    import socket\n    lowest = socket.socket().fileno()\n"
        "    print('out'); print('err', file=sys.stderr); sys.stdin.read()\n"
        "    places = [os.readlink(f'/proc/self/fd/{number}') for number in range(3)]\n"
        f"    open({str(found)!r}, 'w').write(' '.join([str(lowest), *places]))\n"
    )
    done = subprocess.run(
        [*closing(closed), sys.executable, "-c", program], cwd=ROOT, input=b"", capture_output=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    lowest, *places = found.read_text().split()
    assert int(lowest) > 2
    assert [place == os.devnull for place in places] == [number in closed for number in range(3)]
    assert done.stdout == (b"" if 1 in closed else b"out\n")
    assert done.stderr == (b"" if 2 in closed else b"err\n")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
@pytest.mark.parametrize(
    ("arguments", "status"), [(("version",), 0), (("vm", "status", "none"), 2), (("service", "vio", "--wrong"), 2)], ids=str
)
def test_commands_end_as_ever_with_closed_descriptors(closed: tuple[int, ...], arguments: Sequence[str], status: int) -> None:
    done = subprocess.run(
        [*closing(closed), sys.executable, "-m", "splitvisor", *arguments], cwd=ROOT, capture_output=True,
        timeout=SECONDS, check=False,
    )  # fmt: skip
    assert (done.returncode, b"Traceback" in done.stderr) == (status, False), done.stderr


@pytest.mark.parametrize(
    ("arguments", "status"), [(("vm", "status", "none"), 2), (("run", "--memory", "1"), 2), (("version",), 0)]
)
def test_standard_error_that_cannot_be_written_changes_nothing(arguments: Sequence[str], status: int) -> None:
    with open(FULL, "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "splitvisor", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=full, check=False
        )
    assert done.returncode == status


@pytest.mark.parametrize("options", [(), ("-u",)], ids=str)
def test_a_pipe_that_does_not_block_gets_everything(options: tuple[str, ...]) -> None:
    program = (
        "import os\nfrom splitvisor.process.streams import standard_streams\nos.set_blocking(1, False)\n"
        "with standard_streams('test'):\n    print('x' * 1_000_000)\n"
    )
    with subprocess.Popen([sys.executable, *options, "-c", program], cwd=ROOT, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert len(child.stdout.read()) == 1_000_001
    assert child.returncode == 0


@pytest.mark.parametrize(
    ("encoding", "text", "expected"),
    [
        ("utf-8", "caf\udce9 — é", b"caf\xe9 " + "— é".encode()),
        ("ascii", "caf\udce9 — é", b"caf\xe9 - \\xe9"),
        ("ascii", "╭──╮ … \N{SNOWMAN}", b"+--+ ... \\u2603"),
        ("latin-1", "é —", b"\xe9 -"),
        ("utf-8", "\ud800", b"\\ud800"),
    ],
)
def test_text_comes_out_in_any_encoding(encoding: str, text: str, expected: bytes) -> None:
    open_standard_streams()
    out = io.BytesIO()
    with io.TextIOWrapper(out, encoding, ERRORS) as stream:
        stream.write(text)
        stream.flush()
        assert out.getvalue() == expected


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0"},
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "ascii:strict", "TERM": "dumb", "COLUMNS": "0"},
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("arguments", "status"), [(("run", "--help"), 0), (("vm", "status", b"caf\xe9"), 2), (("run", "--é"), 2)]
)
def test_no_locale_leads_to_a_traceback(environment: dict[str, str], arguments: Sequence[Any], status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "splitvisor", *arguments], cwd=ROOT, capture_output=True, env={**os.environ, **environment},
        timeout=SECONDS, check=False,
    )  # fmt: skip
    assert (done.returncode, b"Traceback" in done.stderr) == (status, False), done.stderr


SOURCES = [
    path
    for folder in ("splitvisor", "cpu_service", "hcall_service", "of_client_service", "vio_service", "gateway_service")
    for path in (ROOT / folder).rglob("*.py")
    if path.name != "streams.py" and "devtools" not in path.parts
]
PAST_OUR_STREAMS = re.compile(r"os\.write\(1,|sys\.__std|BrokenPipeError")
"""What writes to standard output past OutputError, or takes its end for something else."""


def test_nobody_goes_past_the_streams() -> None:
    assert len(SOURCES) > 200
    assert [str(path.relative_to(ROOT)) for path in SOURCES if PAST_OUR_STREAMS.search(path.read_text())] == []


def test_what_a_command_has_no_words_for_is_one_line_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    gone = tmp_path / "gone"
    gone.mkdir()
    left = ["sh", "-c", 'cd "$1" && rmdir "$1" && shift && exec "$@"', "sh", str(gone)]
    for before, arguments, line in (
        ([], ["guests"], f"splitvisor guests: {tmp_path}/file/guests: Not a directory\n"),
        (left, ["run", "--kernel", "k"], "splitvisor run: the working directory is gone; change to one that is there\n"),
    ):
        done = subprocess.run(
            [*before, sys.executable, "-m", "splitvisor", *arguments], cwd=ROOT, capture_output=True, text=True, check=False,
            env={**os.environ, "SPLITVISOR_CACHE": str(tmp_path / "file" / "guests"), "PYTHONPATH": str(ROOT)}, timeout=SECONDS,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (1, line)
