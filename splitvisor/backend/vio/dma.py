# SPDX-License-Identifier: GPL-2.0-or-later
"""Translation control entries: the table that a guest fills, and the window through which a device accesses guest RAM.

A TCE is the address of a 4 KiB page with permission bits at its low end (LoPAPR 14.5.4.2). A device that accesses RAM by
itself (v-scsi, l-lan) goes through its DmaWindow and reaches only what the guest has mapped.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence

from splitvisor.declarations.guest_memory import GuestAddressError, GuestMemory

PAGE_BYTES = 4096
"""Size of an I/O page: what one TCE maps."""
WINDOW_BYTES = 0x1000_0000
"""Size of a DMA window in bytes; Linux uses the size in ibm,my-dma-window."""
WINDOW_PAGES = WINDOW_BYTES // PAGE_BYTES

TCE_READ = 1
"""The device may read the page."""
TCE_WRITE = 2
"""The device may write the page."""
TCE_ADDRESS_MASK = 0x0FFF_FFFF_FFFF_F000

_LEAF_ENTRIES = 512


class DmaError(Exception):
    """A device's window does not permit an access to memory."""


class TceTable:
    """The entries of one window, stored in leaves of 512 entries that are created when the guest writes them; at most 512 KiB."""

    def __init__(self) -> None:
        self._leaves: dict[int, array[int]] = {}

    def __getitem__(self, index: int) -> int:
        leaf = self._leaves.get(index // _LEAF_ENTRIES)
        return 0 if leaf is None else leaf[index % _LEAF_ENTRIES]

    def __setitem__(self, index: int, tce: int) -> None:
        self.fill(index, 1, tce)

    def fill(self, index: int, count: int, tce: int) -> None:
        """Set count entries from index to one value; a whole window takes 128 steps."""
        end = index + count
        while index < end:
            number, first = divmod(index, _LEAF_ENTRIES)
            length = min(_LEAF_ENTRIES - first, end - index)
            index += length
            if tce == 0 and (length == _LEAF_ENTRIES or number not in self._leaves):
                self._leaves.pop(number, None)
                continue
            leaf = self._leaves.get(number)
            if leaf is None:
                leaf = self._leaves[number] = array("Q", (0,)) * _LEAF_ENTRIES
            leaf[first : first + length] = array("Q", (tce,)) * length

    def clear(self) -> None:
        """Make every entry a fault."""
        self._leaves.clear()

    def leaves(self) -> Iterator[tuple[int, Sequence[int]]]:
        """Yield (number, entries) of every leaf that is stored, ascending."""
        for number in sorted(self._leaves):
            yield number, self._leaves[number]

    def set_leaf(self, number: int, entries: Sequence[int]) -> None:
        """Store a leaf. Raises ValueError if a window has no such leaf."""
        if not 0 <= number < WINDOW_PAGES // _LEAF_ENTRIES or len(entries) != _LEAF_ENTRIES:
            raise ValueError(f"leaf {number} with {len(entries)} entries")
        self._leaves[number] = array("Q", entries)

    @property
    def stored_bytes(self) -> int:
        """Bytes of memory that the table uses."""
        return sum(leaf.itemsize * len(leaf) for leaf in self._leaves.values())


class DmaWindow:
    """Guest RAM for one device: addresses (ioba) from 0 to WINDOW_BYTES, translated and checked page by page.

    A device must bound the length of its accesses: a guest may map one page 65,536 times.

    Args:
        memory: the VM's RAM.
    """

    def __init__(self, memory: GuestMemory) -> None:
        self._memory = memory
        self.table = TceTable()
        self.bypass = False
        """True: addresses are guest physical, checked only against the size of RAM (ibm,set-tce-bypass)."""

    def reset(self) -> None:
        """Unmap everything and end a bypass."""
        self.table.clear()
        self.bypass = False

    async def read(self, ioba: int, length: int) -> bytes:
        """Return length bytes from ioba. Raises DmaError."""
        return b"".join([await self._memory.read(address, size) for address, size in self._translate(ioba, length, TCE_READ)])

    async def write(self, ioba: int, data: bytes) -> None:
        """Store all of data at ioba, or nothing. Raises DmaError."""
        position = 0
        for address, size in self._translate(ioba, len(data), TCE_WRITE):
            await self._memory.write(address, data[position : position + size])
            position += size

    def check(self, ioba: int, length: int, permission: int) -> None:
        """Raise DmaError unless every page of the range grants the permission bits and is in RAM."""
        self._translate(ioba, length, permission)

    def _translate(self, ioba: int, length: int, permission: int) -> list[tuple[int, int]]:
        """Return the guest physical ranges of a range of the window, with adjacent ranges merged."""
        ranges: list[tuple[int, int]] = []
        try:
            for address, size in self._pages(ioba, length, permission):
                self._memory.check(address, size)
                if ranges and sum(ranges[-1]) == address:
                    ranges[-1] = (ranges[-1][0], ranges[-1][1] + size)
                else:
                    ranges.append((address, size))
        except GuestAddressError as error:
            raise DmaError(str(error)) from error
        return ranges

    def _pages(self, ioba: int, length: int, permission: int) -> Iterator[tuple[int, int]]:
        if self.bypass:
            yield ioba, length
            return
        if ioba < 0 or length < 0 or ioba + length > WINDOW_BYTES:
            raise DmaError(f"range {ioba:#x}+{length:#x} is not in the DMA window of {WINDOW_BYTES:#x} bytes")
        end = ioba + length
        while ioba < end:
            offset = ioba % PAGE_BYTES
            size = min(PAGE_BYTES - offset, end - ioba)
            tce = self.table[ioba // PAGE_BYTES]
            if tce & permission != permission:
                raise DmaError(f"TCE {tce:#x} of page {ioba - offset:#x} does not grant {permission:#x}")
            yield (tce & TCE_ADDRESS_MASK) + offset, size
            ioba += size
