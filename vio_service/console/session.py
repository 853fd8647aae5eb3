# SPDX-License-Identifier: GPL-2.0-or-later
"""How output of a VM's calls comes to its consoles: at once, or through the journal of its transcripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from splitvisor.backend import Call, Vm
from vio_service.bus.device import BusError
from vio_service.console.console import REPLAY_BYTES, Console
from vio_service.console.transcript import TranscriptDirectory
from vio_service.console.transcript_journal import Journal
from vio_service.hotplug.connectors import ConnectorSession


@dataclass(frozen=True)
class ConsoleSettings:
    """What holds for every console of a vio_service."""

    replay_bytes: int = REPLAY_BYTES
    """Old output that a new reader gets."""
    transcripts: TranscriptDirectory | None = None
    """Where output is kept; None: nowhere."""


DEFAULT_SETTINGS = ConsoleSettings()


class ConsoleSession(ConnectorSession):
    """A bus whose terminals have consoles; the handlers of the VTY get it."""

    def __init__(self, vm: Vm, settings: ConsoleSettings) -> None:
        super().__init__(vm)
        self._settings = settings
        self.journal: Journal | None = None

    def open_consoles(self, consoles: Sequence[Console]) -> None:
        """The VTYs that the VM has from the start have these consoles. Raises BusError."""
        if self._settings.transcripts is not None:
            self.journal = Journal(self._settings.transcripts, self.vm.name, self.vm.incarnation)
        try:
            for console in consoles:
                self.open_console(console)
        except BusError:
            self.close_journal()
            raise

    def open_console(self, console: Console) -> None:
        """A VTY has come, with this console. Raises BusError."""
        console.replay_bytes = self._settings.replay_bytes
        if self.journal is not None:
            self.journal.add(console)

    def close_journal(self) -> None:
        """The transcripts of this VM are complete, for this process."""
        if self.journal is not None:
            self.journal.close()

    def close_console(self, console: Console) -> None:
        """A VTY has gone."""
        if self.journal is not None:
            self.journal.remove(console)

    def print(self, call: Call, console: Console, data: bytes) -> None:
        """Output of a call."""
        if self.journal is None:
            console.write(data)
        else:
            self.journal.append(call.vcpu, call.sequence, console, data)
            self.uncommitted = True

    def commit(self) -> None:
        """See Session."""
        if self.journal is not None:
            self.journal.commit()
        self.uncommitted = False
