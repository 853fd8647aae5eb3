# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor bench`: what things cost, measured the same way each time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer

from splitvisor.bench import boot as bench_boot
from splitvisor.bench import peers as bench_peers
from splitvisor.bench import slof as bench_slof
from splitvisor.bench.peers import BenchError, Peer
from splitvisor.cli.control import USAGE, fail, output_file
from splitvisor.cli.seconds import seconds
from splitvisor.machine.config import ConfigError, MachineConfig
from splitvisor.machine.machine_file import apply_flags
from splitvisor.process.outputs import Content, Output
from splitvisor.process.signals import Unwinding

bench = typer.Typer(
    help="Measure: boots, a guest's work, firmware, traps, the guest's clock, consoles, disks, networks, memory, many guests.",
    no_args_is_help=True,
)


def _are_figures(file: BinaryIO) -> bool:
    """Whether a file has nothing but numbers with names."""
    try:
        values: list[Any] = [json.loads(file.read(_FIGURES_BYTES))]
    except ValueError:
        return False
    if not values[0] or not isinstance(values[0], dict):
        return False
    while values:
        value = values.pop()
        if isinstance(value, dict | list):
            values.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, str):
            return False
    return True


_FIGURES_BYTES = 16 << 20
_FIGURES = Content("the figures of a bench", _are_figures)


def _figures_file(path: str) -> Output:
    """Open the file of --json: a bench may take an hour, and its figures are to have their place."""
    return output_file("bench", Path(path), _FIGURES)


def _checked_memory(ctx: typer.Context, value: str) -> str:
    """Refuse before the first run what every run would refuse."""
    try:
        apply_flags(MachineConfig(), {"memory": value}, ctx.command_path)
    except ConfigError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(USAGE) from None
    return value


MemoryOption = Annotated[str, typer.Option(metavar="SIZE", help="RAM of the guest", callback=_checked_memory)]
QemuOption = Annotated[
    list[str] | None,
    typer.Option(metavar="PROGRAM", help="In turn with this qemu-system-ppc64 too; may be repeated"),
]
JsonOption = Annotated[
    Output | None, typer.Option("--json", metavar="FILE", parser=_figures_file, help="Write all figures to this file")
]


def _peers(name: str, vs_qemu: bool, programs: list[str] | None) -> tuple[Peer, ...]:
    """Return the QEMUs to measure; one line and status 1 when one is not there."""
    try:
        return bench_peers.find(vs_qemu, programs or ())
    except BenchError as error:
        typer.echo(f"splitvisor bench {name}: {error}", err=True)
        raise typer.Exit(1) from None


def write_json(output: Output | None, figures: dict[str, Any]) -> None:
    """Write a bench's figures, when a file was asked for."""
    if output is not None:
        try:
            output.write((json.dumps(figures, indent=2) + "\n").encode())
        except OSError as error:
            fail("bench", f"--json {output.path}: {error.strerror}")


@bench.command()
def boot(
    *,
    runs: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Boots of each")] = 3,
    vs_qemu: Annotated[bool, typer.Option("--vs-qemu", help="In turn with qemu-system-ppc64, and the ratio")] = False,
    qemu: QemuOption = None,
    memory: MemoryOption = "512M",
    append: Annotated[str, typer.Option(metavar="TEXT", help="Added to the command line of both kernels")] = bench_boot.SAME_WORK,
    json_file: JsonOption = None,
) -> None:
    """Boot Debian's kernel to user space and off again: wall time of the whole process, services included."""
    try:
        figures = bench_boot.measure(runs, _peers("boot", vs_qemu, qemu), memory, typer.echo, append=append)
    except BenchError as error:
        typer.echo(f"splitvisor bench boot: {error}", err=True)
        raise typer.Exit(1) from None
    write_json(json_file, figures)


@bench.command()
def record(
    *,
    runs: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Boots of each")] = 5,
    memory: MemoryOption = "512M",
    json_file: JsonOption = None,
) -> None:
    """Boot Debian in turn with and without --record: what a recording costs."""
    from splitvisor.bench import record as bench_record  # as below: only what a command needs

    _report("record", lambda: bench_record.measure(runs, memory, typer.echo), json_file)


