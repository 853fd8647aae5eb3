# SPDX-License-Identifier: GPL-2.0-or-later
"""The disks and CDs of a machine: the options of a virtual SCSI adapter.

A device of kind "v-scsi" has an option for each: `disk0`, `disk1`, ... and `cdrom0`, `cdrom1`, ..., as `--disk` and `--cdrom`
take them (splitvisor/block/options.py has the words). The flags make one adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from splitvisor.errors.problem import ProblemError
from splitvisor.errors.similar import did_you_mean
from splitvisor.process.text import shown

VSCSI = "v-scsi"
"""The kind of the adapter."""
DISKS_MAX = 64
"""Disks and CDs of an adapter, together: SCSI targets of LoPAPR's virtual SCSI that Linux looks for."""
_KEYS = tuple(f"{kind}{number}" for kind in ("disk", "cdrom") for number in range(DISKS_MAX))


class DiskListError(ProblemError):
    """The disks of a machine cannot be. key: which option it is about; empty: all."""

    def __init__(self, key: str, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.key = key


def adapter_options(options: Mapping[str, Any], base: Path) -> dict[str, str]:
    """Return the options of an adapter, checked, with absolute paths. Raises DiskListError.

    Args:
        options: as a machine file has them.
        base: where relative paths start.
    """
    found = {}
    for key, value in options.items():
        if key not in _KEYS:
            remedy = did_you_mean(key, _KEYS) or f"known: disk0 to disk{DISKS_MAX - 1}, cdrom0 to cdrom{DISKS_MAX - 1}"
            raise DiskListError(key, f"is not an option of {VSCSI}", remedy)
        if not isinstance(value, str):
            raise DiskListError(key, f"{value!r} is not a disk", "give a file and its options, as a text")
        found[key] = _absolute(key, value, base)
    if len(found) > DISKS_MAX:
        raise DiskListError("", f"{len(found)} disks and CDs are too many", f"give at most {DISKS_MAX}")
    return found


def flag_options(disks: Sequence[str], cdroms: Sequence[str]) -> dict[str, str]:
    """Return the options of the adapter that flags make. Raises DiskListError, whose key is then the flag."""
    if len(disks) + len(cdroms) > DISKS_MAX:
        what = f"{len(disks) + len(cdroms)} disks and CDs are too many"
        raise DiskListError("--disk", what, f"give at most {DISKS_MAX} of both")
    try:
        return adapter_options(
            {
                f"{kind}{number}": text
                for kind, texts in (("disk", disks), ("cdrom", cdroms))
                for number, text in enumerate(texts)
            },
            Path(),
        )
    except DiskListError as error:
        raise DiskListError(f"--{error.key.rstrip('0123456789')}", error.problem.what, error.problem.remedy) from None


def _absolute(key: str, text: str, base: Path) -> str:
    from splitvisor.block.options import DiskOptionError, parse_cdrom, parse_disk  # many machines have no disk

    try:
        return (parse_disk if key.startswith("disk") else parse_cdrom)(text).absolute(base).text()
    except DiskOptionError as error:
        raise DiskListError(key, f"{shown(text)}: {error.problem.what}", error.problem.remedy) from None
