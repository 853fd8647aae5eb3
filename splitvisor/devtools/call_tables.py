# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes docs/hypercalls.md, docs/rtas.md, docs/openfirmware.md and docs/metrics.md from the tables in the code: `./dev docs`.

The local calls are those that a real machine's parts register; the others, those that the back ends' sessions own.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cpu_service.hypercalls.declarations import LocalHypercall, LocalRtas
from cpu_service.link.events import LinkStatus
from cpu_service.machine.board import Board
from hcall_service.session import PlatformSession
from of_client_service.client_services import SERVICES as CLIENT_SERVICES
from of_client_service.session import ClientInterfaceSession
from splitvisor.backend import Hypercall, RtasCall, Support
from splitvisor.devtools.qemu_calls import OTHER_SERVICES, QEMU_HYPERCALLS, QEMU_RTAS, VOF_SERVICES
from splitvisor.observe.metrics import METRICS
from splitvisor.papr.hcall import Hcall
from splitvisor.papr.rtas import TOKENS
from splitvisor.rpc import machine_pb2, trap_pb2
from vio_service.session import CALLS as VIO_CALLS

LOCAL = "cpu_service"

OWNERS: tuple[tuple[str, Sequence[Hypercall | RtasCall]], ...] = (
    ("hcall_service", PlatformSession.calls),
    ("vio_service", VIO_CALLS),
    ("of_client_service", ClientInterfaceSession.calls),
)

_GENERATED = "Made by `./dev docs` from the tables in the code; a test compares. Do not edit."


@dataclass(frozen=True)
class Row:
    """A call in a table."""

    name: str
    token: int | None
    owner: str
    support: Support
    section: str
    note: str


class _NoEvents:
    """Nothing happens on a board that is only inspected."""

    def action(self, action: trap_pb2.MachineAction) -> None:
        """Nothing runs."""

    def connection_changed(self, link: LinkStatus) -> None:
        """Nothing is attached."""


def local_calls() -> list[LocalHypercall | LocalRtas]:
    """Return what cpu_service registers itself."""
    with tempfile.TemporaryDirectory() as directory:
        board = Board(machine_pb2.MachineConfig(name="docs", memory_mib=256, vcpus=1), 1, Path(directory), _NoEvents())
        try:
            registered = [call.owner for call in board.registry.rtas_calls()]
            return [*board.registry.local.values(), *(call for call in registered if isinstance(call, LocalRtas))]
        finally:
            board.close("documented")


def hypercall_rows(local: Iterable[LocalHypercall | LocalRtas]) -> list[Row]:
    """Return every hypercall, by token."""
    rows = [Row("H_RTAS", Hcall.H_RTAS, LOCAL, Support.FULL, "LoPAPR 7.2", "passes each call to its owner, see rtas.md")]
    rows += [
        Row(call.call_name, call.token, LOCAL, call.support, call.section, call.note)
        for call in local
        if isinstance(call, LocalHypercall)
    ]
    for owner, calls in OWNERS:
        rows += [
            Row(call.call_name, call.token, owner, call.support, call.section, _note(call))
            for call in calls
            if isinstance(call, Hypercall)
        ]
    return sorted(_once(rows), key=lambda row: row.token or 0)


def _once(rows: Iterable[Row]) -> list[Row]:
    """Make one row of a call that cpu_service takes for some devices, and passes on to back ends."""
    found: dict[str, Row] = {}
    for row in rows:
        known = found.get(row.name)
        found[row.name] = row if known is None else replace(known, note=f"the device's back end is told; {row.note}".rstrip("; "))
    return list(found.values())


def rtas_rows(local: Iterable[LocalHypercall | LocalRtas]) -> list[Row]:
    """Return every RTAS call, by name."""
    rows = [
        Row(call.name, TOKENS.get(call.name), LOCAL, call.support, call.section, call.note)
        for call in local
        if isinstance(call, LocalRtas)
    ]
    for owner, calls in OWNERS:
        rows += [
            Row(call.name, TOKENS.get(call.name), owner, call.support, call.section, _note(call))
            for call in calls
            if isinstance(call, RtasCall)
        ]
    return sorted(_once(rows), key=lambda row: row.name)


def _note(call: Hypercall | RtasCall) -> str:
    posted = call.posted if isinstance(call, Hypercall) else None
    credit = ""
    if posted is not None:
        travels = posted.buffers is not None and posted.buffers.max_bytes
        by_calls = posted.call_bytes and not travels
        size = f"{posted.credit_bytes // posted.call_bytes:,} calls'" if by_calls else f"{posted.credit_bytes >> 10} KiB"
        credit = f"posted, {size} credit"
    return "; ".join(filter(None, (credit, _owners(call), call.note)))


