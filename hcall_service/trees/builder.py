# SPDX-License-Identifier: GPL-2.0-or-later
"""The tree that a machine starts with (LoPAPR appendix B, IEEE 1275 and its PowerPC binding).

Values are those of QEMU's pseries machine with a POWER8, which guests are tested on; NUMA and PCI are left out, because this
machine has none. What is published is what is there: RTAS calls come with the request, and a function set of
ibm,hypertas-functions appears when every hypercall that it stands for has an owner.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable

from splitvisor.limits import BOOTARGS_BYTES, MAX_VCPUS
from splitvisor.papr.hcall import Hcall
from splitvisor.papr.processor import PVR_POWER8, TIMEBASE_HZ
from splitvisor.rpc import device_tree_pb2 as pb
from splitvisor.rpc import trap_pb2
from splitvisor.tree import fdt
from splitvisor.tree.cells import cells, double_cells, strings
from splitvisor.tree.fdt import Node, Tree

MAX_BACKEND_NODES = 1024
MAX_BACKEND_BYTES = 1 << 20
"""Of all values that back ends describe together."""
MAX_BOOT_WORDS = 8
SLOF_LETTERS = {"disk": "c", "cdrom": "d", "net": "n"}
_BOOT_WORD = re.compile(r"[a-z]{1,16}")

CLOCK_HZ = 1_000_000_000
CACHE_LINE_BYTES = 128
CACHE_BYTES = 32 << 10
SLB_ENTRIES = 32
PHANDLE_XICS = 0x1111
"""QEMU's number for the interrupt controller; guests that hard-wire it exist."""
EPOW_SOURCE = 0x1000
HOTPLUG_SOURCE = 0x1001
SPIN_TABLE_BYTES = 4096
SPIN_TABLE_ENTRY_BYTES = 32
RTAS_BLOB_BYTES = 20
RTAS_ERROR_LOG_BYTES = 2048

# Attributes of POWER8 as PAPR encodes them (LoPAPR appendix C, ibm,pa-features): 24 bytes, of type 0.
PA_FEATURES = bytes.fromhex("1800 f63fc7c080f08000 0000000000000000 8000800080000000")
# Base page shift, SLB encoding, and (page shift, PTE encoding) of each page size in such a segment: 4 KiB, 64 KiB.
SEGMENT_PAGE_SIZES = (12, 0, 1, 12, 0, 16, 0x110, 1, 16, 1)
SEGMENT_SIZES = (28, 40, 0xFFFF_FFFF, 0xFFFF_FFFF)

# Option vector 5 as (byte, value) pairs: XICS only, hash page table only, no radix extensions.
VECTOR_5_SUPPORT = bytes((23, 0, 24, 0, 25, 0, 26, 0))

FUNCTION_SETS: dict[str, tuple[Hcall, ...]] = {
    "hcall-pft": (Hcall.H_REMOVE, Hcall.H_ENTER, Hcall.H_READ, Hcall.H_PROTECT),
    "hcall-term": (Hcall.H_GET_TERM_CHAR, Hcall.H_PUT_TERM_CHAR),
    "hcall-dabr": (Hcall.H_SET_DABR,),
    "hcall-interrupt": (Hcall.H_EOI, Hcall.H_CPPR, Hcall.H_IPI, Hcall.H_IPOLL, Hcall.H_XIRR),
    "hcall-tce": (Hcall.H_GET_TCE, Hcall.H_PUT_TCE),
    "hcall-vio": (Hcall.H_VIO_SIGNAL,),
    "hcall-splpar": (Hcall.H_REGISTER_VPA, Hcall.H_CEDE, Hcall.H_CONFER, Hcall.H_PROD),
    "hcall-join": (Hcall.H_JOIN,),
    "hcall-bulk": (Hcall.H_BULK_REMOVE,),
    "hcall-set-mode": (Hcall.H_SET_MODE,),
    "hcall-sprg0": (Hcall.H_SET_SPRG0,),
    "hcall-copy": (Hcall.H_PAGE_INIT,),
    "hcall-debug": (
        Hcall.H_LOGICAL_CI_LOAD,
        Hcall.H_LOGICAL_CI_STORE,
        Hcall.H_LOGICAL_CACHE_LOAD,
        Hcall.H_LOGICAL_CACHE_STORE,
        Hcall.H_LOGICAL_ICBI,
        Hcall.H_LOGICAL_DCBF,
    ),
    "hcall-vphn": (Hcall.H_HOME_NODE_ASSOCIATIVITY,),
    "hcall-multi-tce": (Hcall.H_STUFF_TCE, Hcall.H_PUT_TCE_INDIRECT),
    "hcall-hpt-resize": (Hcall.H_RESIZE_HPT_PREPARE, Hcall.H_RESIZE_HPT_COMMIT),
    "hcall-watchdog": (Hcall.H_WATCHDOG,),
}
"""What ibm,hypertas-functions can name, and the hypercalls that each name promises."""

