# SPDX-License-Identifier: GPL-2.0-or-later
"""Every metric that a service exports, in one table, and the samples that services make of what they count anyway.

docs/metrics.md is made from the table. prometheus_client is not imported here: a service without `--metrics` never loads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from splitvisor.observe.call_times import Latency

MAX_VMS = 1024
"""VM names that become labels, in one service; samples of further VMs are left out, and counted."""


class Kind(StrEnum):
    """What Prometheus calls a type."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Metric:
    """One metric family."""

    name: str
    """As it is exported; a counter's ends in _total."""
    kind: Kind
    labels: tuple[str, ...]
    help: str
    services: str
    """Who exports it."""


@dataclass(frozen=True)
class Sample:
    """A value of a metric."""

    metric: Metric
    labels: tuple[str, ...]
    """In the order of Metric.labels."""
    value: float | Latency


Source = Callable[[], Iterable[Sample]]
"""Read at each scrape, in the service's event loop."""

_CPU, _VIO, _HCALL = "cpu", "vio", "hcall"
_BACK_ENDS, _ALL = "hcall, vio, of-client", "all"

INFO = Metric("splitvisor_service_info", Kind.GAUGE, ("service", "version"), "Always 1; labels name service and version.", _ALL)
DROPPED_SAMPLES = Metric(
    "splitvisor_dropped_samples", Kind.GAUGE, (), f"Samples left out of this scrape: more than {MAX_VMS} VMs.", _ALL
)
STATE = Metric("splitvisor_machine_state", Kind.GAUGE, ("vm", "state"), "1 for the machine's present state.", _CPU)
UPTIME = Metric("splitvisor_machine_uptime_seconds", Kind.GAUGE, ("vm",), "Seconds since the machine was started.", _CPU)
RESETS = Metric("splitvisor_machine_resets_total", Kind.COUNTER, ("vm",), "Resets, including the start.", _CPU)
RAM = Metric("splitvisor_machine_ram_bytes", Kind.GAUGE, ("vm",), "Guest RAM.", _CPU)
VCPUS = Metric("splitvisor_machine_vcpus", Kind.GAUGE, ("vm",), "Configured vCPUs.", _CPU)
CALLS = Metric("splitvisor_calls_total", Kind.COUNTER, ("vm", "call", "owner"), "Hypercalls and RTAS calls by owner.", _CPU)
REMOTE_CALL = Metric(
    "splitvisor_remote_call_seconds", Kind.HISTOGRAM, ("vm", "call", "backend", "result"),
    "Time that a vCPU waited for a back end's answer, by class of result.", _CPU,
)  # fmt: skip
POSTED_CALLS = Metric("splitvisor_posted_calls_total", Kind.COUNTER, ("vm", "backend"), "Posted calls.", _CPU)
POSTED_BYTES = Metric("splitvisor_posted_bytes_total", Kind.COUNTER, ("vm", "backend"), "Bytes of posted calls.", _CPU)
CREDIT_STALLS = Metric(
    "splitvisor_credit_stalls_total", Kind.COUNTER, ("vm", "backend"), "Calls that got H_BUSY for want of credit.", _CPU
)
ATTACHED = Metric("splitvisor_backend_attached", Kind.GAUGE, ("vm", "backend"), "1 while the back end's stream is up.", _CPU)
RECONNECTS = Metric("splitvisor_backend_reconnects_total", Kind.COUNTER, ("vm", "backend"), "Reconnections of a back end.", _CPU)
INTERRUPTS = Metric(
    "splitvisor_interrupts_total", Kind.COUNTER, ("vm", "source"), "Pulses of interrupt sources, the source in hexadecimal.", _CPU
)
DECREMENTER = Metric("splitvisor_decrementer_interrupts_total", Kind.COUNTER, ("vm",), "Decrementer interrupts.", _CPU)
EXCEPTIONS = Metric(
    "splitvisor_vcpu_exceptions_total", Kind.COUNTER, ("vm", "exception"),
    "Exits of the vCPU for exceptions that guest instructions raised; hypercalls are in splitvisor_calls_total.", _CPU,
)  # fmt: skip
HINTS = Metric(
    "splitvisor_vcpu_priority_hints_total",
    Kind.COUNTER,
    ("vm",),
    "HMT hints of a low priority: the vCPU is likely to spin.",
    _CPU,
)
CPU_TIME = Metric(
    "splitvisor_vcpu_cpu_seconds_total", Kind.COUNTER, ("vm",),
    "CPU time of the vCPU thread: the guest's instructions and the calls of owner local.", _CPU,
)  # fmt: skip
IDLE_TIME = Metric("splitvisor_vcpu_idle_seconds_total", Kind.COUNTER, ("vm",), "Seconds in which all vCPUs were idle.", _CPU)
WATCHERS = Metric("splitvisor_trap_watchers", Kind.GAUGE, ("vm",), "Watchers of WatchTraps.", _CPU)
WATCH_MISSED = Metric(
    "splitvisor_trap_watch_missed_total", Kind.COUNTER, ("vm",), "Calls that watchers missed because they were too slow.", _CPU
)
HANDLER = Metric(
    "splitvisor_handler_seconds", Kind.HISTOGRAM, ("vm", "call", "result"),
    "Time that a back end's handler took for a call, including waits, by class of result.", _BACK_ENDS,
)  # fmt: skip
ATTACHED_VMS = Metric("splitvisor_attached_vms", Kind.GAUGE, (), "VMs whose stream to this back end is up.", _BACK_ENDS)
CONSOLE_OUTPUT = Metric(
    "splitvisor_console_output_bytes_total", Kind.COUNTER, ("vm", "console"), "Bytes that the guest wrote to a terminal.", _VIO
)
CONSOLE_INPUT = Metric(
    "splitvisor_console_input_bytes_total", Kind.COUNTER, ("vm", "console"), "Bytes typed for the guest.", _VIO
)
CONSOLE_DROPPED = Metric(
    "splitvisor_console_dropped_bytes_total", Kind.COUNTER, ("vm", "console"), "Bytes of output that slow readers missed.",
    _VIO,
)  # fmt: skip
CONSOLE_READERS = Metric("splitvisor_console_readers", Kind.GAUGE, ("vm", "console"), "Terminals attached to a console.", _VIO)
DISK_TIME = Metric(
    "splitvisor_disk_seconds", Kind.HISTOGRAM, ("vm", "device", "disk", "operation"),
    "Time of a disk's transfers that succeeded, waits included: read, write, flush, discard.", _VIO,
)  # fmt: skip
DISK_BYTES = Metric(
    "splitvisor_disk_bytes_total", Kind.COUNTER, ("vm", "device", "disk", "operation"), "Bytes read from and written to a disk.",
    _VIO,
)  # fmt: skip
DISK_ERRORS = Metric("splitvisor_disk_errors_total", Kind.COUNTER, ("vm", "device", "disk"), "Transfers that failed.", _VIO)
DISK_DEPTH = Metric("splitvisor_disk_depth", Kind.GAUGE, ("vm", "device", "disk"), "Transfers of a disk under way.", _VIO)
NETWORK_FRAMES = Metric(
    "splitvisor_network_frames_total", Kind.COUNTER, ("vm", "device", "direction"),
    "Frames over the wire of a network device: sent by the guest, or received and taken.", _VIO,
)  # fmt: skip
NETWORK_BYTES = Metric("splitvisor_network_bytes_total", Kind.COUNTER, ("vm", "device", "direction"), "Bytes of these.", _VIO)
NETWORK_DROPPED = Metric(
    "splitvisor_network_dropped_frames_total", Kind.COUNTER, ("vm", "device", "direction"),
    "Frames that were dropped: sent while the other end was slow or away, received without room for them.", _VIO,
)  # fmt: skip
NETWORK_UNBUFFERED = Metric(
    "splitvisor_network_unbuffered_frames_total", Kind.COUNTER, ("vm", "device"),
    "Received frames that were lost because the guest had no buffer for them, since it opened the device.", _VIO,
)  # fmt: skip
REVISIONS = Metric(
    "splitvisor_store_revisions_total", Kind.COUNTER, ("vm", "origin"), "Device-tree revisions that this service stored.", _HCALL
)
HEAD = Metric("splitvisor_store_head_revision", Kind.GAUGE, ("vm",), "The newest revision that this service stored.", _HCALL)

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""Every metric. Beside these a service exports prometheus_client's process_* metrics."""
