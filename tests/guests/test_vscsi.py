# SPDX-License-Identifier: GPL-2.0-or-later
"""v-scsi under Debian's own driver: disks, file systems, CDs, tools, faults."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from splitvisor.guests.commands import Commands
from splitvisor.guests.fetch import MODULES
from splitvisor.guests.fio import fio
from tests.disk_images import contents, needs_nbdkit, needs_qemu, qcow2_image, raw_image
from tests.guests.harness import BOOT_SECONDS, Console, Guests

IoGuest = Callable[..., Commands]
MIB = 1 << 20
SLOW_S = 300.0
LOAD_MODULES = " && ".join(f"insmod /{name}.ko" for name in MODULES)
DATA = bytes(range(256)) * 64
PLUGS = 10
"""How often a disk comes and goes while another is in use."""
needs_xorriso = pytest.mark.skipif(shutil.which("xorriso") is None, reason="needs xorriso; apt-get install xorriso")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return raw_image(tmp_path / "disk.img", 64 * MIB)


@pytest.fixture
def cd(tmp_path: Path) -> Path:
    """A CD with a file."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "data.bin").write_bytes(random.Random(5).randbytes(3 * MIB + 5))
    image = tmp_path / "cd.iso"
    subprocess.run(
        ["xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-V", "A CD", "-o", image, tree], check=True, capture_output=True
    )
    return image


@contextmanager
def nbd_server(directory: Path, *arguments: str) -> Iterator[str]:
    """Serve with nbdkit; have the place for --disk."""
    socket, pid_file = directory / "nbd.sock", directory / "nbd.pid"
    server = subprocess.Popen(["nbdkit", "-f", "-U", str(socket), "-P", str(pid_file), *arguments])
    try:
        yield f"nbd+unix:///?socket={socket}"
    finally:
        server.kill()  # In good order it would wait for the guest, which is ended later.
        server.wait()


def disks(guest: Commands, *names: str) -> None:
    """Wait until there are block devices."""
    for name in names:
        guest.wait_for(f"test -b /dev/{name}")


def disk_at(guest: Commands, target: int) -> str:
    """Return the block device of the disk with a number: Linux names them in the order in which it happens to find them."""
    return "/dev/" + guest.wait_for(f"ls /sys/bus/scsi/devices/0:0:{target}:0/block")


def test_a_disk_keeps_what_is_written(io_guest: IoGuest, image: Path) -> None:
    guest = io_guest("--disk", f"{image},serial=D1")
    disks(guest, "sda")
    assert guest.ok("blockdev --getsize64 /dev/sda") == str(64 * MIB)
    assert "SPLITVSR" in guest.ok("sg_inq /dev/sda")
    guest.put("/tmp/data", DATA)
    guest.ok("dd if=/tmp/data of=/dev/sda bs=4096 seek=7 conv=fsync 2>/dev/null")
    assert image.read_bytes()[7 * 4096 : 11 * 4096] == DATA


@needs_qemu
@needs_nbdkit
@pytest.mark.parametrize("options", [(), ("--no-shared-memory",)], ids=["shared-memory", "private-memory"])
def test_three_disks_at_once(io_guest: IoGuest, tmp_path: Path, image: Path, options: tuple[str, ...]) -> None:
    served = raw_image(tmp_path / "served.img", 64 * MIB)
    qcow2 = qcow2_image(tmp_path / "disk.qcow2", 64 * MIB)
    with nbd_server(tmp_path, "file", str(served)) as place:
        guest = io_guest("--disk", str(image), "--disk", str(qcow2), "--disk", place, *options)
        names = ("sda", "sdb", "sdc")
        disks(guest, *names)
        job = "--ioengine=libaio --iodepth=16 --rw=randwrite --bsrange=512-64k --verify=crc32c --verify_fatal=1"
        guest.ok(f"fio {job} --direct=1 --size=6m " + " ".join(f"--name={name} --filename=/dev/{name}" for name in names), SLOW_S)
        each = "for d in sda sdb sdc; do"
        guest.ok(f"{each} mkdir /tmp/$d && mkfs.ext4 -q /dev/$d && mount -t ext4 /dev/$d /tmp/$d || exit 1; done", SLOW_S)
        guest.ok(
            f"fio {job} --size=4m --end_fsync=1 " + " ".join(f"--name={name} --filename=/tmp/{name}/file" for name in names),
            SLOW_S,
        )
        guest.put("/tmp/sda/data", DATA)
        guest.ok("cp /tmp/sda/data /tmp/sdb/data; cp /tmp/sda/data /tmp/sdc/data")
        guest.ok(f"{each} umount /tmp/$d && e2fsck -fn /dev/$d || exit 1; done", SLOW_S)
        guest.ok("echo 3 >/proc/sys/vm/drop_caches")
        for name in names:
            guest.ok(f"mount -t ext4 -o ro /dev/{name} /mnt")
            assert guest.ok("sha256sum /mnt/data").split()[0] == hashlib.sha256(DATA).hexdigest()
            guest.ok("umount /mnt")
        assert guest.ok("dmesg | grep -c -i -E 'i/o error|sense key' || true") == "0"


