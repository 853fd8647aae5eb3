# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest shares with the hypervisor per vCPU: its virtual processor area (VPA), SLB shadow and dispatch trace log.

H_REGISTER_VPA (LoPAPR 14.11.3) tells where they are. The VPA's dispatch counter, even while the vCPU is
dispatched and odd while it is not, is how one vCPU sees that another, which holds a lock, does not run: then it calls H_CONFER.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cpu_service.hypercalls.declarations import LocalHypercall
from cpu_service.vcpus.vcpu import Ram, Vcpu
from splitvisor.declarations.calls import Support
from splitvisor.declarations.guest_memory import GuestAddressError
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall

FUNCTION_SHIFT: Final = 45
FUNCTION_MASK: Final = 7
CACHE_LINE: Final = 128
PAGE: Final = 0x1000
SIZE_OFFSET: Final = 4
"""In all three areas."""
SHARED_PROCESSOR_OFFSET: Final = 9
SHARED_PROCESSOR: Final = 0x2
DISPATCH_COUNTER_OFFSET: Final = 0x100


@dataclass(frozen=True)
class _Area:
    """One kind of area: the vCPU's attribute for its address, and what a guest's area must be like."""

    attribute: str
    size_bytes: int
    """Width of the big-endian size field."""
    minimum: int
    alignment: int
    within_page: bool
    needs_vpa: bool


_VPA = _Area("vpa", size_bytes=2, minimum=640, alignment=CACHE_LINE, within_page=True, needs_vpa=False)
_DTL = _Area("dtl", size_bytes=4, minimum=48, alignment=1, within_page=False, needs_vpa=True)
_SLB_SHADOW = _Area("slb_shadow", size_bytes=4, minimum=8, alignment=1, within_page=True, needs_vpa=True)

_REGISTER: Final = {1: _VPA, 2: _DTL, 3: _SLB_SHADOW}
_DEREGISTER: Final = {5: _VPA, 6: _DTL, 7: _SLB_SHADOW}


class VirtualProcessorAreas:
    """The areas of all vCPUs of a machine."""

    def __init__(self, vcpus: Sequence[Vcpu], ram: Ram) -> None:
        self._vcpus = vcpus
        self._ram = ram

    def register(self, vcpu: Vcpu) -> int:
        """H_REGISTER_VPA(function, vCPU, address): register or deregister one of the three areas."""
        flags, index, address = vcpu.gpr[4:7]
        function = flags >> FUNCTION_SHIFT & FUNCTION_MASK
        if index >= len(self._vcpus) or flags & ~(FUNCTION_MASK << FUNCTION_SHIFT):
            return H.PARAMETER
        target = self._vcpus[index]
        if function in _REGISTER:
            return self._register(target, _REGISTER[function], address)
        if function in _DEREGISTER:
            return self._deregister(target, _DEREGISTER[function])
        return H.PARAMETER

    def _register(self, target: Vcpu, area: _Area, address: int) -> int:
        if not address:
            return H.HARDWARE
        if address % area.alignment:
            return H.PARAMETER
        try:
            size = int.from_bytes(self._ram.read(address + SIZE_OFFSET, area.size_bytes), "big")
            fits = address + size <= self._ram.size
        except GuestAddressError:
            return H.PARAMETER
        if size < area.minimum or not fits or (area.within_page and address // PAGE != (address + size - 1) // PAGE):
            return H.PARAMETER
        if area.needs_vpa and not target.vpa:
            return H.RESOURCE
        if area is _VPA:
            state = self._ram.read(address + SHARED_PROCESSOR_OFFSET, 1)[0]
            self._ram.write(address + SHARED_PROCESSOR_OFFSET, bytes((state | SHARED_PROCESSOR,)))
        setattr(target, area.attribute, address)
        return H.SUCCESS

    def _deregister(self, target: Vcpu, area: _Area) -> int:
        if area is _VPA and (target.slb_shadow or target.dtl):
            return H.RESOURCE
        setattr(target, area.attribute, 0)
        return H.SUCCESS

    def dispatch_counter(self, vcpu: Vcpu) -> int | None:
        """The dispatch counter of a vCPU, None when it has no VPA."""
        if not vcpu.vpa:
            return None
        return int.from_bytes(self._ram.read(vcpu.vpa + DISPATCH_COUNTER_OFFSET, 4), "big")

    def dispatched(self, vcpu: Vcpu, running: bool) -> None:
        """Count that a vCPU went onto the engine, or left it. Without a VPA there is nothing to count."""
        counter = self.dispatch_counter(vcpu)
        if counter is not None and bool(counter & 1) == running:
            self._ram.write(vcpu.vpa + DISPATCH_COUNTER_OFFSET, (counter + 1 & 0xFFFF_FFFF).to_bytes(4, "big"))

    def calls(self) -> tuple[LocalHypercall, ...]:
        """The hypercall that registers areas."""
        note = "all functions; the dispatch trace log is registered but not written"
        return (LocalHypercall(Hcall.H_REGISTER_VPA, self.register, "LoPAPR 14.11.3", Support.PARTIAL, note),)
