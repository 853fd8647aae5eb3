# SPDX-License-Identifier: GPL-2.0-or-later
"""Files by a path of Open Firmware, "\\boot\\grub\\powerpc.elf", on whichever file system there is."""

from __future__ import annotations

from of_client_service.volumes import fat, iso9660
from of_client_service.volumes.source import Part, Source

MAX_DEPTH = 8
"""Names in a path; ISO 9660 has no more."""
MAX_NAME = 64
FILE_SYSTEMS = (iso9660.find_file, fat.find_file)


async def find_file(source: Source, path: str) -> Part | None:
    """Return a file; None when there is none. Raises VolumeError when what leads to it is broken, MediumError."""
    names = [name for name in path.replace("/", "\\").split("\\") if name]
    if not 0 < len(names) <= MAX_DEPTH or any(len(name) > MAX_NAME for name in names):
        return None
    for find in FILE_SYSTEMS:
        if (found := await find(source, names)) is not None:
            return found
    return None
