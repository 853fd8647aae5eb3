# SPDX-License-Identifier: GPL-2.0-or-later
"""What happened between two looks at a machine: rates and latencies for `splitvisor top`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from splitvisor.net.times import seconds
from splitvisor.observe.call_times import quantile
from splitvisor.rpc import console_pb2, vio_bus_pb2
from splitvisor.rpc import machine_pb2 as pb


@dataclass(frozen=True)
class CallRate:
    """A call's share of an interval."""

    name: str
    owner: str
    total: int
    """Since the machine's start."""
    per_second: float
    mean_ms: float | None
    """None: local or posted, or not called."""
    p99_ms: float | None


@dataclass(frozen=True)
class BackendRate:
    """How a back end did in an interval."""

    name: str
    attached: bool
    reconnects: int
    posted_bytes_per_second: float
    credit_stalls: int
    """In the interval."""


@dataclass(frozen=True)
class ConsoleRate:
    """How much a console moved in an interval."""

    console: str
    output_bytes: int
    """Since the start."""
    output_bytes_per_second: float
    input_bytes: int
    readers: int
    writer: str


@dataclass(frozen=True)
class DiskRate:
    """What a disk or CD drive did in an interval."""

    disk: str
    """Its adapter's unit address and its name there."""
    reads_per_second: float
    read_bytes_per_second: float
    read_ms: float | None
    """The mean; None: there was no read."""
    writes_per_second: float
    written_bytes_per_second: float
    write_ms: float | None
    errors: int
    """In the interval."""
    depth: int
    """Transfers under way."""


@dataclass(frozen=True)
class NetworkRate:
    """What went over a network device in an interval."""

    device: str
    sent_per_second: float
    sent_bytes_per_second: float
    received_per_second: float
    received_bytes_per_second: float
    dropped: int
    """In the interval, in both directions."""


@dataclass(frozen=True)
class MachineView:
    """A machine over an interval."""

    vm: str
    state: str
    uptime_seconds: float
    interval_seconds: float
    resets: int
    ram_bytes: int
    cpu_percent: float
    """Of one host CPU that the vCPU thread used."""
    idle_percent: float
    waiting_percent: float
    """Of the interval that the vCPU thread waited for back ends."""
    calls_per_second: float
    interrupts_per_second: Mapping[str, float]
    """By source; "decrementer" among them."""
    exceptions_per_second: Mapping[str, float]
    backends: Sequence[BackendRate] = ()
    calls: Sequence[CallRate] = ()
    """The most frequent first."""
    consoles: Sequence[ConsoleRate] = ()
    disks: Sequence[DiskRate] = ()
    networks: Sequence[NetworkRate] = ()

    def as_object(self) -> dict[str, Any]:
        """Return what json.dumps takes."""
        return asdict(self)


@dataclass(frozen=True)
class Look:
    """What services said at one moment."""

    status: pb.GetStatusResponse
    consoles: Sequence[console_pb2.Console] = ()
    devices: Sequence[vio_bus_pb2.VioDevice] = ()
    """On the VIO bus."""


def view(before: Look, now: Look) -> MachineView:
    """Return what happened between two looks. One that is of another life of the machine counts as its beginning."""
    new, old = now.status, before.status
    if old.vm != new.vm or seconds(old.uptime) > seconds(new.uptime):
        old = pb.GetStatusResponse()
    interval = max(seconds(new.uptime) - seconds(old.uptime), 1e-3)
    was = {(call.name, call.owner): call for call in old.calls}
    calls = [_call(call, was.get((call.name, call.owner), pb.CallCount()), interval) for call in new.calls]
    return MachineView(
        vm=new.vm,
        state=pb.MachineState.Name(new.state).removeprefix("MACHINE_STATE_").lower(),
        uptime_seconds=seconds(new.uptime),
        interval_seconds=interval,
        resets=new.resets,
        ram_bytes=new.ram_bytes,
        cpu_percent=100 * (seconds(new.activity.cpu) - seconds(old.activity.cpu)) / interval,
        idle_percent=100 * (seconds(new.activity.idle) - seconds(old.activity.idle)) / interval,
        waiting_percent=100 * (seconds(new.waiting) - seconds(old.waiting)) / interval,
        calls_per_second=sum(call.per_second for call in calls if call.name != "H_RTAS"),
        interrupts_per_second=_interrupts(old, new, interval),
        exceptions_per_second=_rates(
            {each.name: each.count for each in old.activity.exceptions},
            {each.name: each.count for each in new.activity.exceptions},
            interval,
        ),
        backends=_backends(old, new, interval),
        calls=sorted(calls, key=lambda call: (-call.per_second, -call.total)),
        consoles=_consoles(before.consoles, now.consoles, interval),
        disks=_disks(before.devices, now.devices, interval),
        networks=_networks(before.devices, now.devices, interval),
    )