QEMU_FUNCTION_SETS: dict[str, tuple[Hcall, ...]] = {"hcall-memop1": (Hcall.H_LOGICAL_MEMOP,)}
"""The same for qemu,hypertas-functions, where SLOF looks."""


ROOT_CONNECTOR = 0x2000_0000
"""A host bridge's connector; the slots of the VIO bus have indexes from 0x30000000."""


class TreeBuildError(ValueError):
    """A tree cannot be built from a request; the text names what is wrong."""


def build_tree(request: pb.BuildTreeRequest, random_seed: bytes) -> Tree:
    """Return the seed tree.

    Args:
        request: the machine; see the .proto.
        random_seed: for the guest's random number generator.

    Raises TreeBuildError.
    """
    _check(request)
    hypercalls = frozenset(request.hypercalls)
    root = _root(request)
    root.children += [
        _rtas(request, hypercalls),
        _event_sources(),
        _cpus(request),
        _memory(request.ram_bytes),
        _interrupt_controller(request.vcpus),
    ]
    if Hcall.H_RANDOM in hypercalls:
        root.children.append(_platform_facilities())
    chosen = Node("chosen")
    root.children.append(chosen)
    add_nodes(root, request.nodes)
    chosen.properties = _chosen(request, root, random_seed) | chosen.properties
    reserved = [(request.spin_table, SPIN_TABLE_BYTES)] if request.spin_table else []
    images = [(image.address, image.length) for image in (request.kernel, request.initrd) if image.length]
    return Tree(root, reservations=images + reserved)


def _check(request: pb.BuildTreeRequest) -> None:
    if not 1 <= request.vcpus <= MAX_VCPUS:
        raise TreeBuildError(f"vcpus: {request.vcpus}, must be 1 to {MAX_VCPUS}")
    if not request.ram_bytes or request.ram_bytes % 4096:
        raise TreeBuildError(f"ram_bytes: {request.ram_bytes}, must be a multiple of 4096")
    if not 18 <= request.hash_table_shift <= 46:
        raise TreeBuildError(f"hash_table_shift: {request.hash_table_shift}, must be 18 to 46")
    if len(request.bootargs.encode()) > BOOTARGS_BYTES or "\0" in request.bootargs:
        raise TreeBuildError(f"bootargs: at most {BOOTARGS_BYTES} bytes, without NUL")
    if len(request.uuid) not in (0, 16):
        raise TreeBuildError(f"uuid: {len(request.uuid)} bytes, must be 16")
    if len(request.boot) > MAX_BOOT_WORDS or not all(_BOOT_WORD.fullmatch(word) for word in request.boot):
        raise TreeBuildError(f"boot: at most {MAX_BOOT_WORDS} words of at most 16 letters")
    spin_table = trap_pb2.MemoryRange(address=request.spin_table, length=SPIN_TABLE_BYTES if request.spin_table else 0)
    for name, block in (("kernel", request.kernel), ("initrd", request.initrd), ("spin_table", spin_table)):
        if block.address + block.length > request.ram_bytes:
            raise TreeBuildError(f"{name}: {block.address:#x}+{block.length:#x} is not in RAM")


def _root(request: pb.BuildTreeRequest) -> Node:
    properties = {
        "device_type": strings("chrp"),
        "model": strings("IBM pSeries (emulated by Splitvisor)"),
        "compatible": strings("qemu,pseries"),
        "#address-cells": cells(2),
        "#size-cells": cells(2),
        # drmgr looks for slots only below a root that has a connector itself. Nothing is ever plugged into this one.
        "ibm,drc-indexes": cells(1, ROOT_CONNECTOR),
        "ibm,drc-power-domains": cells(1, 0xFFFF_FFFF),
        "ibm,drc-names": cells(1) + strings("PHB 0"),
        "ibm,drc-types": cells(1) + strings("PHB"),
        "ibm,partition-name": strings(request.vm),
        # SLOF gives the controller a phandle of its own in place of ours, but only when something refers to it.
        "interrupt-parent": cells(PHANDLE_XICS),
    }
    if request.uuid:
        identity = str(uuid.UUID(bytes=request.uuid))
        properties |= {"vm,uuid": strings(identity), "system-id": strings(identity)}
    return Node("", properties)


