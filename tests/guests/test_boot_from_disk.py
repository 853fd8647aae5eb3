# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine without a kernel boots from its disks: GRUB, unmodified, and Debian by it. QEMU with SLOF boots the same disk."""

from __future__ import annotations

import os
import re
import select
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from splitvisor.bench.slof import qemu_command
from splitvisor.guests.fetch import CD, DISK, MARKER, resolve
from splitvisor.limits import NVRAM_BYTES
from tests.disk_tools import PREP_GUID, iso, listed, need, partitioned
from tests.disk_tools import run as run_tool
from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS, Console, Guests

GRUB_PROMPT = r"grub> $"
SHELL_PROMPT = "guest# "
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")

Machine = Callable[..., Console]


@pytest.fixture(name="disk")
def prepared_disk(guests: Guests, tmp_path: Path) -> Path:
    """The disk of `./dev guests`, a copy of it."""
    if not guests.grub.exists():
        pytest.skip("there is no grub-mkimage to make GRUB with; it is in the package grub-common")
    prepared = resolve(*DISK)
    if not prepared.exists():
        pytest.skip("there is no sfdisk or mke2fs to make a disk with; they are in the packages fdisk and e2fsprogs")
    return Path(shutil.copyfile(prepared, tmp_path / "disk"))


@pytest.fixture(name="machine")
def make_machine(run: Run) -> Machine:
    """Run a machine with disks, and CDs where a name ends in .iso."""

    def start(media: Sequence[Path | str], *arguments: str) -> Console:
        flags = [("--cdrom" if str(medium).endswith(".iso") else "--disk", str(medium)) for medium in media]
        return run(*(part for flag in flags for part in flag), *arguments)

    return start


def clean(text: str) -> str:
    return ESCAPES.sub("", text)


def at_grubs_prompt(console: Console) -> None:
    console.expect("GNU GRUB", BOOT_SECONDS)
    console.expect("Debian in its initramfs")
    console.type("c")
    console.expect(GRUB_PROMPT)


def say(console: Console, command: str) -> str:
    """Give GRUB a command; return what it answers. It echoes with movements of the cursor."""
    before = len(console.text)
    console.type(f"{command}\r")
    console.expect(r"\n")
    console.expect(GRUB_PROMPT, BOOT_SECONDS)
    _, _, answer = clean(console.text[before:]).partition("\n")
    return " ".join(answer.removesuffix("grub> ").split())


GRUB_LISTS = "(ieee1275/disk) (ieee1275/disk,gpt2) (ieee1275/disk,gpt1)"


@pytest.mark.parametrize("memory", [(), ("--no-shared-memory",)])
def test_grub_boots_debian_from_its_prep_partition(machine: Machine, disk: Path, memory: Sequence[str]) -> None:
    console = machine([str(disk)], *memory)
    console.expect(r"boot: PReP partition 1 of disk \(/vdevice/v-scsi@[0-9a-f]+/disk@8000000000000000\)", BOOT_SECONDS)
    at_grubs_prompt(console)
    assert say(console, "ls").replace("ieee 1275", "ieee1275").startswith(GRUB_LISTS)
    assert say(console, "ls /boot") == "grub/ initrd.img vmlinux"
    assert say(console, "search --file /boot/vmlinux").split()[0] == "ieee1275/disk,gpt2"
    assert say(console, "echo $root $prefix") == "ieee1275/disk,gpt2 (ieee1275/disk,gpt2)/boot/grub"
    say(console, "linux /boot/vmlinux console=hvc0 said-by-a-test")
    say(console, "initrd /boot/initrd.img")
    console.type("boot\r")
    console.expect(MARKER, BOOT_SECONDS)
    console.expect(SHELL_PROMPT)
    console.type("tr '\\0' '\\n' </proc/device-tree/chosen/bootpath; cat /proc/cmdline\n")
    console.expect(r"^/vdevice/v-scsi@[0-9a-f]+/disk@8000000000000000\r?$")
    console.expect("said-by-a-test")
    console.type("ls /proc/device-tree/aliases\n")
    console.expect(r"^disk\s")
    console.type("poweroff\n")
    assert console.wait() == 0


def test_grub_keeps_its_environment_on_the_disk(machine: Machine, disk: Path) -> None:
    before = disk.read_bytes()
    console = machine([str(disk)])
    at_grubs_prompt(console)
    say(console, "set kept=by-a-test")
    say(console, "save_env kept")
    assert "kept=by-a-test" in say(console, "list_env")
    after = disk.read_bytes()
    [at] = [match.start() for match in re.finditer(b"# GRUB Environment Block\nkept=by-a-test\n#", after)]
    assert before[:at] + before[at + 1024 :] == after[:at] + after[at + 1024 :], "nothing else has changed"


