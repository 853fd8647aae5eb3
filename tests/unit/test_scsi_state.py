# SPDX-License-Identifier: GPL-2.0-or-later
"""The state of a SCSI target goes on where it was, in another process."""

from __future__ import annotations

import pytest

from splitvisor.rpc import scsi_state_pb2
from splitvisor.scsi.cdrom import CdRom
from splitvisor.scsi.codes import Status
from splitvisor.scsi.disk import Disk
from splitvisor.scsi.state import TargetStateError, restore, save
from splitvisor.scsi.target import Target
from splitvisor.scsi.unit import Identity
from tests.memory_disk import MemoryDisk
from tests.scsi_host import Host, run, target_of

MIB = 1 << 20
READY = "00 00 00 00 00 00"
CACHE_OFF = bytes((0, 0, 0, 0, 8, 18)) + bytes(18)


def fresh(size: int = MIB) -> Target:
    return target_of(
        Disk(MemoryDisk(size), Identity("a")), CdRom(MemoryDisk(MIB), Identity("cd")), Disk(MemoryDisk(MIB), Identity("b"))
    )


def test_what_initiators_know_is_still_so_after_restore() -> None:
    async def main() -> None:
        old = fresh()
        one, two = await Host(old, "1").ready(), await Host(old, "2").ready()
        await one.ready(1)
        await one.ready(2)
        assert (await one.send("15 10 00 00 18 00", CACHE_OFF)).good
        register = bytes(8) + (7).to_bytes(8, "big") + bytes(8)
        assert (await one.send("5f 00 00 00 00 00 00 00 18 00", register)).good
        assert (await one.send("5f 01 03 00 00 00 00 00 18 00", register[8:16] + bytes(16))).good
        assert (await one.send("1e 00 00 00 01 00", lun=1)).good
        assert (await one.send("16 00 00 00 00 00", lun=2)).good
        assert (await one.send("1b 00 00 00 00 00", lun=2)).good
        state = scsi_state_pb2.ScsiTargetState.FromString(save(old).SerializeToString())

        new = fresh(2 * MIB)
        restore(new, state)
        one, two, three = (Host(new, each) for each in "123")
        assert (await one.send(READY)).sense == (6, 0x2A, 9)
        assert (await one.send("1a 08 08 00 ff 00", room=255)).data[6] == 0, "the cache is off"
        assert (await two.send(READY)).sense == (6, 0x2A, 1)
        assert (await two.send(READY)).sense == (6, 0x2A, 9)
        assert (await two.send("28 00 00 00 00 00 00 00 01 00", room=512)).end.status is Status.RESERVATION_CONFLICT
        assert (await one.send("5e 01 00 00 00 00 00 00 ff 00", room=255)).data[:16] == bytes.fromhex(
            "00000001 00000010"
        ) + register[8:16]
        assert (await one.send("1b 00 00 00 02 00", lun=1)).sense == (5, 0x53, 2)
        assert (await one.send(READY, lun=2)).sense == (2, 4, 2)
        await three.ready()
        assert (await three.send("00 00 00 00 00 00", lun=2)).sense == (6, 0x29, 0)
        assert (await three.send("00 00 00 00 00 00", lun=2)).end.status is Status.RESERVATION_CONFLICT

    run(main())


def test_an_open_tray_and_its_event_are_kept() -> None:
    async def main() -> None:
        old = fresh()
        host = await Host(old).ready(1)
        assert (await host.send("1b 00 00 00 02 00", lun=1)).good
        new = fresh()
        restore(new, save(old))
        host = Host(new)
        assert (await host.send(READY, lun=1)).sense == (2, 0x3A, 2)
        assert (await host.send("4a 01 00 00 10 00 00 00 08 00", room=8, lun=1)).data[4:6] == bytes((3, 1))

    run(main())


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ({"number": 9}, "logical unit 9: saved, but not there; add it before you restore"),
        ({"mode_pages": {0x3E: b""}}, "broken"),
        ({"reservation_type": 2}, "broken"),
        ({"reservation_type": 1, "holder": "nobody"}, "broken"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(unit: dict[str, object], said: str) -> None:
    state = scsi_state_pb2.ScsiTargetState(units=[scsi_state_pb2.ScsiUnitState(**unit)])  # type: ignore[arg-type]
    with pytest.raises(TargetStateError, match=said):
        restore(fresh(), state)


def test_pages_of_another_kind_of_device_keep_their_defaults() -> None:
    new = fresh()
    saved = scsi_state_pb2.ScsiUnitState(number=0, mode_pages={8: b"\xff" * 18, 0x0A: b"\0"}, size=MIB)
    restore(new, scsi_state_pb2.ScsiTargetState(units=[saved]))
    assert new.units[0].modes.values(8) == bytes((4,)) + bytes(17)