def _rtas(request: pb.BuildTreeRequest, hypercalls: frozenset[int]) -> Node:
    properties = {
        "ibm,hypertas-functions": strings(*_function_sets(FUNCTION_SETS, hypercalls)),
        "qemu,hypertas-functions": strings(*_function_sets(QEMU_FUNCTION_SETS, hypercalls)),
        "ibm,associativity-reference-points": cells(4, 4, 2),
        "ibm,max-associativity-domains": cells(4, 0, 0, 0, 1),
        # The blob, an error log, and 16 bytes of saved state for each vCPU behind it.
        "rtas-size": cells(RTAS_BLOB_BYTES + RTAS_ERROR_LOG_BYTES + 16 * request.vcpus + 8),
        "rtas-error-log-max": cells(RTAS_ERROR_LOG_BYTES),
        "rtas-event-scan-rate": cells(1),
    }
    calls: dict[str, bytes] = {}
    for call in request.rtas_calls:
        if call.name in calls or call.name in properties:
            raise TreeBuildError(f"rtas_calls: {call.name!r} stands twice in /rtas")
        calls[call.name] = cells(call.token)
    if "ibm,os-term" in calls:
        properties["ibm,extended-os-term"] = b""
    return Node("rtas", properties | calls)


def _function_sets(table: dict[str, tuple[Hcall, ...]], hypercalls: frozenset[int]) -> list[str]:
    return [name for name, tokens in table.items() if hypercalls.issuperset(tokens)]


def _event_sources() -> Node:
    properties = {
        "interrupt-controller": b"",
        "#interrupt-cells": cells(2),
        "interrupt-ranges": cells(EPOW_SOURCE, 1, HOTPLUG_SOURCE, 1),
    }
    sources = (("epow-events", EPOW_SOURCE), ("hot-plug-events", HOTPLUG_SOURCE))
    return Node("event-sources", properties, [Node(name, {"interrupts": cells(source, 0)}) for name, source in sources])


def _cpus(request: pb.BuildTreeRequest) -> Node:
    cpus = [_cpu(index, request.hash_table_shift) for index in range(request.vcpus)]
    if request.spin_table:
        for index, cpu in enumerate(cpus[1:], 1):
            cpu.properties |= _waiting_at(request.spin_table + SPIN_TABLE_ENTRY_BYTES * index)
    return Node("cpus", {"#address-cells": cells(1), "#size-cells": cells(0)}, cpus)


def _cpu(index: int, hash_table_shift: int) -> Node:
    properties = {
        "reg": cells(index),
        "device_type": strings("cpu"),
        "cpu-version": cells(PVR_POWER8),
        "d-cache-block-size": cells(CACHE_LINE_BYTES),
        "d-cache-line-size": cells(CACHE_LINE_BYTES),
        "i-cache-block-size": cells(CACHE_LINE_BYTES),
        "i-cache-line-size": cells(CACHE_LINE_BYTES),
        "d-cache-size": cells(CACHE_BYTES),
        "i-cache-size": cells(CACHE_BYTES),
        "timebase-frequency": cells(TIMEBASE_HZ),
        "clock-frequency": cells(CLOCK_HZ),
        "slb-size": cells(SLB_ENTRIES),
        "ibm,slb-size": cells(SLB_ENTRIES),
        "status": strings("okay"),
        "64-bit": b"",
        "ibm,purr": cells(1),
        "ibm,spurr": cells(1),
        "ibm,processor-segment-sizes": cells(*SEGMENT_SIZES),
        "ibm,segment-page-sizes": cells(*SEGMENT_PAGE_SIZES),
        "ibm,vmx": cells(2),
        "ibm,dfp": cells(1),
        "ibm,pa-features": PA_FEATURES,
        "ibm,chip-id": cells(0),
        "ibm,pft-size": cells(0, hash_table_shift),
        "ibm,ppc-interrupt-server#s": cells(index),
        "ibm,ppc-interrupt-gserver#s": cells(index, 0),
    }
    return Node(f"PowerPC,POWER8@{index:x}", properties)


