# SPDX-License-Identifier: GPL-2.0-or-later
"""Translation control entries (TCEs): what a guest lets its devices reach, in a file that back ends on the host map.

A TCE is the address of a 4 KiB page with permission bits at its low end (LoPAPR 14.5.4.2). cpu_service writes the file; a back
end only reads it. Hello.tce_path in trap.proto describes its layout.
"""

from __future__ import annotations

import mmap
import struct
import sys
from collections.abc import Iterable

from splitvisor.declarations.dma import PAGE_BYTES, WINDOW_BYTES, DmaError, Piece
from splitvisor.papr.vio import MAX_DEVICES

TCE_SUFFIX = ".tce"
"""How names of files with TCEs end."""
TCE_READ = 1
"""The device may read the page."""
TCE_WRITE = 2
"""The device may write the page."""
TCE_ADDRESS_MASK = 0x0FFF_FFFF_FFFF_F000
TCE_BYTES = 8
HOST_ORDER = sys.byteorder
WINDOW_PAGES = WINDOW_BYTES // PAGE_BYTES
TABLE_BYTES = WINDOW_PAGES * TCE_BYTES
_ENTRY = struct.Struct("=IIQ")
"""Of the directory: unit address, flags, number of TCEs."""
_FLAGS_AT, _FLAGS_BYTES = 4, 4
_DIRECTORY_BYTES = MAX_DEVICES * _ENTRY.size
_IN_USE, _BYPASS = 1, 2
FILE_BYTES = _DIRECTORY_BYTES + MAX_DEVICES * TABLE_BYTES
"""Of the file, most of it a hole."""


