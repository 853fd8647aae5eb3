# SPDX-License-Identifier: GPL-2.0-or-later
"""Opened packages and their ihandles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from of_client_service.device_tree import Package
from splitvisor.backend import Call, Vm
from splitvisor.rpc import state_pb2 as pb

MAX_INSTANCES = 1024
LAST_IHANDLE = 0xFFFF_FFFE


class Instance:
    """An opened package. This class is for packages that can neither be read nor written.

    Args:
        package: the package.
        path: how it was opened, without aliases and arguments.
    """

    def __init__(self, package: Package, path: str) -> None:
        self.package, self.path = package, path

    async def read(self, vm: Vm, buffer: int, length: int) -> int | None:
        """Put at most length bytes into guest memory; return how many, None when it cannot be read."""
        return None

    async def write(self, vm: Vm, call: Call, buffer: int, length: int) -> int | None:
        """Take at most length bytes from guest memory; return how many, None when it cannot be written."""
        return None

    def seek(self, position: int) -> bool:
        """Continue there, in bytes from the start; False when there is no such position."""
        return False

    def closed(self, call: Call) -> None:
        """Let go of what it has, by posted calls: a client has closed it."""

    def save(self, state: pb.InstanceState) -> None:
        """Add its own state to a message that has its handle and package."""


class Instances:
    """The open instances. An ihandle is never used twice between two resets, so a stale one is always noticed."""

    def __init__(self) -> None:
        self._open: dict[int, Instance] = {}
        self._last = 0

    def add(self, instance: Instance) -> int | None:
        """Keep an instance and return its ihandle; None when there are too many."""
        if len(self._open) >= MAX_INSTANCES or self._last >= LAST_IHANDLE:
            return None
        self._last += 1
        self._open[self._last] = instance
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

    def close(self, ihandle: int, call: Call) -> None:
        """Forget an instance that a client closes; an unknown ihandle is ignored."""
        instance = self._open.pop(ihandle, None)
        if instance is not None:
            instance.closed(call)