def _call(now: pb.CallCount, was: pb.CallCount, interval: float) -> CallRate:
    counts = [new - old for new, old in zip(_counts(now), _counts(was) or [0] * len(_counts(now)), strict=True)]
    made = sum(counts)
    seconds = sum(each.seconds for each in now.latencies) - sum(each.seconds for each in was.latencies)
    return CallRate(
        name=now.name,
        owner=now.owner,
        total=now.count,
        per_second=(now.count - was.count) / interval,
        mean_ms=1000 * seconds / made if made else None,
        p99_ms=1000 * quantile(counts, 0.99) if made else None,
    )


def _counts(call: pb.CallCount) -> list[int]:
    """The buckets of every class of result together."""
    return [sum(bucket) for bucket in zip(*(each.counts for each in call.latencies), strict=False)]


def _interrupts(old: pb.GetStatusResponse, new: pb.GetStatusResponse, interval: float) -> dict[str, float]:
    def counts(status: pb.GetStatusResponse) -> dict[str, int]:
        sources = {f"{each.source:#x}": each.count for each in status.interrupts}
        return {"decrementer": status.activity.decrementer_interrupts, **sources}

    return _rates(counts(old), counts(new), interval)


def _rates(old: Mapping[str, int], new: Mapping[str, int], interval: float) -> dict[str, float]:
    return {name: (count - old.get(name, 0)) / interval for name, count in new.items()}


def _backends(old: pb.GetStatusResponse, new: pb.GetStatusResponse, interval: float) -> list[BackendRate]:
    was = {each.name: each for each in old.backends}
    return [
        BackendRate(
            name=each.name,
            attached=each.attached,
            reconnects=each.reconnects,
            posted_bytes_per_second=(each.posted_bytes - was.get(each.name, pb.BackendStatus()).posted_bytes) / interval,
            credit_stalls=each.credit_stalls - was.get(each.name, pb.BackendStatus()).credit_stalls,
        )
        for each in new.backends
    ]


def _consoles(old: Sequence[console_pb2.Console], new: Sequence[console_pb2.Console], interval: float) -> list[ConsoleRate]:
    was = {each.unit_address: each.output_bytes for each in old}
    return [
        ConsoleRate(
            console=f"{each.unit_address:#x}",
            output_bytes=each.output_bytes,
            output_bytes_per_second=max(0, each.output_bytes - was.get(each.unit_address, 0)) / interval,
            input_bytes=each.input_bytes,
            readers=each.readers,
            writer=each.writer,
        )
        for each in new
    ]


def _disks(old: Sequence[vio_bus_pb2.VioDevice], new: Sequence[vio_bus_pb2.VioDevice], interval: float) -> list[DiskRate]:
    was = {(device.unit_address, disk.name): disk.counters for device in old for disk in device.disks}
    return [
        _disk(f"{device.unit_address:#x} {disk.name}", was.get((device.unit_address, disk.name)), disk.counters, interval)
        for device in new
        for disk in device.disks
    ]


def _disk(name: str, was: vio_bus_pb2.DiskCounters | None, now: vio_bus_pb2.DiskCounters, interval: float) -> DiskRate:
    if was is None or _began_anew(was, now):
        was = vio_bus_pb2.DiskCounters()
    reads, writes = now.reads.count - was.reads.count, now.writes.count - was.writes.count
    return DiskRate(
        disk=name,
        reads_per_second=reads / interval,
        read_bytes_per_second=(now.reads.bytes - was.reads.bytes) / interval,
        read_ms=1000 * (seconds(now.reads.time) - seconds(was.reads.time)) / reads if reads else None,
        writes_per_second=writes / interval,
        written_bytes_per_second=(now.writes.bytes - was.writes.bytes) / interval,
        write_ms=1000 * (seconds(now.writes.time) - seconds(was.writes.time)) / writes if writes else None,
        errors=now.errors - was.errors,
        depth=now.depth,
    )


def _began_anew(was: vio_bus_pb2.DiskCounters, now: vio_bus_pb2.DiskCounters) -> bool:
    """Whether the image was opened again, as by a new process."""
    return now.reads.count < was.reads.count or now.writes.count < was.writes.count or now.errors < was.errors


def _networks(old: Sequence[vio_bus_pb2.VioDevice], new: Sequence[vio_bus_pb2.VioDevice], interval: float) -> list[NetworkRate]:
    was = {device.unit_address: device.network for device in old}
    return [
        _network(f"{device.unit_address:#x}", was.get(device.unit_address), device.network, interval)
        for device in new
        if device.HasField("network")
    ]


def _network(name: str, was: vio_bus_pb2.Network | None, now: vio_bus_pb2.Network, interval: float) -> NetworkRate:
    if was is None or now.sent.frames < was.sent.frames or now.received.frames < was.received.frames:
        was = vio_bus_pb2.Network()
    dropped, before = (each.sent.dropped + each.received.dropped for each in (now, was))
    return NetworkRate(
        device=name,
        sent_per_second=(now.sent.frames - was.sent.frames) / interval,
        sent_bytes_per_second=(now.sent.bytes - was.sent.bytes) / interval,
        received_per_second=(now.received.frames - was.received.frames) / interval,
        received_bytes_per_second=(now.received.bytes - was.received.bytes) / interval,
        dropped=max(0, dropped - before),
    )
