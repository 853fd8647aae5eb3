# SPDX-License-Identifier: GPL-2.0-or-later
"""What operators see of disks and networks: transfers of a real image and frames of a real switch, counted."""

from __future__ import annotations

import asyncio
from pathlib import Path

from splitvisor.net.times import seconds
from splitvisor.observe.metrics import DISK_BYTES, DISK_ERRORS, DISK_TIME
from splitvisor.rpc import vio_bus_pb2
from tests.disk_images import raw_image
from tests.frames import BROADCAST, ethernet
from tests.scsi_host import run
from tests.unit.test_llan_calls import MAC, UNIT, Lan, descriptor, scenario, to_guest
from tests.vscsi_guest import DATA_AT, Data, Guest, lun
from vio_service.devices.vscsi.metrics import samples_of

MIB = 1 << 20


def test_a_disk_counts_what_it_does(tmp_path: Path) -> None:
    async def test() -> None:
        image = raw_image(tmp_path / "disk.img", MIB)
        guest = Guest({"disk3": f"{image},serial=D3", "cdrom0": str(raw_image(tmp_path / "cd.iso", MIB))})
        await guest.adapter.begin()
        await guest.ready()
        write, read = Data.direct(DATA_AT, 4096), Data.direct(DATA_AT, 1024)
        for _ in range(3):
            assert (await guest.run("2a 00 00000000 00 0008 00", out=write)).status == 0
        assert (await guest.run("28 00 00000004 00 0002 00", into=read)).status == 0
        assert (await guest.run("35 00 00000000 00 0000 00")).status == 0
        assert (await guest.run("41 08 00000000 00 0010 00", out=Data.direct(DATA_AT, 512))).status == 0
        image.open("wb").close()  # It is cut off while in use.
        assert (await guest.run("28 00 00000004 00 0002 00", into=read)).status == 2

        disk, drive = guest.adapter.describe().disks
        assert (disk.name, disk.target, disk.place, disk.serial) == ("disk3", 0, str(image), "D3")
        assert (disk.size, disk.read_only, disk.HasField("drive")) == (MIB, False, False)
        counted = {
            name: (getattr(disk.counters, name).count, getattr(disk.counters, name).bytes)
            for name in ("reads", "writes", "flushes", "discards")
        }
        assert counted == {"reads": (1, 1024), "writes": (4, 3 * 4096 + 16 * 512), "flushes": (1, 0), "discards": (0, 0)}
        assert seconds(disk.counters.writes.time) > 0
        assert (disk.counters.errors, disk.counters.depth, disk.counters.deepest) == (1, 0, 1)
        assert (drive.name, drive.target, drive.read_only, drive.drive) == ("cdrom0", 1, True, vio_bus_pb2.CdDrive())

        samples = {(each.metric, each.labels): each.value for each in samples_of("vm", guest.adapter)}
        labels = ("vm", "0x71000002", "disk3")
        times = samples[DISK_TIME, (*labels, "write")]
        assert not isinstance(times, float | int)
        assert sum(times.counts) == 4
        assert samples[DISK_BYTES, (*labels, "read")] == 1024
        assert samples[DISK_ERRORS, labels] == 1
        await guest.adapter.stop()
        await guest.adapter.finish()

    run(test())


def test_a_transfer_that_waits_is_under_way(tmp_path: Path) -> None:
    async def test() -> None:
        guest = Guest({"disk0": f"{raw_image(tmp_path / 'disk.img', MIB)},iops=1"})
        await guest.adapter.begin()
        await guest.ready()
        read = Data.direct(DATA_AT, 512)
        assert (await guest.run("28 00 00000000 00 0001 00", into=read)).status == 0
        waiting = asyncio.create_task(guest.run("28 00 00000000 00 0001 00", into=read))
        while not guest.adapter.describe().disks[0].counters.depth:
            await asyncio.sleep(0)
        assert (await waiting).status == 0
        counters = guest.adapter.describe().disks[0].counters
        assert (counters.depth, counters.reads.count) == (0, 2)
        assert seconds(counters.reads.time) > 0.5, "the wait counts"
        await guest.adapter.finish()

    run(test())


def test_a_drive_says_what_the_guest_does_with_its_tray(tmp_path: Path) -> None:
    async def test() -> None:
        guest = Guest({"cdrom0": str(raw_image(tmp_path / "cd.iso", MIB))})
        await guest.adapter.begin()
        await guest.ready(lun(0))

        async def drive(cdb: str) -> tuple[bool, bool]:
            assert (await guest.run(cdb)).status == 0
            found = guest.adapter.describe().disks[0].drive
            return found.tray_open, found.locked

        assert await drive("1e 00 00 00 01 00") == (False, True)
        assert await drive("1e 00 00 00 00 00") == (False, False)
        assert await drive("1b 00 00 00 02 00") == (True, False)
        await guest.adapter.finish()

    run(test())


def network(lan: Lan) -> vio_bus_pb2.Network:
    """Return what the device says of itself."""
    return lan.device.describe().network


def test_a_network_device_counts_frames_both_ways_and_those_that_are_lost() -> None:
    async def body(lan: Lan) -> None:
        assert network(lan) == vio_bus_pb2.Network(
            place="switch=unit", mac=MAC, sent=vio_bus_pb2.FrameCounters(), received=vio_bus_pb2.FrameCounters()
        )
        await lan.register()
        assert network(lan).is_open
        await lan.add(0)
        frame = ethernet(BROADCAST, MAC, bytes(range(200)))
        lan.ram[0x8000 : 0x8000 + len(frame)] = frame
        await lan.send(descriptor(0x8000, len(frame)))
        received = [to_guest(1), to_guest(2)]
        for each in received:
            lan.peer.send(each)
        await lan.until(lambda: bool(lan.heard) and network(lan).received.dropped == 1)
        found = network(lan)
        assert (found.sent.frames, found.sent.bytes, found.sent.dropped) == (1, len(frame), 0)
        assert (found.received.frames, found.received.bytes) == (2, sum(map(len, received)))
        # The guest closes the device and opens it again: what was counted stays.
        await lan.call("H_FREE_LOGICAL_LAN", UNIT)
        assert not network(lan).is_open
        await lan.register()
        assert network(lan).received.dropped == 1

    scenario(body)
