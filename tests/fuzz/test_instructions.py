# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest that executes anything: its process lives, and nothing of the hypervisor's changes.

The guest runs in a process of its own: an abort fails this test and does not end it. It executes as many instructions as
SPLITVISOR_FUZZ_INSTRUCTIONS says; SPLITVISOR_FUZZ_SEED sets which.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.fuzz.hostile_guest import BATCH, batch_words

INSTRUCTIONS = int(os.environ.get("SPLITVISOR_FUZZ_INSTRUCTIONS", "20000"))
SEED = int(os.environ.get("SPLITVISOR_FUZZ_SEED", "1"))
TIMEOUT_S = 60 + INSTRUCTIONS // 200


def describe(batch: int) -> str:
    words, values, user, pending = batch_words(SEED, batch)
    registers = " ".join(f"r{number}={value:#x}" for number, value in enumerate(values))
    code = " ".join(f"{word:08x}" for word in words)
    return f"batch {batch} of seed {SEED}: {code}; {registers}; {'problem' if user else 'supervisor'} state, pending {pending:#x}"


def test_random_instructions_end_nothing_but_the_guest(tmp_path: Path) -> None:
    note = tmp_path / "note"
    note.write_bytes(bytes(8))
    command = [sys.executable, "-m", "tests.fuzz.hostile_guest", str(SEED), str(INSTRUCTIONS), str(note)]
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=root, check=False)
    batch = int.from_bytes(note.read_bytes(), "little")
    why = signal.Signals(-ended.returncode).name if ended.returncode < 0 else f"status {ended.returncode}"
    assert ended.returncode == 0, f"{why} in {describe(batch)}\n{ended.stderr[-2000:]}"
    assert batch == INSTRUCTIONS // BATCH - 1
    assert "the engine cannot go on" not in ended.stdout, f"it would have aborted: {ended.stdout}"
