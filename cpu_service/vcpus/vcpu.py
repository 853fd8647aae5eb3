# SPDX-License-Identifier: GPL-2.0-or-later
"""What local hypercalls see of the machine: vCPUs, the scheduler that runs them, and RAM.

The engine and the scheduler implement these shapes; the handlers know nothing else of them, so that each can be tested with
plain data.
"""

from __future__ import annotations

from collections.abc import Callable, MutableSequence, Sequence
from enum import Enum, auto
from typing import Protocol

Registers = MutableSequence[int]
"""Unsigned 64-bit registers. Values that are stored must fit: writers mask."""

MSR_EE = 1 << 15
"""MSR: external interrupts and the decrementer are enabled."""
SPR_SPRG0 = 272
SPR_LPCR = 0x13E


class RunState(Enum):
    """Whether a vCPU executes, and what makes it go on."""

    RUNNING = auto()
    CEDED = auto()
    """Until an interrupt or H_PROD."""
    WAITING = auto()
    """Until H_PROD: it joined, or conferred to itself."""
    STOPPED = auto()
    """Until RTAS start-cpu."""


class Vcpu(Protocol):
    """One virtual processor, loaded in the engine or not."""

    index: int
    """Its interrupt server number and its `reg` in the tree."""
    gpr: Registers
    """32 general purpose registers."""
    spr: Registers
    """1024 special purpose registers by SPR number."""
    msr: int
    run_state: RunState
    prodded: bool
    """H_PROD came while it was running: its next wait ends at once."""
    vpa: int
    """Address of its virtual processor area; 0: not registered."""
    slb_shadow: int
    """Address of its SLB shadow buffer; 0: not registered."""
    dtl: int
    """Address of its dispatch trace log; 0: not registered."""


class Scheduler(Protocol):
    """Decides which vCPU the engine executes."""

    vcpus: Sequence[Vcpu]
    """By index."""

    def halt(self, vcpu: Vcpu, state: RunState) -> None:
        """Take a vCPU off the engine once its present call has returned, with this run state."""

    def wake(self, vcpu: Vcpu) -> None:
        """Make a halted vCPU RUNNING."""

    def yield_turn(self, to: Vcpu | None) -> None:
        """End the present vCPU's turn, in favour of another one if it is runnable."""

    def start(self, vcpu: Vcpu, nip: int, r3: int, starter: Vcpu) -> None:
        """Make a STOPPED vCPU run from a real address, in the starter's endianness mode for interrupts."""

    def system_reset(self, vcpu: Vcpu) -> None:
        """Interrupt a vCPU by a system reset, whatever it does, unless it is STOPPED."""

    def each_spr(self, number: int, change: Callable[[int], int]) -> None:
        """Replace one SPR of every vCPU by a function of its value."""


class Ram(Protocol):
    """Guest RAM, from physical address 0."""

    size: int
    """Bytes."""

    def read(self, address: int, length: int) -> bytes:
        """Return length bytes. Raises GuestAddressError."""

    def write(self, address: int, data: bytes) -> None:
        """Store data; code that the guest has there is translated anew. Raises GuestAddressError."""
