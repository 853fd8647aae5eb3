# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine files and flags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from splitvisor.limits import MIB
from splitvisor.machine.config import BackendAddress, ConfigError, Device, MachineConfig, apply_flags, read_machine_file


def machine_file(directory: Path, text: str) -> Path:
    path = directory / "machine.toml"
    path.write_text(text)
    return path


def test_a_machine_file_sets_everything_and_paths_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "vmlinux").write_bytes(b"k")
    (tmp_path / "initrd").write_bytes(b"i")
    path = machine_file(
        tmp_path,
        """
        name = "box"
        memory = "2G"
        smp = 4
        kernel = "vmlinux"
        initrd = "initrd"
        append = "console=hvc0"
        shared_memory = false
        [[device]]
        kind = "vty"
        unit_address = 0x71000003
        [[device]]
        kind = "nvram"
        bytes = 65536
        """,
    )
    config = read_machine_file(path)
    assert config == MachineConfig(
        name="box",
        memory=2048 * MIB,
        vcpus=4,
        kernel=tmp_path / "vmlinux",
        initrd=tmp_path / "initrd",
        append="console=hvc0",
        shared_memory=False,
        devices=(Device("vty", 0x71000003), Device("nvram", 0, {"bytes": "65536"})),
    )
    message = config.message({"vio_service": "unix:/run/vio.sock"})
    assert message.memory_mib == 2048
    assert message.private_memory
    assert message.kernel == str(tmp_path / "vmlinux")
    assert dict(message.devices[1].options) == {"bytes": "65536"}
    assert message.backends[0].address == "unix:/run/vio.sock"


