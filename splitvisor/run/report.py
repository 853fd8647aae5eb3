# SPDX-License-Identifier: GPL-2.0-or-later
"""The report of a run: how it ended and what it did, as JSON. It is written at every end that this process lives to see."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, BinaryIO

from splitvisor.process.outputs import SHARED, Content, Output

_OLD_REPORT_BYTES = 64 << 20
_OWN_KEYS = frozenset({"status", "message", "seconds", "pids"})


class Report:
    """What will be in the file.

    Args:
        path: the file; an earlier report there is replaced.
        began: when the run did, by time.monotonic().

    Raises OSError when it cannot be written.
    """

    def __init__(self, path: Path, began: float) -> None:
        self.path = path
        self._output = Output(path, Content("a report", _is_report), SHARED)
        self._began = began
        self.pids: dict[str, int] = {}
        """Of the services, by name."""
        self.facts: dict[str, Any] = {}
        """What the machine did, as far as it could be asked."""

    def write(self, status: int, message: str) -> None:
        """Write how the run ended. Raises OSError."""
        fields = {
            "status": status,
            "message": message,
            "seconds": round(time.monotonic() - self._began, 4),
            "pids": self.pids,
            **self.facts,
        }
        self._output.write((json.dumps(fields, indent=2) + "\n").encode())


def _is_report(file: BinaryIO) -> bool:
    try:
        content = json.loads(file.read(_OLD_REPORT_BYTES))
    except ValueError:
        return False
    return isinstance(content, dict) and content.keys() >= _OWN_KEYS
