# SPDX-License-Identifier: GPL-2.0-or-later
"""The hash page table and the hypercalls that change it (LoPAPR 14.5.4.1).

An entry (PTE) is two big-endian doublewords, eight entries are a group (PTEG); a PTEX is an entry's index. The engine's MMU
walks the same bytes. Linux calls H_ENTER and H_REMOVE some 40,000 times each while it boots, so these two are
written for speed: locals, one load and one store of a whole entry.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from struct import Struct
from typing import Final

from cpu_service.engine.engine import PAGE_TABLE_ENTRY_BYTES as ENTRY_BYTES
from cpu_service.hypercalls.declarations import LocalHypercall
from cpu_service.vcpus.vcpu import Ram, Vcpu
from splitvisor.declarations.calls import Support
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall

MIN_SHIFT: Final = 18
MAX_SHIFT: Final = 46

# Flags of the calls.
EXACT: Final = 1 << 39
READ_4: Final = 1 << 37
AVPN: Final = 1 << 31
ANDCOND: Final = 1 << 30
ZERO_PAGE: Final = 1 << 15

# First doubleword of an entry.
VALID: Final = 0x1
LARGE: Final = 0x4
SOFTWARE: Final = 0x60
NOT_AVPN: Final = 0x7F

# Second doubleword.
PP0: Final = 1 << 63
KEY_HIGH: Final = 3 << 60
REAL_PAGE: Final = 0x0FFF_FFFF_FFFF_F000
KEY_LOW: Final = 0xE00
REFERENCED: Final = 0x100
CHANGED: Final = 0x80
USED: Final = REFERENCED | CHANGED
WIMG: Final = 0x78
COHERENT: Final = 0x10
NO_EXECUTE_AND_PP: Final = 0x7
PROTECTION: Final = PP0 | KEY_HIGH | KEY_LOW | NO_EXECUTE_AND_PP

LARGE_PAGES: Final = ((16, 0x1, 16), (16, 0x7, 12), (24, 0x0, 24), (24, 0x8, 16), (24, 0x38, 12))
"""(page shift, LP encoding, base page shift) of POWER8's large pages; LP is the real page number's low end."""

# H_BULK_REMOVE: fields of the first doubleword of each of its four translation specifiers.
BULK_TYPE: Final = 3 << 62
BULK_REQUEST: Final = 1 << 62
BULK_RESPONSE: Final = 2 << 62
BULK_END: Final = 3 << 62
BULK_CODE_SHIFT: Final = 60
BULK_NOT_FOUND: Final = 1
BULK_PARAMETER: Final = 2
BULK_USED_SHIFT: Final = 51
"""R and C to bits 59 and 58 of the response."""
BULK_FLAGS: Final = 3 << 56
BULK_FLAGS_SHIFT: Final = 26
"""The same conditions as H_REMOVE's flags, 26 bits further up."""
BULK_PTEX: Final = (1 << 56) - 1

ENTRY: Final = Struct(">QQ")
LAST_BYTE: Final = 7
"""Offset in an entry of the byte with VALID and other flags of the first doubleword."""
GROUP_ENTRIES: Final = 8
_GROUP_BYTES = GROUP_ENTRIES * ENTRY_BYTES
_ZERO_CHUNK = bytes(1 << 20)


def large_page_size(low_page_number: int) -> int:
    """Bytes of a large page by the low 12 bits of its entry's real page number; 0 when POWER8 has no such encoding."""
    for shift, encoding, _ in LARGE_PAGES:
        if low_page_number & (1 << shift - 12) - 1 == encoding:
            return 1 << shift
    return 0


def base_page_shift(high: int, low: int) -> int | None:
    """Return log2 of the page size of the segment that an entry is for; None when POWER8 has no such encoding."""
    if not high & LARGE:
        return 12
    for shift, encoding, base in LARGE_PAGES:
        if low >> 12 & (1 << shift - 12) - 1 == encoding:
            return base
    return None


_LARGE_PAGE_SIZES = tuple(large_page_size(number) for number in range(1 << 12))


