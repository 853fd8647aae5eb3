# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps an account of the faults that happened: a log line and a line of JSON each, so that a test can prove that they did."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import structlog

from splitvisor.process.appended import AppendedFile

LINES_MAX = 100_000
"""Faults that are written down; further ones are only counted."""

log = structlog.get_logger()


class Journal:
    """What happened, and how often.

    Args:
        path: gets a line of JSON for each fault; None: nowhere.

    Raises OSError when it cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self.counts: Counter[str] = Counter()
        """Faults that happened, by kind."""
        self._file = AppendedFile(path) if path is not None else None
        self._began = time.monotonic()

    def happened(self, kind: str, **details: Any) -> None:
        """Write down that a fault happened."""
        self.counts[kind] += 1
        log.info("fault", kind=kind, **details)
        if self._file is not None and self.counts.total() <= LINES_MAX:
            seconds = round(time.monotonic() - self._began, 6)
            self._file.write((json.dumps({"kind": kind, "at_seconds": seconds, **details}) + "\n").encode())

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the faults that a journal tells of; a last line that was cut off, and a file that is not there, tell of none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def summary(happened: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return how often each kind happened."""
    return dict(Counter(str(each["kind"]) for each in happened))