def _waiting_at(entry: int) -> dict[str, bytes]:
    """What the node of a processor has that waits for its entry of a spin table (ePAPR 1.1, 5.5.2)."""
    return {"status": strings("disabled"), "enable-method": strings("spin-table"), "cpu-release-addr": double_cells(entry)}


def _memory(ram_bytes: int) -> Node:
    properties = {
        "device_type": strings("memory"),
        "reg": double_cells(0, ram_bytes),
        "ibm,associativity": cells(4, 0, 0, 0, 0),
    }
    return Node("memory@0", properties)


def _interrupt_controller(vcpus: int) -> Node:
    properties = {
        "device_type": strings("PowerPC-External-Interrupt-Presentation"),
        "compatible": strings("IBM,ppc-xicp"),
        "interrupt-controller": b"",
        "ibm,interrupt-server-ranges": cells(0, vcpus),
        "#interrupt-cells": cells(2),
        "linux,phandle": cells(PHANDLE_XICS),
        "phandle": cells(PHANDLE_XICS),
    }
    return Node("interrupt-controller", properties)


def _platform_facilities() -> Node:
    random = Node("ibm,random-v1", {"device_type": strings("ibm,random-v1"), "compatible": strings("ibm,random")})
    properties = {"device_type": strings("ibm,platform-facilities"), "#address-cells": cells(1), "#size-cells": cells(0)}
    return Node("ibm,platform-facilities", properties, [random])


def add_nodes(root: Node, nodes: Iterable[trap_pb2.TreeNode]) -> None:
    """Put nodes that back ends described into a tree, parents before children. Raises TreeBuildError."""
    size = 0
    for count, described in enumerate(nodes, 1):
        path = described.path
        size += sum(len(entry.value) for entry in described.properties)
        if count > MAX_BACKEND_NODES or size > MAX_BACKEND_BYTES:
            limits = f"{MAX_BACKEND_NODES} nodes and {MAX_BACKEND_BYTES} bytes"
            raise TreeBuildError(f"node {path[: fdt.MAX_NAME]!r}: back ends described more than {limits}")
        try:
            parent_path, _, name = path.rpartition("/")
            fdt.check_node_name(name)
            for entry in described.properties:
                fdt.check_property_name(entry.name)
        except fdt.FdtError as error:
            raise TreeBuildError(f"node {path!r}: {error}") from error
        parent = root.find(parent_path or "/")
        if parent is None or parent_path == "/" or not path.startswith("/"):
            raise TreeBuildError(f"node {path!r}: its parent does not exist; parents come before children")
        if parent.child(name) is not None:
            raise TreeBuildError(f"node {path!r}: stands in the tree already")
        properties = {entry.name: entry.value for entry in described.properties}
        if len(properties) != len(described.properties):
            raise TreeBuildError(f"node {path!r}: a property stands twice")
        parent.children.append(Node(name, properties))


def _chosen(request: pb.BuildTreeRequest, root: Node, random_seed: bytes) -> dict[str, bytes]:
    properties = {"bootargs": strings(request.bootargs)}
    if request.initrd.length:
        end = request.initrd.address + request.initrd.length
        properties |= {"linux,initrd-start": double_cells(request.initrd.address), "linux,initrd-end": double_cells(end)}
    if request.kernel.length:
        properties["qemu,boot-kernel"] = double_cells(request.kernel.address, request.kernel.length)
        if request.kernel_little_endian:
            properties["qemu,boot-kernel-le"] = b""
    if request.boot:
        properties["splitvisor,boot"] = strings(*request.boot)
        # As SLOF has it: a letter for each kind of device, and whether it shows its menu.
        letters = "".join(SLOF_LETTERS.get(word, "") for word in request.boot)
        properties |= {"qemu,boot-device": strings(letters)} if letters else {}
        properties |= {"qemu,boot-menu": cells(1)} if "menu" in request.boot else {}
    console = _first_console(root)
    if console is not None:
        properties |= {"linux,stdout-path": strings(console), "stdout-path": strings(console)}
    return properties | {
        "linux,pci-probe-only": cells(0),
        "ibm,arch-vec-5-platform-support": VECTOR_5_SUPPORT,
        "rng-seed": random_seed,
    }


def _first_console(root: Node) -> str | None:
    """The path of the VTY with the lowest unit address."""
    bus = root.child("vdevice")
    terminals = [node for node in bus.children if node.name.startswith("vty@")] if bus is not None else []
    first = min(terminals, key=lambda node: node.properties.get("reg", b"\xff" * 4), default=None)
    return None if first is None else f"/vdevice/{first.name}"
