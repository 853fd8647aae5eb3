# SPDX-License-Identifier: GPL-2.0-or-later
"""What to boot on a medium: the program of a PReP partition, or the one that CHRP's boot script names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from of_client_service.boot import bootinfo
from of_client_service.disks.disk import DiskArguments, select
from of_client_service.volumes.files import find_file
from of_client_service.volumes.partitions import Partitions, read_partitions
from of_client_service.volumes.source import MediumError, Part, Source, VolumeError

ELF_MAGIC = b"\x7fELF"
MAX_SCRIPTS = 8
"""Partitions in which a boot script is looked for."""


@dataclass(frozen=True)
class BootFile:
    """A program on a medium."""

    source: Source
    label: str
    """For messages: "PReP partition 1"."""
    device_arguments: str = ""
    """What follows the device in /chosen/bootpath."""
    arguments: str | None = None
    """Its command line; None: the machine's."""


async def find_boot_file(medium: Source, note: Callable[[str], None]) -> BootFile:
    """Return what to boot on a medium.

    note: told what is wrong though there is something to boot: "its first GPT has a wrong header checksum; the second is used".
    Raises VolumeError, which says why nothing can be booted, MediumError.
    """
    reasons: list[str] = []
    partitions = Partitions("")
    try:
        partitions = await read_partitions(medium)
        if partitions.trouble:
            note(partitions.trouble)
    except MediumError:
        raise
    except VolumeError as error:
        reasons.append(str(error))
    for partition in partitions.found:
        if partition.is_prep:
            label = f"PReP partition {partition.number}"
            program = Part(medium, [partition.extent])
            if await _is_elf(program):
                return BootFile(program, label)
            reasons.append(f"has no program (ELF) in its {label}")
    try:
        found = await _find_by_script(medium, partitions)
    except MediumError:
        raise
    except VolumeError as error:
        found = None
        reasons.append(str(error))
    if found is not None:
        return found
    if not any(partition.is_prep for partition in partitions.found) and not reasons:
        table = f"has no PReP partition in its {partitions.kind}" if partitions.kind else "has no partition table"
        reasons.append(f"{table} and no {bootinfo.PATH}")
    raise VolumeError(", ".join(reasons))


async def find_named(medium: Source, arguments: str) -> BootFile:
    """Return the program that a device specifier names by partition or file. Raises VolumeError, MediumError."""
    parsed = DiskArguments.parse(arguments)
    if parsed is None:
        raise VolumeError(f"has nothing called {arguments!r}")
    label = parsed.file or f"partition {parsed.partition}"
    return BootFile(await select(medium, parsed), label, arguments)


async def _is_elf(source: Source) -> bool:
    return source.size >= len(ELF_MAGIC) and await source.read(0, len(ELF_MAGIC)) == ELF_MAGIC


async def _find_by_script(medium: Source, partitions: Partitions) -> BootFile | None:
    """Return the program that a script on the medium or in one of its first partitions names; None without a script."""
    places: list[tuple[int, Source]] = [(0, medium)]
    places += [(each.number, Part(medium, [each.extent])) for each in partitions.found[:MAX_SCRIPTS]]
    for number, place in places:
        file = await find_file(place, bootinfo.PATH)
        if file is None:
            continue
        script = bootinfo.parse(await file.read(0, min(file.size, bootinfo.MAX_BYTES)), number)
        if script.device:
            raise VolumeError(f"has a {bootinfo.PATH} that boots another device, {script.device[:64]}")
        found = await find_named(medium, script.device_arguments)
        return BootFile(found.source, found.label, script.device_arguments, script.arguments or None)
    return None