@needs_qemu
@pytest.mark.parametrize("options", ["cache=writeback", "cache=none"])
def test_what_is_synchronized_is_in_the_image(io_guest: IoGuest, tmp_path: Path, image: Path, options: str) -> None:
    qcow2 = qcow2_image(tmp_path / "disk.qcow2", 64 * MIB)
    guest = io_guest("--disk", f"{image},{options}", "--disk", f"{qcow2},{options}")
    disks(guest, "sda", "sdb")
    guest.ok("for d in sda sdb; do mkdir /tmp/$d; mkfs.ext4 -q /dev/$d && mount -t ext4 /dev/$d /tmp/$d || exit 1; done", SLOW_S)
    guest.put("/tmp/data", DATA)
    for number in range(4):
        guest.ok(f"cp /tmp/data /tmp/sda/{number}; cp /tmp/data /tmp/sdb/{number}; sync")
        # What a host that failed now would have, though its process knows more.
        copy = shutil.copyfile(qcow2, tmp_path / "copy.qcow2")
        for name, data in (("raw", image.read_bytes()), ("qcow2", contents(copy, tmp_path))):
            assert data.count(DATA) == number + 1, name
    mounted = guest.ok(f"grep ^{disk_at(guest, 1)} /proc/mounts").split()[1]
    guest.ok(f"dd if=/tmp/data of={mounted}/last conv=fsync 2>/dev/null")
    assert contents(shutil.copyfile(qcow2, tmp_path / "copy.qcow2"), tmp_path).count(DATA) == 5


@needs_xorriso
def test_a_cd_is_mounted_and_ejected(io_guest: IoGuest, cd: Path) -> None:
    guest = io_guest("--cdrom", str(cd))
    disks(guest, "sr0")
    guest.ok("mount -t iso9660 /dev/sr0 /mnt")
    assert (
        guest.ok("sha256sum /mnt/data.bin").split()[0] == hashlib.sha256((cd.parent / "tree/data.bin").read_bytes()).hexdigest()
    )
    guest.ok("echo 0 >/proc/sys/dev/cdrom/autoclose; eject /dev/sr0; ! grep /mnt /proc/mounts")
    assert "No medium" in guest.run("dd if=/dev/sr0 of=/dev/null count=1").output
    guest.ok("eject -t /dev/sr0")
    guest.wait_for("mount -t iso9660 -o ro /dev/sr0 /mnt")
    guest.ok("ls /mnt/data.bin")
    assert "Read-only" in guest.run("dd if=/dev/zero of=/dev/sr0 count=1").output
    assert "DVD-ROM" in guest.ok("sg_get_config /dev/sr0")


def test_the_tools_of_scsi(io_guest: IoGuest, image: Path) -> None:
    guest = io_guest("--disk", f"{image},serial=SN42")
    disks(guest, "sda")
    assert "Unit serial number: SN42" in guest.ok("sg_inq /dev/sda")
    assert "SN42" in guest.ok("sg_vpd -p 0x80 /dev/sda")
    assert "NAA" in guest.ok("sg_vpd -p 0x83 /dev/sda")
    assert "Maximum unmap LBA count" in guest.ok("sg_vpd -p 0xb0 /dev/sda")
    assert "Unmap command supported (LBPU): 1" in guest.ok("sg_vpd -p 0xb2 /dev/sda")
    assert "Lun list length = 8" in guest.ok("sg_luns /dev/sda")
    for command in ("sg_turs", "sg_sync", "sg_reset -d", "sg_reset -b", "sg_reset -H", "sg_opcodes", "sg_modes -a", "sg_verify"):
        guest.ok(f"{command} /dev/sda", 60.0)
        guest.wait_for("dd if=/dev/sda of=/dev/null bs=4096 count=1 iflag=direct")
    assert guest.ok("dmesg | grep -i offline || true") == ""
    # A reservation of the only initiator there is.
    guest.ok("sg_persist --out --register --param-sark=123abc /dev/sda")
    guest.ok("sg_persist --out --reserve --param-rk=123abc --prout-type=3 /dev/sda")
    assert "Exclusive Access" in guest.ok("sg_persist --in --read-reservation /dev/sda")
    guest.ok("sg_persist --out --clear --param-rk=123abc /dev/sda")
    assert "no registered" in guest.ok("sg_persist --in --read-keys /dev/sda").lower()
    assert "dos" in guest.ok("printf 'label: dos\\n,16M\\n' | sfdisk -q /dev/sda && sfdisk -d /dev/sda")
    disks(guest, "sda1")


