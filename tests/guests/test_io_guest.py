# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest of the tests of disks and networks: its drivers find QEMU's devices, its tools work, and it boots here."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from splitvisor.bench.command_shell import qemu_commands
from splitvisor.guests.commands import CommandError, Commands
from splitvisor.guests.fio import fio
from splitvisor.guests.io_guest import DRIVERS, PROGRAMS
from splitvisor.guests.network import lease
from tests.guests.harness import Guests
from tests.guests.sqlite_load import last_acknowledged, sqlite_check, sqlite_load
from tests.guests.tcp_checksums import tcp_checksums

DISK_BYTES = 64 << 20
SLOW_S = 120.0


def test_its_commands_answer_here(io_guest: Callable[..., Commands]) -> None:
    guest = io_guest()
    answer = guest.run("echo one; echo two >&2; cd /proc; exit 3")
    assert (answer.status, answer.output) == (3, "one\ntwo\n")
    assert guest.run("printf 'no end of line'; kill -9 $$").output.startswith("no end of line")
    assert guest.ok("pwd") == "/"
    with pytest.raises(CommandError, match="'false' ended with 1"):
        guest.ok("false")
    data = bytes(range(256)) * 8
    guest.put("/tmp/a file", data)
    assert guest.ok("sha256sum '/tmp/a file'").split()[0] == hashlib.sha256(data).hexdigest()
    assert guest.ok("echo " + "'long' \\\n" * 300).split() == ["long"] * 300
    assert set(guest.ok("cut -d ' ' -f 1 /proc/modules").split()) >= set(DRIVERS)
    assert guest.ok("dmesg | grep -c -i -E 'unknown symbol|taint' || true") == "0"
    names = [name for programs in PROGRAMS.values() for name in programs]
    assert guest.ok(f"for name in {' '.join(names)}; do [ $(command -v $name) = /bin/$name ] || echo $name; done") == ""
    started = guest.run(f"for name in {' '.join(names)}; do LD_TRACE_LOADED_OBJECTS=1 /bin/$name </dev/null; done", SLOW_S)
    assert "libc.so.6" in started.output
    assert "not found" not in started.output


def test_a_file_system_in_a_file_is_written_and_verified(io_guest: Callable[..., Commands]) -> None:
    guest = io_guest()
    guest.ok("truncate -s 32M /tmp/disk; losetup /dev/loop0 /tmp/disk; mkfs.ext4 -q /dev/loop0; mount -t ext4 /dev/loop0 /mnt")
    done = fio(guest, filename="/mnt/file", size="2m", rw="randwrite", bs="4k", ioengine="libaio", iodepth=16, verify="crc32c")
    assert done.writes.bytes == done.reads.bytes == 2 << 20
    assert done.writes.mean_us > 0
    with pytest.raises(CommandError, match="/proc/nothing"):
        fio(guest, filename="/proc/nothing", size="1m", rw="write")
    assert sqlite_load(guest, "/mnt/database", 5) == 5
    sqlite_load(guest, "/mnt/database", 5, log="/tmp/log")
    assert last_acknowledged(guest.wait_for("grep -q '^ended 0' /tmp/log && cat /tmp/log")) == 10
    assert sqlite_check(guest, "/mnt/database") == 10
    guest.ok("sqlite3 /mnt/database 'UPDATE chain SET payload = NULL WHERE n = 4'")
    with pytest.raises(AssertionError, match="1 rows"):
        sqlite_check(guest, "/mnt/database")
    guest.ok("umount /mnt && e2fsck -fn /dev/loop0")


def test_it_works_with_the_disk_and_the_network_of_qemu(guests: Guests, qemu: str, tmp_path: Path, short_path: Path) -> None:
    del guests, qemu
    image = tmp_path / "disk.raw"
    image.touch()
    os.truncate(image, DISK_BYTES)
    disk = ["-device", "spapr-vscsi,id=scsi", "-drive", f"file={image},if=none,id=disk,format=raw"]
    network = ["-netdev", "user,id=net", "-device", "spapr-vlan,netdev=net"]
    with qemu_commands(short_path, [*disk, "-device", "scsi-hd,bus=scsi.0,drive=disk,serial=OURS", *network]) as guest:
        guest.wait_for("test -b /dev/sda")
        assert "Unit serial number: OURS" in guest.ok("sg_inq /dev/sda")
        assert f"{DISK_BYTES} bytes" in guest.ok("sg_readcap /dev/sg0")
        guest.ok("mkfs.ext4 -q /dev/sda && mount -t ext4 /dev/sda /mnt", SLOW_S)
        done = fio(
            guest, filename="/mnt/file", size="2m", rw="randwrite", direct=1, ioengine="libaio", iodepth=16, verify="crc32c"
        )
        assert done.reads.bytes == 2 << 20
        assert sqlite_load(guest, "/mnt/database", 5, journal="WAL") == 5
        assert sqlite_check(guest, "/mnt/database") == 5
        guest.ok("umount /mnt && e2fsck -fn /dev/sda", SLOW_S)
        got = lease(guest)
        assert (got.address, got.gateway) == ("10.0.2.15", "10.0.2.2")
        tcp_checksums(guest, got.gateway, 2)
