# SPDX-License-Identifier: GPL-2.0-or-later
"""A flood of frames from the host: the service's memory stays as it is, what is lost is counted, and the guest goes on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from splitvisor.guests.commands import Commands
from splitvisor.lan.options import parse_net
from splitvisor.lan.switch import Switches
from splitvisor.lan.wires import make_wire
from splitvisor.observe.metrics import NETWORK_DROPPED, NETWORK_FRAMES
from tests.component.test_metrics import scrape
from tests.frames import BROADCAST, ethernet
from tests.guests.harness import BOOT_SECONDS, Console, Guests
from tests.guests.lan import address, check_driver
from tests.services import Service

VM = f"flood-{os.getpid()}"
FRAMES = int(os.environ.get("SPLITVISOR_NET_FLOOD_FRAMES", "60000"))
FRAME_BYTES = 1500
GROWN_BYTES = 40 << 20
"""The bounds of all queues together are less, and the flood is more than twice that."""
FLOOD_S = 300.0


def own_memory(service: Service) -> int:
    """Return the bytes of a service's own: guest RAM is mapped there, too, and frames fill the guest's buffers."""
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) << 10


async def flood(net: str) -> None:
    """Send as many frames to the guest's switch, each as soon as the connection takes it."""
    wire = make_wire(parse_net(net), "test", Switches())
    await wire.open(lambda _frame: True)
    frame = ethernet(BROADCAST, bytes.fromhex("020000000077"), bytes(FRAME_BYTES - 14))
    async with asyncio.timeout(FLOOD_S):
        while wire.counters.sent < FRAMES:
            before = wire.counters.sent_dropped
            wire.send(frame)
            await asyncio.sleep(0 if wire.counters.sent_dropped == before else 0.001)
    await wire.close()


def test_a_flood_from_the_host_grows_no_memory_and_is_counted(
    run: Callable[..., Console], guests: Guests, short_path: Path
) -> None:
    vio = Service("vio", short_path, "--metrics", "0")
    try:
        files = ("--kernel", str(guests.kernel), "--initrd", str(guests.io), "--append", "console=hvc0 panic=-1")
        net = ("--net", f"switch=flood,listen=unix:{short_path}/wire", "--net", "switch=flood")
        console = run(*files, "--name", VM, "--connect", f"vio={vio.address}", *net)
        console.expect("guest# ", BOOT_SECONDS)
        guest = Commands(console)
        address(guest, 1)
        guest.ok("ip link set eth1 up")
        before = own_memory(vio)
        asyncio.run(flood(f"socket=unix:{short_path}/wire"))
        assert FRAMES * FRAME_BYTES > 2 * GROWN_BYTES
        assert own_memory(vio) - before < GROWN_BYTES
        values = scrape(vio)
        for device in ("0x71000002", "0x71000003"):
            counted = {metric: values[metric.name, (VM, device, "received")] for metric in (NETWORK_FRAMES, NETWORK_DROPPED)}
            assert counted[NETWORK_DROPPED] > 0
            assert counted[NETWORK_FRAMES] > 0
        assert int(guest.ok("cat /sys/class/net/eth0/statistics/rx_packets")) > 0
        check_driver(guest)
    finally:
        vio.end()