def test_grub_goes_on_from_a_snapshot(run: Run, machine: Machine, disk: Path, short_path: Path) -> None:
    console = machine([str(disk)])
    at_grubs_prompt(console)
    snapshot = short_path / "grub.snapshot"
    saved = console.splitvisor("vm", "save", "guest", str(snapshot), "--stop")
    assert saved.returncode == 0, saved.stderr
    assert console.wait() == 0
    console.close()
    restored = run("--from", str(snapshot))
    restored.type("ls /boot\r")
    restored.expect("grub/ initrd.img vmlinux", BOOT_SECONDS)
    restored.type("linux /boot/vmlinux console=hvc0\rinitrd /boot/initrd.img\rboot\r")
    restored.expect(MARKER, BOOT_SECONDS)


def test_grubs_menu_boots_by_itself_and_again_after_a_reset(machine: Machine, disk: Path) -> None:
    console = machine([str(disk)])
    for _ in range(2):
        console.expect("Debian in its initramfs", BOOT_SECONDS)
        console.type("\r")
        console.expect(MARKER, BOOT_SECONDS)
        console.expect(SHELL_PROMPT)
        console.type("reboot\n")
    console.expect("Debian in its initramfs", BOOT_SECONDS)
    assert console.text.count("boot: PReP partition 1 of disk") == 3


def test_grub_on_a_cd_is_booted_by_its_script_and_finds_a_disk(
    machine: Machine, disk: Path, guests: Guests, tmp_path: Path
) -> None:
    script = b"<chrp-boot><boot-script>boot &device;:1,\\boot\\grub\\powerpc.elf</boot-script></chrp-boot>"
    files = {"\\ppc\\bootinfo.txt": script, "\\boot\\grub\\powerpc.elf": guests.grub.read_bytes()}
    cd = iso(tmp_path / "cd.iso", files, tmp_path)
    console = machine([str(disk), str(cd)], "--boot", "cdrom,disk")
    console.expect(r"boot: \\boot\\grub\\powerpc.elf of cdrom", BOOT_SECONDS)
    console.expect(GRUB_PROMPT, BOOT_SECONDS)
    listed = say(console, "ls").replace(" ", "")
    assert "(ieee1275/cdrom)" in listed
    assert "(ieee1275/disk)" in listed


def test_grubs_own_cd_boots_and_finds_its_files(machine: Machine, guests: Guests, tmp_path: Path) -> None:
    """grub-mkrescue made it; GRUB's prefix is what /chosen/bootpath says."""
    made = resolve(*CD)
    if not guests.grub.exists() or not made.exists():
        pytest.skip("there is no grub-mkrescue, xorriso or mtools to make a CD with")
    console = machine([str(shutil.copyfile(made, tmp_path / "cd.iso"))])
    console.expect(r"boot: \\boot\\grub\\powerpc.elf of cdrom", BOOT_SECONDS)
    console.expect(GRUB_PROMPT, BOOT_SECONDS)
    assert say(console, "echo $root $prefix") == "ieee1275/cdrom (ieee1275/cdrom)/boot/grub"
    assert "powerpc-ieee1275/" in say(console, "ls ($root)/boot/grub")


def test_the_disk_of_the_cache_is_sound(disk: Path, tmp_path: Path) -> None:
    need("sgdisk", "e2fsck")
    assert "No problems found" in run_tool("sgdisk", "-v", disk).stdout
    table = listed(disk)
    assert table is not None
    root = table[1][1]
    file_system = tmp_path / "ext4"
    with disk.open("rb") as source:
        source.seek(root.start)
        file_system.write_bytes(source.read(root.length))
    assert run_tool("e2fsck", "-fn", file_system).returncode == 0


