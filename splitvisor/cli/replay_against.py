# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor replay --against`: drives a back end and prints what differs."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import typer

from splitvisor.cli.control import FAILED, USAGE, fail
from splitvisor.net.addresses import AddressError
from splitvisor.recording import RecordingError
from splitvisor.recording.comparison import Difference, Outcome
from splitvisor.recording.conversation import Recording
from splitvisor.recording.file import RecordingReader
from splitvisor.recording.fresh import fresh_service, serve_trees
from splitvisor.recording.replay import MAX_REPORTED, replay
from splitvisor.recording.trees import RecordedTrees
from splitvisor.run.exit_status import ExitStatus
from splitvisor.service.names import ServiceName
from splitvisor.service.processes import ServiceFailedError

COMMAND = "replay"


def replay_against(path: Path, name: ServiceName, address: str | None, trees_socket: Path | None) -> None:
    """Replay a recording against a back end; ends the program with the status that `splitvisor replay` promises."""
    try:
        with path.open("rb") as file:
            reader = RecordingReader(file, str(path))
            recording = Recording(reader, str(path))
            if name.package not in recording.start.backends:
                fail(COMMAND, f"{path} has no {name.package}; it has {', '.join(recording.start.backends)}", USAGE)
            outcome = asyncio.run(_replay(recording, name, address, trees_socket))
    except OSError as error:
        fail(COMMAND, f"{error.filename or path}: {error.strerror or error}", USAGE)
    except (RecordingError, AddressError) as error:
        fail(COMMAND, str(error), USAGE)
    except ServiceFailedError as error:
        fail(COMMAND, str(error), ExitStatus.SERVICE_FAILED)
    _say(outcome, name.package)
    if outcome.failure:
        fail(COMMAND, outcome.failure, ExitStatus.SERVICE_FAILED)
    if recording.note(reader.cut):
        typer.echo(f"note: {recording.note(reader.cut)}", err=True)
    if not outcome.same:
        raise typer.Exit(FAILED)


async def _replay(recording: Recording, name: ServiceName, address: str | None, trees_socket: Path | None) -> Outcome:
    trees = RecordedTrees()
    async with AsyncExitStack() as stack:
        if address is None:
            address = await stack.enter_async_context(fresh_service(name, trees))
        elif trees_socket is not None:
            await stack.enter_async_context(serve_trees(trees, trees_socket))
        return await replay(recording, name.package, address, trees, _print)


def _print(difference: Difference) -> None:
    typer.echo(str(difference))


def _say(outcome: Outcome, backend: str) -> None:
    if outcome.differences > MAX_REPORTED:
        typer.echo(f"... and {outcome.differences - MAX_REPORTED} more")
    for what, count in outcome.left_out.items():
        typer.echo(f"not compared, {count} times: {what}")
    if outcome.unanswered:
        typer.echo(f"not replayed: {outcome.unanswered} calls whose answers are not in the recording")
    found = f"{outcome.differences} differences" if outcome.differences else "no differences"
    typer.echo(f"{backend}: {outcome.calls} calls, {found}")
