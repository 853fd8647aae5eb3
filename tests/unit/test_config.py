# SPDX-License-Identifier: GPL-2.0-or-later
"""Machine files and flags."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from splitvisor.limits import MIB
from splitvisor.machine.config import DEFAULT_DEVICES, BackendAddress, ConfigError, Device, MachineConfig
from splitvisor.machine.devices import check_nvram_files, options_from_here
from splitvisor.machine.machine_file import apply_flags, read_machine_file
from splitvisor.rpc import machine_pb2


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


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"memory = ", "Invalid value (at end of document); see https://toml.io"),
        (b"smp = 2\nmemory 3", "Expected '=' after a key in a key/value pair (at line 2, column 8); see https://toml.io"),
        (
            'smp = 2\n# \u00e9\nname = "\u00e9'.encode() + b'\xe9"',
            "byte 0xe9 is not UTF-8 (at line 3, column 10); save it as UTF-8",
        ),
        (b"\xef\xbb\xbf\xe9", "byte 0xe9 is not UTF-8 (at line 1, column 1); save it as UTF-8"),
        (b"smp = 2\nname\0", "a NUL byte (at line 2, column 5); save it as a text in UTF-8"),
        ("# \u00e9\0".encode(), "a NUL byte (at line 1, column 4); save it as a text in UTF-8"),
        ("smp = 2\n".encode("utf-16"), "it is UTF-16 (at line 1, column 1); save it as UTF-8"),
        ("smp = 2\n".encode("utf-16-le"), "a NUL byte (at line 1, column 2); save it as a text in UTF-8"),
        ("# \ufeff\n\ufeffsmp = 2".encode(), "Invalid statement (at line 2, column 1); see https://toml.io"),
        (b"smp = " + b"[" * 9999, "lists or tables are nested too deeply; see https://toml.io"),
        (b"smp = " + b"9" * 9999, None),
    ],
)
def test_a_file_that_is_not_toml_is_refused_in_one_line_with_its_place(tmp_path: Path, data: bytes, told: str | None) -> None:
    path = tmp_path / "machine.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as refused:
        read_machine_file(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: is not TOML: ")
    assert "\n" not in message
    assert told is None or message == f"{path}: is not TOML: {told}"


def test_a_machine_file_may_begin_with_a_byte_order_mark_as_editors_of_windows_write_it(tmp_path: Path) -> None:
    path = tmp_path / "machine.toml"
    path.write_bytes('append = "caf\u00e9"\r\nsmp = 2\r\n'.encode("utf-8-sig"))
    assert read_machine_file(path) == MachineConfig(append="caf\u00e9", vcpus=2)


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


def test_disks_of_flags_are_one_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = {"disk": ["a,,b.img,readonly", "nbd://localhost/x"], "cdrom": ["/cd.iso"]}
    [vty, nvram, adapter] = apply_flags(MachineConfig(), flags).devices
    assert (vty, nvram) == DEFAULT_DEVICES
    assert adapter == Device(
        "v-scsi",
        options={
            "disk0": f"{str(tmp_path).replace(',', ',,')}/a,,b.img,format=raw,readonly",
            "disk1": "nbd://localhost:10809/x",
            "cdrom0": "/cd.iso,format=raw",
        },
    )
    assert apply_flags(MachineConfig(), {"disk": None, "cdrom": []}).devices == DEFAULT_DEVICES


def test_disks_of_a_machine_file_start_at_the_file(tmp_path: Path) -> None:
    text = '[[device]]\nkind = "v-scsi"\ndisk0 = "a.qcow2,snapshot"\ncdrom7 = "/cd.iso,format=raw"\n'
    [device] = read_machine_file(machine_file(tmp_path, text)).devices
    assert device.options == {"disk0": f"{tmp_path}/a.qcow2,format=qcow2,snapshot", "cdrom7": "/cd.iso,format=raw"}
    elsewhere = text + 'backend = "disks"\n[[backend]]\nname = "disks"\naddress = "unix:/disks"\n'
    [device] = read_machine_file(machine_file(tmp_path, elsewhere)).devices
    assert (device.backend, device.options["disk0"]) == ("disks", f"{tmp_path}/a.qcow2,format=qcow2,snapshot")


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (
            {"disk": ["d", "e,readnoly"]},
            "run: --disk: e,readnoly: 'readnoly' is not an option of a disk; did you mean readonly?",
        ),
        ({"cdrom": ["c,readonly"]}, "run: --cdrom: c,readonly: 'readonly' is not an option of a CD; a CD is only read; known"),
        ({"disk": ["d"] * 60, "cdrom": ["c"] * 5}, "run: --disk: 65 disks and CDs are too many; give at most 64 of both"),
    ],
)
def test_disks_that_cannot_be_are_refused(flags: dict[str, list[str]], line: str) -> None:
    with pytest.raises(ConfigError) as raised:
        apply_flags(MachineConfig(), flags, "run")
    assert str(raised.value).startswith(line)


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


ADAPTER = Device("v-scsi", backend="disks")
DISKS = BackendAddress("disks", "unix:/run/disks.sock")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, ["nvram", "disk", "cdrom"]),
        ({"boot": "cdrom, disk"}, ["cdrom", "disk"]),
        ({"boot": "menu"}, ["menu"]),
        ({"kernel": __file__}, []),
        ({"firmware": __file__}, []),
        ({"firmware": __file__, "boot": "cdrom"}, ["cdrom"]),
    ],
)
def test_a_machine_with_an_adapter_boots_from_it_unless_it_has_something_else(flags: dict[str, str], expected: list[str]) -> None:
    config = MachineConfig(devices=(ADAPTER,), backends=(DISKS,))
    assert list(apply_flags(config, flags).message({}).boot) == expected


def test_a_machine_without_an_adapter_starts_the_demo_guest() -> None:
    assert list(MachineConfig().message({}).boot) == []
    assert list(apply_flags(MachineConfig(), {"boot": "disk"}).message({}).boot) == ["disk"]


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ({"boot": "disc"}, "--boot: 'disc' is nothing to boot from; did you mean disk?"),
        ({"boot": ""}, "--boot: '' is nothing to boot from; known: disk, cdrom, net, nvram, menu"),
        ({"boot": "disk,disk"}, "--boot: disk,disk names something twice; name each once"),
        ({"boot": "disk", "kernel": __file__}, "--boot: the machine has a kernel, which it boots; leave out --kernel, or --boot"),
    ],
)
def test_an_order_that_cannot_be_is_named(flags: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(text)):
        apply_flags(MachineConfig(), flags)


@pytest.mark.parametrize("boot", ['["cdrom", "disk"]', '"cdrom,disk"'])
def test_a_machine_file_has_an_order(tmp_path: Path, boot: str) -> None:
    path = tmp_path / "machine.toml"
    path.write_text(f"boot = {boot}\n")
    assert read_machine_file(path).boot == ("cdrom", "disk")
    path.write_text("boot = [1]\n")
    with pytest.raises(ConfigError, match="no list of what to boot from"):
        read_machine_file(path)


@pytest.mark.parametrize("flat", [True, False])
def test_the_tree_that_a_firmware_gets_is_part_of_the_machine(flat: bool) -> None:
    assert apply_flags(MachineConfig(), {"flat_tree": flat}).message({}).flat_tree is flat


@pytest.mark.parametrize(
    ("text", "mebibytes"),
    [
        ("512M", 512),
        ("512m", 512),
        ("512MB", 512),
        ("512 MiB", 512),
        ("0.5G", 512),
        ("1.25g", 1280),
        ("2G", 2048),
        ("536870912", 512),
    ],
)
def test_a_size_is_taken_as_people_write_it(text: str, mebibytes: int) -> None:
    assert apply_flags(MachineConfig(), {"memory": text}).memory == mebibytes << 20


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("512", "512 is out of range; did you mean 512M?"),
        ("16384", "16384 is out of range; did you mean 16384M?"),
        ("4", "4 is out of range; did you mean 4G?"),
        ("300", "300 is out of range; give 256M to 16G"),
        ("0.1G", "0.1G is out of range; give 256M to 16G"),
        ("17G", "17G is out of range; give 256M to 16G"),
        ("0", "0 is out of range; give 256M to 16G"),
        ("-512M", "'-512M' is not a size; give a number with a unit, such as 512M or 2G"),
        ("512X", "'512X' is not a size; give a number with a unit, such as 512M or 2G"),
        ("1e3M", "'1e3M' is not a size; give a number with a unit, such as 512M or 2G"),
        ("\u0665\u0661\u0662M", "'\u0665\u0661\u0662M' is not a size; give a number with a unit, such as 512M or 2G"),
        ("0.3G", "0.3G is not a multiple of 16M; give 304M"),
    ],
)
def test_a_size_that_cannot_be_says_what_was_meant(text: str, what: str) -> None:
    with pytest.raises(ConfigError) as error:
        apply_flags(MachineConfig(), {"memory": text})
    assert str(error.value) == f"splitvisor run: --memory: {what}"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("memory = 512", "memory: 512 is out of range; did you mean 512M?"),
        ('memry = "1G"', "memry: is not a setting; did you mean memory?"),
        ("flat-tree = true", "flat-tree: is not a setting; did you mean flat_tree?"),
        ('[[device]]\nkind = "nvrm"', "device[0].kind: vio_service has no device 'nvrm'; did you mean nvram?"),
        (
            '[[device]]\nkind = "disk"',
            (
                "device[0].kind: vio_service has no device 'disk'; known: l-lan, nvram, vty, vty-server, v-scsi; "
                "place others with backend = NAME"
            ),
        ),
        (
            '[[device]]\nkind = "v-scsi"\ndisk64 = "a"',
            "device[0].disk64: is not an option of v-scsi; did you mean disk6 or disk4 or disk63?",
        ),
        (
            '[[device]]\nkind = "v-scsi"\nx = "a"',
            "device[0].x: is not an option of v-scsi; known: disk0 to disk63, cdrom0 to cdrom63",
        ),
        ('[[device]]\nkind = "v-scsi"\ndisk0 = 1', "device[0].disk0: 1 is not a disk; give a file and its options, as a text"),
        (
            '[[device]]\nkind = "v-scsi"\ndisk0 = "a,ios=1"',
            "device[0].disk0: a,ios=1: 'ios' is not an option of a disk; did you mean iops?",
        ),
        ('[[device]]\nkind = "nvram"\nbyte = 1', "device[0].byte: is not an option of nvram; did you mean bytes?"),
        (
            '[[device]]\nkind = "vty"\nspeed = 9600',
            "device[0].speed: is not an option of vty; known: unit_address, backend, server",
        ),
        *(
            (
                f'[[device]]\nkind = "nvram"\nbytes = {size}',
                f"device[0].bytes: {shown} is not a size of an NVRAM; give 8192 to 1048576",
            )
            for size, shown in (
                ("100", "100"),
                ("8191", "8191"),
                ("1048577", "1048577"),
                ("-1", "-1"),
                ("true", "True"),
                ('""', "''"),
            )
        ),
        ('[[device]]\nkind = "nvram"\npath = ""', "device[0].path: '' is not a path; give the path of a file, or leave it out"),
    ],
)
def test_a_mistake_in_a_machine_file_says_what_was_meant(tmp_path: Path, text: str, what: str) -> None:
    path = machine_file(tmp_path, text)
    with pytest.raises(ConfigError) as error:
        read_machine_file(path)
    assert str(error.value) == f"{path}: {what}"


def test_an_nvram_file_of_another_size_is_found_before_anything_starts(tmp_path: Path) -> None:
    flag, own = tmp_path / "flag", tmp_path / "own"
    for path, size in ((flag, 100), (own, 8192)):
        path.write_bytes(bytes(size))
    by_flag = apply_flags(MachineConfig(), {"nvram": flag})
    with pytest.raises(
        ConfigError, match=rf"^run: --nvram: {flag} has 100 bytes, the machine's NVRAM 65536; give a file of that"
    ):
        check_nvram_files(by_flag, "run", flag)
    text = f'[[device]]\nkind = "vty"\n[[device]]\nkind = "nvram"\npath = "{own}"\n'
    with pytest.raises(ConfigError, match=rf"^run: --machine: device\[1\]\.path: {own} has 8192 bytes, .*; set bytes = 8192 for"):
        check_nvram_files(read_machine_file(machine_file(tmp_path, text)), "run", None)
    check_nvram_files(read_machine_file(machine_file(tmp_path, text + "bytes = 8192\n")), "run", None)
    flag.unlink()
    check_nvram_files(by_flag, "run", flag)


def test_a_watchdogs_action_is_one_of_four(tmp_path: Path) -> None:
    path = tmp_path / "machine.toml"
    path.write_text('watchdog_action = "nmi"\n')
    assert read_machine_file(path).message({}).watchdog_action == machine_pb2.WATCHDOG_ACTION_NMI
    assert MachineConfig().message({}).watchdog_action == machine_pb2.WATCHDOG_ACTION_UNSPECIFIED
    path.write_text('watchdog_action = "reboot"\n')
    with pytest.raises(ConfigError, match=r"'reboot' is not an action of a watchdog; .*reset"):
        read_machine_file(path)


def test_networks_are_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    changed = apply_flags(MachineConfig(), {"net": ["user,pcap=a.pcap", "switch=lab,mac=02:00:00:00:00:01"]})
    assert changed.devices[-2:] == (
        Device("l-lan", 0, {"net": f"user,pcap={tmp_path}/a.pcap"}),
        Device("l-lan", 0, {"net": "switch=lab,mac=02:00:00:00:00:01"}),
    )
    file = tmp_path / "m.toml"
    file.write_text('[[device]]\nkind = "l-lan"\nnet = "user"\nmac = "02:00:00:00:00:01"')
    assert read_machine_file(file).devices == (Device("l-lan", 0, {"net": "user", "mac": "02:00:00:00:00:01"}),)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ('net = "usr"', "device[0].net: 'usr' is no kind of network; did you mean user?"),
        ("", 'device[0].net: is missing; give one, such as net = "user"'),
        ("net = 1", "device[0].net: 1 is not a text; give one, or leave it out"),
        (
            'net = "user"\nmac = "1"',
            "device[0].net: user: mac: '1' is not a MAC address; give six bytes such as 02:00:00:12:34:56",
        ),
    ],
)
def test_a_network_that_cannot_be_is_refused(tmp_path: Path, options: str, said: str) -> None:
    file = tmp_path / "m.toml"
    file.write_text(f'[[device]]\nkind = "l-lan"\n{options}')
    with pytest.raises(ConfigError) as raised:
        read_machine_file(file)
    assert str(raised.value) == f"{file}: {said}"
    with pytest.raises(ConfigError) as raised:
        apply_flags(MachineConfig(), {"net": ["usr"]})
    assert str(raised.value) == "splitvisor run: --net: 'usr' is no kind of network; did you mean user?"


@pytest.mark.parametrize("flags", [{"disk": True}, {"net": ["user"]}, {"vty": 2}])
def test_flags_that_add_a_device_to_the_most_that_a_machine_may_have(tmp_path: Path, flags: dict[str, Any]) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(MIB))
    flags = {"disk": [str(disk)]} if "disk" in flags else flags
    full = read_machine_file(machine_file(tmp_path, '[[device]]\nkind = "vty"\n' + '[[device]]\nkind = "vty-server"\n' * 63))
    assert apply_flags(full, {}).devices == full.devices
    with pytest.raises(ConfigError) as raised:
        apply_flags(full, flags)
    assert str(raised.value) == "splitvisor run: 65 devices are too many; give at most 64"


@pytest.mark.parametrize(
    ("kind", "given", "meant"),
    [
        ("v-scsi", {"disk0": "a.img,serial=A", "cdrom0": "empty"}, {"disk0": "{}/a.img,format=raw,serial=A", "cdrom0": "empty"}),
        ("v-scsi", {"disk0": "nbd://h/e"}, {"disk0": "nbd://h:10809/e"}),
        ("l-lan", {"net": "user,tftp=t", "pcap": "p"}, {"net": "user,tftp={}/t", "pcap": "{}/p"}),
        ("nvram", {"bytes": "8192", "path": "/n"}, {"bytes": "8192", "path": "/n"}),
        ("nvram", {"path": "n"}, {"path": "{}/n"}),
        ("lamp", {"path": "n", "disk0": "x"}, {"path": "n", "disk0": "x"}),
    ],
)
def test_the_files_of_a_device_that_is_added_are_where_the_command_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, given: dict[str, str], meant: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert options_from_here(kind, given) == {key: value.replace("{}", str(tmp_path)) for key, value in meant.items()}
