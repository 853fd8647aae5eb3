# SPDX-License-Identifier: GPL-2.0-or-later
"""What open makes of a package, by its device_type. A type that is not in the table can be opened, and no more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import structlog

from of_client_service.device_path import Resolved
from of_client_service.disks.disk import DiskInstance, open_disk
from of_client_service.disks.units import BLOCK_TYPE
from of_client_service.instances import Instance
from of_client_service.network.devices import NETWORK_TYPE, is_network
from of_client_service.network.instance import NetworkInstance
from of_client_service.terminal import TerminalInstance
from of_client_service.volumes.source import VolumeError
from splitvisor.backend import Vm

log = structlog.get_logger()


async def open_package(vm: Vm, found: Resolved) -> Instance | None:
    """Open what a device specifier has led to; None when it cannot be opened."""
    opener = OPENERS.get(found.package.text("device_type"))
    return Instance(found.package, found.path) if opener is None else await opener(vm, found)


async def _open_terminal(vm: Vm, found: Resolved) -> Instance | None:
    unit = found.package.number("reg")
    return None if unit is None else TerminalInstance(found.package, found.path, unit)


async def _open_disk(vm: Vm, found: Resolved) -> Instance | None:
    parent = found.package.parent
    adapter = parent.number("reg") if parent is not None else None
    if adapter is None or not found.unit:
        return None
    try:
        medium, extents = await open_disk(vm, adapter, int(found.unit, 16), found.arguments)
    except VolumeError as error:
        log.debug("a client could not open a disk", disk=found.canonical, reason=str(error))
        return None
    return DiskInstance(found.package, found.path, medium, extents)


async def _open_network(vm: Vm, found: Resolved) -> Instance | None:
    # Arguments are for a network of the firmware's own (server, file, ...): GRUB passes some, so that there is none of them.
    package = found.package
    return NetworkInstance(package, found.path, package.number("reg") or 0) if is_network(package) else None


OPENERS: Mapping[str, Callable[[Vm, Resolved], Awaitable[Instance | None]]] = {
    "serial": _open_terminal,
    BLOCK_TYPE: _open_disk,
    NETWORK_TYPE: _open_network,
}