def _owners(call: Hypercall | RtasCall) -> str:
    """How a call selects its owner; empty: it has one."""
    key = call.key
    if key is None:
        return ""
    if key.word is not None:
        return "one owner per key, in guest memory"
    first = key.argument if key.argument_pair is None else key.argument_pair
    numbers = [first] if key.argument_pair is None else [first, first + 1]
    names = [f"r{4 + each}" if isinstance(call, Hypercall) else f"argument {each + 1}" for each in numbers]
    return f"one owner per key, in {' and '.join(names)}"


def pages() -> dict[str, str]:
    """Return the text of each generated page by its file name."""
    local = local_calls()
    metrics = [(f"`{each.name}`", each.kind.value, ", ".join(each.labels), each.services, each.help) for each in METRICS]
    hypercalls, rtas = hypercall_rows(local), rtas_rows(local)
    missing = {token: name for token, name in QEMU_HYPERCALLS.items() if token not in {row.token for row in hypercalls}}
    return {
        "hypercalls.md": _page(
            "Hypercalls",
            "All hypercalls with an owner, and whether QEMU's pseries machine has them. Any other token returns H_FUNCTION.",
            ("Token", "Name", "Owner", "Support", "QEMU", "Defined in", "Note"),
            [_cells(row, f"{row.token:#x}", row.token in QEMU_HYPERCALLS) for row in hypercalls],
        )
        + _missing("QEMU", ("Token", "Name"), [(f"{token:#x}", f"`{name}`") for token, name in missing.items()]),
        "rtas.md": _page(
            "RTAS calls",
            "All RTAS calls with an owner, and whether QEMU's pseries machine has them. The device tree publishes the token; "
            "a call without one gets the next free token at run time.",
            ("Token", "Name", "Owner", "Support", "QEMU", "Defined in", "Note"),
            [_cells(row, f"{row.token:#x}" if row.token is not None else "", row.name in QEMU_RTAS) for row in rtas],
        )
        + _missing("QEMU", ("Name",), [(f"`{name}`",) for name in sorted(QEMU_RTAS - {row.name for row in rtas})]),
        "openfirmware.md": _page(
            "Open Firmware's client interface",
            "The services of of_client_service (IEEE 1275, chapter 6.3). Arguments and results are 32-bit cells; no number "
            "means any. Support is relative to IEEE 1275; the next column shows whether VOF has the service, and how it differs.",
            ("Service", "Arguments", "Results", "Support", "VOF", "Section", "Note"),
            [
                (
                    f"`{service.name}`",
                    _number(service.arguments),
                    _number(service.returns),
                    service.support.value,
                    _vof(service.name),
                    service.section,
                    service.note,
                )
                for service in CLIENT_SERVICES
            ],
        )
        + _missing(
            "others",
            ("Service", "From"),
            [(f"`{name}`", origin) for name, origin in OTHER_SERVICES.items()],
        ),
        "metrics.md": _page(
            "Metrics",
            "The metrics that a service exports with `--metrics`; [observability.md](observability.md) shows how to use them. "
            "Each service also exports prometheus_client's `process_*`.",
            ("Name", "Kind", "Labels", "Services", "Meaning"),
            metrics,
        ),
    }


def _cells(row: Row, token: str, in_qemu: bool) -> Sequence[str]:
    return (token, f"`{row.name}`", row.owner, row.support.value, "yes" if in_qemu else "no", row.section, row.note)


def _vof(service: str) -> str:
    return ", ".join(filter(None, ("yes", VOF_SERVICES[service]))) if service in VOF_SERVICES else "no"


def _missing(peer: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A second table: what a peer has and Splitvisor has not."""
    lines = [f"\n## Only with {peer}\n", _line(head), _line(["---"] * len(head)), *(_line(row) for row in rows)]
    return "\n".join(lines) + "\n"


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _page(title: str, summary: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"# {title}", "", summary, "", _GENERATED, "", _line(head), _line(["---"] * len(head))]
    return "\n".join([*lines, *(_line(row) for row in rows)]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def main(directory: Path) -> None:
    """Write the pages to a directory."""
    directory.mkdir(exist_ok=True)
    for name, text in pages().items():
        (directory / name).write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
