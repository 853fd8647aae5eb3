# SPDX-License-Identifier: GPL-2.0-or-later
"""fio in the guest "debian-io": a job by its options, and what its JSON says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from splitvisor.guests.commands import Answer, CommandError, Commands

FIO_S = 300.0


@dataclass(frozen=True)
class Transfers:
    """Reads or writes of a job."""

    count: int
    bytes: int
    per_second: float
    """Transfers a second."""
    bytes_per_second: float
    mean_us: float
    """Of the time from submission to completion."""
    p99_us: float


@dataclass(frozen=True)
class FioResult:
    """What a job did. An error, also one that verify finds, is CommandError instead."""

    reads: Transfers
    writes: Transfers
    seconds: float
    """By the guest's clock."""


def fio(commands: Commands, seconds: float = FIO_S, /, **options: str | int) -> FioResult:
    """Run one job.

    Args:
        commands: the guest.
        seconds: how long it may take, by the host's clock.
        options: of fio(1), with underscores as they are there; `filename="/dev/sda", rw="randwrite", bs="4k", size="16m"`.

    Raises CommandError when fio ends with another status than 0 or reports an error.
    """
    words = " ".join(f"--{name}={value}" for name, value in {"name": "job", **options}.items())
    command = f"fio --output-format=json --output=/tmp/fio.json {words}; s=$?; cat /tmp/fio.json; exit $s"
    answer = commands.run(command, seconds)
    complaints, brace, report = answer.output.partition("{")
    failure = CommandError(f"fio {words}", Answer(answer.status, complaints))
    if answer.status != 0:
        raise failure
    try:
        [job] = json.loads(brace + report)["jobs"]
        if job["error"]:
            raise failure
        return FioResult(_transfers(job["read"]), _transfers(job["write"]), job["job_runtime"] / 1000)
    except (ValueError, KeyError) as error:
        raise failure from error


def _transfers(side: Mapping[str, Any]) -> Transfers:
    latency = side["clat_ns"]
    p99 = latency.get("percentile", {}).get("99.000000", 0)
    return Transfers(side["total_ios"], side["io_bytes"], side["iops"], side["bw_bytes"], latency["mean"] / 1000, p99 / 1000)