def table_shift(ram_bytes: int) -> int:
    """Log2 of the table's bytes for a machine: a 128th of RAM, rounded up to a power of two."""
    return min(max((ram_bytes // 128 - 1).bit_length(), MIN_SHIFT), MAX_SHIFT)


class HashPageTable:
    """The table's bytes and their hypercalls.

    R and C are set from the start: Unicorn writes the reference bit of an entry without it into the entry that follows.
    So no call clears them, and guests find each page used, which PAPR allows at any time.
    """

    def __init__(
        self,
        table: mmap.mmap | bytearray,
        shift: int,
        ram: Ram,
        flush_tlb: Callable[[], None],
        on_size: Callable[[int], None] = lambda size: None,
    ) -> None:
        """Take what the table is made of.

        Args:
            table: a writable buffer, at least 2**shift bytes; a table that is resized has what it is longer by.
            shift: log2 of the table's bytes.
            ram: what entries may map.
            flush_tlb: drops cached translations.
            on_size: told of the table's size in bytes, when it is not that of the beginning any more, or again.
        """
        if not MIN_SHIFT <= shift <= MAX_SHIFT or len(table) < 1 << shift:
            raise ValueError(f"a hash page table has 2**{MIN_SHIFT} to 2**{MAX_SHIFT} bytes, not {len(table)} with shift {shift}")
        self._table = table
        self._ram = ram
        self._ram_bytes = ram.size
        self._flush_tlb = flush_tlb
        self._on_size = on_size
        self._first_shift = shift
        self._set_shift(shift)

    def _set_shift(self, shift: int) -> None:
        self.shift = shift
        """Log2 of the table's bytes."""
        self.bytes = 1 << shift
        self._entries = self.bytes // ENTRY_BYTES

    @property
    def largest_shift(self) -> int:
        """Log2 of the most bytes that there is room for."""
        return len(self._table).bit_length() - 1

    def reset(self) -> None:
        """Empty the table; it is as large again as at the machine's start."""
        self.clear()
        self.resize(self._first_shift)

    def clear(self) -> None:
        """Empty the table."""
        for start in range(0, self.bytes, len(_ZERO_CHUNK)):
            end = min(start + len(_ZERO_CHUNK), self.bytes)
            self._table[start:end] = _ZERO_CHUNK[: end - start]
        self._flush_tlb()

    def resize(self, shift: int) -> None:
        """Let the table be 2**shift bytes. Entries keep their index: those of a table with other entries must follow."""
        if shift != self.shift:
            self._set_shift(shift)
            self._on_size(self.bytes)

    def contents(self) -> memoryview:
        """Return the table's bytes; release them before the buffer is closed."""
        return memoryview(self._table)[: self.bytes]

    def replace(self, entries: mmap.mmap | bytearray, shift: int) -> None:
        """Let the table be 2**shift bytes with other entries."""
        self.clear()
        self.resize(shift)
        self._table[: self.bytes] = entries[: self.bytes]
        self._flush_tlb()

    def clear_all(self, _vcpu: Vcpu) -> int:
        """H_CLEAR_HPT(): remove every entry, as a guest does that hands over to another; real mode needs none here.

        The other one knows the table's size from the device tree (ibm,pft-size), which says what it was first: it is that again.
        Linux started by kexec from one that had resized its table hung otherwise, at its first access with translation on.
        """
        self.reset()
        return H.SUCCESS

    def enter(self, vcpu: Vcpu) -> int:
        """H_ENTER(flags, PTEX, PTE high, PTE low) -> r4 = PTEX used.

        Only RAM can be mapped, coherent and cached, and a large page must be RAM to its end: this machine has no
        memory-mapped devices. The I-cache flags need nothing: the engine's code cache sees every store.
        """
        gpr = vcpu.gpr
        flags, ptex, high, low = gpr[4:8]
        size = _LARGE_PAGE_SIZES[low >> 12 & 0xFFF] if high & LARGE else 0x1000
        address = low & REAL_PAGE & -size
        if not size or low & WIMG != COHERENT or address + size > self._ram_bytes or ptex >= self._entries:
            return H.PARAMETER
        table = self._table
        offset = ptex * ENTRY_BYTES
        if flags & EXACT:
            if table[offset + LAST_BYTE] & VALID:
                return H.PTEG_FULL
        else:
            offset &= -_GROUP_BYTES
            end = offset + _GROUP_BYTES
            while table[offset + LAST_BYTE] & VALID:
                offset += ENTRY_BYTES
                if offset == end:
                    return H.PTEG_FULL
        if flags & ZERO_PAGE:
            self._ram.write(address, bytes(size))
        ENTRY.pack_into(table, offset, high & ~SOFTWARE, low | USED)
        gpr[4] = offset // ENTRY_BYTES
        return H.SUCCESS

    def remove(self, vcpu: Vcpu) -> int:
        """H_REMOVE(flags, PTEX, AVPN or mask) -> r4, r5 = the entry as it was."""
        gpr = vcpu.gpr
        flags, ptex, avpn = gpr[4:7]
        if ptex >= self._entries:
            return H.PARAMETER
        offset = ptex * ENTRY_BYTES
        high, low = ENTRY.unpack_from(self._table, offset)
        if not high & VALID or (flags & AVPN and high & ~NOT_AVPN != avpn) or (flags & ANDCOND and high & avpn):
            return H.NOT_FOUND
        ENTRY.pack_into(self._table, offset, 0, 0)
        self._flush_tlb()
        gpr[4] = high
        gpr[5] = low
        return H.SUCCESS

    def bulk_remove(self, vcpu: Vcpu) -> int:
        """H_BULK_REMOVE: up to four pairs in r4..r11, each a request with PTEX and conditions, then AVPN or mask.

        Each request becomes a response with a code and the entry's R and C. An entry that is not found does not end the
        list; a wrong request does, with H_PARAMETER, and what was removed before stays removed.
        """
        gpr = vcpu.gpr
        removed = False
        result = H.SUCCESS
        for register in range(4, 12, 2):
            request, avpn = gpr[register : register + 2]
            kind = request & BULK_TYPE
            if kind == BULK_END:
                break
            if kind != BULK_REQUEST:
                result = H.PARAMETER
                break
            ptex = request & BULK_PTEX
            flags = (request & BULK_FLAGS) >> BULK_FLAGS_SHIFT
            response = BULK_RESPONSE | request & (BULK_PTEX | BULK_FLAGS)
            if ptex >= self._entries or flags == AVPN | ANDCOND:
                gpr[register] = response | BULK_PARAMETER << BULK_CODE_SHIFT
                result = H.PARAMETER
                break
            offset = ptex * ENTRY_BYTES
            high, low = ENTRY.unpack_from(self._table, offset)
            if not high & VALID or (flags & AVPN and high & ~NOT_AVPN != avpn) or (flags & ANDCOND and high & avpn):
                gpr[register] = response | BULK_NOT_FOUND << BULK_CODE_SHIFT
                continue
            ENTRY.pack_into(self._table, offset, 0, 0)
            removed = True
            gpr[register] = response | (low & USED) << BULK_USED_SHIFT
        if removed:
            self._flush_tlb()
        return result

    def protect(self, vcpu: Vcpu) -> int:
        """H_PROTECT(flags, PTEX, AVPN): give an entry the page protection, no-execute and key bits in flags."""
        flags, ptex, avpn = vcpu.gpr[4:7]
        if ptex >= self._entries:
            return H.PARAMETER
        offset = ptex * ENTRY_BYTES
        high, low = ENTRY.unpack_from(self._table, offset)
        if not high & VALID or (flags & AVPN and high & ~NOT_AVPN != avpn):
            return H.NOT_FOUND
        low = low & ~PROTECTION | flags << 55 & PP0 | flags << 48 & KEY_HIGH | flags & (KEY_LOW | NO_EXECUTE_AND_PP)
        ENTRY.pack_into(self._table, offset, high, low)
        self._flush_tlb()
        return H.SUCCESS

    def read(self, vcpu: Vcpu) -> int:
        """H_READ(flags, PTEX) -> the entry in r4, r5; with READ_4, the aligned four entries in r4..r11."""
        gpr = vcpu.gpr
        flags, ptex = gpr[4:6]
        if ptex >= self._entries:
            return H.PARAMETER
        count = 1
        if flags & READ_4:
            count = 4
            ptex &= ~3
        for index in range(count):
            high, low = ENTRY.unpack_from(self._table, (ptex + index) * ENTRY_BYTES)
            gpr[4 + 2 * index] = high
            gpr[5 + 2 * index] = low
        return H.SUCCESS

    def clear_used(self, vcpu: Vcpu) -> int:
        """H_CLEAR_MOD and H_CLEAR_REF(flags, PTEX) -> r4 = the second doubleword as it was.

        The bit stays set, as if the guest had used the page again at once: see the class.
        """
        gpr = vcpu.gpr
        ptex = gpr[5]
        if ptex >= self._entries:
            return H.PARAMETER
        high, low = ENTRY.unpack_from(self._table, ptex * ENTRY_BYTES)
        if not high & VALID:
            return H.NOT_FOUND
        gpr[4] = low
        return H.SUCCESS

    def calls(self) -> tuple[LocalHypercall, ...]:
        """The hypercalls of this table."""
        stays_set = "R and C stay set; a guest finds each page used"
        return (
            LocalHypercall(Hcall.H_REMOVE, self.remove, "LoPAPR 14.5.4.1.1"),
            LocalHypercall(Hcall.H_ENTER, self.enter, "LoPAPR 14.5.4.1.2", note="maps RAM only; pages of 4 KiB, 64 KiB, 16 MiB"),
            LocalHypercall(Hcall.H_READ, self.read, "LoPAPR 14.5.4.1.3"),
            LocalHypercall(Hcall.H_CLEAR_MOD, self.clear_used, "LoPAPR 14.5.4.1.4", Support.PARTIAL, stays_set),
            LocalHypercall(Hcall.H_CLEAR_REF, self.clear_used, "LoPAPR 14.5.4.1.5", Support.PARTIAL, stays_set),
            LocalHypercall(Hcall.H_PROTECT, self.protect, "LoPAPR 14.5.4.1.6"),
            LocalHypercall(Hcall.H_BULK_REMOVE, self.bulk_remove, "LoPAPR 14.5.4.1.7"),
            LocalHypercall(Hcall.H_CLEAR_HPT, self.clear_all, "LoPAPR 14.5.4.1, H_CLEAR_HPT", note="also undoes HPT resizing"),
        )
