# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands that follow something end when nobody reads what they print, as after `| head -1`; also when nothing happens."""

from __future__ import annotations

import os
import select
import sys
import threading

from splitvisor.process.streams import READER_GONE


def end_without_reader(status: int = READER_GONE) -> None:
    """End this process with a status once its output has no reader any more."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # Not a file of the system.
        return
    threading.Thread(target=_watch, args=(descriptor, status), name="reader", daemon=True).start()


def _watch(descriptor: int, status: int) -> None:
    poll = select.poll()
    poll.register(descriptor, 0)  # Errors and hang-ups are always reported.
    if any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll()):
        os._exit(status)
