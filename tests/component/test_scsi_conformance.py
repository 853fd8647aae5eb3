# SPDX-License-Identifier: GPL-2.0-or-later
"""libiscsi's conformance tests, and sg3_utils, of our SCSI target: what passes, and the little that does not."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from splitvisor.scsi.cdrom import CdRom
from splitvisor.scsi.disk import Disk
from splitvisor.scsi.sense import BLOCK_OUT_OF_RANGE, INVALID_FIELD_IN_CDB, MEDIUM_CHANGED
from splitvisor.scsi.unit import Identity, LogicalUnit
from tests.iscsi_gateway import TARGET_NAME, gateway
from tests.memory_disk import MemoryDisk
from tests.scsi_host import Host, run, target_of

SIZE = 64 << 20
PROGRAM = "iscsi-test-cu"
SECONDS = 120

needs_libiscsi = pytest.mark.skipif(shutil.which(PROGRAM) is None, reason=f"needs {PROGRAM}: apt-get install libiscsi-bin")
needs_sg3_utils = pytest.mark.skipif(shutil.which("sg_vpd") is None, reason="needs sg_vpd: apt-get install sg3-utils")

THIN_FAILURES = {
    # With several logical blocks in a physical one it asks for one block's status and expects another's.
    "UnmapSingle": "test_get_lba_status_unmap_single.c",
}
REFUSED_BY_DISKS = {
    "EXTENDEDCOPY", "RECEIVECOPYRESULT", "RECEIVE_COPY_RESULTS", "READDEFECTDATA10", "READDEFECTDATA12", "WRITEATOMIC16",
}  # fmt: skip
"""Commands that no disk of ours has: their tests say so and pass."""


@dataclass(frozen=True)
class Run:
    """A run of the conformance tests."""

    unit: Callable[[], LogicalUnit]
    families: str
    """A pattern of the program."""
    tests: int
    failures: frozenset[str] = frozenset()


def disk(block_bytes: int = 512, **options: bool) -> Callable[[], LogicalUnit]:
    return lambda: Disk(MemoryDisk(SIZE, **options), Identity("conformance"), block_bytes)


def drive() -> LogicalUnit:
    return CdRom(MemoryDisk(8 << 20, read_only=True), Identity("conformance"))


RUNS = {
    "a thin disk": Run(disk(), "ALL", 230, frozenset(THIN_FAILURES)),
    "a disk that keeps its room and has no cache": Run(disk(can_discard=False, has_write_cache=False), "SCSI.Write*", 60),
    "a disk of 4 KiB blocks": Run(disk(4096), "SCSI.*16", 48),
    "provisioning with 4 KiB blocks": Run(disk(4096), "SCSI.GetLBAStatus", 3),
    "bits of 4 KiB blocks": Run(disk(4096), "SCSI.OrWrite", 6),
    "a read-only disk": Run(disk(read_only=True), "SCSI.ReadOnly", 1),
    "verification of a read-only disk": Run(disk(read_only=True), "SCSI.Verify16", 8),
    # Power conditions are not supported.
    "a CD-ROM drive's tray": Run(drive, "SCSI.StartStopUnit", 3, frozenset({"PwrCnd"})),
    "a CD-ROM drive's reading": Run(drive, "SCSI.Read12", 5),
}


async def conformance(unit: LogicalUnit, families: str) -> str:
    """Run the program, and return what it prints."""
    async with gateway(target_of(unit)) as port:
        url = f"iscsi://127.0.0.1:{port}/{TARGET_NAME}/0"
        # The second path is for tests with two initiators, which are for disks only.
        urls = [url] if unit.removable else [url, url]
        program = await asyncio.create_subprocess_exec(
            PROGRAM,
            "--dataloss",
            f"--test={families}",
            *urls,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(SECONDS):
                printed, _ = await program.communicate()
        finally:
            if program.returncode is None:
                program.kill()
                await program.wait()
    return printed.decode(errors="replace")


@needs_libiscsi
@pytest.mark.parametrize("name", RUNS)
def test_libiscsi_s_tests_pass(name: str) -> None:
    wanted = RUNS[name]
    printed = asyncio.run(conformance(wanted.unit(), wanted.families))
    counts = re.search(r"tests +\d+ +(\d+) +(\d+) +(\d+)", printed)
    assert counts is not None, printed
    assert int(counts[1]) == wanted.tests, printed
    failed = {
        title
        for title, body in re.findall(r"^  Test: (\S+) \.\.\.(.*?)(?=^  Test: |^Suite: |\Z)", printed, re.M | re.S)
        if re.search(r"^ +1\. ", body, re.M)
    }
    assert failed == wanted.failures, printed
    refused = set(re.findall(r"\[SKIPPED\] (\w+) is not implemented", printed))
    # It speaks to a drive, too, as if it were a disk.
    assert wanted.unit is drive or refused <= REFUSED_BY_DISKS, refused


def decoded(program: str, data: bytes, directory: Path, *options: str) -> str:
    """What a program of sg3_utils makes of our bytes."""
    file = directory / "bytes"
    file.write_text(data.hex(" "))
    done = subprocess.run([program, *options, f"--inhex={file}"], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_sg3_utils
def test_sg3_utils_reads_our_inquiry_data(tmp_path: Path) -> None:
    async def pages() -> dict[str, bytes]:
        host = Host(target_of(disk()(), drive()))
        found = {
            each: (await host.send(f"12 01 {each} 00 ff 00", room=255)).data for each in ("00", "80", "83", "b0", "b1", "b2")
        }
        found["disk"] = (await host.send("12 00 00 00 60 00", room=96)).data
        found["drive"] = (await host.send("12 00 00 00 60 00", room=96, lun=1)).data
        return found

    found = run(pages())
    standard = decoded("sg_inq", found["disk"], tmp_path)
    for text in ("[SPC-4]", "disk", "Vendor identification: SPLITVSR", "CmdQue=1"):
        assert text in standard
    cd = decoded("sg_inq", found["drive"], tmp_path)
    assert "RMB=1" in cd
    assert "cd/dvd" in cd
    expected = {
        "00": ("Block limits", "Logical block provisioning"),
        "80": ("Unit serial number: conformance",),
        "83": ("vendor id: SPLITVSR", "designator type: NAA", f"0x{Identity('conformance').name().hex()}"),
        "b0": ("Maximum compare and write length: 255 blocks", "Maximum transfer length: 65536 blocks", "WSNZ): 1"),
        "b1": ("Non-rotating medium",),
        "b2": ("(LBPU): 1", "(LBPWS): 1", "(LBPWS10): 1", "(LBPRZ): 1", "thin provisioned"),
    }
    for page, texts in expected.items():
        shown = decoded("sg_vpd", found[page], tmp_path)
        for text in texts:
            assert text in shown, shown


@needs_sg3_utils
@pytest.mark.parametrize("descriptors", [False, True])
def test_sg3_utils_reads_our_sense(descriptors: bool) -> None:
    expected = {
        BLOCK_OUT_OF_RANGE.about(0x1234): ("Logical block address out of range", "1234"),
        INVALID_FIELD_IN_CDB.at(2, 5): ("Invalid field in cdb", "Error in Command: byte 2 bit 5"),
        MEDIUM_CHANGED: ("Unit Attention", "Not ready to ready change, medium may have changed"),
    }
    for sense, texts in expected.items():
        shown = subprocess.run(
            ["sg_decode_sense", *(f"{each:02x}" for each in sense.encoded(descriptors))],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
        assert ("Descriptor" in shown) == descriptors
        for text in texts:
            assert text.lower() in shown.lower(), shown
