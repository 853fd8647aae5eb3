# SPDX-License-Identifier: GPL-2.0-or-later
"""Images to test disks with, and the programs that make, serve and compare them."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from splitvisor.block.buffers import Buffers
from splitvisor.block.device import BlockDevice
from splitvisor.block.disk import Disk, OnError
from splitvisor.block.nbd.device import Patience
from splitvisor.block.open import open_disk
from splitvisor.block.options import parse_disk

SECONDS = 60.0
"""After which something hangs."""
needs_qemu = pytest.mark.skipif(shutil.which("qemu-nbd") is None, reason="needs qemu-nbd; apt-get install qemu-utils")
needs_nbdkit = pytest.mark.skipif(shutil.which("nbdkit") is None, reason="needs nbdkit; apt-get install nbdkit")


def run(test: Callable[[], Coroutine[None, None, None]]) -> None:
    """Run a test to its end."""

    async def limited() -> None:
        async with asyncio.timeout(4 * SECONDS):
            await test()

    asyncio.run(limited())


@asynccontextmanager
async def opened(
    text: str, *, on_error: OnError | None = None, patience: Patience | None = None, wait_for_lock: float = 0.0
) -> AsyncIterator[Disk]:
    """Have a disk open."""
    disk = await open_disk(parse_disk(text), on_error=on_error, patience=patience, wait_for_lock=wait_for_lock)
    try:
        yield disk
    finally:
        await disk.close()


async def read(disk: BlockDevice, offset: int, length: int) -> bytes:
    """Return what a disk has."""
    data = bytearray(b"\xa5" * length)
    await disk.read(offset, Buffers.of(data))
    return bytes(data)


def raw_image(path: Path, size: int) -> Path:
    """Make an empty raw image."""
    with path.open("wb") as file:
        file.truncate(size)
    return path


def qcow2_image(path: Path, size: int) -> Path:
    """Make an empty image of the format that its name ends in."""
    subprocess.run(["qemu-img", "create", "-q", "-f", path.suffix[1:], path, str(size)], check=True)
    return path


def contents(path: Path, directory: Path) -> bytes:
    """Return what qemu-img reads of an image that nobody has open."""
    raw = directory / "contents.raw"
    subprocess.run(["qemu-img", "convert", "-f", path.suffix[1:], "-O", "raw", path, raw], check=True)
    return raw.read_bytes()


class Nbdkit:
    """nbdkit at a unix socket."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.socket = directory / "nbd.sock"
        self._pid_file = directory / "nbdkit.pid"
        self._command = ["nbdkit", "-f", "-U", str(self.socket), "-P", str(self._pid_file), *arguments]
        self.uri = f"nbd+unix:///?socket={self.socket}"
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        self.socket.unlink(missing_ok=True)
        self._pid_file.unlink(missing_ok=True)
        self.process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        async with asyncio.timeout(SECONDS):
            while not self._pid_file.exists():
                assert self.process.poll() is None
                await asyncio.sleep(0.01)

    def kill(self) -> None:
        """End it as if its host had failed."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def processes_of(path: Path) -> list[int]:
    """Return the qemu-nbd processes that have an image."""
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdecimal():
            try:
                words = (each / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"qemu-nbd") and os.fsencode(path) in words:
                found.append(int(each.name))
    return found
