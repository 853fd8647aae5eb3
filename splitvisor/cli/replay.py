# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor replay`: one side of a recorded machine, with the recording in place of the other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from splitvisor.cli.control import USAGE, fail
from splitvisor.service.names import SERVICE_NAMES

COMMAND = "replay"


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The recording")],
    *,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[@ADDRESS]",
            help="Drive this back end of the recording, such as vio_service, and compare; without an address, a new process",
        ),
    ] = None,
    stand_in: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Stand in for this back end: answer a live guest")
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="With --as: the address to listen on; unix:/path or a loopback host:port"),
    ] = None,
    trees: Annotated[
        Path | None,
        typer.Option(
            metavar="SOCKET", help="With --against of_client_service@...: serve the recording's device trees on this socket"
        ),
    ] = None,
) -> None:
    """Replay a recording.

    Exit status: 0 no difference, 1 there are differences or the guest left the recording, 2 bad usage, 4 a service failed.
    """
    if (against is None) == (stand_in is None):
        fail(COMMAND, "nothing to replay; give --against NAME or --as NAME", USAGE)
    if against is not None:
        from splitvisor.cli.replay_against import replay_against  # gRPC is slow to load

        name, separator, address = against.partition("@")
        if listen is not None or (separator and not address):
            fail(COMMAND, "--against takes NAME or NAME@ADDRESS, and no --listen", USAGE)
        replay_against(file, link_name(name), address or None, trees)
    else:
        from splitvisor.cli.replay_as import replay_as  # see above

        if trees is not None:
            fail(COMMAND, "--trees needs --against", USAGE)
        replay_as(file, link_name(stand_in or ""), listen)


def link_name(text: str) -> str:
    """Return a recording's name of a back end; one of Splitvisor's own may be given in short."""
    return next((name.package for name in SERVICE_NAMES if text == name.command), text)
