# SPDX-License-Identifier: GPL-2.0-or-later
"""What was stored from here, counted for metrics: the database itself is not asked at each scrape."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

from splitvisor.observe.metrics import HEAD, MAX_VMS, REVISIONS, Sample
from splitvisor.rpc import device_tree_pb2 as pb


class RevisionCounts:
    """Revisions by VM and origin, and each VM's head. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heads: dict[str, int] = {}
        self._stored: Counter[tuple[str, int]] = Counter()

    def add(self, vm: str, origin: int, number: int) -> None:
        """A revision was stored."""
        with self._lock:
            if vm not in self._heads and len(self._heads) >= MAX_VMS:  # The name that is known longest goes.
                gone = next(iter(self._heads))
                del self._heads[gone]
                self._stored = Counter({key: count for key, count in self._stored.items() if key[0] != gone})
            self._heads[vm] = max(number, self._heads.get(vm, 0))
            self._stored[vm, origin] += 1

    def samples(self) -> Iterator[Sample]:
        """Yield the metrics."""
        with self._lock:
            heads, stored = dict(self._heads), dict(self._stored)
        for vm, number in heads.items():
            yield Sample(HEAD, (vm,), number)
        for (vm, origin), count in stored.items():
            yield Sample(REVISIONS, (vm, _name(origin)), count)


def _name(origin: int) -> str:
    known = pb.TreeOrigin.DESCRIPTOR.values_by_number.get(origin)
    return str(origin) if known is None else known.name.removeprefix("TREE_ORIGIN_").lower().replace("_", "-")
