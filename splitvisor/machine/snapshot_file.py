# SPDX-License-Identifier: GPL-2.0-or-later
"""The format of a snapshot: a header, then sections, in a file or on the way to another cpu_service.

    header     8 bytes magic, 4 bytes version
    section    4 bytes kind, 8 bytes length, 32 bytes SHA-256 of kind, length and payload; the payload
    ...
    END        its payload is the SHA-256 of all digests before it

Numbers are big-endian. The payload of each kind is a message of state.proto. Sections come in the order of Kind: MACHINE, VCPUS
and INTERRUPTS once, the others any number of times. Whatever is wrong with a snapshot ends in SnapshotError.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from splitvisor.declarations.state import MAX_STATE_BYTES
from splitvisor.errors.problem import ProblemError
from splitvisor.process.inputs import open_input
from splitvisor.rpc import state_pb2 as pb

MAGIC: Final = b"SVISORSN"
VERSION: Final = 1
MACHINE_VERSION: Final = 1
"""Of SavedMachine, SavedVcpus and SavedInterrupts."""

_HEADER = struct.Struct(">8sI")
_SECTION = struct.Struct(">IQ")
_DIGEST_BYTES = 32


class SnapshotError(ProblemError):
    """A snapshot is broken, of another version, or does not fit here. One line for people."""


class Kind(IntEnum):
    """What a section holds."""

    MACHINE = 1
    VCPUS = 2
    INTERRUPTS = 3
    BACKEND = 4
    RAM = 5
    HASH_TABLE = 6
    END = 7
    TCES = 8


_LIMITS: Final = {
    Kind.MACHINE: 1 << 20,
    Kind.VCPUS: 1 << 20,
    Kind.INTERRUPTS: 1 << 20,
    Kind.BACKEND: MAX_STATE_BYTES + (1 << 20),
    Kind.RAM: 2 << 20,
    Kind.HASH_TABLE: 2 << 20,
    Kind.TCES: 2 << 20,
    Kind.END: _DIGEST_BYTES,
}
"""Bytes of a payload: what is read into memory on the word of a length."""
_ORDER: Final = (
    Kind.MACHINE, Kind.VCPUS, Kind.INTERRUPTS, Kind.BACKEND, Kind.RAM, Kind.HASH_TABLE, Kind.TCES, Kind.END,
)  # fmt: skip
_ONCE: Final = frozenset({Kind.MACHINE, Kind.VCPUS, Kind.INTERRUPTS})


class Source(Protocol):
    """The source of a snapshot."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, fewer than size at the end only."""


class SectionWriter:
    """Makes the bytes of a snapshot, section by section."""

    def __init__(self) -> None:
        self._digests = hashlib.sha256()

    def header(self) -> bytes:
        """Return the header, the start of a snapshot."""
        return _HEADER.pack(MAGIC, VERSION)

    def section(self, kind: Kind, payload: bytes) -> bytes:
        """Return a section."""
        head = _SECTION.pack(kind, len(payload))
        digest = _digest(head, payload)
        self._digests.update(digest)
        return b"".join((head, digest, payload))

    def end(self) -> bytes:
        """Return the last section."""
        return self.section(Kind.END, self._digests.digest())


def read_sections(source: Source) -> Iterator[tuple[Kind, bytes]]:
    """Yield (kind, payload) of every section before END, each checked; ends once END is there and right. Raises SnapshotError."""
    magic, version = _HEADER.unpack(_read(source, _HEADER.size, "its header"))
    if magic != MAGIC:
        raise SnapshotError("this is not a snapshot of Splitvisor")
    if version != VERSION:
        raise SnapshotError(f"the snapshot has format version {version}, this Splitvisor knows version {VERSION}")
    digests = hashlib.sha256()
    last, number = -1, 0
    while True:
        number += 1
        where = f"section {number}"
        head = _read(source, _SECTION.size, where)
        kind, length = _SECTION.unpack(head)
        if kind not in _LIMITS or length > _LIMITS[Kind(kind)]:
            raise SnapshotError(f"{where} of the snapshot is damaged: kind {kind}, {length} bytes")
        place = _ORDER.index(Kind(kind))
        if place < last or (place == last and kind in _ONCE) or (number <= len(_ONCE) and kind != number):
            raise SnapshotError(f"{where} of the snapshot is {Kind(kind).name.lower()}, which does not belong there")
        last = place
        stated = _read(source, _DIGEST_BYTES, where)
        payload = _read(source, length, where)
        if _digest(head, payload) != stated:
            raise SnapshotError(f"{where} of the snapshot is damaged: its SHA-256 is wrong")
        if kind == Kind.END:
            if payload != digests.digest():
                raise SnapshotError("the snapshot is damaged: sections are missing")
            return
        digests.update(stated)
        yield Kind(kind), payload


def parse_machine(payload: bytes) -> pb.SavedMachine:
    """Return the message of a MACHINE section. Raises SnapshotError, also for another version."""
    try:
        machine = pb.SavedMachine.FromString(payload)
    except DecodeError as error:
        raise SnapshotError("the snapshot does not describe its machine") from error
    if machine.version != MACHINE_VERSION:
        raise SnapshotError(f"the saved machine has version {machine.version}, this Splitvisor knows version {MACHINE_VERSION}")
    return machine


def read_machine(path: Path) -> pb.SavedMachine:
    """Return what a snapshot file is of, without reading the rest. Raises SnapshotError and OSError."""
    with open_input(path) as file:
        _, payload = next(read_sections(file))
    return parse_machine(payload)


def _digest(head: bytes, payload: bytes) -> bytes:
    digest = hashlib.sha256(head)
    digest.update(payload)
    return digest.digest()


def _read(source: Source, size: int, where: str) -> bytes:
    data = source.read(size)
    if len(data) != size:
        raise SnapshotError(f"the snapshot ends within {where}; it is incomplete")
    return data
