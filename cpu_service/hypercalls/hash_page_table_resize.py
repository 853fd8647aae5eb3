# SPDX-License-Identifier: GPL-2.0-or-later
"""A hash page table of another size while the guest runs (LoPAPR 14.5.4.1, H_RESIZE_HPT_PREPARE and H_RESIZE_HPT_COMMIT).

Linux does this when its memory grows or shrinks. The guest first has a table prepared, then commits to it with all but one vCPU
standing still. Bolted entries are then in the new table, each where its hash says; others are not, and the guest enters them
again when it misses them.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from typing import Final

from cpu_service.engine.engine import PAGE_TABLE_ENTRY_BYTES as ENTRY_BYTES
from cpu_service.hypercalls.declarations import LocalHypercall
from cpu_service.hypercalls.hash_page_table import (
    ENTRY,
    GROUP_ENTRIES,
    LAST_BYTE,
    MAX_SHIFT,
    MIN_SHIFT,
    VALID,
    HashPageTable,
    base_page_shift,
)
from cpu_service.vcpus.vcpu import Vcpu
from splitvisor.errors.problem import ProblemError
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall

Buffer = mmap.mmap | bytearray

SECONDARY: Final = 0x2
BOLTED: Final = 0x10

_GROUP_SHIFT = 7
_AVPN_SHIFT = 7
_AVPN_MASK = (1 << 62) - 1
_AVPN_PAGE_SHIFT = 23
"""An abbreviated virtual page number counts in pages of 8 MiB."""
_SEGMENT_SIZE_SHIFT = 62
_SEGMENT_SHIFTS = {0: 28, 1: 40}
_LARGEST_HASHED_HIGH_SHIFT = 25
"""Of a segment of 1 TiB, the number is hashed with itself shifted by so much."""
_IS_KEPT = bytes(value & (VALID | BOLTED) == VALID | BOLTED for value in range(256))


class CollisionError(Exception):
    """Two bolted entries have the same place in a smaller table."""


def group_in(high: int, low: int, group: int, old_groups: int, new_groups: int) -> int | None:
    """Return the group that an entry belongs to in a table of another size; None for an entry that no access can reach.

    Of the virtual page number, an entry has what is above 8 MiB; what is below follows from the group that it is in (Power ISA,
    book III, 5.7.7.3).

    Args:
        high: its first doubleword.
        low: its second doubleword.
        group: where it is.
        old_groups: of the table that it is in, a power of two.
        new_groups: of the other table, a power of two.
    """
    segment_shift = _SEGMENT_SHIFTS.get(high >> _SEGMENT_SIZE_SHIFT)
    page_shift = base_page_shift(high, low)
    if segment_shift is None or page_shift is None:
        return None
    number = (high & _AVPN_MASK) >> _AVPN_SHIFT
    segment_bits = segment_shift - _AVPN_PAGE_SHIFT
    vsid = number >> segment_bits
    offset = (number & (1 << segment_bits) - 1) << _AVPN_PAGE_SHIFT
    salt = vsid if segment_shift == _SEGMENT_SHIFTS[0] else vsid ^ vsid << _LARGEST_HASHED_HIGH_SHIFT
    primary = ~group if high & SECONDARY else group
    if page_shift < _AVPN_PAGE_SHIFT:
        below = (1 << _AVPN_PAGE_SHIFT - page_shift) - 1
        offset |= ((salt ^ primary) & (old_groups - 1) & below) << page_shift
    value = salt ^ offset >> page_shift
    return (~value if high & SECONDARY else value) & (new_groups - 1)


def rehash(old: memoryview, new: Buffer, new_bytes: int) -> None:
    """Put the bolted entries of one table into another, which is empty. Raises CollisionError."""
    old_groups, new_groups = len(old) >> _GROUP_SHIFT, new_bytes >> _GROUP_SHIFT
    kept = bytes(old[LAST_BYTE::ENTRY_BYTES]).translate(_IS_KEPT)
    index = kept.find(1)
    while index >= 0:
        high, low = ENTRY.unpack_from(old, index * ENTRY_BYTES)
        group = group_in(high, low, index // GROUP_ENTRIES, old_groups, new_groups)
        if group is not None:
            place = (group * GROUP_ENTRIES + index % GROUP_ENTRIES) * ENTRY_BYTES
            if new[place + LAST_BYTE] & VALID:
                raise CollisionError
            ENTRY.pack_into(new, place, high, low)
        index = kept.find(1, index + 1)


class HashPageTableResizing:
    """The two calls, and the table that is prepared.

    Args:
        table: the one in use.
        create: makes an empty table of so many bytes. Raises ProblemError or OSError when there is no memory.
    """

    def __init__(self, table: HashPageTable, create: Callable[[int], Buffer]) -> None:
        self._table = table
        self._create = create
        self._prepared: Buffer | None = None
        self.prepared_shift = 0
        """Log2 of the prepared table's bytes; 0: there is none."""

    def reset(self) -> None:
        """Forget what is prepared."""
        self._prepared, self.prepared_shift = None, 0

    def restore(self, shift: int, prepared_shift: int) -> None:
        """Be as saved: an empty table of 2**shift bytes (0: as it is), and one that is prepared (0: none).

        Raises ValueError.
        """
        if shift:
            self._check_shift(shift)
            self._table.resize(shift)
        if prepared_shift:
            self._check_shift(prepared_shift)
            self._prepared, self.prepared_shift = self._create(1 << prepared_shift), prepared_shift

    def _check_shift(self, shift: int) -> None:
        if not MIN_SHIFT <= shift <= self._table.largest_shift:
            raise ValueError(f"its page table cannot have 2**{shift} bytes")

    def _refusal(self, flags: int, shift: int) -> int:
        """What both calls refuse by their arguments."""
        if flags or (shift and not MIN_SHIFT <= shift <= MAX_SHIFT):
            return H.PARAMETER
        return H.RESOURCE if shift > self._table.largest_shift else H.SUCCESS

    def prepare(self, vcpu: Vcpu) -> int:
        """H_RESIZE_HPT_PREPARE(flags, shift): have an empty table of 2**shift bytes ready, in place of another; 0 drops it."""
        flags, shift = vcpu.gpr[4:6]
        refusal = self._refusal(flags, shift)
        if refusal != H.SUCCESS or shift == self.prepared_shift:
            return refusal
        self.reset()
        if shift:
            try:
                self._prepared = self._create(1 << shift)
            except (ProblemError, OSError):
                return H.NO_MEM
            self.prepared_shift = shift
        return H.SUCCESS

    def commit(self, vcpu: Vcpu) -> int:
        """H_RESIZE_HPT_COMMIT(flags, shift): use the prepared table from now on. Nothing is prepared afterwards, used or not."""
        flags, shift = vcpu.gpr[4:6]
        refusal = self._refusal(flags, shift)
        if refusal != H.SUCCESS:
            return refusal
        prepared = self._prepared
        if prepared is None or shift != self.prepared_shift:
            return H.CLOSED
        self.reset()
        with self._table.contents() as old:
            try:
                rehash(old, prepared, 1 << shift)
            except CollisionError:
                return H.PTEG_FULL
        self._table.replace(prepared, shift)
        return H.SUCCESS

    def calls(self) -> tuple[LocalHypercall, ...]:
        """The hypercalls of this module."""
        section = "LoPAPR 14.5.4.1, HPT resizing"
        return (
            LocalHypercall(Hcall.H_RESIZE_HPT_PREPARE, self.prepare, section, note="up to twice the machine's first table"),
            LocalHypercall(Hcall.H_RESIZE_HPT_COMMIT, self.commit, section, note="keeps bolted entries"),
        )