@bench.command()
def trap(
    *,
    count: Annotated[int, typer.Option(metavar="N", min=100, max=1_000_000, help="Traps to time")] = 5000,
    json_file: JsonOption = None,
) -> None:
    """Time single synchronous traps of a guest, inside the engine's hook, and bare unix-socket exchanges between them."""
    from splitvisor.bench.trap import measure_traps  # the engine is slow to load

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
    """Compare the guest's clock with the host's, asleep and computing, and measure the CPU use of an idle guest."""
    from splitvisor.bench.clock import SLEEP_S, measure_clock  # as above: only what a command needs

    try:
        figures = measure_clock(typer.echo)
    except BenchError as error:
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
    qemu: QemuOption = None,
    memory: MemoryOption = "512M",
    json_file: JsonOption = None,
) -> None:
    """Start SLOF, unmodified, and wait for its prompt: wall time, services included. Status 1 when over 1.3 times QEMU's."""
    try:
        figures = bench_slof.measure(runs, _peers("slof", vs_qemu, qemu), memory, typer.echo)
    except BenchError as error:
        typer.echo(f"splitvisor bench slof: {error}", err=True)
        raise typer.Exit(1) from None
    write_json(json_file, figures)
    if figures.get("ratio", 0.0) > bench_slof.LIMIT:
        raise typer.Exit(1)


def _known_works(ctx: typer.Context, value: list[str] | None) -> list[str] | None:
    from splitvisor.bench.guest import WORKS  # as above

    names = [work.name for work in WORKS]
    for name in value or ():
        if name not in names:
            typer.echo(f"{ctx.command_path}: there is no work {name}; give one of {', '.join(names)}", err=True)
            raise typer.Exit(USAGE)
    return value


@bench.command()
def guest(
    *,
    runs: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Runs of each work")] = 3,
    only: Annotated[
        list[str] | None, typer.Option(metavar="WORK", callback=_known_works, help="Only this work; may be repeated")
    ] = None,
    scale: Annotated[float, typer.Option(metavar="F", min=0.001, max=100, help="How much of each work; 1: about a second")] = 1.0,
    vs_qemu: Annotated[bool, typer.Option("--vs-qemu", help="In turn with qemu-system-ppc64, and the ratios")] = False,
    qemu: QemuOption = None,
    json_file: JsonOption = None,
) -> None:
    """Keep a guest's processor busy: sha256, gzip, a shell's loop, fork, exec, copies of memory, floating point."""
    from splitvisor.bench import guest as bench_guest  # as above

    peers = _peers("guest", vs_qemu, qemu)
    _report("guest", lambda: bench_guest.measure(runs, peers, typer.echo, only or (), scale), json_file)


@bench.command()
def console(
    *,
    runs: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Runs of each")] = 3,
    lines: Annotated[int, typer.Option(metavar="N", min=10, max=10_000_000, help="Lines that the guest prints")] = 200_000,
    vs_qemu: Annotated[bool, typer.Option("--vs-qemu", help="In turn with QEMU's spapr-vty, and the ratio")] = False,
    qemu: QemuOption = None,
    json_file: JsonOption = None,
) -> None:
    """Let Debian's shell count, and measure the output rate through vio_service to a terminal."""
    from splitvisor.bench import console as bench_console  # as above

    peers = _peers("console", vs_qemu, qemu)
    _report("console", lambda: bench_console.measure(lines, runs, peers, typer.echo), json_file)


@bench.command()
def disk(
    *,
    runs: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Runs of each job")] = 3,
    duration: Annotated[float, typer.Option("--seconds", metavar="S", parser=seconds(1, 600), help="Duration of a job")] = 3.0,
    vs_qemu: Annotated[bool, typer.Option("--vs-qemu", help="In turn with QEMU's spapr-vscsi, and the ratios")] = False,
    qemu: QemuOption = None,
    json_file: JsonOption = None,
) -> None:
    """Run fio on a guest's disk, a raw image in memory: 4 KiB at random at depth 1 and 16, and 1 MiB in sequence."""
    from splitvisor.bench import disk as bench_disk  # as above

    peers = _peers("disk", vs_qemu, qemu)
    _report("disk", lambda: bench_disk.measure(runs, peers, typer.echo, duration), json_file)


@bench.command()
def net(
    *,
    runs: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Runs of each")] = 3,
    duration: Annotated[float, typer.Option("--seconds", metavar="S", parser=seconds(1, 600), help="Duration of each way")] = 3.0,
    vs_qemu: Annotated[bool, typer.Option("--vs-qemu", help="In turn with QEMU's spapr-vlan, and the ratios")] = False,
    qemu: QemuOption = None,
    json_file: JsonOption = None,
) -> None:
    """Run iperf3 both ways between a guest and the host's loopback, and ping it."""
    from splitvisor.bench import net as bench_net  # as above

    peers = _peers("net", vs_qemu, qemu)
    _report("net", lambda: bench_net.measure(runs, peers, typer.echo, duration), json_file)


