# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that follow one another in a guest whose disk and network are in use: kexec, kdump, a reset without any warning.

A kernel that panics, or is reset, leaves its queues registered, with transfers under way and frames coming in.
"""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from splitvisor.guests.commands import Commands
from splitvisor.guests.network import lease
from tests.disk_tools import run as run_tool
from tests.guests.conftest import IO_PROMPT, Run
from tests.guests.harness import BOOT_SECONDS, Console, Guests
from tests.guests.lan import check_driver
from tests.guests.tcp_checksums import tcp_checksums

MIB = 1 << 20
SLOW_S = 300.0
DISK_MIB = 640
APPEND = "console=hvc0 panic=-1"
DATA = random.Random(7).randbytes(4096)
HOST_NAME = "the-dead-one"
DISCARD_PORT = 9
NODE_NAME = 65
"""Where struct new_utsname has it, and VMCOREINFO says that this begins struct uts_namespace."""
DATAGRAM_BYTES = 1000
DATAGRAM_S = 0.05
"""From one to the next: not more than four vCPUs take on a busy host."""
BUSY = 300
"""Transfers of the disk, each way, after which it is in use."""
FRAMES = 20
FIO = (
    "fio --name=job --filename=/mnt/busy --size=8m --ioengine=libaio --direct=1 --iodepth=16 --rw=randrw --bsrange=4k-64k "
    "--time_based --runtime=3600 >/tmp/fio.log 2>&1 &"
)
needs_gdb = pytest.mark.skipif(shutil.which("gdb-multiarch") is None, reason="needs gdb-multiarch; apt-get install gdb-multiarch")


@pytest.fixture
def disk(guests: Guests, tmp_path: Path) -> Path:
    """A disk with a file system that has a kernel and its initial RAM disk in /boot."""
    boot = tmp_path / "root/boot"
    boot.mkdir(parents=True)
    shutil.copyfile(guests.kernel, boot / "vmlinux")
    shutil.copyfile(guests.io, boot / "initrd.img")
    image = tmp_path / "disk.img"
    run_tool("mke2fs", "-q", "-t", "ext4", "-d", tmp_path / "root", image, f"{DISK_MIB}m")
    return image


@contextmanager
def datagrams() -> Iterator[int]:
    """Send datagrams to a port of this host all the time; have its number."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    ended = threading.Event()

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not ended.wait(DATAGRAM_S):
                sender.sendto(bytes(DATAGRAM_BYTES), ("127.0.0.1", port))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield port
    finally:
        ended.set()
        thread.join()


class Machine:
    """A guest with a disk and a network, both of which it keeps busy.

    Args:
        console: of its run.
        append: what its kernel was started with.
    """

    def __init__(self, console: Console, append: str) -> None:
        self.console = console
        self.guest = self._booted(append)

    def _booted(self, append: str) -> Commands:
        self.console.expect(IO_PROMPT, BOOT_SECONDS)
        guest = Commands(self.console)
        assert guest.ok("cat /proc/cmdline").startswith(append)
        guest.wait_for("test -b /dev/sda")
        guest.ok("mount -t ext4 /dev/sda /mnt", SLOW_S)
        return guest

    def keep_data(self) -> None:
        """Write what no kernel may lose."""
        self.guest.put("/mnt/data", DATA)
        self.guest.ok("sync", SLOW_S)

    def load(self, how: str, append: str) -> None:
        """Have the disk's kernel loaded. how: of kexec(8)."""
        self.guest.ok(f"kexec {how} /mnt/boot/vmlinux --initrd=/mnt/boot/initrd.img --append='{append}'", SLOW_S)

    def begin_load(self) -> None:
        """Have the disk read and written without end, by many at a time, and frames that come in."""
        lease(self.guest)
        self.guest.ok(FIO)
        self.guest.wait_for(f"awk '{{ exit !($1 > {BUSY} && $5 > {BUSY}) }}' /sys/block/sda/stat", SLOW_S)
        received = "/sys/class/net/eth0/statistics/rx_packets"
        self.guest.wait_for(f"test $(cat {received}) -gt {FRAMES}", SLOW_S)

    def goes_on(self, command: str, append: str) -> None:
        """Let a command end this kernel; the next one must find disk and network, and all that was written before."""
        self.console.type(f"{command}\n")
        self.console.expect("Linux version", SLOW_S)
        self.guest = self._booted(append)
        digest = hashlib.sha256(DATA).hexdigest()
        assert self.guest.ok("sha256sum </mnt/data").split()[0] == digest
        tcp_checksums(self.guest, lease(self.guest).gateway, 1)
        check_driver(self.guest)
        assert self.guest.ok("dmesg | grep -i -E 'i/o error|sense key|offline|oops:|cut here' || true") == ""

    def end(self) -> None:
        """Power off; the file system must be sound."""
        self.guest.ok("umount /mnt && e2fsck -fn /dev/sda", SLOW_S)
        self.console.type("poweroff\n")
        assert self.console.wait() == 0

    def calls(self, name: str, owner: str = "vio_service") -> int:
        """How often a call was made that was answered by an owner, once the run has ended."""
        return sum(each["count"] for each in self.console.report()["calls"] if (each["name"], each["owner"]) == (name, owner))


