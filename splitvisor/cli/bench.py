# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor bench`: what things cost, measured the same way each time."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from splitvisor.cli import bench_boot, bench_slof

bench = typer.Typer(help="Measure: whole boots, firmware, single traps, the guest's clock.", no_args_is_help=True)

JsonOption = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write every figure there")]


def write_json(path: Path | None, figures: dict[str, Any]) -> None:
    """Write a bench's figures, when a file was asked for."""
    if path is not None:
        path.write_text(json.dumps(figures, indent=2) + "\n")


@bench.command()
def boot(
    *,
    runs: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Boots of each")] = 3,
    vs_qemu: Annotated[bool, typer.Option("--vs-qemu", help="In turn with qemu-system-ppc64, and the ratio")] = False,
    recorded: Annotated[bool, typer.Option("--recorded", help="In turn with boots that are recorded, and the ratio")] = False,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="RAM of the guest")] = "512M",
    json_file: JsonOption = None,
) -> None:
    """Boot Debian's kernel to user space and off again: wall time of the whole process, services included."""
    try:
        figures = bench_boot.measure(runs, vs_qemu, memory, typer.echo, recorded=recorded)
    except bench_boot.BenchError as error:
        typer.echo(f"splitvisor bench boot: {error}", err=True)
        raise typer.Exit(1) from None
    write_json(json_file, figures)


@bench.command()
def trap(
    *,
    count: Annotated[int, typer.Option(metavar="N", min=100, max=1_000_000, help="Traps to time")] = 5000,
    json_file: JsonOption = None,
) -> None:
    """Time single synchronous traps of a guest, inside the engine's hook, and bare unix-socket exchanges between them."""
    from splitvisor.cli.bench_trap import measure_traps  # the engine is slow to load

    try:
        figures = measure_traps(count)
    except RuntimeError as error:
        typer.echo(f"splitvisor bench trap: {error}", err=True)
        raise typer.Exit(1) from None
    for title, latency in (("trap", figures.trap), ("raw socket", figures.raw_socket)):
        typer.echo(f"{title:<11} median {latency.median:6.0f} us, p99 {latency.p99:6.0f} us, {latency.count} times")
    typer.echo(f"ratio       {figures.ratio:.1f}")
    write_json(json_file, {"trap": asdict(figures.trap), "raw_socket": asdict(figures.raw_socket), "ratio": figures.ratio})


@bench.command()
def clock(*, json_file: JsonOption = None) -> None:
    """Compare the guest's clock with the host's, asleep and computing, and tell what an idle guest costs."""
    from splitvisor.cli.bench_clock import SLEEP_S, measure_clock  # as above: only what a command needs

    try:
        figures = measure_clock(typer.echo)
    except bench_boot.BenchError as error:
        typer.echo(f"splitvisor bench clock: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"sleep {SLEEP_S}:   {figures.sleep_seconds:.3f} s by the host's clock ({100 * figures.sleep_error:.2f} % off)")
    typer.echo(f"idle:       {100 * figures.idle_share:.1f} % of a core")
    typer.echo(
        f"computing:  {figures.busy_guest_seconds:.2f} s by the guest's clock, {figures.busy_host_seconds:.2f} s by the host's"
        f" ({100 * figures.drift:.2f} % off)"
    )
    write_json(json_file, {**asdict(figures), "sleep_error": figures.sleep_error, "drift": figures.drift})


@bench.command()
def slof(
    *,
    runs: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Starts of each")] = 3,
    vs_qemu: Annotated[bool, typer.Option("--vs-qemu", help="In turn with qemu-system-ppc64, and the ratio")] = False,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="RAM of the guest")] = "512M",
    json_file: JsonOption = None,
) -> None:
    """Start SLOF, unmodified, and wait for its prompt: wall time, services included. Status 1 when over 1.3 times QEMU's."""
    try:
        figures = bench_slof.measure(runs, vs_qemu, memory, typer.echo)
    except bench_boot.BenchError as error:
        typer.echo(f"splitvisor bench slof: {error}", err=True)
        raise typer.Exit(1) from None
    write_json(json_file, figures)
    if figures.get("ratio", 0.0) > bench_slof.LIMIT:
        raise typer.Exit(1)
