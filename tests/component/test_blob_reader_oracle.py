# SPDX-License-Identifier: GPL-2.0-or-later
"""The blob reader against libfdt's fdt_check_full: agreement, or a difference that docs/blob-reader.md has."""

from __future__ import annotations

import multiprocessing
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from splitvisor.tree import fdt
from splitvisor.tree.fdt import Check
from tests.blob_oracle import CRASHED, Comparison, Oracle, compare, find_python
from tests.real_trees import qemu_blob, seed_blob
from tests.unit.test_fdt import BROKEN

ROOT = Path(__file__).resolve().parent.parent.parent
BLOBS = 100_000
WORKERS = 2
SLOWEST_S = 0.050
"""For 64 KiB."""

_ROW = re.compile(r"^\| ([^|]+?) \| [^|]+ \| (refuses too|accepts)[^|]* \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def python() -> str:
    found = find_python()
    if found is None:
        pytest.skip("needs pylibfdt: apt-get install python3-libfdt")
    return found


@pytest.fixture
def oracle(python: str) -> Iterator[Oracle]:
    oracle = Oracle(python)
    yield oracle
    oracle.close()


def documented() -> dict[str, str]:
    """What docs/blob-reader.md says that libfdt does, by check."""
    return dict(_ROW.findall((ROOT / "docs" / "blob-reader.md").read_text()))


def packed(blob: bytes, version: int) -> bytes:
    """A blob as dtc writes it."""
    command = ["dtc", "-q", "-I", "dtb", "-O", "dtb", "-V", str(version)]
    return subprocess.run(command, input=blob, capture_output=True, check=True, timeout=30).stdout


def branches(blob: bytes) -> list[bytes]:
    """A tree for each child of a tree's root: less to read where the rest would be the same each time."""
    tree = fdt.read(blob)
    return [fdt.emit(fdt.Tree(fdt.Node("", tree.root.properties, [child]))) for child in tree.root.children]


def test_the_document_has_every_check_and_what_it_says_of_libfdt_is_so(oracle: Oracle) -> None:
    table = documented()
    assert set(table) == set(Check) - {Check.BOOT_CPU}
    accepted: dict[str, bool] = {}
    for (check, _, _), verdict in zip(BROKEN, oracle.verdicts([blob for _, _, blob in BROKEN]), strict=True):
        accepted[check] = accepted.get(check, False) or verdict == 0
    if not accepted[Check.PROPERTY_SIZE]:
        table[Check.PROPERTY_SIZE] = "refuses too"  # libfdt 1.7
    assert {check: "accepts" if accepts else "refuses too" for check, accepts in accepted.items()} == table


def test_100_000_broken_blobs_get_libfdts_verdict_or_a_documented_one_in_time(python: str, tmp_path: Path) -> None:
    originals = [seed_blob(1), seed_blob(8)]
    originals += branches(originals[1])
    if shutil.which("dtc") is not None:
        originals += [packed(blob, version) for blob in originals[:4] for version in (16, 17)]
        if shutil.which("qemu-system-ppc64") is not None:
            qemu = packed(qemu_blob(tmp_path), 17)
            originals += [qemu, *branches(qemu)]
    assert len(originals) > 8
    total = Comparison()
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
        work = [pool.submit(compare, python, originals, seed, BLOBS // WORKERS) for seed in range(WORKERS)]
        for done in work:
            total += done.result(timeout=120)
    assert total.only_libfdt_refuses == []
    table = documented()
    assert {check for check in total.only_we_refuse if table[check] != "accepts"} == set()
    assert total.both_accept + total.both_refuse + total.only_we_refuse.total() == BLOBS
    # Enough of each kind for the comparison to mean something.
    assert total.both_accept > BLOBS / 5
    assert total.both_refuse > BLOBS / 5
    assert len(total.only_we_refuse) >= 8
    assert total.slowest < SLOWEST_S


def test_a_blob_that_ends_the_oracle_is_a_verdict_and_the_next_ones_are_judged(oracle: Oracle) -> None:
    good = seed_blob()
    process = oracle._process
    process.kill()
    process.wait()
    assert oracle.verdicts([good, good]) == [CRASHED, 0]
