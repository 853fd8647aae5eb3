# SPDX-License-Identifier: GPL-2.0-or-later
"""SLOF, unmodified, hands its tree over at quiesce; its phandles are what a device added later gets."""

from __future__ import annotations

import grpc
import pytest

from splitvisor.guests.fetch import resolve
from splitvisor.rpc import device_tree_pb2 as pb
from splitvisor.rpc import device_tree_pb2_grpc
from splitvisor.tree import fdt
from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS, STEP_SECONDS, Guests


@pytest.mark.parametrize("memory", [(), ("--no-shared-memory",)], ids=["shared", "through-streams"])
def test_slofs_tree_is_stored_and_its_interrupt_controller_is_the_parent(
    run: Run, guests: Guests, memory: tuple[str, ...]
) -> None:
    slof = str(resolve("firmware", "slof"))
    # It has no root file system: told to wait for one, the kernel lives for as long as the commands below take.
    waiting = ("--append", "root=/dev/sda rootwait")
    console = run("--name", "slof", "--firmware", slof, "--kernel", str(guests.kernel), *waiting, *memory)
    console.expect("Quiescing Open Firmware", BOOT_SECONDS)
    console.expect("Booting Linux")
    with grpc.insecure_channel(console.service("hcall")) as channel:
        trees = device_tree_pb2_grpc.DeviceTreeServiceStub(channel)
        head = trees.GetTree(pb.GetTreeRequest(vm="slof"), timeout=STEP_SECONDS)
    assert head.revision.origin == pb.TREE_ORIGIN_UPDATE_DT
    controller = fdt.read(head.blob).root.child("interrupt-controller")
    assert controller is not None
    phandle = int.from_bytes(controller.properties["phandle"])
    assert phandle != 0x1111, "SLOF numbers nodes itself"

    added = console.splitvisor("vm", "device-add", "slof", "vty", "--wait", "0")
    assert f"interrupt parent {phandle:#x}, from the stored tree" in added.stdout, added

    changes = console.splitvisor("dt", "diff", "slof", "seed..head")
    assert changes.returncode == 0, changes
    assert "/interrupt-controller" in changes.stdout
    assert console.splitvisor("dt", "validate", "slof").returncode == 0
