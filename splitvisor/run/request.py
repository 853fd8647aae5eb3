# SPDX-License-Identifier: GPL-2.0-or-later
"""What `splitvisor run` is asked for, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from splitvisor.machine.config import MachineConfig
from splitvisor.run.exit_status import ExitStatus

if TYPE_CHECKING:
    from splitvisor.faults.run import FaultPlan
    from splitvisor.process.appended import AppendedFile
    from splitvisor.run.report import Report

Progress = Callable[[str], None]


@dataclass
class Recorded:
    """A recording of the machine, and how that went."""

    path: Path
    failure: str = ""
    """Why and where it ends before the machine does; empty: it does not."""


@dataclass(frozen=True)
class RunRequest:
    """What `splitvisor run` was asked for."""

    config: MachineConfig
    snapshot: Path | None = None
    """The snapshot to continue from; config then has its name and size."""
    connect: Mapping[str, str] = field(default_factory=dict)
    """Services that run already: gRPC target by flag name."""
    log_level: str = "info"
    log_file: AppendedFile | None = None
    """Gets the services' logs."""
    log_to_stderr: bool = False
    exit_on: bytes | None = None
    timeout: float | None = None
    """Seconds, from began."""
    began: float = field(default_factory=time.monotonic)
    """By time.monotonic()."""
    report: Report | None = None
    """Gets what the run did."""
    store: str | None = None
    """Where hcall_service keeps device trees; None: where they go with the run."""
    transcripts: Path | None = None
    """Where vio_service keeps what the consoles say; None: nowhere."""
    record: Recorded | None = None
    faults: FaultPlan | None = None
    """What goes wrong between cpu_service and its back ends; None: nothing."""
    progress: Progress = lambda _step: None
    """Told what is being done; an empty text when the guest runs."""
    notice: Progress = lambda _text: None
    """Told what its user should know while the guest runs."""


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    status: ExitStatus
    message: str = ""
    """For people; empty when there is nothing to say."""


@dataclass(frozen=True)
class Outcome:
    """How the machine ended."""

    status: ExitStatus
    message: str = ""