@bench.command()
def memory(
    *,
    vs_qemu: Annotated[bool, typer.Option("--vs-qemu", help="Also of QEMU with the same guest, and the ratio")] = False,
    qemu: QemuOption = None,
    json_file: JsonOption = None,
) -> None:
    """Measure the memory of each process beyond guest RAM when Debian shows its prompt."""
    from splitvisor.bench import memory as bench_memory  # as above

    peers = _peers("memory", vs_qemu, qemu)
    _report("memory", lambda: bench_memory.measure(peers, typer.echo), json_file)


@bench.command()
def start(
    *,
    runs: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Starts")] = 5,
    json_file: JsonOption = None,
) -> None:
    """Time `splitvisor run` to the demo guest's first line."""
    from splitvisor.bench import start as bench_start  # as above

    _report("start", lambda: bench_start.measure(runs, typer.echo), json_file)


@bench.command()
def snapshot(
    *,
    runs: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Restores")] = 3,
    vs_qemu: Annotated[bool, typer.Option("--vs-qemu", help="In turn with QEMU's boot to power-off, and the ratio")] = False,
    qemu: QemuOption = None,
    json_file: JsonOption = None,
) -> None:
    """Restore a booted Debian from a snapshot: from the start of the command to the shell's answer."""
    from splitvisor.bench import snapshot as bench_snapshot  # as above

    peers = _peers("snapshot", vs_qemu, qemu)
    _report("snapshot", lambda: bench_snapshot.measure(runs, peers, typer.echo), json_file)


@bench.command()
def many(
    *,
    guests: Annotated[int, typer.Option(metavar="N", min=1, max=250, help="Number of guests")] = 50,
    seconds: Annotated[float, typer.Option(metavar="S", parser=seconds(0.1, 600), help="Duration of the load")] = 5.0,
    json_file: JsonOption = None,
) -> None:
    """Load one vio_service with many guests: traps per second, latencies, and fairness."""
    from splitvisor.bench.all import measure_many  # as above

    _report("many", lambda: measure_many(guests, seconds, typer.echo), json_file)


@bench.command("all")
def everything(
    *,
    only: Annotated[list[str] | None, typer.Option(metavar="BENCH", help="Run only this bench; may be repeated")] = None,
    runs: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="Runs of each repeated bench")] = 3,
    traps: Annotated[int, typer.Option(metavar="N", min=10, max=1_000_000, help="Traps to time, of each kind")] = 5000,
    json_file: JsonOption = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Plot the latency of a trap by arrangement")] = None,
    qemu: QemuOption = None,
    record: Annotated[bool, typer.Option("--record", help="Add the figures to docs/benchmarks.jsonl")] = False,
) -> None:
    """Run every bench, in turn with QEMU where it is installed; and print one table of targets and figures."""
    from splitvisor.bench import all as bench_all  # as above
    from splitvisor.bench.trap import Latency

    names = list(dict.fromkeys(only or bench_all.BENCHES))
    unknown = [name for name in names if name not in bench_all.BENCHES]
    if unknown:
        typer.echo(f"splitvisor bench all: there is no bench {unknown[0]}; give one of {', '.join(bench_all.BENCHES)}", err=True)
        raise typer.Exit(2)
    if plot is not None and "arrangements" not in names:
        names.append("arrangements")
    try:
        if plot is not None:
            bench_all.check_plot()
            output_file("bench all", plot, bench_all.PLOT).close()
        if record:
            bench_all.check_history()
        peers = bench_peers.find(shutil.which(bench_peers.PROGRAM) is not None, qemu or ())
        with Unwinding():  # as in _report()
            figures, failures = bench_all.measure(names, bench_all.Extent(runs=runs, traps=traps, peers=peers), typer.echo)
        bench_all.print_table(figures, failures)
        write_json(json_file, figures)
        if plot is not None and "arrangements" in figures:
            latencies = figures["arrangements"]["latencies"]
            bench_all.write_plot(plot, {name: Latency(**latency) for name, latency in latencies.items()})
        if record:
            typer.echo(f"added to {bench_all.add_history(bench_all.history_line(figures))}")
    except BenchError as error:
        typer.echo(f"splitvisor bench all: {error}", err=True)
        raise typer.Exit(1) from None
    if failures:
        raise typer.Exit(1)


def _report(name: str, measure: Callable[[], dict[str, Any]], json_file: Output | None) -> None:
    """Measure and write the figures; one line and status 1 when it fails."""
    try:
        with Unwinding():  # The processes that are measured end with this one.
            figures = measure()
    except BenchError as error:
        typer.echo(f"splitvisor bench {name}: {error}", err=True)
        raise typer.Exit(1) from None
    write_json(json_file, figures)
