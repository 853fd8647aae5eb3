# SPDX-License-Identifier: GPL-2.0-or-later
"""The process that has a guest's disks is killed again and again, while fio verifies what it writes and a database checks itself.

No write that the guest was told of is lost, none comes again after a newer one, and the guest sees no error of a disk.
SPLITVISOR_CHAOS_DISK_KILLS sets how often, SPLITVISOR_CHAOS_SEED when.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from splitvisor.guests.commands import Commands
from splitvisor.guests.fetch import GuestError, fetch, resolve
from splitvisor.rpc import machine_pb2, machine_pb2_grpc
from tests.disk_images import needs_qemu, qcow2_image, raw_image
from tests.guests.harness import BOOT_SECONDS, Console
from tests.guests.sqlite_load import last_acknowledged, sqlite_check, sqlite_load
from tests.services import Service

KILLS = int(os.environ.get("SPLITVISOR_CHAOS_DISK_KILLS", "5"))
SEED = int(os.environ.get("SPLITVISOR_CHAOS_SEED", "5"))
AWAY_S = 5.0
"""How long it is away now and then: cpu_service then tells the guest that sends find nobody."""
SLOW_S = 300.0
"""What a step may take, on a busy host: with a load of 60, vio_service alone took a minute to start."""
MIB = 1 << 20
FIO = (
    "fio --name=job --filename=/dev/sda --ioengine=libaio --direct=1 --iodepth=16 --rw=randwrite --bsrange=512-64k --size=16m "
    "--verify=crc32c --verify_fatal=1 --randrepeat=0"
)
TRANSACTIONS = 100_000
"""More than there is time for."""


@pytest.fixture
def images(tmp_path: Path) -> dict[str, Path]:
    return {"raw": raw_image(tmp_path / "disk.img", 64 * MIB), "qcow2": qcow2_image(tmp_path / "disk.qcow2", 64 * MIB)}


@pytest.fixture
def console(services: dict[str, Service], short_path: Path, images: dict[str, Path]) -> Iterator[Console]:
    """Debian with disks, on services that outlive the run."""
    try:
        fetch(print)
    except GuestError as error:
        pytest.skip(f"no real guests: {error}")
    connect = ",".join(f"{name}={service.address}" for name, service in services.items())
    files = ("--kernel", str(resolve("kernel", "debian")), "--initrd", str(resolve("initrd", "debian-io")))
    disks = [part for image in images.values() for part in ("--disk", str(image))]
    run = Console(("--connect", connect, *files, "--append", "console=hvc0 panic=-1", *disks), short_path)
    yield run
    run.close()


def kill(services: dict[str, Service], away: float) -> None:
    """Kill vio_service, start it after so many seconds, and wait until cpu_service has it back."""
    with grpc.insecure_channel(services["cpu"].address) as channel:
        stub = machine_pb2_grpc.MachineServiceStub(channel)
        events = stub.WatchEvents(machine_pb2.WatchEventsRequest(vm="guest"), timeout=SLOW_S)
        next(events)  # The state now: what comes from here on is not missed.
        attached = (each.backend.attached for each in events if each.backend.name == "vio_service")
        services["vio"].kill()
        assert not next(attached)
        time.sleep(away)  # How long nobody is there, for the guest; not a wait for anything.
        services["vio"].start()
        assert next(attached)
        events.cancel()


@needs_qemu
def test_no_write_is_lost_when_the_process_that_has_the_disks_is_killed(console: Console, services: dict[str, Service]) -> None:
    console.expect("guest# ", BOOT_SECONDS)
    guest = Commands(console)
    source = random.Random(SEED)
    guest.wait_for("test -b /dev/sdb")
    guest.ok("mkfs.ext4 -q /dev/sdb && mount -t ext4 /dev/sdb /mnt", SLOW_S)
    guest.ok(
        f"(n=0; while [ ! -e /tmp/enough ]; do {FIO} || break; n=$((n+1)); done; echo fio ended $? after $n) >/tmp/fio.log 2>&1 &"
    )
    sqlite_load(guest, "/mnt/database", TRANSACTIONS, log="/tmp/log")
    acknowledged = 0
    for number in range(KILLS):
        # Both loads go on.
        guest.wait_for(f"grep -q 'acknowledged {acknowledged + 3}$' /tmp/log", SLOW_S)
        time.sleep(source.random())  # Some point of what they do; not a wait for anything.
        kill(services, AWAY_S if number % 5 == 3 else 0)
        acknowledged = last_acknowledged(guest.ok("tail -n 3 /tmp/log", SLOW_S))
    guest.ok("touch /tmp/enough", SLOW_S)
    guest.wait_for(f"grep -q 'acknowledged {acknowledged + 3}$' /tmp/log", SLOW_S)
    said = guest.wait_for("grep 'fio ended' /tmp/fio.log", SLOW_S)
    assert said.startswith("fio ended 0"), guest.ok("cat /tmp/fio.log; dmesg | tail -n 60")
    guest.ok("kill $(pidof sqlite3); while pidof sqlite3 >/dev/null; do sleep 0.1; done", SLOW_S)
    acknowledged = last_acknowledged(guest.ok("tail -n 3 /tmp/log", SLOW_S))
    assert sqlite_check(guest, "/mnt/database") >= acknowledged
    guest.ok("umount /mnt && e2fsck -fn /dev/sdb", SLOW_S)
    assert guest.ok("dmesg | grep -i -E 'i/o error|sense key|offline' || true") == ""
