# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine on its way to another cpu_service, which restores it while it stands still here.

Exactly one side may go on. Until `go` is sent that is this one; what comes after decides who has the machine, and when that
cannot be known it stands still here, for somebody to look.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from cpu_service.machine.board import Board
from cpu_service.snapshot.save import Capture
from splitvisor.errors.problem import ProblemError, problem_of
from splitvisor.errors.status import NO_SUCH_MACHINE, problem_in
from splitvisor.net.channels import SERVICE_OPTIONS, open_channel
from splitvisor.rpc import machine_pb2 as pb
from splitvisor.rpc import machine_pb2_grpc

TRANSFER_TIMEOUT_S = 300.0
ASK_TIMEOUT_S, ASK_AGAIN_S = 2.0, 0.1
DECISION_TIMEOUT_S = 20.0
"""How long to find out who has the machine, when the other side is lost at the moment of handing over."""

_RUNS = frozenset({pb.MACHINE_STATE_RUNNING, pb.MACHINE_STATE_POWERED_OFF, pb.MACHINE_STATE_CRASHED})
"""States of a machine that was let run."""


class MigrationError(ProblemError):
    """The machine has not moved and goes on here; the text says why."""

    def __init__(self, what: str, remedy: str, code: grpc.StatusCode) -> None:
        super().__init__(what, remedy)
        self.code = code


class UnknownOwnerError(ProblemError):
    """The other side may have the machine, or not: it stands still here."""


@dataclass(frozen=True)
class Moved:
    """How a move went."""

    seconds: float
    """How long the machine stood still."""
    sent_bytes: int


def migrate(board: Board, resets: int, target: str, backends: Mapping[str, str]) -> Moved:
    """Move a machine that stands still, on its vCPU thread; it must not run here afterwards.

    Raises MigrationError, UnknownOwnerError, and BackendUnavailableError when a back end does not give its state.
    """
    began = time.monotonic()
    capture = Capture(board, resets)
    try:
        with open_channel(target, SERVICE_OPTIONS) as channel:
            stub = machine_pb2_grpc.MachineServiceStub(channel)
            transfer = _Transfer(board.config.name, capture.parts(), backends)
            responses = iter(stub.RestoreMachine(transfer.requests(), timeout=TRANSFER_TIMEOUT_S))
            try:
                incarnation = _expect(responses, "ready", target).ready.incarnation
            except (grpc.RpcError, MigrationError) as error:
                transfer.let(go=False)
                raise _failed(target, transfer.failure or error) from error
            transfer.let(go=True)
            try:
                _expect(responses, "running", target)
            except (grpc.RpcError, MigrationError) as error:
                _find_out(stub, pb.GetStatusRequest(vm=board.config.name, incarnation=incarnation), target, error)
            return Moved(time.monotonic() - began, transfer.sent_bytes)
    except UnknownOwnerError:
        raise
    except BaseException:
        capture.take_back()
        raise


def _expect(responses: Iterator[pb.RestoreMachineResponse], message: str, target: str) -> pb.RestoreMachineResponse:
    response = next(responses, pb.RestoreMachineResponse())
    if response.WhichOneof("message") != message:
        raise MigrationError(f"{target} did not answer", "give the address of a cpu_service", grpc.StatusCode.ABORTED)
    return response


def _failed(target: str, error: Exception) -> MigrationError:
    if isinstance(error, MigrationError):
        return error
    if isinstance(error, grpc.RpcError):
        problem = problem_in(error).at(target)
        return MigrationError(problem.what, problem.remedy, error.code())
    problem = problem_of(error).at(target)
    return MigrationError(problem.what, problem.remedy, grpc.StatusCode.ABORTED)


def _find_out(stub: Any, machine: pb.GetStatusRequest, target: str, error: Exception) -> None:
    """The answer to `go` was lost: return when the machine runs there, raise MigrationError when it does not and never will."""
    deadline = time.monotonic() + DECISION_TIMEOUT_S
    state, reason = pb.MACHINE_STATE_STARTING, ""
    while state == pb.MACHINE_STATE_STARTING:
        try:
            status = stub.GetStatus(machine, timeout=ASK_TIMEOUT_S, wait_for_ready=True)
            state, reason = status.state, status.detail
        except grpc.RpcError as refused:
            problem = problem_in(refused)
            if problem.reason == NO_SUCH_MACHINE:
                state, reason = pb.MACHINE_STATE_NONE, problem.what
        if time.monotonic() > deadline:
            raise UnknownOwnerError(
                f"{target} was lost at the moment of handing over",
                "find out whether it has the machine, then stop or resume it",
            ) from error
        time.sleep(ASK_AGAIN_S)
    if state not in _RUNS:
        raise MigrationError(f"{target} did not let the machine run: {reason or error}", "", grpc.StatusCode.ABORTED) from error


class _Transfer:
    """The requests of one RestoreMachine: the snapshot, then `go` when it is time."""

    def __init__(self, vm: str, parts: Iterable[bytes], backends: Mapping[str, str]) -> None:
        self._vm, self._parts, self._backends = vm, parts, backends
        self._go: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.sent_bytes = 0
        self.failure: Exception | None = None

    def requests(self) -> Iterator[pb.RestoreMachineRequest]:
        """What gRPC's thread sends."""
        addresses = [pb.BackendAddress(name=name, address=address) for name, address in self._backends.items()]
        yield pb.RestoreMachineRequest(options=pb.RestoreOptions(vm=self._vm, backends=addresses, moved=True))
        try:
            for part in self._parts:
                self.sent_bytes += len(part)
                yield pb.RestoreMachineRequest(data=part)
        except Exception as error:
            self.failure = error
            return
        yield pb.RestoreMachineRequest(complete=pb.RestoreComplete())
        if self._go.get():
            yield pb.RestoreMachineRequest(go=pb.RestoreGo())

    def let(self, *, go: bool) -> None:
        """Send `go`, or end without it."""
        self._go.put(go)
