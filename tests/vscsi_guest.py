# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's driver of a v-scsi adapter: it lays out information units by the offsets of Linux's srp.h and viosrp.h."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from splitvisor.scsi.unit import LogicalUnit
from tests.fake_vm import BytesWindow, FakeVm
from tests.scsi_host import until
from vio_service.devices.vscsi.device import VScsi

SRP, MAD = 1, 2
"""Formats of queue entries."""
DIRECT, INDIRECT = 1, 2
"""Formats of data descriptors."""
PAGE = 4096
READ, WRITE = 1, 2
"""Permissions of a TCE, for the device."""
UNIT = 0x7100_0002
IDS = 8
"""A LUN's first two bytes: 0x8000, the target's ID from here on, the bus from 5 on, the unit."""


def lun(target: int, bus: int = 0, unit: int = 0) -> int:
    """Return what Linux sends for a target."""
    return (0x8000 | target << IDS | bus << 5 | unit) << 48


def entry(kind: int, ioba: int, length: int = 256) -> bytes:
    """Return a queue entry that has an information unit."""
    return struct.pack(">BBBBHHQ", 0x80, kind, 0, 0, 0, length, ioba)


LUN_0 = lun(0)


@dataclass(frozen=True)
class Data:
    """The descriptors of one direction, as they stand in a command."""

    format: int = 0
    count: int = 0
    descriptors: bytes = b""

    @classmethod
    def direct(cls, ioba: int, length: int) -> Data:
        """One buffer."""
        return cls(DIRECT, 0, descriptor(ioba, length))

    @classmethod
    def table(cls, ioba: int, buffers: Sequence[tuple[int, int]], inline: int, count: int | None = None) -> Data:
        """A table at an address, whose first entries are in the command, too. count: what the command says of that."""
        head = descriptor(ioba, 16 * len(buffers)) + struct.pack(">I", sum(length for _, length in buffers) & 0xFFFFFFFF)
        return cls(INDIRECT, inline if count is None else count, head + descriptors(buffers[:inline]))


NO_DATA = Data()


def descriptor(ioba: int, length: int) -> bytes:
    """Return a direct descriptor; its key means nothing."""
    return struct.pack(">QII", ioba, 0xDEADBEEF, length)


def descriptors(buffers: Sequence[tuple[int, int]]) -> bytes:
    """Return the entries of a table."""
    return b"".join(descriptor(*each) for each in buffers)


_tags = itertools.count(0x1122_3344_5566_7788)


def new_tag() -> bytes:
    """Return a tag that no other request has."""
    return next(_tags).to_bytes(8, "big")


def login(tag: bytes, formats: int = 6) -> bytes:
    """Return SRP_LOGIN_REQ."""
    return struct.pack(">B7x8sI4xHB5x16x16x", 0x00, tag, 256, formats, 0)


def command(
    cdb: bytes, unit: int, tag: bytes, out: Data = NO_DATA, into: Data = NO_DATA, attribute: int = 0, more_cdb: bytes = b""
) -> bytes:
    """Return SRP_CMD. more_cdb: what does not fit into 16 bytes, in words."""
    formats = out.format << 4 | into.format
    head = struct.pack(">B4xBBB8s4xQxBxB16s", 0x02, formats, out.count, into.count, tag, unit, attribute, len(more_cdb), cdb)
    return head + more_cdb + out.descriptors + into.descriptors


def task(function: int, unit: int, tag: bytes, task_tag: bytes = bytes(8)) -> bytes:
    """Return SRP_TSK_MGMT."""
    return struct.pack(">B7x8s4xQ2xBx8s8x", 0x01, tag, unit, function, task_tag)


def datagram(kind: int, tag: bytes, buffer: int = 0, length: int = 0) -> bytes:
    """Return a MAD with a buffer."""
    return struct.pack(">IHH8sQ", kind, 0x5555, length, tag, buffer)


