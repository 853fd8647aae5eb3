# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian's kernel takes a terminal that is added while it runs, uses it, and gives it back."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import grpc.aio
import pytest

from splitvisor.guests.cpio import Entry, archive
from splitvisor.guests.fetch import MARKER, MODULES
from splitvisor.rpc import device_tree_pb2, device_tree_pb2_grpc
from tests.component.console_harness import Viewer
from tests.guests.conftest import Run
from tests.guests.harness import BOOT_SECONDS, STEP_SECONDS, Console, Guests
from tests.services import Service

COMPILER = "powerpc64-linux-gnu-gcc"
FLAGS = """
    -mlittle-endian -mabi=elfv2 -mcpu=power8 -mno-vsx -mno-altivec -O2 -Wall -Wextra -Werror -ffreestanding -fno-builtin
    -nostdlib -static -no-pie -fno-pie -fno-stack-protector
"""
PROMPT = "guest# "
APPEND = ("--append", "console=hvc0 panic=-1")
ADDED = 0x7100_0002
LISTING = "echo $(ls /sys/bus/vio/devices) is on the 'bus'\n"


@pytest.fixture(scope="session")
def initrd(guests: Guests, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The initramfs for slots, with a program that takes what an event names at once; Debian's rtas_errd does so for PCI only."""
    if shutil.which(COMPILER) is None:
        pytest.skip(f"needs {COMPILER}")
    directory = tmp_path_factory.mktemp("dlpar")
    program = directory / "dlpar"
    subprocess.run([COMPILER, *FLAGS.split(), "-o", program, Path(__file__).with_name("dlpar.c")], check=True)
    path = directory / "initrd.cpio"
    extra = archive([Entry.program("bin/dlpar", program.read_bytes())])
    path.write_bytes(guests.slots.read_bytes() + extra)  # The kernel unpacks archives one after the other.
    return path


def on_the_bus(console: Console) -> list[str]:
    console.type(LISTING)
    names = console.expect(r"^([^\n]*)is on the bus\r?$").group(1).split()
    return [name for name in names if name.startswith("71")]


LOAD_MODULES = " && ".join(f"insmod /{name}.ko" for name in MODULES)


def start_handler(console: Console) -> None:
    console.type(f"{LOAD_MODULES} && dlpar &\n")
    console.expect("dlpar: ready")


def start_guest(run: Run, guests: Guests, initrd: Path, *arguments: str) -> Console:
    console = run("--name", "plug", "--kernel", str(guests.kernel), "--initrd", str(initrd), *APPEND, *arguments)
    console.expect(PROMPT, BOOT_SECONDS)
    start_handler(console)
    return console


def use_terminal(console: Console) -> None:
    """Write to the new terminal and read a typed line from it, which takes its interrupt."""

    async def talk() -> bytes:
        viewer = Viewer(console.service("vio"), vm="plug", unit_address=ADDED, writer=True)
        async with viewer, asyncio.timeout(STEP_SECONDS):
            await viewer.opened()
            console.type("(echo 'what is it?'; read -r line; echo \"it is $line\") <>/dev/hvc1 >&0 &\n")
            text, typed = b"", False
            while b"it is a terminal" not in text:
                text += (await anext(viewer.responses)).output
                if b"what is it?" in text and not typed:
                    viewer.type(b"a terminal\r")
                    typed = True
            return text

    assert b"it is a terminal" in asyncio.run(talk())


async def stored_terminals(address: str) -> tuple[device_tree_pb2.TreeOrigin, list[str]]:
    async with grpc.aio.insecure_channel(address) as channel:
        trees = device_tree_pb2_grpc.DeviceTreeServiceStub(channel)
        bus = await trees.LookUpNode(device_tree_pb2.LookUpNodeRequest(vm="plug", path="/vdevice"))
        history = await trees.ListRevisions(device_tree_pb2.ListRevisionsRequest(vm="plug"))
        return history.revisions[0].origin, [child.name for child in bus.children if child.name.startswith("vty")]


@pytest.mark.parametrize("memory", [(), ("--no-shared-memory",)], ids=["shared", "through-streams"])
def test_a_terminal_appears_works_and_vanishes(run: Run, guests: Guests, initrd: Path, memory: tuple[str, ...]) -> None:
    console = start_guest(run, guests, initrd, *memory)
    assert on_the_bus(console) == ["71000000", "71000001"]
    parent = console.splitvisor("vm", "devices", "plug")
    assert parent.stdout.count("configured") == 2

    added = console.splitvisor("vm", "device-add", "plug", "vty")
    assert (added.returncode, "interrupt parent 0x1111, from the stored tree" in added.stdout) == (0, True), added
    console.expect("dlpar: added 30000002")
    assert on_the_bus(console) == ["71000000", "71000001", "71000002"]
    console.type("cat /proc/device-tree/vdevice/vty@71000002/compatible; echo\n")
    console.expect("hvterm1")
    assert asyncio.run(stored_terminals(console.service("hcall"))) == (
        device_tree_pb2.TREE_ORIGIN_HOTPLUG, ["vty@71000000", "vty@71000002"]
    )  # fmt: skip
    use_terminal(console)

    removed = console.splitvisor("vm", "device-remove", "plug", hex(ADDED))
    assert (removed.returncode, removed.stdout) == (0, "0x71000002 is removed\n"), removed
    assert on_the_bus(console) == ["71000000", "71000001"]
    assert asyncio.run(stored_terminals(console.service("hcall")))[1] == ["vty@71000000"]
    console.type("poweroff\n")
    assert console.wait() == 0


def slots(console: Console) -> list[str]:
    """What lsslot lists: each slot in use and its device."""
    console.type("/usr/sbin/lsslot -c slot; echo that is 'all'\n")
    listing = console.expect(r"^# Slot.*\n((?:.*\n)*?)that is all\r?$").group(1)
    return [" ".join(line.split()[:5]) for line in listing.splitlines()]


def drmgr(console: Console, action: str) -> None:
    console.type(f"/usr/sbin/drmgr -w 1 -c slot -s V1-C2 {action}; echo drmgr said $?.\n")
    assert console.expect(r"^drmgr said (\d+)\.").group(1) == "0"


def test_debians_own_tools_add_a_device_list_it_and_remove_it(run: Run, guests: Guests) -> None:
    console = run("--name", "plug", "--kernel", str(guests.kernel), "--initrd", str(guests.slots), *APPEND)
    console.expect(PROMPT, BOOT_SECONDS)
    console.type(f"{LOAD_MODULES}; echo 'loaded'\n")
    console.expect("^loaded")
    before = ["V1-C0 Virtual I/O Slot 71000000", "V1-C1 Virtual I/O Slot 71000001"]
    assert slots(console) == before
    added = console.splitvisor("vm", "device-add", "plug", "vty", "--wait", "0.1")
    assert "plugged in" in added.stderr, added  # The guest takes it when its administrator says so.
    drmgr(console, "-a")
    assert slots(console) == [*before, "V1-C2 Virtual I/O Slot 71000002"]
    use_terminal(console)
    asked = console.splitvisor("vm", "device-remove", "plug", hex(ADDED), "--wait", "0.1")
    assert "did not release" in asked.stderr, asked
    drmgr(console, "-r")
    assert slots(console) == before
    assert "0x71000002" not in console.splitvisor("vm", "devices", "plug").stdout
    console.type("poweroff\n")
    assert console.wait() == 0


def test_a_device_is_the_guests_when_it_has_taken_it_and_outlives_a_reboot(run: Run, guests: Guests, initrd: Path) -> None:
    console = run("--name", "plug", "--kernel", str(guests.kernel), "--initrd", str(initrd), *APPEND)
    console.expect(PROMPT, BOOT_SECONDS)
    # Nobody handles the kernel's events yet, and that is what is said.
    early = console.splitvisor("vm", "device-add", "plug", "nvram", "--option", "bytes=8192", "--wait", "0.3")
    assert (early.returncode, "the guest did not use it within 0.3 s" in early.stderr) == (1, True), early
    start_handler(console)
    console.expect("dlpar: added 30000002")
    assert on_the_bus(console) == ["71000000", "71000001", "71000002"]
    assert console.splitvisor("vm", "device-add", "plug", "vty", "--address", "0x71000009").returncode == 0
    assert console.splitvisor("vm", "device-remove", "plug", "0x71000002").returncode == 0

    console.type("reboot\n")
    console.expect(MARKER, BOOT_SECONDS)
    console.expect(PROMPT)
    assert on_the_bus(console) == ["71000000", "71000001", "71000009"]
    kept = console.splitvisor("vm", "device-remove", "plug", "0x71000009", "--wait", "0.3")
    assert (kept.returncode, "did not release 0x71000009 within 0.3 s" in kept.stderr) == (1, True), kept
    assert "configured, asked to go" in console.splitvisor("vm", "devices", "plug").stdout
    start_handler(console)
    console.expect("dlpar: removed 30000009")
    assert on_the_bus(console) == ["71000000", "71000001"]
    console.type("poweroff\n")
    assert console.wait() == 0


def test_a_device_that_was_added_outlives_a_crash_of_its_service(
    run: Run, guests: Guests, initrd: Path, short_path: Path
) -> None:
    hcall = Service("hcall", short_path, "--store", str(short_path / "trees.sqlite"))
    vio = Service("vio", short_path, "--device-tree", hcall.address)
    try:
        console = start_guest(run, guests, initrd, "--connect", f"hcall={hcall.address},vio={vio.address}")
        assert console.splitvisor("vm", "device-add", "plug", "vty").returncode == 0
        vio.kill()
        vio.start()
        assert on_the_bus(console) == ["71000000", "71000001", "71000002"]
        use_terminal(console)
        assert "0x71000002  vty" in console.splitvisor("vm", "devices", "plug").stdout
        removed = console.splitvisor("vm", "device-remove", "plug", hex(ADDED))
        assert (removed.returncode, removed.stdout) == (0, "0x71000002 is removed\n"), removed
        console.type("poweroff\n")
        assert console.wait() == 0
    finally:
        vio.end()
        hcall.end()
