# SPDX-License-Identifier: GPL-2.0-or-later
"""NVRAM: a VIO device whose bytes the guest reaches through two RTAS calls (LoPAPR 7.3.1).

With the option `path` the contents live in a file. A store is in it when the guest goes on, so that whatever becomes of this
process it is kept; the disk has it a moment later, and before the VM has ended. Firmware stores byte by byte, thousands of
times: it cannot wait for the disk each time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from splitvisor.backend import StateError, Vm
from splitvisor.backend.vio import BusError, VioDevice, cells_property
from splitvisor.process.files import replaced_file
from splitvisor.rpc import trap_pb2
from vio_service.devices.nvram import state

DEFAULT_BYTES = 64 << 10
MIN_BYTES = 8 << 10
"""SLOF's partitions need this much."""
MAX_BYTES = 1 << 20

log = structlog.get_logger()


class Nvram(VioDevice):
    """Non-volatile memory.

    Options: `bytes`, its size, 8,192 (8 KiB) to 1,048,576 (1 MiB), 65,536 when not given; `path`, the file that keeps it, made at
    the first store when it is not there.

    Raises BusError for a bad size, or a file that cannot be read or has another size.
    """

    kind = "nvram"
    node_name = "nvram"
    device_type = "nvram"
    compatible = "qemu,spapr-nvram"
    option_names = frozenset({"bytes", "path"})

    def __init__(self, vm: Vm, unit_address: int, options: Mapping[str, str]) -> None:
        super().__init__(vm, unit_address, options)
        size = options.get("bytes", str(DEFAULT_BYTES))
        if not size.isascii() or not size.isdigit() or len(size) > 9 or not MIN_BYTES <= int(size) <= MAX_BYTES:
            raise BusError(f"nvram: bytes is {size!r}, but must be a number from {MIN_BYTES} to {MAX_BYTES}")
        self.path = Path(options["path"]) if options.get("path") else None
        self.contents = bytes(int(size)) if self.path is None else _load(self.path, int(size))
        self._file: int | None = None
        """The file's descriptor, from the first store on."""
        self._unsynced = False
        self._syncing: asyncio.Task[None] | None = None

    def properties(self) -> Sequence[trap_pb2.TreeProperty]:
        """Its size, for Linux' driver."""
        return (cells_property("#bytes", len(self.contents)),)

    def store(self, offset: int, data: bytes) -> None:
        """Replace bytes from offset. Raises OSError, and then nothing has changed."""
        contents = self.contents[:offset] + data + self.contents[offset + len(data) :]
        if self.path is not None and contents != self.contents:
            if self._file is None:
                self._file = _create(self.path, contents)
            else:
                os.pwrite(self._file, data, offset)
            self._unsynced = True
            if self._syncing is None or self._syncing.done():
                self._syncing = asyncio.get_running_loop().create_task(self._sync())
        self.contents = contents

    async def _sync(self) -> None:
        """Bring what was stored to the disk, until nothing more comes meanwhile."""
        while self._unsynced and self._file is not None:
            self._unsynced = False
            await asyncio.to_thread(_sync, os.dup(self._file))

    def save(self) -> bytes:
        """See VioDevice."""
        return state.save(self.contents)

    def restore(self, data: bytes) -> None:
        """See VioDevice. A file gets the saved contents."""
        contents = state.restored(data, self.name, len(self.contents))
        try:
            self.store(0, contents)
        except OSError as error:
            raise StateError(f"{self.name}: cannot write {self.path}: {error.strerror}") from error

    def close(self) -> None:
        """Have everything on the disk."""
        if self._file is not None:
            _sync(self._file)
            self._file = None


def _load(path: Path, size: int) -> bytes:
    """Return a file's contents, or zeros when there is no file yet."""
    try:
        with path.open("rb") as file:
            contents = file.read(size + 1)
    except FileNotFoundError:
        return bytes(size)
    except OSError as error:
        raise BusError(f"nvram: cannot read {path}: {error.strerror}") from error
    if len(contents) != size:
        raise BusError(f"nvram: {path} is not {size} bytes long", "correct the option bytes or choose another path")
    return contents


def _create(path: Path, contents: bytes) -> int:
    """Put a file with contents in path's place, in one step, and return its descriptor."""
    descriptor = -1
    try:
        with replaced_file(path) as file:
            file.write(contents)
            descriptor = os.dup(file.fileno())
    except BaseException:
        if descriptor >= 0:
            os.close(descriptor)
        raise
    return descriptor


def _sync(descriptor: int) -> None:
    """Bring a file's contents to the disk, and close the descriptor."""
    try:
        os.fdatasync(descriptor)
    except OSError as error:
        log.error("nvram is not on the disk", reason=error.strerror)
    finally:
        os.close(descriptor)
