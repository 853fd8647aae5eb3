# SPDX-License-Identifier: GPL-2.0-or-later
"""Which consoles there are, and which one is meant: for every way in which terminals come."""

from __future__ import annotations

from splitvisor.trap.server import TrapServicer
from vio_service.bus.session import VioSession
from vio_service.console.console import Console


class ConsoleNotFoundError(LookupError):
    """There is no such console; the text says what there is."""


def consoles_of(traps: TrapServicer, vm: str = "") -> list[Console]:
    """Return a VM's consoles, or with an empty name those of all, ordered by VM and unit address."""
    return [
        console
        for name, session in sorted(traps.sessions().items())
        if isinstance(session, VioSession) and vm in {"", name}
        for console in session.consoles()
    ]


def find_console(traps: TrapServicer, vm: str, unit_address: int) -> Console:
    """Return one console; unit address 0 is the VM's first. Raises ConsoleNotFoundError."""
    if not isinstance(traps.session(vm), VioSession):
        raise ConsoleNotFoundError(f"no VM {vm!r} is attached to this vio_service")
    consoles = consoles_of(traps, vm)
    for console in consoles:
        if unit_address in {0, console.unit_address}:
            return console
    known = ", ".join(f"{console.unit_address:#x}" for console in consoles) or "none"
    raise ConsoleNotFoundError(f"VM {vm!r} has no VTY at {unit_address:#x}; it has: {known}")
