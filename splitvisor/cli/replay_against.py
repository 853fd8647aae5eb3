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
from splitvisor.recording.dma import refuse_dma
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
        program = _program(opened, str(path), link, address)
        with open_input(opened) as file:
            reader = RecordingReader(file, str(path))
            recording = Recording(reader, str(path))
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


def _program(path: Path, name: str, link: str, address: str | None) -> ServiceName | None:
    """Check that a link of a recording can be replayed, before a service is started; None: not needed, there is an address.

    The service is the one that said so of itself: links have names of their own. Raises RecordingError.
    """
    with open_input(path) as file:
        recording = Recording(RecordingReader(file, name), name)
        if link not in recording.start.backends:
            fail(COMMAND, f"{name} has no {link}; it has {', '.join(recording.start.backends)}", USAGE)
        introduction = next((item for _, item in recording.items(link) if isinstance(item, Introduction)), None)
    if introduction is not None:
        refuse_dma(recording, link, introduction)
    if address is not None:
        return None
    offered = introduction.offer.backend if introduction is not None else ""
    program = next((each for each in SERVICE_NAMES if each.package in (offered, link)), None)
    if program is None:
        fail(COMMAND, f"{link} is not a service of Splitvisor; give its address: --against {link}@ADDRESS", USAGE)
    return program


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
