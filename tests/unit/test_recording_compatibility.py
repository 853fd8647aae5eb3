# SPDX-License-Identifier: GPL-2.0-or-later
"""A recording of the demo guest that an earlier version made stays readable: its typed `help` and `off`, and what it answered.

tests/data/demo.recording was made with `printf 'help\\noff\\n' | splitvisor run --record tests/data/demo.recording`. A change
after which it cannot be read needs a new version of the format.
"""

from __future__ import annotations

import json
from pathlib import Path

from splitvisor.recording.conversation import Recording, Step
from splitvisor.recording.file import RecordingReader
from splitvisor.recording.statistics import statistics
from splitvisor.recording.text import terminal_bytes, typed_bytes
from tests.unit.test_cli import splitvisor

DEMO = Path(__file__).resolve().parent.parent / "data" / "demo.recording"


def test_its_console_is_in_it_byte_for_byte() -> None:
    written = typed = b""
    with DEMO.open("rb") as file:
        recording = Recording(RecordingReader(file, DEMO.name), DEMO.name)
        for _, item in recording.items("vio_service"):
            if isinstance(item, Step):
                written += b"".join(terminal_bytes(trap) for trap in item.traps if trap.route == 0)
                typed += typed_bytes(item.response.reply) if item.request.HasField("trap") else b""
    assert written.startswith(b"\r\nSplitvisor's demo guest: an Open Firmware client program\r\n")
    assert written.endswith(b"\r\n> off\r\nPowering off.\r\n")
    assert typed == b"help\noff\n"


def test_its_statistics_are_what_they_were() -> None:
    with DEMO.open("rb") as file:
        found = statistics(Recording(RecordingReader(file, DEMO.name), DEMO.name))
    counts = {call.name: call.count for call in found.calls}
    assert counts == {"H_PUT_TERM_CHAR": 94, "H_OF_CLIENT": 89, "H_GET_TERM_CHAR": 2, "get-time-of-day": 1, "power-off": 1}
    assert set(found.connections.values()) == {1}


def test_it_is_shown_with_filters_and_for_programs() -> None:
    shown = splitvisor("record", "show", "--call", "H_GET_TERM_CHAR", str(DEMO))
    assert shown.returncode == 0
    assert [line.split("; ")[-1] for line in shown.stdout.splitlines()[:2]] == ['"help\\noff\\n"', '""']
    lines = splitvisor("record", "show", "--json", "--link", "hcall_service", str(DEMO)).stdout.splitlines()
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds == ["introduction", "seed", "step", "step", "step"]
    assert json.loads(splitvisor("record", "stats", "--json", str(DEMO)).stdout)["terminal_bytes"]["read"] == 9


def test_it_is_the_same_as_itself(tmp_path: Path) -> None:
    same = splitvisor("record", "diff", str(DEMO), str(DEMO))
    assert (same.returncode, same.stdout, same.stderr) == (0, "", "")


def test_bad_usage_is_one_line(tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    cut.write_bytes(DEMO.read_bytes()[:60])
    for arguments, status, message in (
        (("record", "show", str(tmp_path / "none")), 2, "No such file"),
        (("record", "show", __file__), 2, "is not a recording; make one"),
        (("record", "show", "--link", "nobody", str(DEMO)), 2, "no back end 'nobody'"),
        (("record", "stats", str(cut)), 2, "no whole record of how it began"),
        (("replay", str(DEMO)), 2, "give --against NAME or --as NAME"),
        (("replay", str(DEMO), "--against", "cpu"), 2, "has no cpu_service; it has"),
        (("replay", str(DEMO), "--against", "vio@"), 2, "NAME@ADDRESS"),
        (("replay", __file__, "--against", "vio"), 2, "is not a recording"),
    ):
        done = splitvisor(*arguments)
        assert done.returncode == status
        assert message in done.stderr
        assert done.stderr.count("\n") == 1
