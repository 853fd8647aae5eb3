# SPDX-License-Identifier: GPL-2.0-or-later
"""Random instructions leave the same registers and memory on the engine as in QEMU's user mode.

SPLITVISOR_FUZZ_CASES sets how many cases there are (100,000), SPLITVISOR_FUZZ_SEED where they start. `./dev fuzz-cpu` has more.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from splitvisor.devtools.fuzz_cpu import batch, emulators
from splitvisor.devtools.fuzz_cpu.__main__ import main
from splitvisor.devtools.fuzz_cpu.campaign import Campaign, Finding, report
from splitvisor.devtools.fuzz_cpu.instructions import Instruction, tried

CASES = int(os.environ.get("SPLITVISOR_FUZZ_CASES", "100000"))
SEED = int(os.environ.get("SPLITVISOR_FUZZ_SEED", "1"))
MISSING = batch.missing_tools() + emulators.missing_programs()

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")


def test_no_difference_is_without_a_reason(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cases", str(CASES), "--seed", str(SEED)]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("order", batch.ORDERS)
def test_a_difference_is_found_and_shown_with_what_matters(order: batch.ByteOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine is made to add one to r3 after an instruction that it is told to take for another."""
    campaign = Campaign(order, [Instruction("add", 0x7C00_0214, 0xFC00_07FF)], 1)
    original = campaign._subject.start

    def start(groups: list[batch.Group]) -> None:
        original([batch.Group((word + 0x28,), group.records) for group in groups for word in group.words])  # Carries, too.

    monkeypatch.setattr(campaign._subject, "start", start)
    try:
        result = list(campaign.run(1))[-1]
        assert result.unexplained["add[.]"] > 100
        finding: Finding = campaign.minimise(result.findings[0])
    finally:
        campaign.close()
    shown = report(finding)
    assert f"add[.] ({order} endian)" in shown
    assert "QEMU" in shown
    assert "engine" in shown
    assert shown.count("before") <= 4, "two operands, and little else"


def test_equal_seeds_make_equal_cases() -> None:
    from splitvisor.devtools.fuzz_cpu.cases import Generator

    first, second, other = (Generator(tried("little"), seed, "little").groups(20) for seed in (5, 5, 6))
    assert first == second != other


@pytest.mark.parametrize("order", batch.ORDERS)
def test_the_programs_fit_their_places(order: batch.ByteOrder, tmp_path: Path) -> None:
    programs = batch.build(order, tmp_path)
    assert len(programs.harness) <= batch.AT["HARNESS_BYTES"]
    first = struct.unpack("<I" if order == "little" else ">I", programs.harness[:4])[0]
    assert first >> 26 == 15, "lis"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "nosuch"], "no instruction that is tried matches 'nosuch'"),
        (["--only", "("], "is not a regular expression"),
        (["--cases", "0"], "at least 1"),
    ],
)
def test_bad_usage_is_said_in_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status = main(arguments)
    except SystemExit as end:
        status = int(str(end.code))
    assert status == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
