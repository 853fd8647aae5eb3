# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine is: read from a TOML file and from flags, checked before anything starts.

A machine file::

    name = "demo"
    memory = "1G"              # 256M to 16G
    smp = 2                    # 1 to 8
    kernel = "vmlinux"         # paths are relative to this file
    initrd = "initramfs.cpio"
    append = "console=hvc0"
    firmware = "slof.bin"
    boot = ["cdrom", "disk"]   # without a kernel: disk, cdrom, net, nvram, menu; or a text, "cdrom,disk"
    boot_protocol = "papr"     # epapr: the kernel gets a flattened tree, and starts further vCPUs by a spin table
    watchdog_action = "log"    # of the guest's watchdog timers: reset, poweroff, nmi or log; without, what the guest has chosen
    flat_tree = false          # true: a firmware of less than 64 KiB, unlike VOF, wants a flattened tree
    shared_memory = true

    [[device]]
    kind = "vty"
    unit_address = 0x71000000  # optional
    server = "demo"            # optional: the VM whose vty-servers may take it

    [[device]]
    kind = "nvram"
    bytes = 65536              # any further key is an option of the device

    [[device]]
    kind = "v-scsi"            # up to 64 disks and CDs, each as --disk and --cdrom take it
    disk0 = "disk.img,cache=none"
    cdrom0 = "installer.iso"

    [[device]]
    kind = "l-lan"
    net = "user"               # as --net takes it; mac and pcap may stand beside it

    [[device]]
    kind = "disk"
    backend = "disks"          # the back end that has it; vio_service without

    [[backend]]                # besides the services of Splitvisor
    name = "disks"
    address = "unix:/run/disks.sock"
    slots = 8                  # optional: how many of the VIO bus's 64 slots it may fill
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from splitvisor.errors.problem import ProblemError
from splitvisor.errors.similar import did_you_mean
from splitvisor.limits import (
    BOOT_SOURCES,
    BOOTARGS_BYTES,
    MAX_DEVICES,
    MAX_FURTHER_BACKENDS,
    MAX_VCPUS,
    MEMORY_MAX,
    MEMORY_MIN,
    MEMORY_STEP,
    MIB,
    NVRAM_BYTES,
    NVRAM_MAX,
    NVRAM_MIN,
    VM_NAME_RULE,
    is_vm_name,
)
from splitvisor.machine.disks import VSCSI, DiskListError, adapter_options, flag_options
from splitvisor.net.addresses import AddressError
from splitvisor.net.tls_files import check_address
from splitvisor.papr.vio import SLOTS
from splitvisor.process.inputs import open_input
from splitvisor.process.text import is_text, shown
from splitvisor.process.toml_file import TomlError, read_toml
from splitvisor.rpc import machine_pb2, trap_pb2
from splitvisor.service.names import BACKEND_NAME, BACKEND_NAME_RULE, SERVICE_NAMES, VIO_SERVICE

VTYS_MAX = 16
UNIT_ADDRESSES = range(0x3000_0000, 0x8000_0000)
"""PAPR's virtual devices; QEMU's default addresses start at 0x71000000."""

MACHINE_FILE_BYTES = 1 << 20
"""The largest machine file."""
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


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


class _WrongError(Exception):
    """What is wrong with a value and what to do; the caller knows where it stands."""


def _size(value: Any, _base: Path) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
        if match is None:
            raise _WrongError(f"{value!r} is not a size", "give a number with a unit, such as 512M or 2G")
        size = int(Fraction(match[1]) * _UNITS[match[2].upper()])
    if not MEMORY_MIN <= size <= MEMORY_MAX:
        meant = _memory_meant(str(value).strip())
        remedy = f"did you mean {meant}?" if meant else f"give {MEMORY_MIN // MIB}M to {MEMORY_MAX >> 30}G"
        raise _WrongError(f"{value} is out of range", remedy)
    if size % MEMORY_STEP:
        raise _WrongError(
            f"{value} is not a multiple of {MEMORY_STEP // MIB}M", f"give {size // MEMORY_STEP * MEMORY_STEP // MIB}M"
        )
    return size


def _memory_meant(text: str) -> str:
    """Return a size whose unit somebody has left out; empty when there is no such size."""
    if text.isascii() and text.isdecimal() and len(text) < 9:
        for unit in ("M", "G"):
            size = int(text) * _UNITS[unit]
            if MEMORY_MIN <= size <= MEMORY_MAX and not size % MEMORY_STEP:
                return f"{text}{unit}"
    return ""


