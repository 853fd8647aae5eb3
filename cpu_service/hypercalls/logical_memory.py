# SPDX-License-Identifier: GPL-2.0-or-later
"""Hypercalls that read, write, copy and clear RAM for guests whose translation is off (LoPAPR 14.5.4.3, 14.5.4.4).

H_LOGICAL_MEMOP is not PAPR's but firmware's, from the private range: SLOF moves and inverts its frame buffer with it.
"""

from __future__ import annotations

from typing import Final

from cpu_service.hypercalls.declarations import LocalHypercall
from cpu_service.vcpus.vcpu import Ram, Vcpu
from splitvisor.declarations.guest_memory import GuestAddressError
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall

ACCESS_SIZES: Final = (1, 2, 4, 8)
PAGE: Final = 0x1000

# H_PAGE_INIT flags.
ICACHE_INVALIDATE: Final = 1 << 23
ICACHE_SYNC: Final = 1 << 22
ZERO_PAGE: Final = 1 << 15
COPY_PAGE: Final = 1 << 14
PAGE_INIT_FLAGS: Final = ICACHE_INVALIDATE | ICACHE_SYNC | ZERO_PAGE | COPY_PAGE

MEMOP_MAX_COUNT: Final = 0x8000_0000
MEMOP_CHUNK: Final = 1 << 20
"""Bytes in flight, so that a copy of all RAM does not need as much again."""
_INVERTED: Final = bytes(255 - value for value in range(256))
MEMOP_COPY: Final = 0
MEMOP_INVERT: Final = 1


class LogicalMemory:
    """RAM by hypercall."""

    def __init__(self, ram: Ram) -> None:
        self._ram = ram

    def _is_ram(self, address: int, length: int) -> bool:
        return address + length <= self._ram.size

    def load(self, vcpu: Vcpu) -> int:
        """H_LOGICAL_CI_LOAD and H_LOGICAL_CACHE_LOAD(size, address) -> r4 = the big-endian value there."""
        size, address = vcpu.gpr[4:6]
        if size not in ACCESS_SIZES:
            return H.PARAMETER
        try:
            vcpu.gpr[4] = int.from_bytes(self._ram.read(address, size), "big")
        except GuestAddressError:
            return H.PARAMETER
        return H.SUCCESS

    def store(self, vcpu: Vcpu) -> int:
        """H_LOGICAL_CI_STORE and H_LOGICAL_CACHE_STORE(size, address, value)."""
        size, address, value = vcpu.gpr[4:7]
        if size not in ACCESS_SIZES:
            return H.PARAMETER
        try:
            self._ram.write(address, (value & (1 << 8 * size) - 1).to_bytes(size, "big"))
        except GuestAddressError:
            return H.PARAMETER
        return H.SUCCESS

    def nothing_to_do(self, _vcpu: Vcpu) -> int:
        """H_LOGICAL_ICBI and H_LOGICAL_DCBF: caches are always coherent here."""
        return H.SUCCESS

    def page_init(self, vcpu: Vcpu) -> int:
        """H_PAGE_INIT(flags, destination, source): clear a 4 KiB page, or copy it from another; make it good to execute."""
        flags, destination, source = vcpu.gpr[4:7]
        if flags & ~PAGE_INIT_FLAGS or destination % PAGE or not self._is_ram(destination, PAGE):
            return H.PARAMETER
        if flags & COPY_PAGE:
            if source % PAGE or not self._is_ram(source, PAGE):
                return H.PARAMETER
            self._ram.write(destination, self._ram.read(source, PAGE))
        elif flags & ZERO_PAGE:
            self._ram.write(destination, bytes(PAGE))
        return H.SUCCESS

    def memop(self, vcpu: Vcpu) -> int:
        """H_LOGICAL_MEMOP(destination, source, log2 of an element's bytes, elements, operation).

        Operation 0 copies, 1 copies inverted; ranges may overlap. Inverting elements is inverting bytes, of any size.
        """
        destination, source, shift, count, operation = vcpu.gpr[4:9]
        if shift > 3 or count > MEMOP_MAX_COUNT or operation not in (MEMOP_COPY, MEMOP_INVERT):
            return H.PARAMETER
        length = count << shift
        if (destination | source) % (1 << shift) or not self._is_ram(destination, length) or not self._is_ram(source, length):
            return H.PARAMETER
        chunks = range(0, length, MEMOP_CHUNK)
        if destination > source:
            # From the end, so that no chunk is overwritten before it was read.
            chunks = chunks[::-1]
        for start in chunks:
            data = self._ram.read(source + start, min(MEMOP_CHUNK, length - start))
            self._ram.write(destination + start, data if operation == MEMOP_COPY else data.translate(_INVERTED))
        return H.SUCCESS

    def calls(self) -> tuple[LocalHypercall, ...]:
        """The hypercalls of this module."""
        debugger = "LoPAPR 14.5.4.4"
        return (
            LocalHypercall(Hcall.H_PAGE_INIT, self.page_init, "LoPAPR 14.5.4.3"),
            LocalHypercall(Hcall.H_LOGICAL_CI_LOAD, self.load, debugger),
            LocalHypercall(Hcall.H_LOGICAL_CI_STORE, self.store, debugger),
            LocalHypercall(Hcall.H_LOGICAL_CACHE_LOAD, self.load, debugger),
            LocalHypercall(Hcall.H_LOGICAL_CACHE_STORE, self.store, debugger),
            LocalHypercall(Hcall.H_LOGICAL_ICBI, self.nothing_to_do, debugger),
            LocalHypercall(Hcall.H_LOGICAL_DCBF, self.nothing_to_do, debugger),
            LocalHypercall(Hcall.H_LOGICAL_MEMOP, self.memop, "KVM's private range, as SLOF uses it"),
        )
