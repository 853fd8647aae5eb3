# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest fixtures of splitvisor.testing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Protocol

import pytest

from splitvisor.backend import Backend
from splitvisor.machine.config import MachineConfig
from splitvisor.service.runtime_directory import private_directory, socket_parents
from splitvisor.testing.loop import LoopThread
from splitvisor.testing.running_machine import SCRIPTED, RunningMachine
from splitvisor.testing.scripted_guest import ScriptedGuest
from splitvisor.testing.served import BackendProgram, RunningProgram, ServedBackend
from splitvisor.testing.services import Services
from splitvisor.testing.trap_log import Traps

BackendsUnderTest = Sequence[Backend | BackendProgram]


class StartMachine(Protocol):
    """Starts a machine with back ends under test. Raises MachineStartError, or AssertionError if a program does not start."""

    def __call__(self, backends: BackendsUnderTest = (), config: MachineConfig = SCRIPTED) -> RunningMachine:
        """Return it once it runs."""


@pytest.fixture(scope="session")
def splitvisor_loop() -> Iterator[LoopThread]:
    """The event loop on which handlers of the back ends under test run."""
    loop = LoopThread()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def splitvisor_services(splitvisor_loop: LoopThread) -> Iterator[Services]:
    """The four services as processes, for all tests of the session."""
    with private_directory(socket_parents()) as directory:
        services = Services(directory, splitvisor_loop)
        try:
            yield services
        finally:
            services.stop()


@pytest.fixture
def backends() -> BackendsUnderTest:
    """The back ends under test, by default none: override it in the test module."""
    return ()


@pytest.fixture
def machine_config() -> MachineConfig:
    """The configuration of the fixture `machine`: override it to change it; splitvisor.testing.SCRIPTED is a good start."""
    return SCRIPTED


@pytest.fixture
def start_machine(splitvisor_services: Services, splitvisor_loop: LoopThread) -> Iterator[StartMachine]:
    """Start a machine: `start_machine(backends, config)`. Only one at a time: it ends with the test, or when the next starts."""
    with ExitStack() as stack:

        def start(backends: BackendsUnderTest = (), config: MachineConfig = SCRIPTED) -> RunningMachine:
            stack.close()
            machine = RunningMachine(splitvisor_services, splitvisor_loop, backends, config)
            stack.callback(machine.close)
            return machine

        yield start


@pytest.fixture
def machine(start_machine: StartMachine, backends: BackendsUnderTest, machine_config: MachineConfig) -> RunningMachine:
    """A running machine: the services, the back ends of the fixture `backends`, and the scripted guest."""
    return start_machine(backends, machine_config)


@pytest.fixture
def guest(machine: RunningMachine) -> ScriptedGuest:
    """The machine's guest, which makes the test's calls."""
    return machine.guest


@pytest.fixture
def backend(machine: RunningMachine, backends: BackendsUnderTest) -> ServedBackend | RunningProgram:
    """The first back end under test."""
    if not backends:
        pytest.fail("there is no back end under test: override the fixture `backends`", pytrace=False)
    return machine.backend(backends[0].name)


@pytest.fixture
def traps(machine: RunningMachine) -> Traps:
    """The calls that back ends in this process have answered."""
    return machine.traps
