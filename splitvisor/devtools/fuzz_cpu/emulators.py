# SPDX-License-Identifier: GPL-2.0-or-later
"""The two that run batches: QEMU's user mode, which is believed, and the engine."""

from __future__ import annotations

import mmap
import select
import shutil
import subprocess
from collections.abc import Sequence
from typing import Protocol, Self

from cpu_service.engine import layout
from cpu_service.engine.engine import MSR_LE, MSR_ME, MSR_SF, Engine
from splitvisor.devtools.fuzz_cpu.batch import AT, Group, Placement, Programs

QEMU = {"big": "qemu-ppc64", "little": "qemu-ppc64le"}
BATCH_DEADLINE_S = 60
_MSR_FP, _MSR_VEC, _MSR_VSX, _MSR_FE = 1 << 13, 1 << 25, 1 << 23, 1 << 11 | 1 << 8
_LPCR_ILE = 1 << 25
_TABLE_BYTES = 1 << 18
_AT_END = 0x201F00
"""Where the engine's harness goes when it is done: a hypercall."""
_SC_1 = 0x4400_0022
_VECTORS = {
    0x300: "data_storage", 0x380: "data_segment", 0x600: "alignment", 0x700: "program",
    0x800: "no_fp", 0xF20: "no_vmx", 0xF40: "no_vsx", 0xF60: "facility",
}  # fmt: skip


class EmulatorError(Exception):
    """An emulator has ended, or has not answered; the text says which and what to do."""


class Emulator(Protocol):
    """Runs batches."""

    def start(self, groups: Sequence[Group]) -> None:
        """Begin with a batch."""

    def finish(self) -> bytes:
        """Return the records after the batch, one after the other. Raises EmulatorError."""


class Oracle:
    """QEMU's user mode, a process that shares a file of memory with this one, in the programs' directory."""

    def __init__(self, programs: Programs) -> None:
        self._name = QEMU[programs.order]
        self._placement = Placement(programs, programs.batch_done)
        self._count = 0
        shared = programs.oracle.with_suffix(f".{programs.order}.memory")
        with shared.open("w+b") as file:
            file.truncate(AT["END"] - AT["HARNESS"])
            self._memory = mmap.mmap(file.fileno(), 0)
        self._process = subprocess.Popen(
            [self._name, "-cpu", "power8", str(programs.oracle), str(shared)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # ^C is for this process.
        )
        self._placement.harness(memoryview(self._memory), AT["HARNESS"])

    def start(self, groups: Sequence[Group]) -> None:
        """Begin with a batch. Raises EmulatorError."""
        self._count = self._placement.batch(groups, memoryview(self._memory), AT["HARNESS"])
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(b"!")
        except BrokenPipeError:
            raise EmulatorError(f"{self._name} has ended (exit status {self._process.wait()})") from None

    def finish(self) -> bytes:
        """Return the records after the batch. Raises EmulatorError."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], BATCH_DEADLINE_S)
        if not ready or not self._process.stdout.read(1):
            raise EmulatorError(f"{self._name} has ended or hangs in a batch (exit status {self._process.poll()})")
        start = AT["OUT"] - AT["HARNESS"]
        return self._memory[start : start + AT["RECORD_BYTES"] * self._count]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(BATCH_DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


class Subject:
    """The engine, in supervisor mode without translation."""

    def __init__(self, programs: Programs) -> None:
        little = programs.order == "little"
        self._ram = mmap.mmap(-1, AT["END"])
        self._msr = MSR_SF | MSR_ME | _MSR_FP | _MSR_VEC | _MSR_VSX | _MSR_FE | (MSR_LE if little else 0)
        self._engine = Engine(self._ram, mmap.mmap(-1, _TABLE_BYTES))
        self._engine.on_hypercall = self._engine.stop
        state = self._engine.state
        state.spr[layout.SPR_FSCR] = (1 << 64) - 1
        if little:
            state.spr[layout.SPR_LPCR] |= _LPCR_ILE
        self._placement = Placement(programs, _AT_END, self._msr)
        self._placement.harness(memoryview(self._ram), 0)
        self._ram[_AT_END : _AT_END + 4] = _SC_1.to_bytes(4, programs.order)
        for address, name in _VECTORS.items():
            target = programs.symbols[f"vector_{name}"]
            self._ram[address : address + 4] = (18 << 26 | target & 0x3FF_FFFC | 2).to_bytes(4, programs.order)
        self._count = 0

    def start(self, groups: Sequence[Group]) -> None:
        """Begin with a batch."""
        self._count = self._placement.batch(groups, memoryview(self._ram), 0)

    def finish(self) -> bytes:
        """Return the records after the batch."""
        self._engine.invalidate_code(AT["SLOTS"], AT["SLOT_BYTES"] * AT["MAX_SLOTS"])
        self._engine.state.nip.value = AT["HARNESS"]
        self._engine.set_msr(self._msr)
        self._engine.run(1 << 40)
        return self._ram[AT["OUT"] : AT["OUT"] + AT["RECORD_BYTES"] * self._count]


def missing_programs() -> list[str]:
    """Return which of QEMU's programs are not installed."""
    return [name for name in QEMU.values() if not shutil.which(name)]