def _vcpus(value: Any, _base: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_VCPUS:
        raise _WrongError(f"{value!r} is not a number of vCPUs", f"give 1 to {MAX_VCPUS}")
    return value


def _name(value: Any, _base: Path) -> str:
    if not isinstance(value, str) or not is_vm_name(value):
        raise _WrongError(f"{value!r} is not a name", f"use {VM_NAME_RULE}")
    return value


def not_text(path: Path) -> tuple[str, str]:
    """Return what is wrong with a path that is_text() does not take and that another process is to open, and what to do."""
    return f"{shown(str(path))} is not UTF-8, as the service that opens it takes paths", "give the path of a link to it"


def _file(value: Any, base: Path) -> Path:
    if not isinstance(value, str | Path) or not str(value):
        raise _WrongError(f"{value!r} is not a path", "give the path of a file")
    path = base / Path(value).expanduser()
    if not is_text(str(path.absolute())):
        raise _WrongError(*not_text(path.absolute()))
    try:
        open_input(path).close()
    except OSError as error:
        raise _WrongError(f"{path} cannot be read ({error.strerror})", "give the path of a file") from error
    return path


def _append(value: Any, _base: Path) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise _WrongError(f"{value!r} is not a command line", "give a text")
    if not is_text(value):
        raise _WrongError(f"{shown(value)} is not UTF-8", "give a text in UTF-8")
    if len(value.encode()) > BOOTARGS_BYTES:
        raise _WrongError(f"is {len(value.encode())} bytes long", f"the kernel takes {BOOTARGS_BYTES}")
    return value


def _boot(value: Any, _base: Path) -> tuple[str, ...]:
    words = value.split(",") if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words) or not words:
        raise _WrongError(f"{value!r} is no list of what to boot from", f"give {' or '.join(BOOT_SOURCES)}, such as cdrom,disk")
    stripped = tuple(word.strip() for word in words)
    for word in stripped:
        if word not in BOOT_SOURCES:
            remedy = did_you_mean(word, BOOT_SOURCES) or f"known: {', '.join(BOOT_SOURCES)}"
            raise _WrongError(f"{word!r} is nothing to boot from", remedy)
    if len(set(stripped)) != len(stripped):
        raise _WrongError(f"{','.join(stripped)} names something twice", "name each once")
    return stripped


def _flag(value: Any, _base: Path) -> bool:
    if not isinstance(value, bool):
        raise _WrongError(f"{value!r} is neither true nor false", "give true or false")
    return value


WATCHDOG_ACTIONS = {
    "reset": machine_pb2.WATCHDOG_ACTION_RESET,
    "poweroff": machine_pb2.WATCHDOG_ACTION_POWER_OFF,
    "nmi": machine_pb2.WATCHDOG_ACTION_NMI,
    "log": machine_pb2.WATCHDOG_ACTION_LOG,
}
"""What the guest's watchdog timers can do, whatever it has chosen."""


def _watchdog_action(value: Any, _base: Path) -> str:
    if not isinstance(value, str) or value not in WATCHDOG_ACTIONS:
        remedy = did_you_mean(str(value), WATCHDOG_ACTIONS) or f"give {', '.join(WATCHDOG_ACTIONS)}"
        raise _WrongError(f"{value!r} is not an action of a watchdog", remedy)
    return value


BOOT_PROTOCOLS = {"papr": machine_pb2.BOOT_PROTOCOL_UNSPECIFIED, "epapr": machine_pb2.BOOT_PROTOCOL_EPAPR}
"""How a kernel can be started."""


def _boot_protocol(value: Any, _base: Path) -> str:
    if not isinstance(value, str) or value not in BOOT_PROTOCOLS:
        remedy = did_you_mean(str(value), BOOT_PROTOCOLS) or f"give {' or '.join(BOOT_PROTOCOLS)}"
        raise _WrongError(f"{value!r} is not a boot protocol", remedy)
    return value


_KEYS: dict[str, tuple[str, Callable[[Any, Path], Any]]] = {
    "name": ("name", _name),
    "memory": ("memory", _size),
    "smp": ("vcpus", _vcpus),
    "kernel": ("kernel", _file),
    "initrd": ("initrd", _file),
    "append": ("append", _append),
    "firmware": ("firmware", _file),
    "boot": ("boot", _boot),
    "flat_tree": ("flat_tree", _flag),
    "boot_protocol": ("boot_protocol", _boot_protocol),
    "watchdog_action": ("watchdog_action", _watchdog_action),
    "shared_memory": ("shared_memory", _flag),
}
"""Keys of a machine file (flags have the same names): the field that each sets, and its check."""


