# SPDX-License-Identifier: GPL-2.0-or-later
"""Exit statuses of `splitvisor run`; scripts rely on them."""

from enum import IntEnum


class ExitStatus(IntEnum):
    """How a run ended."""

    POWERED_OFF = 0
    """The guest powered itself off, --exit-on saw its text, or the user left: also by closing the pipe that output goes to."""
    TEXT_MISSING = 1
    """The guest powered itself off, or nobody read its output any more, before the text of --exit-on appeared."""
    USAGE = 2
    """A wrong flag, a wrong setting, or a guest image that cannot be loaded."""
    CRASHED = 3
    """The guest crashed; its registers and last traps are on stderr."""
    SERVICE_FAILED = 4
    """A service ended or could not be reached."""
    TIMEOUT = 124
    """--timeout was over."""
    INTERRUPTED = 130
    """SIGINT."""
    TERMINATED = 143
    """SIGTERM."""
