# SPDX-License-Identifier: GPL-2.0-or-later
"""NVRAM: a VIO device whose bytes the guest reaches through two RTAS calls (LoPAPR 7.3.1).

With the option `path` the contents live in a file, which the VM has for itself. A store is on the disk when the guest goes on: it
outlives this process and a power cut, as it does in a machine's battery-backed memory. SLOF makes 430 stores when it formats an
NVRAM, and Linux a dozen for a variable; a disk takes each in half a millisecond.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from splitvisor.backend import StateError, Vm
from splitvisor.backend.vio import BusError, VioDevice, cells_property
from splitvisor.limits import NVRAM_BYTES as DEFAULT_BYTES
from splitvisor.limits import NVRAM_MAX as MAX_BYTES
from splitvisor.limits import NVRAM_MIN as MIN_BYTES
from splitvisor.process.kept_file import KeptFile
from splitvisor.process.locks import InUseError
from splitvisor.rpc import trap_pb2
from vio_service.devices.nvram import state

HANDOVER_SECONDS = 10.0
"""How long the process that a machine moves away from may keep the file once the machine runs here."""
HANDOVER_PAUSE_SECONDS = 0.02

log = structlog.get_logger()


class Nvram(VioDevice):
    """Non-volatile memory.

    Options: `bytes`, its size, 8,192 (8 KiB) to 1,048,576 (1 MiB), 65,536 when not given; `path`, the file that keeps it, made
    when it is not there.

    Raises BusError for a bad size; plugged() does for a file that another VM has, that is no regular file of this size, or that
    cannot be written.
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
        self.contents = bytes(int(size))
        self._restored = False
        self._file: KeptFile | None = None
        self._taking: asyncio.Task[None] | None = None

    def properties(self) -> Sequence[trap_pb2.TreeProperty]:
        """Its size, for Linux' driver."""
        return (cells_property("#bytes", len(self.contents)),)

    def plugged(self, host: Any) -> None:
        """See VioDevice. From here on the file is this VM's."""
        if self.path is None:
            return
        try:
            # Where a machine moves to, its file is still in use by where it comes from.
            self._file = KeptFile(self.path, len(self.contents), wait=self.vm.moved)
            if self._restored:
                self._write_contents()
            else:
                self.contents = self._file.read()
        except OSError as error:
            self.close()
            remedy = "give each VM a file of its own" if isinstance(error, InUseError) else "correct that, or give another file"
            raise BusError(f"nvram: {self.path}: {error.strerror}", remedy) from error

    async def store(self, offset: int, data: bytes) -> None:
        """Replace bytes from offset. Raises OSError, and then nothing has changed."""
        before = self.contents[offset : offset + len(data)]
        if self._file is not None and data != before:
            await self._own()
            try:
                self._file.write(offset, data)
                await self._file.synced()
            except OSError:
                with suppress(OSError):
                    self._file.write(offset, before)
                raise
        # Another vCPU may have stored elsewhere meanwhile.
        self.contents = self.contents[:offset] + data + self.contents[offset + len(data) :]

    async def _own(self) -> None:
        """Wait until the file is this VM's. Raises InUseError when it does not become that."""
        assert self._file is not None
        if self._taking is not None and not self._file.locked:
            await asyncio.shield(self._taking)
        self._file.lock()

    def save(self) -> bytes:
        """See VioDevice."""
        return state.save(self.contents)

    def restore(self, data: bytes) -> None:
        """See VioDevice. A file gets the saved contents."""
        self.contents = state.restored(data, self.name, len(self.contents))
        self._restored = True
        try:
            self._write_contents()
        except OSError as error:
            raise StateError(f"{self.name}: cannot write {self.path}: {error.strerror}") from error

    def _write_contents(self) -> None:
        if self._file is not None and self._file.locked:
            self._file.write(0, self.contents)
            self._file.sync()

    def resumed(self) -> None:
        """See VioDevice. A machine that has moved here takes over its file."""
        if self._file is not None and not self._file.locked:
            self._taking = asyncio.get_running_loop().create_task(self._take_over(self._file))

    async def _take_over(self, file: KeptFile) -> None:
        deadline = time.monotonic() + HANDOVER_SECONDS
        while not file.locked and self._file is file:
            try:
                file.lock()
                self._write_contents()
            except OSError as error:
                if not isinstance(error, InUseError) or time.monotonic() > deadline:
                    log.error("nvram is not in its file", path=str(self.path), reason=error.strerror)
                    return
                await asyncio.sleep(HANDOVER_PAUSE_SECONDS)

    def close(self) -> None:
        """Let go of the file; everything is on the disk."""
        if self._file is not None:
            self._file.close()
            self._file = None
