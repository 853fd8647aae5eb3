# SPDX-License-Identifier: GPL-2.0-or-later
"""The benches measure what they say; counts are tiny, and no time is judged."""

from __future__ import annotations

import json
import mmap
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from splitvisor.bench import all as bench_all
from splitvisor.bench import record as bench_record
from splitvisor.bench import start as bench_start
from splitvisor.bench.all import Extent, Target
from splitvisor.bench.arrangements import measure_arrangements
from splitvisor.bench.many import Load, measure
from splitvisor.bench.memory import beyond_ram
from splitvisor.bench.peers import BenchError
from splitvisor.bench.trap import Latency
from splitvisor.guests.fetch import GuestError, fetch

SECONDS = 60
MIB = 1 << 20


def _splitvisor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "splitvisor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


@pytest.mark.parametrize("posted", [0, 3])
def test_every_one_of_many_guests_is_answered(posted: int) -> None:
    said: list[str] = []
    figures = measure(Load(guests=5, seconds=0.3, posted=posted), clients=2, say=said.append)
    assert figures["traps"] >= 5 * (1 + posted)
    assert figures["traps"] % (1 + posted) == 0
    assert 0 < figures["least_share"] <= 1 <= figures["most_share"]
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    assert len(said) == 2


def test_arrangements_are_all_measured_and_drawn(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    arrangements = measure_arrangements(30)
    assert os.sched_getaffinity(0) == before
    assert {"raw unix socket, one core", "trap stream, waiting", "trap stream, 64 posted"} <= set(arrangements)
    assert all(0 < latency.median <= latency.p99 and latency.count == 30 for latency in arrangements.values())
    bench_all.check_plot()
    bench_all.write_plot(tmp_path / "latency.png", arrangements)
    assert (tmp_path / "latency.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(BenchError, match="cannot be written"):
        bench_all.write_plot(tmp_path / "nowhere" / "latency.png", {"one": Latency(1.0, 2.0, 3)})


def test_memory_leaves_the_guests_ram_out_and_counts_the_rest() -> None:
    with tempfile.NamedTemporaryFile(suffix=".ram") as file:
        before = beyond_ram(os.getpid(), ".ram")
        file.truncate(64 * MIB)
        with mmap.mmap(file.fileno(), 64 * MIB) as ram, mmap.mmap(-1, 32 * MIB) as own:
            for area in (ram, own):
                area[:: mmap.PAGESIZE] = b"x" * (len(area) // mmap.PAGESIZE)
            grown = beyond_ram(os.getpid(), ".ram") - before
            with_ram = beyond_ram(os.getpid(), ".other") - before
    assert 24 * MIB < grown < 48 * MIB
    assert with_ram - grown >= 60 * MIB


def test_the_memory_of_a_process_that_is_gone_is_an_error() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    with pytest.raises(BenchError, match="cannot be read"):
        beyond_ram(process.pid, ".ram")


def test_start_waits_for_the_first_line() -> None:
    figures = bench_start.measure(1, lambda _line: None)
    assert figures["best"] == figures["median"] == figures["seconds"][0] > 0


def test_record_boots_in_turn_and_compares_both_kinds_of_time() -> None:
    try:
        fetch(print)
    except GuestError as error:
        pytest.skip(f"no real guests: {error}")
    said: list[str] = []
    figures = bench_record.measure(1, "256M", said.append)
    for kind in ("plain", "recorded"):
        [wall], [cpu] = figures["wall_seconds"][kind], figures["cpu_seconds"][kind]
        assert cpu > 0.5, "the guest's boot is in it, which is in a process below the one that was started"
        assert wall > 0
    assert figures["wall_ratio"] == figures["wall_seconds"]["recorded"][0] / figures["wall_seconds"]["plain"][0]
    assert figures["cpu_ratio"] == figures["cpu_seconds"]["recorded"][0] / figures["cpu_seconds"]["plain"][0]
    assert figures["recording_bytes"] > 10_000
    assert said[0].startswith("run 1: plain ")
    assert "of CPU time, of the medians" in said[-2]


def test_all_prints_targets_and_writes_figures_and_plot(tmp_path: Path) -> None:
    figures, plot = tmp_path / "figures.json", tmp_path / "plot.png"
    few = ("--only", "start", "--runs", "1", "--traps", "20")
    done = _splitvisor("bench", "all", *few, "--json", str(figures), "--plot", str(plot))
    assert done.returncode == 0, done.stderr
    assert "start to the demo guest's first line" in done.stdout
    assert "at most 1.50 s" in done.stdout
    assert json.loads(figures.read_text()).keys() == {"start", "arrangements"}
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_bench_that_does_not_exist_is_bad_usage() -> None:
    done = _splitvisor("bench", "all", "--only", "nothing")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "splitvisor bench all: there is no bench nothing; give one of " + ", ".join(bench_all.BENCHES)
    ]


def test_one_bench_that_fails_does_not_keep_the_others_from_running(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_extent: Extent, _say: object) -> dict[str, float]:
        raise BenchError("no peer")

    monkeypatch.setitem(bench_all.BENCHES, "memory", fails)
    monkeypatch.setitem(bench_all.BENCHES, "start", lambda _extent, _say: {"median": 9.0})
    figures, failures = bench_all.measure(["memory", "start"], Extent(), lambda _line: None)
    assert failures == {"memory": "no peer"}
    bench_all.print_table(figures, failures)
    table = capsys.readouterr().out
    assert "not measured" in table
    assert "missed" in table
    assert "met" not in table


@pytest.mark.parametrize(
    ("value", "at_least", "met"), [(1.5, False, True), (1.6, False, False), (1.5, True, True), (1.4, True, False)]
)
def test_targets(value: float, at_least: bool, met: bool) -> None:
    target = Target("boot", "deep.ratio", "", 1.5, at_least=at_least)
    assert target.met(value) is met
    assert target.value({"boot": {"deep": {"ratio": value}}}) == value
    assert target.value({"boot": {}}) is None


def test_a_line_of_the_history_tells_when_where_and_what() -> None:
    line = json.loads(bench_all.history_line({"start": {"median": 1.23456, "seconds": [1.2]}}))
    assert line.keys() == {"date", "commit", "machine", "figures"}
    assert line["figures"] == {"start.median": 1.2346}
    assert line["machine"]["cores"] == os.cpu_count()
