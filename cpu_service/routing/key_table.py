# SPDX-License-Identifier: GPL-2.0-or-later
"""Which owner has a key: ranges of 64-bit numbers, none of them in two hands."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

Owner = TypeVar("Owner")


class KeyRange(NamedTuple):
    """Keys from first to last, both included."""

    first: int
    last: int


class OverlapError(Exception):
    """Two owners claim one key.

    Args:
        key: the lowest key that both claim.
        owners: the two.
    """

    def __init__(self, key: int, owners: tuple[object, object]) -> None:
        super().__init__(f"key {key:#x} is claimed twice")
        self.key, self.owners = key, owners


class KeyTable(Generic[Owner]):
    """The owner of each key. Never changes: a thread that looks up and one that replaces the table need no lock.

    Args:
        owned: the ranges of each owner, in any order. Ranges of one owner may touch or overlap.

    Raises OverlapError when a key has two owners.
    """

    def __init__(self, owned: Mapping[Owner, Sequence[KeyRange]]) -> None:
        found = sorted(((each.first, each.last, owner) for owner, keys in owned.items() for each in keys), key=lambda it: it[:2])
        merged: list[tuple[int, int, Owner]] = []
        for first, last, owner in found:
            if merged and first <= merged[-1][1]:
                before = merged[-1]
                if owner != before[2]:
                    raise OverlapError(first, (before[2], owner))
                merged[-1] = (before[0], max(before[1], last), owner)
            else:
                merged.append((first, last, owner))
        self._single = {first: owner for first, last, owner in merged if first == last}
        self._wide = [each for each in merged if each[0] != each[1]]
        self._firsts = [first for first, _, _ in self._wide]

    def find(self, key: int) -> Owner | None:
        """Return the owner of a key; None when it has none."""
        owner = self._single.get(key)
        if owner is None and self._firsts:
            _, last, candidate = self._wide[max(0, bisect_right(self._firsts, key) - 1)]
            return candidate if self._firsts[0] <= key <= last else None
        return owner
