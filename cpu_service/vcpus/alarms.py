# SPDX-License-Identifier: GPL-2.0-or-later
"""What is to happen at a moment of the guest's time. All of it belongs to the vCPU thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class _Alarm:
    due_ns: int
    ring: Callable[[], None]


class Alarms:
    """The alarms of one machine, each with a number that whoever sets it has chosen. The scheduler rings them.

    Args:
        now_ns: the guest's clock: the host's monotonic one, which stands still while the guest does.
        on_set: called when an alarm was set, and may be due earlier than all others.
    """

    def __init__(self, now_ns: Callable[[], int], on_set: Callable[[], None]) -> None:
        self._now_ns = now_ns
        self._on_set = on_set
        self._set: dict[int, _Alarm] = {}

    def set(self, number: int, after_ns: int, ring: Callable[[], None]) -> None:
        """Have ring() called after so much of the guest's time, in place of what was set under that number."""
        self._set[number] = _Alarm(self._now_ns() + after_ns, ring)
        self._on_set()

    def cancel(self, number: int) -> bool:
        """Forget an alarm; return whether it was set."""
        return self._set.pop(number, None) is not None

    def left_ns(self, number: int) -> int | None:
        """How much of the guest's time is left until an alarm, 0 when it is due; None: it is not set."""
        alarm = self._set.get(number)
        return None if alarm is None else max(0, alarm.due_ns - self._now_ns())

    def earliest(self) -> int | None:
        """When the first one is due, on the host's monotonic clock."""
        if not self._set:
            return None
        return min(alarm.due_ns for alarm in self._set.values())

    def ring(self, now_ns: int) -> None:
        """Call what is due, the earliest first, each once. An alarm may set and cancel others."""
        if not self._set:
            return
        due = sorted((alarm.due_ns, number) for number, alarm in self._set.items() if alarm.due_ns <= now_ns)
        for due_ns, number in due:
            alarm = self._set.get(number)
            if alarm is not None and alarm.due_ns == due_ns:
                del self._set[number]
                alarm.ring()

    def move(self, nanoseconds: int) -> None:
        """The guest's time stood still for so long."""
        self._set = {number: _Alarm(alarm.due_ns + nanoseconds, alarm.ring) for number, alarm in self._set.items()}
