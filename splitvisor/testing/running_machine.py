# SPDX-License-Identifier: GPL-2.0-or-later
"""A running machine for a test: the four services as processes, the back ends under test, and the scripted guest."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import grpc

from splitvisor import firmware
from splitvisor.backend import Backend, Session
from splitvisor.errors.problem import ProblemError
from splitvisor.errors.status import problem_in
from splitvisor.limits import MIB
from splitvisor.machine.config import BackendAddress, MachineConfig
from splitvisor.machine.snapshot_transfer import restore_requests, snapshot_output, write_snapshot
from splitvisor.net.channels import open_channel
from splitvisor.rpc import machine_pb2 as pb
from splitvisor.rpc import machine_pb2_grpc
from splitvisor.testing.loop import DEADLINE_S, LoopThread
from splitvisor.testing.script import SCRIPT, ScriptSession
from splitvisor.testing.scripted_guest import ScriptedGuest
from splitvisor.testing.served import BackendProgram, RunningProgram, ServedBackend, serve
from splitvisor.testing.services import Services
from splitvisor.testing.trap_log import Traps

SCRIPTED = MachineConfig(memory=256 * MIB, kernel=firmware.SCRIPT_GUEST)
"""The default machine of tests: the smallest possible, with a terminal, an NVRAM, and the scripted guest."""
START_S = 60.0
STATE_POLL_S = 0.005

_numbers = itertools.count(1)


class MachineStartError(ProblemError):
    """The machine does not start. The message is from cpu_service; code is its gRPC status."""

    def __init__(self, what: str, remedy: str, code: grpc.StatusCode) -> None:
        super().__init__(what, remedy)
        self.code = code


class RunningMachine:
    """A machine that has started.

    Args:
        services: the services that run it.
        loop: the loop for handlers of back ends in this process.
        backends: back ends besides Splitvisor's own; config.backends may name further, running ones.
        config: the machine. Its name is replaced by a unique one.

    Raises MachineStartError.
    """

    def __init__(
        self, services: Services, loop: LoopThread, backends: Sequence[Backend | BackendProgram], config: MachineConfig
    ) -> None:
        services.ensure()
        self.services = services
        self.name = f"test-{next(_numbers)}"
        self.traps = Traps()
        """The calls to back ends in this process."""
        self._loop = loop
        self._incarnation = 0
        """0: it has not started."""
        self._guest: ScriptedGuest | None = None
        self._script = ServedBackend(SCRIPT, services.directory, loop, Traps())
        self._backends: list[ServedBackend | RunningProgram] = []
        self._channel = open_channel(services.addresses["cpu"])
        self._stub = machine_pb2_grpc.MachineServiceStub(self._channel)
        try:
            self._backends = serve(backends, services.directory, loop, self.traps)
            served = (BackendAddress(each.name, each.address) for each in (*self._backends, self._script))
            self.config = replace(config, name=self.name, backends=(*config.backends, *served))
            start = pb.StartMachineRequest(config=self.config.message(services.backends))
            self._incarnation = self._stub.StartMachine(start, timeout=START_S).incarnation
        except grpc.RpcError as error:
            self.close()
            problem = problem_in(error)
            raise MachineStartError(problem.what, problem.remedy, error.code()) from None
        except BaseException:
            self.close()
            raise

    @property
    def guest(self) -> ScriptedGuest:
        """The scripted guest. Raises TimeoutError if another guest runs."""
        if self._guest is None:
            session = self._script.session(self.name)
            assert isinstance(session, ScriptSession)
            self._guest = ScriptedGuest(session, self._loop)
        return self._guest

    def backend(self, name: str) -> ServedBackend | RunningProgram:
        """Return one of the back ends under test. Raises KeyError."""
        return {each.name: each for each in self._backends}[name]

    def session(self, name: str = "") -> Session:
        """Return this machine's session at a back end in this process, by default the first."""
        served = [each for each in self._backends if isinstance(each, ServedBackend) and name in ("", each.name)]
        if not served:
            raise KeyError(f"this process serves no back end {name}".rstrip())
        return served[0].session(self.name)

    # The machine.

    def status(self) -> pb.GetStatusResponse:
        """Return the machine's state and counters."""
        return self._stub.GetStatus(pb.GetStatusRequest(vm=self.name, incarnation=self._incarnation), timeout=DEADLINE_S)

    def calls(self) -> Mapping[str, int]:
        """Return the number of calls so far by name, for all owners."""
        counts: dict[str, int] = {}
        for row in self.status().calls:
            counts[row.name] = counts.get(row.name, 0) + row.count
        return counts

    def wait_for_state(self, state: pb.MachineState, timeout: float = DEADLINE_S) -> str:
        """Wait until the machine is in a state, such as pb.MACHINE_STATE_POWERED_OFF; return its detail.

        Raises AssertionError with the actual state after timeout seconds.
        """
        deadline = time.monotonic() + timeout
        pause = threading.Event()
        while (status := self.status()).state != state:
            if time.monotonic() > deadline:
                found, wanted = pb.MachineState.Name(status.state), pb.MachineState.Name(state)
                raise AssertionError(f"the machine is {found}, not {wanted}: {status.detail}")
            pause.wait(STATE_POLL_S)
        return status.detail

    def reset(self) -> None:
        """Reset it, like a reboot by the guest; the guest's next call is made after that, with RAM as at the start."""
        before = self.status().resets
        self._stub.ResetMachine(pb.ResetMachineRequest(vm=self.name, incarnation=self._incarnation), timeout=DEADLINE_S)
        deadline = time.monotonic() + DEADLINE_S
        pause = threading.Event()
        while self.status().resets == before:
            assert time.monotonic() < deadline, "the machine does not reset"
            pause.wait(STATE_POLL_S)

    def save_and_restore(self) -> None:
        """Save it, end it, and restore it in the same services: new sessions continue from the saved states.

        Raises grpc.RpcError if a session cannot be saved or restored.
        """
        path = self.services.directory / f"{self.name}.snapshot"
        try:
            write_snapshot(
                self._stub.SaveMachine(
                    pb.SaveMachineRequest(vm=self.name, incarnation=self._incarnation, stop=True), timeout=START_S
                ),
                snapshot_output(self.name, path),
            )
            self._guest = None
            ready, *_ = self._stub.RestoreMachine(restore_requests(self.name, path, {}), timeout=START_S)
            self._incarnation = ready.ready.incarnation
        finally:
            path.unlink(missing_ok=True)

    def pause(self) -> None:
        """Stop the vCPU."""
        self._stub.PauseMachine(pb.PauseMachineRequest(vm=self.name, incarnation=self._incarnation), timeout=DEADLINE_S)

    def resume(self) -> None:
        """Continue it."""
        self._stub.ResumeMachine(pb.ResumeMachineRequest(vm=self.name, incarnation=self._incarnation), timeout=DEADLINE_S)

    def close(self) -> None:
        """End it, and stop the back ends."""
        try:
            if self.services.alive("cpu"):
                self._stub.StopMachine(pb.StopMachineRequest(vm=self.name, incarnation=self._incarnation), timeout=DEADLINE_S)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:  # It never got that far, or cpu_service was started again.
                raise
        finally:
            self._channel.close()
            for each in (*self._backends, self._script):
                each.stop()
