# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor bench all`: every bench, one table of targets and figures, a plot, and a history."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splitvisor.bench import boot as bench_boot
from splitvisor.bench import console as bench_console
from splitvisor.bench import disk as bench_disk
from splitvisor.bench import guest as bench_guest
from splitvisor.bench import memory as bench_memory
from splitvisor.bench import net as bench_net
from splitvisor.bench import record as bench_record
from splitvisor.bench import slof as bench_slof
from splitvisor.bench import snapshot as bench_snapshot
from splitvisor.bench import start as bench_start
from splitvisor.bench.peers import BenchError, Peer
from splitvisor.process.outputs import SHARED, Content, Output

if TYPE_CHECKING:
    from splitvisor.bench.trap import Latency

Say = Callable[[str], None]
HISTORY = Path("docs/benchmarks.jsonl")
PRINTING_POSTED = 8
"""Posted calls before one that waits, of guests that print."""
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    runs: int = 3
    traps: int = 5000
    lines: int = 200_000
    guests: int = 50
    seconds: float = 5.0
    peers: Sequence[Peer] = ()


@dataclass(frozen=True)
class Target:
    """What a figure should be."""

    bench: str
    figure: str
    """Names joined by dots: where it stands in the bench's figures."""
    meaning: str
    limit: float
    unit: str = ""
    scale: float = 1.0
    """Multiplies the figure and the limit when they are shown."""
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Return whether a figure meets the target."""
        return value >= self.limit if self.at_least else value <= self.limit

    def value(self, figures: Mapping[str, Any]) -> float | None:
        """Return the figure; None when it was not measured."""
        found: Any = figures.get(self.bench, {})
        for name in self.figure.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        return found if isinstance(found, int | float) else None

    def shown(self, value: float) -> str:
        """Return a figure for people."""
        scaled = value * self.scale
        return f"{scaled:,.0f}{self.unit}" if abs(scaled) >= 100 else f"{scaled:.2f}{self.unit}"


def _trap(extent: Extent, _say: Say) -> dict[str, Any]:
    from splitvisor.bench.trap import measure_traps  # the engine is slow to load

    try:
        figures = measure_traps(extent.traps)
    except RuntimeError as error:
        raise BenchError(str(error)) from error
    return {"trap": asdict(figures.trap), "raw_socket": asdict(figures.raw_socket), "ratio": figures.ratio}


def _arrangements(extent: Extent, say: Say) -> dict[str, Any]:
    from splitvisor.bench.arrangements import TWO_CORES, WAITING, measure_arrangements  # gRPC is slow to load

    figures = measure_arrangements(extent.traps)
    for name, latency in figures.items():
        say(f"{name + ':':<28} median {latency.median:6.1f} us, p99 {latency.p99:6.1f} us")
    ratio = {"ratio": figures[WAITING].median / figures[TWO_CORES].median} if TWO_CORES in figures else {}
    return {"latencies": {name: asdict(latency) for name, latency in figures.items()}, **ratio}


def _clock(_extent: Extent, say: Say) -> dict[str, Any]:
    from splitvisor.bench.clock import measure_clock  # as above: only what is measured

    figures = measure_clock(say)
    return {**asdict(figures), "sleep_error": figures.sleep_error, "drift": figures.drift}


def _many(extent: Extent, say: Say) -> dict[str, Any]:
    return measure_many(extent.guests, extent.seconds, say)


def measure_many(guests: int, seconds: float, say: Say) -> dict[str, Any]:
    """Measure many guests twice: when each call waits, and when they print. Raises BenchError."""
    from splitvisor.bench.many import Load, measure  # gRPC is slow to load

    loads = {"waiting": Load(guests, seconds, 0), "printing": Load(guests, seconds, PRINTING_POSTED)}
    return {name: measure(load, max(2, os.cpu_count() or 1), say) for name, load in loads.items()}


BENCHES: dict[str, Callable[[Extent, Say], dict[str, Any]]] = {
    "start": lambda extent, say: bench_start.measure(extent.runs, say),
    "boot": lambda extent, say: bench_boot.measure(extent.runs, extent.peers, "512M", say),
    "snapshot": lambda extent, say: bench_snapshot.measure(extent.runs, extent.peers, say),
    "record": lambda extent, say: bench_record.measure(extent.runs, "512M", say),
    "guest": lambda extent, say: bench_guest.measure(extent.runs, extent.peers, say),
    "slof": lambda extent, say: bench_slof.measure(extent.runs, extent.peers, "512M", say),
    "memory": lambda extent, say: bench_memory.measure(extent.peers, say),
    "console": lambda extent, say: bench_console.measure(extent.lines, extent.runs, extent.peers, say),
    "disk": lambda extent, say: bench_disk.measure(extent.runs, extent.peers, say),
    "net": lambda extent, say: bench_net.measure(extent.runs, extent.peers, say),
    "clock": _clock,
    "trap": _trap,
    "arrangements": _arrangements,
    "many": _many,
}
"""By name, in the order in which they run."""

TARGETS = (
    Target("start", "median", "start to the demo guest's first line", bench_start.LIMIT_S, " s"),
    Target("boot", "ratio_of_medians", "Debian's boot to power-off, times QEMU", 1.5),
    Target("snapshot", "ratio_of_medians", "a snapshot to the shell's answer, times QEMU's boot", bench_snapshot.LIMIT),
    Target("record", "wall_ratio", "a recorded boot, times an unrecorded one", bench_record.LIMIT),
    Target("record", "cpu_ratio", "the same in CPU time", bench_record.LIMIT),
    *(
        Target("guest", f"{work.name}.ratio", f"{work.meaning} in a guest, times QEMU", bench_guest.LIMIT)
        for work in bench_guest.WORKS
    ),
    Target("slof", "ratio", "SLOF's prompt, times QEMU", bench_slof.LIMIT),
    Target("memory", "ratio", "memory of cpu_service beyond guest RAM, times QEMU", 1.0),
    Target("console", "ratio_of_medians", "console output, times QEMU", bench_console.LIMIT),
    *(
        Target(bench, f"{figure.name}.ratio", f"{figure.meaning}, times as good as QEMU", figure.target, at_least=True)
        for bench, figures in (("disk", bench_disk.figures(1)), ("net", bench_net.figures(0, 1)))
        for figure in figures
    ),
    Target("clock", "sleep_error", "error of the guest's clock while it sleeps", 0.01, " %", 100),
    Target("clock", "idle_share", "CPU use of an idle guest, of one core", 0.05, " %", 100),
    Target("arrangements", "ratio", "a trap's median, times a raw socket's between two cores", 4.0),
    Target("trap", "trap.p99", "a trap's p99", 300.0, " us"),
    *(
        target
        for load in ("waiting", "printing")
        for target in (
            Target("many", f"{load}.traps_per_second", f"many guests, {load}: traps/s in all", 15_000.0, at_least=True),
            Target("many", f"{load}.p99_ms", f"many guests, {load}: p99 of an answer", 20.0, " ms"),
            Target("many", f"{load}.least_share", f"many guests, {load}: slowest, of the mean", 0.5, " %", 100, at_least=True),
        )
    ),
)


def measure(names: Sequence[str], extent: Extent, say: Say) -> tuple[dict[str, Any], dict[str, str]]:
    """Run benches by name; return their figures, and why those failed that did."""
    figures: dict[str, Any] = {}
    failures: dict[str, str] = {}
    for name in names:
        say(f"-- {name}")
        try:
            figures[name] = BENCHES[name](extent, say)
        except BenchError as error:
            failures[name] = str(error)
            say(f"{name} failed: {error}")
    return figures, failures


def print_table(figures: Mapping[str, Any], failures: Mapping[str, str]) -> None:
    """Print the targets of the benches that ran, and the figures."""
    from rich.console import Console
    from rich.table import Table

    table = Table("figure", "target", "measured", "")
    for target in TARGETS:
        if target.bench not in figures and target.bench not in failures:
            continue
        value = target.value(figures)
        verdict = "not measured" if value is None else "[green]met[/]" if target.met(value) else "[red]missed[/]"
        wanted = ("at least " if target.at_least else "at most ") + target.shown(target.limit)
        table.add_row(target.meaning, wanted, "" if value is None else target.shown(value), verdict)
    Console().print(table)


PLOT = Content("a plot", lambda file: (head := file.read(1024)).startswith(b"\x89PNG") and b"Matplotlib" in head)


def check_plot() -> None:
    """Raise BenchError when plots cannot be drawn here."""
    if importlib.util.find_spec("matplotlib") is None:  # a user of Splitvisor has no other need of it
        raise BenchError("--plot needs matplotlib; pip install matplotlib, or leave --plot out")


def write_plot(path: Path, arrangements: Mapping[str, Latency]) -> None:
    """Draw latencies by arrangement as bars, median and p99, and write them as PNG. Raises BenchError."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.5 * len(arrangements)), layout="constrained")
    axes = figure.subplots()
    rows = range(len(arrangements))
    axes.barh(rows, [latency.p99 for latency in arrangements.values()], color="#cfd8dc", label="p99")
    bars = axes.barh(rows, [latency.median for latency in arrangements.values()], color="#1565c0", height=0.5, label="median")
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set_yticks(rows, list(arrangements))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(left=1)
    axes.set_xlabel("microseconds a call")
    axes.legend()
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=120)
    try:
        Output(path, PLOT, SHARED).write(drawn.getvalue())
    except OSError as error:
        raise BenchError(f"{path} cannot be written: {error.strerror}") from error


def check_history() -> None:
    """Raise BenchError when there is no history to add to: it belongs to a checkout."""
    if not (_ROOT / ".git").exists() or shutil.which("git") is None:
        raise BenchError("--record adds to docs/benchmarks.jsonl of a git checkout, and this is none; use --json")


def history_line(figures: Mapping[str, Any]) -> str:
    """Return the figures that have targets as a line of the history: when, of which commit, on which machine."""
    git = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True, timeout=30, check=False).stdout.strip()
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    values = {f"{target.bench}.{target.figure}": target.value(figures) for target in TARGETS}
    line = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "machine": {"cpu": models[0].partition(":")[2].strip() if models else os.uname().machine, "cores": os.cpu_count()},
        "figures": {name: round(value, 4) for name, value in values.items() if value is not None},
    }
    return json.dumps(line)


def add_history(line: str) -> Path:
    """Append a line to the history; return its file."""
    path = _ROOT / HISTORY
    with path.open("a") as history:
        history.write(line + "\n")
    return path
