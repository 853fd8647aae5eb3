# SPDX-License-Identifier: GPL-2.0-or-later
"""Device trees of real machines: those that hcall_service builds, and QEMU's."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from hcall_service.trees.builder import build_tree
from splitvisor.papr.hcall import Hcall
from splitvisor.papr.rtas import TOKENS
from splitvisor.rpc import device_tree_pb2 as pb
from splitvisor.rpc import trap_pb2
from splitvisor.tree import fdt

UUID = bytes(range(16))
RAM = 512 << 20


def build_request(vm: str = "test") -> pb.BuildTreeRequest:
    vty = trap_pb2.TreeNode(path="/vdevice/vty@71000000", properties=[trap_pb2.TreeProperty(name="reg", value=b"\x71\0\0\0")])
    return pb.BuildTreeRequest(
        vm=vm,
        ram_bytes=RAM,
        vcpus=2,
        hash_table_shift=22,
        bootargs="console=hvc0",
        rtas_calls=[pb.RtasToken(name=name, token=token) for name, token in TOKENS.items()],
        hypercalls=list(Hcall),
        nodes=[trap_pb2.TreeNode(path="/vdevice"), vty],
        uuid=UUID,
    )


def seed_blob(vcpus: int = 2) -> bytes:
    """The tree that a machine of ours starts with."""
    request = build_request()
    request.vcpus = vcpus
    return fdt.emit(build_tree(request, bytes(32)))


_ELF_HEADER = struct.pack(">16sHHIQQQIHHHHHH", b"\x7fELF\2\2\1", 2, 21, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0) + struct.pack(
    ">IIQQQQQQ", 1, 5, 120, 0, 0, 0x100, 0x100, 8
)
"""A PowerPC program with one segment: QEMU builds no tree without a kernel."""


def qemu_blob(directory: Path) -> bytes:
    """The tree that QEMU gives the same machine, or skip the test."""
    if shutil.which("qemu-system-ppc64") is None:
        pytest.skip("needs qemu-system-ppc64")
    path, kernel = directory / "qemu.dtb", directory / "kernel"
    kernel.write_bytes(_ELF_HEADER + bytes(0x100))
    machine = f"pseries,x-vof=on,dumpdtb={path},cap-cfpc=broken,cap-sbbc=broken,cap-ibs=broken"
    command = ["qemu-system-ppc64", "-M", machine, "-cpu", "power8", "-smp", "2", "-m", "512M", "-nodefaults", "-display", "none"]
    subprocess.run(
        [*command, "-serial", "null", "-append", "console=hvc0", "-kernel", str(kernel)],
        capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False,
    )  # fmt: skip
    if not path.exists():
        pytest.skip("this qemu-system-ppc64 does not dump a tree")
    return path.read_bytes()
