# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs batches on both sides, compares, and makes a case that differs as small as it can be."""

from __future__ import annotations

import struct
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from splitvisor.devtools.fuzz_cpu.batch import AT, ENDINGS, FIELDS, ByteOrder, Field, Group, Record, build
from splitvisor.devtools.fuzz_cpu.cases import CASES_OF_A_GROUP, Generator
from splitvisor.devtools.fuzz_cpu.differences import unexplained
from splitvisor.devtools.fuzz_cpu.emulators import Oracle, Subject
from splitvisor.devtools.fuzz_cpu.instructions import Instruction, named

GROUPS_OF_A_BATCH = 256
CASES_OF_A_BATCH = GROUPS_OF_A_BATCH * CASES_OF_A_GROUP
REPORTED_OF_AN_INSTRUCTION = 1
OBJDUMP = "powerpc64-linux-gnu-objdump"
_SIZE = AT["RECORD_BYTES"]
_INPUTS = tuple(each for each in FIELDS if each.name != "ending")
_FLOATING_POINT = frozenset((31, 48, 49, 50, 51, 57, 59, 60, 63))


@dataclass(frozen=True)
class Finding:
    """A case that differs without a reason: the instructions, and the registers before and after."""

    name: str
    words: tuple[int, ...]
    before: Record
    expected: Record
    found: Record
    parts: tuple[Field, ...]


@dataclass
class Result:
    """What a campaign has come to."""

    cases: int = 0
    explained: Counter[str] = field(default_factory=Counter)
    unexplained: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)


class Campaign:
    """Both emulators for one order of bytes."""

    def __init__(self, order: ByteOrder, instructions: Sequence[Instruction], seed: int) -> None:
        self.order = order
        self._generator = Generator(instructions, seed, order)
        self._directory = tempfile.TemporaryDirectory(prefix="splitvisor-fuzz-")
        programs = build(order, Path(self._directory.name))
        self._subject = Subject(programs)
        self._oracle = Oracle(programs)

    def close(self) -> None:
        """End the oracle."""
        self._oracle.close()
        self._directory.cleanup()

    def run(self, cases: int) -> Iterator[Result]:
        """Run at least so many cases; yields what is known after each batch."""
        result = Result()
        groups = self._generator.groups(GROUPS_OF_A_BATCH)
        while result.cases < cases:
            self._oracle.start(groups)
            self._subject.start(groups)
            found = self._subject.finish()
            following = self._generator.groups(GROUPS_OF_A_BATCH) if result.cases + CASES_OF_A_BATCH < cases else []
            expected = self._oracle.finish()
            if found != expected:
                self._compare(groups, expected, found, result)
            result.cases += CASES_OF_A_BATCH
            groups = following
            yield result

    def _compare(self, groups: Sequence[Group], expected: bytes, found: bytes, result: Result) -> None:
        position = 0
        for group in groups:
            end = position + len(group.records) * _SIZE
            if expected[position:end] != found[position:end]:
                word = group.words[-1]
                name = ""
                for number, before in enumerate(group.records):
                    start = position + number * _SIZE
                    left, right = expected[start : start + _SIZE], found[start : start + _SIZE]
                    if left == right:
                        continue
                    name = name or named(word)
                    if _only_right_half(word, left, right):
                        result.explained[name] += 1
                        continue
                    records = Record(before, self.order), Record(left, self.order), Record(right, self.order)
                    parts = unexplained(word, *records, records[1].differences(records[2]))
                    if not parts:
                        result.explained[name] += 1
                        continue
                    result.unexplained[name] += 1
                    if result.unexplained[name] <= REPORTED_OF_AN_INSTRUCTION:
                        result.findings.append(Finding(name, group.words, *records, tuple(parts)))
            position = end

    def minimise(self, finding: Finding) -> Finding:
        """Return the finding with all registers zero that need not be anything else."""
        zeroed: set[str] = set()
        while True:
            candidates = [each for each in _INPUTS if each.name not in zeroed and any(_part(finding.before.data, each))]
            still = self._differ(finding, [_without(finding.before, (each,)) for each in candidates])
            kept = [each for each, differs in zip(candidates, still, strict=True) if differs]
            if not kept:
                return finding
            together = _without(finding.before, kept)
            if not self._differ(finding, [together])[0]:
                kept = kept[:1]
                together = _without(finding.before, kept)
            zeroed |= {each.name for each in kept}
            again = self._try(finding, [together])[0]
            if again is None:
                return finding
            finding = again

    def _differ(self, finding: Finding, records: Sequence[bytes]) -> list[bool]:
        return [each is not None for each in self._try(finding, records)]

    def _try(self, finding: Finding, records: Sequence[bytes]) -> list[Finding | None]:
        if not records:
            return []
        group = Group(finding.words, records)
        self._oracle.start([group])
        self._subject.start([group])
        found, expected = self._subject.finish(), self._oracle.finish()
        results: list[Finding | None] = []
        for number, before in enumerate(records):
            part = slice(number * _SIZE, (number + 1) * _SIZE)
            three = Record(before, self.order), Record(expected[part], self.order), Record(found[part], self.order)
            parts = unexplained(finding.words[-1], *three, three[1].differences(three[2]))
            results.append(Finding(finding.name, finding.words, *three, tuple(parts)) if parts else None)
        return results


def _part(data: bytes | bytearray, part: Field) -> bytes:
    return bytes(data[part.offset : part.offset + part.size])


def _without(before: Record, parts: Sequence[Field]) -> bytes:
    data = bytearray(before.data)
    for each in parts:
        data[each.offset : each.offset + each.size] = bytes(each.size)
    return bytes(data)


def _only_right_half(word: int, expected: bytes, found: bytes) -> bool:
    """The most frequent known difference, quickly: QEMU has cleared the right half of the target's vector register."""
    primary = word >> 26
    if primary not in _FLOATING_POINT:
        return False
    target = word >> 21 & 31 | ((word & 1) << 5 if primary in (31, 60) else 0)
    start = AT["IN_VSR"] + 16 * target + 8
    return (
        expected[start : start + 8] == bytes(8) and expected[:start] + found[start : start + 8] + expected[start + 8 :] == found
    )


def disassembled(words: Sequence[int]) -> list[str]:
    """Return instructions as text; their numbers when the cross tools lack objdump."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(struct.pack(f">{len(words)}I", *words))
        file.flush()
        command = [OBJDUMP, "-D", "-b", "binary", "-m", "powerpc:common64", "-EB", "-Mpower10", file.name]
        try:
            lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
        except (OSError, subprocess.SubprocessError):
            return [f"{word:#010x}" for word in words]
    return [" ".join(line.split("\t")[1:]).strip() for line in lines[-len(words) :]]


def report(finding: Finding) -> str:
    """Return a finding for people: instructions, the registers that matter, and what differs."""
    lines = [f"{finding.name} ({finding.before.order} endian)"]
    lines += [f"  {text}" for text in disassembled(finding.words)]
    lines += [f"  before    {each.name:8}{finding.before[each]:#x}" for each in _INPUTS if any(_part(finding.before.data, each))]
    for each in finding.parts:
        if each.name == "ending":
            ends = [ENDINGS.get(side[each], str(side[each])) for side in (finding.expected, finding.found)]
            lines.append(f"  ending    QEMU {ends[0]}, engine {ends[1]}")
        else:
            lines.append(f"  {each.name:8}  QEMU   {finding.expected[each]:#x}")
            lines.append(f"            engine {finding.found[each]:#x}")
    return "\n".join(lines)
