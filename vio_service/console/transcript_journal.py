# SPDX-License-Identifier: GPL-2.0-or-later
"""What makes transcripts exact: output is committed before it is acknowledged, and what was committed is known after a crash.

A commit appends the output of a batch of calls to the consoles' files, then writes one small record: of each vCPU the sequence of
its last call that printed, of each console how long its file is. Only then readers see the output and cpu_service gets its
acknowledgement. A process that is killed between the two leaves bytes that the record does not count; its successor cuts them
off, and cpu_service sends their calls again. Calls that the record counts are not written a second time.

write(2) is what a commit waits for: it outlives the process, not the host.

    VM.positions    two slots of 16 KiB, written in turn; the one with the higher generation and a good checksum counts

    0     magic, generation, incarnation, 8 sequences by vCPU, number of consoles
    98    a console: unit address, instance, bytes in its file, position after its last byte, bytes in the file before, input
    end   CRC-32 of all before
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from splitvisor.backend.vio import BusError
from splitvisor.limits import is_vm_name
from splitvisor.process.files import open_regular
from splitvisor.process.text import shown
from splitvisor.terminal.sequences import LOOK_BACK_BYTES
from vio_service.console.console import Console
from vio_service.console.output_log import BACKLOG_BYTES
from vio_service.console.transcript import TranscriptDirectory, TranscriptFile, rotated

MAX_VCPUS = 8
SLOT_BYTES = 16 << 10
_MAGIC = b"SVtranscr1\0\0\0\0\0\0"
_HEADER = struct.Struct(f"<16sQQ{MAX_VCPUS}QH")
_CONSOLE = struct.Struct("<I5Q")
_CRC = struct.Struct("<I")

log = structlog.get_logger()


@dataclass(frozen=True)
class _Committed:
    """What a record says of one console."""

    instance: int
    size: int
    end: int
    previous: int
    input_received: int


@dataclass(frozen=True)
class _Record:
    generation: int
    incarnation: int
    sequences: tuple[int, ...]
    consoles: Mapping[int, _Committed]


class _Transcript:
    """One console, its file, and its output that is not committed yet."""

    def __init__(self, console: Console, file: TranscriptFile) -> None:
        self.console = console
        self.file = file
        self.pending = bytearray()
        self.missing = 0
        """Bytes that the file lacks since it could be written last."""

    def is_full(self, file_bytes: int) -> bool:
        """True when another file had better begin: not in the middle of a sequence, unless that has no end."""
        surplus = self.file.size - file_bytes
        return surplus >= 0 and (not self.console.output.open_unit() or surplus >= LOOK_BACK_BYTES)


class Journal:
    """The transcripts of one VM.

    Args:
        directory: where they are; its lock is held.
        vm: the VM's name.
        incarnation: of its cpu_service. The same one as before goes on where the record ends; another one begins anew.

    Raises BusError when the VM's name is none, or its files cannot be opened.
    """

    def __init__(self, directory: TranscriptDirectory, vm: str, incarnation: int) -> None:
        if not is_vm_name(vm):
            raise BusError(f"{vm!r} is not a name for a VM with transcripts", "use 1 to 63 characters of a-z, 0-9 and -")
        self._directory, self._vm, self._incarnation = directory, vm, incarnation
        try:
            self._descriptor = open_regular(directory.path / f"{vm}.positions", os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise BusError(f"transcripts of {vm}: {directory.path / vm}.positions: {error.strerror}") from error
        self._transcripts: dict[int, _Transcript] = {}
        found = _read_record(self._descriptor)
        self._generation = 0 if found is None else found.generation
        if found is None or found.incarnation != incarnation:
            found = _Record(0, incarnation, (0,) * MAX_VCPUS, {})
        self._restored = found
        self._sequences = list(found.sequences)

    def add(self, console: Console) -> None:
        """Keep a console's transcript from now on; one that a former process had goes on as it was. Raises BusError."""
        path = self._directory.file(self._vm, console.unit_address)
        known = self._restored.consoles.get(console.unit_address)
        try:
            file = TranscriptFile(path, self._directory.kept_files)
            if known is None:
                file.rotate(continues=False)
            else:
                _bring_back(file, known)
                console.restore(known.instance, known.end, file.tail(BACKLOG_BYTES + LOOK_BACK_BYTES), known.input_received)
        except OSError as error:
            raise BusError(f"transcript {path}: {error.strerror}") from error
        console.transcript = shown(str(path))
        console.on_received = self.commit
        self._transcripts[console.unit_address] = _Transcript(console, file)
        self._save()

    def remove(self, console: Console) -> None:
        """The console is gone; its files stay."""
        transcript = self._transcripts.pop(console.unit_address, None)
        if transcript is not None:
            transcript.file.close()
            self._save()

    def append(self, vcpu: int, sequence: int, console: Console, data: bytes) -> None:
        """Take output of one call, for the next commit. A call that was committed before is left out."""
        if sequence <= self._restored.sequences[vcpu]:
            return
        self._transcripts[console.unit_address].pending += data
        self._sequences[vcpu] = sequence

    def commit(self) -> None:
        """Make everything that was appended last, then show it to the readers."""
        written = [it for it in self._transcripts.values() if it.pending]
        for transcript in written:
            self._write(transcript)
        self._save({it.console.unit_address: len(it.pending) for it in written})
        for transcript in written:
            transcript.console.write(bytes(transcript.pending))
            transcript.pending.clear()
        full = [it for it in written if it.is_full(self._directory.file_bytes)]
        for transcript in full:
            try:
                transcript.file.rotate(continues=True)
            except OSError as error:
                log.warning("transcript is not rotated", path=str(transcript.file.path), reason=str(error))
        if full:
            self._save()

    def _write(self, transcript: _Transcript) -> None:
        """Append to the file. A disk that is full must not stop the guest: what is missing is counted and logged."""
        path = str(transcript.file.path)
        try:
            if transcript.missing:
                transcript.file.rotate(continues=False)
            transcript.file.append(bytes(transcript.pending))
        except OSError as error:
            if not transcript.missing:
                log.error("transcript cannot be written, output is missing there", path=path, reason=str(error))
            transcript.missing += len(transcript.pending)
            return
        if transcript.missing:
            log.warning("transcript is written again, to a new file", path=path, missing_bytes=transcript.missing)
            transcript.missing = 0

    def _save(self, unseen: Mapping[int, int] | None = None) -> None:
        """Write the record. unseen: bytes by unit address that are in the files and that the consoles do not have yet."""
        self._generation += 1
        consoles = [
            _CONSOLE.pack(
                unit,
                it.console.instance,
                it.file.size,
                it.console.output.end + (unseen or {}).get(unit, 0),
                it.file.previous,
                it.console.input_received,
            )
            for unit, it in self._transcripts.items()
        ]
        header = _HEADER.pack(_MAGIC, self._generation, self._incarnation, *self._sequences, len(consoles))
        record = header + b"".join(consoles)
        record += _CRC.pack(zlib.crc32(record))
        try:
            os.pwrite(self._descriptor, record, SLOT_BYTES * (self._generation & 1))
        except OSError as error:
            log.error("the record of transcripts cannot be written", vm=self._vm, reason=str(error))

    def close(self) -> None:
        """Commit, and let go of the files; more than once does nothing."""
        if self._descriptor < 0:
            return
        self.commit()
        for transcript in self._transcripts.values():
            transcript.console.on_received = None
            transcript.file.close()
        os.close(self._descriptor)
        self._descriptor = -1