def _apply(config: MachineConfig, key: str, value: Any, where: tuple[str, str], base: Path) -> MachineConfig:
    name, check = _KEYS[key]
    try:
        checked = check(value, base)
    except _WrongError as wrong:
        raise ConfigError(*where, *wrong.args) from None
    return replace(config, **{name: checked})


def _device(table: Any, where: str, number: int, base: Path) -> Device:
    here = f"device[{number}]"
    if not isinstance(table, dict) or not isinstance(table.get("kind"), str) or not table["kind"]:
        raise ConfigError(where, here, "has no kind", 'give one, such as kind = "vty"')
    rest = dict(table)
    kind = rest.pop("kind")
    address = rest.pop("unit_address", 0)
    if not isinstance(address, int) or isinstance(address, bool) or (address and address not in UNIT_ADDRESSES):
        raise ConfigError(
            where,
            f"{here}.unit_address",
            f"{address!r} is not a unit address",
            f"give {UNIT_ADDRESSES.start:#x} to {UNIT_ADDRESSES.stop - 1:#x}, or leave it out",
        )
    backend = rest.pop("backend", VIO_SERVICE)
    if not isinstance(backend, str) or not BACKEND_NAME.fullmatch(backend):
        raise ConfigError(where, f"{here}.backend", f"{backend!r} is no name", "give the name of a back end, or leave it out")
    for key, value in rest.items():
        if not isinstance(value, str | int):
            raise ConfigError(where, f"{here}.{key}", "is a list or a table", "give a text or a number")
    if kind == VSCSI:
        try:
            rest = adapter_options(rest, base)
        except DiskListError as error:
            raise ConfigError(where, f"{here}.{error.key}".rstrip("."), error.problem.what, error.problem.remedy) from None
    elif backend == VIO_SERVICE:
        _check_own_device(kind, rest, where, here)
    return Device(kind, address, {key: str(value) for key, value in rest.items()}, backend)


def _nvram_bytes(value: Any) -> None:
    text = str(value)
    if isinstance(value, bool) or not text.isascii() or not text.isdecimal() or not NVRAM_MIN <= int(text[:18]) <= NVRAM_MAX:
        raise _WrongError(f"{value!r} is not a size of an NVRAM", f"give {NVRAM_MIN} to {NVRAM_MAX}")


def _vm_name(value: Any) -> None:
    _name(value, Path())


def _some_path(value: Any) -> None:
    if not isinstance(value, str) or not value or "\0" in value:
        raise _WrongError(f"{value!r} is not a path", "give the path of a file, or leave it out")


def _some_text(value: Any) -> None:
    if not isinstance(value, str) or not value or not is_text(value):
        raise _WrongError(f"{value!r} is not a text", "give one, or leave it out")


def _check_net(options: Mapping[str, Any]) -> None:
    from splitvisor.lan.options import parse_net  # many machines have no network
    from splitvisor.lan.wire import WireError

    if "net" not in options:
        raise _WrongError("is missing", 'give one, such as net = "user"')
    try:
        parse_net(options["net"], options.get("mac", ""), options.get("pcap", ""))
    except WireError as error:
        raise _WrongError(error.problem.what, error.problem.remedy) from None


_OWN_DEVICES: Mapping[str, Mapping[str, Callable[[Any], None]]] = {
    "l-lan": {"net": _some_text, "mac": _some_text, "pcap": _some_path},
    "nvram": {"bytes": _nvram_bytes, "path": _some_path},
    "vty": {"server": _vm_name},
    "vty-server": {},
}
"""The kinds of devices of vio_service: their options, and what checks each."""


def _check_own_device(kind: str, options: Mapping[str, Any], where: str, here: str) -> None:
    """Raise ConfigError when vio_service has no such device; it would say so once everything runs, in words of its own."""
    known = _OWN_DEVICES.get(kind)
    if known is None:
        kinds = (*_OWN_DEVICES, VSCSI)
        remedy = did_you_mean(kind, kinds) or f"known: {', '.join(kinds)}; place others with backend = NAME"
        raise ConfigError(where, f"{here}.kind", f"vio_service has no device {kind!r}", remedy)
    for key, value in options.items():
        check = known.get(key)
        if check is None:
            names = ("unit_address", "backend", *known)
            remedy = did_you_mean(key, names) or f"known: {', '.join(names)}"
            raise ConfigError(where, f"{here}.{key}", f"is not an option of {kind}", remedy)
        try:
            check(value)
        except _WrongError as wrong:
            raise ConfigError(where, f"{here}.{key}", *wrong.args) from None
    if kind == "l-lan":
        try:
            _check_net(options)
        except _WrongError as wrong:
            raise ConfigError(where, f"{here}.net", *wrong.args) from None


