# SPDX-License-Identifier: GPL-2.0-or-later
"""How cpu_service's own hypercalls and RTAS calls are declared: the same columns as a back end's table, with direct handlers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cpu_service.vcpus.vcpu import Vcpu
from splitvisor.declarations.calls import Support
from splitvisor.papr.hcall import hcall_name

HypercallHandler = Callable[[Vcpu], int]
"""Reads r4 and up, writes its outputs there, returns r3 (signed)."""

RtasHandler = Callable[[Vcpu, Sequence[int], int], Sequence[int]]
"""Given the caller, the argument words and the number of return words that it has room for: the return words, status first."""

ANOTHERS: Final = 1 << 62
"""What the handler of a shared hypercall returns for arguments that are not its own."""
ANOTHERS_RTAS: Final = (ANOTHERS,)
"""The same for RTAS calls."""


@dataclass(frozen=True)
class LocalHypercall:
    """A hypercall that needs the CPU's own state."""

    token: int
    handler: HypercallHandler
    section: str
    """Where its behaviour is defined."""
    support: Support = Support.FULL
    note: str = ""
    shared: bool = False
    """Back ends may own it, too, for other arguments."""

    @property
    def call_name(self) -> str:
        """The name as PAPR spells it."""
        return hcall_name(self.token)


@dataclass(frozen=True)
class LocalRtas:
    """An RTAS call that needs the CPU's own state."""

    name: str
    handler: RtasHandler
    section: str
    arguments: int
    """Words that the caller must pass; another number gets status -3."""
    returns: int
    """Return words that the caller must have room for, at least."""
    support: Support = Support.FULL
    note: str = ""
    shared: bool = False
    """Back ends may own it, too, for other arguments."""

    @property
    def call_name(self) -> str:
        """The name as PAPR spells it."""
        return self.name


LocalCall = LocalHypercall | LocalRtas