@dataclass(frozen=True)
class Response:
    """SRP_RSP, at the offsets that Linux reads."""

    raw: bytes

    def _word(self, offset: int) -> int:
        return int.from_bytes(self.raw[offset : offset + 4], "big")

    @property
    def credit(self) -> int:
        """How many requests the guest may have more."""
        return self._word(4)

    @property
    def tag(self) -> bytes:
        """Of the request."""
        return self.raw[8:16]

    @property
    def flags(self) -> int:
        """RSPVALID 1, SNSVALID 2, DOOVER 4, DOUNDER 8, DIOVER 0x10, DIUNDER 0x20."""
        return self.raw[18]

    @property
    def status(self) -> int:
        """SCSI's."""
        return self.raw[19]

    @property
    def residual(self) -> int:
        """What Linux sets: of data out if it looks at that, else of data in."""
        if self.flags & 4:
            return self._word(20)
        return self._word(24) if self.flags & 0x10 else 0

    @property
    def sense(self) -> tuple[int, int, int]:
        """Key, code and qualifier, of sense data where Linux takes it from."""
        assert self.status == 2, self.status
        sense = self.raw[36 : 36 + self._word(28)]
        return sense[2] & 0xF, sense[12], sense[13]

    @property
    def response_code(self) -> int:
        """Of a task management request."""
        assert (self.flags & 1, self._word(28), self._word(32)) == (1, 0, 4)
        return self._word(36)


@dataclass(frozen=True)
class Told:
    """An entry from the adapter."""

    raw: bytes

    @property
    def fields(self) -> Mapping[str, int]:
        """What it says."""
        names = ("valid", "format", "reserved", "status", "timeout", "length", "tag")
        return dict(zip(names, struct.unpack(">BBBBHHQ", self.raw), strict=True))


RAM_BYTES = 4 << 20
IU_AT = 0x8000
"""Where requests are, unless a test puts them elsewhere: bus addresses and those of memory differ by SHIFT."""
DATA_AT = 0x10_0000
SHIFT = 0x2_0000


class Guest:
    """A guest in this process that drives an adapter.

    Args:
        options: the adapter's.
        units: of its target, by number, besides those of the options.
    """

    def __init__(self, options: Mapping[str, str] | None = None, units: Mapping[int, LogicalUnit] | None = None) -> None:
        self.vm = FakeVm(size=RAM_BYTES)
        self.adapter = VScsi(self.vm, UNIT, options or {})
        assert isinstance(self.adapter.window, BytesWindow)
        self.tces = self.adapter.window.tces
        for number, unit in (units or {}).items():
            self.adapter.target.add(number, unit)
        self.map(0, RAM_BYTES // PAGE - SHIFT // PAGE)
        self.adapter.open_queue()

    def map(self, first: int, pages: int, permission: int = READ | WRITE) -> None:
        """Let the adapter reach pages of bus addresses."""
        for page in range(first, first + pages):
            self.tces[page] = page * PAGE + SHIFT | permission

    def put(self, ioba: int, data: bytes) -> None:
        """Fill memory at a bus address."""
        self.vm.ram.data[ioba + SHIFT : ioba + SHIFT + len(data)] = data

    def memory(self, ioba: int, length: int) -> bytes:
        """Return memory at a bus address."""
        return bytes(self.vm.ram.data[ioba + SHIFT : ioba + SHIFT + length])

    def told(self, since: int = 0) -> list[Told]:
        """Return what the adapter has put into the queue; since: from which time on that it put something, the first is 0."""
        entries = b"".join(each for _, _, each in self.vm.entries[since:])
        return [Told(entries[start : start + 16]) for start in range(0, len(entries), 16)]

    async def queue(self, raw: bytes) -> Told:
        """Put an entry into the queue, and wait for one from the adapter."""
        before = len(self.vm.entries)
        self.adapter.received(raw)
        await until(lambda: len(self.vm.entries) > before)
        [told] = self.told(before)
        return told

    async def ask(self, iu: bytes, kind: int = SRP, ioba: int = IU_AT, length: int = 256) -> tuple[Told, bytes]:
        """Have a request answered; return the entry, and what stands in the request's place."""
        self.put(ioba, iu)
        told = await self.queue(entry(kind, ioba, length))
        return told, self.memory(ioba, 256)

    async def run(
        self, cdb: str | bytes, out: Data = NO_DATA, into: Data = NO_DATA, unit: int = LUN_0, ioba: int = IU_AT
    ) -> Response:
        """Have a command run."""
        tag = new_tag()
        told, answer = await self.ask(
            command(bytes.fromhex(cdb) if isinstance(cdb, str) else cdb, unit, tag, out, into), ioba=ioba
        )
        response = Response(answer)
        assert told.fields["tag"] == int.from_bytes(tag, "big")
        assert (told.fields["valid"], told.fields["format"], told.fields["status"]) == (0x80, SRP, 0)
        assert answer[0] == 0xC1
        assert response.tag == tag
        return response

    async def ready(self, unit: int = LUN_0) -> Guest:
        """Take the unit attention of a new initiator."""
        assert (await self.run("00 0000000000", unit=unit)).sense == (6, 0x29, 0)
        return self
