# SPDX-License-Identifier: GPL-2.0-or-later
"""v-scsi under Debian's own driver: disks, file systems, CDs, tools, faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from splitvisor.guests.commands import Commands

MIB = 1 << 20
SLOW_S = 120.0


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(64 * MIB)
    return path


def test_a_disk_keeps_what_is_written(io_guest: Callable[..., Commands], image: Path) -> None:
    guest = io_guest("--disk", f"{image},serial=D1")
    guest.wait_for("test -b /dev/sda")
    assert guest.ok("blockdev --getsize64 /dev/sda") == str(64 * MIB)
    assert "SPLITVSR" in guest.ok("sg_inq /dev/sda")
    guest.put("/tmp/data", bytes(range(256)) * 64)
    guest.ok("dd if=/tmp/data of=/dev/sda bs=4096 seek=7 conv=fsync 2>/dev/null")
    assert image.read_bytes()[7 * 4096 : 11 * 4096] == bytes(range(256)) * 64
