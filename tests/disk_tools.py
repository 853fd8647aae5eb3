# SPDX-License-Identifier: GPL-2.0-or-later
"""Disks as Debian's own tools make them and read them: sfdisk, sgdisk, mtools, xorriso."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

SECTOR = 512
PREP_GUID = "9E1A2D38-C612-4316-AA26-8B49521E5A8B"
LINUX_GUID = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
TIMEOUT_S = 60
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def need(*tools: str) -> None:
    """Skip the test when a tool is not there."""
    missing = [tool for tool in tools if shutil.which(tool, path=PATH) is None]
    if missing:
        pytest.skip(f"there is no {', '.join(missing)}")


def run(*command: str | Path, text: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], input=text, text=True, capture_output=True, timeout=TIMEOUT_S, check=check,
        env={**os.environ, "PATH": PATH, "LC_ALL": "C"},
    )  # fmt: skip


def partitioned(path: Path, script: str, mib: int = 16) -> Path:
    """Make a disk with a table from a script of sfdisk."""
    need("sfdisk")
    with path.open("wb") as disk:
        disk.truncate(mib << 20)
    run("sfdisk", "-q", "--no-reread", "--no-tell-kernel", path, text=script)
    return path


@dataclass(frozen=True)
class Listed:
    """A partition as sfdisk lists it, in bytes."""

    number: int
    start: int
    length: int
    kind: str


def partitioned_in_large_sectors(path: Path, sector_bytes: int) -> tuple[Path, list[Listed]]:
    """Make a disk with a PReP partition and another one, its table in other sectors, by fdisk; and list it by fdisk."""
    need("fdisk")
    with path.open("wb") as disk:
        disk.truncate(16 << 20)
    commands = f"g\nn\n1\n\n+2M\nn\n2\n\n+4M\nt\n1\n{PREP_GUID}\nw\n"
    run("fdisk", "-b", str(sector_bytes), path, text=commands)
    lines = run("fdisk", "-b", str(sector_bytes), "-l", "-o", "Start,Sectors,Type-UUID", path).stdout.splitlines()
    rows = [line.split() for line in lines[lines.index("") + 1 :] if line[:1] == " " or line[:1].isdecimal()]
    return path, [
        Listed(number, int(start) * sector_bytes, int(count) * sector_bytes, kind)
        for number, (start, count, kind) in enumerate(rows, 1)
    ]


def listed(path: Path) -> tuple[str, list[Listed]] | None:
    """Return the kind of table and the partitions that sfdisk finds; None when it finds no table."""
    done = run("sfdisk", "--json", path, check=False)
    if done.returncode:
        return None
    table = json.loads(done.stdout)["partitiontable"]
    found = [
        Listed(
            int(each["node"].removeprefix(str(path)).lstrip("p")),
            each["start"] * SECTOR,
            each["size"] * SECTOR,
            each["type"].upper(),
        )
        for each in table.get("partitions", ())
    ]
    return table["label"], found


def fat_disk(path: Path, files: dict[str, bytes], scratch: Path, *, mib: int, options: Sequence[str] = ()) -> Path:
    """Make a FAT file system with files, directories included."""
    need("mkfs.vfat", "mcopy", "mmd")
    with path.open("wb") as disk:
        disk.truncate(mib << 20)
    run("mkfs.vfat", *options, path)
    made: set[str] = set()
    for number, (name, data) in enumerate(files.items()):
        parts = name.strip("\\").split("\\")
        for depth in range(1, len(parts)):
            directory = "/".join(parts[:depth])
            if directory not in made:
                run("mmd", "-i", path, f"::/{directory}")
                made.add(directory)
        source = scratch / f"file{number}"
        source.write_bytes(data)
        run("mcopy", "-i", path, source, f"::/{'/'.join(parts)}")
    return path


def iso(path: Path, files: dict[str, bytes], scratch: Path, options: Sequence[str] = ()) -> Path:
    """Make a CD with files."""
    need("xorrisofs")
    root = scratch / "iso-root"
    shutil.rmtree(root, ignore_errors=True)
    for name, data in files.items():
        file = root.joinpath(*name.strip("\\").split("\\"))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    run("xorrisofs", "-quiet", *options, "-o", path, root)
    return path
