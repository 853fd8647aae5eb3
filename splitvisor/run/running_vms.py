# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the services of a VM: in the environment, or among the VMs that `splitvisor run` of this user has started.

Each run tells of itself in run.json.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from splitvisor.errors.problem import ProblemError
from splitvisor.errors.similar import did_you_mean
from splitvisor.machine.service_addresses import CONNECT_VARIABLE, parse_connect
from splitvisor.service.runtime_directory import PREFIX, socket_parents

RUN_FILE = "run.json"


class NoSuchVmError(ProblemError, LookupError):
    """No run of this user has the VM; the text says what there is and what to do."""


@dataclass(frozen=True)
class RunningVm:
    """A run in progress."""

    name: str
    services: Mapping[str, str]
    """gRPC targets by command name: cpu, hcall, vio, of-client."""
    pid: int = 0
    """Of the run."""


def running_vms() -> Iterator[RunningVm]:
    """Yield the runs in progress; skip incomplete files, and files of killed runs and other users."""
    for parent in socket_parents():
        for path in sorted(parent.glob(f"{PREFIX}*/{RUN_FILE}")):
            try:
                owner = path.parent.lstat().st_uid
                content = json.loads(path.read_text())
                vm = RunningVm(str(content["vm"]), dict(content["services"]), int(content["pid"]))
                alive = Path(f"/proc/{vm.pid}").exists()
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if alive and owner == os.getuid():
                yield vm


def namesake(name: str) -> str:
    """Return a line about a run in progress whose VM has a name already; empty when there is none."""
    pid = next((each.pid for each in running_vms() if each.name == name), 0)
    remedy = "commands that name it need an address; --name NAME gives this one another"
    return f"another VM {name!r} is running, process {pid}; {remedy}" if pid else ""


def service_address(vm: str, service: str) -> str:
    """Return the gRPC target of one of a VM's services. Raises NoSuchVmError, and ConfigError for a wrong environment."""
    if named := parse_connect([os.environ.get(CONNECT_VARIABLE, "")], CONNECT_VARIABLE).get(service):
        return named
    found = list(running_vms())
    addresses = [candidate.services[service] for candidate in found if candidate.name == vm]
    if len(addresses) > 1:
        remedy = f"give --{service} ADDRESS, one of: {', '.join(addresses)}"
        raise NoSuchVmError(f"{len(addresses)} VMs {vm!r} are running", remedy)
    if not addresses:
        names = ", ".join(sorted({candidate.name for candidate in found})) or "none"
        meant = did_you_mean(vm, {candidate.name for candidate in found})
        remedy = meant or f"give --{service} ADDRESS for services started by hand"
        raise NoSuchVmError(f"no VM {vm!r} is running (running: {names})", remedy)
    return addresses[0]