def _bring_back(file: TranscriptFile, known: _Committed) -> None:
    """Bring a file to the length that was committed."""
    if file.size >= known.size:
        file.cut(known.size)
        file.previous = known.previous
    elif not file.size and _size(file) == known.size:  # Killed between a rotation and the record of it.
        file.previous = known.size
    else:
        log.warning("transcript is shorter than it was, a new file begins", path=str(file.path))
        file.rotate(continues=False)


def _size(file: TranscriptFile) -> int:
    try:
        return rotated(file.path, 1).stat().st_size
    except FileNotFoundError:
        return -1


def _read_record(descriptor: int) -> _Record | None:
    """Return the newest whole record; None when there is none."""
    records = [_parse(os.pread(descriptor, SLOT_BYTES, SLOT_BYTES * slot)) for slot in (0, 1)]
    return max((record for record in records if record is not None), key=lambda record: record.generation, default=None)


def _parse(slot: bytes) -> _Record | None:
    if len(slot) < _HEADER.size + _CRC.size:
        return None
    magic, generation, incarnation, *sequences, count = _HEADER.unpack_from(slot)
    end = _HEADER.size + count * _CONSOLE.size
    if magic != _MAGIC or len(slot) < end + _CRC.size or _CRC.unpack_from(slot, end)[0] != zlib.crc32(slot[:end]):
        return None
    consoles = {unit: _Committed(*rest) for unit, *rest in _CONSOLE.iter_unpack(slot[_HEADER.size : end])}
    return _Record(generation, incarnation, tuple(sequences), consoles)
