# SPDX-License-Identifier: GPL-2.0-or-later
"""The four services as processes, for tests: kept between tests, and restarted if a test has ended one."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from splitvisor.service.names import SERVICE_NAMES
from splitvisor.service.processes import ServiceCommand, ServiceFailedError, ServiceProcess, start_forks, stop_all
from splitvisor.testing.loop import LoopThread

_WAIT_ENDED_S = 10.0


class Services:
    """cpu_service and its back ends, listening on unix sockets.

    Args:
        directory: where the sockets and the store go.
        loop: watches the processes.

    Raises ServiceFailedError if one does not start.
    """

    def __init__(self, directory: Path, loop: LoopThread) -> None:
        self.directory = directory
        self.addresses: Mapping[str, str] = {name.command: f"unix:{directory}/{name.command}.sock" for name in SERVICE_NAMES}
        """gRPC target by flag name: cpu, hcall, vio, of-client."""
        self._loop = loop
        self._processes: dict[str, ServiceProcess] = {}
        self.ensure()

    @property
    def backends(self) -> Mapping[str, str]:
        """gRPC target of each back end among them, by package."""
        return {name.package: self.addresses[name.command] for name in SERVICE_NAMES if name.command != "cpu"}

    def pid(self, name: str) -> int:
        """Return the process of a service, by flag name."""
        return self._processes[name].pid

    def alive(self, name: str) -> bool:
        """Return whether a service runs."""
        return name in self._processes and self._processes[name].running

    def ensure(self) -> None:
        """Start the services that are not running."""
        missing = [name.command for name in SERVICE_NAMES if not self.alive(name.command)]
        if missing:
            self._loop.run(self._start(missing))

    async def _start(self, names: list[str]) -> None:
        tree = ("--device-tree", self.addresses["hcall"])
        own = {"hcall": ("--store", str(self.directory / "trees.sqlite")), "vio": tree, "of-client": tree, "cpu": ()}
        packages = {name.command: name.package for name in SERVICE_NAMES}
        with closing(start_forks()) as forks:
            for name in names:
                command = ServiceCommand(name, packages[name], self.addresses[name], own[name])
                self._processes[name] = ServiceProcess(command, "info", None, forks)
        for name in names:
            self._processes[name].watch()
        try:
            for name in names:
                await self._processes[name].wait_ready()
        except ServiceFailedError as error:
            error.add_note("\n".join(error.last_lines))
            raise

    def kill(self, name: str) -> None:
        """Kill a service, and wait for its end."""
        os.kill(self.pid(name), signal.SIGKILL)
        self._loop.run(self._processes[name].wait_stopped(), _WAIT_ENDED_S)
        (self.directory / f"{name}.sock").unlink(missing_ok=True)

    def stop(self) -> None:
        """Stop all services."""
        self._loop.run(stop_all(list(self._processes.values())))
