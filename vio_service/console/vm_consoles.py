# SPDX-License-Identifier: GPL-2.0-or-later
"""The consoles of one VM, and how output of its calls reaches them: at once, or through the journal of its transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from splitvisor.backend import Call, Vm
from splitvisor.backend.vio import HostSide
from vio_service.console.console import Console
from vio_service.console.exchange import Exchange
from vio_service.console.output_log import REPLAY_BYTES
from vio_service.console.transcript import TranscriptDirectory
from vio_service.console.transcript_journal import Journal


@dataclass(frozen=True)
class ConsoleSettings:
    """What holds for every console of a vio_service."""

    replay_bytes: int = REPLAY_BYTES
    """Old output that a new reader gets."""
    transcripts: TranscriptDirectory | None = None
    """Where output is kept; None: nowhere."""
    exchange: Exchange = field(default_factory=Exchange)
    """The consoles that vty-servers may take."""


DEFAULT_SETTINGS = ConsoleSettings()


class VmConsoles(HostSide):
    """What a VM's terminals are plugged into.

    Args:
        vm: the VM.
        settings: of all consoles.

    Raises BusError when its transcripts cannot be kept.
    """

    def __init__(self, vm: Vm, settings: ConsoleSettings = DEFAULT_SETTINGS) -> None:
        self._settings = settings
        self._consoles: dict[int, Console] = {}
        self._uncommitted = False
        self._journal = None if settings.transcripts is None else Journal(settings.transcripts, vm.name, vm.incarnation)

    def all(self) -> Sequence[Console]:
        """Return the consoles of the VM's VTYs, lowest unit address first."""
        return [self._consoles[address] for address in sorted(self._consoles)]

    @property
    def exchange(self) -> Exchange:
        """The consoles that vty-servers may take, of all VMs."""
        return self._settings.exchange

    def open(self, console: Console, server: str = "") -> None:
        """A VTY has this console, which vty-servers of a VM may take. Raises BusError: it cannot have a transcript."""
        console.replay_bytes = self._settings.replay_bytes
        if self._journal is not None:
            self._journal.add(console)
        self._consoles[console.unit_address] = console
        if server:
            self.exchange.add(console, server)

    def shut(self, console: Console) -> None:
        """A VTY has left."""
        self.exchange.remove(console)
        if self._consoles.get(console.unit_address) is console:
            del self._consoles[console.unit_address]
        if self._journal is not None:
            self._journal.remove(console)

    def print(self, call: Call, console: Console, data: bytes) -> None:
        """Take the output of a call."""
        if self._journal is None:
            console.write(data)
        else:
            self._journal.append(call.vcpu, call.sequence, console, data)
            self._uncommitted = True

    @property
    def uncommitted(self) -> bool:
        """See HostSide."""
        return self._uncommitted

    def commit(self) -> None:
        """See HostSide."""
        if self._journal is not None:
            self._journal.commit()
        self._uncommitted = False

    def close(self) -> None:
        """The transcripts of this VM are complete, for this process."""
        for console in self._consoles.values():
            self.exchange.remove(console)
        if self._journal is not None:
            self._journal.close()
