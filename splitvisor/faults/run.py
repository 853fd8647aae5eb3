# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor run --fault`: a proxy before each back end that a scenario names, and new processes for those that it kills."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from splitvisor.faults.journal import read_journal, summary
from splitvisor.faults.process import forget_socket
from splitvisor.faults.scenario import Scenario
from splitvisor.machine.config import ConfigError, MachineConfig
from splitvisor.service.names import SERVICE_NAMES
from splitvisor.service.processes import ServiceCommand, ServiceFailedError, ServiceProcess, stop_all

BACKENDS = tuple(name.command for name in SERVICE_NAMES if name.command != "cpu")


@dataclass(frozen=True)
class FaultPlan:
    """What goes wrong in a run."""

    file: Path
    """Where the scenario stands; the proxies read it again."""
    scenario: Scenario

    def check(self, config: MachineConfig, connect: Mapping[str, str]) -> None:
        """Raise ConfigError when the scenario names a back end that the run does not have, or kills one that it did not start."""
        known = (*BACKENDS, *(each.name for each in config.backends))
        for place, fault in enumerate(self.scenario.faults):
            where = f"fault[{place}]"
            if fault.backend and fault.backend not in known:
                raise ConfigError(str(self.file), where, f"there is no back end {fault.backend!r}", f"known: {', '.join(known)}")
            foreign = [name for name in known if fault.backend in ("", name) and (name in connect or name not in BACKENDS)]
            if fault.kind.name == "kill" and foreign:
                raise ConfigError(str(self.file), where, f"this run cannot start {foreign[0]} again", "name one that it starts")

    def proxies(self, addresses: Mapping[str, str], config: MachineConfig, runtime: Path) -> dict[str, ServiceCommand]:
        """Return the proxies to start, by the names of the back ends that they stand before."""
        targets = {name: addresses[name] for name in BACKENDS} | {each.name: each.address for each in config.backends}
        return {
            name: ServiceCommand(
                "fault", f"fault proxy of {name}", f"unix:{runtime}/fault-{number}.sock",
                ("--to", target, "--scenario", str(self.file), "--backend", name, "--journal", str(journal_file(runtime))),
            )
            for number, (name, target) in enumerate(targets.items())
            if self.scenario.concerning(name)
        }  # fmt: skip

    def account(self, runtime: Path) -> dict[str, Any]:
        """Return what happened, for the run's report."""
        happened = read_journal(journal_file(runtime))
        return {"seed": self.scenario.seed, "counts": summary(happened), "happened": happened}


def journal_file(runtime: Path) -> Path:
    """Where the proxies of a run write what happened."""
    return runtime / "faults.jsonl"


def through_proxies(config: MachineConfig, proxies: Mapping[str, ServiceCommand]) -> MachineConfig:
    """Return a machine whose back ends of others are behind their proxies."""
    return replace(
        config,
        backends=tuple(
            replace(each, address=proxies[each.name].address) if each.name in proxies else each for each in config.backends
        ),
    )


async def keep_running(
    processes: list[ServiceProcess], process: ServiceProcess, start: Callable[[ServiceCommand], ServiceProcess]
) -> NoReturn:
    """Start a service anew whenever it is killed; the new process takes the old one's place among the run's.

    Raises ServiceFailedError when it ends in any other way.
    """
    while True:
        try:
            await process.wait_failed()
        except ServiceFailedError as error:
            if error.status != -signal.SIGKILL:
                raise
        await stop_all([process])
        forget_socket(process.command.address)
        anew = await asyncio.to_thread(start, process.command)
        processes[processes.index(process)] = process = anew
        process.watch()
        await process.wait_ready()


def watch_all(
    processes: list[ServiceProcess], plan: FaultPlan | None, start: Callable[[ServiceCommand], ServiceProcess]
) -> Sequence[asyncio.Task[NoReturn]]:
    """Return tasks that raise when a service ends that should not."""
    killed = {name for name in BACKENDS if plan is not None and plan.scenario.kills(name)}
    return [
        asyncio.create_task(keep_running(processes, process, start) if process.command.name in killed else process.wait_failed())
        for process in processes
    ]
