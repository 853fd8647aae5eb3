# SPDX-License-Identifier: GPL-2.0-or-later
"""Test back ends with pytest: a real machine, the back end under test, and a guest that makes any call from Python.

A test module requests it with ``pytest_plugins = ["splitvisor.testing"]`` and lists the back ends under test:

    @pytest.fixture
    def backends():
        return [Backend("counter", Counter)]

    def test_the_sum_comes_in_r4(guest, traps):
        assert guest.hcall(0xF100, 5).outputs[0] == 5
        assert [trap.name for trap in traps] == ["H_COUNT"]

Fixtures: `machine`, `guest`, `backend`, `traps`, and `start_machine` for machines of another kind. docs/backends.md has them all.

PYTEST_DONT_REWRITE: test modules import this before pytest does, and its own assertions have their messages.
"""

from splitvisor.testing.plugin import (
    StartMachine,
    backend,
    backends,
    guest,
    machine,
    machine_config,
    splitvisor_loop,
    splitvisor_services,
    start_machine,
    traps,
)
from splitvisor.testing.running_machine import SCRIPTED, MachineStartError, RunningMachine
from splitvisor.testing.script import GuestError
from splitvisor.testing.scripted_guest import HcallResult, ScriptedGuest, ScriptedMemory
from splitvisor.testing.served import BackendProgram, RunningProgram, ServedBackend
from splitvisor.testing.trap_log import Trap, Traps

__all__ = [
    "SCRIPTED",
    "BackendProgram",
    "GuestError",
    "HcallResult",
    "MachineStartError",
    "RunningMachine",
    "RunningProgram",
    "ScriptedGuest",
    "ScriptedMemory",
    "ServedBackend",
    "StartMachine",
    "Trap",
    "Traps",
    "backend",
    "backends",
    "guest",
    "machine",
    "machine_config",
    "splitvisor_loop",
    "splitvisor_services",
    "start_machine",
    "traps",
]
