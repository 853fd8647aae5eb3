# SPDX-License-Identifier: GPL-2.0-or-later
"""What is known of a guest that cannot go on."""

from __future__ import annotations

from cpu_service.engine import layout
from cpu_service.machine.board import Board


def crash_report(reason: str, board: Board) -> str:
    """Describe the loaded vCPU and the last traps, in lines for people. The first line is the reason."""
    context = board.scheduler.current
    state, spr = context.state, context.state.spr
    lines = [
        reason,
        f"vCPU {context.index} of {len(board.scheduler.contexts)}",
        f"PC   {state.nip.value:016x}  MSR   {state.msr.value:016x}",
        f"SRR0 {spr[layout.SPR_SRR0]:016x}  SRR1  {spr[layout.SPR_SRR1]:016x}",
        f"DAR  {spr[layout.SPR_DAR]:016x}  DSISR {spr[layout.SPR_DSISR]:08x}",
    ]
    lines += [
        "  ".join(f"r{number:<2} {state.gpr[number]:016x}" for number in range(first, first + 4)) for first in range(0, 32, 4)
    ]
    if board.router is not None:
        lines.append("last traps, the newest first:")
        lines += [f"  {trap}" for trap in reversed(board.router.recent())]
    return "\n".join(lines)
