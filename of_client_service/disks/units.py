# SPDX-License-Identifier: GPL-2.0-or-later
"""The logical units of a machine's v-scsi adapters: their nodes and aliases, as GRUB and SLOF name them.

Each adapter has a child `disk` that stands for all its logical units, CD-ROM drives too:
"/vdevice/v-scsi@71000002/disk@8100000000000000". Aliases are disk, disk1, ... and cdrom, cdrom1, ..., in the order of paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from of_client_service.device_tree import DeviceTree, Package
from of_client_service.disks.medium import NoMediumError, open_medium
from of_client_service.disks.scratch import LUN_TABLE_AT, LUN_TABLE_BYTES
from of_client_service.volumes.source import MediumError
from splitvisor.backend import Vm
from splitvisor.papr.block_access import CD_ROM, DISK, LUN_BYTES, BlockOperation, BlockRequest, BlockUnit
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall
from splitvisor.tree import fdt
from splitvisor.tree.cells import cells, strings

ADAPTER_TYPE = "vscsi"
BLOCK_TYPE = "block"
ALIASES = {DISK: "disk", CD_ROM: "cdrom"}
MAX_UNITS = 256
"""Logical units of an adapter that are looked at; a v-scsi adapter addresses 64 targets."""
_HEADER_BYTES = 8
"""What vscsi-report-luns puts before its list: a cell of eight bytes that points to it."""


@dataclass(frozen=True)
class LogicalUnit:
    """A disk or a CD-ROM drive."""

    path: str
    adapter: int
    """Unit address of its adapter."""
    lun: int
    device_type: int
    unit: BlockUnit | None
    """None: it has no medium, or cannot say what it is."""
    alias: str = ""

    @property
    def name(self) -> str:
        """For a line on the console."""
        return f"{self.alias} ({self.path})" if self.alias else self.path


def is_adapter(package: Package) -> bool:
    """Whether a package is a v-scsi adapter."""
    return package.text("device_type") == ADAPTER_TYPE and package.number("reg") is not None


def add_nodes(tree: fdt.Tree) -> None:
    """Give every adapter of a tree its child, and the tree a place for aliases."""
    adapters = [node for node in _all_nodes(tree.root) if node.properties.get("device_type") == strings(ADAPTER_TYPE)]
    for adapter in adapters:
        adapter.properties |= {"#address-cells": cells(2), "#size-cells": cells(0)}
        if adapter.child("disk") is None:
            adapter.children.append(fdt.Node("disk", {"device_type": strings(BLOCK_TYPE)}))
    if adapters and tree.root.child("aliases") is None:
        tree.root.children.append(fdt.Node("aliases"))


def _all_nodes(root: fdt.Node) -> Iterator[fdt.Node]:
    pending = [root]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(node.children)


async def find_units(vm: Vm, tree: DeviceTree) -> tuple[LogicalUnit, ...]:
    """Ask every adapter for its logical units, and write their aliases. Only inside a handler."""
    units: list[LogicalUnit] = []
    for package in tree.packages():
        address = package.number("reg")
        if is_adapter(package) and address is not None:
            luns = await list_luns(vm, address, LUN_TABLE_AT, LUN_TABLE_BYTES)
            units += [await _describe(vm, package.path, address, lun) for lun in luns]
    named = _with_aliases(sorted(units, key=lambda unit: unit.path))
    aliases = next((child for child in tree.root.children if child.unit_name == "aliases"), None)
    if aliases is not None:
        aliases.node.properties |= {unit.alias: strings(unit.path) for unit in named if unit.alias}
    return named


async def list_luns(vm: Vm, adapter: int, address: int, length: int) -> list[int]:
    """Return the LUNs of an adapter; none when its back end has no such call. address, length: guest memory for the list."""
    request = BlockRequest(adapter, BlockOperation.LIST, address=address, length=length)
    result, outputs = await vm.invoke(Hcall.SPLITVISOR_H_BLOCK, *request.arguments())
    if result != H.SUCCESS or not outputs:
        return []
    count = min(outputs[0], length // LUN_BYTES, MAX_UNITS)
    data = await vm.memory.read(address, count * LUN_BYTES)
    luns = (int.from_bytes(data[at : at + LUN_BYTES], "big") for at in range(0, len(data), LUN_BYTES))
    return sorted(set(luns) - {0})


async def report_luns(vm: Vm, adapter: int) -> tuple[int, int]:
    """Put the list of an adapter's LUNs into guest memory, as SLOF's vscsi-report-luns does for GRUB.

    Returns the number of lists, 0 or 1, and the address of a cell of eight bytes whose lower half points to the list: 64-bit
    LUNs, the last one followed by 0. It stays there until the next such call.
    """
    list_at = LUN_TABLE_AT + _HEADER_BYTES
    luns = await list_luns(vm, adapter, list_at, LUN_TABLE_BYTES - _HEADER_BYTES - LUN_BYTES)
    numbers = (list_at, *luns, 0)
    await vm.memory.write(LUN_TABLE_AT, b"".join(number.to_bytes(8, "big") for number in numbers))
    return (1 if luns else 0, LUN_TABLE_AT)


async def _describe(vm: Vm, adapter_path: str, address: int, lun: int) -> LogicalUnit:
    path = f"{adapter_path}/disk@{lun:x}"
    try:
        unit = (await open_medium(vm, address, lun)).unit
    except NoMediumError:
        return LogicalUnit(path, address, lun, CD_ROM, None)
    except MediumError:
        return LogicalUnit(path, address, lun, DISK, None)
    return LogicalUnit(path, address, lun, unit.device_type, unit)


def _with_aliases(units: Sequence[LogicalUnit]) -> tuple[LogicalUnit, ...]:
    taken: dict[str, int] = {}
    named = []
    for unit in units:
        base = ALIASES.get(unit.device_type, "")
        number = taken.get(base, 0)
        taken[base] = number + 1
        alias = f"{base}{number or ''}" if base else ""
        named.append(LogicalUnit(unit.path, unit.adapter, unit.lun, unit.device_type, unit.unit, alias))
    return tuple(named)