def test_the_menu_of_devices_boots_what_is_chosen(machine: Machine, disk: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(bytes(1 << 20))
    console = machine([str(empty), str(disk)], "--boot", "menu")
    console.expect(r"  1  disk +1 MiB  /vdevice", BOOT_SECONDS)
    console.expect("Number and Enter")
    console.type("2\r")
    console.expect("boot: PReP partition 1 of disk1")
    console.expect("Debian in its initramfs", BOOT_SECONDS)


def test_nvrams_boot_device_is_tried_first(machine: Machine, disk: Path, tmp_path: Path) -> None:
    variables = b"boot-device=disk1\0\0".ljust(32, b"\0")
    header = struct.pack(">BBH12s", 0x70, 0, len(variables) // 16 + 1, b"common")
    nvram = tmp_path / "nvram"
    nvram.write_bytes((header + variables).ljust(NVRAM_BYTES, b"\0"))
    bare = partitioned(tmp_path / "bare", "label: gpt\nsize=1MiB\n")
    console = machine([str(bare), str(disk)], "--nvram", str(nvram))
    console.expect("boot: disk1 (.*) is tried first, then disk\r", BOOT_SECONDS)
    console.expect("boot: PReP partition 1 of disk1")
    console.expect("Debian in its initramfs", BOOT_SECONDS)


def test_disks_that_cannot_be_booted_end_the_run_with_their_reasons(machine: Machine, disk: Path, tmp_path: Path) -> None:
    broken = bytearray(disk.read_bytes())
    for header in (512, len(broken) - 512):
        broken[header + 20] ^= 1
    (tmp_path / "both").write_bytes(broken)
    bare = partitioned(tmp_path / "bare", "label: gpt\nsize=1MiB\n")
    empty = partitioned(tmp_path / "empty", f"label: gpt\nsize=1MiB, type={PREP_GUID}\n")
    console = machine([tmp_path / "both", bare, empty])
    console.expect("boot: disk (.*) is tried first, then disk1, disk2", BOOT_SECONDS)
    console.expect(r"boot: disk \(.*\): both of its GPTs are broken: the first has a wrong header checksum, the second has")
    console.expect(r"boot: disk1 \(.*\): has no PReP partition in its GPT and no \\ppc\\bootinfo.txt")
    console.expect(r"boot: disk2 \(.*\): has no program \(ELF\) in its PReP partition 1")
    console.expect("boot: there is nothing to boot")
    assert console.wait() == 3
    assert console.process.stderr is not None
    assert "there is nothing to boot: disk (" in console.process.stderr.read().decode()


def test_a_machine_without_a_medium_ends_with_that_reason(run: Run) -> None:
    console = run("--boot", "disk")
    assert console.wait(BOOT_SECONDS) == 3
    assert console.process.stderr is not None
    reason = "the machine has no disk, CD-ROM drive or network device that --boot names; add --disk, --cdrom or --net"
    assert console.process.stderr.read().decode() == f"splitvisor run: there is nothing to boot: {reason}\n"


def test_a_little_endian_kernel_in_a_prep_partition_starts(machine: Machine, guests: Guests, tmp_path: Path) -> None:
    disk = partitioned(tmp_path / "kernel", f"label: gpt\nsize=60MiB, type={PREP_GUID}\n", mib=64)
    with disk.open("r+b") as file:
        file.seek(1 << 20)
        file.write(guests.kernel.read_bytes())
    console = machine([str(disk)], "--append", "console=hvc0 panic=-1 said-by-a-test")
    console.expect("boot: PReP partition 1 of disk", BOOT_SECONDS)
    console.expect("Preparing to boot Linux", BOOT_SECONDS)
    console.expect("command line: .*said-by-a-test")
    console.expect("Unable to mount root fs", BOOT_SECONDS)


def test_slof_boots_the_same_disk(machine: Machine, guests: Guests, disk: Path) -> None:
    """By its own driver for v-scsi, which polls with interrupts off."""
    console = machine([str(disk)], "--firmware", str(guests.slof))
    console.expect(r"8000000000000000 DISK\s+: \"SPLITVSR DISK", BOOT_SECONDS)
    at_grubs_prompt(console)
    assert say(console, "ls").replace(" ", "").startswith(GRUB_LISTS.replace(" ", ""))
    say(console, "linux /boot/vmlinux console=hvc0 said-by-a-test")
    say(console, "initrd /boot/initrd.img")
    console.type("boot\r")
    console.expect(MARKER, 2 * BOOT_SECONDS)
    console.expect(SHELL_PROMPT)
    console.type("cat /proc/cmdline\n")
    console.expect("^BOOT_IMAGE.*said-by-a-test")
    console.type("poweroff\n")
    assert console.wait() == 0


def test_slof_boots_grubs_own_cd(machine: Machine, guests: Guests, tmp_path: Path) -> None:
    made = resolve(*CD)
    if not guests.grub.exists() or not made.exists():
        pytest.skip("there is no grub-mkrescue, xorriso or mtools to make a CD with")
    console = machine([str(shutil.copyfile(made, tmp_path / "cd.iso"))], "--firmware", str(guests.slof))
    console.expect(r"8000000000000000 CD-ROM\s+: \"SPLITVSR", BOOT_SECONDS)
    console.expect(GRUB_PROMPT, BOOT_SECONDS)
    assert say(console, "echo $root $prefix") == "ieee1275/cdrom (ieee1275/cdrom)/boot/grub"
    assert "powerpc-ieee1275/" in say(console, "ls ($root)/boot/grub")


def test_slof_on_qemu_boots_the_same_disk(qemu: str, guests: Guests, disk: Path) -> None:
    """GRUB sees there what it sees here."""
    drive = (
        "-device",
        "spapr-vscsi,id=s",
        "-device",
        "scsi-hd,drive=d,bus=s.0",
        "-drive",
        f"file={disk},format=raw,if=none,id=d",
    )
    command = [*qemu_command(qemu), "-m", "1G", "-bios", str(guests.slof), *drive]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        shown = b""
        deadline = time.monotonic() + 2 * BOOT_SECONDS
        for awaited, typed in (("Debian in its initramfs", b"c"), ("grub> ", b"ls\r"), (r"gpt1\)(?s:.*)grub> ", b"")):
            while re.search(awaited, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode(errors="replace"))) is None:
                assert select.select([process.stdout], [], [], max(0, deadline - time.monotonic()))[0], shown
                data = os.read(process.stdout.fileno(), 1 << 16)
                assert data, shown
                shown += data
            process.stdin.write(typed)
            process.stdin.flush()
        process.kill()
    assert GRUB_LISTS.replace(" ", "") in "".join(clean(shown.decode(errors="replace")).split())