@pytest.mark.parametrize(
    ("text", "key", "remedy"),
    [
        ('memory = "64M"', "memory", "256M to 16G"),
        ('memory = "32G"', "memory", "256M to 16G"),
        ('memory = "300M"', "memory", "give 288M"),
        ('memory = "lots"', "memory", "512M"),
        ("memory = true", "memory", "512M"),
        ("smp = 9", "smp", "1 to 8"),
        ("smp = true", "smp", "1 to 8"),
        ('name = "A B"', "name", "a-z"),
        ('kernel = "missing"', "kernel", "path of a file"),
        ("append = 3", "append", "text"),
        (f'append = "{"x" * 2048}"', "append", "2047"),
        ("cores = 2", "cores", "known:"),
        ("device = 3", "device", "[[device]]"),
        ('[[device]]\nkind = "vty"\nbackend = 3', "device[0].backend", "leave it out"),
        ('[[device]]\nkind = "vty"\nbackend = "Disks!"', "device[0].backend", "leave it out"),
        ('[[backend]]\nname = "disks"\naddress = "unix:/d"\nslots = 0', "backend[0].slots", "1 to 64"),
        ('[[backend]]\nname = "disks"\naddress = "unix:/d"\nslots = 65', "backend[0].slots", "1 to 64"),
        ('[[backend]]\nname = "disks"\naddress = "unix:/d"\nslots = true', "backend[0].slots", "1 to 64"),
        ('[[backend]]\nname = "disks"\naddress = "unix:/d"\nports = 3', "backend[0]", "address"),
        ('[[backend]]\nname = "disks"', "backend[0]", "address"),
        ("[[device]]\nbytes = 3", "device[0]", "kind"),
        ('[[device]]\nkind = "vty"\nunit_address = 12', "device[0].unit_address", "0x30000000"),
        ('[[device]]\nkind = "vty"\noptions = [1]', "device[0].options", "text or a number"),
        (
            '[[device]]\nkind = "vty"\nunit_address = 0x71000000\n[[device]]\nkind = "nvram"\nunit_address = 0x71000000',
            "device[1].unit_address",
            "give each its own",
        ),
    ],
)
def test_a_wrong_setting_is_one_line_with_file_key_and_remedy(tmp_path: Path, text: str, key: str, remedy: str) -> None:
    path = machine_file(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_machine_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {key}: ")
    assert remedy in message.rpartition("; ")[2]
    assert "\n" not in message


@pytest.mark.parametrize("data", [b"memory = ", b"\xff\xfe"])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "machine.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match="is not TOML"):
        read_machine_file(path)


def test_a_missing_machine_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read"):
        read_machine_file(tmp_path / "absent.toml")


def test_flags_override_the_file_and_unset_flags_do_not(tmp_path: Path) -> None:
    config = read_machine_file(machine_file(tmp_path, 'memory = "1G"\nsmp = 2'))
    changed = apply_flags(config, {"memory": "512M", "smp": None, "vty": 3})
    assert changed.memory == 512 * MIB
    assert changed.vcpus == 2
    assert [device.kind for device in changed.devices] == ["vty", "vty", "vty", "nvram"]


@pytest.mark.parametrize(
    ("flags", "flag"), [({"smp": 0}, "--smp"), ({"vty": 17}, "--vty"), ({"memory": "1"}, "--memory"), ({"name": ""}, "--name")]
)
def test_a_wrong_flag_is_named(flags: dict[str, Any], flag: str) -> None:
    with pytest.raises(ConfigError, match=f"^splitvisor run: {flag}: "):
        apply_flags(MachineConfig(), flags)


def test_a_device_goes_to_its_back_end_and_without_one_to_vio_service(tmp_path: Path) -> None:
    text = """
    [[device]]
    kind = "vty"
    [[device]]
    kind = "disk"
    backend = "disks"
    image = "a.img"
    [[backend]]
    name = "disks"
    address = "unix:/run/disks.sock"
    slots = 8
    """
    config = apply_flags(read_machine_file(machine_file(tmp_path, text)), {})
    assert config.devices == (Device("vty"), Device("disk", 0, {"image": "a.img"}, "disks"))
    message = config.message({"vio_service": "unix:/v"})
    assert [(device.kind, device.backend) for device in message.devices] == [("vty", "vio_service"), ("disk", "disks")]
    assert [(each.name, each.vio_slots) for each in message.backends] == [("vio_service", 0), ("disks", 8)]


def test_a_back_end_of_a_device_may_come_from_a_flag_but_must_come_from_somewhere(tmp_path: Path) -> None:
    config = read_machine_file(machine_file(tmp_path, '[[device]]\nkind = "vty"\n[[device]]\nkind = "disk"\nbackend = "disks"'))
    placed = apply_flags(config, {"backend": [BackendAddress("disks", "unix:/run/disks.sock")]})
    assert placed.devices[1].backend == "disks"
    with pytest.raises(ConfigError) as caught:
        apply_flags(config, {})
    assert str(caught.value) == (
        "splitvisor run: device[1].backend: there is no back end 'disks'; "
        "add --backend disks=ADDRESS, or [[backend]] to the machine file; known: vio_service"
    )


def test_flags_for_devices_leave_those_of_other_back_ends_alone(tmp_path: Path) -> None:
    elsewhere = (Device("vty", backend="more"), Device("nvram", backend="more"))
    config = MachineConfig(devices=elsewhere, backends=(BackendAddress("more", "unix:/run/more.sock"),))
    path = tmp_path / "nvram"
    changed = apply_flags(config, {"vty": 1, "nvram": path})
    assert changed.devices == (Device("vty"), *elsewhere, Device("nvram", 0, {"path": str(path)}))


def test_an_initrd_needs_a_kernel(tmp_path: Path) -> None:
    path = tmp_path / "initrd"
    path.touch()
    with pytest.raises(ConfigError, match="no kernel"):
        apply_flags(MachineConfig(), {"initrd": path})


def test_an_nvram_file_goes_to_the_machines_nvram(tmp_path: Path) -> None:
    path = tmp_path / "nvram"
    changed = apply_flags(MachineConfig(), {"nvram": path})
    assert changed.devices == (Device("vty"), Device("nvram", 0, {"path": str(path)}))
    sized = MachineConfig(devices=(Device("nvram", 0x71000009, {"bytes": "8192"}), Device("vty")))
    changed = apply_flags(sized, {"nvram": path})
    assert changed.devices == (Device("nvram", 0x71000009, {"bytes": "8192", "path": str(path)}), Device("vty"))
    assert apply_flags(MachineConfig(devices=()), {"nvram": path}).devices == (Device("nvram", 0, {"path": str(path)}),)


def test_an_nvram_file_that_cannot_be_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none" / "nvram"):
        with pytest.raises(ConfigError, match=r"--nvram: .* cannot be a file"):
            apply_flags(MachineConfig(), {"nvram": path})


@pytest.mark.parametrize("flat", [True, False])
def test_the_tree_that_a_firmware_gets_is_part_of_the_machine(flat: bool) -> None:
    assert apply_flags(MachineConfig(), {"flat_tree": flat}).message({}).flat_tree is flat
