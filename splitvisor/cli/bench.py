# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor bench`: what things cost, measured the same way each time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from splitvisor.cli import bench_boot

bench = typer.Typer(help="Measure: whole boots, single traps.", no_args_is_help=True)

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
    memory: Annotated[str, typer.Option(metavar="SIZE", help="RAM of the guest")] = "512M",
    json_file: JsonOption = None,
) -> None:
    """Boot Debian's kernel to user space and off again: wall time of the whole process, services included."""
    try:
        figures = bench_boot.measure(runs, vs_qemu, memory, typer.echo)
    except bench_boot.BenchError as error:
        typer.echo(f"splitvisor bench boot: {error}", err=True)
        raise typer.Exit(1) from None
    write_json(json_file, figures)
