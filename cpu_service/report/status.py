# SPDX-License-Identifier: GPL-2.0-or-later
"""What a machine tells of itself: everything here was counted anyway and is put together when somebody asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cpu_service.link.events import LinkStatus
from cpu_service.machine.board import Board
from cpu_service.machine.machine import Machine
from cpu_service.routing.router import CallCount
from splitvisor.net.times import duration
from splitvisor.observe.call_times import BOUNDS, Latency, ResultClass
from splitvisor.rpc import machine_pb2 as pb

_EXCEPTIONS = {
    0x300: "data storage",
    0x380: "data segment",
    0x400: "instruction storage",
    0x480: "instruction segment",
    0x600: "alignment",
    0x700: "program",
    0x800: "floating-point unavailable",
    0xC00: "system call",
    0xD00: "trace",
    0xF20: "vector unavailable",
    0xF40: "VSX unavailable",
    0xF60: "facility unavailable",
}
"""By vector (Power ISA, book III, 7.5)."""


def machine_status(machine: Machine) -> pb.GetStatusResponse:
    """Return the answer of GetStatus."""
    counts = machine.call_counts()
    status = pb.GetStatusResponse(
        vm=machine.config.name,
        incarnation=machine.incarnation,
        state=machine.state,
        detail=machine.detail,
        uptime=duration(machine.uptime_seconds),
        calls=[_call_count(machine, row) for row in counts],
        waiting=duration(sum(row.seconds for row in counts)),
        resets=machine.resets,
        latency_bounds=BOUNDS,
    )
    board = machine.board
    if board is not None:
        status.backends.extend(backend_status(link) for link in board.links)
        status.ram_bytes = board.ram.size
        status.recording_failure = board.recorder.failure if board.recorder is not None else ""
        status.activity.CopyFrom(_activity(machine, board))
        pulses = board.xics.pulses.copy()
        status.interrupts.extend(pb.InterruptCount(source=source, count=count) for source, count in sorted(pulses.items()))
    return status


def backend_status(link: LinkStatus) -> pb.BackendStatus:
    """Return how one back end is."""
    return pb.BackendStatus(
        name=link.name,
        address=link.address,
        attached=link.attached,
        reconnects=link.reconnects,
        ram_mapped=link.offer.ram_mapped,
        posted_calls=link.posted.traps,
        posted_bytes=link.posted.bytes,
        credit_stalls=link.posted.stalls,
    )


def exceptions(board: Board) -> Sequence[tuple[str, int]]:
    """Return the exceptions that guest instructions raised: name and count."""
    found = board.engine.exceptions
    return sorted((_exception_name(board.engine.vector(number), number), count) for number, count in found.items())


def _exception_name(vector: int, number: int) -> str:
    if vector in _EXCEPTIONS:
        return _EXCEPTIONS[vector]
    return f"vector {vector:#x}" if vector else f"number {number}"


def _activity(machine: Machine, board: Board) -> pb.VcpuActivity:
    return pb.VcpuActivity(
        cpu=duration(machine.cpu_seconds),
        idle=duration(board.scheduler.idle_ns / 1e9),
        priority_hints=board.engine.hints,
        decrementer_interrupts=board.scheduler.decrementer_interrupts,
        exceptions=[pb.ExceptionCount(name=name, count=count) for name, count in exceptions(board)],
    )


def _call_count(machine: Machine, row: CallCount) -> pb.CallCount:
    message = pb.CallCount(name=row.name, owner=row.owner, count=row.count, seconds=row.seconds)
    for result, latency in _latencies(machine, row):
        message.latencies.append(
            pb.LatencyHistogram(result=f"RESULT_CLASS_{result.name}", counts=latency.counts, seconds=latency.seconds)
        )
    return message


def _latencies(machine: Machine, row: CallCount) -> Iterator[tuple[ResultClass, Latency]]:
    if machine.board is not None and machine.board.router is not None:
        for timed in machine.board.router.times.of(row.name, row.owner):
            yield timed.result, timed.latency
