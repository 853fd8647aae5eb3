# SPDX-License-Identifier: GPL-2.0-or-later
"""A VM's status, for people and for programs."""

from __future__ import annotations

from typing import Any

from splitvisor.cli.columns import columns


def state_name(state: int) -> str:
    """Return a MachineState in words, such as "powered off"."""
    from splitvisor.rpc import machine_pb2 as pb  # slow to load

    return pb.MachineState.Name(pb.MachineState.ValueType(state)).removeprefix("MACHINE_STATE_").lower().replace("_", " ")


def state_text(state: int, detail: str) -> str:
    """Return a MachineState in words with what else is known about it."""
    name = state_name(state)
    return f"{name}: {detail}" if detail not in ("", name) else name


def status_fields(answer: Any) -> dict[str, Any]:
    """Return a GetStatusResponse as JSON has it."""
    return {
        "vm": answer.vm,
        "state": state_name(answer.state),
        "detail": answer.detail,
        "uptime_seconds": round(answer.uptime.ToNanoseconds() / 1e9, 3),
        "waiting_seconds": round(answer.waiting.ToNanoseconds() / 1e9, 6),
        "resets": answer.resets,
        "recording_failure": answer.recording_failure,
        "backends": [
            {
                "name": each.name, "address": each.address, "attached": each.attached, "reconnects": each.reconnects,
                "ram_mapped": each.ram_mapped,
            }
            for each in answer.backends
        ],
        "calls": [
            {"name": each.name, "owner": each.owner, "count": each.count, "seconds": round(each.seconds, 6)}
            for each in answer.calls
        ],
    }  # fmt: skip


def render_status(answer: Any, calls: int) -> str:
    """Return a GetStatusResponse as text.

    Args:
        answer: the response.
        calls: how many of the most frequent calls to show.
    """
    facts = [
        f"{answer.vm}: {state_text(answer.state, answer.detail.partition(chr(10))[0])}",
        f"up {_duration(answer.uptime.ToNanoseconds() / 1e9)}",
        f"started {answer.resets} {'time' if answer.resets == 1 else 'times'}",
        f"{answer.waiting.ToNanoseconds() / 1e9:.3f} s of vCPU time waited for back ends",
    ]
    lines = [", ".join(facts), *filter(None, (answer.recording_failure,))]
    backends: list[tuple[str, ...]] = [
        (
            each.name,
            "attached" if each.attached else "lost",
            f"{each.reconnects} reconnects",
            "maps RAM" if each.ram_mapped else "RAM by stream",
            each.address,
        )
        for each in answer.backends
    ]
    shown: list[tuple[str, ...]] = [
        (each.name, each.owner, str(each.count), f"{each.seconds:.3f} s") for each in answer.calls[:calls]
    ]
    for title, rows in (("Back ends", backends), ("Calls", shown)):
        if rows:
            lines += ["", title, *columns(rows, "  ")]
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
