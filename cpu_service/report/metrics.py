# SPDX-License-Identifier: GPL-2.0-or-later
"""The metrics of cpu_service's machine, made at each scrape of what the machine counts anyway."""

from __future__ import annotations

from collections.abc import Iterator

from cpu_service.machine.board import Board
from cpu_service.machine.machine import Machine
from cpu_service.report.status import exceptions
from splitvisor.observe import metrics
from splitvisor.observe.metrics import Sample
from splitvisor.rpc import machine_pb2 as pb


def machine_samples(machine: Machine | None) -> Iterator[Sample]:
    """Yield the samples of a machine; without one there are none."""
    if machine is None:
        return
    vm = (machine.config.name,)
    state = pb.MachineState.Name(machine.state).removeprefix("MACHINE_STATE_").lower()
    yield Sample(metrics.STATE, (*vm, state), 1)
    yield Sample(metrics.UPTIME, vm, machine.uptime_seconds)
    yield Sample(metrics.RESETS, vm, machine.resets)
    yield Sample(metrics.VCPUS, vm, machine.config.vcpus)
    yield Sample(metrics.CPU_TIME, vm, machine.cpu_seconds)
    for row in machine.call_counts():
        yield Sample(metrics.CALLS, (*vm, row.name, row.owner), row.count)
    if machine.board is not None:
        yield from _board_samples(vm, machine.board)


def _board_samples(vm: tuple[str], board: Board) -> Iterator[Sample]:
    yield Sample(metrics.RAM, vm, board.ram.size)
    yield Sample(metrics.IDLE_TIME, vm, board.scheduler.idle_ns / 1e9)
    yield Sample(metrics.HINTS, vm, board.engine.hints)
    yield Sample(metrics.DECREMENTER, vm, board.scheduler.decrementer_interrupts)
    for name, count in exceptions(board):
        yield Sample(metrics.EXCEPTIONS, (*vm, name), count)
    for source, count in board.xics.pulses.copy().items():
        yield Sample(metrics.INTERRUPTS, (*vm, f"{source:#x}"), count)
    for link in board.links:
        where = (*vm, link.name)
        yield Sample(metrics.ATTACHED, where, link.attached)
        yield Sample(metrics.RECONNECTS, where, link.reconnects)
        yield Sample(metrics.POSTED_CALLS, where, link.posted.traps)
        yield Sample(metrics.POSTED_BYTES, where, link.posted.bytes)
        yield Sample(metrics.CREDIT_STALLS, where, link.posted.stalls)
    if board.router is not None:
        for timed in board.router.times.all():
            yield Sample(metrics.REMOTE_CALL, (*vm, timed.call, timed.owner, timed.result.name.lower()), timed.latency)
    if board.trace is not None:
        yield Sample(metrics.WATCHERS, vm, board.trace.watchers)
        yield Sample(metrics.WATCH_MISSED, vm, board.trace.missed)
