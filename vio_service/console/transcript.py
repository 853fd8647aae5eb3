# SPDX-License-Identifier: GPL-2.0-or-later
"""Transcripts: what the consoles of each VM have said, as plain files that are rotated by size.

A directory has `VM-71000000.log` for each console, its predecessors `.1` (the newest) to `.N`, and `VM.positions` for each VM
(vio_service/console/transcript_journal.py). A file holds consecutive bytes of one life of a VM: a new life, or a gap that
a full disk left, begins a new file.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from splitvisor.process.files import WrongFileError, open_regular
from splitvisor.process.inputs import open_input
from splitvisor.service.serve import SettingError
from splitvisor.terminal.sequences import LOOK_BACK_BYTES, boundary_after

FILE_BYTES = 16 << 20
KEPT_FILES = 4
MIN_FILE_BYTES = 4096
MAX_KEPT_FILES = 99
LOCK_SECONDS = 2.0
"""How long a predecessor that was killed may take to be gone."""


@dataclass(frozen=True)
class TranscriptDirectory:
    """Where transcripts are kept, and how much of them."""

    path: Path
    file_bytes: int = FILE_BYTES
    """A file of this size, at least MIN_FILE_BYTES, is rotated."""
    kept_files: int = KEPT_FILES
    """Rotated files of each console that are kept, 1 to MAX_KEPT_FILES."""

    def lock(self) -> int:
        """Make the directory when it is new and claim it; return the descriptor that holds the claim.

        Raises SettingError for settings out of range, a directory that cannot be used, or one that another process has.
        """
        if self.file_bytes < MIN_FILE_BYTES:
            raise SettingError(f"--transcript-bytes {self.file_bytes}: give at least {MIN_FILE_BYTES}")
        if not 1 <= self.kept_files <= MAX_KEPT_FILES:
            raise SettingError(f"--transcript-files {self.kept_files}: give 1 to {MAX_KEPT_FILES}")
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            descriptor = open_regular(self.path / "lock", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise SettingError(f"--transcripts {self.path}: {error.strerror}", "give a directory that can be written") from error
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return descriptor
            except BlockingIOError:
                if time.monotonic() > deadline:
                    os.close(descriptor)
                    text = f"--transcripts {self.path}: another vio_service writes there; give each a directory of its own"
                    raise SettingError(text) from None
                time.sleep(0.02)

    def file(self, vm: str, unit_address: int) -> Path:
        """The path of a console's present file."""
        return self.path / f"{vm}-{unit_address:08x}.log"

    def first_unit(self, vm: str) -> int | None:
        """The lowest unit address of which a VM's transcript is here."""
        names = (path.name for path in self.path.glob(f"{vm}-????????.log"))
        units = [int(digits, 16) for name in names if re.fullmatch("[0-9a-f]{8}", digits := name[len(vm) + 1 : -4])]
        return min(units, default=None)

    def newest(self, vm: str, unit_address: int, limit: int) -> Iterator[bytes]:
        """Yield the newest limit bytes (0: all) of a console's files, from a whole unit on, in pieces of 64 KiB at most.

        All files are open before this returns its first piece, so that a rotation meanwhile leaves nothing out.
        """
        path = self.file(vm, unit_address)
        descriptors: list[int] = []
        try:
            for name in (path, *(rotated(path, number) for number in range(1, self.kept_files + 1))):
                with suppress(FileNotFoundError, WrongFileError):
                    descriptors.append(open_regular(name, os.O_RDONLY))
            sizes = [os.fstat(descriptor).st_size for descriptor in descriptors]
            surplus = max(sum(sizes) - limit, 0) if limit else 0
            lead = min(surplus, LOOK_BACK_BYTES)
            surplus -= lead
            yield b""
            for descriptor, size in reversed(list(zip(descriptors, sizes, strict=True))):
                start = min(surplus, size)
                surplus -= start
                while start < size and (data := os.pread(descriptor, min(size - start, 1 << 16), start)):
                    start += len(data)
                    if lead:
                        data, lead = _without_lead(data, lead)
                    if data:
                        yield data
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def _without_lead(data: bytes, lead: int) -> tuple[bytes, int]:
    """Return a piece without its first lead bytes and the unit that reaches beyond them, and how much lead is left."""
    if len(data) <= lead:
        return b"", lead - len(data)
    return data[boundary_after(data, lead) :], 0


def rotated(path: Path, number: int) -> Path:
    """The path that a file has after so many rotations."""
    return path.with_name(f"{path.name}.{number}")


class TranscriptFile:
    """One console's present file, and the stream positions that it holds.

    Args:
        path: of the file.
        kept_files: rotated files that are kept.
    """

    def __init__(self, path: Path, kept_files: int) -> None:
        self.path = path
        self._kept_files = kept_files
        self._descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
        self.size = os.fstat(self._descriptor).st_size
        self.previous = 0
        """Bytes of the youngest rotated file, when they are those just before this file's."""

    def append(self, data: bytes) -> None:
        """Write at the end. After an OSError the file is as it was before."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.pwrite(self._descriptor, view, self.size + len(data) - len(view)) :]
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(data)

    def cut(self, size: int) -> None:
        """Drop what is beyond size: it was written and not committed."""
        os.ftruncate(self._descriptor, size)
        self.size = size

    def tail(self, limit: int) -> bytes:
        """The newest limit bytes of this file and of the one before that it continues."""
        own = os.pread(self._descriptor, min(self.size, limit), max(self.size - limit, 0))
        wanted = min(limit - len(own), self.previous)
        if not wanted:
            return own
        try:
            with open_input(rotated(self.path, 1)) as before:
                before.seek(self.previous - wanted)
                older = before.read(wanted)
        except OSError:
            return own
        return older + own if len(older) == wanted else own

    def rotate(self, *, continues: bool) -> None:
        """Begin a new file; continues: its first byte follows this one's last."""
        if not self.size:
            self.previous = self.previous if continues else 0
            return
        fresh = self.path.with_name(f"{self.path.name}.new")  # Before anything is renamed: a full disk changes nothing.
        descriptor = open_regular(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        for number in range(self._kept_files, 1, -1):
            with suppress(FileNotFoundError):
                rotated(self.path, number - 1).rename(rotated(self.path, number))
        with suppress(FileNotFoundError):
            self.path.rename(rotated(self.path, 1))
        fresh.rename(self.path)
        os.close(self._descriptor)
        self._descriptor = descriptor
        self.previous = self.size if continues else 0
        self.size = 0

    def close(self) -> None:
        """Let go of the file; more than once does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
