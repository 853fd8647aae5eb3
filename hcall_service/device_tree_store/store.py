# SPDX-License-Identifier: GPL-2.0-or-later
"""What a store of device-tree revisions does, whatever database keeps it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hcall_service.device_tree_store.revision_counts import RevisionCounts

DEFAULT_RETENTION = 256
"""Revisions that are kept of each VM."""


class StoreError(Exception):
    """The store cannot be opened, or does not work; the text says where it is and why."""


class StoreAbsentError(StoreError):
    """The store's database is not there yet: opening it again may succeed, with nothing changed on this side."""


class UnknownRevisionError(LookupError):
    """There is no such VM, or no such revision of it."""


class HeadMovedError(Exception):
    """The head is not what the caller expected: somebody else put a revision."""


@dataclass(frozen=True)
class Revision:
    """One stored tree, without its bytes."""

    number: int
    """From 1 in each VM; never used again."""
    time_ns: int
    """When it was stored, since 1970."""
    origin: int
    """A TreeOrigin."""
    sha256: bytes
    size: int


class Store(ABC):
    """Revisions of any number of VMs. Methods block and may be called from any thread; each is one transaction."""

    counts: RevisionCounts
    """What this object has put."""

    @abstractmethod
    def put(self, vm: str, origin: int, blob: bytes, expected: int = 0) -> int:
        """Store a revision, make it the head and return its number, durable by then.

        The oldest revisions beyond the limit go, but never the head and never the newest seed.

        Args:
            vm: whose it is; the first revision makes the VM known.
            origin: a TreeOrigin.
            blob: the flattened tree.
            expected: the head that this one replaces; 0: whatever it is.

        Raises HeadMovedError, StoreError.
        """

    @abstractmethod
    def get(self, vm: str, number: int = 0) -> tuple[Revision, bytes]:
        """Return a revision, 0 for the head, and its bytes. Raises UnknownRevisionError, StoreError."""

    @abstractmethod
    def head(self, vm: str) -> int:
        """Return the head's number, 0 for a VM without a tree. Raises StoreError."""

    @abstractmethod
    def revisions(self, vm: str) -> Sequence[Revision]:
        """Return what is kept, the newest first. Raises UnknownRevisionError, StoreError."""

    @abstractmethod
    def restore(self, vm: str, history: Sequence[tuple[Revision, bytes]]) -> int:
        """Make the newest tree of a saved history a VM's head, durably, and return its number. Nothing that is stored is lost.

        When what the VM has is part of the same history, the revisions that it does not have are stored with their numbers and
        times. Over another history, or a newer one, the tree is put as a revision of its own, of origin RESTORE.

        Args:
            vm: whose it is.
            history: revisions with their bytes, the oldest first; at least one.

        Raises StoreError.
        """

    @abstractmethod
    def subscribe(self, callback: Callable[[], None]) -> None:
        """Have callback called after each put() of this object, in the thread that put. Other processes' puts are not told."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the database."""