class TceWindow:
    """One device's window: its TCEs, and whether they count.

    Args:
        area: the file, mapped.
        place: of its directory entry.
    """

    def __init__(self, area: mmap.mmap, place: int) -> None:
        self._area, self._place = area, place
        _, _, count = _ENTRY.unpack_from(area, place * _ENTRY.size)
        start = _DIRECTORY_BYTES + place * TABLE_BYTES
        self._start = start
        self.pages = min(count, WINDOW_PAGES)
        """Number of TCEs."""
        self._tces = memoryview(area)[start : start + self.pages * TCE_BYTES].cast("Q")
        entry = memoryview(area)[place * _ENTRY.size : (place + 1) * _ENTRY.size]
        self._flags = entry[_FLAGS_AT : _FLAGS_AT + _FLAGS_BYTES].cast("I")

    @property
    def bypass(self) -> bool:
        """True: addresses are guest physical, checked only against the size of RAM (ibm,set-tce-bypass)."""
        return bool(self._flags[0] & _BYPASS)

    @bypass.setter
    def bypass(self, bypass: bool) -> None:
        unit_address, _, count = _ENTRY.unpack_from(self._area, self._place * _ENTRY.size)
        flags = _IN_USE | (_BYPASS if bypass else 0)
        _ENTRY.pack_into(self._area, self._place * _ENTRY.size, unit_address, flags, count)

    def __getitem__(self, index: int) -> int:
        return self._tces[index]

    def __setitem__(self, index: int, tce: int) -> None:
        self._tces[index] = tce

    def store(self, index: int, tces: bytes) -> None:
        """Set TCEs from a list of them in the host's byte order."""
        start = self._start + index * TCE_BYTES
        self._area[start : start + len(tces)] = tces

    def fill(self, index: int, count: int, tce: int) -> None:
        """Set count TCEs from index to one value."""
        self.store(index, tce.to_bytes(TCE_BYTES, HOST_ORDER) * count)

    def reset(self) -> None:
        """Unmap everything, end a bypass, and give the table's memory back to the host."""
        self.bypass = False
        try:
            self._area.madvise(mmap.MADV_REMOVE, self._start, TABLE_BYTES)
        except OSError:  # Not every file system can punch holes.
            self.fill(0, self.pages, 0)

    def in_one_page(self, ioba: int, length: int, permission: int, ram_bytes: int) -> int:
        """Return the guest physical address of a range of the window that is in one page, which most are.

        See ranges(), which is to tell what is wrong with one that this returns -1 for, or where it is.
        """
        index, offset = divmod(ioba, PAGE_BYTES)
        if not 0 <= index < self.pages or not 0 < length <= PAGE_BYTES - offset or self._flags[0] & _BYPASS:
            return -1
        tce = self._tces[index]
        address = (tce & TCE_ADDRESS_MASK) + offset
        return address if tce & permission == permission and address + length <= ram_bytes else -1

    def ranges(self, pieces: Iterable[Piece], permission: int, ram_bytes: int) -> list[tuple[int, int]]:
        """Return the guest physical ranges (address, bytes) of ranges of the window, adjacent ones merged.

        Args:
            pieces: of the window.
            permission: TCE_READ or TCE_WRITE, or both.
            ram_bytes: size of guest RAM.

        Raises DmaError unless every page grants the permission and is in RAM.
        """
        if self._flags[0] & _BYPASS:
            return self._physical(pieces, ram_bytes)
        ranges: list[tuple[int, int]] = []
        tces, limit = self._tces, self.pages * PAGE_BYTES
        address = size = 0
        following = -1
        for ioba, length in pieces:
            at, end = ioba, ioba + length
            if ioba < 0 or length < 0 or end > limit:
                raise DmaError(f"range {ioba:#x}+{length:#x} is not in the DMA window of {limit:#x} bytes")
            while at < end:
                offset = at % PAGE_BYTES
                part = min(PAGE_BYTES - offset, end - at)
                tce = tces[at // PAGE_BYTES]
                if tce & permission != permission:
                    raise DmaError(f"TCE {tce:#x} of page {at - offset:#x} does not grant {permission:#x}")
                start = (tce & TCE_ADDRESS_MASK) + offset
                if start + part > ram_bytes:
                    raise _no_ram(start, part, ram_bytes)
                if start != following:
                    if size:
                        ranges.append((address, size))
                    address, size = start, 0
                size += part
                following = start + part
                at += part
        if size:
            ranges.append((address, size))
        return ranges

    def _physical(self, pieces: Iterable[Piece], ram_bytes: int) -> list[tuple[int, int]]:
        ranges: list[tuple[int, int]] = []
        for ioba, length in pieces:
            if ioba < 0 or length < 0:
                raise DmaError(f"there is no range {ioba:#x}+{length:#x}")
            if ioba + length > ram_bytes:
                raise _no_ram(ioba, length, ram_bytes)
            if ranges and ioba == sum(ranges[-1]):
                ranges[-1] = (ranges[-1][0], ranges[-1][1] + length)
            elif length:
                ranges.append((ioba, length))
        return ranges


def _no_ram(start: int, length: int, ram_bytes: int) -> DmaError:
    return DmaError(f"range {start:#x}+{length:#x} is not in guest RAM of {ram_bytes:#x} bytes")


class TceTables:
    """The windows of a VM's devices.

    Args:
        area: the file, mapped; FILE_BYTES long.
    """

    def __init__(self, area: mmap.mmap) -> None:
        self._area = area

    def window(self, unit_address: int) -> TceWindow | None:
        """Return the window of a device, if it has one."""
        for place, (unit, flags, _) in enumerate(_ENTRY.iter_unpack(self._area[:_DIRECTORY_BYTES])):
            if unit == unit_address and flags & _IN_USE:
                return TceWindow(self._area, place)
        return None

    def add(self, unit_address: int, pages: int) -> TceWindow | None:
        """Return the window of a device, a new one if need be, with so many TCEs; None: there is no room for it."""
        found = self.window(unit_address)
        if found is not None and found.pages == pages:
            return found
        if found is not None:
            self.remove(unit_address)
        for place, (_, flags, _) in enumerate(_ENTRY.iter_unpack(self._area[:_DIRECTORY_BYTES])):
            if not flags & _IN_USE:
                _ENTRY.pack_into(self._area, place * _ENTRY.size, unit_address, _IN_USE, pages)
                return TceWindow(self._area, place)
        return None

    def remove(self, unit_address: int) -> None:
        """Take a device's window away."""
        for place, (unit, flags, _) in enumerate(_ENTRY.iter_unpack(self._area[:_DIRECTORY_BYTES])):
            if unit == unit_address and flags & _IN_USE:
                TceWindow(self._area, place).reset()
                _ENTRY.pack_into(self._area, place * _ENTRY.size, 0, 0, 0)

    @property
    def units(self) -> list[int]:
        """The devices that have windows, by unit address."""
        found = _ENTRY.iter_unpack(self._area[:_DIRECTORY_BYTES])
        return sorted(unit for unit, flags, _ in found if flags & _IN_USE)
