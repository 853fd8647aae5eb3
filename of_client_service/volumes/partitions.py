# SPDX-License-Identifier: GPL-2.0-or-later
"""Partitions, whichever kind of table has them."""

from __future__ import annotations

from dataclasses import dataclass

from of_client_service.volumes import gpt, mbr
from of_client_service.volumes.source import Extent, Source


@dataclass(frozen=True)
class Partition:
    """A partition."""

    number: int
    """As Linux and GRUB count: from 1; the logical ones of an MBR from 5."""
    extent: Extent
    is_prep: bool
    """PowerPC PReP boot: it holds a program to boot, from its first byte."""


@dataclass(frozen=True)
class Partitions:
    """What a medium's tables say."""

    kind: str
    """MBR or GPT; empty: there is no table."""
    found: tuple[Partition, ...] = ()
    trouble: str = ""
    """What is wrong with the tables though some of it can be used: "its first GPT is broken (checksum)"."""

    def get(self, number: int) -> Partition | None:
        """Return a partition by its number."""
        return next((each for each in self.found if each.number == number), None)


async def read_partitions(source: Source) -> Partitions:
    """Read the tables of a medium: a GPT where the MBR protects one, else the MBR.

    Raises VolumeError when the medium has a GPT that cannot be used, MediumError.
    """
    table = await mbr.read_mbr(source)
    if table is None:
        return Partitions("")
    if any(entry.kind == mbr.PROTECTIVE for entry in table.entries):
        try:
            entries, trouble = await gpt.read_gpt(source)
        except gpt.NoGptError:
            if all(entry.kind == mbr.PROTECTIVE for entry in table.entries):
                raise
        else:
            found = tuple(Partition(each.number, each.extent, each.kind == gpt.PREP) for each in entries)
            return Partitions("GPT", found, trouble)
    usable = (entry for entry in table.entries if entry.kind != mbr.PROTECTIVE)
    found = tuple(
        Partition(entry.number, entry.extent, entry.kind == mbr.PREP) for entry in usable if _is_within(entry.extent, source.size)
    )
    return Partitions("MBR", found, table.trouble)


def _is_within(extent: Extent, size: int) -> bool:
    return extent.start + extent.length <= size