@pytest.fixture
def machine(run: Run, guests: Guests, disk: Path) -> Iterator[Callable[..., Machine]]:
    """Start a machine with so many vCPUs, with more words for its kernel and more options."""
    with datagrams() as port:

        def start(vcpus: str, append: str = APPEND, *options: str) -> Machine:
            files = ("--kernel", str(guests.kernel), "--initrd", str(guests.io), "--append", append, "--disk", str(disk))
            net = ("--net", f"user,hostfwd=udp:127.0.0.1:{port}-:{DISCARD_PORT}")
            return Machine(run(*files, *net, "--memory", "512M", "--smp", vcpus, *options), append)

        yield start


@pytest.mark.parametrize(
    ("vcpus", "options"),
    [
        ("1", ()),
        pytest.param("4", (), marks=pytest.mark.long),
        pytest.param("4", ("--no-shared-memory",), marks=pytest.mark.long),
    ],
)
def test_a_kernel_of_the_disk_is_started_while_disk_and_network_are_busy(
    machine: Callable[..., Machine], vcpus: str, options: Sequence[str]
) -> None:
    each = machine(vcpus, APPEND, *options)
    each.keep_data()
    each.load("-l", f"{APPEND} second")
    each.begin_load()
    each.goes_on("kexec -e", f"{APPEND} second")
    assert each.guest.ok("nproc; cat /sys/devices/system/cpu/online").split() == [vcpus, "0" if vcpus == "1" else "0-3"]
    each.end()
    assert each.calls("H_REG_CRQ") == each.calls("H_REGISTER_LOGICAL_LAN") == 2


@pytest.mark.long
def test_a_reset_without_any_warning_ends_what_is_under_way(machine: Callable[..., Machine]) -> None:
    each = machine("1")
    each.keep_data()
    each.begin_load()
    each.goes_on("echo b >/proc/sysrq-trigger", APPEND)
    each.end()
    assert each.calls("H_REG_CRQ") == each.calls("H_REGISTER_LOGICAL_LAN") == 2
    assert each.calls("H_FREE_CRQ") == each.calls("H_FREE_LOGICAL_LAN") == 0


def read_dump(kernel: Path, core: Path, *commands: str) -> str:
    """Return what gdb says of a kernel's memory."""
    script = [word for command in ("set pagination off", "set width 0", *commands) for word in ("-ex", command)]
    return run_tool("gdb-multiarch", "-nx", "-batch", *script, kernel, core).stdout


@needs_gdb
@pytest.mark.long
@pytest.mark.parametrize(("vcpus", "more"), [("1", "maxcpus=1"), ("4", "maxcpus=1"), ("4", "maxcpus=4")])
def test_a_crash_kernel_writes_the_dead_ones_memory_to_the_disk(
    machine: Callable[..., Machine], guests: Guests, disk: Path, tmp_path: Path, vcpus: str, more: str
) -> None:
    each = machine(vcpus, f"{APPEND} crashkernel=224M")
    each.keep_data()
    banner = each.guest.ok("cat /proc/version")
    each.load("-p", f"{APPEND} {more}")
    each.guest.ok(f"hostname {HOST_NAME}")
    each.begin_load()
    each.console.type("echo shell $$ 'panics'\n")
    shell = each.console.expect(r"^shell (\d+) panics").group(1)
    each.goes_on("echo c >/proc/sysrq-trigger", f"{APPEND} {more}")
    assert each.guest.ok("nproc") == more.removeprefix("maxcpus=")
    each.guest.ok("dd if=/proc/vmcore of=/mnt/vmcore bs=1M oflag=direct conv=fsync", SLOW_S)
    each.end()
    # Each queue: the first kernel's, what the second tried while that was there, and its own.
    assert each.calls("H_REG_CRQ") + each.calls("H_REG_CRQ", "local") == 3
    assert each.calls("H_REGISTER_LOGICAL_LAN") == 3
    assert each.calls("H_FREE_CRQ") == each.calls("H_FREE_LOGICAL_LAN") == 1

    core = tmp_path / "vmcore"
    run_tool("debugfs", "-R", f"dump /vmcore {core}", disk)
    assert run_tool("readelf", "-nW", core).stdout.count("NT_PRSTATUS") == int(vcpus)
    seen = read_dump(guests.kernel, core, "info threads", "x/s (char *)&linux_banner", f"x/s (char *)&init_uts_ns + {NODE_NAME}")
    assert banner in seen
    assert f'"{HOST_NAME}"' in seen
    assert re.search(rf"LWP {shell} +0x[0-9a-f]+ in __crash_kexec \(\)", seen), seen
