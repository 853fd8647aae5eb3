# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor replay --as`: a recording as a service, until it is stopped."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer
import uvloop

from splitvisor.cli.control import FAILED, USAGE, fail
from splitvisor.net.addresses import AddressError
from splitvisor.process.inputs import Pipes, open_input
from splitvisor.process.logging import LogLevel, configure
from splitvisor.process.signals import Kept
from splitvisor.recording import RecordingError
from splitvisor.recording.conversation import Recording
from splitvisor.recording.file import RecordingReader
from splitvisor.recording.stand_in import Script, StandIn
from splitvisor.service.interface import ServiceModule
from splitvisor.service.names import SERVICE_NAMES, ServiceName
from splitvisor.service.runtime_directory import make_socket_directory
from splitvisor.service.serve import Listening, serve

COMMAND = "replay"


@dataclass(frozen=True)
class _StandInName(ServiceName):
    """The service's name, with the stand-in for what it would load."""

    stand_in: StandIn

    def load(self) -> ServiceModule:
        """See ServiceName."""
        return self.stand_in


def replay_as(path: Path, link: str, listen: str | None) -> None:
    """Stand in for a back end; ends the program with 1 when a guest left the recording."""
    try:
        with open_input(Pipes().file(path)) as file:
            reader = RecordingReader(file, str(path))
            recording = Recording(reader, str(path))
            if link not in recording.start.backends:
                fail(COMMAND, f"{path} has no {link}; it has {', '.join(recording.start.backends)}", USAGE)
            script = Script(recording, link, lambda line: typer.echo(line, err=True))
        if recording.note(reader.cut):
            typer.echo(f"note: {recording.note(reader.cut)}", err=True)
        configure(LogLevel.WARNING, link)
        own = next((name for name in SERVICE_NAMES if name.package == link), ServiceName(link, link, "a back end of a recording"))
        address = listen or f"unix:{make_socket_directory()}/{own.command}.sock"
        typer.echo(f"{link} of {path} at {address}; ^C or SIGTERM stops it", err=True)
        stand_in = _StandInName(own.command, own.package, own.summary, StandIn(script))
        with Kept():
            uvloop.run(serve(stand_in, None, Listening([address])))
    except OSError as error:
        fail(COMMAND, f"{path}: {error.strerror or error}", USAGE)
    except (RecordingError, AddressError) as error:
        fail(COMMAND, str(error), USAGE)
    if script.account.left:
        raise typer.Exit(FAILED)
