# SPDX-License-Identifier: GPL-2.0-or-later
"""The XICS interrupt controller: one presentation controller (ICP) per vCPU, one source controller (ICS) (LoPAPR 14.5.4.7, 7.3).

Priority 0 is the most favoured, 0xff is never delivered. A source is a message-signalled one: an edge, latched
until the guest accepts it. Between hypercalls each ICP presents the most favoured thing that waits for it and that its
processor priority (CPPR) lets pass; `Xics._deliver` restores that rule after every change.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Final

from cpu_service.hypercalls.declarations import LocalCall, LocalHypercall, LocalRtas
from cpu_service.vcpus.vcpu import Vcpu
from splitvisor.papr.codes import H, RtasStatus
from splitvisor.papr.hcall import Hcall
from splitvisor.rpc import state_pb2 as pb

FIRST_SOURCE: Final = 0x1000
SOURCES: Final = 0x1000
IPI: Final = 2
"""XISR of an inter-processor interrupt."""
LEAST_FAVOURED: Final = 0xFF
CPPR_SHIFT: Final = 24


@dataclass(frozen=True)
class _Source:
    """An interrupt source as ibm,set-xive configured it."""

    server: int = 0
    priority: int = LEAST_FAVOURED
    saved_priority: int = LEAST_FAVOURED
    """What ibm,int-on returns to."""


@dataclass
class _Presenter:
    """An ICP."""

    cppr: int = 0
    xisr: int = 0
    """What is presented; 0: nothing."""
    priority: int = LEAST_FAVOURED
    """Of what is presented."""
    mfrr: int = LEAST_FAVOURED
    """Priority at which an IPI waits."""
    waiting: set[int] = field(default_factory=set)
    """Sources routed here with an edge that is not presented."""
    raised: bool = False
    """The line to the CPU."""

    @property
    def xirr(self) -> int:
        return self.cppr << CPPR_SHIFT | self.xisr

    def clear(self) -> None:
        """Present nothing."""
        self.xisr, self.priority = 0, LEAST_FAVOURED

    def withdraw(self) -> None:
        """Present nothing; a source waits again, an IPI does for as long as MFRR says so."""
        if self.xisr not in (0, IPI):
            self.waiting.add(self.xisr)
        self.clear()


class Xics:
    """The controllers of one machine. Safe to use from any thread."""

    def __init__(self, servers: int, line: Callable[[int, bool], None], timebase: Callable[[], int]) -> None:
        """Make an ICP for each server.

        line(server, level) drives a vCPU's external interrupt input. It is called in order, with a lock held: it must not
        call back. timebase() is what H_XIRR_X stamps its answer with, in ticks.
        """
        self._line = line
        self._timebase = timebase
        self._lock = Lock()
        self._icps = tuple(_Presenter() for _ in range(servers))
        self._sources: dict[int, _Source] = {}
        self.pulses: Counter[int] = Counter()
        """Edges so far, by source."""
        self.reset()

    def reset(self) -> None:
        """Power-on state: every source masked, nothing pending, every line low."""
        with self._lock:
            self._icps = tuple(_Presenter() for _ in self._icps)
            self._sources = {number: _Source() for number in range(FIRST_SOURCE, FIRST_SOURCE + SOURCES)}
            for server in range(len(self._icps)):
                self._line(server, False)

    def save(self) -> pb.SavedInterrupts:
        """Return the state of all controllers."""
        reset = _Source()
        with self._lock:
            return pb.SavedInterrupts(
                presenters=[
                    pb.SavedPresenter(
                        cppr=icp.cppr, xisr=icp.xisr, priority=icp.priority, mfrr=icp.mfrr, waiting=sorted(icp.waiting)
                    )
                    for icp in self._icps
                ],
                sources=[
                    pb.SavedSource(
                        number=number, server=source.server, priority=source.priority, saved_priority=source.saved_priority
                    )
                    for number, source in self._sources.items()
                    if source != reset
                ],
            )

    def restore(self, state: pb.SavedInterrupts) -> None:
        """Take over a state. Raises ValueError when it is none of such controllers; they are unfit for use then."""
        servers = len(self._icps)
        if len(state.presenters) != servers:
            raise ValueError(f"{len(state.presenters)} interrupt presenters for {servers} vCPUs")
        with self._lock:
            for source in state.sources:
                priorities = max(source.priority, source.saved_priority)
                if source.number not in self._sources or source.server >= servers or priorities > LEAST_FAVOURED:
                    raise ValueError(f"interrupt source {source.number:#x} cannot be as saved")
                self._sources[source.number] = _Source(source.server, source.priority, source.saved_priority)
            for server, saved in enumerate(state.presenters):
                if max(saved.cppr, saved.priority, saved.mfrr) > LEAST_FAVOURED:
                    raise ValueError(f"the interrupt presenter of vCPU {server} cannot be as saved")
                sources = {*saved.waiting, *({saved.xisr} - {0, IPI})}
                if any(number not in self._sources or self._sources[number].server != server for number in sources):
                    raise ValueError(f"the interrupt presenter of vCPU {server} has sources that are not its own")
                icp = self._icps[server]
                icp.cppr, icp.xisr, icp.priority, icp.mfrr = saved.cppr, saved.xisr, saved.priority, saved.mfrr
                icp.waiting = set(saved.waiting)
                self._deliver(server)

    def pulse(self, number: int) -> bool:
        """Signal an edge of a source; edges that nobody accepted yet are one. Returns whether there is such a source."""
        with self._lock:
            source = self._sources.get(number)
            if source is None:
                return False
            self.pulses[number] += 1
            icp = self._icps[source.server]
            if icp.xisr != number:
                icp.waiting.add(number)
                self._deliver(source.server)
            return True

    def _deliver(self, server: int) -> None:
        """Present the most favoured of what waits, in place of something less favoured, and drive the line."""
        icp = self._icps[server]
        limit = icp.priority if icp.xisr else icp.cppr
        chosen = 0
        if icp.mfrr < limit:
            chosen, limit = IPI, icp.mfrr
        for number in sorted(icp.waiting):
            priority = self._sources[number].priority
            if priority < limit:
                chosen, limit = number, priority
        if chosen:
            icp.withdraw()
            icp.waiting.discard(chosen)
            icp.xisr, icp.priority = chosen, limit
        if icp.raised != bool(icp.xisr):
            icp.raised = bool(icp.xisr)
            self._line(server, icp.raised)

    def _set_cppr(self, server: int, cppr: int) -> None:
        icp = self._icps[server]
        icp.cppr = cppr
        if cppr <= icp.priority:
            icp.withdraw()
        self._deliver(server)

    def accept(self, server: int) -> int:
        """Take what is presented: its XIRR, and from now on its priority is the CPPR. With nothing presented, nothing changes."""
        with self._lock:
            icp = self._icps[server]
            xirr = icp.xirr
            if icp.xisr:
                icp.cppr = icp.priority
                icp.clear()
                self._deliver(server)
            return xirr

    def xirr(self, vcpu: Vcpu) -> int:
        """H_XIRR() -> r4 = XIRR: the CPPR as it was in bits 31..24 and the source accepted in 23..0, 0 for none."""
        vcpu.gpr[4] = self.accept(vcpu.index)
        return H.SUCCESS

    def xirr_x(self, vcpu: Vcpu) -> int:
        """H_XIRR_X() -> r4 = XIRR, r5 = the time base."""
        vcpu.gpr[4] = self.accept(vcpu.index)
        vcpu.gpr[5] = self._timebase()
        return H.SUCCESS

    def eoi(self, vcpu: Vcpu) -> int:
        """H_EOI(XIRR): the interrupt is handled; the CPPR is XIRR's again. An edge leaves nothing else to end."""
        with self._lock:
            self._set_cppr(vcpu.index, vcpu.gpr[4] >> CPPR_SHIFT & 0xFF)
        return H.SUCCESS

    def cppr(self, vcpu: Vcpu) -> int:
        """H_CPPR(priority): only what is more favoured than that interrupts this vCPU."""
        with self._lock:
            self._set_cppr(vcpu.index, vcpu.gpr[4] & 0xFF)
        return H.SUCCESS

    def ipi(self, vcpu: Vcpu) -> int:
        """H_IPI(server, MFRR): ask for an interrupt of that priority there; 0xff takes the wish back."""
        server = vcpu.gpr[4]
        if server >= len(self._icps):
            return H.PARAMETER
        with self._lock:
            self._icps[server].mfrr = vcpu.gpr[5] & 0xFF
            self._deliver(server)
        return H.SUCCESS

    def ipoll(self, vcpu: Vcpu) -> int:
        """H_IPOLL(server) -> r4 = XIRR, r5 = MFRR; nothing is accepted."""
        server = vcpu.gpr[4]
        if server >= len(self._icps):
            return H.PARAMETER
        with self._lock:
            icp = self._icps[server]
            vcpu.gpr[4], vcpu.gpr[5] = icp.xirr, icp.mfrr
        return H.SUCCESS

    def _route(self, number: int, source: _Source) -> None:
        """Put a configuration in force; an edge that is not accepted yet follows it."""
        old = self._sources[number].server
        icp = self._icps[old]
        if icp.xisr == number:
            icp.withdraw()
        if number in icp.waiting:
            icp.waiting.remove(number)
            self._icps[source.server].waiting.add(number)
        self._sources[number] = source
        for server in {old, source.server}:
            self._deliver(server)

    def set_xive(self, _vcpu: Vcpu, arguments: Sequence[int], _returns: int) -> Sequence[int]:
        """ibm,set-xive(source, server, priority)."""
        number, server, priority = arguments
        if number not in self._sources or server >= len(self._icps) or priority > LEAST_FAVOURED:
            return (RtasStatus.PARAMETER_ERROR,)
        with self._lock:
            self._route(number, _Source(server, priority, priority))
        return (RtasStatus.SUCCESS,)

    def get_xive(self, _vcpu: Vcpu, arguments: Sequence[int], _returns: int) -> Sequence[int]:
        """ibm,get-xive(source) -> status, server, priority."""
        source = self._sources.get(arguments[0])
        if source is None:
            return (RtasStatus.PARAMETER_ERROR,)
        return (RtasStatus.SUCCESS, source.server, source.priority)

    def int_off(self, _vcpu: Vcpu, arguments: Sequence[int], _returns: int) -> Sequence[int]:
        """ibm,int-off(source): mask it; ibm,int-on knows the priority that it had."""
        number = arguments[0]
        with self._lock:
            source = self._sources.get(number)
            if source is None:
                return (RtasStatus.PARAMETER_ERROR,)
            if source.priority != LEAST_FAVOURED:
                self._route(number, _Source(source.server, LEAST_FAVOURED, source.priority))
        return (RtasStatus.SUCCESS,)

    def int_on(self, _vcpu: Vcpu, arguments: Sequence[int], _returns: int) -> Sequence[int]:
        """ibm,int-on(source): unmask it, at the priority before ibm,int-off; an edge in between is delivered now."""
        number = arguments[0]
        with self._lock:
            source = self._sources.get(number)
            if source is None:
                return (RtasStatus.PARAMETER_ERROR,)
            self._route(number, _Source(source.server, source.saved_priority, source.saved_priority))
        return (RtasStatus.SUCCESS,)

    def calls(self) -> tuple[LocalCall, ...]:
        """The hypercalls and RTAS calls of the interrupt controller."""
        hypercalls = "LoPAPR 14.5.4.7"
        rtas = "LoPAPR 7.3"
        return (
            LocalHypercall(Hcall.H_EOI, self.eoi, hypercalls),
            LocalHypercall(Hcall.H_CPPR, self.cppr, hypercalls),
            LocalHypercall(Hcall.H_IPI, self.ipi, hypercalls),
            LocalHypercall(Hcall.H_IPOLL, self.ipoll, hypercalls),
            LocalHypercall(Hcall.H_XIRR, self.xirr, hypercalls),
            LocalHypercall(Hcall.H_XIRR_X, self.xirr_x, hypercalls),
            LocalRtas("ibm,set-xive", self.set_xive, rtas, arguments=3, returns=1),
            LocalRtas("ibm,get-xive", self.get_xive, rtas, arguments=1, returns=3),
            LocalRtas("ibm,int-off", self.int_off, rtas, arguments=1, returns=1),
            LocalRtas("ibm,int-on", self.int_on, rtas, arguments=1, returns=1),
        )
