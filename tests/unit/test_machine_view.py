# SPDX-License-Identifier: GPL-2.0-or-later
"""What `splitvisor top` makes of two looks at a machine."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from splitvisor.cli.top import render
from splitvisor.net.times import duration, seconds
from splitvisor.observe.call_times import BOUNDS
from splitvisor.observe.machine_view import Look, MachineView, view
from splitvisor.rpc import console_pb2, vio_bus_pb2
from splitvisor.rpc import machine_pb2 as pb


def latency(bucket: int, count: int, seconds: float) -> pb.LatencyHistogram:
    counts = [0] * (len(BOUNDS) + 1)
    counts[bucket] = count
    return pb.LatencyHistogram(result=pb.RESULT_CLASS_SUCCESS, counts=counts, seconds=seconds)


def look(uptime: float, calls: int, *, vm: str = "vm", latencies: tuple[pb.LatencyHistogram, ...] = ()) -> Look:
    status = pb.GetStatusResponse(
        vm=vm,
        state=pb.MACHINE_STATE_RUNNING,
        uptime=duration(uptime),
        waiting=duration(uptime / 4),
        ram_bytes=256 << 20,
        calls=[
            pb.CallCount(name="H_CEDE", owner="local", count=calls // 2),
            pb.CallCount(name="H_ASK", owner="back", count=calls, latencies=latencies),
            pb.CallCount(name="H_RTAS", owner="local", count=calls),
        ],
        activity=pb.VcpuActivity(
            cpu=duration(uptime / 2),
            idle=duration(uptime / 5),
            decrementer_interrupts=calls,
            exceptions=[pb.ExceptionCount(name="system call", count=3 * calls)],
        ),
        interrupts=[pb.InterruptCount(source=0x1002, count=calls)],
        backends=[pb.BackendStatus(name="back", attached=True, posted_bytes=calls * 16, credit_stalls=calls // 10)],
    )
    consoles = (console_pb2.Console(vm=vm, unit_address=0x7100_0000, output_bytes=calls, writer="me"),)
    return Look(status, consoles, (adapter(calls), network(calls)))


def adapter(calls: int) -> vio_bus_pb2.VioDevice:
    operations = vio_bus_pb2.DiskOperations(count=calls, bytes=512 * calls, time=duration(calls / 100))
    counters = vio_bus_pb2.DiskCounters(reads=operations, errors=calls // 10, depth=3)
    return vio_bus_pb2.VioDevice(unit_address=0x7100_0001, disks=[vio_bus_pb2.Disk(name="disk0", counters=counters)])


def network(calls: int) -> vio_bus_pb2.VioDevice:
    sent = vio_bus_pb2.FrameCounters(frames=calls, bytes=60 * calls, dropped=calls // 20)
    received = vio_bus_pb2.FrameCounters(frames=2 * calls, bytes=120 * calls, dropped=calls // 10)
    return vio_bus_pb2.VioDevice(unit_address=0x7100_0002, network=vio_bus_pb2.Network(sent=sent, received=received))


def seen() -> MachineView:
    before = latency(2, 100, 1.0)
    return view(look(10, 100, latencies=(before,)), look(12, 120, latencies=(before, latency(9, 20, 0.1))))


def test_rates_and_latencies_are_of_the_interval() -> None:
    found = seen()
    assert [call.name for call in found.calls] == ["H_ASK", "H_RTAS", "H_CEDE"]
    ask, _, cede = found.calls
    assert (ask.per_second, ask.total) == (10, 120)
    assert ask.mean_ms == pytest.approx(5)
    assert ask.p99_ms is not None
    assert 1000 * BOUNDS[8] < ask.p99_ms <= 1000 * BOUNDS[9], "the calls before the interval do not count"
    assert (cede.mean_ms, cede.p99_ms) == (None, None)
    assert found.calls_per_second == 15, "H_RTAS counts as the calls that were made with it"
    assert (found.cpu_percent, found.idle_percent, found.waiting_percent) == pytest.approx((50, 20, 25))
    assert found.interrupts_per_second == {"decrementer": 10, "0x1002": 10}
    assert found.exceptions_per_second == {"system call": 30}
    [back], [console] = found.backends, found.consoles
    assert (back.posted_bytes_per_second, back.credit_stalls) == (160, 2)
    assert (console.console, console.output_bytes_per_second, console.writer) == ("0x71000000", 10, "me")


def test_disks_and_networks_have_rates_of_the_interval() -> None:
    found = seen()
    [disk], [net] = found.disks, found.networks
    assert (disk.disk, disk.reads_per_second, disk.read_bytes_per_second) == ("0x71000001 disk0", 10, 5120)
    assert disk.read_ms == pytest.approx(10)
    assert disk.write_ms is None
    assert (disk.errors, disk.depth) == (2, 3)
    assert (net.device, net.sent_per_second, net.received_per_second, net.received_bytes_per_second) == (
        "0x71000002", 10, 20, 1200,
    )  # fmt: skip
    assert net.dropped == 3


@pytest.mark.parametrize("now", [look(2, 20), look(20, 20, vm="another")])
def test_another_life_of_the_machine_begins_at_zero(now: Look) -> None:
    found = view(look(10, 1000), now)
    assert all(call.per_second >= 0 for call in found.calls)
    assert found.disks[0].reads_per_second == 20 / found.interval_seconds
    assert found.networks[0].sent_per_second == 20 / found.interval_seconds
    assert found.interval_seconds == seconds(now.status.uptime)


def test_a_view_is_shown_with_all_its_parts() -> None:
    console = Console(file=io.StringIO(), width=120)
    console.print(render(seen()))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for part in (
        "vm  running",
        "256 MiB",
        "H_ASK",
        "attached",
        "0x71000000",
        "system call 30",
        "decrementer 10",
        "disk0",
        "0x71000002",
    ):
        assert part in text