def _with_nets(devices: tuple[Device, ...], nets: Sequence[str]) -> tuple[Device, ...]:
    """Return devices with one more for each network, its files where this command would find them."""
    from splitvisor.lan.options import with_paths_from  # see above

    added = []
    for net in nets:
        _some_text(net)
        _check_net({"net": net})
        added.append(Device("l-lan", 0, {"net": with_paths_from(net, Path.cwd())}))
    if len(devices) + len(added) > MAX_DEVICES:
        raise _WrongError(f"{len(devices) + len(added)} devices are too many", f"give at most {MAX_DEVICES}")
    return (*devices, *added)


def check_nvram_files(config: MachineConfig, where: str, flag: Path | None) -> None:
    """Raise ConfigError when a file that is to keep an NVRAM of vio_service has another size. The file is on this host.

    Args:
        config: has the devices.
        where: the command, for messages.
        flag: the file of --nvram, when it was given; other files come from the machine file.
    """
    for number, device in enumerate(config.devices):
        path = device.options.get("path")
        if device.kind != "nvram" or device.backend != VIO_SERVICE or path is None:
            continue
        size = int(device.options.get("bytes", NVRAM_BYTES))
        try:
            found = os.stat(path)
        except OSError:
            continue  # There is none yet, or vio_service says what is wrong.
        if stat.S_ISREG(found.st_mode) and found.st_size != size:
            key = "--nvram" if flag is not None and str(flag.absolute()) == path else f"--machine: device[{number}].path"
            fits = NVRAM_MIN <= found.st_size <= NVRAM_MAX
            remedy = f"set bytes = {found.st_size} for the nvram in a machine file, or give" if fits else "give"
            what = f"{path} has {found.st_size} bytes, the machine's NVRAM {size}"
            raise ConfigError(where, key, what, f"{remedy} a file of that size or a new one")


def _devices(value: Any, where: str, base: Path) -> tuple[Device, ...]:
    if not isinstance(value, list):
        raise ConfigError(where, "device", "is not a list of tables", "start each device with [[device]]")
    if len(value) > MAX_DEVICES:
        raise ConfigError(where, "device", f"{len(value)} devices are too many", f"give at most {MAX_DEVICES}")
    devices = tuple(_device(table, where, number, base) for number, table in enumerate(value))
    addresses: dict[int, int] = {}
    for number, device in enumerate(devices):
        if device.unit_address in addresses:
            raise ConfigError(
                where,
                f"device[{number}].unit_address",
                f"{device.unit_address:#x} is device[{addresses[device.unit_address]}]'s too",
                "give each its own",
            )
        if device.unit_address:
            addresses[device.unit_address] = number
    return devices


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


def _backends(value: Any, where: str) -> tuple[BackendAddress, ...]:
    tables = value if isinstance(value, list) else [value]
    return check_backends([_backend(table, where, number) for number, table in enumerate(tables)], (where, "backend"))


def _check_placement(config: MachineConfig, where: str) -> None:
    """Raise ConfigError when a device is placed at a back end that the machine does not have."""
    names = [VIO_SERVICE, *(backend.name for backend in config.backends)]
    for number, device in enumerate(config.devices):
        if device.backend not in names:
            add = f"add --backend {device.backend}=ADDRESS, or [[backend]] to the machine file; known: {', '.join(names)}"
            known = did_you_mean(device.backend, names) or add
            raise ConfigError(where, f"device[{number}].backend", f"there is no back end {device.backend!r}", known)


def read_machine_file(path: Path, config: MachineConfig | None = None, *, read_from: Path | None = None) -> MachineConfig:
    """Return config (default: a machine with all defaults) with what a TOML file sets.

    read_from: where the contents of a pipe are; paths in them start at the working directory, else at the file's. Raises
    ConfigError.
    """
    where = str(path)
    base = path.parent if read_from in (None, path) else Path()
    try:
        table = read_toml(read_from or path, MACHINE_FILE_BYTES)
    except OSError as error:
        raise ConfigError(where, "", f"cannot be read ({error.strerror})", "give the path of a TOML file") from error
    except TomlError as error:
        raise ConfigError(where, "", f"is not TOML: {error.problem.what}", error.problem.remedy) from error
    result = config if config is not None else MachineConfig()
    for key, value in table.items():
        if key == "device":
            result = replace(result, devices=_devices(value, where, base))
        elif key == "backend":
            result = replace(result, backends=_backends(value, where))
        elif key in _KEYS:
            result = _apply(result, key, value, (where, key), base)
        else:
            known = (*_KEYS, "device", "backend")
            raise ConfigError(where, key, "is not a setting", did_you_mean(key, known) or f"known: {', '.join(known)}")
    return result


