# SPDX-License-Identifier: GPL-2.0-or-later
"""A hostile client program at its disks: whatever it calls, the service answers, and asks the back end only what it may."""

from __future__ import annotations

import asyncio
import random

from of_client_service.session import ClientInterfaceSession
from splitvisor.papr.block_access import CD_ROM
from tests.amounts import examples
from tests.unit.of_drives import ADAPTER_PATH, Drive, disk_path, lun_of, machine_with
from tests.unit.of_machine import BUFFER, RAM_BYTES

SIZE = 300 * 512
NUMBERS = (
    0, 1, 2, 3, 4, 511, 512, 513, 4096, SIZE, SIZE - 1, RAM_BYTES, RAM_BYTES - 512, BUFFER,
    0x4000, 0x6000, 0x7FFF_FFFF, 0xFFFF_FFFF,
)  # fmt: skip
PATHS = (
    "disk", "disk1", "cdrom", "cdrom:1", "disk:0", "disk:999", "disk:,\\x", ADAPTER_PATH, f"{ADAPTER_PATH}/disk",
    f"{disk_path(1)}:0", f"{ADAPTER_PATH}/disk@ffffffffffffffff", f"{ADAPTER_PATH}/disk@0", "/chosen", "/",
    "disk:1,\\ppc\\bootinfo.txt", "disk/disk@1/disk",
)  # fmt: skip
METHODS = ("block-size", "#blocks", "max-transfer", "vscsi-report-luns", "read", "write", "seek", "nothing")
PROPERTIES = ("device_type", "reg", "name", "disk", "bootpath", "splitvisor,boot")
CALLS = 4000
"""That are made; ten times as many with --long."""


def test_calls_of_any_order_and_arguments_are_answered() -> None:
    dice = random.Random(11)
    client, drives = machine_with(
        Drive(bytearray(dice.randbytes(SIZE))),
        Drive(bytearray(dice.randbytes(SIZE)), 2048, CD_ROM),
        Drive(bytearray(dice.randbytes(SIZE)), 4096, broken=range(8192, 9000)),
        Drive(bytearray(), 2048, CD_ROM, has_medium=False),
    )
    ihandles = [0]

    def number() -> int:
        return dice.choice((dice.choice(NUMBERS), dice.randrange(1 << 32), dice.choice(ihandles)))

    for _ in range(examples(CALLS)):
        match dice.randrange(12):
            case 0 | 1:
                opened = client.call("open", dice.choice(PATHS))
                ihandles = [*ihandles[-50:], opened]
            case 2:
                client.call_all("close", dice.choice(ihandles), returns=0)
            case 3 | 4 | 5:
                client.call(dice.choice(("read", "write")), dice.choice(ihandles), number(), number())
            case 6 | 7:
                client.call("seek", dice.choice(ihandles), dice.choice((0, 0, 0, 1, 0xFFFF_FFFF)), number())
            case 8:
                cells = [number() for _ in range(dice.randrange(4))]
                client.call_all("call-method", dice.choice(METHODS), dice.choice(ihandles), *cells, returns=dice.randrange(1, 5))
            case 9:
                package = client.find(dice.choice(PATHS))
                client.call("setprop", package, dice.choice(PROPERTIES), BUFFER, dice.randrange(20))
            case 10:
                client.poke(BUFFER, dice.choice((b"block\0", b"vscsi\0", b"serial\0", dice.randbytes(8))))
                client.call_all("splitvisor,boot", returns=2)
            case _:
                state = asyncio.run(client.session.save())
                restored = ClientInterfaceSession(client.vm, client.store)
                asyncio.run(restored.restore(state))
                client.session, client.of = restored, restored.interface
    assert {request.lun for request in drives.requests} & {lun_of(1), lun_of(2), lun_of(3)}
