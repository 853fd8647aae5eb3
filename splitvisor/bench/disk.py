# SPDX-License-Identifier: GPL-2.0-or-later
"""`splitvisor bench disk`: a guest's disk with fio, in turn with QEMU's spapr-vscsi when wanted.

Each guest has a copy of one raw image in memory, so that no disk of the host is measured.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from splitvisor.bench.peers import BenchError, Peer
from splitvisor.bench.shell import guests_at_hand
from splitvisor.bench.versus import Figure, compare, guests, machine_file
from splitvisor.guests.commands import CommandError, Commands
from splitvisor.guests.fio import fio

IMAGE_BYTES = 256 << 20
MEMORY_FILES = Path("/dev/shm")
SECONDS = 3.0
"""Of each job."""
DISK = "/dev/sda"
DEPTH_1, OTHERS = 0.7, 1.0
"""How many times as fast as QEMU's the disk is to be."""


def figures(seconds: float) -> list[Figure]:
    """Return what is measured, each for so long."""

    def transfers(rw: str, depth: int) -> Callable[[Commands], float]:
        def measure(commands: Commands) -> float:
            how = {"ioengine": "libaio", "iodepth": depth} if depth > 1 else {"ioengine": "psync"}
            done = fio(commands, rw=rw, bs="4k", norandommap=1, **_common(seconds), **how)
            return done.reads.per_second + done.writes.per_second

        return measure

    def throughput(rw: str) -> Callable[[Commands], float]:
        def measure(commands: Commands) -> float:
            done = fio(commands, rw=rw, bs="1m", ioengine="psync", **_common(seconds))
            return (done.reads.bytes_per_second + done.writes.bytes_per_second) / 1e6

        return measure

    random_ones = [
        Figure(
            f"random_{what}_{depth}", f"4 KiB random {what}s, depth {depth}", "/s", transfers(f"rand{what}", depth),
            DEPTH_1 if depth == 1 else OTHERS,
        )
        for depth in (1, 16) for what in ("read", "write")
    ]  # fmt: skip
    sequential = [
        Figure(f"sequential_{what}", f"1 MiB sequential {what}s", "MB/s", throughput(what), OTHERS) for what in ("read", "write")
    ]
    return [*random_ones, *sequential]


def measure(runs: int, peers: Sequence[Peer], say: Callable[[str], None], seconds: float = SECONDS) -> dict[str, Any]:
    """Run, print each figure as it comes, return them all. Raises BenchError."""
    guests_at_hand(say)
    place = str(MEMORY_FILES) if MEMORY_FILES.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="sv-bench-", dir=place) as name:
        directory = Path(name)
        image, copies = directory / "ours.raw", [directory / f"{number}.raw" for number in range(len(peers))]
        make_images(image, *copies)
        own = ["--machine", str(machine_file(directory, "v-scsi", "disk0", str(image)))]
        boots = guests(own, {peer: qemu_disk(copy) for peer, copy in zip(peers, copies, strict=True)})
        try:
            found = compare(boots, prepare, figures(seconds), runs, say)
        except CommandError as error:
            raise BenchError(str(error)) from error
    return {"image_bytes": IMAGE_BYTES, "seconds": seconds, **found}


def make_images(first: Path, *copies: Path) -> None:
    """Write a raw image without holes, and copies. Raises BenchError."""
    generator = random.Random(1)
    try:
        with first.open("wb") as file:
            for _ in range(IMAGE_BYTES >> 20):
                file.write(generator.randbytes(1 << 20))
        for copy in copies:
            shutil.copyfile(first, copy)
    except OSError as error:
        raise BenchError(
            f"{error.filename or first}: {error.strerror}; the bench needs {IMAGE_BYTES >> 20} MiB a guest"
        ) from error


def qemu_disk(image: Path) -> list[str]:
    """Return QEMU's options for a raw image as a disk of a spapr-vscsi."""
    drive = f"file={image},if=none,id=disk,format=raw,cache=writeback,aio=threads"
    return ["-device", "spapr-vscsi,id=scsi", "-drive", drive, "-device", "scsi-hd,bus=scsi.0,drive=disk"]


def prepare(commands: Commands) -> None:
    """Wait until the guest has its disk. Raises CommandError."""
    commands.wait_for(f"test -b {DISK}")


def _common(seconds: float) -> dict[str, str | int]:
    return {"filename": DISK, "direct": 1, "time_based": 1, "runtime": f"{seconds:.0f}", "invalidate": 0}
