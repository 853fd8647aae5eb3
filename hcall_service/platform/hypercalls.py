# SPDX-License-Identifier: GPL-2.0-or-later
"""Hypercalls that describe the platform: what its processors are like, where they are, and random numbers."""

from __future__ import annotations

import os
from enum import IntFlag

from splitvisor.backend import Call, Hypercall, Result, Session, Support
from splitvisor.papr.codes import H
from splitvisor.papr.hcall import Hcall

ASSOCIATIVITY_OF_PROCESSOR = 1
"""H_HOME_NODE_ASSOCIATIVITY's flag for "r5 is a virtual processor"."""
HOME_NODE = 0
UNUSED_DOMAIN = 0xFFFF_FFFF
ASSOCIATIVITY_REGISTERS = 6


class Character(IntFlag):
    """What the processor is; bits as IBM counts them, 0 the most significant."""

    HONOURS_BRANCH_HINTS = 1 << 63 - 5


class Behaviour(IntFlag):
    """What software should do about it."""

    FAVOUR_SECURITY = 1 << 63
    NO_L1D_FLUSH_ON_ENTRY = 1 << 63 - 7
    NO_L1D_FLUSH_ON_USER_ACCESS = 1 << 63 - 8
    NO_STORE_FORWARDING_BARRIER = 1 << 63 - 9


# The emulated processor does not speculate and its L1 cache does not exist: flushing it would cost a guest time at each entry to
# its kernel and hide nothing.
CHARACTER = Character.HONOURS_BRANCH_HINTS
BEHAVIOUR = (
    Behaviour.FAVOUR_SECURITY
    | Behaviour.NO_L1D_FLUSH_ON_ENTRY
    | Behaviour.NO_L1D_FLUSH_ON_USER_ACCESS
    | Behaviour.NO_STORE_FORWARDING_BARRIER
)


def get_cpu_characteristics(_session: Session, _call: Call) -> Result:
    """H_GET_CPU_CHARACTERISTICS() -> r4 character, r5 behaviour."""
    return Result(outputs=(CHARACTER, BEHAVIOUR))


def home_node_associativity(session: Session, call: Call) -> Result | int:
    """H_HOME_NODE_ASSOCIATIVITY(flags, processor) -> r4 to r9: domains, two 32-bit words a register, the outermost first."""
    flags, processor = call.arguments
    if flags != ASSOCIATIVITY_OF_PROCESSOR:
        return H.FUNCTION
    if processor >= session.vm.vcpus:
        return H.P2
    domains = [HOME_NODE, HOME_NODE, HOME_NODE, HOME_NODE, processor]
    domains += [UNUSED_DOMAIN] * (2 * ASSOCIATIVITY_REGISTERS - len(domains))
    return Result(outputs=[domains[index] << 32 | domains[index + 1] for index in range(0, len(domains), 2)])


def random(_session: Session, _call: Call) -> Result:
    """H_RANDOM() -> r4: 64 bits from the host's generator."""
    return Result(outputs=(int.from_bytes(os.urandom(8)),))


PLATFORM_CALLS: tuple[Hypercall, ...] = (
    Hypercall(
        Hcall.H_GET_CPU_CHARACTERISTICS, get_cpu_characteristics, arguments=0, section="LoPAPR 14, H_GET_CPU_CHARACTERISTICS"
    ),
    Hypercall(
        Hcall.H_HOME_NODE_ASSOCIATIVITY,
        home_node_associativity,
        arguments=2,
        section="LoPAPR 14, H_HOME_NODE_ASSOCIATIVITY",
        support=Support.PARTIAL,
        note="processors only, as in QEMU",
    ),
    Hypercall(Hcall.H_RANDOM, random, arguments=0, section="LoPAPR 14, H_RANDOM"),
)
