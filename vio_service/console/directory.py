# SPDX-License-Identifier: GPL-2.0-or-later
"""Which consoles there are, and which one is meant: for every way in which terminals come."""

from __future__ import annotations

from splitvisor.backend import Session
from splitvisor.backend.vio import VioSession
from splitvisor.trap.server import TrapServicer
from vio_service.console.console import Console
from vio_service.console.vm_consoles import VmConsoles


class ConsoleNotFoundError(LookupError):
    """There is no such console; the text says what there is.

    Args:
        text: for people.
        reason: for programs (docs/contracts.md).
    """

    def __init__(self, text: str, reason: str = "NO_SUCH_CONSOLE") -> None:
        super().__init__(text)
        self.reason = reason


def consoles_of(traps: TrapServicer, vm: str = "") -> list[Console]:
    """Return a VM's consoles, or with an empty name those of all, ordered by VM and unit address."""
    return [
        console
        for name, session in sorted(traps.sessions().items())
        if vm in {"", name} and (consoles := _consoles(session)) is not None
        for console in consoles.all()
    ]


def find_console(traps: TrapServicer, vm: str, unit_address: int) -> Console:
    """Return one console; unit address 0 is the VM's first. Raises ConsoleNotFoundError."""
    if _consoles(traps.session(vm)) is None:
        raise ConsoleNotFoundError(f"no VM {vm!r} is attached to this vio_service")
    consoles = consoles_of(traps, vm)
    for console in consoles:
        if unit_address in {0, console.unit_address}:
            return console
    if not consoles:
        raise ConsoleNotFoundError(f"VM {vm!r} has no console; `splitvisor vm device-add {vm} vty` adds one", "NO_CONSOLE")
    known = ", ".join(f"{console.unit_address:#x}" for console in consoles)
    raise ConsoleNotFoundError(f"VM {vm!r} has no VTY at {unit_address:#x}; it has: {known}")


def _consoles(session: Session | None) -> VmConsoles | None:
    return session.host if isinstance(session, VioSession) and isinstance(session.host, VmConsoles) else None
