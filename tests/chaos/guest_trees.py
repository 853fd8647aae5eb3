# SPDX-License-Identifier: GPL-2.0-or-later
"""Tree updates that a guest makes itself: Debian's own drmgr takes devices from slots and gives them back, again and again.

Each taking and each giving is a revision of the stored tree. The guest sees every step through and looks at the node that it got;
afterwards the revisions are compared with what it has seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import grpc

from splitvisor.guests.fetch import MODULES
from splitvisor.net.pages import every
from splitvisor.rpc import device_tree_pb2, trap_pb2, vio_bus_pb2, vio_bus_pb2_grpc
from splitvisor.tree import fdt

FIRST_SLOT, SLOTS = 2, 4
"""Slots of the bus, behind the terminal's and the nvram's; the guest goes round, so a change that is missing or doubled shows."""
KIND, KIND_BYTES = "nvram", 8192
ADDRESS = 0x7100_0000
PROPERTIES = ("compatible", "device_type", "ibm,my-drc-index", "interrupt-parent", "interrupts", "reg")
"""What the digest of a node is made of, in this order."""
LOAD_MODULES = " && ".join(f"insmod /{name}.ko" for name in MODULES)
WORKLOAD = f"""n=0; bad=0; : > /tmp/taken
while [ ! -e /tmp/enough ]; do
slot=$(({FIRST_SLOT} + n % {SLOTS})); n=$((n+1)); node=/proc/device-tree/vdevice/{KIND}@7100000$slot
drmgr="/usr/sbin/drmgr -w 1 -c slot -s V1-C$slot"
$drmgr -a > /tmp/said 2>&1 || {{ bad=$((bad+1)); cat /tmp/said >> /tmp/wrong; }}
(cd $node && cat {" ".join(PROPERTIES)}) 2>&1 | sha256sum | cut -c 1-64 >> /tmp/taken
$drmgr -r > /tmp/said 2>&1 || {{ bad=$((bad+1)); cat /tmp/said >> /tmp/wrong; }}
[ ! -e $node ] || bad=$((bad+1))
done
if [ -e /tmp/wrong ]; then cat /tmp/wrong; fi
echo "the trees: $n taken and given, $bad bad"
"""


def plug_in(address: str, vm: str) -> None:
    """Put a device into each slot that the guest goes round, for it to take."""
    with grpc.insecure_channel(address) as channel:
        bus = vio_bus_pb2_grpc.VioBusServiceStub(channel)
        for number in range(SLOTS):
            spec = trap_pb2.DeviceSpec(kind=KIND, unit_address=ADDRESS + FIRST_SLOT + number, options={"bytes": str(KIND_BYTES)})
            bus.AddDevice(vio_bus_pb2.AddDeviceRequest(vm=vm, device=spec), timeout=30)


def stored_changes(trees: Any, vm: str) -> Iterator[tuple[int, str]]:
    """Yield what came and went in a VM's revisions, the oldest first: the slot, and the digest of what came there or nothing."""
    history = every(trees.ListRevisions, device_tree_pb2.ListRevisionsRequest(vm=vm), 30)
    before: dict[int, str] = {}
    for revision in reversed(history):
        answer = trees.GetTree(device_tree_pb2.GetTreeRequest(vm=vm, revision=revision.number), timeout=30)
        now = _in_slots(answer.blob)
        yield from ((slot, "") for slot in before.keys() - now.keys())
        yield from ((slot, digest) for slot, digest in now.items() if before.get(slot) != digest)
        before = now


def expected_changes(digests: Sequence[str]) -> list[tuple[int, str]]:
    """What the revisions must show of a guest that has seen these nodes."""
    return [
        change
        for number, digest in enumerate(digests)
        for change in ((FIRST_SLOT + number % SLOTS, digest), (FIRST_SLOT + number % SLOTS, ""))
    ]


def _in_slots(blob: bytes) -> dict[int, str]:
    """The digest of each node in the guest's slots, by slot."""
    bus = fdt.read(blob).root.child("vdevice")
    assert bus is not None
    nodes = {slot: bus.child(f"{KIND}@{ADDRESS + slot:x}") for slot in range(FIRST_SLOT, FIRST_SLOT + SLOTS)}
    return {
        slot: hashlib.sha256(b"".join(node.properties[name] for name in PROPERTIES)).hexdigest()
        for slot, node in nodes.items()
        if node is not None
    }
