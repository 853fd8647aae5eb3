# SPDX-License-Identifier: GPL-2.0-or-later
"""vCPUs and their clock as a message of a snapshot. Deadlines are relative to the moment of saving: time stood still."""

from __future__ import annotations

from typing import Final

from cpu_service.engine.engine import PENDING_DECREMENTER
from cpu_service.hypercalls.virtual_processor_area import DISPATCH_COUNTER_OFFSET
from cpu_service.machine.board import Board
from cpu_service.vcpus.context import VcpuContext
from cpu_service.vcpus.vcpu import RunState
from splitvisor.machine.snapshot_file import SnapshotError
from splitvisor.rpc import state_pb2 as pb

RUN_STATES: Final = {
    RunState.RUNNING: pb.VCPU_RUN_STATE_RUNNING,
    RunState.CEDED: pb.VCPU_RUN_STATE_CEDED,
    RunState.WAITING: pb.VCPU_RUN_STATE_WAITING,
    RunState.STOPPED: pb.VCPU_RUN_STATE_STOPPED,
}
_FROM_MESSAGE: Final = {value: state for state, value in RUN_STATES.items()}


def save_vcpus(board: Board) -> pb.SavedVcpus:
    """Return the state of vCPUs that stand still, on their thread."""
    now = board.timebase.now_ns()
    return pb.SavedVcpus(
        vcpus=[_save(context, now) for context in board.scheduler.contexts],
        current=board.scheduler.current.index,
        timebase=board.timebase.read(),
        watchdogs=board.watchdog.save(),
    )


def _save(context: VcpuContext, now: int) -> pb.SavedVcpu:
    due = context.decrementer_ns
    return pb.SavedVcpu(
        registers=context.state.portable(),
        run_state=RUN_STATES[context.run_state],
        prodded=context.prodded,
        vpa=context.vpa,
        slb_shadow=context.slb_shadow,
        dtl=context.dtl,
        decrementer_zero_ns=context.decrementer_zero_ns - now,
        decrementer_due_ns=None if due is None else due - now,
        start_msr=context.start_msr,
        decrementer_pending=bool(context.state.pending_interrupts.value & PENDING_DECREMENTER),
        system_reset_pending=context.system_reset,
    )


def restore_vcpus(board: Board, saved: pb.SavedVcpus) -> None:
    """Give a new board's vCPUs a saved state, on their thread. External interrupts follow from the interrupt controller's.

    Raises SnapshotError; the board is unfit for use then.
    """
    if len(saved.vcpus) != board.config.vcpus or saved.current >= len(saved.vcpus):
        raise SnapshotError(f"the snapshot has {len(saved.vcpus)} vCPUs and the machine in it {board.config.vcpus}")
    page_sizes = board.engine.learn_page_sizes()
    board.timebase.set(saved.timebase)
    now = board.timebase.now_ns()

    def prepare(context: VcpuContext) -> None:
        vcpu = saved.vcpus[context.index]
        try:
            board.engine.take_over(context.saved, vcpu.registers, page_sizes)
            context.run_state = _FROM_MESSAGE[vcpu.run_state]
        except (KeyError, ValueError) as error:
            raise SnapshotError(f"vCPU {context.index} of the snapshot is damaged: {error}") from error
        if max(vcpu.vpa + DISPATCH_COUNTER_OFFSET + 4, vcpu.slb_shadow, vcpu.dtl) > board.ram.size:
            raise SnapshotError(f"vCPU {context.index} of the snapshot has an area outside of RAM")
        context.vpa, context.slb_shadow, context.dtl = vcpu.vpa, vcpu.slb_shadow, vcpu.dtl
        context.prodded, context.system_reset = vcpu.prodded, vcpu.system_reset_pending
        context.decrementer_zero_ns = max(0, now + vcpu.decrementer_zero_ns)
        context.decrementer_ns = now + vcpu.decrementer_due_ns if vcpu.HasField("decrementer_due_ns") else None
        context.saved.pending_interrupts.value = PENDING_DECREMENTER if vcpu.decrementer_pending else 0
        context.start_msr = vcpu.start_msr if vcpu.HasField("start_msr") else context.saved.msr.value

    board.scheduler.start_from(saved.current, prepare)
    if board.spin_table is not None:
        board.spin_table.resume()
    try:
        board.watchdog.restore(saved.watchdogs)
    except ValueError as error:
        raise SnapshotError(f"the snapshot is damaged: {error}") from error
