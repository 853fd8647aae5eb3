# SPDX-License-Identifier: GPL-2.0-or-later
"""Exit statuses of `splitvisor run`; scripts rely on them."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """How a run ended."""

    POWERED_OFF = 0
    """The guest powered off, it showed the text of --exit-on, or the user left or closed the output pipe."""
    TEXT_MISSING = 1
    """The guest powered off, or its output was closed, before it showed the text of --exit-on."""
    USAGE = 2
    """Bad usage, a wrong setting, or a guest image that cannot be loaded."""
    CRASHED = 3
    """The guest crashed; its registers and last traps are on stderr."""
    SERVICE_FAILED = 4
    """A service ended or could not be reached, or a recording or a report could not be written."""
    OUTPUT_FAILED = 5
    """What the guest wrote could not be written, on a full disk for instance."""
    TIMEOUT = 124
    """--timeout expired."""
    INTERRUPTED = 130
    """SIGINT."""
    TERMINATED = 143
    """SIGTERM."""
