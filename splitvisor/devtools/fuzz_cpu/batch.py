# SPDX-License-Identifier: GPL-2.0-or-later
"""The form of a batch in memory, and the programs that run it, built with the PowerPC cross tools."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

HERE = Path(__file__).parent
TOOLS = ("powerpc64-linux-gnu-gcc", "powerpc64-linux-gnu-objcopy", "powerpc64-linux-gnu-nm")
TIMEOUT_S = 60
ORACLE_BASE = 0x1000_0000

ByteOrder = Literal["big", "little"]
ORDERS: tuple[ByteOrder, ...] = ("big", "little")

AT = {
    name: int(value, 0)
    for name, value in re.findall(r"^#define (\w+) (\w+)", (HERE / "batch.h").read_text(), re.MULTILINE)
    if value[0].isdigit()
}
"""The numbers of batch.h."""

TAKEN = AT["TAKEN"]
ENDINGS = {0: "goes on", TAKEN: "branches", **{AT[name]: name for name in ("SIGILL", "SIGTRAP", "SIGBUS", "SIGFPE", "SIGSEGV")}}
_SIGNAL_OF_CAUSE = {0x10: "SIGFPE", 0x08: "SIGILL", 0x04: "SIGILL", 0x02: "SIGTRAP"}
"""By bits 43 to 46 of SRR1 after a program interrupt."""


@dataclass(frozen=True)
class Field:
    """A register or a window of memory in a record."""

    name: str
    offset: int
    size: int


FIELDS = (
    *(Field(f"r{number}", AT["IN_GPR"] + 8 * number, 8) for number in range(32)),
    *(Field(f"vs{number}", AT["IN_VSR"] + 16 * number, 16) for number in range(64)),
    *(Field(name, AT[f"IN_{name.upper()}"], 8) for name in ("cr", "xer", "fpscr", "lr", "ctr")),
    Field("ending", AT["IN_SLOT"], 8),
    Field("vscr", AT["IN_VSCR"], 16),
    Field("memory", AT["IN_MEMORY"], AT["MEMORY_BYTES"]),
)


class Record:
    """Registers and memory, as bytes in an emulator's order of bytes."""

    def __init__(self, data: bytes | bytearray, order: ByteOrder) -> None:
        self.data = data
        self.order = order

    def __getitem__(self, field: Field) -> int:
        raw = self.data[field.offset : field.offset + field.size]
        if field.name.startswith("vs") and field.name != "vscr":  # Its doublewords are in the order of addresses.
            return int.from_bytes(raw[:8], self.order) << 64 | int.from_bytes(raw[8:], self.order)
        return int.from_bytes(raw, "big" if field.name == "memory" else self.order)

    def fields(self) -> tuple[Field, ...]:
        """Its fields."""
        return FIELDS

    def differences(self, other: Record) -> Iterator[Field]:
        """Fields that are not the same in the other."""
        for field in FIELDS:
            part = slice(field.offset, field.offset + field.size)
            if self.data[part] != other.data[part]:
                yield field


@dataclass(frozen=True)
class Group:
    """Instructions, and the registers and memory of each of their cases."""

    words: tuple[int, ...]
    records: Sequence[bytes | bytearray]


@dataclass(frozen=True)
class Programs:
    """What was built for one order of bytes.

    Attributes:
        harness: code for address HARNESS.
        symbols: addresses in it.
        oracle: the program that runs it in QEMU's user mode.
        batch_done: where the oracle's harness returns to.
    """

    order: ByteOrder
    harness: bytes
    symbols: dict[str, int]
    oracle: Path
    batch_done: int


def missing_tools() -> list[str]:
    """Return which programs are not installed."""
    return [tool for tool in TOOLS if not shutil.which(tool)]


def build(order: ByteOrder, directory: Path) -> Programs:
    """Build for one order of bytes, into a directory. Raises subprocess.SubprocessError, FileNotFoundError."""
    harness, oracle = directory / f"harness.{order}", directory / f"oracle.{order}"
    symbols = _link(order, HERE / "harness.S", harness, AT["HARNESS"])
    code = directory / f"harness.{order}.bin"
    _run("powerpc64-linux-gnu-objcopy", "-O", "binary", "-j", ".text", str(harness), str(code))
    own = _link(order, HERE / "oracle.S", oracle, ORACLE_BASE, f"-DON_SIGNAL={symbols['on_signal']:#x}")
    if len(code.read_bytes()) > AT["HARNESS_BYTES"]:
        raise AssertionError("the harness has outgrown HARNESS_BYTES")
    return Programs(order, code.read_bytes(), symbols, oracle, own["batch_done"])


def _link(order: ByteOrder, source: Path, output: Path, base: int, *flags: str) -> dict[str, int]:
    _run(
        *("powerpc64-linux-gnu-gcc", f"-m{order}", "-nostdlib", "-static", f"-Wl,-Ttext={base:#x}", "-Wl,--build-id=none"),
        *(*flags, "-o", str(output), str(source)),
    )
    listed = _run("powerpc64-linux-gnu-nm", str(output))
    return {name: int(address, 16) for address, name in re.findall(r"^(\w+) \w (\w+)$", listed, re.MULTILINE)}


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=TIMEOUT_S).stdout


class Placement:
    """Puts batches into the memory of an emulator.

    Args:
        programs: the harness.
        return_to: the address that the harness jumps to after a batch.
        msr: what the harness runs with, for interrupts on the engine.
    """

    def __init__(self, programs: Programs, return_to: int, msr: int = 0) -> None:
        self._code = programs.harness
        self._order = programs.order
        self._letter = "<" if programs.order == "little" else ">"
        self._control = (return_to, msr)
        self._exits = programs.symbols["first_exit"], programs.symbols["second_exit"]

    def harness(self, memory: bytearray | memoryview, base: int) -> None:
        """Write what stays the same; base: the address of the memory's start."""
        start = AT["HARNESS"] - base
        memory[start : start + len(self._code)] = self._code
        table = bytearray([AT["SIGTRAP"]] * 32)
        for bits, name in _SIGNAL_OF_CAUSE.items():
            table[bits] = AT[name]
        start = AT["CONTROL"] + AT["C_SIGNAL_OF_CAUSE"] - base
        memory[start : start + len(table)] = table

    def batch(self, groups: Sequence[Group], memory: bytearray | memoryview, base: int) -> int:
        """Write a batch; return its number of cases."""
        slots, records = bytearray(), bytearray()
        for number, group in enumerate(groups):
            slot = slot_address(number)
            words = list(group.words)
            words += [branch(slot + 4 * (len(words) + exit_), target) for exit_, target in enumerate(self._exits)]
            slots += struct.pack(f"{self._letter}{len(words)}I", *words).ljust(AT["SLOT_BYTES"], b"\0")
            at = len(records)
            records += b"".join(group.records)
            for start in range(at + AT["IN_SLOT"], len(records), AT["RECORD_BYTES"]):
                struct.pack_into(f"{self._letter}Q", records, start, slot)
        count = len(records) // AT["RECORD_BYTES"]
        control = struct.pack(f"{self._letter}6Q", AT["IN"], AT["OUT"], count, len(slots), *self._control)
        for address, data in ((AT["CONTROL"], control), (AT["STAGED_SLOTS"], slots), (AT["IN"], records)):
            memory[address - base : address - base + len(data)] = data
        return count


def slot_address(number: int) -> int:
    """Return where the instructions of a batch's group are."""
    return AT["SLOTS"] + AT["SLOT_BYTES"] * number


def branch(address: int, target: int) -> int:
    """Return the branch at an address to another."""
    return 18 << 26 | target - address & 0x3FF_FFFC