def test_what_is_discarded_is_given_back(io_guest: IoGuest, image: Path) -> None:
    guest = io_guest("--disk", str(image))
    disks(guest, "sda")
    guest.ok("dd if=/dev/urandom of=/dev/sda bs=1M count=16 oflag=direct", SLOW_S)
    used = image.stat().st_blocks
    assert used >= 16 * MIB // 512
    guest.ok("sg_unmap --lba=0 --num=8192 /dev/sda")
    assert image.stat().st_blocks <= used - 8192 + 64
    guest.ok("blkdiscard /dev/sda")
    assert image.stat().st_blocks < 128
    assert image.stat().st_size == 64 * MIB
    assert guest.ok("dd if=/dev/sda bs=1M count=16 iflag=direct 2>/dev/null | tr -d '\\0' | wc -c") == "0"


def test_disks_that_keep_nothing(io_guest: IoGuest, tmp_path: Path) -> None:
    kept, thrown = tmp_path / "kept.img", tmp_path / "thrown.img"
    for path in (kept, thrown):
        path.write_bytes(b"\x11" * (4 * MIB))
    guest = io_guest("--disk", f"{kept},readonly", "--disk", f"{thrown},snapshot")
    read_only, snapshot = disk_at(guest, 0), disk_at(guest, 1)
    assert [guest.ok(f"blockdev --getro {each}") for each in (read_only, snapshot)] == ["1", "0"]
    assert guest.run(f"dd if=/dev/zero of={read_only} count=1").status != 0
    guest.ok(f"dd if=/dev/zero of={snapshot} bs=64k count=8 seek=3 oflag=direct 2>/dev/null")
    fio(guest, filename=snapshot, size="3m", rw="randwrite", bs="4k", direct=1, iodepth=16, ioengine="libaio", verify="crc32c")
    assert kept.read_bytes() == thrown.read_bytes() == b"\x11" * (4 * MIB)


@needs_nbdkit
def test_errors_of_the_host_are_errors_in_the_guest(io_guest: IoGuest, tmp_path: Path) -> None:
    inject = {each: tmp_path / each for each in ("pread", "pwrite")}
    errors = ("error-pread=EIO", "error-pwrite=ENOSPC")
    triggers = [f"error-{each}-{setting}" for each in inject for setting in ("rate=100%", f"file={inject[each]}")]
    with nbd_server(tmp_path, "--filter=error", "memory", "16M", *errors, *triggers) as place:
        guest = io_guest("--disk", f"{place},werror=report")
        disks(guest, "sda")
        write, read = (
            "dd if=/dev/zero of=/dev/sda bs=4k count=1 oflag=direct",
            "dd if=/dev/sda of=/dev/null bs=4k count=1 iflag=direct",
        )
        guest.ok(f"{write} && {read}")
        inject["pwrite"].touch()
        assert "No space left on device" in guest.run(write).output
        inject["pwrite"].unlink()
        guest.ok(write)
        inject["pread"].touch()
        failed = guest.run(read, SLOW_S)
        assert failed.status != 0
        assert "Input/output error" in failed.output or "No data available" in failed.output
        inject["pread"].unlink()
        guest.ok(read)
        assert "Medium Error" in guest.ok("dmesg | grep 'Sense Key'")


def test_an_image_that_is_cut_off_while_in_use(io_guest: IoGuest, image: Path) -> None:
    guest = io_guest("--disk", str(image))
    disks(guest, "sda")
    guest.put("/tmp/data", DATA)
    guest.ok("dd if=/tmp/data of=/dev/sda bs=4096 conv=fsync 2>/dev/null")
    os.truncate(image, 32 * MIB)
    assert guest.run("dd if=/dev/sda of=/dev/null bs=4k skip=12000 count=1 iflag=direct", SLOW_S).status != 0
    assert guest.run("dd if=/dev/zero of=/dev/sda bs=4k seek=12000 count=1 oflag=direct", SLOW_S).status != 0
    assert image.stat().st_size == 32 * MIB, "it does not grow again"
    assert (
        guest.ok("dd if=/dev/sda bs=4096 count=4 iflag=direct 2>/dev/null | sha256sum").split()[0]
        == hashlib.sha256(DATA).hexdigest()
    )


