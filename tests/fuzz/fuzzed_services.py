# SPDX-License-Identifier: GPL-2.0-or-later
"""What must hold of services that were fuzzed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import grpc
import grpc.aio

from tests.services import Service

GROWTH_KIB = 256 << 10
"""What a service may grow by: 256 VMs with their devices, caches, and what an allocator keeps."""
CUT_OFF = "Internal error from Core"
"""What gRPC's client says when it was about to send and the service had ended the call."""
BUGS = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
"""What a handler ends with that raises something."""
_BY_GRPC = ("Unexpected [DecodeError] raised by servicer method", "Failed sending error status from server")
"""How gRPC itself logs what is no message, and calls that were left."""


def end_of(error: grpc.aio.AioRpcError) -> str:
    """How a call ended, by the service's word."""
    if error.details() == CUT_OFF:
        return "cut off"
    return error.code().name + (f": {error.details()}" if error.code() in BUGS else "")


def errors_logged(running: Mapping[str, Service]) -> list[str]:
    """What the services' logs tell of errors, each once, without the way that led there: whatever others send is no error."""
    lines = (line for service in running.values() for line in service.log.read_text(errors="replace").splitlines())
    entries = (json.loads(line) for line in lines if line.startswith("{"))
    errors = (entry for entry in entries if entry.get("level") == "error" and not entry["event"].startswith(_BY_GRPC))
    return sorted({_short(entry) for entry in errors})


def _short(entry: Mapping[str, str]) -> str:
    way = entry.get("exception", "").strip().splitlines() or [""]
    place = next((each.strip() for each in reversed(way) if each.startswith("  File")), "")
    return f"{entry['service']}: {entry['event']} {entry.get('call', '')}: {way[-1]} ({place})"


def resident_kib(service: Service) -> int:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
