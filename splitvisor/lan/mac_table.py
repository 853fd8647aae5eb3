# SPDX-License-Identifier: GPL-2.0-or-later
"""Which port of a switch a MAC address was last heard at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

AGE_S = 300.0
"""An address that has sent nothing for so long is forgotten (IEEE 802.1Q-2018, table 8-6)."""
_FRESH_S = 1.0
"""An address heard again so soon needs no new time."""

P = TypeVar("P")


class MacTable(Generic[P]):
    """Addresses and ports, bounded per port: a guest that makes up addresses forgets its own only.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._places: dict[bytes, tuple[P, float]] = {}
        self._of_port: dict[P, dict[bytes, None]] = {}
        """The addresses of each port, the one longest not heard first."""

    def __len__(self) -> int:
        return len(self._places)

    def learn(self, mac: bytes, port: P, most: int) -> None:
        """Take note of an address at a port, which has at most so many."""
        now = self._clock()
        known = self._places.get(mac)
        if known is not None:
            if known[0] is port and now - known[1] < _FRESH_S:
                return
            del self._of_port[known[0]][mac]
        own = self._of_port.setdefault(port, {})
        if len(own) >= most:
            oldest = next(iter(own))
            del own[oldest], self._places[oldest]
        own[mac] = None
        self._places[mac] = (port, now)

    def find(self, mac: bytes) -> P | None:
        """Return the port of an address; None: it is not known, or not any more."""
        known = self._places.get(mac)
        if known is None:
            return None
        if self._clock() - known[1] > AGE_S:
            del self._places[mac], self._of_port[known[0]][mac]
            return None
        return known[0]

    def forget(self, port: P) -> None:
        """Forget the addresses of a port."""
        for mac in self._of_port.pop(port, {}):
            del self._places[mac]
