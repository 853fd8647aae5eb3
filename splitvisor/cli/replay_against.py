# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor replay --against`: drives a back end and prints what differs."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import typer

from splitvisor.cli.control import FAILED, USAGE, fail
from splitvisor.net.addresses import AddressError
from splitvisor.process import signals
from splitvisor.process.inputs import Pipes, open_input
from splitvisor.recording import RecordingError
from splitvisor.recording.comparison import Difference, Outcome
from splitvisor.recording.conversation import Introduction, Recording
from splitvisor.recording.file import RecordingReader
from splitvisor.recording.fresh import fresh_service, serve_trees
from splitvisor.recording.replay import MAX_REPORTED, replay
from splitvisor.recording.trees import RecordedTrees
from splitvisor.run.exit_status import ExitStatus
from splitvisor.service.names import SERVICE_NAMES, ServiceName
from splitvisor.service.processes import ServiceFailedError

COMMAND = "replay"


def replay_against(path: Path, link: str, address: str | None, trees_socket: Path | None) -> None:
    """Replay one link's part of a recording; ends the program with the status that `splitvisor replay` promises."""
    try:
        opened = Pipes().file(path)
        program = None if address is not None else _program(opened, link)
        with open_input(opened) as file:
            reader = RecordingReader(file, str(path))
            recording = Recording(reader, str(path))
            if link not in recording.start.backends:
                fail(COMMAND, f"{path} has no {link}; it has {', '.join(recording.start.backends)}", USAGE)
            if program is None and address is None:
                fail(COMMAND, f"{link} is not a service of Splitvisor; give its address: --against {link}@ADDRESS", USAGE)
            outcome = signals.run(_replay(recording, link, program, address, trees_socket))
    except OSError as error:
        fail(COMMAND, f"{error.filename or path}: {error.strerror or error}", USAGE)
    except (RecordingError, AddressError) as error:
        fail(COMMAND, str(error), USAGE)
    except ServiceFailedError as error:
        fail(COMMAND, str(error), ExitStatus.SERVICE_FAILED)
    _say(outcome, link)
    if outcome.failure:
        fail(COMMAND, outcome.failure, ExitStatus.SERVICE_FAILED)
    if recording.note(reader.cut):
        typer.echo(f"note: {recording.note(reader.cut)}", err=True)
    if not outcome.same:
        raise typer.Exit(FAILED)


def _program(path: Path, link: str) -> ServiceName | None:
    """The service that a link of a recording was to, by what it said of itself: links have names of their own."""
    with open_input(path) as file:
        items = Recording(RecordingReader(file, str(path)), str(path)).items(link)
        offered = next((item.offer.backend for _, item in items if isinstance(item, Introduction)), "")
    return next((name for name in SERVICE_NAMES if name.package in (offered, link)), None)


async def _replay(
    recording: Recording, link: str, program: ServiceName | None, address: str | None, trees_socket: Path | None
) -> Outcome:
    trees = RecordedTrees()
    async with AsyncExitStack() as stack:
        if address is None:
            assert program is not None
            address = await stack.enter_async_context(fresh_service(program, trees))
        elif trees_socket is not None:
            await stack.enter_async_context(serve_trees(trees, trees_socket))
        return await replay(recording, link, address, trees, _print)


def _print(difference: Difference) -> None:
    typer.echo(str(difference))


def _say(outcome: Outcome, backend: str) -> None:
    if outcome.differences > MAX_REPORTED:
        typer.echo(f"... and {outcome.differences - MAX_REPORTED} more")
    for what, count in outcome.left_out.items():
        typer.echo(f"not compared, {count} times: {what}")
    if outcome.unanswered and not outcome.failure:  # Else the recording was not read to its end.
        typer.echo(f"not replayed: {outcome.unanswered} calls without an answer in the recording")
    found = f"{outcome.differences} differences" if outcome.differences else "no differences"
    typer.echo(f"{backend}: {outcome.calls} calls, {found}")
