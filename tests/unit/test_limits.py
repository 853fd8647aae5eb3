# SPDX-License-Identifier: GPL-2.0-or-later
"""What one process accepts, the others accept too: names and sizes of VMs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitvisor.limits import is_vm_name

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = "abcdefghijklmnopqrstuvwxyz0123456789-"


@given(st.text(alphabet=ALLOWED, min_size=1, max_size=63))
def test_a_name_of_the_alphabet_is_a_vms(name: str) -> None:
    assert is_vm_name(name)


@given(st.text())
def test_no_other_is(name: str) -> None:
    assert is_vm_name(name) == (0 < len(name) <= 63 and set(name) <= set(ALLOWED))


@pytest.mark.parametrize(
    ("fact", "home"),
    [
        (r"\[a-z0-9-\]\{1,63\}\"", "splitvisor/limits.py"),
        (r"0x004D_0200", "splitvisor/papr/processor.py"),
        (r"512_000_000", "splitvisor/papr/processor.py"),
        (r"MESSAGE_BYTES = 4|message_length\", \d", "splitvisor/limits.py"),
        (r"\.is_loopback", "splitvisor/net/addresses.py"),
        (r"os\.replace\(", "splitvisor/process/outputs.py"),
        (r"rpartition\(\":\"\)", "splitvisor/net/addresses.py"),
    ],
)
def test_a_fact_has_one_place(fact: str, home: str) -> None:
    """Another place would be forgotten when the first one changes."""
    files = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    where = [each for each in files if not each.startswith("tests/") and re.search(fact, (ROOT / each).read_text())]
    assert where == [home]
