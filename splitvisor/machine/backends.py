# SPDX-License-Identifier: GPL-2.0-or-later
"""The back ends of a machine besides the services of Splitvisor, and which devices are placed at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from splitvisor.errors.similar import did_you_mean
from splitvisor.limits import MAX_FURTHER_BACKENDS
from splitvisor.machine.config import BackendAddress, ConfigError, MachineConfig
from splitvisor.net.addresses import AddressError
from splitvisor.net.tls_files import check_address
from splitvisor.papr.vio import SLOTS
from splitvisor.service.names import BACKEND_NAME, BACKEND_NAME_RULE, SERVICE_NAMES, VIO_SERVICE


def check_backends(backends: Sequence[BackendAddress], where: tuple[str, str]) -> tuple[BackendAddress, ...]:
    """Return back ends that stand at where (file and key, or command and flag), checked. Raises ConfigError."""
    if len(backends) > MAX_FURTHER_BACKENDS:
        raise ConfigError(*where, f"{len(backends)} back ends are too many", f"give at most {MAX_FURTHER_BACKENDS}")
    taken = {name.package for name in SERVICE_NAMES}
    for backend in backends:
        if not BACKEND_NAME.fullmatch(backend.name):
            raise ConfigError(*where, f"{backend.name!r} is no name", f"give {BACKEND_NAME_RULE}")
        if backend.name in taken:
            raise ConfigError(*where, f"{backend.name} is taken", "give each back end a name of its own")
        taken.add(backend.name)
        if not backend.address:
            raise ConfigError(*where, f"{backend.name} has no address", "give unix:/path or host:port")
        try:
            check_address(backend.address)
        except AddressError as error:
            raise ConfigError(*where, error.problem.what, error.problem.remedy) from None
    return tuple(backends)


def _backend(table: Any, where: str, number: int) -> BackendAddress:
    here = f"backend[{number}]"
    known = isinstance(table, dict) and {"name", "address"} <= table.keys() <= {"name", "address", "slots"}
    if not known or not isinstance(table["name"], str) or not isinstance(table["address"], str):
        remedy = 'start it with [[backend]], then name = "..." and address = "..."'
        raise ConfigError(where, here, "is not a name and an address", remedy)
    slots = table.get("slots")
    if slots is not None and (not isinstance(slots, int) or isinstance(slots, bool) or not 1 <= slots <= SLOTS):
        raise ConfigError(where, f"{here}.slots", f"{slots!r} is not a number of slots", f"give 1 to {SLOTS}, or leave it out")
    return BackendAddress(table["name"], table["address"], slots or 0)


def read_backends(value: Any, where: str) -> tuple[BackendAddress, ...]:
    """Return the back ends of a machine file, the value of its key `backend`, checked. Raises ConfigError."""
    tables = value if isinstance(value, list) else [value]
    return check_backends([_backend(table, where, number) for number, table in enumerate(tables)], (where, "backend"))


def check_placement(config: MachineConfig, where: str) -> None:
    """Raise ConfigError when a device is placed at a back end that the machine does not have."""
    names = [VIO_SERVICE, *(backend.name for backend in config.backends)]
    for number, device in enumerate(config.devices):
        if device.backend not in names:
            add = f"add --backend {device.backend}=ADDRESS, or [[backend]] to the machine file; known: {', '.join(names)}"
            known = did_you_mean(device.backend, names) or add
            raise ConfigError(where, f"device[{number}].backend", f"there is no back end {device.backend!r}", known)
