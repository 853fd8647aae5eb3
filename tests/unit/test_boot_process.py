# SPDX-License-Identifier: GPL-2.0-or-later
"""Booting from a disk: what is found, in which order, one line for each device that is not booted, and a program in RAM."""

from __future__ import annotations

import asyncio
import io
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cpu_service.images.loader import load_program
from of_client_service.boot.menu import TIMEOUT_SECONDS
from of_client_service.session import ClientInterfaceSession
from splitvisor import firmware
from splitvisor.images.placement import PROGRAM_ROOM
from splitvisor.papr.block_access import CD_ROM
from splitvisor.rpc import trap_pb2 as pb
from tests.disk_tools import LINUX_GUID, PREP_GUID, iso, listed, partitioned
from tests.fake_machine import make_ram
from tests.unit.of_drives import Drive, disk_path, machine_with
from tests.unit.of_machine import RAM_BYTES, Client

STEPS = 40
PREP_AT = 1 << 20
GPT = f"label: gpt\nsize=2MiB, type={PREP_GUID}\nsize=4MiB, type={LINUX_GUID}\n"
SCRIPT = b"<chrp-boot>\n<boot-script>boot &device;:1,\\boot\\grub\\powerpc.elf root=cd</boot-script>\n</chrp-boot>\n"


@dataclass
class Booted:
    """How a boot went."""

    entry: int = 0
    toc: int = 0
    text: str = ""
    actions: list[pb.MachineAction] = field(default_factory=list)

    @property
    def lines(self) -> list[str]:
        return [line for line in self.text.replace("\r", "").split("\n") if line]


def boot(client: Client, steps: int = STEPS) -> Booted:
    """Do what the firmware does until it has a program, or the machine ends."""
    booted = Booted()
    for _ in range(steps):
        booted.entry, booted.toc = client.call_all("splitvisor,boot", returns=2)
        booted.text += client.printed.decode() if client.last.effects else ""
        booted.actions += [effect.action for effect in client.last.effects if effect.HasField("action")]
        if booted.entry or booted.actions:
            break
    return booted


