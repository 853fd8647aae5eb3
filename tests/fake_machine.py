# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs and a scheduler as plain data, for unit tests of local hypercalls; RAM and registers are the real kinds."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, MutableSequence, Sequence
from typing import cast

from cpu_service.engine.ram import GuestRam
from cpu_service.hypercalls.declarations import LocalCall, LocalHypercall, LocalRtas
from cpu_service.vcpus.vcpu import RunState, Vcpu


def make_ram(size: int = 1 << 20) -> GuestRam:
    return GuestRam(mmap.mmap(-1, size))


def registers(count: int) -> MutableSequence[int]:
    return cast("MutableSequence[int]", (ctypes.c_uint64 * count)())


class FakeVcpu:
    def __init__(self, index: int = 0) -> None:
        self.index = index
        self.gpr = registers(32)
        self.spr = registers(1024)
        self.msr = 0
        self.run_state = RunState.RUNNING
        self.prodded = False
        self.vpa = 0
        self.slb_shadow = 0
        self.dtl = 0


class FakeScheduler:
    """Changes run states at once, and remembers turns that ended and starts."""

    def __init__(self, vcpus: int) -> None:
        self.vcpus: Sequence[Vcpu] = tuple(FakeVcpu(index) for index in range(vcpus))
        self.yields: list[Vcpu | None] = []
        self.starts: list[tuple[int, int, int, int]] = []
        self.system_resets: list[int] = []

    def halt(self, vcpu: Vcpu, state: RunState) -> None:
        vcpu.run_state = state

    def wake(self, vcpu: Vcpu) -> None:
        vcpu.run_state = RunState.RUNNING

    def yield_turn(self, to: Vcpu | None) -> None:
        self.yields.append(to)

    def start(self, vcpu: Vcpu, nip: int, r3: int, starter: Vcpu) -> None:
        self.starts.append((vcpu.index, nip, r3, starter.index))
        vcpu.run_state = RunState.RUNNING

    def system_reset(self, vcpu: Vcpu) -> None:
        self.system_resets.append(vcpu.index)

    def each_spr(self, number: int, change: Callable[[int], int]) -> None:
        for vcpu in self.vcpus:
            vcpu.spr[number] = change(vcpu.spr[number])


def hypercall(calls: Sequence[LocalCall], token: int, vcpu: Vcpu, *arguments: int) -> int:
    """Make a hypercall that a table declares; return its r3."""
    for register, value in enumerate(arguments, 4):
        vcpu.gpr[register] = value
    (handler,) = (call.handler for call in calls if isinstance(call, LocalHypercall) and call.token == token)
    return handler(vcpu)


def rtas(calls: Sequence[LocalCall], name: str, vcpu: Vcpu, *arguments: int) -> tuple[int, ...]:
    """Make an RTAS call that a table declares, with as many arguments as it wants; return its return words."""
    (call,) = (call for call in calls if isinstance(call, LocalRtas) and call.name == name)
    assert len(arguments) == call.arguments
    return tuple(call.handler(vcpu, arguments, call.returns))
