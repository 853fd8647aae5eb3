# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kexec-tools start another kernel from a running one, and after a panic one that sees the dead one's memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from splitvisor.guests.cpio import Entry, archive
from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS, Console, Guests

PROMPT = "guest# "
APPEND = "console=hvc0 panic=-1"
LOAD = "/sbin/kexec {how} /vmlinux --initrd=/next.cpio --append='" + APPEND + " {more}' && echo 'loaded' the next\n"


@pytest.fixture(scope="session")
def initrd(guests: Guests, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The initramfs with kexec, a kernel, and a next initramfs that has neither."""
    path = tmp_path_factory.mktemp("kexec") / "initrd.cpio"
    kernel = Entry.program("vmlinux", guests.kernel.read_bytes())
    path.write_bytes(guests.kexec.read_bytes() + archive([kernel, Entry.program("next.cpio", guests.kexec.read_bytes())]))
    return path


def boot(run: Run, guests: Guests, initrd: Path, vcpus: str, append: str = "") -> Console:
    console = run(
        "--name", "kexec", "--kernel", str(guests.kernel), "--initrd", str(initrd), "--append", f"{APPEND} {append}",
        "--memory", "1G", "--smp", vcpus,
    )  # fmt: skip
    console.expect(PROMPT, BOOT_SECONDS)
    return console


def load(console: Console, how: str, more: str) -> None:
    console.type(LOAD.format(how=how, more=more))
    console.expect(r"^loaded the next")
    console.expect(PROMPT)


@pytest.mark.parametrize(("vcpus", "resized"), [("1", True), ("4", False)])
def test_a_kernel_starts_another_with_as_many_vcpus(run: Run, guests: Guests, initrd: Path, vcpus: str, resized: bool) -> None:
    console = boot(run, guests, initrd, vcpus)
    if resized:  # The other kernel knows only the size in the device tree.
        order = "/sys/kernel/debug/powerpc/hpt_order"
        console.type(f"mount -t debugfs debugfs /sys/kernel/debug; echo 24 > {order}; echo order $(cat {order}) 'now'\n")
        console.expect("^order 24 now")
    load(console, "-l", "second")
    console.type("/sbin/kexec -e\n")
    console.expect("Linux version")
    console.expect(PROMPT, BOOT_SECONDS)
    console.type('cat /proc/cmdline; echo "$(nproc) of them"; date +%Y\n')
    console.expect(rf"^{APPEND} second")
    console.expect(rf"^{vcpus} of them")
    console.expect(r"^20\d\d\r?$")  # RTAS answers from where the first kernel had it put.
    console.type("poweroff\n")
    assert console.wait() == 0
    calls = {call["name"]: call["count"] for call in console.report()["calls"]}
    assert calls["H_CLEAR_HPT"] == 1


@pytest.mark.parametrize(
    ("vcpus", "nmi"),
    [pytest.param("1", False, marks=pytest.mark.long), pytest.param("4", False, marks=pytest.mark.long), ("4", True)],
)
def test_a_crash_kernel_sees_the_dead_ones_memory(run: Run, guests: Guests, initrd: Path, vcpus: str, nmi: bool) -> None:
    console = boot(run, guests, initrd, vcpus, "crashkernel=256M")
    load(console, "-p", "maxcpus=1")
    if nmi:
        assert console.splitvisor("vm", "nmi", "kexec").returncode == 0
    else:
        console.type("echo c > /proc/sysrq-trigger\n")
    console.expect("Linux version", BOOT_SECONDS)
    console.expect(PROMPT, BOOT_SECONDS)
    console.type("dd if=/proc/vmcore bs=64k count=16 2>/dev/null | grep -a -o 'OSRELEASE=6.*'; cat /proc/cmdline\n")
    console.expect(r"^OSRELEASE=6\.")
    console.expect(r"maxcpus=1 elfcorehdr=")
    console.type("dd if=/proc/vmcore bs=1M skip=700 count=8 2>/dev/null | wc -c\n")
    console.expect(rf"^{8 << 20}\r?$")
    console.type("poweroff\n")
    assert console.wait() == 0