def test_a_disk_comes_and_goes_while_the_guest_runs(
    run: Callable[..., Console], guests: Guests, tmp_path: Path, image: Path
) -> None:
    initrd = tmp_path / "initrd.cpio"
    initrd.write_bytes(guests.slots.read_bytes() + guests.io.read_bytes())  # The kernel unpacks archives one after the other.
    console = run("--kernel", str(guests.kernel), "--initrd", str(initrd), "--append", "console=hvc0 panic=-1", "--name", "plug")
    console.expect("guest# ", BOOT_SECONDS)
    guest = Commands(console)
    guest.ok(LOAD_MODULES)
    guest.put("/tmp/data", DATA)
    drmgr = "/usr/sbin/drmgr -w 1 -c slot -s V1-C2"
    for number in range(3):
        added = console.splitvisor("vm", "device-add", "plug", "v-scsi", "--option", f"disk0={image}", "--wait", "0")
        assert "plugged in, but the guest did not use it" in added.stderr
        assert guest.run(f"{drmgr} -a", SLOW_S).status == 0
        guest.wait_for("test -b /dev/sd?")
        guest.ok(f"dd if=/tmp/data of=$(ls /dev/sd?) bs=4096 seek={8 * number} conv=fsync 2>/dev/null")
        assert "in use" in console.splitvisor("vm", "device-add", "plug", "v-scsi", "--option", f"disk0={image}").stderr
        removed = console.splitvisor("vm", "device-remove", "plug", "0x71000002", "--wait", "0")
        assert removed.returncode == 1, removed
        assert guest.run(f"{drmgr} -r", SLOW_S).status == 0
        guest.wait_for("! ls /dev/sd?")
        assert "v-scsi" not in console.splitvisor("vm", "devices", "plug").stdout
    assert image.read_bytes().count(DATA) == 3
    assert guest.ok("dmesg | grep -i -E 'i/o error|oops:|cut here' || true") == ""


@pytest.mark.long
def test_disks_are_added_and_removed_under_fio(run: Callable[..., Console], guests: Guests, tmp_path: Path, image: Path) -> None:
    """An adapter comes and goes while another one's disk is verified, and each time its own disk is written at once."""
    plugged = raw_image(tmp_path / "plugged.img", 16 * MIB)
    initrd = tmp_path / "initrd.cpio"
    initrd.write_bytes(guests.slots.read_bytes() + guests.io.read_bytes())
    boot = ("--kernel", str(guests.kernel), "--initrd", str(initrd), "--append", "console=hvc0 panic=-1", "--name", "plug")
    console = run(*boot, "--disk", str(image))
    console.expect("guest# ", BOOT_SECONDS)
    guest = Commands(console)
    guest.ok(LOAD_MODULES)
    disks(guest, "sda")
    job = "--ioengine=libaio --direct=1 --iodepth=16 --rw=randwrite --bsrange=512-64k --size=16m --verify=crc32c --verify_fatal=1"
    load = f"fio --name=job --filename=/dev/sda {job} --randrepeat=0"
    guest.ok(
        f"(n=0; while [ ! -e /tmp/enough ]; do {load} || break; n=$((n+1)); done; echo fio ended $? after $n) >/tmp/fio 2>&1 &"
    )
    guest.put("/tmp/data", DATA)
    drmgr = "/usr/sbin/drmgr -w 1 -c slot -s V1-C3"
    for number in range(PLUGS):
        added = console.splitvisor("vm", "device-add", "plug", "v-scsi", "--option", f"disk0={plugged}", "--wait", "0")
        assert "plugged in, but the guest did not use it" in added.stderr, added
        guest.ok(f"{drmgr} -a", SLOW_S)
        guest.wait_for("test -b /dev/sdb", SLOW_S)
        guest.ok(f"dd if=/tmp/data of=/dev/sdb bs=4096 seek={8 * number} conv=fsync 2>/dev/null", SLOW_S)
        asked = console.splitvisor("vm", "device-remove", "plug", "0x71000003", "--wait", "0")
        assert asked.returncode == 1, asked
        guest.ok(f"{drmgr} -r", SLOW_S)
        guest.wait_for("! test -e /dev/sdb", SLOW_S)
    assert plugged.read_bytes().count(DATA) == PLUGS
    guest.ok("touch /tmp/enough")
    assert guest.wait_for("grep 'fio ended' /tmp/fio", SLOW_S).startswith("fio ended 0")
    assert guest.ok("dmesg | grep -i -E 'i/o error|sense key|offline|hung|oops:|cut here' || true") == ""
