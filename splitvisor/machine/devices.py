# SPDX-License-Identifier: GPL-2.0-or-later
"""The virtual devices of a machine: tables of a machine file, flags, and the options of vio_service's own kinds."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from splitvisor.errors.similar import did_you_mean
from splitvisor.limits import MAX_DEVICES, NVRAM_BYTES, NVRAM_MAX, NVRAM_MIN
from splitvisor.machine.config import ConfigError, Device, MachineConfig
from splitvisor.machine.disks import VSCSI, DiskListError, adapter_options, flag_options
from splitvisor.machine.settings import WrongValueError, check_name, not_text
from splitvisor.process.text import is_text
from splitvisor.service.names import BACKEND_NAME, VIO_SERVICE

VTYS_MAX = 16
UNIT_ADDRESSES = range(0x3000_0000, 0x8000_0000)
"""PAPR's virtual devices; QEMU's default addresses start at 0x71000000."""


def read_devices(value: Any, where: str, base: Path) -> tuple[Device, ...]:
    """Return the devices of a machine file, checked. Raises ConfigError.

    Args:
        value: what the file has of key `device`.
        where: the file, for messages.
        base: where relative paths start.
    """
    if not isinstance(value, list):
        raise ConfigError(where, "device", "is not a list of tables", "start each device with [[device]]")
    check_count(value, where, "device")
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


def check_count(devices: Sequence[Any], where: str, key: str = "") -> None:
    """Raise ConfigError when a machine has more devices than cpu_service takes. where and key: for the message."""
    if len(devices) > MAX_DEVICES:
        raise ConfigError(where, key, f"{len(devices)} devices are too many", f"give at most {MAX_DEVICES}")


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
        raise WrongValueError(f"{value!r} is not a size of an NVRAM", f"give {NVRAM_MIN} to {NVRAM_MAX}")


def _vm_name(value: Any) -> None:
    check_name(value, Path())


def _some_path(value: Any) -> None:
    if not isinstance(value, str) or not value or "\0" in value:
        raise WrongValueError(f"{value!r} is not a path", "give the path of a file, or leave it out")


def _some_text(value: Any) -> None:
    if not isinstance(value, str) or not value or not is_text(value):
        raise WrongValueError(f"{value!r} is not a text", "give one, or leave it out")


def _check_net(options: Mapping[str, Any]) -> None:
    from splitvisor.lan.options import parse_net  # many machines have no network
    from splitvisor.lan.wire import WireError

    if "net" not in options:
        raise WrongValueError("is missing", 'give one, such as net = "user"')
    try:
        parse_net(options["net"], options.get("mac", ""), options.get("pcap", ""))
    except WireError as error:
        raise WrongValueError(error.problem.what, error.problem.remedy) from None


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
        except WrongValueError as wrong:
            raise ConfigError(where, f"{here}.{key}", *wrong.args) from None
    if kind == "l-lan":
        try:
            _check_net(options)
        except WrongValueError as wrong:
            raise ConfigError(where, f"{here}.net", *wrong.args) from None


def options_from_here(kind: str, options: Mapping[str, str]) -> dict[str, str]:
    """Return the options of a device that a command adds, with their files where the command would find them.

    Args:
        kind: the device's. Of one that is not vio_service's, options are left alone.
        options: as they were given.

    Raises DiskListError.
    """
    if kind == VSCSI:
        return adapter_options(options, Path())
    found = dict(options)
    if kind == "l-lan" and "net" in found:
        from splitvisor.lan.options import with_paths_from  # few commands have a network

        found["net"] = with_paths_from(found["net"], Path.cwd())
    files = [key for key, check in _OWN_DEVICES.get(kind, {}).items() if check is _some_path and found.get(key)]
    return found | {key: str(Path(found[key]).expanduser().absolute()) for key in files}


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


def _with_nets(devices: tuple[Device, ...], nets: Sequence[str]) -> tuple[Device, ...]:
    """Return devices with one more for each network, its files where this command would find them."""
    from splitvisor.lan.options import with_paths_from  # see above

    for net in nets:
        _some_text(net)
        _check_net({"net": net})
    return (*devices, *(Device("l-lan", 0, {"net": with_paths_from(net, Path.cwd())}) for net in nets))


def _with_vtys(devices: tuple[Device, ...], count: int) -> tuple[Device, ...]:
    if not 1 <= count <= VTYS_MAX:
        raise WrongValueError(f"{count} terminals", f"give 1 to {VTYS_MAX}")
    others = (device for device in devices if device.kind != "vty" or device.backend != VIO_SERVICE)
    return (*(Device("vty") for _ in range(count)), *others)


def _with_usable_nvram_file(devices: tuple[Device, ...], value: Path) -> tuple[Device, ...]:
    path = Path(value)
    if not is_text(str(path.absolute())):
        raise WrongValueError(*not_text(path.absolute()))
    if not path.parent.is_dir():
        raise WrongValueError(f"{path} cannot be a file", "give a path in a directory that exists")
    if path.exists() and not path.is_file():
        raise WrongValueError(f"{path} cannot be a file: something else is there", "give another path")
    return with_nvram_file(devices, path)


DEVICE_FLAGS: Mapping[str, Callable[[tuple[Device, ...], Any], tuple[Device, ...]]] = {
    "vty": _with_vtys,
    "nvram": _with_usable_nvram_file,
    "net": _with_nets,
}
"""Flags that say which devices of vio_service there are."""


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
