# SPDX-License-Identifier: GPL-2.0-or-later
"""The compose project under test, as a user has it, on the tests' own engine."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.guests.harness import ROOT, Console
from tests.stack.engine import BUILD_SECONDS, PYTHON_IMAGE, START_SECONDS, Engine

COMPOSE_FILE = ROOT / "docker-compose.yml"
SERVICES = ("hcall", "vio", "of-client", "cpu")
PROFILES = ("second-vm", "postgres")
"""Those whose images the tests have."""
NODE_IMAGE = "node:22-bookworm-slim"
"""As the Dockerfile has it."""


class Compose:
    """docker-compose for one project.

    Args:
        engine: where.
        project: its name.
        directory: for a file that lets builds use the machine's network: the engine's own is off.
        variables: what docker-compose.yml takes from the environment.
    """

    def __init__(self, engine: Engine, project: str, directory: Path, variables: Mapping[str, str] | None = None) -> None:
        self._engine = engine
        self.project = project
        network = directory / "build-network.yml"
        build = "build: {network: host}"
        network.write_text("services:\n" + "".join(f"  {name}: {{{build}}}\n" for name in (*SERVICES, "machine")))
        self._build_files = ["-f", str(COMPOSE_FILE), "-f", str(network)]
        self._environment = {"COMPOSE_PROJECT_NAME": project, "SPLITVISOR_TAG": "test", **(variables or {})}
        # On a busy machine the engine takes longer for an answer than the minute that docker-compose would give it.
        self._environment["COMPOSE_HTTP_TIMEOUT"] = f"{BUILD_SECONDS:.0f}"

    def run(self, *arguments: str, seconds: float = START_SECONDS, check: bool = True) -> str:
        """Run docker-compose; return what it prints."""
        command = ["docker-compose", *arguments]
        return self._engine.command(command, seconds=seconds, check=check, directory=ROOT, environment=self._environment).stdout

    def build(self) -> None:
        """Build the image, from the cache as far as it reaches."""
        # There is no image with npm: what that would fetch was fetched by `./dev web`, and is taken from there.
        self._engine.docker("tag", PYTHON_IMAGE, NODE_IMAGE)
        self.run(*self._build_files, "build", "hcall", seconds=BUILD_SECONDS)

    def down(self) -> None:
        """Remove all of it."""
        profiles = [word for profile in PROFILES for word in ("--profile", profile)]
        self.run(*profiles, "down", "--volumes", "--timeout", "10", check=False)

    def container(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's container."""
        return self._engine.inspect(f"{self.project}_{service}_1")

    def status(self, vm: str = "guest", cpu: str = "cpu") -> dict[str, Any]:
        """What `splitvisor vm status` says of a VM; nothing while it does not answer."""
        answer = self.run("exec", "-T", cpu, "splitvisor", "vm", "status", vm, "--json", check=False)
        fields: dict[str, Any] = json.loads(answer) if answer else {}
        return fields

    def kill(self, service: str) -> None:
        """Kill a service as a crash would, and wait until the engine has started it again.

        `docker-compose kill` would count as a stop by hand, after which nothing is restarted.
        """
        before = self.container(service)
        os.kill(before["State"]["Pid"], signal.SIGKILL)
        wait_for(lambda: self.container(service)["RestartCount"] > before["RestartCount"], f"{service} is started again")

    def terminal(self, vm: str = "guest") -> ComposeTerminal:
        """`docker-compose run --rm console`, on a pseudo terminal."""
        command = ["docker-compose", "run", "--rm", "console", vm]
        return ComposeTerminal(command, {**self._engine.environment, **self._environment})


def wait_for(condition: Callable[[], bool], what: str, seconds: float = START_SECONDS) -> None:
    """Wait until a condition holds; fail the test when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.2)


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody has."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ComposeTerminal(Console):
    """A terminal that `docker-compose run` attached."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self._read, slave = pty.openpty()
        self._write = self._read
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
        )
        os.close(slave)
        self.text = ""
        self._position = 0

    def leave(self) -> None:
        """Leave by the terminal's menu."""
        self.type("\x1dq")
        assert self.wait() == 0, self.text[-2000:]
