# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor run`: start the four services, run a machine on them, clean up.

Services listen on unix sockets in a private directory and end with this process, however it ends. Their logs are kept in
memory, for the terminal belongs to the guest, and shown when one fails.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from splitvisor.process.signals import EndingAfter, handled_signals
from splitvisor.run.exit_status import ExitStatus
from splitvisor.run.request import RunRequest, RunResult
from splitvisor.service.names import SERVICE_NAMES
from splitvisor.service.processes import LogSink, ServiceCommand, ServiceFailedError, ServiceProcess, start_forks, stop_all
from splitvisor.service.runtime_directory import private_directory, ram_parents, socket_parents

SHOWN_LINES = 20
"""Log lines of a failed service that are shown."""


async def run(request: RunRequest) -> RunResult:
    """Run a machine to its end. Must be the program's main task: it handles SIGINT, SIGTERM and SIGHUP."""
    main = asyncio.current_task()
    assert main is not None
    received: list[int] = []

    def on_signal(number: int) -> None:
        received.append(number)
        main.cancel()

    loop = asyncio.get_running_loop()
    for number in handled_signals():
        loop.add_signal_handler(number, on_signal, number)
    try:
        # What was read before the services start, through a pipe for instance, has taken its time.
        left = None if request.timeout is None else request.timeout - (time.monotonic() - request.began)
        async with asyncio.timeout(left):
            return await _run_in_directories(request)
    except TimeoutError:
        return RunResult(ExitStatus.TIMEOUT, f"the guest did not end within {request.timeout:g} s")
    except asyncio.CancelledError:
        if not received:
            raise
        return RunResult(ExitStatus.INTERRUPTED if received[0] == signal.SIGINT else ExitStatus.TERMINATED)


async def _run_in_directories(request: RunRequest) -> RunResult:
    with ExitStack() as stack:
        stack.callback(request.progress, "")
        try:
            runtime = stack.enter_context(private_directory(socket_parents()))
            ram = stack.enter_context(private_directory(ram_parents(request.config.memory)))
        except OSError as error:
            return RunResult(ExitStatus.USAGE, f"{error.filename or 'runtime directory'}: {error.strerror or error}")
        return await _run_services(request, _commands(request, runtime, ram), runtime, stack.close)


def _commands(request: RunRequest, runtime: Path, ram: Path) -> list[ServiceCommand]:
    """What to start, the slowest to start first."""

    def address(name: str) -> str:
        return request.connect.get(name) or f"unix:{runtime}/{name}.sock"

    own_arguments = {
        "cpu": ("--ram-dir", str(ram)),
        # Somebody looks at the terminal: a database that is not there is told at once.
        "hcall": ("--store", request.store or str(runtime / "device-trees.sqlite"), "--store-wait", "0"),
        "vio": ("--device-tree", address("hcall"), *_transcript_arguments(request)),
        "of-client": ("--device-tree", address("hcall")),
    }
    return [
        ServiceCommand(name.command, name.package, address(name.command), own_arguments[name.command])
        for name in SERVICE_NAMES
        if name.command not in request.connect
    ]


def _transcript_arguments(request: RunRequest) -> tuple[str, ...]:
    return () if request.transcripts is None else ("--transcripts", str(request.transcripts.absolute()))


async def _run_services(
    request: RunRequest, commands: list[ServiceCommand], runtime: Path, tidy: Callable[[], None]
) -> RunResult:
    request.progress("starting the services")
    log: LogSink | None = request.log_file or (_LogToStderr() if request.log_to_stderr else None)
    facts: dict[str, Any] = {}
    processes: list[ServiceProcess] = []
    addresses = dict(request.connect) | {command.name: command.address for command in commands}
    proxies = request.faults.proxies(addresses, request.config, runtime) if request.faults is not None else {}

    def start(command: ServiceCommand) -> ServiceProcess:
        with closing(start_forks()) as forks:
            return ServiceProcess(command, request.log_level, log, forks)

    running, orderly = asyncio.Event(), False

    def end(status: int) -> None:
        for process in processes:
            process.terminate()
        tidy()
        if request.report is not None:
            with suppress(OSError):  # Nobody is left to tell.
                request.report.write(status, "")

    try:
        with EndingAfter(end):  # The event loop hears of no signal meanwhile.
            # One by one: those that were started are stopped when a later one cannot be.
            with closing(start_forks()) as forks:
                processes.extend(ServiceProcess(each, request.log_level, log, forks) for each in (*commands, *proxies.values()))
            from splitvisor.run.machine import run_machine  # gRPC loads while the services do

        for process in processes:
            process.watch()
        _write_run_file(runtime / "run.json", request.config.name, addresses, processes[: len(commands)])
        await asyncio.gather(*(process.wait_ready() for process in processes))
        if request.faults is None:
            failures: Sequence[asyncio.Task[NoReturn]] = [asyncio.create_task(process.wait_failed()) for process in processes]
        else:
            from splitvisor.faults.run import through_proxies, watch_all  # few runs have faults

            failures = watch_all(processes, request.faults, start)
            request = replace(request, config=through_proxies(request.config, proxies))
        try:
            via = {name: proxy.address for name, proxy in proxies.items()}
            outcome = await run_machine(request, addresses, failures, via, facts, running)
            orderly = running.is_set() or outcome.status not in (ExitStatus.POWERED_OFF, ExitStatus.INTERRUPTED)
        except asyncio.CancelledError:
            orderly = running.is_set()
            raise
        finally:
            for task in failures:
                task.cancel()
        return RunResult(outcome.status, outcome.message)
    except ServiceFailedError as error:
        orderly = True
        if error.status == ExitStatus.USAGE and error.last_lines:
            # A setting of ours that it cannot start with; it has said which, in one line.
            return RunResult(ExitStatus.USAGE, error.last_lines[-1])
        lines = (f"  {line}" for line in error.last_lines[-SHOWN_LINES:])
        return RunResult(ExitStatus.SERVICE_FAILED, "\n".join((str(error), *lines)))
    finally:
        if request.report is not None:
            faults = {} if request.faults is None else {"faults": request.faults.account(runtime)}
            request.report.pids = {process.command.name: process.pid for process in processes[: len(commands)]}
            request.report.facts = {**facts, **faults}
        # When somebody left before the guest ran, nothing of it is worth the time in which calls under way may end.
        await asyncio.shield(stop_all(processes, kill=not orderly))


class _LogToStderr:
    """See LogSink."""

    def write(self, data: bytes) -> None:
        """See LogSink."""
        sys.stderr.buffer.write(data)
        sys.stderr.buffer.flush()


def _write_run_file(path: Path, vm: str, addresses: Mapping[str, str], processes: list[ServiceProcess]) -> None:
    """Tell other programs who runs: for attaching a debugger, a second console, or a fault."""
    pids = {process.command.name: process.pid for process in processes}
    text = json.dumps({"vm": vm, "pid": os.getpid(), "services": dict(addresses), "pids": pids})
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