def elf32(entry: int = 0x20_0000, address: int = 0x20_0000, data: bytes = b"\x60\x00\x00\x00" * 400, bss: int = 5000) -> bytes:
    """A client program for 32 bits, as GRUB's core image is."""
    header = struct.pack(">4s5B7x2HI3I I6H", b"\x7fELF", 1, 2, 1, 0, 0, 2, 20, 1, entry, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    segment = struct.pack(">8I", 1, 0x100, address, address, len(data), len(data) + bss, 7, 4)
    return (header + segment).ljust(0x100, b"\0") + data


def prep_disk(path: Path, program: bytes, script: str = GPT) -> bytearray:
    data = bytearray(partitioned(path, script).read_bytes())
    data[PREP_AT : PREP_AT + len(program)] = program
    return data


@pytest.mark.parametrize("script", [GPT, "label: dos\nsize=2MiB, type=41\n"])
def test_a_program_in_a_prep_partition_is_in_ram_with_its_memory_claimed(tmp_path: Path, script: str) -> None:
    code = random.Random(4).randbytes(70_001)
    client, _ = machine_with(Drive(prep_disk(tmp_path / "disk", elf32(data=code), script)))
    client.poke(0x20_0000, b"\xff" * 100_000)
    booted = boot(client)
    assert (booted.entry, booted.toc, booted.actions) == (0x20_0000, 0, [])
    assert client.peek(0x20_0000, len(code) + 5000) == code + bytes(5000)
    assert booted.lines == [f"boot: PReP partition 1 of disk ({disk_path(1)})"]
    assert client.read_property("/chosen", "bootpath") == disk_path(1).encode() + b"\0"
    assert client.read_property("/chosen", "bootargs") == b"quiet\0"
    end = 0x20_0000 + len(code) + 5000 + PROGRAM_ROOM
    assert (0x20_0000, end) in client.of.claims.ranges()
    assert struct.pack(">QQ", end, RAM_BYTES - end) in client.read_property("/memory@0", "available")


def test_a_logical_prep_partition_is_booted(tmp_path: Path) -> None:
    primary = "size=1MiB, type=83\n" * 3
    path = partitioned(tmp_path / "disk", f"label: dos\n{primary}size=8MiB, type=f\nsize=1MiB, type=83\nsize=2MiB, type=41\n")
    table = listed(path)
    assert table is not None
    data = bytearray(path.read_bytes())
    assert "no program (ELF) in its PReP partition 6" in boot(machine_with(Drive(data))[0]).text
    [at] = [each.start for each in table[1] if each.number == 6]
    data[at : at + len(elf32())] = elf32()
    assert boot(machine_with(Drive(data))[0]).entry == 0x20_0000


@pytest.mark.parametrize("program", [firmware.DEMO, firmware.SCRIPT_GUEST.read_bytes()])
def test_it_is_where_the_loader_of_cpu_service_would_put_it(tmp_path: Path, program: bytes) -> None:
    client, _ = machine_with(Drive(prep_disk(tmp_path / "disk", program)))
    ram = make_ram(RAM_BYTES)
    image = load_program(ram, io.BytesIO(program), "program")
    booted = boot(client)
    assert (booted.entry, booted.toc) == (image.entry, image.toc)
    assert client.peek(image.base, image.size) == ram.read(image.base, image.size)


def test_a_cd_boots_what_its_script_names(tmp_path: Path) -> None:
    files = {"\\ppc\\bootinfo.txt": SCRIPT, "\\boot\\grub\\powerpc.elf": elf32()}
    cd = Drive(bytearray(iso(tmp_path / "cd", files, tmp_path).read_bytes()), 2048, CD_ROM)
    client, _ = machine_with(cd)
    booted = boot(client)
    assert booted.entry == 0x20_0000
    assert booted.lines == [f"boot: \\boot\\grub\\powerpc.elf of cdrom ({disk_path(1)})"]
    assert client.read_property("/chosen", "bootpath") == f"{disk_path(1)}:1,\\boot\\grub\\powerpc.elf\0".encode()
    assert client.read_property("/chosen", "bootargs") == b"root=cd\0"
    ihandle = client.call("open", f"{disk_path(1)}:1,\\boot\\grub\\powerpc.elf")
    assert client.call("read", ihandle, 0x30000, 100_000) == len(elf32())
    assert client.peek(0x30000, len(elf32())) == elf32()


def two_kinds(tmp_path: Path) -> tuple[Drive, Drive]:
    files = {"\\ppc\\bootinfo.txt": SCRIPT, "\\boot\\grub\\powerpc.elf": elf32(entry=0x20_0004)}
    cd = Drive(bytearray(iso(tmp_path / "cd", files, tmp_path).read_bytes()), 2048, CD_ROM)
    return cd, Drive(prep_disk(tmp_path / "disk", elf32()))


@pytest.mark.parametrize(
    ("words", "entry"),
    [((), 0x20_0000), (("disk",), 0x20_0000), (("cdrom",), 0x20_0004), (("cdrom", "disk"), 0x20_0004)],
)
def test_the_order_is_what_boot_says(tmp_path: Path, words: Sequence[str], entry: int) -> None:
    client, _ = machine_with(*two_kinds(tmp_path), boot=words)
    booted = boot(client)
    assert booted.entry == entry
    assert ("is tried first, then" in booted.text) is (len(words) != 1)


def test_two_disks_are_tried_in_order_and_a_line_says_which(tmp_path: Path) -> None:
    empty, good = Drive(bytearray(1 << 20)), Drive(prep_disk(tmp_path / "disk", elf32()))
    client, _ = machine_with(empty, good)
    booted = boot(client)
    assert booted.entry == 0x20_0000
    assert booted.lines == [
        f"boot: disk ({disk_path(1)}) is tried first, then disk1",
        f"boot: disk ({disk_path(1)}): has no partition table and no \\ppc\\bootinfo.txt",
        f"boot: PReP partition 1 of disk1 ({disk_path(2)})",
    ]


def broken_gpt(data: bytearray) -> bytearray:
    data[512 + 20] ^= 1
    return data


def without_gpt(data: bytearray) -> bytearray:
    data[-512 + 72 : -512 + 76] = b"\xff" * 4
    return broken_gpt(data)


def test_a_broken_gpt_is_one_line_and_its_second_one_boots(tmp_path: Path) -> None:
    client, _ = machine_with(Drive(broken_gpt(prep_disk(tmp_path / "disk", elf32()))))
    booted = boot(client)
    assert booted.entry == 0x20_0000
    assert booted.lines == [
        f"boot: disk ({disk_path(1)}): its first GPT has a wrong header checksum; the second is used",
        f"boot: PReP partition 1 of disk ({disk_path(1)})",
    ]


@pytest.mark.parametrize(
    ("program", "spoil", "reason"),
    [
        (b"", bytes, "has no program (ELF) in its PReP partition 1"),
        (b"\x7fELF", bytes, "PReP partition 1: has an unknown ELF class, byte order or version: 0, 0, 0"),
        (
            elf32(address=0x8000, entry=0x8000),
            bytes,
            "PReP partition 1: is linked at 0x8000; what is below 0x10000 belongs to the firmware",
        ),
        (elf32(bss=64 << 20), bytes, "PReP partition 1: needs 0x4000640 bytes at 0x200000; RAM ends at 0x1000000"),
        (elf32(entry=4), bytes, "PReP partition 1: its entry point 0x4 is not an instruction that it loads"),
        (
            elf32(),
            without_gpt,
            "both of its GPTs are broken: the first has a wrong header checksum, the second has a wrong header checksum",
        ),
    ],
)  # fmt: skip
def test_a_disk_that_cannot_be_booted_is_one_line_and_the_machine_ends(
    tmp_path: Path, program: bytes, spoil: type, reason: str
) -> None:
    data = prep_disk(tmp_path / "disk", program)
    if spoil is not bytes:
        data = spoil(data)
    client, _ = machine_with(Drive(data))
    booted = boot(client)
    assert booted.entry == 0
    assert booted.lines == [f"boot: disk ({disk_path(1)}): {reason}", "boot: there is nothing to boot"]
    [action] = booted.actions
    assert action.kind == pb.MACHINE_ACTION_KIND_CRASH
    assert action.reason == f"there is nothing to boot: disk ({disk_path(1)}): {reason}"
    assert action.reason_only, "the registers are those of our own firmware"
    assert boot(client, 3).actions == [], "it says so once"


def test_a_disk_without_prep_is_one_line(tmp_path: Path) -> None:
    client, _ = machine_with(Drive(bytearray(partitioned(tmp_path / "disk", f"label: gpt\ntype={LINUX_GUID}\n").read_bytes())))
    assert boot(client).lines[0] == f"boot: disk ({disk_path(1)}): has no PReP partition in its GPT and no \\ppc\\bootinfo.txt"


def test_a_machine_without_disks_is_one_line() -> None:
    client, _ = machine_with()
    booted = boot(client)
    assert booted.lines == ["boot: there is nothing to boot"]
    assert "no disk, CD-ROM drive or network device" in booted.actions[0].reason


def test_a_medium_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    data = prep_disk(tmp_path / "disk", elf32())
    for broken, reason in (
        (range(0, 512), "cannot be read at byte 0 (its back end answers H_HARDWARE)"),
        (range(PREP_AT, PREP_AT + 512), "cannot be read at byte 1048576 (its back end answers H_HARDWARE)"),
    ):
        client, _ = machine_with(Drive(data, broken=broken))
        assert boot(client).lines[0] == f"boot: disk ({disk_path(1)}): {reason}"
    client, _ = machine_with(Drive(bytearray(), 2048, CD_ROM, has_medium=False))
    assert boot(client).lines[0] == f"boot: cdrom ({disk_path(1)}): has no medium"


def test_a_program_that_becomes_unreadable_is_given_up_and_leaves_no_claim(tmp_path: Path) -> None:
    program = elf32(data=bytes(100_000))
    data = prep_disk(tmp_path / "disk", program)
    client, _ = machine_with(Drive(data, broken=range(PREP_AT + 90_000, PREP_AT + 91_000)))
    before = client.of.claims.ranges()
    assert "PReP partition 1: cannot be read at byte" in boot(client).lines[0]
    assert client.of.claims.ranges() == before


def test_the_menu_boots_what_is_typed(tmp_path: Path) -> None:
    client, drives = machine_with(*two_kinds(tmp_path), boot=("menu",))
    booted = boot(client, 3)
    assert booted.entry == 0
    shown = booted.text.replace("\r", "")
    assert f"  1  cdrom         0 MiB  {disk_path(1)}\n  2  disk         16 MiB  {disk_path(2)}\n" in shown
    assert f"Number and Enter, or 1 after {TIMEOUT_SECONDS:.0f} s:" in shown
    drives.typed = b"19\b\x7f7\r"
    assert boot(client, 3).entry == 0, "there is no 7"
    drives.typed = b"2x\r"
    booted = boot(client)
    assert booted.entry == 0x20_0000
    assert booted.text.startswith("2")


def test_the_menu_boots_the_first_device_when_nobody_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("of_client_service.boot.menu.TIMEOUT_SECONDS", -1.0)
    client, _ = machine_with(*two_kinds(tmp_path), boot=("menu",))
    assert boot(client).entry == 0x20_0004


def test_what_a_client_asked_to_boot_comes_before_the_order(tmp_path: Path) -> None:
    client, drives = machine_with(*two_kinds(tmp_path), boot=("disk",))
    assert client.find("cdrom") > 0
    client.call_all("boot", "cdrom", returns=0)
    asyncio.run(client.session.reset())
    client.vm.answer = drives.answer
    assert boot(client).entry == 0x20_0004

    client.call_all("boot", "cdrom:,\\nothing", returns=0)
    asyncio.run(client.session.reset())
    booted = boot(client)
    assert f"boot: cdrom ({disk_path(1)}): has no file \\nothing" in booted.lines
    assert booted.entry == 0x20_0000, "the order follows"


def test_a_snapshot_in_the_middle_of_a_boot_begins_it_again(tmp_path: Path) -> None:
    client, drives = machine_with(*two_kinds(tmp_path), boot=("menu",))
    boot(client, 3)
    state = asyncio.run(client.session.save())
    restored = ClientInterfaceSession(client.vm, client.store)
    asyncio.run(restored.restore(state))
    client.session, client.of = restored, restored.interface
    drives.typed = b"2\r"
    booted = boot(client)
    assert "Boot from:" in booted.text
    assert booted.entry == 0x20_0000


def nvram_with(variables: bytes, name: bytes = b"common", before: bytes = b"") -> bytes:
    """An NVRAM as SLOF and Linux keep it, with a partition of variables."""
    body = variables.ljust(-(-len(variables) // 16) * 16, b"\0")
    partition = struct.pack(">BBH12s", 0x70, 0, len(body) // 16 + 1, name) + body
    return (before + partition).ljust(8192, b"\0")


SKIPPED = struct.pack(">BBH12s", 0x51, 0, 4, b"other") + bytes(48)


@pytest.mark.parametrize(
    ("nvram", "entry"),
    [
        (nvram_with(b"auto-boot?=true\0boot-device=cdrom\0x=y\0\0"), 0x20_0004),
        (nvram_with(f"boot-device={disk_path(1)}\0\0".encode(), before=SKIPPED), 0x20_0004),
        (nvram_with(b"boot-device=net cdrom:1,\\boot\\grub\\powerpc.elf disk\0\0"), 0x20_0004),
        (nvram_with(b"boot-device=net /vdevice/nothing\0\0"), 0x20_0000),
        (nvram_with(b"boot-device=cdrom\0\0", name=b"other"), 0x20_0000),
        (nvram_with(b"boot-device\0\0"), 0x20_0000),
        (b"\xff" * 8192, 0x20_0000),
        (b"\x70\0\0\0common" + bytes(8182), 0x20_0000),
        (nvram_with(b"boot-device=cdrom\0\0")[:20], 0x20_0000),
    ],
)
def test_nvrams_boot_device_is_first_where_boot_says_nothing(tmp_path: Path, nvram: bytes, entry: int) -> None:
    client, _ = machine_with(*two_kinds(tmp_path), nvram=nvram)
    assert boot(client).entry == entry
    client, _ = machine_with(*two_kinds(tmp_path), nvram=nvram, boot=("disk",))
    assert boot(client).entry == 0x20_0000
