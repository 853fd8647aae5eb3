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

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from splitvisor.errors.similar import did_you_mean
from splitvisor.machine.backends import check_backends, check_placement, read_backends
from splitvisor.machine.config import ConfigError, MachineConfig
from splitvisor.machine.devices import DEVICE_FLAGS, check_count, read_devices, with_disks
from splitvisor.machine.settings import SETTINGS, WrongValueError
from splitvisor.process.toml_file import TomlError, read_toml

MACHINE_FILE_BYTES = 1 << 20
"""The largest machine file."""


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
            result = replace(result, devices=read_devices(value, where, base))
        elif key == "backend":
            result = replace(result, backends=read_backends(value, where))
        elif key in SETTINGS:
            result = _apply(result, key, value, (where, key), base)
        else:
            known = (*SETTINGS, "device", "backend")
            raise ConfigError(where, key, "is not a setting", did_you_mean(key, known) or f"known: {', '.join(known)}")
    return result


def apply_flags(config: MachineConfig, flags: Mapping[str, Any], where: str = "splitvisor run") -> MachineConfig:
    """Return config with what flags set: keys as in a machine file, and those of devices and back ends.

    `vty` is a number, `nvram` a path, `disk`, `cdrom` and `net` are lists, all of vio_service; `backend` is a list of more back
    ends. None is not set. where: the command that has the flags. Raises ConfigError.
    """
    for key, value in flags.items():
        flag = "--" + key.replace("_", "-")
        if value is None:
            continue
        if key in DEVICE_FLAGS:
            try:
                config = replace(config, devices=DEVICE_FLAGS[key](config.devices, value))
            except WrongValueError as wrong:
                raise ConfigError(where, flag, *wrong.args) from None
        elif key in ("disk", "cdrom"):
            continue  # Together, below.
        elif key == "backend":
            config = replace(config, backends=check_backends((*config.backends, *value), (where, flag)))
        else:
            config = _apply(config, key, value, (where, flag), Path())
    config = replace(config, devices=with_disks(config.devices, flags.get("disk") or (), flags.get("cdrom") or (), where))
    check_count(config.devices, where)
    _check_what_boots(config, where)
    check_placement(config, where)
    return config


def _apply(config: MachineConfig, key: str, value: Any, where: tuple[str, str], base: Path) -> MachineConfig:
    name, check = SETTINGS[key]
    try:
        checked = check(value, base)
    except WrongValueError as wrong:
        raise ConfigError(*where, *wrong.args) from None
    return replace(config, **{name: checked})


def _check_what_boots(config: MachineConfig, where: str) -> None:
    """Raise ConfigError when what a machine is to start contradicts itself."""
    if config.initrd is not None and config.kernel is None and config.firmware is None:
        raise ConfigError(where, "--initrd", "there is no kernel to give it to", "add --kernel VMLINUX")
    if config.boot and config.kernel is not None:
        raise ConfigError(where, "--boot", "the machine has a kernel, which it boots", "leave out --kernel, or --boot")
    if config.boot_protocol == "epapr" and (config.kernel is None or config.firmware is not None):
        raise ConfigError(where, "--boot-protocol", "epapr starts a kernel, without firmware", "give --kernel and no --firmware")
