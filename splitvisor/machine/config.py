# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine is, checked: machine_file.py reads one, cpu_service takes its message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from splitvisor.errors.problem import ProblemError
from splitvisor.limits import MIB
from splitvisor.machine.disks import VSCSI
from splitvisor.rpc import machine_pb2, trap_pb2
from splitvisor.service.names import VIO_SERVICE


class ConfigError(ProblemError):
    """A setting is wrong. One line: where it stands, its name, what is wrong, what to do."""

    def __init__(self, where: str, key: str, what: str, remedy: str) -> None:
        super().__init__(f"{where}: {key}: {what}" if key else f"{where}: {what}", remedy)


@dataclass(frozen=True)
class Device:
    """A virtual device."""

    kind: str
    unit_address: int = 0
    """0: the bus chooses."""
    options: Mapping[str, str] = field(default_factory=dict)
    backend: str = VIO_SERVICE
    """The name of the back end that has it."""


@dataclass(frozen=True)
class BackendAddress:
    """A back end besides the services of Splitvisor, which runs already."""

    name: str
    address: str
    """A gRPC target."""
    slots: int = 0
    """How many slots of the VIO bus it may fill; 0: as many as cpu_service gives each."""


WATCHDOG_ACTIONS = {
    "reset": machine_pb2.WATCHDOG_ACTION_RESET,
    "poweroff": machine_pb2.WATCHDOG_ACTION_POWER_OFF,
    "nmi": machine_pb2.WATCHDOG_ACTION_NMI,
    "log": machine_pb2.WATCHDOG_ACTION_LOG,
}
"""What the guest's watchdog timers can do, whatever it has chosen."""


BOOT_PROTOCOLS = {"papr": machine_pb2.BOOT_PROTOCOL_UNSPECIFIED, "epapr": machine_pb2.BOOT_PROTOCOL_EPAPR}
"""How a kernel can be started."""

DEFAULT_BOOT = ("nvram", "disk", "cdrom")
DEFAULT_DEVICES = (Device("vty"), Device("nvram"))


@dataclass(frozen=True)
class MachineConfig:
    """A machine, checked."""

    name: str = "guest"
    memory: int = 512 * MIB
    """Bytes of RAM."""
    vcpus: int = 1
    kernel: Path | None = None
    """None: see boot."""
    initrd: Path | None = None
    append: str = ""
    firmware: Path | None = None
    """A raw firmware image; None: Splitvisor's own."""
    boot: tuple[str, ...] = ()
    """What it boots from without a kernel, in order; none stated: the demo guest, or its disks if it has a v-scsi adapter."""
    flat_tree: bool = False
    """The firmware image wants a flattened tree; one of more than 64 KiB gets it anyway."""
    boot_protocol: str = ""
    """A key of BOOT_PROTOCOLS; empty: PAPR's."""
    watchdog_action: str = ""
    """A key of WATCHDOG_ACTIONS; empty: what the guest has chosen."""
    shared_memory: bool = True
    devices: tuple[Device, ...] = DEFAULT_DEVICES
    backends: tuple[BackendAddress, ...] = ()

    def message(self, services: Mapping[str, str]) -> machine_pb2.MachineConfig:
        """Return it as cpu_service takes it. services: the gRPC target of each back end of Splitvisor's own, by name."""

        def path(value: Path | None) -> str:
            return str(value.absolute()) if value is not None else ""

        return machine_pb2.MachineConfig(
            name=self.name,
            memory_mib=self.memory // MIB,
            vcpus=self.vcpus,
            kernel=path(self.kernel),
            initrd=path(self.initrd),
            append=self.append,
            firmware=path(self.firmware),
            devices=[
                trap_pb2.DeviceSpec(
                    kind=device.kind, unit_address=device.unit_address, options=dict(device.options), backend=device.backend
                )
                for device in self.devices
            ],
            # Own services first: a node of another back end may stand below one of theirs.
            backends=[
                *(machine_pb2.BackendAddress(name=name, address=address) for name, address in services.items()),
                *(
                    machine_pb2.BackendAddress(name=each.name, address=each.address, vio_slots=each.slots)
                    for each in self.backends
                ),
            ],
            private_memory=not self.shared_memory,
            flat_tree=self.flat_tree,
            boot=self.boot_order,
            boot_protocol=BOOT_PROTOCOLS.get(self.boot_protocol, machine_pb2.BOOT_PROTOCOL_UNSPECIFIED),
            watchdog_action=WATCHDOG_ACTIONS.get(self.watchdog_action, machine_pb2.WATCHDOG_ACTION_UNSPECIFIED),
        )

    @property
    def boot_order(self) -> tuple[str, ...]:
        """What it boots from; none: the kernel, or the demo guest."""
        has_own = self.boot or self.kernel is not None or self.firmware is not None
        has_disks = any(device.kind == VSCSI for device in self.devices)
        return self.boot if has_own or not has_disks else DEFAULT_BOOT
