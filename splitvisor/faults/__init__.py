# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults on the streams between cpu_service and its back ends: what may go wrong, when, and a proxy that makes it so."""

from __future__ import annotations

import signal

PROCESS_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "continue": signal.SIGCONT}
"""What happens to a process as a whole."""
