# SPDX-License-Identifier: GPL-2.0-or-later
"""Opened packages and their ihandles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from of_client_service.device_tree import Package

MAX_INSTANCES = 1024
LAST_IHANDLE = 0xFFFF_FFFE


@dataclass(eq=False)
class Instance:
    """An opened package."""

    package: Package
    terminal: int | None
    """Unit address of the VTY that it reads and writes; None for packages that do neither."""
    unread: bytearray = field(default_factory=bytearray)
    """Input that came with an earlier H_GET_TERM_CHAR and did not fit its reader's buffer."""
    after_return: bool = False
    """The last input byte was CR: the NUL that PAPR puts behind it is not input."""


class Instances:
    """The open instances. An ihandle is never used twice between two resets, so a stale one is always noticed."""

    def __init__(self) -> None:
        self._open: dict[int, Instance] = {}
        self._last = 0

    def open(self, package: Package) -> int | None:
        """Make an instance and return its ihandle; None when there are too many."""
        if len(self._open) >= MAX_INSTANCES or self._last >= LAST_IHANDLE:
            return None
        self._last += 1
        terminal = package.number("reg") if package.text("device_type") == "serial" else None
        self._open[self._last] = Instance(package, terminal)
        return self._last

    def get(self, ihandle: int) -> Instance | None:
        """The instance of an ihandle."""
        return self._open.get(ihandle)

    def all(self) -> Iterator[tuple[int, Instance]]:
        """Yield (ihandle, instance), the oldest first."""
        yield from self._open.items()

    @property
    def last(self) -> int:
        """The ihandle that was given out last."""
        return self._last

    def restore(self, instances: Sequence[tuple[int, Instance]], last: int) -> None:
        """Be these instances, the oldest first. Raises ValueError when they cannot be."""
        ihandles = [ihandle for ihandle, _ in instances]
        if len(ihandles) > MAX_INSTANCES or len(set(ihandles)) != len(ihandles) or not 0 <= last <= LAST_IHANDLE:
            raise ValueError(f"{len(ihandles)} instances, the last {last}")
        if ihandles and not 0 < min(ihandles) <= max(ihandles) <= last:
            raise ValueError("an ihandle that was never given out")
        self._open, self._last = dict(instances), last

    def close(self, ihandle: int) -> None:
        """Forget an instance; an unknown ihandle is ignored."""
        self._open.pop(ihandle, None)
