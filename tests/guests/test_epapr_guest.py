# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest without an operating system starts its processors by ePAPR's spin table."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.guests.conftest import Run

COMPILER = "powerpc64-linux-gnu-gcc"
FLAGS = """
    -m64 -mbig-endian -mabi=elfv2 -mcpu=power8 -mno-vsx -mno-altivec -msoft-float -O2 -std=gnu11 -Wall -Wextra -Werror -Wno-main
    -ffreestanding -fno-builtin -nostdlib -static -no-pie -fno-pie -fno-stack-protector -Wl,-EB -Wl,-Ttext=0x200000
    -Wl,--build-id=none
"""
ROUNDS = 10_000


@pytest.fixture(scope="session")
def guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which(COMPILER) is None:
        pytest.skip(f"needs {COMPILER}")
    path = tmp_path_factory.mktemp("spin") / "spin_table.elf"
    subprocess.run([COMPILER, *FLAGS.split(), "-o", path, Path(__file__).with_name("spin_table.c")], check=True)
    return path


@pytest.mark.parametrize("vcpus", [1, 2, 8])
def test_each_secondary_starts_with_the_registers_that_epapr_says(run: Run, guest: Path, vcpus: int) -> None:
    console = run("--kernel", str(guest), "--boot-protocol", "epapr", "--smp", str(vcpus), "--memory", "256M")
    console.expect("^started: tree=0xd00dfeed r4=0x0 r5=0x0 magic=0x65504150 reachable=0x10000000")
    for number in range(1, vcpus):
        console.expect(f"^entry: address=0x1 r3={number:#x} pir={number:#x} reserved=0x1")
    for number in range(1, vcpus):
        pir = 0x100 + number
        console.expect(f"^secondary: r3={number:#x} r4=0x0 r5=0x0 r6=0x0 r7=0x10000000 r8=0x0 r9=0x0 pir={pir:#x}")
    console.expect(f"^all: processors={vcpus - 1:#x} counted={(vcpus - 1) * ROUNDS:#x}")
    assert console.wait() == 0


def test_processors_that_wait_are_saved_and_started_after_a_restore(run: Run, guest: Path) -> None:
    console = run("--name", "spin", "--kernel", str(guest), "--boot-protocol", "epapr", "--smp", "4", "--append", "wait")
    console.expect("^waiting")
    saved = console.runtime / "spin.snapshot"
    done = console.splitvisor("vm", "save", "spin", str(saved), "--stop")
    assert done.returncode == 0, done
    assert console.wait() == 0
    restored = run("--from", str(saved))
    restored.type("x")
    restored.expect(f"^all: processors=0x3 counted={3 * ROUNDS:#x}")
    assert restored.wait() == 0


def test_a_reset_has_them_wait_again(run: Run, guest: Path) -> None:
    console = run("--name", "spin", "--kernel", str(guest), "--boot-protocol", "epapr", "--smp", "2", "--append", "wait")
    console.expect("^waiting")
    assert console.splitvisor("vm", "reset", "spin").returncode == 0
    console.expect("^waiting")
    console.type("x")
    console.expect("^entry: address=0x1 r3=0x1 pir=0x1 reserved=0x1")
    console.expect("^all: processors=0x1")
    assert console.wait() == 0


def test_epapr_needs_a_kernel_and_no_firmware(run: Run, guest: Path) -> None:
    for arguments in ((), ("--kernel", str(guest), "--firmware", str(guest))):
        refused = run("--boot-protocol", "epapr", *arguments)
        assert refused.wait() == 2
        assert refused.process.stderr is not None
        assert b"--boot-protocol: epapr starts a kernel, without firmware; give --kernel" in refused.process.stderr.read()