def with_nvram_file(devices: tuple[Device, ...], path: Path) -> tuple[Device, ...]:
    """Return devices whose first NVRAM, added when there is none, keeps its contents in a file of vio_service's host."""
    first = next((device for device in devices if device.kind == "nvram" and device.backend == VIO_SERVICE), None)
    nvram = first if first is not None else Device("nvram")
    kept = replace(nvram, options={**nvram.options, "path": str(path.absolute())})
    return (*(kept if device is first else device for device in devices), *(() if first is not None else (kept,)))


def with_disks(
    devices: tuple[Device, ...], disks: Sequence[str], cdroms: Sequence[str], where: str = "splitvisor run"
) -> tuple[Device, ...]:
    """Return devices with one more adapter of vio_service, which has disks and CDs. Raises ConfigError.

    Args:
        devices: that the machine has without.
        disks: as --disk has them; a relative path starts at the working directory.
        cdroms: as --cdrom has them.
        where: the command, for messages.
    """
    if not disks and not cdroms:
        return devices
    try:
        return (*devices, Device(VSCSI, options=flag_options(disks, cdroms)))
    except DiskListError as error:
        raise ConfigError(where, error.key, error.problem.what, error.problem.remedy) from None


def _check_what_boots(config: MachineConfig, where: str) -> None:
    """Raise ConfigError when what a machine is to start contradicts itself."""
    if config.initrd is not None and config.kernel is None and config.firmware is None:
        raise ConfigError(where, "--initrd", "there is no kernel to give it to", "add --kernel VMLINUX")
    if config.boot and config.kernel is not None:
        raise ConfigError(where, "--boot", "the machine has a kernel, which it boots", "leave out --kernel, or --boot")
    if config.boot_protocol == "epapr" and (config.kernel is None or config.firmware is not None):
        raise ConfigError(where, "--boot-protocol", "epapr starts a kernel, without firmware", "give --kernel and no --firmware")


def _with_vtys(devices: tuple[Device, ...], count: int) -> tuple[Device, ...]:
    if not 1 <= count <= VTYS_MAX:
        raise _WrongError(f"{count} terminals", f"give 1 to {VTYS_MAX}")
    others = (device for device in devices if device.kind != "vty" or device.backend != VIO_SERVICE)
    return (*(Device("vty") for _ in range(count)), *others)


def _with_usable_nvram_file(devices: tuple[Device, ...], value: Path) -> tuple[Device, ...]:
    path = Path(value)
    if not is_text(str(path.absolute())):
        raise _WrongError(*not_text(path.absolute()))
    if not path.parent.is_dir():
        raise _WrongError(f"{path} cannot be a file", "give a path in a directory that exists")
    if path.exists() and not path.is_file():
        raise _WrongError(f"{path} cannot be a file: something else is there", "give another path")
    return with_nvram_file(devices, path)


_DEVICE_FLAGS: Mapping[str, Callable[[tuple[Device, ...], Any], tuple[Device, ...]]] = {
    "vty": _with_vtys,
    "nvram": _with_usable_nvram_file,
    "net": _with_nets,
}
"""Flags that say which devices of vio_service there are."""


def apply_flags(config: MachineConfig, flags: Mapping[str, Any], where: str = "splitvisor run") -> MachineConfig:
    """Return config with what flags set: keys as in a machine file, and those of devices and back ends.

    `vty` is a number, `nvram` a path, `disk`, `cdrom` and `net` are lists, all of vio_service; `backend` is a list of more back
    ends. None is not set. where: the command that has the flags. Raises ConfigError.
    """
    for key, value in flags.items():
        flag = "--" + key.replace("_", "-")
        if value is None:
            continue
        if key in _DEVICE_FLAGS:
            try:
                config = replace(config, devices=_DEVICE_FLAGS[key](config.devices, value))
            except _WrongError as wrong:
                raise ConfigError(where, flag, *wrong.args) from None
        elif key in ("disk", "cdrom"):
            continue  # Together, below.
        elif key == "backend":
            config = replace(config, backends=check_backends((*config.backends, *value), (where, flag)))
        else:
            config = _apply(config, key, value, (where, flag), Path())
    config = replace(config, devices=with_disks(config.devices, flags.get("disk") or (), flags.get("cdrom") or (), where))
    _check_what_boots(config, where)
    _check_placement(config, where)
    return config
